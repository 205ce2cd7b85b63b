"""Named arrays in one file, which is replaced whole and read without pickle."""

from __future__ import annotations

import io
import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from tfnas.runtime.files import write_atomically


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> pathlib.Path:
    """Writes arrays to an `.npz` file atomically.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_arrays(f"{folder}/a.npz", {"x": np.arange(3)})
        ...     read_arrays(path)["x"].tolist()
        [0, 1, 2]

    Args:
        path: The file; a missing folder is created.
        arrays: Arrays by name.

    Returns:
        The path.

    Raises:
        ValueError: An array holds Python objects, which would be pickled.
    """
    if held := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise ValueError(f"arrays must hold no Python objects, got some in {held[0]!r}")
    buffer = io.BytesIO()
    # No allow_pickle=False: numpy before 2.1 would write an array of this name.
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]
    return write_atomically(path, buffer.getvalue())


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the arrays of a file.

    Args:
        path: The file that :func:`write_arrays` wrote.

    Raises:
        OSError: The file can't be read.
        ValueError: It holds something else, or was damaged.
    """
    try:
        # From memory: numpy leaves a damaged file open.
        with np.load(io.BytesIO(pathlib.Path(path).read_bytes()), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} must be a file of arrays, got a damaged one"
        ) from error
