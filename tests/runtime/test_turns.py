"""Processes that take turns."""

import fcntl

import pytest

from tfnas.runtime.turns import lock_file, turn_at


def held(name):
    with lock_file(name).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_one_is_inside_at_a_time():
    with turn_at("phone"):
        assert held("phone")
        assert not lock_file("another phone").exists()
    assert not held("phone")


def test_an_error_ends_a_turn():
    with pytest.raises(ValueError, match="one"), turn_at("phone"):
        int("one")
    assert not held("phone")


def test_where_no_file_can_be_written_nothing_is_waited_for(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with turn_at("phone"):
        assert not lock_file("phone").exists()
