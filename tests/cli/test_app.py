"""The `tfnas` command: in this process, and twice as users run it."""

import copy
import importlib
import json
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

import tfnas
from tfnas.cli import app, compress_command, profile_command
from tfnas.cli.command_table import flags_of
from tfnas.measure.latency import reference_artifact
from tfnas.tflite.flatbuffer import pack, unpack

COMMAND = pathlib.Path(sys.executable).with_name("tfnas")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small.keras"
    layers = keras.layers
    keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, name="first"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="last"),
        ]
    ).save(path)
    return path


def is_one_error_line(text, who):
    return text.startswith(f"{who}: error: ") and text.count("\n") == 1 and text.endswith("\n")


def test_no_arguments_is_wrong_usage_with_the_overview(tfnas_command):
    code, out, err = tfnas_command()
    assert (code, err) == (2, "")
    assert "usage: tfnas COMMAND" in out


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help_names_all_commands(tfnas_command, flag):
    code, out, err = tfnas_command(flag)
    assert (code, err) == (0, "")
    for name in ("search", "prune", "export", "bench", "profile"):
        assert f"\n  {name} " in out


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "search",
            [
                "usage: tfnas search --dataset=... --directory=... [flags]",
                *("--max_trials=N", "(default: 20)", "\nData:\n  --data=..."),
            ],
        ),
        (
            "export",
            ["usage: tfnas export MODEL.keras [flags]", "--mode=NAME", "int16x8", "float32)"],
        ),
        ("bench", ["usage: tfnas bench FILE... [flags]", "--[no]xnnpack", "--rounds=N"]),
        ("profile", ["usage: tfnas profile MODEL.keras|FILE.tflite [flags]", "--[no]layers"]),
    ],
)
def test_help_of_a_command(tfnas_command, name, shown):
    code, out, err = tfnas_command(name, "--help")
    assert (code, err) == (0, "")
    for text in [*shown, "Examples:\n  # ", f"\n  tfnas {name} "]:
        assert text in out


@pytest.mark.parametrize("argument", ["--version", "version"])
def test_version(tfnas_command, argument):
    assert tfnas_command(argument) == (0, f"tfnas {tfnas.__version__}\n", "")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["serach"],
            "no such command 'serach': one of compress, search, prune-channels, factorize,",
        ),
        (["--fast"], "no such command '--fast'"),
    ],
)
def test_unknown_command(tfnas_command, argv, message):
    code, out, err = tfnas_command(*argv)
    assert (code, out) == (2, "")
    assert is_one_error_line(err, "tfnas")
    assert message in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["profile", "m.keras", "--depth=3"], "depth"),
        (["search", "--directory=o"], "--dataset"),
        (["search", "--dataset=digits"], "--directory"),
        (["search", "--dataset=digits", "--directory=o", "--max_trials=0"], "max_trials"),
        (["search", "--dataset=digits", "--directory=o", "--epochs=two"], "epochs"),
        (["search", "--dataset=digits", "--directory=o", "--preset=huge"], "preset"),
        (
            ["search", "digits", "--dataset=digits", "--directory=o"],
            "takes no arguments besides flags",
        ),
        (["export", "m.keras", "--mode=int3"], "mode"),
        (["export"], "expected MODEL.keras, got []"),
        (["export", "a.keras", "b.keras"], "expected MODEL.keras, got ['a.keras', 'b.keras']"),
        (["bench"], "expected FILE..., got []"),
        (["bench", "a.tflite", "--rounds=2"], "rounds"),
    ],
)
def test_wrong_usage(tfnas_command, argv, message):
    code, out, err = tfnas_command(*argv)
    assert (code, out) == (2, "")
    assert is_one_error_line(err, f"tfnas {argv[0]}")
    assert message in err
    assert f"(see tfnas {argv[0]} --help)" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["profile", "{tmp}/none.keras"], "none.keras"),
        (["profile", "{tmp}/broken.keras"], "can't be loaded"),
        (["export", "{tmp}/none.keras"], "none.keras"),
        (
            ["export", "{tmp}/none.keras", "--dataset={tmp}/none.npz"],
            "must be a file or a folder that exists",
        ),
        (
            ["export", "{model}", "--mode=int8", "--output={tmp}/o.tflite"],
            "data must be given",
        ),
        (["bench", "{tmp}/none.tflite"], "none.tflite"),
        (["bench", "{tmp}/broken.keras"], "must be a .tflite file"),
        (
            ["search", "--dataset={tmp}/none.npz", "--directory={tmp}/run"],
            "must be a file or a folder that exists",
        ),
        (
            ["search", "--dataset=digits", "--directory={tmp}/run", "--learning_rate=0"],
            "learning_rate must be above 0",
        ),
        (
            ["search", "--dataset=digits", "--directory={tmp}/run", "--tournament_size=9"],
            "tournament_size must be from 1 to population_size (8), got 9",
        ),
    ],
)
def test_failures_are_one_line(tfnas_command, tmp_path, model, argv, message):
    (tmp_path / "broken.keras").write_text("this is no model")
    code, out, err = tfnas_command(*(arg.format(tmp=tmp_path, model=model) for arg in argv))
    assert (code, out) == (2, "")
    assert is_one_error_line(err, f"tfnas {argv[0]}")
    assert message in err
    assert "Traceback" not in err


