"""Is the measured latency ratio reproducible? Two sweeps over random architectures.

    python benchmarks/latency_noise.py [--architectures=30] [--rounds=30]

Prints Spearman's rank correlation between two interleaved sweeps over the same files, how
far each file's ratio moved between them, the same for absolute times, and the ratio of
the reference model's file to itself.
"""

from __future__ import annotations

import sys

import numpy as np
import record
from absl import app, flags
from scipy.stats import spearmanr

import tfnas
from tfnas.measure.latency import provenance, reference_artifact
from tfnas.table import table

ARCHITECTURES = flags.DEFINE_integer("architectures", 30, "number of random architectures")
ROUNDS = flags.DEFINE_integer("rounds", 30, "interleaved rounds a sweep")


def main(argv: list[str]) -> None:
    rng = np.random.default_rng(0)
    space = tfnas.MobileNetV2Space((32, 32, 3), 10, "mobile")
    archs = [space.sample(rng) for _ in range(ARCHITECTURES.value)]
    files = [tfnas.to_tflite(space.build(arch)) for arch in archs]
    first = tfnas.benchmark(files, rounds=ROUNDS.value, seed=1)
    second = tfnas.benchmark(files, rounds=ROUNDS.value, seed=2)
    rows = []
    for name in ("ratio", "median_ms"):
        a, b = (np.array([getattr(item, name) for item in sweep]) for sweep in (first, second))
        moved = np.abs(b / a - 1)
        rows.append(
            [
                name,
                f"{spearmanr(a, b).statistic:.4f}",
                f"{np.median(moved):.2%}",
                f"{moved.max():.2%}",
                f"{a.min():.3g} to {a.max():.3g}",
            ]
        )
    print("\n$ python", " ".join(sys.argv))
    headers = ["what", "Spearman", "median move", "largest move", "range"]
    print(table(headers, rows))
    anchor = reference_artifact()
    same = [tfnas.benchmark(anchor, rounds=ROUNDS.value, seed=seed)[0] for seed in range(10)]
    ratios = [item.ratio for item in same]
    note = f"The same file against itself, 10 runs: ratios {min(ratios):.4f} to {max(ratios):.4f}"
    print(f"\n{note}; first: {same[0]}")
    record.write("latency_noise", record.table_rows(headers, rows), seed=0, notes=[f"{note}."])
    where = provenance()
    print(f"{where['cpu']}, {where['cores']} cores, TensorFlow {where['tensorflow']}")


if __name__ == "__main__":
    app.run(main)
