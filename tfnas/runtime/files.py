"""Writing files so that a kill at any moment leaves the old one or the new one."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import uuid
from typing import Any


def write_atomically(
    path: str | os.PathLike[str], content: bytes | str, *, sync: bool = True
) -> pathlib.Path:
    """Writes a file whole or not at all: a kill leaves the old one or the new one.

    Args:
        path: The file; its folder is made where there is none.
        content: Bytes, or text that is written as UTF-8.
        sync: Whether it is on the disk before this returns, so that it outlives the machine's
            own end too.

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


def save_model(model: Any, path: str | os.PathLike[str]) -> None:
    """Saves a Keras model whole or not at all, over what stood there.

    Args:
        model: The model.
        path: A `.keras` file; its folder is made where there is none.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.stem}.part.keras")
    model.save(part)
    part.replace(target)


def model_digest(model: Any) -> str:
    """Returns a hash of a Keras model's layers and weights, as 16 hexadecimal digits.

    How it was compiled is no part of it: Keras compiles what it loads, unless told otherwise.

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
