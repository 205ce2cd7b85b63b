"""The epochs of a job's trainings, in a file."""

import keras
import numpy as np
import pytest

from tfnas.compression.training_curves import TrainingCurves


def test_a_training_writes_its_epochs_down(tmp_path):
    curves = TrainingCurves(tmp_path / "curves.json")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"], jit_compile=False)
    x = np.ones((8, 2))
    history = model.fit(x, x[:, :1], epochs=3, verbose=0, callbacks=[curves.callback("first")])
    found = TrainingCurves(tmp_path / "curves.json").curves["first"]
    assert found == history.history


def test_a_training_that_goes_on_replaces_what_it_trains_again(tmp_path):
    curves = TrainingCurves(tmp_path / "curves.json")
    for epoch, loss in enumerate([0.9, 0.8, 0.7]):
        curves.add("one", epoch, {"loss": loss})
    curves = TrainingCurves(tmp_path / "curves.json")
    curves.add("one", 2, {"loss": 0.6, "zeros": 0.5})
    assert curves.curves["one"] == {"loss": [0.9, 0.8, 0.6], "zeros": [None, None, 0.5]}
    curves.add("one", 0, {"loss": float("nan")})
    assert TrainingCurves(curves.path).curves["one"] == {"loss": [None]}


def test_a_file_of_something_else_is_named(tmp_path):
    (tmp_path / "curves.json").write_text('{"loss": 1}')
    with pytest.raises(ValueError, match=r"curves\.json"):
        TrainingCurves(tmp_path / "curves.json")
