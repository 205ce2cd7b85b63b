"""Folders of images, arrays and tables that somebody else made."""

import io
import os
import socket
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from tfnas.data import image_folder
from tfnas.data.datasets import load
from tfnas.data.named_arrays import read_arrays
from tfnas.data.tables import read_table
from tfnas.runtime import foreign_files

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX has these")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def images(tmp_path):
    """A sound folder of images of two classes."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
            picture.save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def test_an_eps_file_behind_another_name_is_not_opened(images):
    (images / "cat" / "x.jpg").write_bytes(EPS)
    Image.open(io.BytesIO(EPS))  # Pillow would: it starts Ghostscript for the pixels
    with pytest.raises(ValueError, match=r"x.jpg' can't be read: cannot identify image"):
        load(images)


def test_a_format_behind_the_suffix_of_another_is_read(images):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(images / "cat" / "x.png", "JPEG")
    assert sum(map(len, (load(images).x_train, load(images).x_test, load(images).x_val))) == 17


@pytest.mark.parametrize("limit", [64, 63])
def test_images_beyond_the_limit_of_pixels_are_refused_before_they_are_decoded(
    limit, images, monkeypatch
):
    monkeypatch.setattr(image_folder, "MOST_PIXELS", limit)
    if limit == 64:
        load(images)
        return
    with pytest.raises(ValueError, match=r"0.png' can't be read: it must have at most 63 pixels"):
        load(images)


def socket_at(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@POSIX
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "must be a regular file, got a pipe"),
        (socket_at, "must be a regular file, got a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "must be a regular file, got a device"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.symlink_to("absent"), "No such file"),
    ],
    ids=["pipe", "socket", "device", "circle", "absent"],
)
def test_what_is_no_image_is_named(make, message, images):
    make(images / "dog" / "x.png")
    with pytest.raises(ValueError, match=rf"x.png' can't be read: .*{message}"):
        load(images)


@POSIX
def test_links_to_folders_are_not_followed(images):
    (images / "cat" / "again").symlink_to(images / "cat")
    (images / "dog" / "folder.png").mkdir()
    assert load(images).num_classes == 2


@POSIX
def test_a_path_that_is_too_long_is_named(images):
    here = os.getcwd()
    os.chdir(images / "cat")
    try:
        for _ in range(25):
            os.mkdir("deeper" * 40)
            os.chdir("deeper" * 40)
    finally:
        os.chdir(here)
    with pytest.raises(ValueError, match=r"folder .* can't be read: File name too long"):
        load(images)


@POSIX
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_folder_without_permission_is_named(images):
    (images / "cat" / "more").mkdir(mode=0)
    with pytest.raises(ValueError, match=r"folder .*more' can't be read: Permission denied"):
        load(images)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux takes any bytes as names")
def test_names_that_are_not_utf8_become_readable(images, tmp_path):
    os.rename(images / "dog", os.fsencode(images) + b"/ch\xe9vre")
    os.rename(images, os.fsencode(tmp_path) + b"/\xe9tude")
    split = load(next(tmp_path.iterdir()))
    assert split.class_names == ("cat", r"ch\udce9vre")
    assert split.name == r"\udce9tude"
    str(split).encode()


@POSIX
@pytest.mark.parametrize("name", ["pipe", "pipe.npz"])
def test_a_pipe_is_no_data(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match="must be a file or a folder, got a pipe or a device"):
        load(tmp_path / name)


# --- arrays


@pytest.mark.parametrize("read", [load, read_arrays])
def test_arrays_that_expand_beyond_measure_are_refused(read, tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    arrays = {key: np.zeros((2, 1000)) for key in ("x_train", "y_train", "x_test", "y_test")}
    np.savez_compressed(path, **arrays)
    monkeypatch.setattr(foreign_files, "MOST_EXPANSION", 10)
    assert len(read_arrays(path)) == 4  # small enough for any
    monkeypatch.setattr(foreign_files, "FREE_BYTES", 10_000)
    with pytest.raises(ValueError, match="must expand to at most 10 times its size"):
        read(path)


@pytest.mark.parametrize("read", [load, read_arrays])
def test_archives_of_arrays_that_lead_out_are_refused(read, tmp_path):
    path = tmp_path / "a.npz"
    arrays = {key: np.zeros(2) for key in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(path, **arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.npy", b"x")
    with pytest.raises(ValueError, match="must hold names inside of it"):
        read(path)


# --- tables


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,\x002\n", "line 2 holds a null character"),
        ("a,b\n1,é\n".encode("latin-1"), "can't decode byte"),
        (b"a,b\n1," + b"2" * 200_000, "field larger than field limit"),
        (b"a,b\n1,2,3\n", "line 2 has 3 values, 2 are named"),
        (b'a,b\n1,"2\n', "unexpected end of data"),
        (b"\xff\xfea\x00,\x00", "can't decode byte"),
        (b"a," * 9 + b"\n", "got the names"),
    ],
)
def test_broken_tables_are_refused(content, message, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(path)


def test_a_file_without_line_breaks_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("wb") as stream:
        stream.truncate(2**33)  # 8 GiB of nothing, which take no space
    with pytest.raises(ValueError, match="line 1 has 16,777,216 characters or more"):
        read_table(path)
