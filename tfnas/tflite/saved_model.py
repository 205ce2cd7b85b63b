"""A model as TensorFlow's SavedModel, for servers that take no `.tflite` file."""

from __future__ import annotations

import os
import pathlib
import shutil
import uuid
from typing import Any


def to_saved_model(model: Any, folder: str | os.PathLike[str]) -> pathlib.Path:
    """Writes a Keras model as a SavedModel, whole or not at all.

    TF Serving, TF.js and TensorFlow in C++ and Java load it, without Keras and without tfnas. It
    computes with float32: of a quantization-aware model with the rounded numbers, which is what
    its int8 file gives, at float's speed.

    Example:
        >>> import keras, tempfile, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> folder = tfnas.to_saved_model(model, tempfile.mkdtemp())
        >>> (folder / "saved_model.pb").exists()
        True

    Args:
        model: A built Keras 3 model; its endpoint is called "serve" and takes any batch.
        folder: Where it goes: no folder yet, an empty one, or a SavedModel, which is replaced.

    Returns:
        The folder.

    Raises:
        ValueError: The model is not built, or the folder holds something else.
    """
    import keras

    target = pathlib.Path(folder)
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"model must be a built Keras 3 model, got {type(model).__name__}")
    check_saved_model_folder(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        model.export(part, format="tf_saved_model", verbose=False)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def check_saved_model_folder(folder: str | os.PathLike[str]) -> None:
    """Raises ValueError where writing a SavedModel would remove something else."""
    target = pathlib.Path(folder)
    fine = not target.exists() or (
        target.is_dir() and ((target / "saved_model.pb").exists() or not any(target.iterdir()))
    )
    if not fine:
        raise ValueError(
            f"folder must be new, empty or a SavedModel, got {os.fspath(target)!r} with other files"
        )
