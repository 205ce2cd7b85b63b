"""`tfnas search --hypermodel`: a function or class of the user's, from the current folder."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from folder_contents import contents

from tfnas.cli.app import main
from tfnas.jobs.hypermodel_import import imported_hypermodel
from tfnas.nas.search_config import SearchConfig

MODULE = """
import keras
import keras_tuner as kt
from keras import layers

VALUE = 3

def build(hp):
    units = hp.Choice("units", [4, 8])
    rate = hp.Float("rate", 1e-4, 1e-1, sampling="log")
    model = keras.Sequential([layers.Flatten(), layers.Dense(units, "relu"), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"], jit_compile=False)
    return model

def raw(hp):
    hp.Boolean("flag")
    return keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3)])

class Hyper(kt.HyperModel):
    def build(self, hp):
        return build(hp)

class Needs(kt.HyperModel):
    def __init__(self, size):
        self.size = size
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module and data; each has a module of another name."""
    name = f"models_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = (rng.random((60, 4, 4, 1)) * 100 + 50 * y[:, None, None, None]).astype("uint8")
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def search(name, *flags):
    return main(["search", f"--hypermodel={name}", "--data=data.npz", "--directory=run", *flags])


@pytest.mark.slow
def test_a_function_is_searched_and_the_best_model_saved(here, capsys, caplog, monkeypatch):
    flags = ["--objective=val_accuracy", "--max_trials=3", "--epochs=1", "--algorithm=random"]
    assert search(f"{here}:build", *flags) == 0
    out = capsys.readouterr().out
    assert "3 trials ended well, the best first" in out
    assert "rate" in out
    results = json.loads(pathlib.Path("run/results.json").read_text())
    assert [set(each["hyperparameters"]) for each in results["trials"]] == [{"units", "rate"}] * 3
    scores = [each["metrics"]["val_accuracy"] for each in results["trials"]]
    assert scores == sorted(scores, reverse=True)
    page = pathlib.Path("run/report.html").read_text()
    assert f"Search of {here}:build" in page
    text = pathlib.Path("run/report.md").read_text().replace("\\", "")
    assert "3 trials ended well, 0 failed. Each was judged by val_accuracy" in text
    assert f"{scores[0]:.6g}" in text
    assert keras.models.load_model("run/best.keras").predict(
        np.zeros((2, 4, 4, 1)), verbose=0
    ).shape == (2, 3)
    assert len(pathlib.Path("run/trials.jsonl").read_text().splitlines()) == 3
    assert search(f"{here}:build", *flags) == 0  # the same call reads what is there
    assert search(f"{here}:build", *flags, "--epochs=2") == 2
    assert "another epochs" in capsys.readouterr().err
    before = contents("run")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a folder that is read only
    assert search(f"{here}:build", *flags) == 0
    assert "3 trials ended well, the best first" in capsys.readouterr().out
    assert search(f"{here}:build", *flags[:1], "--max_trials=4", *flags[2:]) == 2
    assert "which can't: trials are left to run" in capsys.readouterr().err
    assert contents("run") == before
    assert "retracing" not in caplog.text


def test_a_class_is_searched_and_its_files_measured(here, capsys):
    flags = ["--objective=val_loss,size_bytes", "--max_trials=1", "--epochs=1"]
    assert search(f"{here}:Hyper", *flags, "--limit=size_bytes<=100000") == 0
    shown = r"val_loss [\d.]+, size_bytes ([\d,]+); size_bytes \1 keeps <= 100,000; units="
    assert len(re.findall(rf"^trial .*{shown}", capsys.readouterr().out, re.MULTILINE)) == 1
    results = json.loads(pathlib.Path("run/results.json").read_text())
    assert all(each["metrics"]["size_bytes"] > 0 for each in results["trials"])
    assert os.path.exists("run/best_int8.tflite")


TABLES = """
import keras
from keras import layers

def build(hp):
    units = hp.Choice("units", [1, 2, 3, 4])
    model = keras.Sequential([keras.Input((5,)), layers.Dense(units), layers.Dense(1)])
    rate = {1: 1e-3, 2: 0.1, 3: 1e-3, 4: 1e-3}[units]
    model.compile(keras.optimizers.Adam(rate), "mse", jit_compile=False)
    return model

def fails(hp):
    if hp.Choice("units", [1, 2, 3, 4, 5, 6]) != 1:
        raise ValueError("no such model")
    return build(hp)
