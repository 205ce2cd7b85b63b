"""Converts models and measures their files side by side on the test part."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tfnas.data.examples import ExampleSet, Nested
from tfnas.measure.measurement import Score
from tfnas.tasks.assessment import Assessment
from tfnas.tasks.task import Task
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
        assessment: Its quality by the task's metric.
        difference: Its metric minus that of the first file, paired, with its 95% interval:
            (value, low, high), not scaled; None for the first file itself.
        more: Its quality by the task's further metrics, by their names.
        more_differences: Its further metrics minus those of the first file; empty for that.
    """

    label: str
    file: Artifact
    assessment: Assessment
    difference: tuple[float, float, float] | None = None
    more: Mapping[str, Assessment] = dataclasses.field(default_factory=dict)
    more_differences: Mapping[str, tuple[float, float, float]] = dataclasses.field(
        default_factory=dict
    )

    @property
    def score(self) -> Score:
        """The metric with its 95% interval."""
        return self.assessment.score


def row_of(rows: Sequence[FileRow], label: str) -> FileRow:
    """Returns the row of a file.

    Args:
        rows: The measured files.
        label: Label of the file, which is one of them.
    """
    [row] = [row for row in rows if row.label == label]
    return row


def compare_files(
    task: Task, examples: ExampleSet, files: Sequence[tuple[str, Artifact]]
) -> list[FileRow]:
    """Measures files on examples, each paired with the first one.

    Args:
        task: What the files are for.
        examples: The examples.
        files: (label, file), the original first.
    """
    rows: list[FileRow] = []
    for label, file in files:
        more = task.judge_all(file.predict, examples)
        assessment = more.pop("")
        if not rows:
            rows.append(FileRow(label, file, assessment, more=more))
            continue
        first = rows[0]
        differences = {name: each.minus(first.more[name]) for name, each in more.items()}
        difference = assessment.minus(first.assessment)
        rows.append(FileRow(label, file, assessment, difference, more, differences))
    return rows


def convert_all(
    models: Mapping[str, keras.Model],
    inputs: Nested,
    modes: Sequence[str] = ("float32", "int8"),
) -> tuple[list[tuple[str, Artifact]], list[str]]:
    """Converts models to several modes.

    Args:
        models: Models by name, the original first.
        inputs: Typical inputs, examples first, for integer formats.
        modes: The modes.

    Returns:
        ("name, mode", file) of each file, and a note on each that could not be converted.
    """
    files, notes = [], []
    for name, model in models.items():
        for mode in modes:
            try:
                files.append((f"{name}, {mode}", to_tflite(model, mode, inputs)))
            except ConversionError as error:
                notes.append(f"{name}, {mode}: {error}")
    return files, notes
