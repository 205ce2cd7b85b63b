"""Report of a search of the user's own hypermodel: Markdown and HTML."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfnas.measure.latency import provenance
from tfnas.nas.search_config import SearchConfig
from tfnas.reports.content import Report, Section, Table, Verdict, listing, paragraphs
from tfnas.reports.decision_sections import decision_sections
from tfnas.reports.last_sections import environment
from tfnas.reports.pages import write_report
from tfnas.reports.search_report import CONTINUES

Trial = tuple[str, Mapping[str, float], Mapping[str, Any]]  # id, metrics, hyperparameters


def write(
    directory: pathlib.Path,
    trials: Sequence[Trial],
    failures: Mapping[str, str],
    config: SearchConfig,
    data: str,
    *,
    objectives: Sequence[str],
    interrupted: bool,
    front: int = 1,
) -> None:
    """Writes report.md and report.html into the folder.

    Args:
        directory: Folder of the search.
        trials: Trials that ended well, the best first: id, metrics, hyperparameters.
        failures: Trials that failed -> why.
        config: Settings of the search.
        data: The data in a line.
        objectives: Names of the objectives.
        interrupted: Whether the search was interrupted.
        front: How many of the first trials no other one dominates.
    """
    report = content(trials, failures, config, data, objectives, interrupted, front)
    write_report(directory, report)


def content(
    trials: Sequence[Trial],
    failures: Mapping[str, str],
    config: SearchConfig,
    data: str,
    objectives: Sequence[str],
    interrupted: bool,
    front: int = 1,
) -> Report:
    """Returns what the report says; see :func:`write` for the arguments."""
    settings = {
        name: value for name, value in dataclasses.asdict(config).items() if value is not None
    }
    stopped = "The search was interrupted. " if interrupted else ""
    told = (
        f"{data}. {stopped}{len(trials)} trials ended well, {len(failures)} failed. Each was "
        f"judged by {', '.join(objectives)}, on the validation part; the test part was not touched."
    )
    lines = [f"trial {name}: {why}" for name, why in failures.items()]
    first = "the best" if len(objectives) == 1 else "the Pareto front"
    answer = [Verdict(_answer(trials[0], objectives), good=True)] if trials else []
    return Report(
        f"Search of {config.hypermodel}",
        [
            Section("", [*answer, *paragraphs(told)]),
            Section("The best", [_table(trials[:1], objectives)]),
            Section(f"All trials, {first} first", [_table(trials, objectives)]),
            *([Section("Failed trials", listing(lines))] if lines else []),
            *_decisions(trials, objectives, front),
            environment(settings, provenance()),
            Section("", paragraphs(CONTINUES)),
        ],
    )


def _answer(best: Trial, objectives: Sequence[str]) -> str:
    name, own, _ = best
    measured = ", ".join(f"{each} {_text(own[each])}" for each in objectives if each in own)
    by = "" if len(objectives) == 1 else f" by {objectives[0]}, of the Pareto front"
    return f"Trial {name} is the best{by}: {measured}."


def _decisions(trials: Sequence[Trial], objectives: Sequence[str], front: int) -> list[Section]:
    """The sections on the hyperparameters, by the metrics that every trial has."""
    metrics = _names(objectives, (each for _, each, _ in trials))
    shared = [each for each in metrics if all(each in own for _, own, _ in trials)]
    judged = [each for each in shared if each in objectives] or shared[:1]
    if not judged:
        return []
    return decision_sections(
        [chosen for *_, chosen in trials],
        {name: [own[name] for _, own, _ in trials] for name in judged},
        [f"trial {name}" for name, *_ in trials],
        ["chosen", *["front"] * (front - 1), *["dominated"] * (len(trials) - front)],
    )


def _table(trials: Sequence[Trial], objectives: Sequence[str]) -> Table:
    """Returns a row for each trial: objectives, the other metrics, hyperparameters."""
    metrics = _names(objectives, (each for _, each, _ in trials))
    values = _names((), (each for *_, each in trials))
    rows = [
        [
            name,
            *(_text(own.get(each, "")) for each in metrics),
            *(_text(chosen.get(each, "")) for each in values),
        ]
        for name, own, chosen in trials
    ]
    return Table(["trial", *metrics, *values], rows)


def _names(first: Sequence[str], records: Any) -> list[str]:
    return list(dict.fromkeys([*first, *(name for record in records for name in record)]))


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
