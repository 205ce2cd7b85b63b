"""Files side by side on the test part: what several commands end with."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.data.datasets import DataSplit
from tfnas.measure.accuracy import correct, paired_difference, score
from tfnas.measure.latency import benchmark
from tfnas.measure.measurement import Latency, Score
from tfnas.runtime.files import save_model
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.convert import to_tflite


@dataclasses.dataclass(frozen=True, eq=False)
class FileRow:
    """A file on the test part.

    Args:
        label: What it is.
        file: The file.
        score: Its accuracy.
        right: Whether each example was right.
        answers: What it gave for each example.
        difference: Accuracy minus that of the file it is compared with, with its 95%
            interval: (value, low, high); None for that file itself.
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
class Compared:
    """Two models' files, measured beside each other.

    Args:
        rows: The files on the test part, the original float32 file first.
        latencies: Measured time of each file, by label.
        notes: What could not be made, and why.
    """

    rows: list[FileRow]
    latencies: dict[str, Latency]
    notes: list[str]


def save_and_compare(
    original: Any, made: Any, label: str, split: DataSplit, folder: pathlib.Path, images: Any
) -> Compared:
    """Writes model.keras and its `.tflite` files, and measures them beside the original's.

    Args:
        original: The model that was given.
        made: What became of it.
        label: What that is called.
        split: The data; its test part is used here.
        folder: Where the files go; those of an earlier run are removed.
        images: Calibration data.

    Raises:
        ConversionError: No file could be made.
    """
    for name in ("model.keras", "model_float32.tflite", "model_int8.tflite", "report.md"):
        (folder / name).unlink(missing_ok=True)  # nothing of an earlier run stays beside this one's
    save_model(made, folder / "model.keras")
    files, notes = convert_all({"original": original, label: made}, images)
    own = [(name, file) for name, file in files if name.startswith(f"{label}, ")]
    if not own:
        raise ConversionError(f"no file could be made: {'; '.join(notes)}")
    for name, file in own:
        file.save(folder / f"model_{name.removeprefix(f'{label}, ')}.tflite")
    rows = compare_files(split, files)
    times = benchmark([file for _, file in files])
    latencies = {name: time for (name, _), time in zip(files, times, strict=True)}
    return Compared(rows, latencies, notes)


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
