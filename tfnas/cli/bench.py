"""`tfnas bench`."""

from __future__ import annotations

import pathlib

from absl import flags

SUMMARY = "measure the latency of .tflite files side by side"
POSITIONAL = "FILE..."
EXAMPLE = "example: tfnas bench a.tflite b.tflite --threads=2"


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    flags.DEFINE_integer("rounds", 50, "interleaved rounds", lower_bound=6, **common)
    flags.DEFINE_integer("threads", 1, "threads of the interpreter", lower_bound=1, **common)
    flags.DEFINE_bool("xnnpack", True, "let the XNNPACK delegate run", **common)
    flags.DEFINE_string("json", None, "also write the measurements to this file", **common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    import json

    from tfnas.bench.latency import benchmark, provenance
    from tfnas.export.artifact import Artifact
    from tfnas.files import write_atomically
    from tfnas.measurement import Measurement
    from tfnas.table import table

    files = [Artifact.load(path) for path in positional]
    latencies = benchmark(
        files,
        rounds=values["rounds"].value,
        threads=values["threads"].value,
        xnnpack=values["xnnpack"].value,
    )
    rows = [
        [
            pathlib.Path(path).name,
            f"{latency.ratio:.4f}x",
            f"[{latency.ratio_low:.4f}, {latency.ratio_high:.4f}]",
            f"{latency.median_ms:.4f}",
            f"{latency.p90_ms:.4f}",
            f"{file.size:,}",
            f"{file.gzip_size:,}",
        ]
        for path, file, latency in zip(positional, files, latencies, strict=True)
    ]
    headers = ["file", "reference", "95% interval", "median ms", "p90 ms", "bytes", "gzip"]
    print(table(headers, rows))
    where = provenance()
    print(
        f"\n{where['cpu']}, {latencies[0].threads} thread(s), XNNPACK "
        f"{'on' if latencies[0].xnnpack else 'off'}, {latencies[0].rounds} rounds, "
        f"reference model {latencies[0].reference_ms:.4f} ms"
    )
    if values["json"].value:
        records = {
            path: Measurement(
                file.size, file.gzip_size, file.sha256, latency=latency, provenance=where
            ).to_dict()
            for path, file, latency in zip(positional, files, latencies, strict=True)
        }
        write_atomically(values["json"].value, json.dumps(records, indent=2))
    return 0
