"""What every command must do, whatever it is for. Nothing is trained or converted."""

import json
import subprocess
import sys

import pytest
from absl import flags

from tfnas.cli import app
from tfnas.compression.techniques.registry import technique

COMMANDS = app.commands()
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
}


def module_of(name):
    return app._command_module(name)


def flags_of(name):
    """Flag -> its definition."""
    module = module_of(name)
    values = app.flags_of(module)
    return {flag.name: flag for flag in values.get_flags_for_module(module.__name__)}


def is_one_error_line(text, name):
    return text.startswith(f"tfnas {name}: error: ") and text.count("\n") == 1 and text[-1] == "\n"


def one_argument(name):
    """A positional argument of a command, where it takes one."""
    return ["{tmp}/none.keras"] if module_of(name).POSITIONAL else []


@pytest.fixture
def run(tfnas_command, tmp_path):
    def call(*argv):
        return tfnas_command(*(arg.format(tmp=tmp_path) for arg in argv))

    return call


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("help_flag", ["--help", "-h", "--helpfull"])
def test_help_lists_each_flag_with_a_text(run, name, help_flag):
    code, out, err = run(name, help_flag)
    assert (code, err) == (0, "")
    module = module_of(name)
    lines = out.splitlines()
    assert lines[0] == module.SUMMARY
    usage = " ".join(filter(None, ["usage: tfnas", name, module.POSITIONAL, "[flags]"]))
    assert lines[2] == usage
    assert lines[-1].startswith(f"example: tfnas {name} ")
    listed = {line.split()[0]: line.split(maxsplit=1)[1:] for line in lines if line[:4] == "  --"}
    assert all(listed.values())
    found = {f"--[no]{n}" if flag.boolean else f"--{n}=..." for n, flag in flags_of(name).items()}
    assert set(listed) == found


@pytest.mark.parametrize("name", COMMANDS)
def test_texts_of_flags_are_plain(name):
    for flag in flags_of(name).values():
        text = flag.help.partition("\n    repeat this option")[0]  # absl's own addition
        assert text
        assert text == " ".join(text.split())
        assert not text.endswith(".") or text.endswith("...")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_the_help_is_a_command_line_that_the_command_takes(name):
    module = module_of(name)
    program, command, *argv = module.EXAMPLE.removeprefix("example: ").split()
    assert (program, command) == ("tfnas", name)
    values = module.define(flags.FlagValues())
    positional = values(["tfnas", *argv])[1:]
    assert bool(positional) == bool(module.POSITIONAL)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_names_it(run, name):
    code, out, _ = run("--help")
    assert code == 0
    assert f"  {name} " in out
    assert module_of(name).SUMMARY in out


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
    typed = [flag for flag in flags_of(name).values() if flag.parser.flag_type() in kinds]
    assert typed
    for flag in typed:
        argv = [*one_argument(name), *REQUIRED.get(name, []), f"--{flag.name}=wrong"]
        code, out, err = run(name, *argv)
        assert (code, out) == (2, ""), flag.name
        assert is_one_error_line(err, name)
        assert flag.name in err


@pytest.mark.parametrize("name", COMMANDS)
def test_arguments_besides_flags_are_counted(run, name):
    positional, required = module_of(name).POSITIONAL, REQUIRED.get(name, [])
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
    assert (code, out) == (1, "")
    assert is_one_error_line(err, "compress")
    assert "data must be given" in err


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "search"])
def test_a_missing_file_is_named_in_one_line(run, tmp_path, name):
    before = sorted(tmp_path.iterdir())
    code, out, err = run(name, "{tmp}/none.keras", *REQUIRED.get(name, []))
    assert (code, out) == (1, "")
    assert is_one_error_line(err, name)
    assert "none.keras" in err
    assert sorted(tmp_path.iterdir()) == before


def test_the_commands_are_those_of_before():
    others = "compress", "search", "export", "verify", "lint", "patches", "bench", "profile"
    assert set(COMMANDS) == {*TRAINERS, *others}
    assert len(COMMANDS) == len(set(COMMANDS))


@pytest.mark.parametrize("name", [*TRAINERS, "compress", "search"])
def test_a_long_job_resumes(run, monkeypatch, name):
    """Ctrl-C says so."""
    module = module_of(name)
    assert module.RESUMES is True

    def interrupted(positional, values):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "main", interrupted)
    monkeypatch.setattr(app, "_command_module", lambda asked: module)
    code, out, err = run(name, *one_argument(name), *REQUIRED[name])
    assert (code, out) == (130, "")
    assert err == f"tfnas {name}: error: interrupted: the same command resumes\n"


@pytest.mark.parametrize("name", TRAINERS)
def test_what_all_techniques_have(name):
    found, own = flags_of(name), technique(name.replace("-", "_"))
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
codes = [app.main(argv) for argv in json.loads(sys.argv[1])]
heavy = {"tensorflow", "keras", "keras_tuner", "sklearn", "matplotlib"} & set(sys.modules)
print(json.dumps([codes, sorted(heavy)]), file=sys.stderr)
"""


def test_help_and_wrong_usage_end_before_tensorflow_is_loaded():
    calls = [["--help"], ["--version"], ["nonsense"]]
    for name in COMMANDS:
        calls += [[name, "--help"], [name, "--nonsense"], [name, "a", "b", "--nonsense"]]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(calls)], capture_output=True, text=True, check=True
    )
    *errors, last = done.stderr.splitlines()
    codes, heavy = json.loads(last)
    assert codes == [0, 0, 2, *[0, 2, 2] * len(COMMANDS)]
    assert heavy == []
    assert len(errors) == 1 + 2 * len(COMMANDS)
