"""Converts models and measures their files side by side on the test part."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfnas.data.data_split import DataSplit
from tfnas.measure.accuracy import correct, paired_difference, score
from tfnas.measure.latency import benchmark
from tfnas.measure.measurement import Latency, Score
from tfnas.runtime.files import save_model
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.convert import to_tflite

if TYPE_CHECKING:
    import keras

_WRITTEN = (
    *("model.keras", "model_float32.tflite", "model_int8.tflite"),
    *("report.md", "report.html"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class FileRow:
    """A file on the test part.

    Args:
        label: Name of the file, such as "original, float32".
        file: The file.
        score: Its accuracy.
        right: Whether each example was right.
        answers: Its output for each example, (examples, classes).
        difference: Accuracy minus that of the first file, paired, with its 95% interval:
            (value, low, high); None for the first file itself.
    """

    label: str
    file: Artifact
    score: Score
    right: np.ndarray = dataclasses.field(repr=False)
    answers: np.ndarray = dataclasses.field(repr=False)
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
        quality = score(split.y_test, predictions)
        rows.append(FileRow(label, file, quality, right, predictions, difference))
    return rows


@dataclasses.dataclass(frozen=True, eq=False)
class FileComparison:
    """Two models' files, measured beside each other.

    Args:
        rows: The files on the test part, the original float32 file first.
        latencies: Measured latency of each file, by label.
        notes: Files that could not be converted, and why.
    """

    rows: list[FileRow]
    latencies: dict[str, Latency]
    notes: list[str]


def save_and_compare(
    original: keras.Model,
    candidate: keras.Model,
    label: str,
    split: DataSplit,
    folder: pathlib.Path,
    images: np.ndarray,
) -> FileComparison:
    """Writes model.keras and its `.tflite` files, and measures them beside the original's.

    Args:
        original: The model before compression.
        candidate: The compressed model.
        label: Name of the compressed model in the tables.
        split: The data; its test part is used here.
        folder: Where the files go; those of an earlier run are removed.
        images: Calibration data, (examples, height, width, channels).

    Raises:
        ConversionError: The compressed model could not be converted to any mode.
    """
    for name in _WRITTEN:  # nothing of an earlier run stays beside this one's
        (folder / name).unlink(missing_ok=True)
    save_model(candidate, folder / "model.keras")
    files, notes = convert_all({"original": original, label: candidate}, images)
    own = [(name, file) for name, file in files if name.startswith(f"{label}, ")]
    if not own:
        raise ConversionError(f"no model could be converted: {'; '.join(notes)}")
    for name, file in own:
        file.save(folder / f"model_{name.removeprefix(f'{label}, ')}.tflite")
    rows = compare_files(split, files)
    times = benchmark([file for _, file in files])
    latencies = {name: time for (name, _), time in zip(files, times, strict=True)}
    return FileComparison(rows, latencies, notes)


def convert_all(
    models: Mapping[str, keras.Model],
    images: np.ndarray,
    modes: Sequence[str] = ("float32", "int8"),
) -> tuple[list[tuple[str, Artifact]], list[str]]:
    """Converts models to several modes.

    Args:
        models: Models by name, the original first.
        images: Calibration data, (examples, height, width, channels).
        modes: The modes.

    Returns:
        ("name, mode", file) of each file, and a note on each that could not be converted.
    """
    files, notes = [], []
    for name, model in models.items():
        for mode in modes:
            try:
                files.append((f"{name}, {mode}", to_tflite(model, mode, images)))
            except ConversionError as error:
                notes.append(f"{name}, {mode}: {error}")
    return files, notes
