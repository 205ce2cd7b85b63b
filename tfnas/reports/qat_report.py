"""A quantization-aware training's results for people: text, Markdown, a picture."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfnas.data.datasets import DataSplit
from tfnas.measure.latency import provenance
from tfnas.reports.file_rows import file_rows, headers
from tfnas.reports.plots import quantization_picture
from tfnas.runtime.files import write_atomically
from tfnas.table import markdown_table, table

if TYPE_CHECKING:
    from tfnas.compression.jobs.qat_job import QatConfig, QatResult


def summary(result: QatResult) -> str:
    """Returns the results as plain text."""
    lines = ["Test part, the .tflite files themselves:", table(headers(), file_rows(result.rows))]
    lines += ["", "The layers of the trained file, the worst first:", str(result.errors), ""]
    lines += [*_left_float(result), *result.notes, f"Everything is in {result.directory}"]
    return "\n".join(lines)


def write(result: QatResult, split: DataSplit, config: QatConfig) -> None:
    """Writes report.md, errors.json and errors.png."""
    write_atomically(result.directory / "errors.json", result.errors.to_json())
    write_atomically(result.directory / "errors.png", quantization_picture(result.errors))
    settings = [[name, value] for name, value in dataclasses.asdict(config).items()]
    errors = result.errors
    parts = [
        f"# {config.mode} after {config.epochs} epochs of quantization-aware training, on "
        f"{split.name}",
        f"{split}.",
        "## The files, on the test part",
        markdown_table(headers(), file_rows(result.rows)),
        "\n".join(f"- {line}" for line in [*_left_float(result), *result.notes]),
        "## What rounding costs, layer by layer",
        "![Signal to noise of each layer](errors.png)",
        markdown_table(errors.headers(), errors.rows()),
        "## How it was made",
        markdown_table(["setting", "value"], settings, right=2),
        markdown_table(["where", "value"], list(provenance().items()), right=2),
    ]
    write_atomically(result.directory / "report.md", "\n\n".join(p for p in parts if p) + "\n")


def _left_float(result: QatResult) -> list[str]:
    if not result.skipped:
        return ["Every layer computes in integers."]
    return [f"{one.name} ({one.kind}) stays float: {one.reason}" for one in result.skipped]
