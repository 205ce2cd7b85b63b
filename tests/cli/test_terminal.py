"""What a command writes, and how much of it."""

import logging
import os
import subprocess
import sys

import pytest

from tfnas.cli import profile_command, terminal
from tfnas.cli.command_table import flags_of
from tfnas.cli.console import LiveProgress, NoProgress, PlainProgress, progress_display
from tfnas.compression.progress import TrialNews

LOG = logging.getLogger("tfnas.tests")


@pytest.fixture
def talkative(monkeypatch):
    """`tfnas profile` with a main that logs."""

    def main(positional, values):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            LOG.log(level, "%s of %s", logging.getLevelName(level), positional[0])
        print("the result")
        return 0

    monkeypatch.setattr(profile_command, "check", lambda positional, values: None)
    monkeypatch.setattr(profile_command, "main", main)


@pytest.mark.parametrize(
    ("argv", "levels"),
    [
        (["profile", "m"], ["warning", "error"]),
        (["profile", "m", "--quiet"], ["error"]),
        (["--quiet", "profile", "m"], ["error"]),
        (["profile", "m", "--verbose"], ["debug", "info", "warning", "error"]),
    ],
)
def test_messages_are_as_many_as_asked_for(tfnas_command, talkative, argv, levels):
    code, out, err = tfnas_command(*argv)
    assert (code, out) == (0, "the result\n")
    assert err.splitlines() == [f"tfnas: {level}: {level.upper()} of m" for level in levels]
    assert logging.getLogger("tfnas").level == logging.NOTSET
    assert logging.getLogger("tfnas").handlers == []


def test_quiet_shows_no_progress(capsys):
    values = flags_of(profile_command)
    for argv, kind in ((["--quiet"], NoProgress), ([], PlainProgress)):
        values.unparse_flags()
        values(["tfnas", *argv])
        with progress_display(values) as progress:
            assert type(progress) is kind
            progress.phase("converting")
    assert capsys.readouterr().out == "converting\n"


def test_a_bar_counts_the_time_down(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    progress = LiveProgress()
    column, [task] = progress.bar.columns[-1], progress.bar.tasks
    assert column.render(task).plain == ""
    progress.time_left(90.0)
    assert column.render(task).plain == "about 1 min 30 s left"
    clock[0] += 40.0
    assert column.render(task).plain == "about 50 s left"
    clock[0] += 60.0
    assert column.render(task).plain == "about 0 s left"


def test_a_bar_shows_steps_in_their_own_words():
    progress = LiveProgress()
    [task] = progress.bar.tasks
    progress.step_ended(500, 2000, "network")
    assert (task.description, task.completed) == ("network 500/2,000", 0.25)
    progress.trial_began(2, 4)
    progress.epoch_ended(1, 2)
    assert (task.description, task.completed) == ("trial 2/4 epoch 1/2", pytest.approx(0.35))


def test_lines_of_epochs_name_their_trial_and_end_with_the_last_one(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    progress = PlainProgress()
    progress.phase("search")
    progress.trial_began(1, 4)
    for number, seconds in enumerate((12.0, 1.0, 1.0), 1):
        clock[0] += seconds
        progress.epoch_ended(number, 3)
    progress.trial_ended(TrialNews(1, 4, 14.0, "good", "good"))
    progress.trial_began(2, 4)
    for number in range(1, 4):  # fast ones have no lines, the last one neither
        clock[0] += 1.0
        progress.epoch_ended(number, 3)
    progress.phase("training the best again")
    clock[0] += 12.0
    progress.epoch_ended(1, 2)
    lines = [line.split(";")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        *("search", "  trial 1/4, epoch 1 of 3", "  trial 1/4, epoch 3 of 3"),
        *("trial 1/4 [14 s] good", "  best: good"),
        *("training the best again", "  epoch 1 of 2"),
    ]


@pytest.mark.skipif(os.name != "posix", reason="needs pipes of POSIX")
@pytest.mark.parametrize(
    ("stdout", "code", "message"),
    [("pipe", 141, ""), ("/dev/full", 1, "tfnas: error: the output can't be written: ")],
)
def test_a_reader_that_has_read_enough_ends_a_command_quietly(stdout, code, message):
    if stdout == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    elif os.path.exists(stdout):
        writer = os.open(stdout, os.O_WRONLY)
    else:
        pytest.skip(f"needs {stdout}")
    argv = [sys.executable, "-m", "tfnas", "search", "--help"]
    done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == code
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == bool(message)


def test_a_closed_pipe_of_something_else_is_an_error(tfnas_command, monkeypatch):
    def main(positional, values):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(profile_command, "check", main)
    code, out, err = tfnas_command("profile", "m")
    assert (code, out) == (1, "")
    assert err == "tfnas profile: error: a pipe to another process was closed\n"
    monkeypatch.setattr(terminal, "stdout_is_closed", lambda: True)
    with pytest.raises(BrokenPipeError):
        tfnas_command("profile", "m")
