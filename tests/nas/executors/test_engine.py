"""Trials on executors, processes that die, searches that are killed, folders with one owner."""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import time

import keras_tuner as kt
import pytest
from folder_contents import contents
from tuner_settings import arranged

from tfnas.nas.algorithm_tuners import EvolutionTuner, RandomTuner
from tfnas.nas.executors import engine
from tfnas.nas.samplers.evolution import EvolutionSampler
from tfnas.runtime import crash_report
from tfnas.runtime.folder_lock import owner_of
from tfnas.runtime.worker_processes import TrialDied, TrialProcesses

SCORE = kt.Objective("score", "max")


def hyperparameters():
    hp = kt.HyperParameters()
    for name in "abc":
        hp.Choice(name, [0, 1, 2, 3])
    return hp


class Sum(EvolutionTuner):
    """Its trials add up their values."""

    def run_trial(self, trial, *args, **kwargs):
        values = trial.hyperparameters.values
        if args:
            args[0](values)
        return {"score": float(sum(values.values())), "extra": 1.0}


def make(folder, kind=Sum, **arguments):
    settings = {
        "objective": SCORE,
        "max_trials": 12,
        "seed": 0,
        "population_size": 4,
        "tournament_size": 2,
        "directory": str(folder),
        "project_name": "search",
        "hyperparameters": hyperparameters(),
    }
    tuner = kind(**arranged(EvolutionSampler, {**settings, **arguments}))
    tuner.oracle.verbose = 0
    return tuner


def results(tuner):
    oracle = tuner.oracle
    return [(e.trial_id, dict(e.architecture.items), e.losses[0]) for e in oracle.records]


# ---- keras_tuner's behavior


def test_an_overridden_run_trial_needs_no_hypermodel(tmp_path):
    tuner = make(tmp_path)
    tuner.search()
    assert len(results(tuner)) == 12
    assert all(-loss == sum(values.values()) for _, values, loss in results(tuner))
    assert tuner.get_best_hyperparameters()[0].values == max(
        (values for _, values, _ in results(tuner)), key=lambda v: sum(v.values())
    )


def test_a_run_trial_may_return_a_float_and_declare_hyperparameters(tmp_path):
    class Parabola(EvolutionTuner):
        def run_trial(self, trial, *args, **kwargs):
            x = trial.hyperparameters.Float("x", -2.0, 2.0)
            return (x - 0.5) ** 2

    tuner = make(tmp_path, Parabola, objective=None, hyperparameters=None, max_trials=20)
    tuner.search()
    assert abs(tuner.get_best_hyperparameters()[0].get("x") - 0.5) < 0.2


def test_no_hypermodel_and_no_run_trial_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="hypermodel must be given unless run_trial is overridden"):
        make(tmp_path, EvolutionTuner)


@pytest.mark.slow
def test_any_hypermodel_and_val_accuracy(tmp_path):
    import keras
    import numpy as np

    def build(hp):
        layers = [keras.layers.Dense(hp.Choice("units", [2, 4, 8]), "relu")] * hp.Int("deep", 0, 1)
        model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2, "softmax")])
        loss = "sparse_categorical_crossentropy"
        model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
        return model

    tuner = RandomTuner(
        build, "val_accuracy", max_trials=2, seed=0, directory=str(tmp_path), project_name="any"
    )
    x, y = np.zeros((8, 4), "float32"), np.zeros(8, int)
    tuner.search(x, y, epochs=1, validation_data=(x, y), verbose=0)
    assert not tuner.measures
    assert len(tuner.oracle.records) == 2
    assert tuner.get_best_models()[0].input_shape == (None, 4)


# ---- executors


