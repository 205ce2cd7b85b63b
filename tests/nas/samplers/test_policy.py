"""Policies: their gradients, entropy and clipping."""

import keras_tuner as kt
import numpy as np
import pytest
from scipy.optimize import approx_fprime

from tfnas.nas.samplers.policy import BuildingPolicy, ModifyingPolicy, update_policy
from tfnas.search_space.hyperparameters import HyperParameterSpace


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


# ---- policies


def policies():
    space = HyperParameterSpace(hyperparameters().space)
    rng = np.random.default_rng(0)
    building, modifying = BuildingPolicy(space.decisions), ModifyingPolicy(space.decisions)
    for weights in building.weights:
        weights += 0.3 * rng.normal(size=weights.shape)
    modifying.weights += 0.3 * rng.normal(size=modifying.weights.shape)
    values = [space.values(space.sample(rng)) for _ in range(6)]
    changes = [(v, modifying.sample(v, rng)) for v in values]
    return (building, values, building.weights), (modifying, changes, [modifying.weights])


@pytest.mark.parametrize("which", [0, 1], ids=["building", "modifying"])
def test_a_step_goes_along_the_gradient(which):
    policy, steps, weights = policies()[which]
    advantages = np.random.default_rng(1).normal(size=len(steps))
    for number, array in enumerate(weights):
        flat = array.reshape(-1).copy()

        def value(x, array=array):
            array[...] = x.reshape(array.shape)
            return float(advantages @ policy.log_probabilities(steps)) / len(steps)

        slope = approx_fprime(flat, value, 1e-6)
        array[...] = flat.reshape(array.shape)
        other, same, theirs = policies()[which]
        other.gradient_step(same, advantages, 1.0, 0.0)
        moved = (theirs if which == 0 else [other.weights])[number].reshape(-1) - flat
        assert moved == pytest.approx(slope, abs=1e-4)


def test_probabilities_of_a_building_policy_add_up_to_one():
    hp = kt.HyperParameters()
    hp.Choice("a", [1, 2])
    with hp.conditional_scope("a", [2]):
        hp.Choice("b", [1, 2, 3])
    space = HyperParameterSpace(hp.space)
    policy = BuildingPolicy(space.decisions)
    for weights in policy.weights:
        weights += np.random.default_rng(0).normal(size=weights.shape)
    every = [{"a": 1}, *({"a": 2, "b": b} for b in (1, 2, 3))]
    probabilities = np.exp(policy.log_probabilities(every))
    assert probabilities.sum() == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    drawn = [policy.sample(rng) for _ in range(4000)]
    assert [drawn.count(v) / 4000 for v in every] == pytest.approx(probabilities, abs=0.03)


def test_entropy_bonus_flattens():
    policy, values, _ = policies()[0]
    before = np.abs(policy.weights[0]).max()
    for _ in range(200):
        policy.gradient_step(values, np.zeros(len(values)), 0.5, 1.0)
    assert np.abs(policy.weights[0] - policy.weights[0].mean(0)).max() < before


def test_reinforce_learns_good_decisions():
    policy, _, _ = policies()[0]
    rng = np.random.default_rng(0)
    for _ in range(60):
        drawn = [policy.sample(rng) for _ in range(16)]
        reward = np.array([float(v["layers"] == 3) for v in drawn])
        update_policy(policy, drawn, reward - reward.mean(), rate=1.0, entropy=0.0)
    assert np.mean([policy.sample(rng)["layers"] == 3 for _ in range(100)]) > 0.9


def test_ppo_stops_where_the_ratio_is_clipped():
    policy, values, _ = policies()[0]
    before = np.exp(policy.log_probabilities(values[:1]))[0]
    update_policy(policy, values[:1], np.ones(1), rate=0.02, entropy=0.0, epochs=1250, clip=0.2)
    ratio = np.exp(policy.log_probabilities(values[:1]))[0] / before
    assert 1.2 < ratio < 1.4


def test_a_modifying_policy_changes_active_decisions():
    policy, changes, _ = policies()[1]
    for values, action in changes:
        decision, option = policy.actions[action]
        assert decision.name in values
        assert decision.may_choose(option, values[decision.name])
        assert decision.name == "rate" or decision.choices[option] != values[decision.name]


@pytest.mark.parametrize("form", [BuildingPolicy, ModifyingPolicy])
def test_a_policy_learns_where_in_a_range_good_values_are(form):
    hp = kt.HyperParameters()
    hp.Float("rate", 1e-4, 1e-1, sampling="log")
    policy, rng = form(HyperParameterSpace(hp.space).decisions), np.random.default_rng(0)
    start = {"rate": 1e-2}

    def draw():
        if form is BuildingPolicy:
            step = policy.sample(rng)
            return step, step["rate"]
        action = policy.sample(start, rng)
        decision, option = policy.actions[action]
        return (start, action), decision.of_option(option, rng)

    for _ in range(60):
        steps, rates = zip(*(draw() for _ in range(16)), strict=True)
        reward = -np.abs(np.log10(rates) + 3)  # best at 0.001
        update_policy(policy, steps, reward - reward.mean(), rate=1.0, entropy=0.0)
    rates = [draw()[1] for _ in range(100)]
    assert np.median(np.abs(np.log10(rates) + 3)) < 0.3
    assert len(set(rates)) == 100
