"""Models of a job stay in memory, and their files are read after a restart."""

import re

import keras
import numpy as np
import pytest
from keras import layers

from tfnas.compression.model_store import KEPT, ModelStore
from tfnas.loading import Loading, load_model

X = np.linspace(-1, 1, 8, dtype="float32").reshape(2, 4)


class Shifted(layers.Layer):
    def __init__(self, by=1.0, **kwargs):
        super().__init__(**kwargs)
        self.by = by

    def call(self, x):
        return x + self.by


class Complete(Shifted):
    def get_config(self):
        return {**super().get_config(), "by": self.by}


class Incomplete(Shifted):
    """Its configuration lacks an argument: another layer is read from the file."""

    def get_config(self):
        config = super().get_config()
        config.pop("by", None)
        return config


class Unsaved(layers.Layer):
    """Can't be saved."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


def network(*first):
    return keras.Sequential([keras.Input((4,)), *first, layers.Dense(2)])


def store_for(model, notes):
    return ModelStore(Loading().knowing(model), lambda: X, notes.append)


def test_a_model_in_memory_is_used_as_it_is_and_memory_does_not_grow(tmp_path):
    notes, models = [], [network() for _ in range(KEPT + 2)]
    store = store_for(models[0], notes)
    paths = [tmp_path / f"{number}.keras" for number in range(len(models))]
    for path, model in zip(paths, models, strict=True):
        assert path not in store
        store.put(path, model)
    assert [store.get(path) is model for path, model in zip(paths, models, strict=True)] == [
        False,
        False,
        *[True] * KEPT,
    ]
    np.testing.assert_array_equal(store.get(paths[0])(X), models[0](X))
    assert all(path in store_for(models[0], notes) for path in paths)  # a restart
    assert notes == []


@pytest.mark.parametrize(
    ("layer", "note"),
    [
        (lambda: layers.Lambda(lambda v: v + 1.0), "can't be read again .*safe_mode=False"),
        (lambda: Incomplete(5.0), r"compute something else .* get_config\(\)"),
        (lambda: Unsaved(np.negative), "can't be saved"),
    ],
    ids=["Lambda", "incomplete configuration", "no configuration"],
)
def test_models_that_files_lose_stay_in_memory(layer, note, tmp_path):
    notes, models = [], [network(layer()) for _ in range(KEPT + 2)]
    store = store_for(models[0], notes)
    for number, model in enumerate(models):
        store.put(tmp_path / f"{number}.keras", model)
    assert all(store.get(tmp_path / f"{n}.keras") is model for n, model in enumerate(models))
    assert len(notes) == 1
    assert re.search(note, notes[0])
    store.release(tmp_path, [tmp_path / "1.keras"])
    assert store.get(tmp_path / "1.keras") is models[1]
    assert not list(tmp_path.glob(".*"))  # no parts of files that could not be written


def test_a_restart_knows_the_classes_of_the_model_in_memory(tmp_path):
    notes, model = [], network(Complete(2.0))
    store_for(model, notes).put(tmp_path / "model.keras", model)
    again = store_for(model, notes).get(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(X), model(X))
    assert notes == []


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize(
    ("layer", "arguments", "way_out"),
    [
        (lambda: layers.Lambda(lambda v: v + 1.0), {"safe_mode": False}, "safe_mode=False"),
        (lambda: Complete(2.0), {"custom_objects": {"Complete": Complete}}, "custom_objects="),
    ],
    ids=["Lambda", "class"],
)
def test_the_error_names_the_way_out(layer, arguments, way_out, suffix, tmp_path):
    model, path = network(layer()), tmp_path / f"model.{suffix}"
    model.save(path)
    with pytest.raises(ValueError, match=f"can't be loaded: .*{way_out}"):
        load_model(path)
    np.testing.assert_array_equal(load_model(path, **arguments)(X), model(X))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"custom_objects": [Complete]}, "custom_objects must map names to classes or functions"),
        ({"custom_objects": {"Complete": 1}}, "custom_objects must map names to classes"),
        ({"safe_mode": "no"}, "safe_mode must be True or False, got 'no'"),
    ],
)
def test_arguments_outside_their_rule_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_model("model.keras", **arguments)
