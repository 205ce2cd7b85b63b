"""What every command must do, whatever it is for. Nothing is trained or converted."""

import json
import shlex
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from tfnas.cli import app
from tfnas.cli.command_table import command_of, commands, flags_of
from tfnas.cli.flag_forms import is_required, written
from tfnas.cli.flag_groups import grouped
from tfnas.compression.techniques.registry import technique
from tfnas.runtime.argument_rules import check_count
from tfnas.runtime.failed_work import FailedWork

COMMANDS = commands()
TRAINERS = ("prune", "prune-channels", "cluster", "factorize", "qat", "ptq")
# What each needs on the command line beside its positional arguments.
REQUIRED = {
    "search": ["--dataset=digits", "--directory={tmp}/run"],
    "prune": ["--dataset=digits", "--sparsity=0.5"],
    "prune-channels": ["--dataset=digits", "--macs=0.5"],
    "cluster": ["--dataset=digits"],
    "factorize": ["--dataset=digits", "--macs=0.5"],
    "qat": ["--dataset=digits"],
    "ptq": ["--dataset=digits"],
    "compress": ["--dataset=digits", "--max_bytes=0.5"],
    "verify": ["--dataset=digits", "--file={tmp}/file.tflite"],
    "evaluate": ["--dataset=digits"],
}


def declared(name):
    """Flag -> its definition."""
    values = flags_of(command_of(name))
    return {flag: values[flag] for flag in values}


def is_one_error_line(text, name):
    return text.startswith(f"tfnas {name}: error: ") and text.count("\n") == 1 and text[-1] == "\n"


def one_argument(name):
    """A positional argument of a command, where it takes one."""
    return ["{tmp}/none.keras"] if command_of(name).POSITIONAL else []


@pytest.fixture
def run(tfnas_command, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def call(*argv):
        return tfnas_command(*(arg.format(tmp=tmp_path) for arg in argv))

    return call


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("help_flag", ["--help", "-h", "--helpfull"])
def test_help_lists_each_flag_with_a_text(run, name, help_flag):
    code, out, err = run(name, help_flag)
    assert (code, err) == (0, "")
    module, found = command_of(name), declared(name)
    lines = out.splitlines()
    assert lines[0] == module.SUMMARY
    needed = [written(flag) for flag in found.values() if is_required(flag)]
    usage = " ".join(filter(None, ["usage: tfnas", name, module.POSITIONAL, *needed, "[flags]"]))
    assert lines[2] == usage
    listed = {}
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line[:4] == "  --":
            flag, _, text = line.strip().partition(" ")
            listed[flag] = text or after
    assert all(text.strip() for text in listed.values())
    assert set(listed) == {written(flag) for flag in found.values()}
    titles = [line for line in lines if line.endswith(":") and line[0] != " "]
    assert titles == [f"{title}:" for title in (*grouped(flags_of(module)), "Examples")]


@pytest.mark.parametrize("name", COMMANDS)
def test_texts_of_flags_are_plain(name):
    for flag in declared(name).values():
        text = flag.help.partition("\n    repeat this option")[0]  # absl's own addition
        assert text
        assert text == " ".join(text.split())
        assert not text.endswith(".") or text.endswith("...")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_the_help_are_command_lines_that_the_command_takes(name):
    module = command_of(name)
    assert len(module.EXAMPLES) >= 2
    for text, line in module.EXAMPLES:
        assert text
        program, command, *argv = shlex.split(line.partition(" >")[0])
        assert (program, command) == ("tfnas", name)
        positional = flags_of(module)(["tfnas", *argv])[1:]
        assert bool(positional) == bool(module.POSITIONAL)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_names_it(run, name):
    code, out, _ = run("--help")
    assert code == 0
    assert f"  {name} " in out
    assert command_of(name).SUMMARY in out


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["--nonsense", "--nonsense=3"])
def test_an_unknown_flag_is_wrong_usage(run, name, flag):
    code, out, err = run(name, *one_argument(name), *REQUIRED.get(name, []), flag)
    assert (code, out) == (2, "")
    assert is_one_error_line(err, name)
    assert "nonsense" in err
    assert f"(see tfnas {name} --help)" in err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_value_of_the_wrong_kind_is_wrong_usage(run, name):
    kinds = ("int", "float", "bool", "string enum")
    typed = [flag for flag in declared(name).values() if flag.parser.flag_type() in kinds]
    assert typed
    for flag in typed:
        argv = [*one_argument(name), *REQUIRED.get(name, []), f"--{flag.name}=wrong"]
        code, out, err = run(name, *argv)
        assert (code, out) == (2, ""), flag.name
        assert is_one_error_line(err, name)
        assert flag.name in err


