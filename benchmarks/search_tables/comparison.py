"""Comparisons of searches over the same tables and seeds: mean ranks, paired differences.

References:
    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979. Wilcoxon, "Individual
    Comparisons by Ranking Methods", 1945. Demsar, "Statistical Comparisons of Classifiers over
    Multiple Data Sets", JMLR 2006.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata, wilcoxon

Scores = Mapping[tuple[str, int], Sequence[float]]
"""(table, seed) -> scores at the marks."""
_LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Pair:
    """What was found in the comparison of two searches on one table after so many evaluations.

    Args:
        peer: The other search.
        table: The table.
        mark: Number of evaluations.
        difference: Mean of ours less the peer's, with its standard error.
        error: That error.
        p: Probability of such a difference by chance, of this comparison alone.
    """

    peer: str
    table: str
    mark: int
    difference: float
    error: float
    p: float


def mean_ranks(found: Mapping[str, Scores], marks: Sequence[int]) -> dict[str, list[float]]:
    """Returns the mean rank of each search at each mark, over the runs that all of them have."""
    common = sorted(set.intersection(*(set(scores) for scores in found.values())))
    values = np.array([[found[name][key] for key in common] for name in found])
    ranks = np.apply_along_axis(rankdata, 0, -values).mean(1)
    return {name: ranks[i, : len(marks)].tolist() for i, name in enumerate(found)}


def pairs(ours: str, found: Mapping[str, Scores], marks: Sequence[int]) -> list[Pair]:
    """Returns the comparisons of ours with each peer, by table and mark, on common seeds."""
    result = []
    for peer in (name for name in found if name != ours):
        common = sorted(set(found[ours]) & set(found[peer]))
        for table in sorted({table for table, _ in common}):
            keys = [key for key in common if key[0] == table]
            for column, mark in enumerate(marks):
                gap = np.array(
                    [found[ours][key][column] - found[peer][key][column] for key in keys]
                )
                p = float(wilcoxon(gap).pvalue) if np.any(gap != 0) and len(gap) > 5 else 1.0
                error = float(gap.std(ddof=1) / len(gap) ** 0.5) if len(gap) > 1 else float("nan")
                result.append(Pair(peer, table, mark, float(gap.mean()), error, p))
    return result


def holm(compared: Sequence[Pair]) -> list[bool]:
    """Returns which comparisons remain at the level of 5% after Holm's correction."""
    kept = [False] * len(compared)
    order = sorted(range(len(compared)), key=lambda i: compared[i].p)
    for place, i in enumerate(order):
        if compared[i].p > _LEVEL / (len(order) - place):
            break
        kept[i] = True
    return kept
