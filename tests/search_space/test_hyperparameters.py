"""keras_tuner's hyperparameters as decisions of a space."""

import dataclasses

import keras_tuner as kt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.search_space.hyperparameters import MAX_CHOICES, HyperParameterSpace
from tfnas.search_space.ranges import NumberRange, RangeDecision


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
    assert found["rate"] == ()
    [rate] = [d for d in space.decisions if isinstance(d, RangeDecision)]
    assert rate.range == NumberRange(1e-4, 1e-1, "log")
    assert space.size == np.inf


def _place_of_rate(space):
    """The number of the feature that holds the position of the rate."""
    names = [d.name for d in space.decisions]
    return sum(len(d.choices) for d in space.decisions[: names.index("rate")]) + 1


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
        encoded = space.encode(point)
        ones = int((encoded[np.arange(len(encoded)) != _place_of_rate(space)] == 1).sum())
        assert ones == len(values)
    assert space.mutate(a, rng) != a


def test_a_value_set_by_the_user_becomes_the_nearest_choice():
    hp = kt.HyperParameters()
    hp.Float("rate", 0.0, 1.0, step=0.25)
    space = HyperParameterSpace(hp.space)
    assert dict(space.from_values({"rate": 0.3}).items) == {"rate": 0.25}


@pytest.mark.parametrize("sampling", ["linear", "log", "reverse_log"])
@pytest.mark.parametrize("declare", [kt.HyperParameters.Float, kt.HyperParameters.Int])
def test_values_of_a_range_are_those_of_keras_tuner(sampling, declare):
    hp = kt.HyperParameters()
    declare(hp, "n", 2, 2000, sampling=sampling)
    [decision] = HyperParameterSpace(hp.space).decisions
    assert isinstance(decision, RangeDecision)
    for position in np.linspace(0.0, 0.999, 50).tolist():
        value = decision.range.value(position)
        assert value == pytest.approx(hp.space[0].prob_to_value(position))
        assert type(value) is type(hp.space[0].prob_to_value(position))
        assert decision.range.value(decision.range.position(value)) == pytest.approx(value)
        assert decision.nearest(value) == value
    assert decision.range.value(0.0) == 2
    assert decision.range.value(1.0) == 2000


def test_many_steps_are_searched_as_numbers_and_few_as_choices():
    hp = kt.HyperParameters()
    hp.Int("few", 1, MAX_CHOICES)
    hp.Int("many", 1, 1000)
    hp.Float("fine", 0.0, 1.0, step=0.001)
    hp.Float("one", 0.5, 0.5)
    few, many, fine, one = HyperParameterSpace(hp.space).decisions
    assert few.choices == tuple(range(1, MAX_CHOICES + 1))
    assert (many.choices, many.count, fine.count, one.choices) == ((), 1000, 1001, (0.5,))
    drawn = [many.draw(np.random.default_rng(seed)) for seed in range(300)]
    assert len(set(drawn)) > 200
    assert {type(value) for value in drawn} == {int}
    assert fine.nearest(0.30004) == pytest.approx(0.3)
    assert many.nearest(7.6) == 8


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_changes_of_a_number_are_near_and_far_and_children_are_between(seed):
    rng = np.random.default_rng(seed)
    decision = RangeDecision("rate", (), range=NumberRange(1e-5, 1e-1, "log"))
    value = decision.draw(rng)
    changed = np.array([decision.changed(value, rng) for _ in range(200)])
    assert decision.range.low <= changed.min() <= changed.max() <= decision.range.high
    assert (changed != value).all()
    moves = np.abs([decision.range.position(c) - decision.range.position(value) for c in changed])
    assert np.quantile(moves, 0.1) < 0.02
    assert moves.max() > 0.2
    other = decision.draw(rng)
    child = decision.mixed(value, other, rng)
    assert min(value, other) <= child <= max(value, other)


def test_a_value_outside_of_a_range_is_refused_and_the_nearest_one_is_taken():
    hp = kt.HyperParameters()
    hp.Float("rate", 1e-4, 1e-1, sampling="log")
    space = HyperParameterSpace(hp.space)
    assert dict(space.from_values({"rate": 5.0}).items) == {"rate": 1e-1}
    assert dict(space.from_values({"rate": "x"}).items) == {"rate": 1e-4}
    point = dataclasses.replace(space.from_values({}), items=(("rate", 0.5),))
    with pytest.raises(ValueError, match=r"rate must be from 0.0001 to 0.1, got 0.5"):
        space.values(point)
