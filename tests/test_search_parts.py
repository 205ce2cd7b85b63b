"""What oracles are made of: goals, selection, surrogate, policies, spaces of hyperparameters."""

import keras_tuner as kt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from tfnas.measurement import pareto_front
from tfnas.spaces.hyperparameters import GRID, HyperParameterSpace
from tfnas.tuners.goals import Goals, ParetoObjective, objective_of
from tfnas.tuners.policy import BuildingPolicy, ModifyingPolicy, ascend
from tfnas.tuners.selection import best_first, crowding, pareto_ranks, tournament
from tfnas.tuners.surrogate import Surrogate, expected_improvement


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


def test_a_value_set_by_hand_is_taken_for_the_nearest():
    hp = kt.HyperParameters()
    hp.Float("rate", 0.0, 1.0, step=0.25)
    space = HyperParameterSpace(hp.space)
    assert dict(space.from_values({"rate": 0.3}).items) == {"rate": 0.25}


# ---- goals


def test_objectives_keep_their_directions():
    found = objective_of(["file_accuracy", "latency_ratio", kt.Objective("x", "max")])
    assert isinstance(found, ParetoObjective)
    assert found.name_to_direction == {"file_accuracy": "max", "latency_ratio": "min", "x": "max"}
    goals = Goals.of(found, {"latency_ratio": 0.5, "file_accuracy": 0.8})
    metrics = {"file_accuracy": 0.7, "latency_ratio": 0.75, "x": 2.0}
    assert goals.losses(metrics) == (-0.7, 0.75, -2.0)
    assert goals.violation(metrics) == pytest.approx(0.1 / 0.8 + 0.25 / 0.5)
    assert goals.broken(metrics) == [
        "latency_ratio 0.75 breaks latency_ratio <= 0.5",
        "file_accuracy 0.7 breaks file_accuracy >= 0.8",
    ]
    assert goals.violation({"latency_ratio": 0.4}) == 0


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


def test_what_keeps_the_limits_comes_first():
    assert best_first([0.2, 0, 0.1, 0], [[0], [5], [0], [4]]).tolist() == [3, 1, 2, 0]


def test_crowding_by_hand():
    # Neighbours (0, 4) and (3, 0): 3 / 3 of the first objective and 4 / 4 of the second.
    assert crowding([[0, 4], [1, 2], [3, 0]]).tolist() == [np.inf, 2.0, np.inf]


def test_copies_of_a_row_come_after_the_others_of_its_front():
    order = best_first([0] * 5, [[0, 4], [0, 4], [1, 2], [3, 0], [3, 0]])
    assert set(order[:3].tolist()) == {0, 2, 3}


def test_a_tournament_of_all_draws_the_best():
    rng = np.random.default_rng(0)
    assert {tournament(np.array([2, 0, 1]), 3, rng) for _ in range(9)} == {2}
    assert {tournament(np.array([2, 0, 1]), 1, rng) for _ in range(50)} == {0, 1, 2}


# ---- surrogate


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(0)
    x = np.eye(3)[rng.integers(3, size=(40, 6))].reshape(40, -1)
    return x, x @ rng.normal(size=18) + 0.5 * rng.normal(size=40)


def reference(x, y, surrogate):
    (length, noise), amplitude = surrogate.settings, surrogate._amplitude
    kernel = ConstantKernel(amplitude) * RBF(length) + WhiteKernel(amplitude * noise)
    return GaussianProcessRegressor(kernel, optimizer=None, alpha=0).fit(x, y)


def test_surrogate_equals_scikit_learn(measured):
    x, y = measured
    surrogate = Surrogate(x, y)
    told = reference(x, (y - y.mean()) / y.std(), surrogate)
    asked = np.eye(3)[np.random.default_rng(1).integers(3, size=(9, 6))].reshape(9, -1)
    mean, deviation = told.predict(asked, return_std=True)
    noise = surrogate._amplitude * surrogate.settings[1]
    ours = surrogate.predict(asked)
    assert ours[0] == pytest.approx(mean * y.std() + y.mean(), abs=1e-9)
    assert ours[1] == pytest.approx(np.sqrt(deviation**2 - noise) * y.std(), abs=1e-9)


