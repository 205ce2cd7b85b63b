"""State files that were edited by hand: one error with the file's name, and nothing outside."""

import dataclasses
import functools
import json
import pathlib
import types
import warnings

import keras
import keras_tuner as kt
import numpy as np
import pytest
from state_files import edited
from tuner_settings import arranged, oracle_of

import tfnas
from tfnas.compression.budget import CandidateCosts
from tfnas.compression.candidate_store import CandidateStore
from tfnas.compression.device_costs import Target
from tfnas.compression.model_analysis import LayerAnalysis, ModelAnalysis
from tfnas.jobs.inputs import load_model_and_data
from tfnas.jobs.job_folder import JobFolder
from tfnas.jobs.search_folder import check_is_free, check_same_search
from tfnas.measure.measurement import Latency, Measurement, Score
from tfnas.nas.measured_trial import MEASUREMENT, measured_trial
from tfnas.nas.samplers.evolution import EvolutionSampler
from tfnas.nas.search_config import SearchConfig
from tfnas.runtime.store import Record


def value_errors(function):
    """The message of the ValueError that a call ends in, if any."""
    try:
        function()
    except ValueError as error:
        return [str(error)]
    return []


SEEDS = range(60)
SCORE = kt.Objective("score", "max")
FILE = pathlib.Path(tfnas.__file__).parent / "measure" / "reference.tflite"


def declared():
    hp = kt.HyperParameters()
    hp.Choice("a", [0, 1, 2, 3])
    with hp.conditional_scope("a", [1, 2]):
        hp.Float("e", 0.1, 10.0, sampling="log")
    return hp


def oracle_in(folder):
    arguments = {"objective": SCORE, "max_trials": 12, "seed": 0, "hyperparameters": declared()}
    settings = {"population_size": 4, "tournament_size": 2, "children": 1, "halving": 2}
    oracle = oracle_of(EvolutionSampler, **arguments, **settings)
    oracle.verbose = 0
    oracle.halving.set_epochs(4, 12)
    oracle._set_project_dir(str(folder), "search")
    return oracle


def run(oracle, trials=1000):
    while trials and (trial := oracle.create_trial("tuner0")).status != "STOPPED":
        value = trial.hyperparameters.values["a"]
        oracle.update_trial(trial.trial_id, {"score": float(value)})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        trials -= 1


@pytest.fixture(scope="module")
def search_files(tmp_path_factory):
    """Files of a search: ended trials, a promoted one, one that runs."""
    folder = tmp_path_factory.mktemp("search")
    oracle = oracle_in(folder)
    run(oracle, 7)
    oracle.save()
    oracle.create_trial("tuner0")
    assert oracle.halving.continues
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.json")}


def written(folder, files):
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


@pytest.mark.parametrize(
    "seed", [pytest.param(s, marks=() if s < 20 else pytest.mark.slow) for s in SEEDS]
)
def test_an_edited_search_goes_on(seed, search_files, tmp_path):
    inside = tmp_path / "inside"
    written(inside, search_files)
    paths = sorted(search_files)
    path = inside / paths[np.random.default_rng(seed).integers(len(paths))]
    path.write_bytes(edited(path.read_bytes(), seed))
    oracle = oracle_in(inside)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        oracle.reload()
        run(oracle)
    assert len(oracle.trials) == 12
    for name, trial in oracle.trials.items():
        assert name == trial.trial_id
        if trial.status == "FAILED":
            assert f"its file can't be read: {path}" in trial.message
    texts = [str(each.message) for each in caught if "can't be read" in str(each.message)]
    assert all(str(path) in text for text in texts)
    assert [each.name for each in tmp_path.iterdir()] == ["inside"]
    assert {each.parts[0] for each in search_files} == {each.name for each in inside.iterdir()}
    again = oracle_in(inside)  # what was written is read
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again.reload()
    assert len(again.trials) == 12


def tuner_in(folder):
    settings = {"objective": SCORE, "max_trials": 2, "seed": 0, "hyperparameters": declared()}
    places = {"directory": str(folder), "project_name": "search"}
    return Tuner(**arranged(EvolutionSampler, {**settings, **places, "children": 1}))


class Tuner(tfnas.EvolutionTuner):
    def run_trial(self, trial, *args, **kwargs):
        return {"score": 1.0}


def job_in(folder):
    return JobFolder(folder, "test", ("report.md",))


def claimed(folder):
    job = job_in(folder)
    job.claim({"model": "m", "settings": {"a": [1]}, "data": "d"})
    job.will_write(["report.md"])


