"""Known defects where a process dies, hangs, or damages something else."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import warnings

import h5py
import hostile_trials
import keras
import keras_tuner
import numpy as np
import pytest
from hostile_trials import wait_until
from keras import layers

import tfnas
from tfnas.runtime.helper_process import HelperDied
from tfnas.runtime.worker_processes import TrialDied, TrialProcesses

AT_ONCE = 5  # seconds: ample for what happens immediately
AMPLE = 120  # seconds: for a process to start on a busy machine


def test_infinite_weights_are_refused():
    """In the helper process, whose end is no refusal."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, "softmax"),
        ]
    )
    kernel, *others = model.get_weights()
    model.set_weights([np.full_like(kernel, np.inf), *others])
    x = np.random.default_rng(0).uniform(size=(8, 8, 8, 1)).astype("float32")
    with tfnas.isolated(), pytest.raises((ValueError, tfnas.ConversionError)) as caught:
        tfnas.to_tflite(model, "int8", x)
    assert not isinstance(caught.value.__cause__, HelperDied)


def written_pids(path, count):
    """Waits until so many process ids are in a file, and returns them."""
    complete = wait_until(lambda: path.exists() and path.read_text().count("\n") == count, AMPLE)
    assert complete
    return [int(line) for line in path.read_text().split()]


def kill_all(path):
    """Kills the processes whose ids are in a file."""
    for line in path.read_text().split() if path.exists() else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line), signal.SIGKILL)


def test_a_worker_that_is_killed_with_a_child_is_noticed_at_once(tmp_path):
    pids = tmp_path / "pids"
    with TrialProcesses(1) as executor:
        future = executor.submit(hostile_trials.die_with_a_child, str(pids))
        try:
            written_pids(pids, 1)
            with pytest.raises(TrialDied):
                future.result(AT_ONCE)
        finally:
            kill_all(pids)


SEARCH = """
import sys
import hostile_trials
from tfnas.runtime.worker_processes import TrialProcesses
TrialProcesses(1).submit(hostile_trials.live_on, *sys.argv[1:]).result()
"""


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_workers_and_their_children_end_with_their_search(kill, tmp_path):
    lock, pids = tmp_path / "lock", tmp_path / "pids"
    paths = os.pathsep.join(path for path in sys.path if path)
    search = subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(lock), str(pids)],
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        written_pids(pids, 2)
        assert not is_free(lock)
        search.send_signal(kill)
        search.wait(AMPLE)
        assert wait_until(lambda: is_free(lock), AT_ONCE)
    finally:
        search.kill()
        search.wait()
        kill_all(pids)


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
        sampler=tfnas.EvolutionSampler(children=1),
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


def test_a_search_interrupted_twice_in_one_trial_is_the_same_search(tmp_path):
    uninterrupted = interruptible(tmp_path / "uninterrupted")
    uninterrupted.search(verbose=0)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interruptible(tmp_path / "twice", interrupted=True).search(verbose=0)
    twice = interruptible(tmp_path / "twice")
    twice.search(verbose=0)
    assert outcomes(twice) == outcomes(uninterrupted)


class Pause(layers.Layer):
    """Calls a function whenever the layer is called, as in a conversion."""

    def __init__(self):
        super().__init__()
        self.function = lambda: None

    def call(self, x):
        self.function()
        return x


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


def test_an_h5_file_with_external_storage_is_refused(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"SECRET" * 8)
    keras_2_file(tmp_path / "model.h5", secret)
    with pytest.raises(ValueError, match="external"):
        tfnas.legacy.load_h5(tmp_path / "model.h5")


def test_each_call_gets_its_own_answer(tmp_path):
    next_runs = str(tmp_path / "next runs")
    with TrialProcesses(1) as executor:
        first = executor.submit(hostile_trials.answer_twice, next_runs)
        assert first.result(AMPLE) == "first"
        second = executor.submit(hostile_trials.answer_once, next_runs)
        assert second.result(AMPLE) == "second"
