"""Predicted latencies: dropped proposals, features of the surrogate, errors."""

import dataclasses
import types

import numpy as np
import pytest
from simulated_latency import time_by_size
from tuner_settings import arranged

import tfnas
from tfnas.measure.latency_model import profiling
from tfnas.measure.latency_model.latency_model import LatencyModel
from tfnas.measure.latency_model.regression import LatencyErrors
from tfnas.nas import latency_prediction
from tfnas.nas.latency_prediction import FILE, PredictionErrors, errors_text
from tfnas.nas.search_callbacks import TrialCallbacks


@pytest.fixture(scope="module")
def space():
    stage = tfnas.StageChoices((8, 16, 32), (1, 2), 2, ("inverted_residual",), (3, 5), (1, 2, 4))
    return tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller", stages=[stage])


@pytest.fixture(scope="module")
def fitted(space):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiling, "benchmark", time_by_size([]))
        patch.setattr(profiling, "MIN_NETWORKS", 60)
        return tfnas.LatencyModel("int8").fit(space, seconds=1e-9)


class Untrained(tfnas.EvolutionTuner):
    """Its trials report what the prediction says, twice as much at random."""

    def run_trial(self, trial, *args, **kwargs):
        ratio = self.latency_predictor.ratio(self.oracle.architecture(trial))
        return {"file_accuracy": 0.5 + 0.1 * ratio, "latency_ratio": ratio, "latency_ms": 1.0}


def make(space, folder, **arguments):
    settings = {
        "objective": ["file_accuracy", "latency_ratio"], "max_trials": 12, "seed": 0,
        "population_size": 4, "tournament_size": 2, "children": 6, "directory": str(folder),
        "project_name": "search",
    }  # fmt: skip
    tuner = Untrained(space, **arranged(tfnas.EvolutionSampler, {**settings, **arguments}))
    tuner.oracle.verbose = 0
    return tuner


DATA = {"validation_data": (np.zeros(1), np.zeros(1))}


def sampled(space, fitted):
    rng = np.random.default_rng(1)
    return sorted(fitted(space.sample(rng)) for _ in range(40))


@pytest.fixture
def unbuilt(space, monkeypatch):
    def build(arch):
        raise AssertionError("a candidate was built to know its latency")

    monkeypatch.setattr(space, "build", build)


def test_proposals_that_break_a_latency_limit_are_neither_tried_nor_built(
    space, fitted, tmp_path, unbuilt
):
    bound = sampled(space, fitted)[12]
    tuner = make(space, tmp_path, latency_model=fitted, limits={"latency_ratio": bound})
    tuner.search(**DATA)
    assert len(tuner.oracle.records) == 12
    margin = 1 + fitted.fitted.errors.p90
    assert all(fitted(e.architecture) <= bound * margin for e in tuner.oracle.records)
    dropped = tuner.oracle.proposals.infeasible
    assert dropped
    kept = {record.architecture.network for record in tuner.oracle.records}
    assert not dropped & kept


def test_a_limit_that_no_architecture_keeps_ends_the_search(space, fitted, tmp_path, unbuilt):
    bound = sampled(space, fitted)[0] / 100
    tuner = make(space, tmp_path, latency_model=fitted, limits={"latency_ratio": bound})
    with pytest.raises(RuntimeError, match=r"limits latency_ratio <= .* must leave a feasible"):
        tuner.search(**DATA)
    assert tuner.oracle.trials == {}


def test_a_limit_in_ms_uses_the_reference_model_of_this_machine(
    space, fitted, tmp_path, monkeypatch
):
    latency = types.SimpleNamespace(reference_ms=0.5)
    monkeypatch.setattr(latency_prediction, "benchmark", lambda *args, **kwargs: [latency])
    bound = sampled(space, fitted)[12]
    tuner = make(space, tmp_path, latency_model=fitted, limits={"latency_ms": 0.5 * bound})
    tuner.search(**DATA)
    margin = 1 + fitted.fitted.errors.p90
    assert all(fitted(e.architecture) <= bound * margin for e in tuner.oracle.records)
    assert tuner.oracle.proposals.infeasible


def test_the_surrogate_sees_the_predicted_latency(space, fitted, tmp_path):
    plain, seeing = make(space, tmp_path / "a"), make(space, tmp_path / "b", latency_model=fitted)
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(60)]
    before, after = ([t.oracle.encode(arch) for arch in archs] for t in (plain, seeing))
    np.testing.assert_array_equal(before, [vector[:-1] for vector in after])
    seen = np.array([vector[-1] for vector in after])
    ratios = np.array([fitted(arch) for arch in archs])
    assert np.corrcoef(seen, np.log(ratios))[0, 1] == pytest.approx(1)
    assert 0.5 < seen.std() < 2


