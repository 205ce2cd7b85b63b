"""Is successive halving worth it, and does it help a search to see predicted latencies?

    python benchmarks/halving.py [--seeds=20] [--tables=fashion_mnist] [--parts=halving,latency]

Searches of tables of trained networks (benchmarks/search_tables/trained.py), through tfnas' oracle
as in any search. The first part gives all searches the same epochs in total. Without halving a
trial has all nine epochs; with it the best third of the trials goes on from one epoch to three and
nine, or from three to nine; "three epochs" trains each network so long, and the best of them to the
end. A score is the picked network's mean test accuracy after nine epochs: 0 at the median of all
networks, 100 at the best one. The second part has two objectives, accuracy and measured latency,
and compares the surrogate that sees predicted latencies with the one that sees decisions alone, by
the hypervolume of test accuracy and logarithm of latency, in per cent of that of all networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import record
from absl import app, flags
from scipy.stats import wilcoxon
from search_tables import trained
from search_tables.epochs import BASE, SEARCHES, TOTALS, TRIALS, Networks, fronts, halved

SEEDS = flags.DEFINE_integer("seeds", 20, "number of seeds", 1)
PARTS = flags.DEFINE_list("parts", ["halving", "latency"], "parts to run; the record keeps others")
TABLES = flags.DEFINE_list("tables", [], "data sets; none: all that were trained")


def rows_of(
    found: dict[str, np.ndarray], marks: Sequence[int], base: str, unit: str
) -> list[dict[str, Any]]:
    """Returns a row a search: means with standard errors, and whether it differs from the base."""
    rows = []
    for name, values in found.items():
        row: dict[str, Any] = {"search": name}
        for column, mark in enumerate(marks):
            mean = values[:, column].mean()
            error = values[:, column].std(ddof=1) / len(values) ** 0.5
            row[f"{mark} {unit}"] = f"{mean:.1f} +- {error:.1f}"
        gaps = (values - found[base]).mean(1)
        row[f"to {base}"] = "" if name == base else f"{gaps.mean():+.1f}"
        row["p"] = "" if not gaps.any() else f"{wilcoxon(gaps).pvalue:.3f}"
        rows.append(row)
    return rows


def halving_rows(data: str) -> list[dict[str, Any]]:
    """Returns the rows of the first part."""
    found = {
        name: np.array([halved(Networks(data, seed), search, seed) for seed in range(SEEDS.value)])
        for name, search in SEARCHES.items()
    }
    return rows_of(found, TOTALS, BASE, "epochs")


def latency_rows(data: str) -> list[dict[str, Any]]:
    """Returns the rows of the second part."""
    base = "decisions alone"
    found = {
        name: np.array([fronts(Networks(data, seed), seed, seen) for seed in range(SEEDS.value)])
        for name, seen in {base: False, "predicted latencies too": True}.items()
    }
    return rows_of(found, TRIALS, base, "trials")


def main(_: Any) -> None:
    tables = dict(record.kept(record.RESULT.value or "halving").get("tables", {}))
    for data in TABLES.value or [data for data in trained.INPUTS if trained.is_whole(data)]:
        if "halving" in PARTS.value:
            tables[f"Halving, {data}"] = halving_rows(data)
        if "latency" in PARTS.value:
            tables[f"What the surrogate sees, {data}"] = latency_rows(data)
    for title, rows in tables.items():
        record.show(title, rows)
    record.write(
        "halving",
        tables,
        seed=0,
        notes=[
            f"Means over {SEEDS.value} seeds with standard errors. The difference is a mean over "
            "the columns, with the probability of Wilcoxon's signed-rank test, paired by seed, "
            "without a correction."
        ],
    )


if __name__ == "__main__":
    app.run(main)
