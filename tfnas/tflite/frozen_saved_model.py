"""Writes a Keras model as a SavedModel whose weights are constants, which converts fast.

`TFLiteConverter.from_keras_model` goes through `keras.export`: all variables are written as a
checkpoint, every function is traced several times, and that takes most of a conversion's
time. Here the model is traced once, its variables become constants, and what is written is a
single function without any state. The converter reads it as it reads every SavedModel, and
writes the same operators, weights and ranges (`tests/tflite/test_frozen_saved_model.py`).
"""

from __future__ import annotations

import contextlib
import gc
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    import tensorflow as tf

SIGNATURE = "serving_default"
_MOST_BYTES = 2**30  # of weights: a graph of constants is one protocol buffer, at most 2 GiB


def can_be_frozen(model: keras.Model) -> bool:
    """Whether a model's graph can hold its state: weights of at most 1 GiB, and no tables."""
    weights = sum(v.value.shape.num_elements() * v.value.dtype.size for v in model.variables)
    return weights <= _MOST_BYTES and not any(
        _holds_tables(layer) for layer in model._flatten_layers()
    )


def write_frozen_saved_model(model: keras.Model, directory: str | pathlib.Path) -> None:
    """Writes a model for inference, with the names of its inputs and outputs as keras.export's.

    Args:
        model: A built Keras 3 model with known inputs; see :func:`can_be_frozen`.
        directory: An empty directory.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (  # no public name in TF 2.21
        convert_variables_to_constants_v2,
    )

    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]
    functional = getattr(model, "_functional", None) or model  # Sequential models hold one

    def infer(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(keras.tree.pack_sequence_as(functional.input, inputs), training=False)
        return _named(outputs)

    traced = tf.function(infer, autograph=False).get_concrete_function(*specs)
    names = sorted(traced.structured_outputs)
    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False)

    def serve(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(names, keras.tree.flatten(frozen(*inputs)), strict=True))

    module = tf.Module()
    module.serve = tf.function(serve, input_signature=specs, autograph=False)
    signature = module.serve.get_concrete_function()
    tf.saved_model.save(
        module,
        str(directory),
        signatures={SIGNATURE: signature},
        # Those of silu, say, capture values of the first graph, and nobody trains this one.
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )


@contextlib.contextmanager
def without_old_garbage() -> Iterator[None]:
    """Leaves objects that exist already out of garbage collections for a while.

    The converter collects garbage in the middle of each conversion. In a process that has
    trained networks, looking through all old objects takes longer than the conversion.
    """
    if gc.get_freeze_count():  # the user's own gc.freeze() must outlive this
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _named(outputs: object) -> dict[str, tf.Tensor]:
    """Outputs by the names that a SavedModel's signature gives them."""
    if isinstance(outputs, dict):
        return dict(outputs)
    return {f"output_{i}": value for i, value in enumerate(keras.tree.flatten(outputs))}


def _holds_tables(layer: keras.layers.Layer) -> bool:
    """Whether a layer looks up strings or integers in a table that is initialized at loading."""
    return hasattr(layer, "lookup_table") or hasattr(layer, "_lookup_layer")
