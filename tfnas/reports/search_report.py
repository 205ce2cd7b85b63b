"""A search's results for people: text, Markdown, CSV, a picture, JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from typing import TYPE_CHECKING, Any

from tfnas.data.datasets import DataSplit
from tfnas.measure.accuracy import paired_difference
from tfnas.measure.latency import provenance
from tfnas.reports.plots import MEASURED, pareto_picture
from tfnas.runtime.files import write_atomically
from tfnas.table import csv_table, markdown_table, table
from tfnas.targets.device import MICRO, VELA

if TYPE_CHECKING:
    from tfnas.nas.search_job import ReportRow, SearchConfig, SearchResult

_HEADERS = ["model", "accuracy", "95% interval", "latency", "ms", "bytes", "gzip", "MACs", "reward"]
_RUNGS = ("rung", "epochs")
_FRONT = ["trial", "accuracy", "latency_ratio", "latency_ms", "size_bytes", "gzip_bytes", "macs"]


def summary(result: SearchResult) -> str:
    """Returns the tables as plain text."""
    lines = []
    if result.rows:
        lines += ["Test part, latency as a ratio to the reference model:", ""]
        lines += [table(_HEADERS, _comparison(result)), "", *_verdicts(result), ""]
    elif result.interrupted:
        lines += ["Interrupted: the test part was not touched.", ""]
    lines += [
        f"Pareto front, out of {len(result.candidates)} candidates, on the validation part:",
        "",
    ]
    lines += [table(_headers(result), _front_rows(result)), ""]
    for line in _notes(result):
        lines += [line, ""]
    lines += [f"Everything is in {result.directory}"]
    return "\n".join(lines)


def write(
    result: SearchResult, config: SearchConfig, split: DataSplit, target_ratio: float | None
) -> None:
    """Writes pareto.csv, pareto.png, results.json and report.md into the run's folder."""
    front_ids = {candidate.trial_id for candidate in result.front}
    again = {candidate.trial_id: candidate for candidate in result.front}
    shown = [again.get(candidate.trial_id, candidate) for candidate in result.candidates]
    picture = pareto_picture(
        [candidate.objectives() for candidate in shown],
        [i for i, candidate in enumerate(shown) if candidate.trial_id in front_ids],
        [candidate.trial_id for candidate in shown].index(result.winner.trial_id),
        f"{split.name}: {len(shown)} candidates",
        objectives=config.objectives if len(config.objectives) > 1 else MEASURED,
    )
    write_atomically(result.directory / "pareto.png", picture)
    architectures = [[c.architecture.key, str(c.architecture)] for c in result.front]
    front = [[*row, *arch] for row, arch in zip(_front_rows(result), architectures, strict=True)]
    headers = [*_headers(result), "key", "architecture"]
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
    settings = [[name, _shown(value)] for name, value in dataclasses.asdict(config).items()]
    parts = [
        f"# Search on {split.name}",
        f"{split}. Target latency: {target}.",
        "## The best, on the test part" if result.rows else "## The best",
        f"`{result.winner.architecture}` (trial {result.winner.trial_id})",
    ]
    if result.rows:
        parts += [
            markdown_table(_HEADERS, _comparison(result)),
            "\n".join(f"- {verdict}" for verdict in _verdicts(result)),
            "All of them were trained on the same images for as many epochs and measured side "
            "by side. Latency is the median over interleaved rounds, as a ratio to tfnas' "
            "reference model; ms are this machine's.",
        ]
    else:
        parts += ["The search was interrupted: the test part was not touched."]
    parts += [
        "## Pareto front, on the validation part",
        "![Accuracy over latency](pareto.png)",
        markdown_table(headers, front),
        *_notes(result),
        "## How it was made",
        markdown_table(["setting", "value"], settings, right=2),
        markdown_table(["where", "value"], [[k, v] for k, v in where.items()], right=2),
        "The same command on the same folder goes on where this one stopped.",
    ]
    return "\n\n".join(parts) + "\n"


def _comparison(result: SearchResult) -> list[list[str]]:
    rows = [_cells(row.label, row) for row in result.rows]
    if result.randoms:
        rows += [_cells(row.label, row) for row in result.randoms]
        rows.append(_median_cells(result.randoms))
    return rows


