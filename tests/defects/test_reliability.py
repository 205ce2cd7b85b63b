"""Known defects where a process dies, hangs, or takes something with it."""

import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import warnings

import h5py
import keras
import keras_tuner
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.tuners.processes import TrialDied, TrialProcesses

THEME = "nothing lost, nothing hangs"
AT_ONCE = 5  # seconds: ample for what happens at once
AMPLE = 120  # seconds: for a process to start on a machine with much else to do


def wait_until(condition, limit):
    """Whether a condition comes true within so many seconds."""
    end = time.monotonic() + limit
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return met


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason=f"{THEME}: an infinite weight ends the process in the converter",
)
def test_infinite_weights_are_refused(python):
    done = python(
        "import keras, numpy as np, tfnas\n"
        "model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3)])\n"
        "kernel, bias = model.get_weights()\n"
        "model.set_weights([np.full_like(kernel, np.inf), bias])\n"
        "try:\n"
        "    tfnas.to_tflite(model, 'int8', np.random.rand(8, 8, 8, 1).astype('float32'))\n"
        "except (ValueError, tfnas.ConversionError):\n"
        "    print('refused')\n"
    )
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr[-2000:]


def die_with_a_child(folder):
    """Forks a process that lives on, tells its id and is killed, as if memory had run out."""
    child = os.fork()
    if not child:
        time.sleep(AMPLE)
        os._exit(0)
    partial = pathlib.Path(folder, "partial")
    partial.write_text(str(child))
    partial.rename(pathlib.Path(folder, "child"))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.xfail(
    strict=True,
    raises=TimeoutError,
    reason=f"{THEME}: a dead worker goes unnoticed while its child holds the pipe",
)
def test_a_worker_that_is_killed_with_a_child_is_noticed_at_once(tmp_path):
    told = tmp_path / "child"
    with TrialProcesses(1) as executor:
        future = executor.submit(die_with_a_child, str(tmp_path))
        try:
            assert wait_until(told.exists, AMPLE)
            with pytest.raises(TrialDied):
                future.result(AT_ONCE)
        finally:
            os.kill(int(told.read_text()), signal.SIGKILL)


SEARCH = """
import fcntl, os, pathlib, sys, time
from tfnas.tuners.processes import TrialProcesses

def trial(lock, with_child):
    held = open(lock, "w")
    fcntl.flock(held, fcntl.LOCK_EX)  # until this process and its children have ended
    if with_child and os.fork():
        os._exit(0)
    pathlib.Path(lock + ".pid").write_text(str(os.getpid()))
    time.sleep(120)

TrialProcesses(1).submit(trial, sys.argv[1], len(sys.argv) > 2).result()
"""


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason=f"{THEME}: the workers of a search that is killed go on with their trials",
)
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_workers_end_with_their_search(kill, tmp_path):
    lock, told = tmp_path / "lock", tmp_path / "lock.pid"
    search = subprocess.Popen([sys.executable, "-c", SEARCH, str(lock)])
    try:
        assert wait_until(lambda: told.exists() and told.read_text(), AMPLE)
        search.send_signal(kill)
        search.wait(AMPLE)
        assert wait_until(lambda: is_free(lock), AT_ONCE)
    finally:
        search.kill()
        search.wait()
        if not is_free(lock):
            os.kill(int(told.read_text()), signal.SIGKILL)


def is_free(lock):
    """Whether no process holds a lock."""
    with lock.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


class Interruptible(tfnas.EvolutionTuner):
    """A search whose third trial can be interrupted."""

    interrupted = False

    def run_trial(self, trial, *args, **kwargs):
        if self.interrupted and int(trial.trial_id) == 2:
            raise KeyboardInterrupt
        return {"value": float(trial.hyperparameters.values["width"])}


def interruptible(folder, interrupted=False):
    space = keras_tuner.HyperParameters()
    space.Int("width", 1, 99)
    search = Interruptible(
        None,
        keras_tuner.Objective("value", "max"),
        max_trials=6,
        seed=1,
        children=1,
        directory=folder,
        project_name="search",
        hyperparameters=space,
        tune_new_entries=False,
    )
    search.interrupted = interrupted
    return search


