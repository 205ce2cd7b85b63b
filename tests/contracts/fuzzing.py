"""Malformed and hostile inputs, drawn by number: the same number is the same input for ever.

As a script it gives `.tflite` files to the interpreter, in a process of its own that may end:

    python tests/contracts/fuzzing.py FOLDER FIRST LAST

prints the number of each file before it is tried, and then how it ended.
"""

import contextlib
import copy
import io
import json
import math
import os
import pathlib
import pickle
import random
import sys
import time
import zipfile

import numpy as np

CLEAR = (" must ", "can't be", "unknown key", "missing key", "is not valid JSON")
SLOW = 30.0  # s of this process's own time, whatever else runs; more counts as hanging


class Marker:
    """An object whose unpickling creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def outcome(call, *allowed):
    """Runs a call and returns "right", or the name of a documented error.

    Raises:
        AssertionError: It ends in another error, in an obscure one, or too late.
    """
    began, error = time.process_time(), None
    try:
        call()
    except Exception as caught:
        error = caught
    assert time.process_time() - began < SLOW, "it took too long"
    if error is None:
        return "right"
    text = str(error)
    if type(error) not in allowed:
        raise AssertionError(f"{type(error).__name__} {text[:300]}") from error
    assert any(sign in text for sign in CLEAR) or type(error) is RuntimeError, text[:300]
    assert len(text) < 20_000, text[:300]
    return type(error).__name__


# --- values and texts

DEEP = json.loads("[" * 200 + "]" * 200)
VALUES = (
    *(None, True, False, 0, 1, -1, 2, 3, 8, 10**6, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e300),
    *(math.nan, math.inf, -math.inf, "", "int8", "int4", "float32", "NaN", "²", "\0", "a" * 5000),
    *(b"int8", [], [1], [[]], {}, {"a": 1}, {"head": "int4"}, {"head": 4}, (), ("int8", "int8")),
    *([("a", "int4")], [("a",)], {1: "int8"}, {None: None}, {"*": "float32"}, object(), int, DEEP),
    *(1 + 2j, np.float64("nan"), np.int64(3), np.zeros(3), np.array(["int8"]), range(3), repr),
)


def value(rng):
    return VALUES[rng.integers(len(VALUES))]


def json_text(rng, plain):
    """A record as JSON text, damaged in one of several ways."""
    tree = copy.deepcopy(plain)
    how = rng.integers(7)
    if how < 3:  # a value somewhere is replaced by another one
        _replace(rng, tree)
    text = json.dumps(tree, default=str)
    if how == 3:
        return text[: rng.integers(len(text))]
    if how == 4:
        place = rng.integers(len(text))
        return text[:place] + chr(rng.integers(1, 0x2000)) + text[place + 1 :]
    if how == 5:
        texts = ["[" * 10**5, '{"a":' * 10**5, "1" * 5000, "", "null", "[]", '"x"', "NaN", "\0"]
        return [*texts, None, 3, b"\xff\xfe", b"{}", {}, []][rng.integers(len(texts) + 6)]
    return text


def _replace(rng, tree):
    places = list(_places(tree))
    inside, key = places[rng.integers(len(places))]
    how = rng.integers(3)
    if how == 0 and isinstance(inside, dict):
        inside[str(value(rng))[:40]] = 1
    elif how == 1:
        del inside[key]
    else:
        inside[key] = value(rng)


def _places(tree):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, item in list(items):
        yield tree, key
        if isinstance(item, dict | list) and item:
            yield from _places(item)


# --- bytes


def damaged(rng, content):
    """A file cut short, or with some of its bits, bytes or words changed."""
    data = bytearray(content)
    how = rng.integers(6)
    if how == 0:
        return bytes(data[: rng.integers(len(data))])
    if how == 1:
        return bytes(data) + bytes(rng.integers(0, 256, 100, np.uint8))
    for _ in range(int(rng.choice([1, 1, 3, 16]))):
        place = int(rng.integers(len(data)))
        if how == 2:
            data[place] ^= 1 << int(rng.integers(8))
        elif how == 3:
            data[place] = int(rng.choice([0, 1, 127, 128, 255]))
        elif how == 4:
            data[place : place + 4] = int(rng.integers(2**32)).to_bytes(4, "little")
        else:
            data[place] = int(rng.integers(256))
    return bytes(data[: len(content)])


def written(parts, compression=zipfile.ZIP_STORED):
    """An archive with these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return stream.getvalue()


