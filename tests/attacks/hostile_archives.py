"""Archives and folders of images that attack whoever reads them: each is read, or is one error."""

import collections
import io
import json
import os
import pathlib
import socket
import stat
import sys
import warnings
import zipfile

import h5py
import keras
import numpy as np

import tfnas
from tfnas.data.named_arrays import read_arrays
from tfnas.data.tables import read_table

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "contracts"))

import fuzzing

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def small_model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")])


def keras_archive(path, change=None, parts=None):
    """A saved model whose parts are changed, with further ones."""
    small_model().save(path)
    with zipfile.ZipFile(path) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    for name, edit in (change or {}).items():
        found[name] = edit(found[name])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**found, **(parts or {})}.items():
            archive.writestr(name, content)
    return path


def edited_hdf5(fill):
    def edit(content):
        stream = io.BytesIO(content)
        with h5py.File(stream, "a") as file:
            fill(file)
        return stream.getvalue()

    return edit


def fills(folder):
    """What is written into an HDF5 file by its name."""
    secret = folder / "secret.bin"
    secret.write_bytes(b"SECRET" * 8)

    def external_storage(file):
        file.create_dataset("x/kernel", (4, 3), np.float32, external=[(str(secret), 0, 48)])

    def external_link(file):
        file["x"] = h5py.ExternalLink(str(secret), "/d")

    def virtual_data(file):
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(str(secret), "d", (3,))
        file.create_virtual_dataset("x/kernel", layout)

    def huge_shape(file):
        file.create_dataset("x", (2**45,), np.float32, chunks=(1024,))

    def many_groups(file):
        file.create_group("/".join("a" * 5000))

    def circle(file):
        file["x/again"] = file["/"]

    return [external_storage, external_link, virtual_data, huge_shape, many_groups, circle]


def models(folder):
    """Yields (name, call) for each hostile model."""
    for fill in fills(folder):
        for suffix in ("h5", "keras"):
            path = folder / f"{fill.__name__}.{suffix}"
            if suffix == "keras":
                keras_archive(path, {"model.weights.h5": edited_hdf5(fill)})
            else:
                small_model().save(path)
                with h5py.File(path, "a") as file:
                    fill(file.require_group("x/more"))
            yield path.name, lambda path=path: tfnas.load_model(path)
    for levels in (300, 100_000):
        path = folder / f"deep {levels}.keras"
        text = b'{"a":' * levels + b"1" + b"}" * levels
        keras_archive(path, {"config.json": lambda _, text=text: text})
        yield path.name, lambda path=path: tfnas.load_model(path)
    enlarged = folder / "enlarged.keras"
    keras_archive(enlarged, {"config.json": lambda text: text.replace(b": 3", b": 3000000000")})
    yield enlarged.name, lambda: tfnas.load_model(enlarged)
    for number, name in enumerate(("../../outside", "/tmp/outside", "..\\outside", "C:/outside")):
        path = keras_archive(folder / f"leads out {number}.keras", parts={name: b"x"})
        yield path.name, lambda path=path: tfnas.load_model(path)
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    linked = keras_archive(folder / "link.keras", parts={link: "/etc/passwd"})
    yield linked.name, lambda: tfnas.load_model(linked)
    bomb = keras_archive(folder / "bomb.keras", parts={"assets/zeros": bytes(2**30 + 1)})
    yield bomb.name, lambda: tfnas.load_model(bomb)
    path = folder / "drawn.keras"
    small_model().save(path)
    content = path.read_bytes()
    for number in range(6):
        rng = np.random.default_rng([12, number])
        drawn = folder / f"drawn {number}.keras"
        drawn.write_bytes(fuzzing.keras_file(rng, content, folder / "made_by_a_file"))
        yield drawn.name, lambda drawn=drawn: tfnas.load_model(drawn)