def outcomes(search):
    return {
        name: (trial.status, trial.hyperparameters.values, trial.score)
        for name, trial in search.oracle.trials.items()
    }


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason=f"{THEME}: the second interrupt in one trial counts as its failure",
)
def test_a_search_interrupted_twice_in_one_trial_is_the_same_search(tmp_path):
    whole = interruptible(tmp_path / "whole")
    whole.search(verbose=0)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interruptible(tmp_path / "twice", interrupted=True).search(verbose=0)
    twice = interruptible(tmp_path / "twice")
    twice.search(verbose=0)
    assert outcomes(twice) == outcomes(whole)


class Pause(layers.Layer):
    """Calls a function whenever the layer is called, as in a conversion."""

    def __init__(self):
        super().__init__()
        self.function = lambda: None

    def call(self, x):
        self.function()
        return x


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason=f"{THEME}: two threads that convert at once lose sys.stdout",
)
def test_threads_that_convert_leave_stdout_alone():
    first_converts, second_converts, first_is_done = (threading.Event() for _ in range(3))

    def convert(begin, wait_for, done):
        pause = Pause()
        inputs = keras.Input((4,))
        model = keras.Model(inputs, layers.Dense(2)(pause(inputs)))

        def meet():
            begin.set()
            wait_for.wait(20)

        pause.function = meet
        try:
            tfnas.to_tflite(model)
        finally:
            done.set()

    stdout = sys.stdout
    first = (first_converts, second_converts, first_is_done)
    second = (second_converts, first_is_done, threading.Event())
    threads = [threading.Thread(target=convert, args=args) for args in (first, second)]
    with warnings.catch_warnings():  # the threads leave these as they found them, or not
        threads[0].start()
        assert first_converts.wait(AMPLE)
        threads[1].start()
        for thread in threads:
            thread.join()
    found, sys.stdout = sys.stdout, stdout
    assert found is stdout


def keras_2_file(path, secret):
    """Writes a file of Keras 2 whose kernel lies in another file of the machine."""
    inputs = {"batch_input_shape": [None, 4], "dtype": "float32", "name": "inputs"}
    dense = {"name": "dense", "units": 3, "use_bias": False}
    config = {
        "class_name": "Sequential",
        "config": {
            "name": "model",
            "layers": [
                {"class_name": "InputLayer", "config": inputs},
                {"class_name": "Dense", "config": dense},
            ],
        },
    }
    written_by = {"keras_version": "2.11.0", "backend": "tensorflow"}
    with h5py.File(path, "w") as file:
        file.attrs.update({"model_config": json.dumps(config), **written_by})
        weights = file.create_group("model_weights")
        weights.attrs.update({"layer_names": [b"dense"], **written_by})
        group = weights.create_group("dense")
        group.attrs["weight_names"] = [b"dense/kernel:0"]
        kernel = group.create_group("dense")
        kernel.create_dataset("kernel:0", (4, 3), np.float32, external=[(str(secret), 0, 48)])


@pytest.mark.xfail(
    strict=True,
    raises=pytest.fail.Exception,
    reason=f"{THEME}: external storage of an .h5 file reads other files into weights",
)
def test_an_h5_file_with_external_storage_is_refused(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"SECRET" * 8)
    keras_2_file(tmp_path / "model.h5", secret)
    with pytest.raises(ValueError, match="external"):
        tfnas.legacy.load_h5(tmp_path / "model.h5")


def answer_twice(other_runs):
    """Forks, so that the call returns in two processes, the second during the next call."""
    if os.fork():
        wait_until(pathlib.Path(other_runs).exists, 2)
    return "first"


def answer_once(other_runs):
    pathlib.Path(other_runs).touch()
    time.sleep(1)  # the first call's second answer is sent now
    return "second"


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason=f"{THEME}: the second answer of a call that forked goes to the next call",
)
def test_each_call_gets_its_own_answer(tmp_path):
    other_runs = str(tmp_path / "other runs")
    with TrialProcesses(1) as executor:
        assert executor.submit(answer_twice, other_runs).result(AMPLE) == "first"
        assert executor.submit(answer_once, other_runs).result(AMPLE) == "second"
