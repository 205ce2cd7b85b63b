"""What compression gave, for people: text, Markdown, and one HTML page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.datasets import DataSplit
from tfnas.measure.agreement import PLAIN, MetricPair
from tfnas.measure.latency import provenance
from tfnas.measure.throughput import Throughput
from tfnas.reports import html
from tfnas.reports.file_rows import file_rows, headers
from tfnas.reports.plots import pareto_picture
from tfnas.runtime.files import write_atomically
from tfnas.table import markdown_table, table
from tfnas.targets.device import Device

if TYPE_CHECKING:
    from tfnas.compression.budget import CandidateCosts
    from tfnas.compression.compress import CompressResult
    from tfnas.compression.training_settings import TrainingSettings

_CANDIDATES = ("how", "points [95%]", "bytes", "gzip", "time", "MACs", "memory, bytes")
_LAYERS = (
    *("layer", "operator", "kernel", "MACs", "weights", "zeros %", "bits", "values"),
    "noise added %",
)
_LAYER_BARS = (3, 4, 5, 6, 8)
_LOOKED = (
    *("layer", "among", "MACs", "weights", "time %", "int8 noise added %"),
    "classes changed by pruning it alone %",
)
_LOOKED_BARS = (2, 3, 4, 5, 6)
_THROUGHPUT = (
    "Batches in LiteRT on this machine, in interleaved rounds; ratios are to the original's file "
    "in the same round, of which the median stands here; so it need not be that of the medians."
)
_AMOUNTS = (
    "Points are accuracy less the original's; time is a ratio to its float32 file, MACs a share of "
    'its own. "prune_channels 0.5 weights 0.4": channels went until at most 0.5 of the '
    'multiply-accumulates and 0.4 of the weights were left; "train 4": 4 times as many epochs '
    'more; "trained": for the numbers of the file.'
)
_PICTURES = {"pareto.png": "latency", "pareto_bytes.png": "bytes"}
LAST = "report.html"
FILES = (LAST, "report.md", *_PICTURES)
_DRAWN = (
    "Bars are 95% intervals of the difference to the original on the same images; dashed lines "
    "are limits on accuracy, time and bytes, where they are near."
)
_SHOWN = 12  # images that are wrong now


def summary(result: CompressResult) -> str:
    """Returns the results as plain text."""
    return "\n".join(
        [
            table(_file_headers(result), _rows(result)),
            "",
            verdict(result),
            *(f"- {line}" for line in (*_remarks(result), *result.same.warnings())),
            f"Everything is in {result.directory}: report.html, best.tflite"
            + (", saved_model" if result.saved_model else ""),
        ]
    )


def verdict(result: CompressResult) -> str:
    """Returns in a sentence whether the budget is kept, and by what."""
    asked = f"budget ({result.budget})"
    if result.meets:
        return f"{result.best.recipe} keeps the {asked}."
    best = result.best
    if best.costs.refused:
        return f"No file keeps the {asked}. {_refusal(best.recipe, best.costs)}."
    over = [f"{name} by {_excess(name, value)}" for name, value in result.excesses.items()]
    return (
        f"No file keeps the {asked}. The nearest, {best.recipe}, exceeds "
        f"{' and '.join(over)}: relax that, try more effort, or train longer."
    )


def _remarks(result: CompressResult) -> list[str]:
    """What the verdict, which is by the images to choose by, does not tell."""
    best, told = result.best, []
    [row] = [row for row in result.rows if row.label == str(best.recipe)]
    limit = result.budget.max_drop
    if result.meets and limit is not None and row.difference and -100 * row.difference[0] > limit:
        told.append(
            "on the images that nothing was chosen by the best one loses "
            f"{-100 * row.difference[0]:.2f} points, more than max_drop {limit:g}"
        )
    if best.costs.drop < 0 and best.recipe.trains:
        told.append(
            f"the best one is more accurate than the original by {-best.costs.drop:.2f} points: "
            "it was trained further, by which the original might gain as well"
        )
    return told


def _excess(name: str, value: float) -> str:
    if name == "max_drop":
        return f"{value:.2f} points"
    return f"{value:.0f}" if name == "max_vela_cpu_operators" else f"{value:.0%}"


def _refusal(recipe: Any, costs: CandidateCosts) -> str:
    return f"The device can't run {recipe}: {costs.refused.rstrip('.')}"


def write(result: CompressResult, split: DataSplit, settings: TrainingSettings) -> None:
    """Writes report.md, report.html and the pictures."""
    pictures = _pictures(result, split)
    for name, content in pictures.items():
        write_atomically(result.directory / name, content)
    write_atomically(result.directory / "report.md", _markdown(result, split, settings))
    write_atomically(result.directory / "report.html", _page(result, split, settings, pictures))


def _markdown(result: CompressResult, split: DataSplit, settings: TrainingSettings) -> str:
    same = result.same
    parts = [
        f"# Compressed, on {split.name}",
        verdict(result),
        *[f"- {line}" for line in _remarks(result)],
        "![accuracy over time](pareto.png) ![accuracy over bytes](pareto_bytes.png)",
        _DRAWN,
        f"## The files, on {len(split.x_test)} images that nothing was chosen by",
        markdown_table(_file_headers(result), _rows(result)),
        f"## All that was tried, on {len(split.x_val)} images to choose by",
        _AMOUNTS,
        markdown_table(_candidate_headers(result), _candidates(result)),
        *[f"- {line}" for line in _not_possible(result)],
        "## Is it still the same model?",
        _told(result),
        *[f"- {line}" for line in same.warnings()],
        markdown_table(_pair_headers("images"), _pairs(same.accuracy)),
        markdown_table(_pair_headers("class"), _pairs(same.classes)),
        "## The best one, layer by layer",
        markdown_table(list(_LAYERS), _shown(_layers(result))),
        "## Examples a second",
        _THROUGHPUT,
        markdown_table(Throughput.headers(), _throughput(result)),
        "## Why this was tried",
        "\n".join(f"- {line}" for line in result.decisions.told),
        f"The original, layer by layer, looked at for {result.survey.seconds:.0f} s:",
        markdown_table(list(_LOOKED), _shown(_looked(result))),
        "## How it was made",
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
    same = result.same
    labels = [row.label for row in result.rows]
    return html.page(
        f"Compressed, on {split.name}",
        [
            html.note(verdict(result), result.meets),
            *[html.note(line, False) for line in _remarks(result)],
            html.beside(
                html.picture(
                    pictures[file], f"Accuracy of every file over its {over}; the best is marked."
                )
                for file, over in _PICTURES.items()
            ),
            f"<p>{html.text(_DRAWN)}</p>",
            html.section(
                f"The files, on {len(split.x_test)} images that nothing was chosen by",
                html.table(
                    _file_headers(result), _rows(result), labels.index(str(result.best.recipe))
                ),
            ),
            html.section(
                f"All that was tried, on {len(split.x_val)} images to choose by",
                f"<p>{html.text(_AMOUNTS)}</p>",
                html.table(
                    _candidate_headers(result),
                    _candidates(result),
                    result.candidates.index(result.best),
                    prose=[len(_candidate_headers(result)) - 1],
                ),
                html.listing(_not_possible(result)),
            ),
            html.section(
                "Is it still the same model?",
                f"<p>{html.text(_told(result))}</p>",
                *[html.note(line, False) for line in same.warnings()],
                html.table(_pair_headers("images"), _pairs(same.accuracy)),
                html.table(_pair_headers("class"), _pairs(same.classes)),
            ),
            _broken(result, split),
            html.section(
                "The best one, layer by layer",
                html.table(_LAYERS, _layers(result), bars=_LAYER_BARS),
            ),
            html.section(
                "Examples a second",
                f"<p>{html.text(_THROUGHPUT)}</p>",
                html.table(Throughput.headers(), _throughput(result)),
            ),
            html.section(
                "Why this was tried",
                html.listing(result.decisions.told),
                f"<p>The original, layer by layer, looked at for {result.survey.seconds:.0f} s:"
                "</p>",
                html.table(_LOOKED, _looked(result), bars=_LOOKED_BARS),
            ),
            html.section(
                "How it was made",
                html.table(["setting", "value"], _settings(result, settings)),
                html.table(["where", "value"], list(provenance().items())),
            ),
        ],
    )


def _broken(result: CompressResult, split: DataSplit) -> str:
    """Images that the original had right and the best file has wrong."""
    worst = result.same.worst[:_SHOWN]
    if not len(worst):
        return ""
    images = split.x_test[worst]
    answers = result.best.file.predict(images)
    names = dict(enumerate(split.class_names))  # a model may know more classes than the data
    captions = [
        f"{names[label]}, now {names.get(int(np.argmax(answer)), int(np.argmax(answer)))}"
        if len(answer) > 1
        else f"{names[label]}, now the other"
        for label, answer in zip(split.y_test[worst].tolist(), answers, strict=True)
    ]
    title = "Right before, wrong now: those of which the original was most certain"
    return html.section(title, html.tiles(images, captions))


def _told(result: CompressResult) -> str:
    same = result.same
    value, low, high = (100 * v for v in same.changed)
    return (
        f"Of {same.examples} images {value:.1f}% [{low:.1f}, {high:.1f}] change their class: "
        f"{same.broke} that were right are wrong, {same.repaired} that were wrong are right. "
        f"Expected calibration error: {same.calibration[0]:.3f} before, "
        f"{same.calibration[1]:.3f} now."
    )


def _pair_headers(what: str) -> list[str]:
    return [what, "original", "best", "points [95%]"]


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
    """The device's metrics that limits ask for."""
    return list(result.best.costs.device)


