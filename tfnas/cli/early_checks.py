"""What is wrong with paths, found before TensorFlow is loaded."""

from __future__ import annotations

import contextlib
import os
import pathlib
import zipfile

from absl import flags

_LARGEST_CONFIG = 2**26  # bytes of a model's configuration that are read


def check_model(path: str, name: str = "model") -> None:
    """Checks that the file of a Keras model exists, and is none of another kind.

    Args:
        path: The file.
        name: What the message calls it.

    Raises:
        ValueError: There is none, or it is of another kind.
    """
    from tfnas.legacy.model_files import check_model_file

    try:
        check_model_file(pathlib.Path(path))
    except ValueError as error:
        raise ValueError(f"{name} {str(error).partition(' ')[2]}") from error


def may_be_quantization_aware(path: str) -> bool:
    """Returns whether a model may bring number formats of its own, as far as its file's head tells.

    Args:
        path: The file of a Keras model. One that is no archive, as HDF5 is not, is not opened here:
            it may be one. False if it can't be read.
    """
    with contextlib.suppress(OSError, KeyError, ValueError, zipfile.BadZipFile):
        if not zipfile.is_zipfile(path):
            return pathlib.Path(path).is_file()  # HDF5, which is not opened here
        with zipfile.ZipFile(path) as archive, archive.open("config.json") as config:
            return b"FakeQuant" in config.read(_LARGEST_CONFIG)
    return False


def check_file(path: str, name: str = "file") -> None:
    """Checks that a `.tflite` file exists.

    Args:
        path: The file.
        name: What the message calls it.

    Raises:
        ValueError: There is none.
    """
    if not pathlib.Path(path).is_file():
        why = "is no file" if pathlib.Path(path).exists() else "does not exist"
        raise ValueError(f"{name} must be a .tflite file, got {path!r}, which {why}")


def check_data(values: flags.FlagValues) -> None:
    """Checks that the data set exists, and the size that its images get.

    Args:
        values: The flags of a command.

    Raises:
        ValueError: There is no such data set, or the size has another form.
    """
    from tfnas.data.datasets import check_name
    from tfnas.data.image_folder import parse_size

    if values["data"].value:
        check_name(values["data"].value)
    if "image_size" in values:
        parse_size(values["image_size"].value)


def check_written(values: flags.FlagValues, *names: str) -> None:
    """Checks that files can be written where the flags say.

    Args:
        values: The flags of a command.
        *names: Names of flags that hold the path of a file; "directory" holds that of a folder.

    Raises:
        ValueError: A file stands where a folder must be, or a folder where a file must be, or the
            folder can't be written to.
    """
    for name in names:
        if values[name].value:
            _check_target(name, pathlib.Path(values[name].value), name == "directory")


def _check_target(name: str, path: pathlib.Path, is_folder: bool) -> None:
    if path.exists() and path.is_dir() != is_folder:
        kinds = ("the path of a file", "a folder")
        raise ValueError(
            f"--{name} must be {kinds[is_folder]}, got {str(path)!r}, which is "
            f"{'a file' if is_folder else 'a folder'}"
        )
    above = next(
        each for each in (path, *path.absolute().parents) if each.is_dir() or each.exists()
    )
    if above == path and path.is_dir() and any(path.iterdir()):
        return  # a job that has ended in a folder that is read only is opened; others say so
    folder = above if above.is_dir() else above.parent
    if not above.is_dir() and above != path:
        raise ValueError(f"--{name} must be in a folder, got {str(path)!r}: {above} is a file")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"--{name} must be where files can be written, got {str(path)!r}")
