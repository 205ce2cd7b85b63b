"""Report of a compression job: Markdown, pictures, and one HTML page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfnas.compression.device_costs import Target
from tfnas.compression.file_comparison_table import FileRow
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.results.compress_result import (
    CompressResult,
    answer,
    refusal,
    remarks,
    verdict,
)
from tfnas.compression.results.file_rows import file_rows, headers
from tfnas.data.examples import Data
from tfnas.drawing.figures import png
from tfnas.drawing.pareto_figure import pareto_figure
from tfnas.drawing.pareto_plot import AXES, ParetoLabels
from tfnas.measure.latency import provenance
from tfnas.measure.throughput import Throughput
from tfnas.reports.agreement_sections import agreement_sections, group_sections, more_metrics
from tfnas.reports.calls import call_of, changed
from tfnas.reports.chart import chart_of
from tfnas.reports.content import (
    Block,
    Cell,
    Picture,
    Pictures,
    Report,
    Section,
    Table,
    Verdict,
    Warnings,
    Words,
    capitalized,
    listing,
    paragraphs,
)
from tfnas.reports.curves import curve_sections
from tfnas.reports.last_sections import environment, repeat
from tfnas.reports.pages import HTML, MARKDOWN, write_report
from tfnas.targets.device import Device

_CANDIDATES = ("bytes", "gzip", "time", "MACs", "memory, bytes")
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
    "predictions changed by pruning it alone %",
)
_ANALYSIS_BARS = (2, 3, 4, 5, 6)
_THROUGHPUT = (
    "Batches in LiteRT on this machine, in interleaved rounds. A ratio is the median over rounds "
    "of the ratio to the original's file in the same round, which may differ from the ratio of the "
    "medians."
)
_AMOUNTS = (
    "{points} are the {metric} minus the original's; time is the latency as a ratio to the "
    "original's float32 file, MACs are a fraction of its own. "
    '"prune_channels 0.5 weights 0.4": channels were pruned to at most 0.5 of the '
    'multiply-accumulates and 0.4 of the weights; "train 4": 4 times as many further epochs; '
    '"trained": quantization-aware.'
)
_LOADED = (
    "To use it: `tfnas.Artifact.load('best.tflite').predict(x)`, or without tfnas "
    "`ai_edge_litert.interpreter.Interpreter('best.tflite')`. The file is in this page's folder."
)
_REPEATED = (
    "does the same again, where `model` is the original and `data` is: {data}. In the same folder "
    "it goes on, and reads what is there already."
)
_PICTURES = {"pareto.png": "latency", "pareto_bytes.png": "bytes"}
LAST = HTML
FILES = (LAST, MARKDOWN, *_PICTURES)


def write(
    result: CompressResult,
    data: Data,
    settings: FineTuneSettings,
    words: Words | None = None,
    target: Target | None = None,
) -> None:
    """Writes the pictures, report.md, and last report.html.

    Args:
        result: The result of the job.
        data: Its data.
        settings: How its steps were trained.
        words: How the report calls examples and their metric; None: images and accuracy.
        target: What the files are for; None: the result's device.
    """
    target = target or Target(result.device)
    write_report(result.directory, content(result, data, settings, words or Words(), target))


def content(
    result: CompressResult, data: Data, settings: FineTuneSettings, words: Words, target: Target
) -> Report:
    """Returns what the report says; see :func:`write` for the arguments."""
    return Report(
        f"Compression on {data.name}",
        [
            _outcome(result, data, words),
            _final_files(result, data, words),
            _all_candidates(result, data, words),
            *more_metrics(result.rows),
            *group_sections(result.by_group, words),
            *agreement_sections(result, data, words),
            Section(
                "The best file, layer by layer", [Table(_LAYERS, _layers(result), bars=_LAYER_BARS)]
            ),
            Section(
                "Examples a second",
                [*paragraphs(_THROUGHPUT), Table(Throughput.headers(), _throughput(result))],
            ),
            Section(
                "Why this was tried",
                [
                    *listing(result.plan.reasons),
                    *paragraphs(_analysis_title(result)),
                    Table(_ANALYSIS, _analysis(result), bars=_ANALYSIS_BARS),
                ],
            ),
            *curve_sections(result.curves),
            repeat(_call(result, settings, target), _REPEATED.format(data=data)),
            environment(_settings(result, settings), provenance()),
        ],
    )


def _outcome(result: CompressResult, data: Data, words: Words) -> Section:
    """The answer: gains and losses first, or what was missed; how to load the file; the plot."""
    gained, kept = answer(result), verdict(result)
    sentences = (gained, kept) if result.meets else (kept, gained)
    drawn = (
        f"Bars are 95% intervals of the difference to the original on the same {words.examples}; "
        f"dashed lines are limits on {words.metric}, time and bytes, where they are near."
    )
    more = remarks(result)
    return Section(
        "",
        [
            Verdict(" ".join(sentences), result.meets),
            *([Warnings(more)] if more else []),
            *paragraphs(_LOADED),
            *_plots(result, data, words),
            *paragraphs(drawn),
        ],
    )


def _plots(result: CompressResult, data: Data, words: Words) -> list[Block]:
    """Quality over time and over bytes of all candidates, on the examples for choosing."""
    labels = ParetoLabels(
        *(words.metric, f"{words.examples} for choosing", "the original"),
        higher_is_better=result.best.assessment.metric.higher_is_better,
    )
    plot = result.pareto_plot(AXES, f"Compression on {data.name}", labels)
    pictures = [
        Picture(
            file,
            png(pareto_figure(dataclasses.replace(plot, over=[over]))),
            f"{capitalized(words.metric)} of every file over its {over}; the best is marked.",
        )
        for file, over in _PICTURES.items()
    ]
    return [Pictures(pictures, on_page=False), chart_of(plot)]


def _call(result: CompressResult, settings: FineTuneSettings, target: Target) -> str:
    names = ("epochs", "batch_size", "learning_rate", "augment", "seed")
    arguments = {"effort": result.effort} | {name: getattr(settings, name) for name in names}
    arguments |= changed(target.device)
    if target.fit_for is not None:
        arguments["fit_for"] = target.fit_for
    if target.measure_on is not None:
        arguments["measure_on"] = str(target.measure_on)
    return call_of("tfnas.compress", ["model", "data", str(result.budget.limits)], arguments)


def _final_files(result: CompressResult, data: Data, words: Words) -> Section:
    labels = [row.label for row in result.rows]
    chosen = labels.index(str(result.best.recipe))
    return Section(
        f"The files, on {len(data.test)} final {words.examples} that were not used to choose",
        [Table(_file_headers(result), _rows(result), chosen=chosen)],
    )


def _all_candidates(result: CompressResult, data: Data, words: Words) -> Section:
    titles = _candidate_headers(result)
    chosen = result.candidates.index(result.best)
    explained = _AMOUNTS.format(points=capitalized(words.points), metric=words.metric)
    return Section(
        f"All candidates, on {len(data.validation)} {words.examples} for choosing",
        [
            *paragraphs(explained),
            Table(titles, _candidates(result), chosen=chosen, prose=[len(titles) - 1]),
            *listing(_failures(result)),
        ],
    )


def _metrics(result: CompressResult) -> list[str]:
    """Returns the device's limited metrics."""
    return list(result.best.costs.device)