def test_settings_have_the_largest_marginal_likelihood(measured):
    from tfnas.tuners.surrogate import LENGTHS, NOISES

    x, y = measured
    z = (y - y.mean()) / y.std()
    found = {}
    for length in LENGTHS:
        for noise in NOISES:
            one = Surrogate(x, y, (length, noise))
            found[length, noise] = reference(x, z, one).log_marginal_likelihood_value_
    assert max(found, key=found.__getitem__) == Surrogate(x, y).settings


def test_left_out_is_a_fit_without_it(measured):
    x, y = measured
    surrogate = Surrogate(x, y)
    z = (y - y.mean()) / y.std()
    keep = np.arange(40) != 3
    alone = reference(x[keep], z[keep], surrogate).predict(x[3:4])[0]
    assert surrogate.left_out()[3] == pytest.approx(alone * y.std() + y.mean(), abs=1e-9)
    assert 0.5 < surrogate.rank_correlation() <= 1.0


def test_equal_measurements_are_no_error():
    surrogate = Surrogate(np.eye(4), np.ones(4))
    assert surrogate.predict(np.eye(4))[0] == pytest.approx(np.ones(4))
    assert surrogate.rank_correlation() == 0.0


def test_expected_improvement_is_the_mean_of_what_is_above():
    drawn = np.random.default_rng(0).normal(1.0, 2.0, 400_000)
    found = expected_improvement(np.array([1.0]), np.array([2.0]), 1.5)[0]
    assert found == pytest.approx(np.maximum(drawn - 1.5, 0).mean(), rel=0.01)


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
        twin, same, theirs = policies()[which]
        twin.climb(same, advantages, 1.0, 0.0)
        moved = (theirs if which == 0 else [twin.weights])[number].reshape(-1) - flat
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
    odds = np.exp(policy.log_probabilities(every))
    assert odds.sum() == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    drawn = [policy.sample(rng) for _ in range(4000)]
    assert [drawn.count(v) / 4000 for v in every] == pytest.approx(odds, abs=0.03)


def test_entropy_bonus_flattens():
    policy, values, _ = policies()[0]
    before = np.abs(policy.weights[0]).max()
    for _ in range(200):
        policy.climb(values, np.zeros(len(values)), 0.5, 1.0)
    assert np.abs(policy.weights[0] - policy.weights[0].mean(0)).max() < before


def test_reinforce_learns_what_pays():
    policy, _, _ = policies()[0]
    rng = np.random.default_rng(0)
    for _ in range(60):
        drawn = [policy.sample(rng) for _ in range(16)]
        reward = np.array([float(v["layers"] == 3) for v in drawn])
        ascend(policy, drawn, reward - reward.mean(), rate=1.0, entropy=0.0)
    assert np.mean([policy.sample(rng)["layers"] == 3 for _ in range(100)]) > 0.9


def test_ppo_stops_where_the_ratio_is_clipped():
    policy, values, _ = policies()[0]
    before = np.exp(policy.log_probabilities(values[:1]))[0]
    ascend(policy, values[:1], np.ones(1), rate=0.05, entropy=0.0, epochs=500, clip=0.2)
    ratio = np.exp(policy.log_probabilities(values[:1]))[0] / before
    assert 1.2 < ratio < 1.4


def test_a_modifying_policy_changes_what_is_there():
    policy, changes, _ = policies()[1]
    for values, action in changes:
        decision, choice = policy.actions[action]
        assert decision.name in values
        assert values[decision.name] != choice


def test_limits_that_nothing_can_keep_are_refused():
    for bound in (-1, 0):
        with pytest.raises(ValueError, match=r"limits\['ram_bytes'\] must be above 0"):
            Goals.of(objective_of("reward"), {"ram_bytes": bound})
    kept = Goals.of(objective_of("reward"), {"vela_cpu_operators": 0, "reward": -1})
    assert [limit.bound for limit in kept.limits] == [0, -1]
    with pytest.raises(ValueError, match="limits must be a dictionary of metrics and bounds"):
        Goals.of(objective_of("reward"), [1])
    with pytest.raises(ValueError, match="objective must be a metric that tfnas"):
        objective_of(["reward", "lambency"])
