"""Report of a search: Markdown, HTML, CSV, a picture and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from tfnas.data.data_split import DataSplit
from tfnas.measure.latency import provenance
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.search_result import SearchResult
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
    environment,
    listing,
    paragraphs,
)
from tfnas.reports.pages import write_report
from tfnas.reports.plots import MEASURED, ParetoLabels, pareto_picture
from tfnas.runtime.files import write_atomically
from tfnas.table import csv_table

CONTINUES = "The same command on the same folder continues where this one stopped."


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
    verdict = result.target_verdict()
    first: list[Block] = [Verdict(verdict, result.meets_target)] if verdict else []
    settings = {name: _setting(value) for name, value in dataclasses.asdict(config).items()}
    front = _front(result)
    titles = _titles(front.headers, words)
    drawn = _picture(result, config, split, words)
    description = f"{capitalized(words.metric)} over latency"
    return Report(
        f"Search on {split.name}",
        [
            Section("", [*first, *paragraphs(f"{split}.")]),
            _best(result, words),
            Section(
                "Pareto front, on the validation part",
                [
                    Pictures([Picture("pareto.png", drawn, description)]),
                    Table(titles, front.rows, prose=[len(titles) - 1]),
                    *paragraphs(*result.notes()),
                ],
            ),
            environment(settings, provenance()),
            Section("", paragraphs(CONTINUES)),
        ],
    )


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


def _front(result: SearchResult) -> Table:
    """The front with its architectures, also what pareto.csv holds."""
    headers, rows = result.front_table()
    architectures = [[c.architecture.key, str(c.architecture)] for c in result.front]
    front = [[*row, *arch] for row, arch in zip(rows, architectures, strict=True)]
    return Table([*headers, "key", "architecture"], front)


def _picture(result: SearchResult, config: SearchConfig, split: DataSplit, words: Words) -> bytes:
    remeasured = {candidate.trial_id: candidate for candidate in result.front}
    shown = [remeasured.get(candidate.trial_id, candidate) for candidate in result.candidates]
    return pareto_picture(
        [candidate.objectives() for candidate in shown],
        [i for i, candidate in enumerate(shown) if candidate.trial_id in remeasured],
        [candidate.trial_id for candidate in shown].index(result.winner.trial_id),
        f"{split.name}: {len(shown)} candidates",
        ParetoLabels(words.metric),
        config.objectives if len(config.objectives) > 1 else (words.metric, *MEASURED[1:]),
    )


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
