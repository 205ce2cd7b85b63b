"""Ranks, crowding and tournaments of several objectives."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.measure.measurement import pareto_front
from tfnas.nas.samplers.pareto_selection import best_first, crowding, pareto_ranks, tournament

# ---- selection


rows = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=14
)


@settings(max_examples=60, deadline=None)
@given(rows)
def test_ranks_are_the_fronts_peeled_one_by_one(losses):
    ranks = pareto_ranks([0] * len(losses), losses)
    left = list(range(len(losses)))
    rank = 0
    while left:
        front = [left[i] for i in pareto_front([losses[i] for i in left], ["min"] * 3)]
        assert sorted(front) == sorted(np.flatnonzero(ranks == rank).tolist())
        left = [i for i in left if i not in front]
        rank += 1


def test_trials_that_keep_the_limits_come_first():
    assert best_first([0.2, 0, 0.1, 0], [[0], [5], [0], [4]]).tolist() == [3, 1, 2, 0]


def test_crowding_by_hand():
    # Neighbors (0, 4) and (3, 0): 3 / 3 of the first objective and 4 / 4 of the second.
    assert crowding([[0, 4], [1, 2], [3, 0]]).tolist() == [np.inf, 2.0, np.inf]


def test_copies_of_a_row_come_after_the_others_of_its_front():
    order = best_first([0] * 5, [[0, 4], [0, 4], [1, 2], [3, 0], [3, 0]])
    assert set(order[:3].tolist()) == {0, 2, 3}


def test_a_tournament_of_all_draws_the_best():
    rng = np.random.default_rng(0)
    assert {tournament(np.array([2, 0, 1]), 3, rng) for _ in range(9)} == {2}
    assert {tournament(np.array([2, 0, 1]), 1, rng) for _ in range(50)} == {0, 1, 2}