def test_on_an_executor_every_trial_runs_once(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        tuner = make(tmp_path, executor=pool)
        tuner.search()
    assert sorted(trial_id for trial_id, _, _ in results(tuner)) == [f"{i:02d}" for i in range(12)]
    assert all(-loss == sum(values.values()) for _, values, loss in results(tuner))
    state = json.loads((tmp_path / "search" / "trial_07" / "trial.json").read_text())
    assert state["metrics"]["metrics"]["extra"]["observations"][0]["value"] == [1.0]


def test_one_worker_gives_the_sequential_search(tmp_path):
    here = make(tmp_path / "here")
    here.search()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        there = make(tmp_path / "there", executor=pool)
        there.search()
    assert results(there) == results(here)


def test_a_trial_that_raises_in_a_worker_fails_with_its_reason(tmp_path):
    def raises(values):
        if values["a"] == 1:
            raise OverflowError("a is one")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        tuner = make(tmp_path, executor=pool, max_consecutive_failed_trials=50)
        tuner.search(raises)
    failed = [t for t in tuner.oracle.trials.values() if t.status == "FAILED"]
    assert failed
    assert all("OverflowError: a is one" in t.message for t in failed)
    assert len(failed) + len(results(tuner)) == 12


class Breaks(concurrent.futures.ThreadPoolExecutor):
    """A pool that breaks at its third call, with all that runs in it."""

    created = 0

    def __init__(self):
        super().__init__(2)
        type(self).created += 1
        self.calls = 0

    def submit(self, fn, /, *args):
        self.calls += 1
        if self.calls == 3 and self.created == 1:
            future = concurrent.futures.Future()
            future.set_exception(concurrent.futures.BrokenExecutor("broken"))
            return future
        return super().submit(fn, *args)


def test_a_broken_pool_is_replaced_and_no_trial_is_lost(tmp_path):
    tuner = make(tmp_path, executor=Breaks)
    tuner.search()
    assert Breaks.created == 2
    assert len(results(tuner)) == 12


def test_a_broken_executor_that_cannot_be_created_again_is_an_error(tmp_path):
    Breaks.created = 0
    tuner = make(tmp_path, executor=Breaks())
    with pytest.raises(RuntimeError, match="executor Breaks broke and can't be created again"):
        tuner.search()


# ---- processes


def test_calls_in_processes_that_die_or_hang():
    def dies():
        os.kill(os.getpid(), 9)

    def hangs():
        time.sleep(600)

    def raises():
        raise KeyError("reason")

    with TrialProcesses(workers=1) as executor:
        assert executor.submit(pow, 2, 5).result() == 32
        first = executor.submit(os.getpid).result()
        assert executor.submit(os.getpid).result() == first != os.getpid()
        with pytest.raises(TrialDied, match="ended by signal 9"):
            executor.submit(dies).result()
        with pytest.raises(KeyError, match="reason"):
            executor.submit(raises).result()
        executor._timeout = 1.0  # for this call alone: the others end, however slow the machine
        with pytest.raises(TrialDied, match="took longer than 1 s"):
            executor.submit(hangs).result()
        executor._timeout = None
        assert executor.submit(pow, 3, 2).result() == 9


@pytest.mark.parametrize("arguments", [{"workers": 0}, {"timeout": 0}, {"timeout": -1.0}])
def test_wrong_arguments_of_processes(arguments):
    name = next(iter(arguments))
    with pytest.raises(ValueError, match=f"{name} must be"):
        TrialProcesses(**arguments)


@pytest.mark.slow
def test_a_trial_that_is_killed_costs_a_retry_and_one_that_always_dies_fails(tmp_path):
    flag = str(tmp_path / "died")

    def deadly(values):
        import os

        if values["a"] == 1:  # always
            os.kill(os.getpid(), 9)
        if values["b"] == 2 and not os.path.exists(flag):  # once
            open(flag, "w").close()
            os.kill(os.getpid(), 9)

    tuner = make(
        tmp_path, executor=lambda: TrialProcesses(workers=2), max_consecutive_failed_trials=50
    )
    tuner.search(deadly)
    failed = [t for t in tuner.oracle.trials.values() if t.status == "FAILED"]
    assert failed
    assert {t.hyperparameters.values["a"] for t in failed} == {1}
    assert all("ended by signal 9" in t.message for t in failed)
    assert len(failed) + len(results(tuner)) == 12
    assert os.path.exists(flag)


class KillsItsWorker(Sum):
    """Two of its trials end their worker, once each; all write which worker they had."""

    def run_trial(self, trial, *args, **kwargs):
        folder, name = pathlib.Path(args[0]), trial.trial_id
        first = not (folder / f"began_{name}").exists()
        (folder / f"began_{name}").write_text(f"{os.getpid()}")
        if first and name in ("02", "05"):
            (folder / f"killed_{name}").write_text(f"{os.getpid()}")
            os.kill(os.getpid(), 9)
        return super().run_trial(trial)


def killed_twice_in_two_workers(folder, executor):
    """Runs a search whose trials 02 and 05 kill their workers, and checks that none is lost."""
    tuner = make(folder, KillsItsWorker, executor=executor, parallel=4)
    tuner.search(str(folder))
    killed = [(folder / f"killed_{name}").read_text() for name in ("02", "05")]
    assert killed[0] != killed[1]
    assert sorted(trial_id for trial_id, _, _ in results(tuner)) == [f"{i:02d}" for i in range(12)]
    assert all(-loss == sum(values.values()) for _, values, loss in results(tuner))
    assert {trial.status for trial in tuner.oracle.trials.values()} == {"COMPLETED"}


@pytest.mark.slow
def test_two_workers_of_four_killed_under_dask(tmp_path):
    from distributed import Client, LocalCluster

    cluster = LocalCluster(
        n_workers=4, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, Client(cluster) as client:
        killed_twice_in_two_workers(tmp_path, client.get_executor())


@pytest.mark.slow
def test_two_workers_of_four_killed_under_ray(tmp_path):
    """On a local cluster of four processes; skipped where Ray is not installed."""
    ray = pytest.importorskip("ray")

    class RayExecutor(concurrent.futures.ThreadPoolExecutor):
        """A thread waits for each call; as docs/large_searches.md shows it."""

        def submit(self, fn, /, *args, **kwargs):
            return super().submit(lambda: ray.get(ray.remote(max_retries=0)(fn).remote(*args)))

    ray.init(num_cpus=4, include_dashboard=False)
    try:
        with RayExecutor(4) as executor:
            killed_twice_in_two_workers(tmp_path, executor)
    finally:
        ray.shutdown()


# ---- kills and owners


def test_a_worker_that_is_killed_before_its_trial_begins_is_no_crash(tmp_path, monkeypatch):
    kills = {"count": 3}
    monkeypatch.setattr(crash_report, "memory_kills", lambda: kills["count"])
    reason, report = "the process of the trial ended by signal 9 (SIGKILL)", tmp_path / "crash.txt"
    assert not engine.crashed_by_itself(reason, report, 3)
    assert engine.crashed_by_itself(reason, report, 2), "memory had run out"
    assert engine.crashed_by_itself(reason, report, None), "nothing says why"
    assert engine.crashed_by_itself(reason.replace("9", "11"), report, 3)


def test_a_second_owner_is_refused(tmp_path):
    script = textwrap.dedent(
        f"""
        import pathlib, time
        from tfnas.runtime.folder_lock import owner_of
        with owner_of(pathlib.Path({str(tmp_path / "search")!r})):
            print("held", flush=True)
            time.sleep(600)
        """
    )
    other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline().strip() == "held"
        tuner = make(tmp_path)
        with pytest.raises(RuntimeError, match="belongs to a search that is running"):
            tuner.search()
        with pytest.raises(RuntimeError, match="belongs to a search that is running"):
            make(tmp_path, overwrite=True)
    finally:
        other.kill()
        other.communicate()
    make(tmp_path).search()  # the lock went with its process


def test_an_owner_gives_back(tmp_path):
    folder = pathlib.Path(tmp_path)
    with owner_of(folder), pytest.raises(RuntimeError, match="belongs to"), owner_of(folder):
        pass
    with owner_of(folder):
        pass


# ---- finished searches


def test_a_finished_search_is_opened_without_a_write(tmp_path, monkeypatch):
    make(tmp_path).search()
    before = contents(tmp_path)
    again = make(tmp_path)
    assert len(results(again)) == 12
    assert again.get_best_hyperparameters()[0].values
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as of a read-only folder
    again.search()
    assert contents(tmp_path) == before


def test_what_killed_writes_left_is_swept(tmp_path):
    make(tmp_path, max_trials=2).search()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = "0" * 32
    left = [
        tmp_path / "search" / f".oracle.json.{dead.pid}.{name}.part",
        tmp_path / "search" / "trial_0" / f".trial.json.{dead.pid}.{name}.part",
        tmp_path / "search" / "trial_0" / f".model.{dead.pid}.part.keras",
    ]
    kept = [
        tmp_path / "search" / f".oracle.json.{os.getpid()}.{name}.part",
        tmp_path / "search" / f".notes.{dead.pid}.part",
    ]
    for path in (*left, *kept):
        path.write_text("")
    make(tmp_path, max_trials=3).search()
    assert [path.exists() for path in left] == [False] * 3
    assert [path.exists() for path in kept] == [True] * 2
