"""Reads the weights of a safetensors file with NumPy alone."""

from __future__ import annotations

import json
import pathlib

import numpy as np


def read_weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the float32 arrays of a file by their names.

    Args:
        path: A `.safetensors` file: the length of a header, the header, the numbers.
    """
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, numbers = json.loads(content[8 : 8 + length]), content[8 + length :]
    return {
        name: _array(numbers, record)
        for name, record in header.items()
        if name != "__metadata__" and record["dtype"] == "F32"
    }


def _array(numbers: bytes, record: dict) -> np.ndarray:
    start, end = record["data_offsets"]
    return np.frombuffer(numbers[start:end], "<f4").reshape(record["shape"])