def npy(array=None, header=None):
    """An array as a file, or any header with few bytes behind it."""
    stream = io.BytesIO()
    if header is None:
        np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
        return stream.getvalue()
    text = header.encode("latin-1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)


def pickled_npy(marker):
    """An array of objects as NumPy writes it: a pickle, here a malicious one."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    return start + pickle.dumps(Marker(marker))


def arrays(rng):
    labels = np.arange(60) % 3
    x = rng.integers(0, 256, (60, 4, 4, 1), np.uint8)
    return {"x_train": x[:45], "y_train": labels[:45], "x_test": x[45:], "y_test": labels[45:]}


HEADERS = (
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1000, 1000, 1000), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (40000, 1000, 1000, 3), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-5, 4, 4, 1), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 4, 4, 1), 'more': 1}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<V9', 'fortran_order': True, 'shape': (1,), }",
    "__import__('os').mkdir('made_by_a_header')",
    "(" * 110,
    "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '|u1', 'fortran_order': 3, 'shape': 7}",
)


def npz(rng, marker):
    """An .npz file: damaged, with false headers, with wrong arrays, or with pickles."""
    parts = arrays(rng)
    key = list(parts)[rng.integers(4)]
    how = rng.integers(5)
    compression = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[rng.integers(2)]
    files = {f"{name}.npy": npy(array) for name, array in parts.items()}
    if how < 2:
        return damaged(rng, written(files, compression))
    if how == 2:
        files[f"{key}.npy"] = npy(header=HEADERS[rng.integers(len(HEADERS))])
    elif how == 3:
        files[f"{key}.npy"] = npy(_wrong(rng, parts[key]))
        if rng.integers(4) == 0:
            del files[f"{key}.npy"]
        files["../../outside.npy"] = npy(np.zeros(2))
    elif rng.integers(3) == 0:
        return pickle.dumps({name: Marker(marker) for name in parts})
    else:
        files[f"{key}.npy"] = pickled_npy(marker)
    return written(files, compression)


def _wrong(rng, array):
    shape = array.shape
    kinds = [
        np.full(shape, np.nan), np.full(shape, 1e300), np.full(shape, -1), np.full(shape, 2**62),
        np.full(shape, 2**63, np.uint64), np.zeros(shape, complex), np.full(shape, "a"),
        np.zeros(shape, "M8[s]"), np.zeros(shape, bool), np.zeros((*shape, 2)), np.zeros(shape[1:]),
        array[:0], array[:, :0] if array.ndim > 1 else array[:1], np.float32(3), array[::-1],
        array.astype(np.float16), np.zeros(shape, [("a", "<i4")]), np.eye(len(array), 3, dtype=int),
    ]  # fmt: skip
    return kinds[rng.integers(len(kinds))]


def image(rng):
    """The bytes of an image: damaged, of a false huge size, of another format, or no image."""
    from PIL import Image

    form = ("PNG", "JPEG", "GIF", "BMP", "WEBP")[rng.integers(5)]
    mode = ("RGB", "L", "P", "1")[rng.integers(4)]
    stream = io.BytesIO()
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).convert("RGB" if form == "WEBP" else "L" if mode == "P" else mode).save(
        stream, form
    )
    content = stream.getvalue()
    how = rng.integers(4)
    if how == 0 and form == "PNG":  # width and height of the header, with its checksum
        size = np.array([[2**31 - 1, 2**31 - 1], [30000, 30000], [0, 5]][rng.integers(3)], ">u4")
        head = b"IHDR" + size.tobytes() + content[24:29]
        return content[:12] + head + zlib_crc(head) + content[33:]
    if how == 1:
        return [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"\xff\xd8\xff", b"x" * 99][
            rng.integers(6)
        ]
    return content if how == 2 else damaged(rng, content)


def zlib_crc(data):
    return zipfile.crc32(data).to_bytes(4, "big")


def image_folder(rng, folder):
    """A data set of images with some hostile ones in it."""
    from PIL import Image

    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    suffix = (".png", ".jpg", ".gif", ".webp", ".txt")[rng.integers(5)]
    (folder / "dog" / f"z{suffix}").write_bytes(image(rng))
    how = rng.integers(6)
    if how == 0:
        (folder / "train").mkdir()
    elif how == 1:
        (folder / "cat" / "nothing.png").symlink_to(folder / "absent")
    elif how == 2:
        (folder / "empty").mkdir()
    elif how == 3:
        (folder / "cat" / "folder.png").mkdir()
    return folder


# --- models


def lambda_layer(marker):
    """The config of a Lambda layer whose code creates a file."""
    import base64
    import marshal

    code = compile(f"lambda x: __import__('os').mkdir({str(marker)!r})", "f", "eval").co_consts[0]
    text = base64.b64encode(marshal.dumps(code)).decode()
    function = {"class_name": "__lambda__", "config": {"code": text}}
    return {"name": "x", "function": function, "arguments": {}}


def hostile_layers(marker):
    """Configs of layers that would run code, read files or allocate all memory."""
    path = str(marker)
    call = {"module": "os", "class_name": "function", "config": "mkdir", "registered_name": "mkdir"}
    get_file = {**call, "module": "keras.utils", "config": "get_file"}
    own = {"name": "x", "function": call, "arguments": {"path": path}}
    fetched = {"fname": path, "origin": f"file://{__file__}"}
    return [
        ("os", "mkdir", path),
        ("os", "system", f"mkdir {path}"),
        ("builtins", "exec", {"source": f"import os; os.mkdir({path!r})"}),
        ("subprocess", "Popen", {"args": ["mkdir", path]}),
        ("tfnas.runtime.files", "write_atomically", {"path": path, "content": "x"}),
        ("keras.src.utils.file_utils", "get_file", fetched),
        ("keras.utils", "get_file", fetched),
        ("pickle", "loads", {"data": "x"}),
        ("keras.layers", "Lambda", own),
        ("keras.layers", "Lambda", {**own, "function": get_file, "arguments": fetched}),
        ("keras.layers", "Lambda", lambda_layer(marker)),
        ("keras.layers", "Activation", {"name": "x", "activation": call}),
        ("keras.layers", "TFSMLayer", {"name": "x", "filepath": path}),
        ("keras.layers", "StringLookup", {"name": "x", "vocabulary": "/etc/hostname"}),
        ("keras.layers", "Dense", {"name": "x", "units": 10**30}),
        ("keras.layers", "Dense", {"name": "x", "units": -3}),
        ("keras.layers", "Conv2D", {"name": "x", "filters": "many", "kernel_size": None}),
        ("keras.layers", "Nothing", {}),
        (None, None, None),
        ("nowhere.at.all", "Dense", {"units": 3}),
    ]


def keras_file(rng, content, marker):
    """A .keras file: damaged, with missing or foreign parts, or with hostile layers."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    how = rng.integers(6)
    if how == 0:
        return damaged(rng, content)
    if how == 1:  # the checksum of the archive is right
        parts["model.weights.h5"] = damaged(rng, parts["model.weights.h5"])
    elif how == 2:
        del parts[list(parts)[rng.integers(len(parts))]]
    elif how == 3:
        config = json_text(rng, json.loads(parts["config.json"]))
        config = config if isinstance(config, str | bytes) else str(config)
        parts["config.json"] = config.encode() if isinstance(config, str) else config
    else:
        layers = hostile_layers(marker)
        module, kind, inside = layers[rng.integers(len(layers))]
        layer = {"module": module, "class_name": kind, "config": inside, "registered_name": kind}
        config = json.loads(parts["config.json"])
        config["config"]["layers"].insert(1 + int(rng.integers(3)), layer)
        if how == 4 and rng.integers(2):
            config["compile_config"] = {"optimizer": layer, "loss": layer}
        parts["config.json"] = json.dumps(config).encode()
    return written(parts)


# --- .tflite files, in a process of its own


def use(content):
    """Reads everything of a file and runs it once."""
    import tfnas

    artifact = tfnas.Artifact(content)
    assert artifact.graph.tensors
    artifact.metadata  # noqa: B018
    list(tfnas.tflite.file_weights.read_kernels(artifact))
    sizes = [[1 if n == -1 else n for n in tensor.shape[1:]] for tensor in artifact.inputs]
    if all(math.prod(size) < 10**6 for size in sizes):
        columns = [np.zeros((3, *size), np.float32) for size in sizes]
        names = [tensor.name for tensor in artifact.inputs]
        artifact.predict(
            columns[0] if len(columns) == 1 else dict(zip(names, columns, strict=True))
        )


def tflite(number, files):
    """The damaged `.tflite` file of a case number."""
    rng = np.random.default_rng([7, number])
    return damaged(rng, files[number % len(files)])


def main(folder, first, last):
    import tfnas.tflite.file_weights  # noqa: F401

    paths = sorted(pathlib.Path(folder).glob("*.tflite"))
    files = [path.read_bytes() for path in paths]
    for number in range(int(first), int(last)):
        print(number, end=" ", flush=True)
        content = tflite(number, files)
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                result = outcome(lambda c=content: use(c), ValueError, RuntimeError)
            except Exception as error:
                result = f"FAULT {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(result, flush=True)


if __name__ == "__main__":
    random.seed(0)
    main(*sys.argv[1:])
