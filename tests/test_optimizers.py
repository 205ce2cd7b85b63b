"""Muon compared with the SVD, with keras.optimizers.Muon on matrices, and with Adam."""

import doctest
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfnas
from tfnas import optimizers
from tfnas.optimizers import is_matrix, orthogonal


@pytest.mark.parametrize("shape", [(27, 16), (16, 27), (64, 64), (1, 5)])
def test_orthogonal_approximates_the_svd(shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    found = np.asarray(orthogonal(matrix, 5))
    values = np.linalg.svd(found, compute_uv=False)
    assert values.min() > 0.3  # the smallest one of a square matrix has not converged yet
    assert values.max() < 1.3
    cosine = (found * (left @ right)).sum() / np.linalg.norm(found) / np.linalg.norm(left @ right)
    assert cosine > 0.97


@pytest.mark.skipif(not hasattr(keras.optimizers, "Muon"), reason="Keras has none before 3.10")
def test_kernels_are_updated_as_matrices_are_in_keras():
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


def test_rms_rate_sets_the_size_of_a_step():
    kernel = keras.Variable(np.zeros((3, 3, 16, 32)), name="kernel")
    gradient = 1e-4 * np.random.default_rng(0).normal(size=kernel.shape)
    tfnas.Muon(0.01).apply([gradient.astype(np.float32)], [kernel])
    assert np.sqrt(np.mean(np.square(kernel))) == pytest.approx(0.2 * 0.01, rel=0.2)


def test_other_variables_get_adams_update():
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


def test_fit_matches_manual_steps():
    """In `fit` the kernel of 2 inputs and 4 filters changes as in eager steps."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 8, 8, 2)).astype(np.float32), np.ones((16, 144), np.float32)

    def network():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(4, 3), layers.Flatten()])
        assert is_matrix(model.layers[0].kernel)
        return model

    model, manual = network(), network()
    model.compile(tfnas.Muon(5e-2, momentum=0.9), "mse", jit_compile=False)
    losses = model.fit(x, y, 16, 20, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    optimizer = tfnas.Muon(5e-2, momentum=0.9)
    for _ in range(20):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(manual(x) - y))
        variables = manual.trainable_variables
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
    np.testing.assert_allclose(model.layers[0].kernel, manual.layers[0].kernel, atol=1e-4)


@pytest.fixture
def saved(tmp_path):
    """A model that was saved with its optimizer."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    model.compile(tfnas.Muon(5e-2, momentum=0.9), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "m.keras")
    return tmp_path / "m.keras"


def test_the_optimizer_is_saved(saved):
    assert keras.saving.load_model(saved).optimizer.momentum == 0.9


@pytest.mark.slow
def test_a_saved_optimizer_is_known_once_its_module_is_imported(saved):
    program = (
        "import keras, sys, tfnas.optimizers\n"
        "print(keras.saving.load_model(sys.argv[1]).optimizer.momentum)"
    )
    command = [sys.executable, "-c", program, str(saved)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0.9\n"


def test_small_gradients_of_half_precision():
    kernel = keras.Variable(np.zeros((3, 3, 8, 8)), dtype="float16", name="kernel")
    tiny = 1e-6 * np.random.default_rng(0).normal(size=kernel.shape)
    tfnas.Muon(0.01).apply([tiny.astype(np.float16)], [kernel])
    moved = np.asarray(kernel, np.float32)
    assert np.isfinite(moved).all()
    assert np.abs(moved).max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"ns_steps": 0}, "ns_steps must be a whole number >= 1, got 0"),
        ({"rms_rate": 0.0}, "rms_rate must be above 0, got 0.0"),
    ],
)
def test_invalid_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        tfnas.Muon(**options)


def test_doctests_pass():
    assert doctest.testmod(optimizers).failed == 0