def tables(folder):
    """Yields (name, call) for each hostile file of arrays or table."""
    for number in range(8):
        path = folder / f"drawn {number}.npz"
        rng = np.random.default_rng([13, number])
        path.write_bytes(fuzzing.npz(rng, folder / "made_by_a_file"))
        yield path.name, lambda path=path: tfnas.data.load(path)
    zeros = np.zeros(2**27 + 1, np.int64)
    bomb = folder / "bomb.npz"
    np.savez_compressed(bomb, x_train=zeros)
    yield bomb.name, lambda: read_arrays(bomb)
    del zeros
    contents = {
        "null": b"a,b\n1,\x002\n",
        "latin": "a,b\n1,é\n".encode("latin-1"),
        "wide": b"a,b\n1," + b"2" * 2**20,
        "ragged": b"a,b\n1,2,3\n",
        "open": b'a,b\n1,"2\n',
    }
    for name, content in contents.items():
        path = folder / f"{name}.csv"
        path.write_bytes(content)
        yield path.name, lambda path=path: read_table(path)
    endless = folder / "endless.csv"
    with endless.open("wb") as stream:
        stream.truncate(2**33)
    yield endless.name, lambda: read_table(endless)


def socket_at(path):
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def too_long(path):
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        for _ in range(25):
            os.mkdir("deeper" * 40)
            os.chdir("deeper" * 40)
    finally:
        os.chdir(here)


def png(width, height):
    """The header of an image of any size, which has no pixels."""
    head = b"IHDR" + np.array([width, height], ">u4").tobytes() + b"\x08\x02\x00\x00\x00"
    start = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + head + fuzzing.zlib_crc(head)
    return start + b"\x00\x00\x00\x00IEND\xaeB`\x82"


def placed():
    """What is put beside the images of a class, by its name."""
    return {
        "pipe": os.mkfifo,
        "socket": socket_at,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "circle": lambda path: path.symlink_to(path),
        "absent": lambda path: path.symlink_to("nowhere"),
        "text": lambda path: path.symlink_to("/etc/hostname"),
        "folder": os.mkdir,
        "circle of folders": lambda path: path.symlink_to(path.parent),
        "path too long": too_long,
        "EPS": lambda path: path.write_bytes(EPS),
        "huge PNG": lambda path: path.write_bytes(png(2**31 - 1, 2**31 - 1)),
        "large PNG": lambda path: path.write_bytes(png(9000, 9000)),
        "empty": lambda path: path.write_bytes(b""),
    }


def folders(folder):
    """Yields (name, call) for each hostile folder of images."""
    for name, place in placed().items():
        path = folder / f"images {name}"
        images(path)
        place(path / "dog" / "x.png")
        yield path.name, lambda path=path: tfnas.data.load(path)
    odd = folder / "images odd names"
    images(odd)
    os.rename(odd / "dog", os.fsencode(odd) + b"/d\xf6g\x1b[31m")
    yield odd.name, lambda: str(tfnas.data.load(odd)).encode()
    for number in range(10):
        rng = np.random.default_rng([14, number])
        drawn = fuzzing.image_folder(rng, folder / f"images drawn {number}")
        yield drawn.name, lambda drawn=drawn: tfnas.data.load(drawn)


def images(path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (path / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(path / name / f"{i}.png")


def attack(folder, count=None):
    """Reads hostile archives and folders.

    Args:
        folder: An empty folder.
        count: How many of each kind; None: all.

    Returns:
        End -> number, and the failures: other errors, and files that appeared elsewhere.
    """
    found, faults = collections.Counter(), []
    for kind in (models, tables, folders):
        inside = folder / kind.__name__ / "inside"
        inside.mkdir(parents=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number, (name, call) in enumerate(kind(inside)):
                if number == count:
                    break
                try:
                    end = fuzzing.outcome(call, ValueError)
                    found["read" if end == "right" else "refused"] += 1
                except AssertionError as error:
                    found["wrong error"] += 1
                    faults.append(f"{name}: {error}")
        written = [each.name for each in inside.parent.iterdir() if each != inside]
        written += [name for name in ("made_by_a_file", "outside") if (inside / name).exists()]
        if written or pathlib.Path("/tmp/outside").exists():
            faults.append(f"{kind.__name__}: wrote {written}")
    return found, faults


def main(folder):
    found, faults = attack(pathlib.Path(folder))
    print(json.dumps([found, faults]))


if __name__ == "__main__":
    main(*sys.argv[1:])
