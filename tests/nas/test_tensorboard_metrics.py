"""TensorBoard in a search: asked for before the first trial, with all that is measured."""

import importlib.util
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfnas import EvolutionTuner
from tfnas.nas.tensorboard_metrics import check_tensorboard, write_measured


class Own(keras.callbacks.TensorBoard):
    """A callback of a user's own."""


def build(hp):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(hp.Int("units", 2, 4)), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse", jit_compile=False)
    return model


@pytest.mark.parametrize("kind", [keras.callbacks.TensorBoard, Own])
def test_a_missing_package_fails_before_the_first_trial(kind, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    tuner = EvolutionTuner(build, "val_loss", 2, directory=tmp_path)
    x = np.ones((8, 4), "float32")
    data = {"x": x, "y": x[:, :1], "validation_data": (x, x[:, :1]), "verbose": 0}
    with pytest.raises(ImportError, match=r"tensorboard must .* callback TensorBoard.*\[tensorb"):
        tuner.search(**data, callbacks=[kind(tmp_path / "logs")])
    assert tuner.oracle.trials == {}


def test_other_callbacks_need_nothing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for callbacks in (None, [], [keras.callbacks.CSVLogger("log.csv")]):
        check_tensorboard(callbacks)
        write_measured(callbacks, {"size_bytes": 1.0})


def test_what_is_measured_is_written_beside_the_hyperparameters(tmp_path):
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = keras.callbacks.TensorBoard(str(tmp_path))
    metrics = {"file_accuracy": 0.75, "size_bytes": 1000, "latency_ratio": float("nan")}
    write_measured([callback], metrics)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    found = {
        tag: float(tf.make_ndarray(events.Tensors(tag)[0].tensor_proto))
        for tag in events.Tags()["tensors"]
    }
    assert found == {"file_accuracy": 0.75, "size_bytes": 1000}
