"""Files side by side on the test part: what several commands end with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.bench.evaluate import correct, paired_difference, score
from tfnas.data import DataSplit
from tfnas.export.artifact import Artifact
from tfnas.export.tflite import ConversionError, to_tflite
from tfnas.measurement import Score


@dataclasses.dataclass(frozen=True, eq=False)
class FileRow:
    """A file on the test part.

    Args:
        label: What it is.
        file: The file.
        score: Its accuracy.
        right: Whether each example was right.
        difference: Accuracy minus that of the file it is compared with, with its 95%
            interval: (value, low, high); None for that file itself.
    """

    label: str
    file: Artifact
    score: Score
    right: np.ndarray = dataclasses.field(repr=False)
    difference: tuple[float, float, float] | None = None


def compare_files(split: DataSplit, files: Sequence[tuple[str, Artifact]]) -> list[FileRow]:
    """Measures files on the test part, each paired with the first one.

    Args:
        split: The data.
        files: (label, file), the original first.
    """
    rows: list[FileRow] = []
    for label, file in files:
        predictions = file.predict(split.x_test)
        right = correct(split.y_test, predictions)
        difference = paired_difference(right, rows[0].right) if rows else None
        rows.append(FileRow(label, file, score(split.y_test, predictions), right, difference))
    return rows


def convert_all(
    networks: Mapping[str, Any], images: Any, modes: Sequence[str] = ("float32", "int8")
) -> tuple[list[tuple[str, Artifact]], list[str]]:
    """Converts models to several modes; returns ("name, mode", file) and what could not be made.

    Args:
        networks: Models by name, the original first.
        images: Calibration data.
        modes: The modes.
    """
    files, notes = [], []
    for name, network in networks.items():
        for mode in modes:
            try:
                files.append((f"{name}, {mode}", to_tflite(network, mode, images)))
            except ConversionError as error:
                notes.append(f"{name}, {mode}: {error}")
    return files, notes
