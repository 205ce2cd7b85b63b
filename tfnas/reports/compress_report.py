"""Report of a compression job: Markdown, pictures, and one HTML page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.compression.file_comparison_table import FileRow
from tfnas.compression.results.compress_result import CompressResult, refusal, remarks, verdict
from tfnas.compression.results.file_rows import file_rows, headers
from tfnas.compression.training_settings import TrainingSettings
from tfnas.data.data_split import DataSplit
from tfnas.measure.agreement import PLAIN, MetricPair
from tfnas.measure.latency import provenance
from tfnas.measure.throughput import Throughput
from tfnas.reports import html
from tfnas.reports.plots import pareto_picture
from tfnas.runtime.files import write_atomically
from tfnas.table import markdown_table
from tfnas.targets.device import Device

_CANDIDATES = ("recipe", "points [95%]", "bytes", "gzip", "time", "MACs", "memory, bytes")
_LAYERS = (
    "layer",
    "operator",
    "kernel",
    "MACs",
    "weights",
    "zeros %",
    "bits",
    "values",
    "noise added %",
)
_LAYER_BARS = (3, 4, 5, 6, 8)
_ANALYSIS = (
    "layer",
    "kind",
    "MACs",
    "weights",
    "time %",
    "int8 noise added %",
    "classes changed by pruning it alone %",
)
_ANALYSIS_BARS = (2, 3, 4, 5, 6)
_THROUGHPUT = (
    "Batches in LiteRT on this machine, in interleaved rounds. A ratio is the median over rounds "
    "of the ratio to the original's file in the same round, which may differ from the ratio of the "
    "medians."
)
_AMOUNTS = (
    "Points are the accuracy minus the original's; time is the latency as a ratio to its float32 "
    "file, MACs are a fraction of its own. "
    '"prune_channels 0.5 weights 0.4": channels were pruned to at most 0.5 of the '
    'multiply-accumulates and 0.4 of the weights; "train 4": 4 times as many further epochs; '
    '"trained": quantization-aware.'
)
_PICTURES = {"pareto.png": "latency", "pareto_bytes.png": "bytes"}
LAST = "report.html"
FILES = (LAST, "report.md", *_PICTURES)
_DRAWN = (
    "Bars are 95% intervals of the difference to the original on the same images; dashed lines "
    "are limits on accuracy, time and bytes, where they are near."
)
_SHOWN = 12  # most images that became wrong


def write(result: CompressResult, split: DataSplit, settings: TrainingSettings) -> None:
    """Writes report.md, report.html and the pictures.

    Args:
        result: The result of the job.
        split: Its data.
        settings: How its steps were trained.
    """
    pictures = _pictures(result, split)
    for name, content in pictures.items():
        write_atomically(result.directory / name, content)
    write_atomically(result.directory / "report.md", _markdown(result, split, settings))
    write_atomically(result.directory / "report.html", _page(result, split, settings, pictures))


def _markdown(result: CompressResult, split: DataSplit, settings: TrainingSettings) -> str:
    agreement = result.agreement
    parts = [
        f"# Compression on {split.name}",
        verdict(result),
        *[f"- {line}" for line in remarks(result)],
        "![accuracy over time](pareto.png) ![accuracy over bytes](pareto_bytes.png)",
        _DRAWN,
        f"## The files, on {len(split.x_test)} final images, which nothing was chosen by",
        markdown_table(_file_headers(result), _rows(result)),
        f"## All candidates, on {len(split.x_val)} images for choosing",
        _AMOUNTS,
        markdown_table(_candidate_headers(result), _candidates(result)),
        *[f"- {line}" for line in _failures(result)],
        "## Is it still the same model?",
        _agreement(result),
        *[f"- {line}" for line in agreement.warnings()],
        markdown_table(_pair_headers("images"), _pairs(agreement.accuracy)),
        markdown_table(_pair_headers("class"), _pairs(agreement.classes)),
        "## The best file, layer by layer",
        markdown_table(list(_LAYERS), _as_text(_layers(result))),
        "## Examples a second",
        _THROUGHPUT,
        markdown_table(Throughput.headers(), _throughput(result)),
        "## Why this was tried",
        "\n".join(f"- {line}" for line in result.plan.reasons),
        _analysis_title(result),
        markdown_table(list(_ANALYSIS), _as_text(_analysis(result))),
        "## Settings and environment",
        markdown_table(["setting", "value"], _settings(result, settings), right=2),
        markdown_table(["where", "value"], list(provenance().items()), right=2),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _page(
    result: CompressResult,
    split: DataSplit,
    settings: TrainingSettings,
    pictures: dict[str, bytes],
) -> str:
    agreement = result.agreement
    labels = [row.label for row in result.rows]
    return html.page(
        f"Compression on {split.name}",
        [
            html.note(verdict(result), result.meets),
            *[html.note(line, False) for line in remarks(result)],
            html.beside(
                html.picture(
                    pictures[file], f"Accuracy of every file over its {over}; the best is marked."
                )
                for file, over in _PICTURES.items()
            ),
            f"<p>{html.text(_DRAWN)}</p>",
            html.section(
                f"The files, on {len(split.x_test)} final images, which nothing was chosen by",
                html.table(
                    _file_headers(result), _rows(result), labels.index(str(result.best.recipe))
                ),
            ),
            html.section(
                f"All candidates, on {len(split.x_val)} images for choosing",
                f"<p>{html.text(_AMOUNTS)}</p>",
                html.table(
                    _candidate_headers(result),
                    _candidates(result),
                    result.candidates.index(result.best),
                    prose=[len(_candidate_headers(result)) - 1],
                ),
                html.listing(_failures(result)),
            ),
            html.section(
                "Is it still the same model?",
                f"<p>{html.text(_agreement(result))}</p>",
                *[html.note(line, False) for line in agreement.warnings()],
                html.table(_pair_headers("images"), _pairs(agreement.accuracy)),
                html.table(_pair_headers("class"), _pairs(agreement.classes)),
            ),
            _wrong_images(result, split),
            html.section(
                "The best file, layer by layer",
                html.table(_LAYERS, _layers(result), bars=_LAYER_BARS),
            ),
            html.section(
                "Examples a second",
                f"<p>{html.text(_THROUGHPUT)}</p>",
                html.table(Throughput.headers(), _throughput(result)),
            ),
            html.section(
                "Why this was tried",
                html.listing(result.plan.reasons),
                f"<p>{html.text(_analysis_title(result))}</p>",
                html.table(_ANALYSIS, _analysis(result), bars=_ANALYSIS_BARS),
            ),
            html.section(
                "Settings and environment",
                html.table(["setting", "value"], _settings(result, settings)),
                html.table(["where", "value"], list(provenance().items())),
            ),
        ],
    )


def _wrong_images(result: CompressResult, split: DataSplit) -> str:
    """Returns images that the original classified right and the best file classifies wrong."""
    worst = result.agreement.worst[:_SHOWN]
    if not len(worst):
        return ""
    images = split.x_test[worst]
    outputs = result.best.file.predict(images)
    names = dict(enumerate(split.class_names))  # a model may have more classes than the data
    captions = [
        f"{names[label]}, now {names.get(int(np.argmax(output)), int(np.argmax(output)))}"
        if len(output) > 1
        else f"{names[label]}, now the other"
        for label, output in zip(split.y_test[worst].tolist(), outputs, strict=True)
    ]
    title = "Right before, wrong now: the images that the original was most certain of"
    return html.section(title, html.tiles(images, captions))


def _agreement(result: CompressResult) -> str:
    found = result.agreement
    value, low, high = (100 * v for v in found.changed)
    return (
        f"Of {found.examples} images {value:.1f}% [{low:.1f}, {high:.1f}] change their class: "
        f"{found.broke} that were right are wrong, {found.repaired} that were wrong are right. "
        f"Expected calibration error: {found.calibration[0]:.3f} before, "
        f"{found.calibration[1]:.3f} now."
    )


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


def _metrics(result: CompressResult) -> list[str]:
    """Returns the device's limited metrics."""
    return list(result.best.costs.device)


