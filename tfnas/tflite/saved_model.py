"""Export of a model as a TensorFlow SavedModel, for servers that don't run `.tflite` files."""

from __future__ import annotations

import os
import pathlib
import shutil
import uuid
from typing import TYPE_CHECKING

from tfnas.tflite.quiet_converter import forget_made_tables

if TYPE_CHECKING:
    import keras


def to_saved_model(model: keras.Model, folder: str | os.PathLike[str]) -> pathlib.Path:
    """Writes a Keras model as a TensorFlow SavedModel, atomically.

    TF Serving, TF.js and TensorFlow in C++ and Java load it without Keras and without tfnas. It
    computes in float32. The SavedModel of a quantization-aware model computes with the rounded
    values, as its int8 file does, but at the speed of floats.

    Example:
        >>> import keras, tempfile, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> folder = tfnas.to_saved_model(model, tempfile.mkdtemp())
        >>> (folder / "saved_model.pb").exists()
        True

    Args:
        model: A built Keras 3 model. Its endpoint "serve" takes any batch size.
        folder: Path of the SavedModel: a new or empty folder, or an existing SavedModel, which
            is replaced.

    Returns:
        The folder.

    Raises:
        ValueError: The model is not built, or the folder holds other files.

    References:
        `keras.Model.export`: https://keras.io/api/models/model_saving_apis/export/
    """
    import keras

    target = pathlib.Path(folder)
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"model must be a built Keras 3 model, got {type(model).__name__}")
    check_saved_model_folder(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    forget_made_tables()
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        model.export(part, format="tf_saved_model", verbose=False)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def check_saved_model_folder(folder: str | os.PathLike[str]) -> None:
    """Checks that writing a SavedModel to a folder deletes no other files.

    Args:
        folder: The folder.

    Raises:
        ValueError: The folder holds files, but is no SavedModel.
    """
    target = pathlib.Path(folder)
    replaceable = not target.exists() or (
        target.is_dir() and ((target / "saved_model.pb").exists() or not any(target.iterdir()))
    )
    if not replaceable:
        raise ValueError(
            f"folder must be new, empty or a SavedModel, got {os.fspath(target)!r} with other files"
        )