def test_an_error_of_many_lines_becomes_one(tfnas_command, monkeypatch):
    def fails(positional, values):
        raise RuntimeError("first\n  second\n" + "x" * 1000)

    monkeypatch.setattr(profile_command, "check", lambda positional, values: None)
    monkeypatch.setattr(profile_command, "main", fails)
    code, _, err = tfnas_command("profile", "m.keras")
    assert code == 1
    assert is_one_error_line(err, "tfnas profile")
    assert "first second x" in err
    assert err.endswith("x...\n")
    assert len(err) < 650


def test_ctrl_c(tfnas_command, monkeypatch):
    def interrupted(positional, values):
        raise KeyboardInterrupt

    monkeypatch.setattr(profile_command, "check", lambda positional, values: None)
    monkeypatch.setattr(profile_command, "main", interrupted)
    assert tfnas_command("profile", "m.keras") == (130, "", "tfnas profile: error: interrupted\n")


def test_profile(tfnas_command, model):
    code, out, err = tfnas_command("profile", model)
    assert (code, err) == (0, "")
    parameters = 3 * 3 * 4 + 4 + 6 * 6 * 4 * 10 + 10
    assert "first" in out
    assert "last" in out
    assert f"{parameters:,}" in out
    code, short, err = tfnas_command("profile", model, "--nolayers")
    assert (code, err) == (0, "")
    assert short.count("\n") == 1
    assert out.split()[-len(short.split()) :] == short.split()  # wrapped below the table


def test_export_then_bench(tfnas_command, tmp_path, model, npz):
    target = tmp_path / "out" / "small.tflite"
    code, out, err = tfnas_command(
        "export", model, "--mode=int8", f"--dataset={npz}", f"--output={target}"
    )
    assert (code, err) == (0, "")
    artifact = tfnas.Artifact.load(target)
    assert np.dtype(artifact.inputs[0].dtype) == np.int8
    assert f"{target}: {artifact.size:,} bytes, gzipped {artifact.gzip_size:,}" in out
    with np.load(npz) as file:
        right = artifact.predict(file["x_test"]).argmax(axis=1) == file["y_test"]
    assert f"test part, this file:   accuracy {right.mean():.4f}" in out
    assert "n=20" in out

    record = tmp_path / "latency.json"
    code, out, err = tfnas_command("bench", target, target, "--rounds=6", f"--json={record}")
    assert (code, err) == (0, "")
    assert out.count("small.tflite") == 2
    assert "1 thread(s), XNNPACK on, 6 rounds" in out
    measured = tfnas.Measurement.from_dict(json.loads(record.read_text())[str(target)])
    assert measured.sha256 == artifact.sha256
    assert measured.size_bytes == artifact.size
    assert measured.latency.rounds == 6


def test_one_signature_of_a_file_is_profiled_and_timed(tfnas_command, tmp_path):
    model = unpack(reference_artifact().content)
    [first] = model.signatureDefs
    second = copy.copy(first)
    second.signatureKey = b"again"
    model.signatureDefs.append(second)
    path = tmp_path / "two.tflite"
    path.write_bytes(pack(model))
    for command in (["profile"], ["bench", "--rounds=6"]):
        code, out, err = tfnas_command(*command, path)
        assert (code, out) == (2, "")
        assert is_one_error_line(err, f"tfnas {command[0]}")
        assert "--signature must name one of ['serving_default', 'again'], got none" in err
        code, out, err = tfnas_command(*command, path, "--signature=again")
        assert (code, err) == (0, "")
        assert "reference" in out or "CONV_2D" in out


def test_export_writes_beside_the_model_by_default(tfnas_command, model):
    code, _, err = tfnas_command("export", model)
    assert (code, err) == (0, "")
    path = model.with_name("small_float32.tflite")
    assert np.dtype(tfnas.Artifact.load(path).inputs[0].dtype) == np.float32