def _file_headers(result: CompressResult) -> list[str]:
    return headers("time of the original", *_metrics(result))


def _candidate_headers(result: CompressResult) -> list[str]:
    return [*_CANDIDATES, *_metrics(result), "why"]


def _failures(result: CompressResult) -> list[str]:
    """Returns a line for record recipe that failed or that the device can't run."""
    refused = [c for c in result.candidates if c.costs.refused]
    return [
        *(f"{name}: not possible: {why}" for name, why in result.failures.items()),
        *(refusal(candidate.recipe, candidate.costs) for candidate in refused),
    ]


def _rows(result: CompressResult) -> list[list[str]]:
    on_device = {str(c.recipe): c.costs.device_texts().values() for c in result.front}
    unknown = [""] * len(_metrics(result))  # of the original's file

    def cells(row: FileRow) -> Sequence[str]:
        if row is result.rows[0]:
            return ["1", *unknown]
        ratio, low, high = result.time_ratio(row)
        time = f"{ratio:.3f}x [{low:.3f}, {high:.3f}]"
        return [time, *on_device.get(row.label, unknown)]

    return file_rows(result.rows, cells)


def _candidates(result: CompressResult) -> list[list[str]]:
    return [
        [
            str(candidate.recipe),
            candidate.points,
            f"{candidate.costs.bytes:,}",
            f"{candidate.costs.gzip_bytes:,}",
            f"{candidate.costs.latency:.3f}x",
            f"{candidate.costs.macs:.3f}",
            f"{candidate.costs.memory:,}",
            *candidate.costs.device_texts().values(),
            candidate.recipe.why + ("; worse than another" if candidate.beaten else ""),
        ]
        for candidate in result.candidates
    ]


