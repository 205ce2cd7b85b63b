"""The weights of a model in one file, which is replaced whole."""

from __future__ import annotations

import pathlib

import keras

from tfnas.runtime.array_files import read_arrays, write_arrays


def write_weights(model: keras.Model, path: pathlib.Path) -> None:
    """Writes the weights of a model atomically.

    Args:
        model: A built model.
        path: The file.
    """
    write_arrays(path, {f"{n:06}": value for n, value in enumerate(model.get_weights())})


def read_weights(model: keras.Model, path: str | pathlib.Path) -> None:
    """Assigns the weights in a file to a model.

    Args:
        model: A built model of the same architecture.
        path: The file that :func:`write_weights` wrote.

    Raises:
        ValueError: The file was damaged, or is of another model.
    """
    arrays = read_arrays(path)
    model.set_weights([arrays[name] for name in sorted(arrays)])