@pytest.mark.parametrize("name", COMMANDS)
def test_arguments_besides_flags_are_counted(run, name):
    positional, required = command_of(name).POSITIONAL, REQUIRED.get(name, [])
    wrong = []
    if positional:
        wrong.append([])
        if "..." not in positional:
            wrong.append(["a.keras", "b.keras"])
    else:
        wrong.append(["a.keras"])
    for argv in wrong:
        code, out, err = run(name, *argv, *required)
        assert (code, out) == (2, "")
        assert is_one_error_line(err, name)
        expected = f"expected {positional}" if positional else "takes no arguments besides flags"
        assert f"{expected}, got {argv}" in err


@pytest.mark.parametrize("name", [*TRAINERS, "search"])
def test_a_missing_data_set_is_wrong_usage(run, name):
    required = [flag for flag in REQUIRED[name] if not flag.startswith("--dataset")]
    code, out, err = run(name, *one_argument(name), *required)
    assert (code, out) == (2, "")
    assert is_one_error_line(err, name)
    assert ("--dataset" if name == "search" else "--data") in err


def test_compress_needs_a_data_set_with_a_file(run):
    code, out, err = run("compress", "{tmp}/none.keras", "--max_bytes=0.5")
    assert (code, out) == (2, "")
    assert is_one_error_line(err, "compress")
    assert "data must be given" in err


@pytest.mark.parametrize(
    "name", [name for name in COMMANDS if name not in ("search", "completion")]
)
def test_a_missing_file_is_named_in_one_line(run, tmp_path, name):
    before = sorted(tmp_path.iterdir())
    code, out, err = run(name, "{tmp}/none.keras", *REQUIRED.get(name, []))
    assert (code, out) == (2, "")
    assert is_one_error_line(err, name)
    assert "none.keras" in err
    assert sorted(tmp_path.iterdir()) == before


def test_the_commands_are_those_of_before():
    others = (
        *("compress", "search", "export", "verify", "lint", "patches", "bench", "profile"),
        *("evaluate", "completion"),
    )
    assert set(COMMANDS) == {*TRAINERS, *others}
    assert len(COMMANDS) == len(set(COMMANDS))


@pytest.mark.parametrize("name", [*TRAINERS, "compress", "search"])
def test_a_long_job_resumes(run, monkeypatch, name):
    """Ctrl-C says so."""
    module = command_of(name)
    assert module.RESUMES is True

    def interrupted(positional, values):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "check", interrupted)
    monkeypatch.setattr(app, "command_of", lambda asked: module)
    code, out, err = run(name, *one_argument(name), *REQUIRED[name])
    assert (code, out) == (130, "")
    assert err == f"tfnas {name}: error: interrupted: the same command resumes\n"


@pytest.mark.parametrize("name", TRAINERS)
def test_what_all_techniques_have(name):
    found, own = declared(name), technique(name.replace("-", "_"))
    defaults = {
        "epochs": own.epochs,
        "learning_rate": None,  # the technique's own
        "distill": 0.0,
        "batch_size": 64,
        "train_limit": None,
        "seed": 0,
        "augment": [],
        "deterministic": False,
        "overwrite": False,
    }
    assert {flag: found[flag].default for flag in defaults} == defaults


def test_learning_rates_of_techniques_are_scaled():
    scales = {name: technique(name.replace("-", "_")).learning_rate_scale for name in TRAINERS}
    expected = {**dict.fromkeys(TRAINERS, 1), "cluster": 1 / 3, "qat": 1 / 10}
    assert scales == pytest.approx(expected)


PROBE = """
import json, sys
from tfnas.cli import app
codes, heavy = [], []
for argv in json.loads(sys.argv[1]):
    codes.append(app.main(argv))
    if {"tensorflow", "keras", "keras_tuner", "sklearn", "matplotlib"} & set(sys.modules):
        heavy.append(argv)
        break
print(json.dumps([codes, heavy]), file=sys.stderr)
"""


