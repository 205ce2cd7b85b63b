"""One trial without a tuner: trained, converted, measured."""

import keras
import keras_tuner as kt
import numpy as np
import pytest

import tfnas
from tfnas.nas.objectives import Objectives, objective_of
from tfnas.nas.trial_failures import InfeasibleTrialError
from tfnas.nas.trial_runner import TrialRunner, TrialTask
from tfnas.search_space.hyperparameters import HyperParameterValues

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(48, 6)).astype("float32"), np.arange(48) % 2
FIT = {"epochs": 1, "batch_size": 16, "verbose": 0, "validation_data": (X, Y), "callbacks": []}


class Hyper(kt.HyperModel):
    def build(self, hp):
        layers = [
            keras.layers.Dense(8, "relu", name="hidden"),
            keras.layers.Dense(2, "softmax", name="classes"),
        ]
        model = keras.Sequential([keras.Input((6,)), *layers])
        loss = "sparse_categorical_crossentropy"
        model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
        return model


def run(folder, limits=None, objective="reward", parent=None, **settings):
    objectives = Objectives.of(objective_of(objective), limits)
    config = tfnas.TunerConfig(mode="float32", rounds=6, **settings)
    runner = TrialRunner(Hyper(), objectives, config, tfnas.Device())
    hp = kt.HyperParameters()
    arch = HyperParameterValues((("units", 8),))
    task = TrialTask(hp, arch, folder, str(folder / "w.weights.h5"), 0, load_parent=parent)
    return runner, runner.run(task, Hyper().build(hp), (X, Y), FIT)


def test_a_trial_needs_neither_tuner_nor_oracle(tmp_path):
    parent = Hyper().build(None)
    runner, metrics = run(tmp_path, inherit=True, target_latency_ratio=0.1, parent=lambda: parent)
    file = tfnas.Artifact.load(tmp_path / "model.tflite")
    assert metrics["size_bytes"] == file.size
    assert metrics["file_accuracy"] == (file.predict(X).argmax(1) == Y).mean()
    assert metrics["reward"] == runner.reward(metrics["file_accuracy"], metrics["latency_ratio"])
    assert metrics["parameters"] == 6 * 8 + 8 + 8 * 2 + 2
    assert metrics["inherited"] == 1.0
    assert {path.name for path in tmp_path.glob("*.json")} == {
        "architecture.json", "measurement.json",
    }  # fmt: skip


def test_a_limit_that_training_cannot_keep_costs_none(tmp_path):
    with pytest.raises(InfeasibleTrialError, match="infeasible: parameters 74 breaks parameters"):
        run(tmp_path, limits={"parameters": 50})
    assert list(tmp_path.iterdir()) == []


def test_without_a_metric_of_the_file_nothing_is_converted(tmp_path):
    runner, history = run(tmp_path, objective=["val_accuracy"])
    assert not runner.measures
    assert "val_accuracy" in history.history
    assert list(tmp_path.iterdir()) == []
