"""Atomic writes: a kill at any moment leaves the old file or the new one."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import uuid
from typing import TYPE_CHECKING, Any

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
    part = target.with_name(f".{target.stem}.part.keras")
    model.save(part)
    part.replace(target)


def model_digest(model: keras.Model) -> str:
    """Returns a hash of a Keras model's layers and weights, as 16 hexadecimal digits.

    Its compilation does not count, since Keras compiles the models that it loads by default.

    Args:
        model: A built model.
    """
    import numpy as np

    def uncompiled(part: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in part.items() if name != "compile_config"}

    layers = json.loads(model.to_json(), object_hook=uncompiled)
    digest = hashlib.sha256(json.dumps(layers).encode())
    for weight in model.weights:
        value = np.asarray(weight)
        digest.update(repr((value.dtype, value.shape)).encode() + value.tobytes())
    return digest.hexdigest()[:16]
