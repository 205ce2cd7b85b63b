"""Search algorithms on tables of many shapes: what they find after so many evaluations.

    python benchmarks/nas_tables.py [--seeds=100] [--tables=...] [--algorithms=...] [--two]

The tables (benchmarks/search_tables) are NAS-Bench-Macro, where its file is, and families of
synthetic ones: smooth, rugged, interacting, with failures, cells (two families have the form of
NAS-Bench-201), stages that depend on each other, settings of a training, of 3 to 40 decisions that
are names, ordered choices or real numbers; and small MobileNetV2 spaces whose networks
`benchmarks/trained_table.py` trained. Each seed makes another table of a family, with noise as
of trainings. A score is 0 at the median of random configurations and 100 at the best one. With
--two the cost is a second objective, and a score is the hypervolume in per cent of the box between
the corner and the ideal.

Settings were chosen on the families of `DEVELOPMENT` alone, with seeds from 1000 on; seeds from 0
on and the families of `HELD_OUT` are reported. Optuna and pymoo take part where they are installed.
Finished runs are kept in --cells, and in the record, so that the same command goes on, and one with
more seeds adds them. After a change of a search --nokept begins anew.
"""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import record
from absl import app, flags
from search_tables import DEVELOPMENT, HELD_OUT, SearchTable, baselines, family, libraries, trained
from search_tables.comparison import Pair, Scores, holm, mean_ranks, pairs
from search_tables.macro import macro_table
from search_tables.runs import Algorithm, Cells, Measurements, recorded, scores

ROOT = pathlib.Path(__file__).resolve().parent.parent
MACRO = "NAS-Bench-Macro"
OURS = "evolution"
DATA = flags.DEFINE_string(
    "data",
    str(ROOT.parent / "shared/data/nas-bench-macro_cifar10.json"),
    "NAS-Bench-Macro's file; without it the table is left out",
)
SEEDS = flags.DEFINE_integer("seeds", 100, "number of seeds")
SLOW_SEEDS = flags.DEFINE_integer("slow_seeds", 15, "number of seeds of Gaussian-process peers")
FIRST = flags.DEFINE_integer("first", 0, "the first seed")
MARKS = flags.DEFINE_list("marks", ["25", "50", "100", "200"], "evaluations reported")
TABLES = flags.DEFINE_list("tables", [], "some of the tables; none: all")
ALGORITHMS = flags.DEFINE_list("algorithms", [], "some of the names; none: all")
TWO = flags.DEFINE_bool("two", False, "two objectives instead of one")
KEPT = flags.DEFINE_bool("kept", True, "take the runs of the record as done; not after changes")
CELLS = flags.DEFINE_string(
    "cells", str(ROOT / "build/nas_tables"), "folder of finished runs; empty: none are kept"
)


def ours(**settings: Any) -> Algorithm:
    """Returns tfnas' evolution; TensorFlow is imported when it first runs."""

    def run(table: SearchTable, measure: Measurements, evaluations: int, seed: int) -> Any:
        from search_tables.ours import evolution

        return evolution(**settings)(table, measure, evaluations, seed)

    return run


ONE: dict[str, Algorithm] = {
    OURS: ours(),
    "evolution without surrogate": ours(children=1),
    "random": baselines.random_search,
    "aging evolution": baselines.aging_evolution,
    "local search": baselines.local_search,
    "TPE": baselines.tpe,
    "Optuna TPE": libraries.optuna_sampler("TPESampler", multivariate=True, constant_liar=True),
}
ONE_SLOW: dict[str, Algorithm] = {
    "keras_tuner BayesianOptimization": libraries.keras_tuner_bayesian,
    "Optuna GPSampler": libraries.optuna_sampler("GPSampler"),
}
PAIR: dict[str, Algorithm] = {
    OURS: ours(),
    "NSGA-II without surrogate": ours(children=1),
    "random": baselines.random_search,
    "NSGA-II": baselines.nsga2,
    "Optuna TPE": libraries.optuna_sampler("TPESampler", multivariate=True, constant_liar=True),
    "Optuna NSGA-II": libraries.optuna_sampler("NSGAIISampler"),
    "Optuna NSGA-III": libraries.optuna_sampler("NSGAIIISampler"),
    "pymoo NSGA-II": libraries.pymoo_nsga2,
}
PAIR_SLOW: dict[str, Algorithm] = {"Optuna GPSampler": libraries.optuna_sampler("GPSampler")}


def main(argv: list[str]) -> None:
    marks = [int(mark) for mark in MARKS.value]
    fast, slow = (PAIR, PAIR_SLOW) if TWO.value else (ONE, ONE_SLOW)
    known = {**fast, **slow}
    names = ALGORITHMS.value or [name for name in known if available(name)]
    before = record.kept(record.RESULT.value or "nas_tables").get("runs") if KEPT.value else None
    kept = Cells(pathlib.Path(CELLS.value) if CELLS.value else None, before)
    found: dict[str, Scores] = {}
    costs: dict[str, float] = {}
    for name in names:
        seeds = min(SEEDS.value, SLOW_SEEDS.value) if name in slow else SEEDS.value
        cells = runs(kept, name, known[name], seeds, marks)
        found[name] = {(cell["table"], cell["seed"]): cell["scores"] for cell in cells}
        costs[name] = float(np.mean([cell["ms"] for cell in cells]))
    report(found, costs, marks, set(slow))


