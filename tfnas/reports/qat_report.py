"""Report of quantization-aware training: Markdown, JSON and a picture of the errors by layer."""

from __future__ import annotations

import dataclasses

from tfnas.compression.results.file_rows import file_rows, headers
from tfnas.compression.results.qat_result import QatConfig, QatResult
from tfnas.data.data_split import DataSplit
from tfnas.measure.latency import provenance
from tfnas.reports.plots import quantization_picture
from tfnas.runtime.files import write_atomically
from tfnas.table import markdown_table


def write(result: QatResult, split: DataSplit, config: QatConfig) -> None:
    """Writes report.md, errors.json and errors.png.

    Args:
        result: The result of the job.
        split: Its data.
        config: Its settings.
    """
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
        "\n".join(f"- {line}" for line in [*result.unquantized_lines(), *result.notes]),
        "## Quantization error, layer by layer",
        "![Signal to noise of each layer](errors.png)",
        markdown_table(errors.headers(), errors.rows()),
        "## Settings and environment",
        markdown_table(["setting", "value"], settings, right=2),
        markdown_table(["where", "value"], list(provenance().items()), right=2),
    ]
    write_atomically(result.directory / "report.md", "\n\n".join(p for p in parts if p) + "\n")
