"""keras_tuner's hyperparameters as decisions of a space."""

import keras_tuner as kt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.search_space.hyperparameters import GRID, HyperParameterSpace


def hyperparameters():
    hp = kt.HyperParameters()
    hp.Int("layers", 1, 3)
    hp.Float("rate", 1e-4, 1e-1, sampling="log")
    hp.Boolean("bias")
    hp.Fixed("fixed", 3)
    with hp.conditional_scope("layers", [2, 3]):
        hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", ["a"]):
            hp.Float("drop", 0.0, 0.5, step=0.25)
    return hp


# ---- spaces of hyperparameters


def test_hyperparameters_become_decisions():
    space = HyperParameterSpace(hyperparameters().space)
    found = {d.name: d.choices for d in space.decisions}
    assert found["layers"] == (1, 2, 3)
    assert found["kind"] == ("a", "b")
    assert found["fixed"] == (3,)
    assert len(found["rate"]) == GRID
    steps = np.diff(np.log(found["rate"]))
    assert steps == pytest.approx(np.full(GRID - 1, np.log(1000) / (GRID - 1)), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_points_move_within_the_space(seed):
    rng = np.random.default_rng(seed)
    space = HyperParameterSpace(hyperparameters().space)
    a, b = space.sample(rng), space.sample(rng)
    for point in (a, b, space.mutate(a, rng), space.crossover(a, b, rng)):
        values = space.values(point)
        assert space.from_values(values) == point
        assert ("kind" in values) == (values["layers"] > 1)
        assert ("drop" in values) == (values.get("kind") == "a")
        assert space.encode(point).sum() == len(values)
    assert space.mutate(a, rng) != a


def test_a_value_set_by_the_user_becomes_the_nearest_choice():
    hp = kt.HyperParameters()
    hp.Float("rate", 0.0, 1.0, step=0.25)
    space = HyperParameterSpace(hp.space)
    assert dict(space.from_values({"rate": 0.3}).items) == {"rate": 0.25}