def runs(
    kept: Cells, name: str, algorithm: Algorithm, seeds: int, marks: list[int]
) -> list[dict[str, Any]]:
    """Returns the runs of an algorithm on all tables; those that are missing are run."""
    kind = kind_of(marks)
    done, found = kept.read(name), []
    for title, make in tables().items():
        for seed in range(FIRST.value, FIRST.value + seeds):
            cell = done.get((title, seed, kind))
            if cell is None:
                cell = {"table": title, "seed": seed, "kind": kind}
                cell |= scores(algorithm, make(seed), seed, marks, TWO.value)
                kept.add(name, cell)
            found.append(cell)
        last = [cell["scores"] for cell in found if cell["table"] == title]
        means = " ".join(f"{value:6.1f}" for value in np.mean(last, 0))
        print(f"{name:34s} {title:16s} {means}", flush=True)
    return found


def kind_of(marks: list[int]) -> str:
    """Returns what tells runs of other kinds apart."""
    return ("two" if TWO.value else "one") + " " + "-".join(map(str, marks))


def tables() -> dict[str, Callable[[int], SearchTable]]:
    """Returns the tables by name, each made by a seed."""
    found: dict[str, Callable[[int], SearchTable]] = {}
    if pathlib.Path(DATA.value).exists():
        macro = macro_table(pathlib.Path(DATA.value))
        found[MACRO] = lambda _: macro
    for data in trained.INPUTS:
        if trained.is_whole(data):
            found[f"trained, {data}"] = functools.partial(of_networks, data)
    for name in (*DEVELOPMENT, *HELD_OUT):
        found[name] = lambda seed, name=name: family(name, seed)  # type: ignore[misc]
    return {name: make for name, make in found.items() if name in (TABLES.value or found)}


def of_networks(data: str, _: int) -> SearchTable:
    """Returns the table of the networks that were trained on a data set."""
    return trained.trained_table(data)


def available(name: str) -> bool:
    """Whether the library of an algorithm is installed."""
    library = name.split()[0].lower()
    needs = {"optuna": ["optuna"], "pymoo": ["pymoo"]}.get(library, [])
    needs += ["torch"] if name == "Optuna GPSampler" else []
    return all(libraries.installed(need) for need in needs)


def report(
    found: dict[str, Scores], costs: dict[str, float], marks: list[int], slow: set[str]
) -> None:
    """Prints the tables and writes the record."""
    fast = {name: values for name, values in found.items() if name not in slow}
    ranks = mean_ranks(fast, marks)
    titles = list(tables())
    parts: dict[str, list[dict[str, Any]]] = {"Mean rank": [], "Against each peer": []}
    for name in fast:
        row: dict[str, Any] = {"algorithm": name}
        row |= {str(mark): f"{ranks[name][i]:.2f}" for i, mark in enumerate(marks)}
        row |= {"all": f"{np.mean(ranks[name]):.2f}", "ms a proposal": f"{costs[name]:.1f}"}
        parts["Mean rank"].append(row)
    compared = pairs(OURS, found, marks) if OURS in found else []
    certain = holm(compared)
    for peer in (name for name in found if name != OURS):
        chosen = [(p, c) for p, c in zip(compared, certain, strict=True) if p.peer == peer]
        parts["Against each peer"].append(against(peer, found[peer], chosen, costs[peer]))
    for title in titles:
        parts[f"{title}{' (held out)' if title in HELD_OUT else ''}"] = [
            {"algorithm": name, **means(values, title, marks)} for name, values in found.items()
        ]
    print("\n$ python", " ".join(sys.argv))
    for title, rows in parts.items():
        record.show(title, rows)
    what = "Hypervolume, % of the box" if TWO.value else "Score of the pick (0 median, 100 best)"
    record.write(
        "nas_tables",
        parts,
        seed=FIRST.value,
        notes=[
            f"{what}, mean and standard error over the seeds of each algorithm. Ranks are over the "
            "seeds that all algorithms but those of Gaussian processes have. Better and worse: "
            "rows (a table after so many evaluations) that differ at 5% after Holm's correction "
            "over all comparisons, by Wilcoxon's signed-rank test, paired by seed.",
            *shortcomings(found),
        ],
        runs=recorded(found, costs, kind_of(marks), FIRST.value),
    )


def shortcomings(found: dict[str, Scores]) -> list[str]:
    """Sentences about what the record lacks: seeds, and algorithms that did not take part."""
    notes = []
    if (seeds := len({seed for scores in found.values() for _, seed in scores})) < SEEDS.default:
        notes.append(f"{seeds} seeds, where {SEEDS.default} are the aim.")
    known = PAIR | PAIR_SLOW if TWO.value else ONE | ONE_SLOW
    if absent := [name for name in known if name not in found]:
        notes.append(f"Did not take part: {', '.join(absent)}.")
    return notes


def against(
    peer: str, values: Scores, compared: list[tuple[Pair, bool]], cost: float
) -> dict[str, Any]:
    """A row: in how many rows ours is better or worse than a peer."""
    better = [pair for pair, certain in compared if certain and pair.difference > 0]
    worse = [pair for pair, certain in compared if certain and pair.difference < 0]
    return {
        "peer": peer,
        "rows": len(compared),
        "better": len(better),
        "worse": len(worse),
        "worse in": ", ".join(f"{pair.table} {pair.mark}" for pair in worse),
        "difference": f"{np.mean([pair.difference for pair, _ in compared]):+.2f}",
        "least": f"{min((pair.difference for pair, _ in compared), default=0.0):+.2f}",
        "runs": len(values),
        "ms a proposal": f"{cost:.1f}",
    }


def means(values: Scores, title: str, marks: list[int]) -> dict[str, str]:
    """Cells of a table: mean and standard error at each mark."""
    found = np.array([scores for (table, _), scores in values.items() if table == title])
    errors = found.std(0, ddof=min(1, len(found) - 1)) / len(found) ** 0.5
    return {
        str(mark): f"{found[:, i].mean():.1f} +- {errors[i]:.1f}" for i, mark in enumerate(marks)
    }


if __name__ == "__main__":
    app.run(main)