def _file_headers(result: CompressResult) -> list[str]:
    return headers("time of the original", *_metrics(result))


def _candidate_headers(result: CompressResult) -> list[str]:
    return [*_CANDIDATES, *_metrics(result), "why"]


def _not_possible(result: CompressResult) -> list[str]:
    """What could not be made or can't be run, a line each."""
    refused = [made for made in result.candidates if made.costs.refused]
    return [
        *(f"{name}: not possible: {why}" for name, why in result.failures.items()),
        *(_refusal(made.recipe, made.costs) for made in refused),
    ]


def _rows(result: CompressResult) -> list[list[str]]:
    known = {str(made.recipe): made.costs.device_texts().values() for made in result.front}
    unknown = [""] * len(_metrics(result))  # of the original's file
    whole = result.latencies[result.rows[0].label]

    def cells(row: Any) -> Sequence[str]:
        own = result.latencies[row.label]
        if own is whole:
            return ["1", *unknown]
        low, high = own.ratio_low / whole.ratio_high, own.ratio_high / whole.ratio_low
        time = f"{own.ratio / whole.ratio:.3f}x [{low:.3f}, {high:.3f}]"
        return [time, *known.get(row.label, unknown)]

    return file_rows(result.rows, cells)


def _candidates(result: CompressResult) -> list[list[str]]:
    return [
        [
            str(made.recipe),
            made.points,
            f"{made.costs.bytes:,}",
            f"{made.costs.gzip_bytes:,}",
            f"{made.costs.latency_ratio:.3f}x",
            f"{made.costs.macs:.3f}",
            f"{made.costs.memory:,}",
            *made.costs.device_texts().values(),
            made.recipe.why + ("; beaten by another" if made.beaten else ""),
        ]
        for made in result.candidates
    ]


