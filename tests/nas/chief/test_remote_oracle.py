"""keras_tuner's own chief and workers: the protocol, and real processes."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import textwrap

import keras_tuner as kt
import pytest
from keras_tuner.src.distribute import oracle_chief
from keras_tuner.src.distribute.oracle_client import OracleClient
from tuner_settings import oracle_of

from tfnas.nas.algorithm_tuners import EvolutionTuner
from tfnas.nas.chief.remote_oracle import RemoteOracle
from tfnas.nas.samplers.evolution import EvolutionSampler
from tfnas.nas.trial_failures import INFEASIBLE
from tfnas.nas.tuner_config import TunerConfig

SCORE = kt.Objective("score", "max")


class Wire:
    """The chief's services, called without a network."""

    def __init__(self, oracle):
        self.servicer = oracle_chief.OracleServicer(oracle)

    def __getattr__(self, name):
        return lambda request, **options: getattr(self.servicer, name)(request, None)


def oracle_in(folder):
    hp = kt.HyperParameters()
    for name in "abc":
        hp.Choice(name, [0, 1, 2, 3])
    settings = {"objective": SCORE, "max_trials": 16, "seed": 0, "hyperparameters": hp}
    settings |= {"max_retries_per_trial": 1, "max_consecutive_failed_trials": 50}
    settings |= {"population_size": 2, "tournament_size": 2, "halving": 2}
    oracle = oracle_of(EvolutionSampler, **settings)
    oracle.verbose = 0
    oracle._set_project_dir(str(folder), "project")
    oracle.halving.set_epochs(4, None)
    return oracle


@pytest.fixture
def chief(tmp_path):
    return oracle_in(tmp_path)


@pytest.fixture
def worker(chief, tmp_path):
    client = object.__new__(OracleClient)
    client.__dict__.update(
        _oracle=oracle_in(tmp_path), stub=Wire(chief), tuner_id="tuner0", multi_worker=False,
        should_report=True,
    )  # fmt: skip
    return RemoteOracle(client)


def test_a_worker_has_the_state_of_its_trial(chief, worker):
    seen = set()
    while (trial := worker.create_trial("tuner0")).status == "RUNNING":
        name = trial.trial_id
        assert worker.architecture(trial).network == chief.architecture(chief.trials[name]).network
        assert worker.parent(name) == chief.parent(name)
        assert worker.halving.budget(name) == chief.halving.budget(name)
        assert worker.halving.continues.get(name) == chief.halving.continues.get(name)
        if worker.parent(name) is not None:
            assert (
                worker.trials[worker.parent(name)].score == chief.trials[worker.parent(name)].score
            )
        assert worker.retries(name) == chief.retries(name) == (name in seen)
        values = trial.hyperparameters.values
        trial.status, trial.message = "COMPLETED", None
        if values["a"] == 1 and name not in seen:
            trial.status, trial.message = "INVALID", "a is one"
        worker.update_trial(name, {"score": float(sum(values.values()))})
        worker.end_trial(trial)
        seen.add(name)
    assert len(chief.trials) == 16
    assert chief.halving.continues
    assert {t.metrics.get_best_value("rung") for t in chief.completed()} == {0.0, 1.0, 2.0}


def test_the_reason_of_a_failure_reaches_the_chief(chief, worker):
    trial = worker.create_trial("tuner0")
    trial.status, trial.message = "FAILED", f"{INFEASIBLE}too large"
    worker.end_trial(trial)
    assert chief.trials["00"].message == f"{INFEASIBLE}too large"
    kept = json.loads(pathlib.Path(chief._get_trial_dir("00"), "trial.json").read_text())
    assert kept["message"] == f"{INFEASIBLE}too large"


def test_state_of_the_chief_is_an_error_in_a_worker(worker):
    with pytest.raises(RuntimeError, match="records must be read from the chief's tuner"):
        _ = worker.records
    with pytest.raises(AttributeError):
        _ = worker.nothing


def test_an_executor_beside_a_chief_is_refused(tmp_path, monkeypatch):
    for name, value in (("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", "1"), ("TUNER_ID", "chief")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    config = TunerConfig(executor=dict)
    with pytest.raises(ValueError, match="executor must be None if keras_tuner's chief"):
        EvolutionTuner(lambda hp: None, SCORE, config=config, directory=str(tmp_path))


PROCESS = textwrap.dedent(
    """
    import json, sys, warnings
    import keras, numpy as np, tfnas
    from tfnas.nas.trial_failures import INFEASIBLE

    def build(hp):
        model = keras.Sequential([
            keras.Input((8,)),
            keras.layers.Dense(hp.Choice("units", [2, 4, 8, 16, 256]), "relu", name="hidden"),
            keras.layers.Dense(hp.Choice("more", [2, 3, 4]), "relu", name="more"),
            keras.layers.Dense(2, "softmax", name="classes"),
        ])
        loss = "sparse_categorical_crossentropy"
        model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
        return model

    tuner = tfnas.EvolutionTuner(
        build, ["file_accuracy", "size_bytes"], max_trials=10, seed=0,
        sampler=tfnas.EvolutionSampler(population_size=2, tournament_size=1),
        config=tfnas.TunerConfig(inherit=True, halving=2, rounds=6, mode="float32"),
        limits={"size_bytes": 6000},
        directory=sys.argv[1], project_name="search", overwrite=True,
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 8)).astype("float32"), np.arange(64) % 2
    tuner.search(x, y, epochs=2, validation_data=(x, y), batch_size=32, verbose=0)
    if tuner.tuner_id == "chief":
        oracle = tuner.oracle
        print(json.dumps({
            "trials": {name: [t.status, t.hyperparameters.values, t.message]
                       for name, t in oracle.trials.items()},
            "continues": oracle.halving.continues,
            "front": [[c.trial_id, c.path.exists(), c.metrics["rung"]]
                      for c in tuner.pareto_front()],
            "inherited": [c.metrics.get("inherited") for c in tuner.candidates()],
            "infeasible": INFEASIBLE,
        }))
    else:
        print(json.dumps({"worker": tuner.tuner_id}))
    """
)


@pytest.mark.slow
def test_a_chief_and_two_workers(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    command = [sys.executable, "-W", "ignore", "-c", PROCESS, str(tmp_path)]
    processes = {
        name: subprocess.Popen(
            command,
            env={**os.environ, **shared, "KERASTUNER_TUNER_ID": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("chief", "tuner0", "tuner1")
    }
    try:
        outputs = {name: p.communicate(timeout=400) for name, p in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    for name, process in processes.items():
        assert process.returncode == 0, f"{name}: {outputs[name][1][-3000:]}"
    record = json.loads(outputs["chief"][0].strip().splitlines()[-1])
    trials, continues = record["trials"], record["continues"]
    assert len(trials) == 10
    assert {status for status, _, _ in trials.values()} <= {"COMPLETED", "FAILED"}
    new = [str(values) for name, (_, values, _) in trials.items() if name not in continues]
    assert len(new) == len(set(new))
    assert continues
    assert all(trials[name][1] == trials[source][1] for name, source in continues.items())
    for status, values, message in trials.values():
        assert (status == "FAILED") == (values["units"] == 256)
        assert status == "COMPLETED" or record["infeasible"] in message
    assert record["front"]
    assert all(there for _, there, _ in record["front"])
    assert any(share for share in record["inherited"])
    assert {p.name for p in (tmp_path / "search").glob("*.json")} == {
        *("oracle.json", "chief.json", "tuner0.json", "tuner1.json"),
    }
