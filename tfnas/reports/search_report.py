"""Report of a search: Markdown, CSV, a picture and JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from tfnas.data.data_split import DataSplit
from tfnas.measure.latency import provenance
from tfnas.nas.search_result import SearchConfig, SearchResult
from tfnas.reports.plots import MEASURED, pareto_picture
from tfnas.runtime.files import write_atomically
from tfnas.table import csv_table, markdown_table


def write(
    result: SearchResult, config: SearchConfig, split: DataSplit, target_ratio: float | None
) -> None:
    """Writes pareto.csv, pareto.png, results.json and report.md into the folder of the search.

    Args:
        result: The result of the search.
        config: Its settings.
        split: Its data.
        target_ratio: The target latency as a ratio to the reference model's; None: no target.
    """
    remeasured = {candidate.trial_id: candidate for candidate in result.front}
    shown = [remeasured.get(candidate.trial_id, candidate) for candidate in result.candidates]
    picture = pareto_picture(
        [candidate.objectives() for candidate in shown],
        [i for i, candidate in enumerate(shown) if candidate.trial_id in remeasured],
        [candidate.trial_id for candidate in shown].index(result.winner.trial_id),
        f"{split.name}: {len(shown)} candidates",
        objectives=config.objectives if len(config.objectives) > 1 else MEASURED,
    )
    write_atomically(result.directory / "pareto.png", picture)
    architectures = [[c.architecture.key, str(c.architecture)] for c in result.front]
    headers, rows = result.front_table()
    front = [[*row, *arch] for row, arch in zip(rows, architectures, strict=True)]
    headers = [*headers, "key", "architecture"]
    write_atomically(result.directory / "pareto.csv", csv_table(headers, front))
    write_atomically(result.directory / "results.json", _json(result, target_ratio))
    report = _markdown(result, config, split, target_ratio, headers, front)
    write_atomically(result.directory / "report.md", report)


def _markdown(
    result: SearchResult,
    config: SearchConfig,
    split: DataSplit,
    target_ratio: float | None,
    headers: list[str],
    front: list[list[Any]],
) -> str:
    where = provenance()
    target = "none" if target_ratio is None else f"{target_ratio:.4f} of the reference model's"
    settings = [[name, _setting(value)] for name, value in dataclasses.asdict(config).items()]
    parts = [
        f"# Search on {split.name}",
        f"{split}. Target latency: {target}.",
        "## The best, on the test part" if result.rows else "## The best",
        f"`{result.winner.architecture}` (trial {result.winner.trial_id})",
    ]
    if result.rows:
        parts += [
            markdown_table(*result.comparison()),
            "\n".join(f"- {verdict}" for verdict in result.verdicts()),
            "All of them were trained on the same images for the same number of epochs and "
            "measured side by side. Latency is the median over interleaved rounds, as a ratio to "
            "the reference model of tfnas; ms are of this machine.",
        ]
    else:
        parts += ["The search was interrupted: the test part was not touched."]
    parts += [
        "## Pareto front, on the validation part",
        "![Accuracy over latency](pareto.png)",
        markdown_table(headers, front),
        *result.notes(),
        "## Settings and environment",
        markdown_table(["setting", "value"], settings, right=2),
        markdown_table(["where", "value"], [[k, v] for k, v in where.items()], right=2),
        "The same command on the same folder continues where this one stopped.",
    ]
    return "\n\n".join(parts) + "\n"


def _setting(value: Any) -> Any:
    """Returns a setting as a cell; of a compression the fields that are not empty."""
    if not isinstance(value, dict) or "modes" not in value:
        return value
    parts = (f"{name}={','.join(map(str, choices))}" for name, choices in value.items() if choices)
    return " ".join(parts)


def _json(result: SearchResult, target_ratio: float | None) -> str:
    record = {
        "winner": {
            "trial": result.winner.trial_id,
            "architecture": result.winner.architecture.to_dict(),
            "validation": result.winner.measurement.to_dict(),
        },
        "target_ratio": target_ratio,
        "interrupted": result.interrupted,
        "test": [
            {"label": row.label, "reward": row.reward, **row.measurement.to_dict()}
            for row in [*result.rows, *result.randoms]
        ],
        "latency_prediction": result.prediction and dataclasses.asdict(result.prediction),
        "front": [candidate.trial_id for candidate in result.front],
    }
    return json.dumps(record, indent=2)