"""


@pytest.fixture
def tables(here):
    """A module of models of numbers, and the data of a table."""
    pathlib.Path(f"tables_{here}.py").write_text(TABLES)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)).astype("float32")
    y = 10 * x.sum(axis=1)
    np.savez("data.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    return f"tables_{here}"


def test_of_several_objectives_the_first_one_decides_on_the_front(tables, capsys):
    flags = ["--objective=val_loss,parameters", "--max_trials=4", "--epochs=4", "--seed=1"]
    assert search(f"{tables}:build", *flags, "--algorithm=random") == 0
    trials = json.loads(pathlib.Path("run/results.json").read_text())["trials"]
    rows = [(each["metrics"]["val_loss"], each["metrics"]["parameters"]) for each in trials]
    assert len(rows) == 4
    assert rows[0] == min(rows)
    out = capsys.readouterr().out
    assert "the Pareto front first" in out
    assert "The best model by val_loss" in out
    shown = re.findall(r"^  best: val_loss ([\d.]+)", out, re.MULTILINE)
    assert float(shown[-1]) == pytest.approx(rows[0][0], rel=1e-3)
    assert keras.models.load_model("run/best.keras").count_params() == rows[0][1]


def test_failures_in_a_row_keep_what_ended_well(tables, monkeypatch, capsys):
    flags = ["--objective=val_loss", "--max_trials=6", "--epochs=1", "--algorithm=random"]
    assert search(f"{tables}:fails", *flags, "--seed=0") == 0
    assert "search stopped: 3 trials failed one after the other" in capsys.readouterr().out
    assert os.path.exists("run/best.keras")
    assert "no such model" in pathlib.Path("run/report.md").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("build", "hypermodel must be module:function, such as my_models:build, got 'build'"),
        ("no_such_module_here:build", "a module in the current folder or an installed one"),
        ("{}:biuld", "did you mean 'build'"),
        ("{}:VALUE", "which is a int"),
        ("{}:Needs", "must be created without arguments"),
    ],
)
def test_a_wrong_name_is_refused(here, text, message):
    with pytest.raises(ValueError, match=message):
        imported_hypermodel(text.format(here))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--objective=val_acc=max"], "did you mean 'val_accuracy'"),
        (["--preset=full"], "preset must not be given with hypermodel"),
        (["--final_epochs=3"], "final_epochs must not be given with hypermodel"),
        (["--data=none.npz"], "--data must be a file or a folder that exists"),
    ],
)
def test_wrong_flags_are_refused_before_the_first_trial(here, flags, message, capsys):
    assert search(f"{here}:build", *flags) == 2
    assert message in capsys.readouterr().err
    assert not any(each.startswith("trial_") for _, names, _ in os.walk("run") for each in names)


def test_a_model_that_is_not_compiled_is_refused(here, capsys):
    assert search(f"{here}:raw") == 2
    assert "must return a compiled model" in capsys.readouterr().err


def test_a_python_call_names_the_tuners():
    import tfnas

    with pytest.raises(ValueError, match=r"tfnas.EvolutionTuner\(build\)"):
        tfnas.search("digits", directory="run", hypermodel="m:build")
    assert SearchConfig("digits", hypermodel="m:build").hypermodel == "m:build"


def test_ctrl_c_that_a_finalizer_swallowed_ends_the_search_all_the_same(here, monkeypatch):
    from tfnas.jobs import hypermodel_search

    class Swallowed(hypermodel_search._Log):
        def trial_ended(self, trial):
            super().trial_ended(trial)
            self.interrupts.pressed = trial.trial_id == "0"

    monkeypatch.setattr(hypermodel_search, "_Log", Swallowed)
    assert search(f"{here}:build", "--max_trials=5", "--epochs=1", "--algorithm=random") == 130
    assert len(pathlib.Path("run/trials.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_ctrl_c_is_answered_and_the_command_exits_with_130(here, tmp_path):
    command = [sys.executable, "-m", "tfnas", "search", f"--hypermodel={here}:build"]
    flags = ["--data=data.npz", "--directory=run", "--max_trials=500", "--epochs=1"]
    paths = os.pathsep.join(each for each in sys.path if each)
    process = subprocess.Popen(
        [*command, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        end = time.monotonic() + 120
        log = tmp_path / "run" / "trials.jsonl"
        while time.monotonic() < end and not (log.exists() and log.read_text().count("\n") > 1):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, out
    assert "stopping: the best so far is written" in out
    assert "Interrupted: the same call, or command, goes on from here." in out
    assert (tmp_path / "run" / "best.keras").exists()
