"""Atomic writes: a kill at any moment leaves the old file or the new one."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import marshal
import os
import pathlib
import re
import types
import uuid
from typing import TYPE_CHECKING, Any

from tfnas.keras_private import all_layers

if TYPE_CHECKING:
    import keras


def write_atomically(
    path: str | os.PathLike[str], content: bytes | str, *, sync: bool = True
) -> pathlib.Path:
    """Writes a file atomically: a kill leaves the old file or the new one.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(f"{folder}/a/b.txt", "text").read_text()
        'text'

    Args:
        path: The file; a missing folder is created.
        content: Bytes, or text that is written as UTF-8.
        sync: Whether the file is flushed to the disk before this returns, so that it survives a
            crash of the machine too.

    Returns:
        The path.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    part = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return target


def save_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Saves a Keras model atomically, over an earlier file.

    Args:
        model: The model.
        path: A `.keras` file; a missing folder is created.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.stem}.{os.getpid()}.part.keras")
    try:
        model.save(part)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(target)


def save_if_possible(model: keras.Model, path: str | os.PathLike[str]) -> str:
    """Saves a Keras model, if its layers can be saved.

    Args:
        model: The model.
        path: A `.keras` file; a missing folder is created.

    Returns:
        The reason why it can't be saved, such as a layer without `get_config`; "" if it is saved.
    """
    try:
        save_model(model, path)
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        return " ".join(str(error).split())[:200]
    return ""


_PART = re.compile(r"\..+\.(\d+)\.([0-9a-f]{32}\.part|part\.keras)")


def sweep_parts(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Removes what killed writes of :func:`write_atomically` and :func:`save_model` left.

    Parts of processes that still run stay.

    Example:
        >>> sweep_parts("no folder")
        []

    Args:
        folder: The folder; its subfolders are swept too.

    Returns:
        The files that were removed.
    """
    removed = []
    for path in pathlib.Path(folder).rglob(".*.part*"):
        found = _PART.fullmatch(path.name)
        if found is None or _runs(int(found[1])) or not path.is_file():
            continue
        with contextlib.suppress(OSError):  # a folder that is read only
            path.unlink()
            removed.append(path)
    return removed


def _runs(pid: int) -> bool:
    """Whether a process of this number runs on this machine, or may run."""
    if os.name != "posix":
        return True  # there a signal of 0 is no question
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def model_digest(model: keras.Model) -> str:
    """Returns a hash of a Keras model's layers and weights, as 16 hexadecimal digits.

    Its compilation does not count, since Keras compiles the models that it loads by default.

    Args:
        model: A built model.
    """
    import numpy as np

    digest = hashlib.sha256(_layers_text(model).encode())
    for weight in model.weights:
        value = np.asarray(weight)
        digest.update(repr((value.dtype, value.shape)).encode() + value.tobytes())
    return digest.hexdigest()[:16]


def _layers_text(model: keras.Model) -> str:
    """The configuration of a model's layers; only their classes and names where one has none."""

    def comparable(part: dict[str, Any]) -> dict[str, Any]:
        if part.get("class_name") == "__lambda__":
            config = part["config"]
            code = marshal.loads(base64.b64decode(config["code"]))  # as Keras saves it
            return {**part, "config": {**config, "code": code_text(code)}}
        return {name: value for name, value in part.items() if name != "compile_config"}

    try:
        return json.dumps(json.loads(model.to_json(), object_hook=comparable))
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        layers = all_layers(model)
        return json.dumps([(type(layer).__name__, layer.name) for layer in layers])


def code_text(code: types.CodeType) -> str:
    """Returns what a function computes, as it is the same in each process.

    These are its instructions, names and constants. Its bytes also depend on what else uses its
    constants.

    Args:
        code: The function's code object.
    """

    def described(value: Any) -> Any:
        if isinstance(value, frozenset):  # a set has another order in another process
            return sorted(map(repr, value))
        if not isinstance(value, types.CodeType):
            return repr(value)
        return [value.co_code.hex(), value.co_names, [described(each) for each in value.co_consts]]

    return json.dumps(described(code))
