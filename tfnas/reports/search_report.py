"""Report of a search: Markdown, HTML, CSV, a picture and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from tfnas.data.data_split import DataSplit
from tfnas.drawing.figures import png
from tfnas.drawing.pareto_figure import pareto_figure
from tfnas.drawing.pareto_plot import AXES, ParetoLabels
from tfnas.measure.latency import provenance
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.search_result import SearchResult
from tfnas.reports.calls import call_of, changed, written
from tfnas.reports.chart import chart_of
from tfnas.reports.content import (
    Block,
    Paragraph,
    Picture,
    Pictures,
    Report,
    Section,
    Table,
    Verdict,
    Words,
    capitalized,
    listing,
    paragraphs,
)
from tfnas.reports.decision_sections import decision_sections, decisions_of
from tfnas.reports.last_sections import environment, repeat
from tfnas.reports.pages import write_report
from tfnas.runtime.files import write_atomically
from tfnas.table import csv_table

CONTINUES = "The same call, or command, on the same folder continues where this one stopped."


def write(
    result: SearchResult,
    config: SearchConfig,
    split: DataSplit,
    words: Words | None = None,
) -> None:
    """Writes pareto.csv, pareto.png, results.json, report.md and report.html into the folder.

    Args:
        result: The result of the search.
        config: Its settings.
        split: Its data.
        words: How the report calls examples and their metric; None: images and accuracy.
    """
    front = _front(result)
    write_atomically(result.directory / "pareto.csv", csv_table(front.headers, front.rows))
    write_atomically(result.directory / "results.json", _json(result))
    report = content(result, config, split, words or Words())
    write_report(result.directory, report)


def content(result: SearchResult, config: SearchConfig, split: DataSplit, words: Words) -> Report:
    """Returns what the report says; see :func:`write` for the arguments."""
    settings = {name: _setting(value) for name, value in dataclasses.asdict(config).items()}
    return Report(
        f"Search on {split.name}",
        [
            _outcome(result, split, words),
            _best(result, words),
            Section(
                "Pareto front, on the validation part",
                [
                    *_plots(result, config, split, words),
                    _front_on_page(result, words),
                    *paragraphs(*result.notes()),
                ],
            ),
            *_decisions(result, words),
            repeat(_call(config), CONTINUES),
            environment(settings, provenance()),
        ],
    )


def _outcome(result: SearchResult, split: DataSplit, words: Words) -> Section:
    """The answer: a missed target first, what the best network is worth, how to load its file."""
    target, gained = result.target_verdict(), result.answer(capitalized(words.metric))
    sentences = (gained, target) if result.meets_target else (target, gained)
    name = result.best_file
    used = f"To use it: `tfnas.Artifact.load('{name}').predict(x)`; the model is `best.keras`."
    return Section(
        "",
        [
            Verdict(" ".join(filter(None, sentences)), result.meets_target),
            *paragraphs(used, f"{split}."),
        ],
    )


def _plots(
    result: SearchResult, config: SearchConfig, split: DataSplit, words: Words
) -> list[Block]:
    title = f"{split.name}: {len(result.candidates)} candidates"
    plot = result.pareto_plot(AXES, title, ParetoLabels(words.metric), config.objectives)
    drawn = png(pareto_figure(dataclasses.replace(plot, over=["latency"])))
    description = f"{capitalized(words.metric)} over latency"
    pictures = Pictures([Picture("pareto.png", drawn, description)], on_page=False)
    return [pictures, chart_of(plot)]


def _decisions(result: SearchResult, words: Words) -> list[Section]:
    front = {candidate.trial_id for candidate in result.front}
    chosen = result.winner.trial_id
    trials = [(candidate, *candidate.objectives()) for candidate in result.candidates]
    return decision_sections(
        [decisions_of(candidate.architecture.to_dict()) for candidate in result.candidates],
        {
            words.metric: [accuracy for _, accuracy, *_ in trials],
            "latency": [ratio for *_, ratio, _ in trials],
            "size KiB": [size / 1024 for *_, size in trials],
        },
        [f"trial {candidate.trial_id}" for candidate in result.candidates],
        [
            "chosen" if t.trial_id == chosen else "front" if t.trial_id in front else "dominated"
            for t in result.candidates
        ],
    )


def _call(config: SearchConfig) -> str:
    arguments = changed(config)
    del arguments["dataset"]
    return call_of("tfnas.search", [written(config.dataset)], arguments)


def _best(result: SearchResult, words: Words) -> Section:
    winner = result.winner
    blocks: list[Block] = [Paragraph(f"(trial {winner.trial_id})", code=str(winner.architecture))]
    if not result.rows:
        blocks += paragraphs("The search was interrupted: the test part was not touched.")
        return Section("The best", blocks)
    headers, rows = result.comparison()
    latency = result.rows[0].measurement.latency
    where = (latency.device if latency is not None else "") or "this machine"
    explained = (
        f"All of them were trained on the same {words.examples} for the same number of epochs and "
        "measured side by side. Latency is the median over interleaved rounds, as a ratio to "
        f"the reference model of tfnas; ms are of {where}."
    )
    blocks += [Table(_titles(headers, words), rows), *listing(result.verdicts())]
    return Section("The best, on the test part", [*blocks, *paragraphs(explained)])


def _titles(headers: Sequence[str], words: Words) -> list[str]:
    """Returns titles of columns with the metric's name for the column of the metric."""
    return [words.metric if title == Words().metric else title for title in headers]


def _front_on_page(result: SearchResult, words: Words) -> Table:
    """The front as it is read: digits in groups, the best one marked, keys at the end."""
    headers, rows = result.front_table()
    shown = [
        [row[0], *map(_grouped, row[1:]), str(c.architecture), c.architecture.key]
        for row, c in zip(rows, result.front, strict=True)
    ]
    trials = [candidate.trial_id for candidate in result.front]
    best = result.winner.trial_id
    titles = [*_titles(headers, words), "architecture", "key"]
    chosen = trials.index(best) if best in trials else None
    return Table(titles, shown, chosen=chosen, prose=[len(headers)])


def _grouped(cell: str) -> str:
    return f"{int(cell):,}" if cell.isdecimal() else cell


def _front(result: SearchResult) -> Table:
    """The front with its architectures, what pareto.csv holds."""
    headers, rows = result.front_table()
    architectures = [[c.architecture.key, str(c.architecture)] for c in result.front]
    front = [[*row, *arch] for row, arch in zip(rows, architectures, strict=True)]
    return Table([*headers, "key", "architecture"], front)


def _setting(value: object) -> object:
    """Returns a setting as a cell; of a compression the fields that are not empty."""
    if not isinstance(value, Mapping) or "modes" not in value:
        return value
    parts = (f"{name}={','.join(map(str, choices))}" for name, choices in value.items() if choices)
    return " ".join(parts)


def _json(result: SearchResult) -> str:
    record = {
        "winner": {
            "trial": result.winner.trial_id,
            "architecture": result.winner.architecture.to_dict(),
            "validation": result.winner.measurement.to_dict(),
        },
        "target_ratio": result.target_ratio,
        "interrupted": result.interrupted,
        "test": [
            {"label": row.label, "reward": row.reward, **row.measurement.to_dict()}
            for row in [*result.rows, *result.randoms]
        ],
        "latency_prediction": result.prediction and dataclasses.asdict(result.prediction),
        "front": [candidate.trial_id for candidate in result.front],
    }
    return json.dumps(record, indent=2)