def _layers(result: CompressResult) -> list[list[Any]]:
    """A row a kernel of the best file."""
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


def _looked(result: CompressResult) -> list[list[Any]]:
    """A row a layer of the original."""
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
        for layer in result.survey.layers
    ]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _shown(rows: list[list[Any]]) -> list[list[str]]:
    """Cells of numbers as text."""

    def cell(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, float):
            return f"{value:.3g}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    return [[cell(value) for value in row] for row in rows]


def _throughput(result: CompressResult) -> list[list[str]]:
    labels = result.rows[0].label, str(result.best.recipe)
    return [found.row(labels[found.file]) for found in result.throughput]


def _settings(result: CompressResult, settings: TrainingSettings) -> list[list[str]]:
    records: list[TrainingSettings | Device] = [settings]
    records += [result.device] * bool(_metrics(result))
    asked = [["budget", str(result.budget)], ["effort", result.effort]]
    return asked + [[k, str(v)] for each in records for k, v in dataclasses.asdict(each).items()]


def _pictures(result: CompressResult, split: DataSplit) -> dict[str, bytes]:
    """Accuracy over time and over bytes of all candidates, by the examples to choose by."""
    limits, gzipped = result.budget.limits, result.budget.max_gzip_bytes is not None
    lines = {"latency": limits.get("max_latency_ratio"), "bytes": limits.get("max_bytes")}
    if "max_drop" in limits:
        lines["accuracy"] = result.original[0] - limits["max_drop"] / 100
    return {
        file: pareto_picture(
            [
                (float(c.right.mean()), c.costs.latency_ratio, c.costs.bytes)
                for c in result.candidates
            ],
            [result.candidates.index(made) for made in result.front],
            result.candidates.index(result.best),
            f"Compressed, on {split.name}",
            "the original",
            ("accuracy", "latency", "gzipped size" if gzipped else "size", *_metrics(result)),
            "images to choose by",
            over=(over,),
            others={result.rows[0].label: result.original},
            errors=[(made.drop[2] - made.drop[1]) / 200 for made in result.candidates],
            limits={name: float(limit) for name, limit in lines.items() if limit is not None},
        )
        for file, over in _PICTURES.items()
    }
