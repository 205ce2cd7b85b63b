"""One trial without a tuner: trained, converted, measured."""

import keras
import keras_tuner as kt
import numpy as np
import pytest
from fake_device import FakeDevice

import tfnas
from tfnas.measure.elsewhere import timing_device
from tfnas.measure.elsewhere.timing_device import DeviceLost, FileRefused
from tfnas.nas.objectives import Objectives, objective_of
from tfnas.nas.trial_failures import DeviceLostInTrial, InfeasibleTrialError
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


def test_latencies_are_those_of_the_device(tmp_path):
    device = FakeDevice()
    _, metrics = run(tmp_path, limits={"latency_ratio": 3}, measure_on=device)
    assert metrics["latency_ratio"] == 2
    assert len(device.calls) == 2  # before the training, for the limit, and after it
    measured = tfnas.Measurement.from_json((tmp_path / "measurement.json").read_text())
    assert measured.latency.device == "fake:1: a fake device"


@pytest.mark.parametrize(
    ("error", "kind"),
    [(DeviceLost("no route"), DeviceLostInTrial), (FileRefused("no"), InfeasibleTrialError)],
)
def test_a_device_that_is_lost_ends_the_search_and_a_file_that_is_refused_a_trial(
    tmp_path, monkeypatch, error, kind
):
    monkeypatch.setattr(timing_device, "PAUSES", ())
    with pytest.raises(kind, match="no") as raised:
        run(tmp_path, limits={"latency_ratio": 3}, measure_on=FakeDevice([error]))
    assert isinstance(raised.value, ConnectionError) == isinstance(error, DeviceLost)
    assert isinstance(raised.value, kt.errors.FatalError) == isinstance(error, DeviceLost)
    assert list(tmp_path.iterdir()) == []


class Diverging(Hyper):
    def build(self, hp):
        model = super().build(hp)
        model.optimizer.learning_rate = float("inf")
        return model


@pytest.mark.parametrize("objective", ["reward", kt.Objective("val_accuracy", "max")])
def test_a_training_that_diverges_ends_the_trial_at_that_epoch(tmp_path, objective):
    begun = []
    count = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    objectives = Objectives.of(objective_of(objective), None)
    runner = TrialRunner(Diverging(), objectives, tfnas.TunerConfig(), tfnas.Device())
    arch = HyperParameterValues((("units", 8),))
    task = TrialTask(kt.HyperParameters(), arch, tmp_path, str(tmp_path / "w.weights.h5"), 0)
    fit = {**FIT, "epochs": 9, "callbacks": [count]}
    with pytest.raises(kt.errors.FailedTrialError, match=r"must stay finite, got nan in epoch \d"):
        runner.run(task, Diverging().build(None), (X, Y), fit)
    assert len(begun) < 3
    assert list(tmp_path.iterdir()) == []


def test_a_search_goes_on_with_the_same_device_alone(tmp_path):
    def tuner(name, measure_on):
        config = tfnas.TunerConfig(mode="float32", measure_on=measure_on)
        folder = {"directory": str(tmp_path / name), "project_name": "search"}
        return tfnas.RandomTuner(Units(), "reward", 2, 0, config=config, **folder)

    state = tuner("a", "adb:4A1").get_state()
    tuner("b", "adb:4A1,timeout=900").set_state(state)
    with pytest.raises(ValueError, match=r"measure_on .* is 'adb:4A1', got 'adb': rewards would"):
        tuner("c", "adb").set_state(state)
    del state["measure_on"]  # as a search of an earlier version: it measured on its own machine
    tuner("d", None).set_state(state)
    with pytest.raises(ValueError, match=r"measure_on .* is None, got 'adb': rewards would not"):
        tuner("e", "adb").set_state(state)


@pytest.mark.slow
def test_a_search_whose_device_was_lost_goes_on_with_the_same_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(timing_device, "PAUSES", ())

    def tuner(*errors):
        device = FakeDevice(list(errors))
        config = tfnas.TunerConfig(mode="float32", rounds=6, measure_on=device)
        folder = {"directory": str(tmp_path), "project_name": "search"}
        return device, tfnas.RandomTuner(Units(), "reward", 2, 0, config=config, **folder)

    _, lost = tuner(DeviceLost("no route"))
    with pytest.raises(ConnectionError, match="no route"):
        lost.search(X, Y, **FIT)
    assert not lost.oracle.records
    device, found = tuner()
    found.search(X, Y, **FIT)
    assert len(found.oracle.records) == len(device.calls) == 2
    assert {trial.status for trial in found.oracle.trials.values()} == {"COMPLETED"}


class Units(Hyper):
    def build(self, hp):
        hp.Int("units", 4, 8)
        return super().build(hp)
