"""NAS-Bench-Macro as a table: 6,561 trained networks of eight blocks.

References:
    Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021.
"""

from __future__ import annotations

import json
import pathlib

import numpy as np

from search_tables.table import CATEGORICAL, Decisions, SearchTable

LAYERS, KINDS = 8, 3


def macro_table(path: pathlib.Path) -> SearchTable:
    """Returns the table; a measurement is one of a network's three trainings.

    Args:
        path: The benchmark's file.
    """
    networks = json.loads(path.read_text(encoding="utf-8"))
    size = KINDS**LAYERS
    means, costs, trained = np.zeros(size), np.zeros(size), np.zeros((size, 3))
    powers = KINDS ** np.arange(LAYERS)
    for key, network in networks.items():
        i = int(np.array([int(digit) for digit in key]) @ powers)
        means[i], trained[i] = network["mean_acc"], network["test_acc"]
        costs[i] = network["flops"] / 1e6

    def places(x: np.ndarray) -> np.ndarray:
        return x.astype(int) @ powers

    return SearchTable(
        Decisions((CATEGORICAL,) * LAYERS, (KINDS,) * LAYERS),
        lambda x: means[places(x)],
        np.random.default_rng(0),
        cost=lambda x: costs[places(x)],
        measured=lambda row, rng: trained[places(row[None])[0], rng.integers(3)],
    )
