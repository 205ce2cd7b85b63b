"""Zeros, shared values and numbers of 8 bits, told from a kernel's numbers alone."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.graph.kernel_state import (
    channels_share_values,
    holds_8_bit_numbers,
    is_pruned,
    kernel_compression,
    shares_values,
)


def test_shared_values():
    rng = np.random.default_rng(0)
    assert shares_values(rng.choice([0.0, 0.1, 0.2], (30, 30)))
    own = np.stack([rng.choice(rng.normal(size=4), 100) for _ in range(30)], -1)
    assert shares_values(own)  # each channel has its own values
    assert not shares_values(rng.normal(size=(30, 30)))
    assert not shares_values(np.ones((30, 30)))
    assert not shares_values(np.where(rng.random((30, 30)) < 0.99, 0, rng.normal(size=(30, 30))))


def test_pruned():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 3, 8, 8))
    assert not is_pruned(weights)
    assert is_pruned(np.where(rng.random(weights.shape) < 0.2, 0, weights))
    assert not is_pruned(
        np.where(rng.random(weights.shape) < 0.05, 0, weights)
    )  # as training leaves
    weights[..., :4] = 0  # entire channels
    weights[:, :, 2] = 0
    assert not is_pruned(weights)
    assert not is_pruned(np.zeros((8, 16)))


def test_channels_share_values():
    rng = np.random.default_rng(0)
    assert channels_share_values(rng.choice([0.0, 0.1, 0.2, 0.3], (3, 3, 8, 8)))
    own = np.stack([rng.choice(rng.normal(size=4), 100) for _ in range(4)], -1)
    assert shares_values(own)
    assert not channels_share_values(own)
    assert not channels_share_values(rng.normal(size=(30, 30)))
    few = np.where(
        rng.random((3, 3, 1, 24)) < 0.5,
        0,
        rng.choice(rng.normal(size=15), 216).reshape(3, 3, 1, 24),
    )
    assert channels_share_values(few)
    assert shares_values(few)
    two = np.stack([rng.choice(rng.normal(size=15), 500)] * 2, -1)
    assert channels_share_values(two)


def test_half_precision_is_not_taken_for_sharing():
    """After rounding to bfloat16 some weights are equal by chance."""
    rng = np.random.default_rng(0)
    for shape in (
        (3, 3, 1, 8),
        (3, 3, 1, 32),
        (3, 3, 3, 16),
        (3, 3, 16, 16),
        (288, 10),
        (1024, 64),
    ):
        for free in (rng.normal(size=shape), rng.uniform(-0.1, 0.1, shape)):
            rounded = np.asarray(keras.ops.cast(keras.ops.cast(free, "bfloat16"), "float32"))
            assert not channels_share_values(rounded)
            assert not shares_values(rounded)


def rounded(kernel, axis):
    """Weights as they come from an 8-bit file: one step for each index of the other axes."""
    axes = tuple(i for i in range(kernel.ndim) if i not in axis)
    step = np.abs(kernel).max(axis=axes, keepdims=True) / 127
    return (np.round(kernel / step) * step).astype("float32")


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((64, 16), ()),
        ((64, 16), (1,)),
        ((3, 3, 8, 16), (3,)),
        ((3, 3, 8, 16), (2,)),
        ((3, 3, 16, 2), (2, 3)),
    ],
)
def test_weights_of_an_8_bit_file_are_not_taken_for_clusters(shape, axis):
    kernel = np.random.default_rng(0).normal(size=shape)
    assert holds_8_bit_numbers(rounded(kernel, axis))
    assert kernel_compression(rounded(kernel, axis)) == ""
    assert not holds_8_bit_numbers(kernel.astype("float32"))


def test_clusters_and_zeros_are_not_taken_for_weights_of_an_8_bit_file():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(64, 32)).astype("float32")
    centroids = np.sort(rng.normal(size=16)).astype("float32")
    clustered = centroids[np.abs(kernel[..., None] - centroids).argmin(axis=-1)]
    assert kernel_compression(clustered) == "clusters"
    pruned = rounded(np.where(np.abs(kernel) < 1, 0, kernel), (1,))
    assert not holds_8_bit_numbers(pruned)
    assert kernel_compression(pruned) in ("zeros", "clusters")


def test_a_model_of_weights_from_an_8_bit_file_is_factorized_and_pruned():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, name="d"), layers.Dense(8)])
    for layer in model.layers:
        layer.kernel.assign(rounded(layer.kernel.numpy(), (1,)))
    assert tfnas.factorize(model, rank=4)[1].layers[0].name == "d"
    assert tfnas.prune(model, 0.5)[1].sparsity == pytest.approx(0.5, abs=0.02)
