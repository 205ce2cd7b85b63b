"""States of conversions, made by hand, of one small network."""

import functools

import keras
import numpy as np

import tfnas
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.passes.conversion_state import Conversion

X = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


def network(policy=None):
    """Returns a network of two Dense layers with a BatchNormalization between them."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(8, name="first", dtype=policy),
        keras.layers.BatchNormalization(name="norm", dtype=policy),
        keras.layers.ReLU(name="relu", dtype=policy),
        keras.layers.Dense(3, name="last", dtype=policy),
    ]
    return keras.Sequential([keras.Input((6,)), *layers], name="small")


def quantized(spec="int8"):
    """Returns the network as a quantization-aware model that has seen data."""
    return tfnas.quantize_aware(network(), spec, data=X)


@functools.cache
def float_file():
    """Returns the network's float32 file."""
    return tfnas.to_tflite(network())


def conversion(mode="float32", model=None, **fields):
    """Returns a state; `fields` are those of a conversion."""
    return Conversion(model or network(), QuantSpec.of(mode), **fields)
