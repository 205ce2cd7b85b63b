"""The sections of a report on how a file's predictions differ from the original's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfnas.compression.file_comparison_table import FileRow
from tfnas.compression.results.compress_result import CompressResult
from tfnas.compression.results.file_rows import more_headers, more_rows, scaled_difference
from tfnas.data.examples import Data, Examples
from tfnas.measure.agreement import PLAIN, Agreement, MetricPair
from tfnas.measure.output_agreement import OutputAgreement
from tfnas.reports.content import (
    Picture,
    Pictures,
    Section,
    Table,
    Warnings,
    Words,
    capitalized,
    paragraphs,
)
from tfnas.reports.pages import png_of
from tfnas.tasks.judged_parts import Evaluation
from tfnas.tflite.artifact import Artifact

_SHOWN = 12  # most images that became wrong
_TITLE = "Is it still the same model?"


def more_metrics(rows: Sequence[FileRow]) -> list[Section]:
    """Returns the section of a task's further metrics; nothing where it has one.

    Args:
        rows: The measured files.
    """
    found = more_rows(rows)
    table = Table(more_headers(), found, right=2)
    return [Section("Further metrics, on the same examples", [table])] if found else []


def group_sections(found: Evaluation | None, words: Words) -> list[Section]:
    """Returns the quality of the best file by groups; nothing where there are none.

    Args:
        found: The quality, with the differences to the original's file.
        words: How the report calls examples and their metric.
    """
    if found is None:
        return []
    metric, warnings = found.metric, found.warnings()
    rows = []
    for name, score in found.groups.items():
        change = found.differences[name]
        rows.append(
            [
                name,
                str(score.examples),
                f"{score.value - change[0]:.4f}",
                f"{score.value:.4f}",
                scaled_difference(change, metric),
            ]
        )
    name, change = min(found.differences.items(), key=lambda item: -metric.drop(item[1][0]))
    text = (
        f"The worst group is {found.worst}; the best and the worst are "
        f"{metric.text(metric.scale * found.spread)} apart. {name} changes worst, by "
        f"{metric.scale * change[0]:+.{metric.digits}f} {metric.unit}".rstrip()
        + "."
    )
    headers = ["group", words.examples, "original", "best", f"{words.points} [95%]"]
    return [
        Section(
            f"{capitalized(words.metric)} by group, on the final {words.examples}",
            [
                *paragraphs(text),
                *([Warnings(warnings)] if warnings else []),
                Table(headers, rows),
            ],
        )
    ]


def agreement_sections(result: CompressResult, data: Data, words: Words) -> list[Section]:
    """Returns how predictions changed; nothing where the task has no such comparison.

    Args:
        result: The result of the job.
        data: Its data.
        words: How the report calls examples.
    """
    agreement = result.agreement
    if agreement is None:
        return []
    if isinstance(agreement, OutputAgreement):
        return [_outputs(agreement, words)]
    wrong = _wrong_images(agreement, result.best.file, data, words)
    return [_same_model(agreement, words), *([wrong] if wrong else [])]


def _outputs(found: OutputAgreement, words: Words) -> Section:
    value, low, high = (100 * part for part in found.changed)
    text = (
        f"Of {found.examples} {words.examples} {value:.1f}% [{low:.1f}, {high:.1f}] change their "
        f"answer by more than {100 * found.tolerance:g}% of the spread of an output, which is the "
        "standard deviation of the original's."
    )
    headers = ["output", "spread", "error (RMS)", "of the spread %", "largest", "changed %"]
    rows = [
        [
            each.name,
            f"{each.spread:.4g}",
            f"{each.rms:.4g}",
            f"{100 * each.relative:.2f}",
            f"{each.largest:.4g}",
            f"{100 * each.changed:.1f}",
        ]
        for each in found.outputs
    ]
    worst = ", ".join(
        f"{index} ({change:.2f})" for index, change in zip(found.worst, found.changes, strict=True)
    )
    named = f"Most changed, by their number, with the change in spreads: {worst}." if worst else ""
    warnings = found.warnings()
    return Section(
        _TITLE,
        [
            *paragraphs(text),
            *([Warnings(warnings)] if warnings else []),
            Table(headers, rows),
            *paragraphs(named),
        ],
    )


def _same_model(agreement: Agreement, words: Words) -> Section:
    found = agreement.warnings()
    return Section(
        _TITLE,
        [
            *paragraphs(_agreement(agreement, words)),
            *([Warnings(found)] if found else []),
            Table(_pair_headers(words.examples), _pairs(agreement.accuracy)),
            Table(_pair_headers("class"), _pairs(agreement.classes)),
        ],
    )


def _wrong_images(agreement: Agreement, best: Artifact, data: Data, words: Words) -> Section | None:
    """Returns images that the original classified right and the best file classifies wrong."""
    worst = agreement.worst[:_SHOWN]
    if not len(worst) or not isinstance(data.test, Examples):
        return None
    examples = data.test.rows(worst)
    if np.ndim(examples.x) != 4 or np.shape(examples.x)[-1] not in (1, 3):
        return None  # no images
    images, outputs = examples.x, best.predict(examples.x)
    # A model may have more classes than the data.
    names = dict(enumerate(getattr(data, "class_names", ())))
    captions = []
    for label, output in zip(_labels(examples.y), outputs, strict=True):
        guess = int(np.argmax(output))
        now = names.get(guess, guess) if len(output) > 1 else "the other"
        captions.append(f"{names.get(label, label)}, now {now}")
    pictures = [
        Picture("", png_of(image), caption, caption)
        for image, caption in zip(images, captions, strict=True)
    ]
    return Section(
        f"Right before, wrong now: the {words.examples} that the original was most certain of",
        [Pictures(pictures, small=True)],
        page_only=True,
    )


def _agreement(found: Agreement, words: Words) -> str:
    value, low, high = (100 * v for v in found.changed)
    return (
        f"Of {found.examples} {words.examples} {value:.1f}% [{low:.1f}, {high:.1f}] change their "
        f"class: {found.broke} that were right are wrong, {found.repaired} that were wrong are "
        f"right. Expected calibration error: {found.calibration[0]:.3f} before, "
        f"{found.calibration[1]:.3f} now.{_worst_class(found)}"
    )


def _worst_class(found: Agreement) -> str:
    if not found.classes:
        return ""
    name, pair = min(found.classes.items(), key=lambda item: item[1].difference[0])
    return f" Class {name} changes worst, by {100 * pair.difference[0]:+.1f} points."


def _pair_headers(subject: str) -> list[str]:
    return [subject, "original", "best", "points [95%]"]


def _pairs(pairs: dict[str, MetricPair]) -> list[list[str]]:
    ordered = sorted(pairs.items(), key=lambda kv: (kv[0] != PLAIN, kv[1].difference[0]))
    return [
        [
            name,
            f"{pair.original:.4f}",
            f"{pair.small:.4f}",
            "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in pair.difference)),
        ]
        for name, pair in ordered
    ]


def _labels(y: np.ndarray) -> list[int]:
    one_hot = y.ndim == 2 and y.shape[1] > 1
    return (y.argmax(axis=1) if one_hot else y.reshape(-1)).tolist()