def read_job(folder):
    job = job_in(folder)
    job.claim({"model": "m", "settings": {"a": [1]}, "data": "d"})
    job.will_write(["other.md"])
    job.remove()


COSTS = CandidateCosts(drop=1.0, bytes=10, gzip_bytes=9, latency=0.5, macs=0.5, memory=3)


def candidate(folder):
    (folder / "model.tflite").write_bytes(FILE.read_bytes())
    np.save(folder / "values.npy", np.ones(4))
    costs = {n: v for n, v in dataclasses.asdict(COSTS).items() if n not in ("device", "refused")}
    record = Record(folder / "record.json", "candidate", 1)
    record.write({"recipe": "int8", "costs": costs, "drop": [1.0, 0.5, 1.5]})


def read_candidate(folder):
    store = types.SimpleNamespace(
        _with_quality=lambda costs, _: costs,
        _record=lambda folder: Record(folder / "record.json", "candidate", 1),
        _measured_on="",
        context=types.SimpleNamespace(task=types.SimpleNamespace(metric=None)),
    )
    return CandidateStore._read(store, None, folder)


def search_config(folder):
    record = {"config": dataclasses.asdict(SearchConfig("digits")), "provenance": {}}
    (folder / "config.json").write_text(json.dumps(record))
    for name in ("best.keras", "results.json"):
        (folder / name).write_text("{}")


def read_search_config(folder):
    check_is_free(folder)
    check_same_search(folder, SearchConfig("digits"))


def measurement(folder):
    latency = Latency(1.0, 0.9, 1.1, 0.5, 0.4, 0.6, 2.0, "sha", 20, 1, True)
    score = Score("accuracy", 0.9, 0.8, 0.95, 100)
    found = Measurement(1000, 900, "sha", "int8", score, latency, 10, 100, 50)
    (folder / MEASUREMENT).write_text(found.to_json())


def read_measurement(folder):
    trial = kt.engine.trial.Trial(declared(), "00", "COMPLETED")
    trial.score = 0.9
    found = measured_trial(trial, None, folder)
    assert found.objectives()[2] >= -1
    assert str(found.measurement)


def analysis(folder):
    layer = LayerAnalysis("d", "dense layers", 48, 48, 0.5, 0.1, 0.2)
    text = ModelAnalysis((layer,), 100, 0.1, 10, True, ("noise",), 1.0).to_json()
    (folder / "model_analysis.json").write_text(text)


def read_analysis(folder):
    if not (folder / "model_analysis.json").exists():
        return
    found = CandidateStore.analyze_model(types.SimpleNamespace(folder=folder), False)
    assert found.fraction("macs", "dense layers") <= 1


def target():
    return Target(tfnas.Device(), ("flash_bytes",))


def device_costs(folder):
    target().costs(COSTS, tfnas.Artifact.load(FILE), folder)


@functools.cache
def channel_pruning():
    layers = [keras.Input((4,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(2)]
    return tfnas.ChannelPruning(
        keras.Sequential(layers), 0.5, steps=2, fit=lambda smaller, step: smaller
    )


def pruned_channels(folder):
    run = channel_pruning()
    run.folder = folder
    _, reports = run.run()
    assert len(reports) == 2


KINDS = {
    "channel_pruning.json": (pruned_channels, pruned_channels),
    "tuner0.json": (lambda folder: tuner_in(folder).save(), tuner_in),
    "job.json": (claimed, read_job),
    "record.json": (candidate, read_candidate),
    "config.json": (search_config, read_search_config),
    "model_analysis.json": (analysis, read_analysis),
    "measurement.json": (measurement, read_measurement),
    "device.json": (device_costs, device_costs),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_edited_file_is_one_error_with_its_name(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, read = KINDS[kind]
    folder = tmp_path / "inside"
    folder.mkdir()
    write(folder)
    [path] = folder.rglob(kind)
    content, errors = path.read_bytes(), []
    for seed in SEEDS:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(edited(content, seed))
        errors += value_errors(lambda: read(folder))
        assert [each.name for each in tmp_path.iterdir()] == ["inside"] or kind == "job.json"
        folder.mkdir(exist_ok=True)
    assert len(errors) > 10
    assert [text for text in errors if str(folder) not in text] == []


@pytest.mark.parametrize("seed", range(24))
def test_an_edited_search_is_no_model(seed, tmp_path):
    search_config(tmp_path)
    path = tmp_path / ("config.json", "results.json")[seed % 2]
    path.write_bytes(edited(path.read_bytes().replace(b"{}", b'{"interrupted": false}'), seed))
    [text] = value_errors(lambda: load_model_and_data(tmp_path, None))
    assert str(tmp_path) in text or text.startswith("data must be")