def _file_headers(result: CompressResult) -> list[str]:
    metric = result.best.assessment.metric
    return headers("time / original", *_metrics(result), metric=metric)


def _candidate_headers(result: CompressResult) -> list[str]:
    gained = f"{result.best.assessment.metric.unit or 'gain'} [95%]"
    return ["recipe", gained, *_CANDIDATES, *_metrics(result), "why"]


def _failures(result: CompressResult) -> list[str]:
    """Returns a line for each recipe that failed or that the device can't run."""
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
            candidate.difference,
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


def _layers(result: CompressResult) -> list[list[Cell]]:
    """Returns a row for each kernel of the best file."""
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


def _analysis(result: CompressResult) -> list[list[Cell]]:
    """Returns a row for each layer of the original."""
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


def _throughput(result: CompressResult) -> list[list[str]]:
    labels = result.rows[0].label, str(result.best.recipe)
    return [measured.row(labels[measured.file]) for measured in result.throughput]


def _settings(result: CompressResult, settings: FineTuneSettings) -> dict[str, object]:
    records: list[FineTuneSettings | Device] = [settings]
    records += [result.device] * bool(_metrics(result))
    found: dict[str, object] = {"budget": str(result.budget), "effort": result.effort}
    for record in records:
        found.update(dataclasses.asdict(record))
    return found
