"""The same call with the same seed gives the same weights; other seeds others.

The trainings run in :mod:`seeds`, a process of its own with deterministic operations.
"""

import json
import os
import pathlib
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import seeds
import tensorflow as tf

from tfnas.data.augmentation import AugmentedImages, ShuffledBatches
from tfnas.runtime.randomness import kept_random_state, seed_layers, seeded

PROGRAM = pathlib.Path(seeds.__file__)
PACKAGES = str(PROGRAM.parents[2])


def printed(part, folder, hash_seed):
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": PACKAGES}
    command = [sys.executable, PROGRAM, part, folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(found):
    for name, runs in found.items():
        assert runs["first"] == runs["again"], name
        first, other = runs["first"], runs["other"]
        pairs = (
            [(first, other)] if isinstance(first, str) else [(first[k], other[k]) for k in first]
        )
        assert all(one != another for one, another in pairs), name


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    return printed("steps", tmp_path_factory.mktemp("steps"), "1")


@pytest.mark.slow  # tests/compression/test_trial_compression.py trains a trial twice
def test_fine_tuning_is_determined_by_its_seed(tmp_path):
    """Distilled, on augmented images."""
    found = printed("both", tmp_path, "1")
    assert set(found) == {"both"}
    check(found)


@pytest.mark.slow
def test_each_kind_of_fine_tuning_is_determined_by_its_seed(fine_tuned):
    """Alone, distilled, on augmented images, and as a step of `compress`."""
    assert set(seeds.CASES) < set(fine_tuned)
    assert {"step prune_channels", "step prune", "step cluster", "step aware"} < set(fine_tuned)
    check(fine_tuned)


@pytest.mark.slow
def test_fine_tuning_is_the_same_whatever_the_order_of_sets(fine_tuned, tmp_path):
    assert printed("steps", tmp_path, "2") == fine_tuned


@pytest.mark.slow
def test_each_command_twice(tmp_path):
    """Weights and files, byte by byte."""
    found = printed("commands", tmp_path, "1")
    assert {name.split()[0] for name in found} == {
        "prune",
        "cluster",
        "factorize",
        "prune-channels",
        "qat",
    }
    check(found)


@pytest.mark.slow
def test_jobs_are_the_same_also_after_kills(tmp_path):
    """The same candidates, each with the same weights and the same file."""
    found = printed("jobs", tmp_path, "1")
    assert set(found) == {"bytes", "macs"}
    for name, runs in found.items():
        assert len(runs["first"]) > 4, name  # something was trained
        assert runs["first"] == runs["again"] == runs["killed"], name


@pytest.mark.slow
def test_a_trial_is_the_same_here_elsewhere_and_after_a_kill(tmp_path):
    found = printed("searches", tmp_path, "1")
    assert len(found["first"]) == 3
    assert found["first"] == found["again"] == found["killed"] == found["elsewhere"]
    assert not set(found["first"].values()) & set(found["other"].values())


# --- the caller's generators


def drawn():
    return (
        random.random(),
        np.random.random(),  # noqa: NPY002
        float(tf.random.uniform([])),
        float(keras.random.uniform([])),
    )


def test_what_is_not_restored_is_what_the_documentation_says():
    with kept_random_state():
        tf.random.set_seed(1)
        first = float(tf.random.uniform([], seed=7))
        with seeded(0):
            pass
        assert float(tf.random.uniform([], seed=7)) == first  # its sequence starts again
        generator = tf.random.get_global_generator()
        before = np.asarray(generator.state)
        with seeded(0):
            generator.uniform([])
        assert not np.array_equal(np.asarray(generator.state), before)


def test_layers_with_a_seed_of_their_own_are_seeded_too():
    def state(seed):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5, seed=seed)])
        seed_layers(model, 0)
        return np.asarray(model.variables[0]).tolist()

    assert state(42) == state(43)


def test_training_does_not_change_the_callers_generators():
    with kept_random_state():
        keras.utils.set_random_seed(1)
        first = drawn()
        second = drawn()
        keras.utils.set_random_seed(1)
        assert drawn() == first
        with seeded(0):
            own = drawn()
        assert drawn() == second
        with seeded(0):
            assert drawn() == own


def test_without_a_seed_of_the_caller_there_is_none_afterwards():
    with kept_random_state():
        tf.random.set_seed(None)
        with seeded(0):
            pass
        assert len({float(tf.random.uniform([], seed=None)) for _ in range(3)}) == 3
        keras.utils.set_random_seed(1)
        with pytest.raises(RuntimeError, match="stop"), seeded(0):  # also after a failure
            raise RuntimeError("stop")
        after = drawn()
        keras.utils.set_random_seed(1)
        assert drawn() == after


def test_layers_that_draw_are_seeded_individually():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5)])
    layers = [keras.Input((4,)), keras.layers.Dropout(0.5), inner, keras.layers.GaussianNoise(1.0)]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    x, weights = np.ones((8, 4), np.float32), model.get_weights()
    model(x, training=True)
    seed_layers(model, 0)
    states = [np.array(v) for v in model.variables if v.name == "seed_generator_state"]
    assert len({tuple(state) for state in states}) == 3
    first = np.asarray(model(x, training=True))
    assert not np.array_equal(first, model(x, training=True))
    seed_layers(model, 0)
    np.testing.assert_array_equal(first, model(x, training=True))
    seed_layers(model, 1)
    assert not np.array_equal(first, model(x, training=True))
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


# --- the batches


def test_arrays_are_shuffled_anew_each_epoch():
    """Also with TensorFlow's seed set, where those of Keras' `fit` come in the same each time."""
    x, y = np.arange(10, dtype=np.uint8)[:, None], (np.arange(10), np.arange(10.0)[:, None])

    def orders(seed):
        with seeded(seed):
            source = ShuffledBatches((x, y), 4, seed)
            batches = source.dataset()
            assert len(batches) == 3
            found = []
            for epoch in range(3):
                source.start_at(epoch)
                parts = list(batches.as_numpy_iterator())
                assert [len(images) for images, _ in parts] == [4, 4, 2]
                for images, (labels, answers) in parts:
                    np.testing.assert_array_equal(images[:, 0], labels)
                    np.testing.assert_array_equal(answers[:, 0], labels)
                found.append(tuple(np.concatenate([labels for _, (labels, _) in parts])))
        assert all(sorted(order) == list(range(10)) for order in found)
        return found

    first = orders(0)
    assert len(set(first)) == 3
    assert orders(0) == first
    assert orders(1) != first


def test_reading_ahead_changes_no_batch():
    """The next batches are the same whether an epoch is read in part or to its end."""
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    found = []
    for read in (1, 2, 10):
        dataset = AugmentedImages(x, np.arange(40), ("flip", "shift"), 4, seed=0).dataset()
        for _ in zip(range(read), dataset, strict=False):
            pass
        found.append([[np.array(part) for part in batch] for batch in dataset])
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            for mine, theirs in zip(one, another, strict=True):
                np.testing.assert_array_equal(mine, theirs)
