"""Scripts of shells: bash is run, others are read, and run where they are installed."""

import shutil
import subprocess

import pytest

from tfnas.cli.command_table import command_of, commands, flags_of
from tfnas.cli.completion_scripts import SHELLS

PROBE = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={place}
_tfnas
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def script(tfnas_command, tmp_path):
    def write(shell):
        code, out, err = tfnas_command("completion", shell)
        assert (code, err) == (0, "")
        path = tmp_path / f"script.{shell}"
        path.write_text(out)
        return path

    return write


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_has_each_command_and_each_flag(script, shell):
    text = script(shell).read_text()
    for name in commands():
        assert name in text
        for flag in flags_of(command_of(name)):
            assert (f" -l {flag} " if shell == "fish" else f"--{flag}") in text


def completed(path, *words):
    """What bash offers for the last word; it takes "=" for a word of its own."""
    quoted = " ".join(f'"{word}"' for word in ("tfnas", *words))
    probe = PROBE.format(script=path, words=quoted, place=len(words))
    done = subprocess.run(["bash", "-c", probe], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_flags_and_values(script):
    path = script("bash")
    assert completed(path, "") == list(commands())
    assert completed(path, "pr") == ["prune-channels", "prune", "profile"]
    assert completed(path, "compress", "--max_by") == ["--max_bytes="]
    assert completed(path, "compress", "m.keras", "--max-by") == ["--max_bytes="]
    assert completed(path, "bench", "--noxn") == ["--noxnnpack"]
    assert completed(path, "search", "--preset", "=") == ["microcontroller", "mobile", "full"]
    assert completed(path, "search", "--preset", "=", "mob") == ["mobile"]
    assert completed(path, "export", "--data", "=", "x") == []  # names of files
    assert completed(path, "completion", "") == list(SHELLS)
    assert completed(path, "export", "mod") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_their_script(script, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    subprocess.run([shell, "-n", script(shell)], capture_output=True, check=True)
