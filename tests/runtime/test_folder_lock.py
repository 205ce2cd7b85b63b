"""The lock of a job's folder: one owner, whoever dies."""

import contextlib
import errno
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from tfnas.runtime import folder_lock
from tfnas.runtime.folder_lock import NAME, check_has_no_owner, owner_of

OWNER = textwrap.dedent(
    """
    import os, pathlib, sys, time
    from tfnas.runtime.folder_lock import owner_of
    with owner_of(pathlib.Path(sys.argv[1]), "job"):
        child = 0 if sys.argv[2:] == ["fork"] and os.fork() == 0 else os.getpid()
        if child:
            print(child, flush=True)
        time.sleep(600)
    """
)


@pytest.fixture
def owner(tmp_path):
    """Starts a process that holds the lock, perhaps with a forked child; returns it."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(tmp_path), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        started.append(process)
        assert process.stdout.readline() == f"{process.pid}\n"
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
        process.stdout.close()


def test_a_second_owner_is_refused_and_told_of_the_first(owner, tmp_path):
    first = owner()
    message = rf"directory '{tmp_path}' belongs to a job that is running \(process {first.pid}\)"
    with pytest.raises(RuntimeError, match=message), owner_of(tmp_path, "job"):
        pass
    with pytest.raises(RuntimeError, match=message):
        check_has_no_owner(tmp_path, "job")
    assert (tmp_path / NAME).exists()


def test_the_lock_of_a_dead_process_is_free(owner, tmp_path):
    first = owner()
    first.kill()
    first.wait()
    assert (tmp_path / NAME).exists()
    check_has_no_owner(tmp_path)
    with owner_of(tmp_path):
        assert (tmp_path / NAME).read_text() == str(os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_a_forked_process_does_not_hold_the_lock(owner, tmp_path):
    first = owner("fork")
    first.kill()  # its child lives on
    first.wait()
    with owner_of(tmp_path):
        pass


def test_a_forked_process_that_leaves_the_context_frees_nothing(tmp_path):
    with owner_of(tmp_path):
        child = os.fork()
        if not child:
            try:
                with pytest.raises(RuntimeError), owner_of(tmp_path):
                    pass
            finally:
                os._exit(0 if (tmp_path / NAME).exists() else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert not (tmp_path / NAME).exists()


def test_nothing_is_created_by_looking(tmp_path):
    check_has_no_owner(tmp_path / "missing")
    check_has_no_owner(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_removed_meanwhile_is_taken_again(tmp_path, monkeypatch):
    answers = iter([False, True])
    monkeypatch.setattr(folder_lock, "_is_same", lambda *_: next(answers))
    with owner_of(tmp_path):
        pass
    assert next(answers, None) is None


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_into_needs_no_lock(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with owner_of(pathlib.Path(tmp_path)):
        pass
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