def _layers(result: CompressResult) -> list[list[Any]]:
    """Returns a row for record kernel of the best file."""
    return [
        [
            layer.layer,
            layer.operator,
            "x".join(map(str, layer.shape)),
            layer.macs,
            layer.weights,
            100 * layer.zeros,
            layer.bits,
            layer.values,
            _percent(layer.noise),
        ]
        for layer in result.layers
    ]


def _analysis_title(result: CompressResult) -> str:
    return f"The original, layer by layer, analyzed in {result.model_analysis.seconds:.0f} s:"


def _analysis(result: CompressResult) -> list[list[Any]]:
    """Returns a row for record layer of the original."""
    return [
        [
            layer.name,
            layer.group,
            layer.macs,
            layer.weights,
            _percent(layer.time),
            _percent(layer.noise),
            _percent(layer.changed),
        ]
        for layer in result.model_analysis.layers
    ]


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _as_text(rows: list[list[Any]]) -> list[list[str]]:
    """Returns rows with numbers formatted as text."""

    def cell(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, float):
            return f"{value:.3g}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    return [[cell(value) for value in row] for row in rows]


def _throughput(result: CompressResult) -> list[list[str]]:
    labels = result.rows[0].label, str(result.best.recipe)
    return [measured.row(labels[measured.file]) for measured in result.throughput]


def _settings(result: CompressResult, settings: TrainingSettings) -> list[list[str]]:
    records: list[TrainingSettings | Device] = [settings]
    records += [result.device] * bool(_metrics(result))
    limits = [["budget", str(result.budget)], ["effort", result.effort]]
    return limits + [
        [k, str(v)] for record in records for k, v in dataclasses.asdict(record).items()
    ]


def _pictures(result: CompressResult, split: DataSplit) -> dict[str, bytes]:
    """Draws accuracy over time and over bytes of all candidates, on the images for choosing."""
    limits, gzipped = result.budget.limits, result.budget.max_gzip_bytes is not None
    lines = {"latency": limits.get("max_latency_ratio"), "bytes": limits.get("max_bytes")}
    if "max_drop" in limits:
        lines["accuracy"] = result.original[0] - limits["max_drop"] / 100
    return {
        file: pareto_picture(
            [(float(c.right.mean()), c.costs.latency, c.costs.bytes) for c in result.candidates],
            [result.candidates.index(candidate) for candidate in result.front],
            result.candidates.index(result.best),
            f"Compression on {split.name}",
            "the original",
            ("accuracy", "latency", "gzipped size" if gzipped else "size", *_metrics(result)),
            "images for choosing",
            over=(over,),
            others={result.rows[0].label: result.original},
            errors=[(c.drop[2] - c.drop[1]) / 200 for c in result.candidates],
            limits={name: float(limit) for name, limit in lines.items() if limit is not None},
        )
        for file, over in _PICTURES.items()
    }