@pytest.mark.parametrize(
    ("within_10", "spearman", "verdict"),
    [
        (0.95, 0.97, "good enough to choose networks by"),
        (0.60, 0.97, "rough, but slow and fast networks are told apart; reported latencies are"),
        (0.95, 0.50, "too rough to choose networks by; reported latencies are measured"),
    ],
)
def test_what_follows_from_the_errors_is_said(within_10, spearman, verdict):
    errors = LatencyErrors(0.01, 0.02, within_10, 0.9, spearman, 50)
    text = errors_text(errors)
    assert text.startswith(f"{within_10:.0%} of 50 networks within 10% of the measured latency")
    assert f": {verdict}" in text
    good = LatencyErrors(0.01, 0.02, 0.99, 0.9, 0.99, 50)
    for networks in (2, 20):
        trials = dataclasses.replace(errors, networks=networks)
        on_trials = str(PredictionErrors(good, trials)).partition(". Of the ")[2]
        assert on_trials.startswith(f"{networks} trials: {within_10:.0%} within 10%, median")
        assert (verdict in on_trials) == (networks == 20)  # two trials are no judgment


def kept_phases():
    """Callbacks that keep the phases of a search, and the list of them."""
    callbacks, phases = TrialCallbacks(), []
    callbacks.phase_progressed = phases.append
    return callbacks, phases


def test_it_is_fitted_once_a_search(space, fitted, tmp_path, monkeypatch):
    calls = []

    def fit(self, space, seconds, *, seed):
        calls.append((seconds, seed))
        self.fitted, self.provenance = fitted.fitted, fitted.provenance
        return self

    monkeypatch.setattr(LatencyModel, "fit", fit)
    first = make(space, tmp_path, latency_seconds=7, max_trials=2)
    assert first.prediction_errors() is None
    first.trial_callbacks, phases = kept_phases()
    first.search(**DATA)
    assert {phase.text for phase in phases} == {"measuring operators for 7 s, to predict latencies"}
    assert [phase.note for phase in phases] == ["", errors_text(fitted.fitted.errors)]
    assert (tmp_path / "search" / FILE).exists()
    second = make(space, tmp_path, latency_seconds=7, max_trials=4)
    second.trial_callbacks, phases = kept_phases()
    second.search(**DATA)
    assert phases == []  # it is read
    assert calls == [(7, 0)]
    assert len(second.oracle.records) == 4
    for record in second.oracle.records:
        assert second.latency_predictor.ratio(record.architecture) == pytest.approx(
            fitted(record.architecture)
        )


def test_errors_on_the_profiled_networks_and_on_the_trials(space, fitted, tmp_path):
    tuner = make(space, tmp_path, latency_model=fitted)
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(10)]
    measured = [1.25 * fitted(arch) for arch in archs]
    errors = tuner.latency_predictor.errors(list(zip(archs, measured, strict=True)))
    assert errors.cross_validated == fitted.fitted.errors
    assert errors.trials.median == pytest.approx(0.2)
    assert errors.trials.networks == 10
    assert tuner.latency_predictor.errors([(archs[0], 1.0)]).trials is None
    assert str(errors).count("within 10%") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latency_seconds": 0}, "latency_seconds must be a finite number above 0, got 0"),
        ({"latency_seconds": True}, "latency_seconds must be a finite number above 0, got True"),
        ({"latency_model": "model"}, "latency_model must be a fitted tfnas.LatencyModel, such as"),
        ({"latency_model": LatencyModel("int8")}, "latency_model must be a fitted tfnas.Latency"),
        ({"latency_model": ..., "mode": "float32"}, "latency_model must have the mode of"),
        ({"latency_model": ..., "threads": 2}, "latency_model must have the threads of .*, 2"),
        (
            {"latency_model": ..., "latency_seconds": 5},
            "latency_seconds must be None with latency_model",
        ),
    ],
)
def test_wrong_arguments(space, fitted, tmp_path, arguments, message):
    settings = {name: fitted if value is ... else value for name, value in arguments.items()}
    with pytest.raises(ValueError, match=message):
        make(space, tmp_path, **settings)
    assert not (tmp_path / "search").exists()


def test_it_needs_a_search_space_without_compression(tmp_path):
    with pytest.raises(ValueError, match="latency_seconds needs a search space such as"):
        make(lambda hp: None, tmp_path, latency_seconds=5)
    choices = tfnas.CompressionSpace(modes=("int8",), sparsity=(0, 0.5))
    space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller", compression=choices)
    with pytest.raises(ValueError, match="one number format and without compression"):
        make(space, tmp_path, latency_seconds=5)


def test_layers_that_the_fit_has_not_met_are_measured(space, fitted, tmp_path, monkeypatch):
    config = tfnas.TunerConfig(latency_model=fitted, mode=fitted.spec.mode)
    tuner = tfnas.RandomTuner(space, seed=0, config=config, directory=tmp_path)
    arch, seen = space.sample(np.random.default_rng(0)), []

    def unknown(self, network):
        seen.append(network)
        if network is arch:
            raise ValueError("an operator of another kind")
        return 0.25

    monkeypatch.setattr(tfnas.LatencyModel, "__call__", unknown)
    assert tuner.latency_predictor.ratio(arch) == 0.25
    assert tuner.latency_predictor.metrics(arch) == {"latency_ratio": 0.25}
    assert [type(each).__name__ for each in seen] == ["Architecture", "Functional"]