@pytest.mark.parametrize(("interrupted", "code"), [(False, 0), (True, 130)])
def test_search_hands_its_flags_over(tfnas_command, tmp_path, monkeypatch, interrupted, code):
    from tfnas.jobs import search_job
    from tfnas.nas.search_config import SearchConfig

    calls = []

    class Result(types.SimpleNamespace):
        def __str__(self):
            return "the tables"

    def fake(data, *, directory, **settings):
        calls.append((data, directory, settings))
        return Result(interrupted=interrupted)

    monkeypatch.setattr(search_job, "search", fake)
    flags = ["--max_trials=7", "--target_latency_ms=0.5", "--nobaseline", "--overwrite", "--seed=3"]
    got = tfnas_command("search", "--dataset=digits", f"--directory={tmp_path}", *flags)
    assert got == (code, "\nthe tables\n", "")
    [(data, directory, settings)] = calls
    assert (data, directory) == ("digits", str(tmp_path))
    assert settings.pop("overwrite") is True
    settings.pop("progress")
    assert (settings.pop("custom_objects"), settings.pop("safe_mode")) == ({}, True)
    expected = {"max_trials": 7, "target_latency_ms": 0.5, "baseline": False, "seed": 3}
    defaults = SearchConfig("digits", **expected)
    assert SearchConfig("digits", **settings) == defaults


@pytest.mark.parametrize("command", [[COMMAND], [sys.executable, "-m", "tfnas"]])
def test_the_installed_command_prints_its_version(command):
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tfnas {tfnas.__version__}\n", "")


def test_the_installed_command_keeps_stderr_clean(model):
    argv = [COMMAND, "profile", str(model)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "first" in done.stdout


MODULE = """
import keras

class Halved(keras.layers.Layer):
    def call(self, x):
        return x / 2

def bent(x):
    return keras.ops.relu(x) * 0.5
"""


@pytest.fixture
def of_own_layers(tmp_path, monkeypatch):
    """A model with a layer and a function of a module in the current folder."""
    name = f"layers_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(name)
    dense = keras.layers.Dense(2, activation=module.bent)
    keras.Sequential([keras.Input((4,)), module.Halved(), dense]).save("model.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x / 2)]).save("code.keras")
    return name


@pytest.mark.parametrize("command", ["profile", "export"])
def test_import_finds_classes_of_the_users_own(command, tfnas_command, of_own_layers):
    code, _, err = tfnas_command(command, "model.keras")
    assert code == 2
    assert f"--import={of_own_layers}" in err
    code, out, err = tfnas_command(command, "model.keras", f"--import={of_own_layers}")
    assert (code, err) == (0, "")
    assert out


@pytest.mark.parametrize("name", ["layers.py", "no_such_module", "a/b"])
def test_a_module_that_can_not_be_imported_is_named(name, tfnas_command, of_own_layers):
    code, _, err = tfnas_command("profile", "model.keras", f"--import={name}")
    assert code == 2
    assert is_one_error_line(err, "tfnas profile")
    assert "--import must name a module" in err
    assert repr(name) in err


def test_code_in_a_file_runs_only_where_it_is_trusted(tfnas_command, of_own_layers):
    code, _, err = tfnas_command("profile", "code.keras")
    assert code == 2
    assert "--nosafe_mode" in err
    assert tfnas_command("profile", "code.keras", "--nosafe_mode")[0] == 0


def test_help_marks_required_flags_and_shows_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert app.main(["prune", "--help"]) == 0
    lines = {
        line.split("=")[0].split()[0]: line
        for line in capsys.readouterr().out.splitlines()
        if "--" in line
    }
    assert lines["--sparsity"].endswith("(required)")
    assert lines["--[no]sparse"].endswith("(default: on)")
    assert lines["--[no]overwrite"].endswith("(default: off)")
    assert lines["--epochs"].endswith("(default: 0)")
    assert "(" not in lines["--exclude"]


def test_a_mistyped_command_is_guessed(capsys):
    assert app.main(["comprss"]) == 2
    assert capsys.readouterr().err.endswith("; did you mean 'compress'?\n")


def test_errors_name_flags(tmp_path, capsys):
    assert app.main(["compress", str(tmp_path / "none.keras"), "--max_bytes=-1", "--data=x"]) == 2
    assert "error: --max_bytes must be a finite number above 0" in capsys.readouterr().err
    assert app.main(["compress", str(tmp_path / "none.keras"), "--max_bytes=9", "--data=x"]) == 2
    assert "error: --data must be one of digits" in capsys.readouterr().err
    assert app.main(["compress", "none.keras", "--max_bytes=9", "--dataset=x"]) == 2
    assert "error: --dataset must be one of digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "x of validation_data must be finite",
            "x of the validation part of --data must be finite",
        ),
        ("train_data must be (x, y)", "--data must be (x, y)"),
        ("no 'test_data' in /a/test_data/b.npz", "no 'test_data' in /a/test_data/b.npz"),
        ("model must be a file", "model must be a file"),
    ],
)
def test_errors_on_data_name_its_flag(text, shown):
    values = flags_of(compress_command)
    assert app._with_flags(text, values) == shown