def probed(calls, folder):
    """The exit codes of calls in one process, the first that loads TensorFlow, and the errors."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(calls)],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    *errors, last = done.stderr.splitlines()
    return *json.loads(last), errors


def test_help_and_wrong_usage_end_before_tensorflow_is_loaded(tmp_path):
    calls = [["--help"], ["--version"], ["nonsense"], ["completion", "bash"]]
    for name in COMMANDS:
        calls += [[name, "--help"], [name, "--nonsense"], [name, "a", "b", "--nonsense"]]
    codes, heavy, errors = probed(calls, tmp_path)
    assert heavy == []
    assert codes == [0, 0, 2, 0, *[0, 2, 2] * len(COMMANDS)]
    assert len(errors) == 1 + 2 * len(COMMANDS)


# A model that only its first bytes look like, so that flags are checked after its path.
WRONG_VALUES = [
    ("compress m.keras --data=digits --max_bytes=many", "--max_bytes must be a number"),
    ("compress m.keras --data=digits --max-bytes=-1", "--max_bytes must be a finite number above"),
    ("compress m.keras --max_bytes=1", "--data must be given"),
    ("compress m.keras --data=digit --max_bytes=1", "did you mean 'digits'?"),
    ("compress folder --max_bytes=1", "must be the folder of a finished search"),
    ("compress m.keras --data=digits --max_bytes=1 --augment=flp", "did you mean 'flip'?"),
    ("compress m.keras --data=digits --max_bytes=1 --learning_rate=0", "--learning_rate must be"),
    ("compress m.keras --data=digits --max_bytes=1 --directory=m.keras", "must be a folder"),
    ("search --data=digits --directory=o --objectives=latency", "did you mean 'latency_ms'?"),
    ("search --data=digits --directory=o --limit=size=3", "--limit must name objectives"),
    ("search --data=digits --directory=o --limit=size_bytes", "--limit must be metric=number"),
    ("search --data=digits --directory=o --compression=sparsty=1", "did you mean 'sparsity'?"),
    ("search --data=digits --directory=o --teacher=none.keras", "--teacher must be a .keras"),
    ("search --data=digits --directory=o --target_latency_ms=0", "--target_latency_ms must be"),
    ("search --data=none.npz --directory=o", "--data must be a file or a folder that exists"),
    ("prune m.keras --data=digits --sparsity=1.5", "--sparsity must be in"),
    ("prune-channels m.keras --data=digits --macs=-1", "--macs must be above 0"),
    ("cluster m.keras --data=digits --layers=stem=few", "--layers must hold NAME=K"),
    ("factorize m.keras --data=digits", "exactly one of macs, energy and rank must be given"),
    ("qat m.keras --data=digits --layers=stem=int3", "--layers must map to int8, int4"),
    ("ptq m.keras --data=digits --epochs=2", "--epochs must be 0 for ptq"),
    ("export m.keras --layers=stem=int3 --mode=int8", "--layers must map to int8, int4"),
    ("export m.keras --output=folder", "--output must be the path of a file"),
    ("export m.keras --output=m.keras/o.tflite", "--output must be in a folder"),
    ("export m.keras --mode=mixed", "--size must be given with mode 'mixed'"),
    ("verify m.keras --file=none.tflite --data=digits", "--file must be a .tflite file"),
    ("evaluate file.tflite --data=digit", "did you mean 'digits'?"),
    ("lint none.tflite", "file must be a .tflite file, got 'none.tflite', which does not exist"),
    ("lint file.tflite --runtimes=gpuu", "did you mean 'gpu'?"),
    ("patches file.tflite --max_macs_ratio=0", "--max_macs_ratio must be a number of at least 1"),
    ("bench file.tflite --vela=ethos-u55", "did you mean 'ethos-u55-"),
    ("profile text.txt", "model must be a .keras or .h5 file, got 'text.txt'"),
    ("profile folder", "model must be a .keras or .h5 file, got 'folder', which is no file"),
    ("completion fsh", "did you mean 'fish'?"),
]


def test_wrong_paths_and_values_are_told_before_tensorflow_is_loaded(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("text.txt", "file.tflite"):
        (tmp_path / name).write_text("text")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    codes, heavy, errors = probed([call.split() for call, _ in WRONG_VALUES], tmp_path)
    assert heavy == []
    assert {call.split()[0] for call, _ in WRONG_VALUES} == set(COMMANDS)
    assert codes == [2] * len(WRONG_VALUES)
    for (call, message), error in zip(WRONG_VALUES, errors, strict=True):
        assert message in error, call


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (lambda: check_count("epochs", 0, 1), 2),
        (lambda: np.zeros(3).reshape(2, 2), 1),
        (ValueError("of a user's own layer"), 1),
        (FailedWork("the loss is not finite"), 1),
        (RuntimeError("the converter failed"), 1),
        (OSError("no space left"), 1),
        (KeyError("a defect"), 1),
    ],
)
@pytest.mark.parametrize("name", COMMANDS)
def test_the_code_of_wrong_usage_is_2_and_of_failed_work_1(run, monkeypatch, name, error, code):
    module = command_of(name)

    def fails(positional, values):
        if callable(error):
            error()
        raise error

    monkeypatch.setattr(module, "check", fails)
    monkeypatch.setattr(app, "command_of", lambda asked: module)
    argument = ["bash"] if module.POSITIONAL else []
    found, _, err = run(name, *argument, *REQUIRED.get(name, []))
    assert found == code
    assert is_one_error_line(err, name)
    # What tfnas, the system or a failed conversion say needs no traceback.
    said = code == 2 or isinstance(error, FailedWork | RuntimeError | OSError)
    assert ("TFNAS_DEBUG=1 shows the traceback" in err) == (not said)
