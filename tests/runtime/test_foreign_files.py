"""Pipes, devices and archives that would expand or write elsewhere."""

import io
import os
import pathlib
import socket
import stat
import zipfile

import pytest

from tfnas.runtime import foreign_files
from tfnas.runtime.foreign_files import check_archive, check_expansion, open_regular, read_regular


def test_a_file_is_read_through_links(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "link") == b"content"
    with open_regular(str(tmp_path / "file")) as stream:
        assert stream.read(3) == b"con"


def socket_at(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.skipif(os.name != "posix", reason="POSIX has these")
@pytest.mark.parametrize(
    ("make", "kind"),
    [(os.mkfifo, "a pipe"), (socket_at, "a socket"), (os.mkdir, "a folder")],
    ids=["pipe", "socket", "folder"],
)
def test_what_only_looks_like_a_file_is_refused_at_once(make, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    make("it")
    with pytest.raises(ValueError, match=f"'it' must be a regular file, got {kind}"):
        open_regular("it")


def test_links_in_a_circle_and_missing_files_are_errors_of_the_system(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")


def archive(*parts, **options):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as made:
        for name, content in parts:
            made.writestr(name, content)
    return stream


def test_a_plain_archive_is_accepted(tmp_path):
    path = pathlib.Path(tmp_path / "a.zip")
    path.write_bytes(archive(("config.json", "{}"), ("assets/", ""), ("assets/a", "x")).getvalue())
    check_archive(path)


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/a", "C:/a", "..\\a", "\\\\host\\a"])
def test_names_that_lead_out_of_an_archive_are_refused(name):
    with pytest.raises(ValueError, match="names inside of it"):
        check_archive(archive((name, "x")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused():
    with pytest.raises(ValueError, match=r"each name once, got 'config.json' twice"):
        check_archive(archive(("config.json", "{}"), ("config.json", "[]")))


def test_links_in_an_archive_are_refused():
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(ValueError, match="plain files, got the link"):
        check_archive(archive((link, "/etc/passwd")))


def test_an_archive_that_expands_beyond_measure_is_refused(monkeypatch):
    monkeypatch.setattr(foreign_files, "FREE_BYTES", 2**20)
    bomb = archive(("a", bytes(2**21)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="at most 200 times its size"):
        check_archive(bomb)
    check_archive(archive(("a", bytes(2**21))))  # as many bytes, not packed


def test_what_memory_does_not_hold_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="the data must fit into memory"):
        check_expansion(2**60, 2**59, "the data")
    monkeypatch.setattr(foreign_files, "_memory", lambda: None)
    check_expansion(2**60, 2**59, "the data")


def test_an_encrypted_archive_is_refused():
    content = archive(("a", "x")).getvalue()
    at = content.index(b"PK\x01\x02") + 8  # the flags in the directory
    encrypted = content[:at] + b"\x01" + content[at + 1 :]
    with pytest.raises(ValueError, match="must not be encrypted"):
        check_archive(io.BytesIO(encrypted))
