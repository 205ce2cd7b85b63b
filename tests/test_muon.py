"""Muon's steps beside SVD's, keras.optimizers.Muon's on matrices, and Adam's elsewhere."""

import doctest

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas import muon
from tfnas.muon import is_matrix, orthogonal


@pytest.mark.parametrize("shape", [(27, 16), (16, 27), (64, 64), (1, 5)])
def test_orthogonal_is_near_what_svd_gives(shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    found = np.asarray(orthogonal(matrix, 5))
    values = np.linalg.svd(found, compute_uv=False)
    assert values.min() > 0.3  # of a square matrix the least one is still on its way
    assert values.max() < 1.3
    cosine = (found * (left @ right)).sum() / np.linalg.norm(found) / np.linalg.norm(left @ right)
    assert cosine > 0.97


@pytest.mark.skipif(not hasattr(keras.optimizers, "Muon"), reason="Keras has none before 3.10")
def test_kernels_move_as_matrices_do_in_keras():
    rng = np.random.default_rng(1)
    start = rng.normal(size=(3, 3, 4, 8)).astype(np.float32)
    kernel = keras.Variable(start, name="kernel")
    matrix = keras.Variable(start.reshape(36, 8), name="matrix")
    ours = tfnas.Muon(0.01)
    theirs = keras.optimizers.Muon(0.01, weight_decay=None)
    for _ in range(4):
        gradient = rng.normal(size=start.shape).astype(np.float32)
        ours.apply([gradient], [kernel])
        theirs.apply([gradient.reshape(36, 8)], [matrix])
    np.testing.assert_allclose(np.asarray(kernel).reshape(36, 8), matrix, atol=1e-6)


def test_a_step_has_the_size_of_the_rate():
    kernel = keras.Variable(np.zeros((3, 3, 16, 32)), name="kernel")
    gradient = 1e-4 * np.random.default_rng(0).normal(size=kernel.shape)
    tfnas.Muon(0.01).apply([gradient.astype(np.float32)], [kernel])
    assert np.sqrt(np.mean(np.square(kernel))) == pytest.approx(0.2 * 0.01, rel=0.2)


def test_all_else_is_adams():
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 8, 1), (8, 4), (4,), (3, 3, 1, 8)]
    start = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    ends = []
    for optimizer in (tfnas.Muon(0.01), keras.optimizers.Adam(0.01)):
        variables = [keras.Variable(v, name="v") for v in start]
        for _ in range(3):
            optimizer.apply([v + 0.1 for v in start], variables)
        ends.append([np.asarray(v) for v in variables])
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_is_matrix():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Conv2D(1, 3)])
    assert [is_matrix(v) for v in model.trainable_variables] == [True, False, False, False]


def test_trains_and_is_kept(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.Flatten()])
    model.compile(tfnas.Muon(5e-2, momentum=0.9), "mse", jit_compile=False)
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 1))
    losses = model.fit(x, np.ones((32, 144)), epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert isinstance(loaded.optimizer, tfnas.Muon)
    assert loaded.optimizer.momentum == 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"ns_steps": 0}, "ns_steps must be a whole number >= 1, got 0"),
        ({"scale": 0.0}, "scale must be above 0, got 0.0"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        tfnas.Muon(**options)


def test_examples():
    assert doctest.testmod(muon).failed == 0