def _cells(label: str, row: ReportRow) -> list[str]:
    m = row.measurement
    assert m.score is not None
    assert m.latency is not None
    return [
        label,
        f"{m.score.value:.4f}",
        f"[{m.score.low:.4f}, {m.score.high:.4f}]",
        f"{m.latency.ratio:.3f}x",
        f"{m.latency.median_ms:.4f}",
        f"{m.size_bytes:,}",
        f"{m.gzip_bytes:,}",
        f"{m.macs:,}",
        f"{row.reward:.4f}",
    ]


def _median_cells(rows: list[ReportRow]) -> list[str]:
    def median(values: list[Any]) -> float:
        return statistics.median(values)

    ms = [row.measurement for row in rows]
    return [
        f"median of {len(rows)} random, int8",
        f"{median([m.score.value for m in ms if m.score]):.4f}",
        "",
        f"{median([m.latency.ratio for m in ms if m.latency]):.3f}x",
        f"{median([m.latency.median_ms for m in ms if m.latency]):.4f}",
        f"{median([m.size_bytes for m in ms]):,.0f}",
        f"{median([m.gzip_bytes for m in ms]):,.0f}",
        f"{median([m.macs for m in ms]):,.0f}",
        f"{median([row.reward for row in rows]):.4f}",
    ]


def _verdicts(result: SearchResult) -> list[str]:
    best = result.rows[0]
    verdicts = []
    for other in result.rows[1:]:
        if other.measurement.mode != best.measurement.mode:
            continue
        value, low, high = paired_difference(best.right, other.right)
        a, b = best.measurement, other.measurement
        assert a.latency is not None
        assert b.latency is not None
        verdicts.append(
            f"against {other.label}: {b.size_bytes / a.size_bytes:.2f}x smaller, "
            f"{b.latency.ratio / a.latency.ratio:.2f}x faster, accuracy {value:+.4f} "
            f"[{low:+.4f}, {high:+.4f}] (paired, 95%)"
        )
    if result.randoms:
        beaten = sum(best.reward > row.reward for row in result.randoms)
        accuracies = [row.right.mean() for row in result.randoms]
        verdicts.append(
            f"against {len(result.randoms)} random candidates with as many parameters (within a "
            f"factor of 1.5; each one draw, trained as long): accuracy {best.right.mean():.4f}, "
            f"their median {statistics.median(accuracies):.4f}; better reward than {beaten} of them"
        )
    return verdicts


def _front_rows(result: SearchResult) -> list[list[str]]:
    rows = []
    for candidate in result.front:
        accuracy, ratio, size = candidate.objectives()
        m = candidate.measurement
        assert m.latency is not None
        ms = f"{m.latency.median_ms:.4f}"
        cells = [candidate.trial_id, f"{accuracy:.4f}", f"{ratio:.4f}", ms, size]
        more = [f"{candidate.metrics[name]:g}" for name in _more(result)]
        chosen = candidate.architecture.compression
        compressed = [] if chosen is None else [str(chosen)]
        rows.append([*map(str, cells), str(m.gzip_bytes), str(m.macs), *more, *compressed])
    return rows


def _headers(result: SearchResult) -> list[str]:
    """Titles of the front's columns: with what the device takes and what was compressed."""
    compressed = result.winner.architecture.compression is not None
    return [*_FRONT, *_more(result), *["compression"] * compressed]


def _more(result: SearchResult) -> list[str]:
    """The rung of a trial, and a device's metrics, where trials were asked for them."""
    return [name for name in (*_RUNGS, *MICRO, *VELA) if name in result.winner.metrics]


def _notes(result: SearchResult) -> list[str]:
    """What rungs saved, and how well latencies were predicted, a paragraph each."""
    predicted = [] if result.prediction is None else [f"{result.prediction}."]
    return [*_savings(result), *predicted]


def _savings(result: SearchResult) -> list[str]:
    """What the rungs of successive halving took, in one line."""
    spent = [c.metrics["epochs"] for c in result.candidates if "epochs" in c.metrics]
    if not spent:
        return []
    most = max(spent)
    rungs = [(sum(e >= rung for e in spent), rung) for rung in sorted(set(spent))]
    reached = ", ".join(f"{count} trained {rung:.0f} epochs" for count, rung in rungs)
    return [
        f"Successive halving: {reached}; {sum(spent):.0f} epochs together, "
        f"{len(spent) * most:.0f} if all had had {most:.0f}."
    ]


def _shown(value: Any) -> Any:
    """A setting for a table: of a compression only what leaves a choice or does something."""
    if not isinstance(value, dict) or "modes" not in value:
        return value
    parts = (f"{name}={','.join(map(str, given))}" for name, given in value.items() if given)
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
