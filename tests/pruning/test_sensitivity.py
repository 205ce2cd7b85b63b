"""Quality against the sparsity of each kernel, and suggestions for a total."""

import dataclasses
import doctest
import itertools
import json
import re

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.pruning import sensitivity as module
from tfnas.pruning.prunable_kernels import find_kernels
from tfnas.pruning.sensitivity import Sensitivity, spread

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(64, 16)).astype(np.float32)
Y = DRAW.normal(size=(64, 4)).astype(np.float32)
SPARSITIES = (0.25, 0.5, 0.75)


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(8, "tanh", name="a"),
            layers.Dense(8, "tanh", name="b"),
            layers.Dense(4, name="c"),
        ]
    )


def quality(model):
    """The negative mean squared error, by NumPy."""
    weights = [np.asarray(w, np.float64) for w in model.get_weights()]
    value = X
    for index in range(0, 6, 2):
        value = value @ weights[index] + weights[index + 1]
        value = np.tanh(value) if index < 4 else value
    return -np.square(value - Y).mean()


@pytest.fixture(scope="module")
def measured():
    """The record, the model, its weights before, and the weights of each evaluated model."""
    model, tried = network(), []
    before = model.get_weights()

    def evaluate(pruned):
        tried.append((pruned is model, pruned.get_weights()))
        return quality(pruned)

    return tfnas.sensitivity(model, evaluate, SPARSITIES), model, before, tried


def test_scores_are_those_of_one_kernel_pruned_by_hand(measured):
    found, _, before, _ = measured
    assert found.names == ("a", "b", "c")
    assert found.weights == (128, 64, 32)
    assert found.sparsities == SPARSITIES
    assert found.baseline == pytest.approx(quality(network()))
    for index, row in enumerate(found.scores):
        for sparsity, score in zip(SPARSITIES, row, strict=True):
            model = network()
            weights = [w.copy() for w in before]
            kernel = weights[2 * index]
            order = np.argsort(np.abs(kernel), axis=None)
            kernel.flat[order[: round(sparsity * kernel.size)]] = 0
            model.set_weights(weights)
            assert score == pytest.approx(quality(model))


def test_the_model_is_not_changed_and_one_kernel_at_a_time_is_pruned(measured):
    _, model, before, tried = measured
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(k.variable.constraint is None for k in find_kernels(model)[0])
    assert len(tried) == 1 + 3 * 3
    assert not any(is_model for is_model, _ in tried)
    changed = [
        [i for i, (w, o) in enumerate(zip(weights, before, strict=True)) if (w != o).any()]
        for _, weights in tried
    ]
    assert changed == [[]] + [[0]] * 3 + [[2]] * 3 + [[4]] * 3


def test_scores_agree_with_prune(measured):
    found, model, _, _ = measured
    for name, row in zip(found.names, found.scores, strict=True):
        pruned, _ = tfnas.prune(model, 0.5, layers=name)
        assert quality(pruned) == pytest.approx(row[1])


@pytest.mark.parametrize(
    ("granularity", "criterion"),
    slow_but(
        [
            (granularity, criterion)
            for granularity in ("element", "2:4", "filter")
            for criterion in ("gradient", "taylor", "random")
        ],
        *(("element", "taylor"), ("2:4", "random"), ("filter", "gradient")),
    ),
)
def test_criteria_and_granularities_are_those_of_prune(criterion, granularity):
    model = network()
    more = {"criterion": criterion, "granularity": granularity, "data": (X, Y), "loss": "mse"}
    found = tfnas.sensitivity(model, quality, [0.5], exclude="first", **more)
    assert found.names == ("b", "c")
    for name, (score,) in zip(found.names, found.scores, strict=True):
        pruned, _ = tfnas.prune(model, 0.5, layers=name, **more)
        assert quality(pruned) == pytest.approx(score)


def test_sparsities_are_measured_in_ascending_order():
    found = tfnas.sensitivity(network(), quality, [0.75, 0.25], layers=["a"])
    assert found.sparsities == (0.25, 0.75)
    assert found.scores == tfnas.sensitivity(network(), quality, (0.25, 0.75), layers="a").scores


def test_equal_sparsities_are_measured_once_or_raise():
    falling = itertools.count(0, -1)
    try:
        found = tfnas.sensitivity(network(), lambda model: next(falling), [0.5, 0.5])
    except ValueError as error:
        assert "sparsities must" in str(error)  # noqa: PT017
    else:
        assert np.dot(list(found.suggest(0.25).values()), found.weights) == pytest.approx(56)


class Unnamed(keras.Model):
    """Keras numbers the layers, so those of a copy have other names."""

    def __init__(self, **more):
        super().__init__(**more)
        self.a, self.b, self.c = layers.Dense(8, "tanh"), layers.Dense(8, "tanh"), layers.Dense(4)

    def call(self, x):
        return self.c(self.b(self.a(x)))


def test_subclassed_models_are_measured():
    keras.utils.set_random_seed(0)
    model = Unnamed()
    model(X[:1])
    found = tfnas.sensitivity(model, quality, [0.5])
    assert found.baseline == pytest.approx(quality(model))
    assert found.weights == (128, 64, 32)


def test_an_evaluation_that_fails_leaves_the_model():
    model = network()
    before = model.get_weights()
    calls = itertools.count()

    def evaluate(pruned):
        if next(calls) == 4:
            raise RuntimeError("out of memory")
        return 0.5

    with pytest.raises(RuntimeError, match="out of memory"):
        tfnas.sensitivity(model, evaluate, SPARSITIES)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


# The record


RECORD = Sensitivity(
    baseline=0.9,
    sparsities=(0.5, 0.8),
    names=("stem", "body", "head"),
    weights=(100, 1000, 50),
    scores=((0.8, 0.5), (0.89, 0.85), (0.92, 0.6)),
)


def test_losses_are_at_least_0_and_do_not_decrease():
    np.testing.assert_allclose(RECORD.losses(), [[0.1, 0.4], [0.01, 0.05], [0.0, 0.3]])
    odd = dataclasses.replace(RECORD, scores=((0.5, 0.8), (0.95, 0.95), (0.9, 0.9)))
    np.testing.assert_allclose(odd.losses(), [[0.4, 0.4], [0, 0], [0, 0]])


def test_the_record_prints_as_a_table_with_the_most_sensitive_first():
    assert RECORD.headers() == ["layer", "weights", "0.5", "0.8"]
    assert RECORD.rows() == [
        ["stem", "100", "0.8000", "0.5000"],
        ["head", "50", "0.9200", "0.6000"],
        ["body", "1,000", "0.8900", "0.8500"],
    ]
    text = str(RECORD)
    assert text.index("stem") < text.index("head") < text.index("body")
    assert "unpruned: 0.9000" in text


def test_the_record_is_restored_from_json(measured):
    for record in (RECORD, measured[0]):
        again = Sensitivity.from_json(record.to_json())
        assert again == record
        assert str(again) == str(record)
        assert hash(again) == hash(record)


def changed(**fields):
    known = json.loads(RECORD.to_json())
    return json.dumps({k: v for k, v in {**known, **fields}.items() if v is not None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(layer=1), "layer"),
        (changed(scores=None), "scores"),
        (changed(baseline=None), "baseline"),
        ("[]", "sensitivity"),
        ("{", "sensitivity"),
        (changed(scores=3), "scores"),
    ],
)
def test_other_json_raises_and_names_the_key(text, message):
    with pytest.raises(ValueError, match=message):
        Sensitivity.from_json(text)


# Suggestions for a total


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 1000), st.lists(st.floats(0, 1), min_size=3, max_size=3)),
        min_size=1,
        max_size=6,
    ),
    st.floats(0, 1),
)
def test_suggestions_have_the_exact_total_and_stay_in_the_range(kernels, fraction):
    weights = tuple(size for size, _ in kernels)
    scores = tuple(tuple(row) for _, row in kernels)
    names = tuple(f"k{i}" for i in range(len(kernels)))
    record = Sensitivity(0.9, SPARSITIES, names, weights, scores)
    total = fraction * SPARSITIES[-1]
    sparsities = record.suggest(total)
    assert tuple(sparsities) == names
    assert all(0 <= sparsity <= SPARSITIES[-1] + 1e-9 for sparsity in sparsities.values())
    zeros = sum(
        sparsity * size for sparsity, size in zip(sparsities.values(), weights, strict=True)
    )
    assert zeros == pytest.approx(total * sum(weights), rel=1e-9, abs=1e-9)


def interpolated(sparsities, row, sparsity):
    return np.interp(sparsity, [0.0, *sparsities], [0.0, *row])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(0.001, 1), min_size=3, max_size=3).map(sorted), min_size=2, max_size=3
    ),
    st.integers(1, 8),
)
def test_suggestions_have_the_least_loss_on_convex_curves(slopes, quarters):
    """Compared with brute force over a grid; curves with increasing slopes are convex."""
    sparsities = (0.25, 0.5, 0.75)
    losses = np.cumsum(0.25 * np.array(slopes), axis=1)
    sizes = [4, 8, 12][: len(slopes)]
    grid = np.arange(0, 13) / 16
    total = quarters * 0.75 * 4 / 4 / sum(sizes)
    found = spread(sizes, sparsities, losses, total)
    cost = sum(interpolated(sparsities, r, x) for r, x in zip(losses, found, strict=True))
    cheapest = min(
        sum(interpolated(sparsities, row, x) for row, x in zip(losses, choice, strict=True))
        for choice in itertools.product(grid, repeat=len(slopes))
        if np.dot(choice, sizes) >= total * sum(sizes) - 1e-9
    )
    assert cost <= cheapest + 1e-9


def test_curves_are_replaced_by_their_convex_hull():
    # Half of "a" costs as much as all of it, so there is no reason to stop there.
    record = Sensitivity(1.0, (0.4, 0.8), ("a", "b"), (100, 100), ((0.8, 0.8), (0.85, 0.7)))
    assert record.suggest(0.4) == pytest.approx({"a": 0.8, "b": 0.0})
    assert record.suggest(0.8) == pytest.approx({"a": 0.8, "b": 0.8})
    assert record.suggest(0.0) == {"a": 0.0, "b": 0.0}


def test_weights_without_loss_are_pruned_first():
    record = Sensitivity(0.9, (0.5,), ("free", "dear"), (10, 10), ((0.95,), (0.1,)))
    assert record.suggest(0.25) == pytest.approx({"free": 0.5, "dear": 0.0})


def test_a_suggestion_can_be_passed_as_scope(measured):
    found, model, _, _ = measured
    for total in (0.3, 0.6, 0.75):
        report = tfnas.prune(model, scope=found.suggest(total))[1]
        assert abs(report.zeros - total * 224) <= 1.5
    model = network()
    model.compile("sgd", "mse", run_eagerly=True)
    pruning = tfnas.PruningCallback(0.5, scope=found.suggest(0.6))
    model.fit(X, Y, verbose=0, callbacks=[pruning])
    assert abs(pruning.report.zeros - 0.6 * 224) <= 1.5


@pytest.mark.parametrize("total", [0.81, 0.99])
def test_a_total_above_the_measured_sparsities_raises(total):
    message = f"total must be at most the highest sparsity measured, 0.8, got {total}"
    with pytest.raises(ValueError, match=message):
        RECORD.suggest(total)


@pytest.mark.parametrize("total", [1.0, -0.1, float("nan"), "all"])
def test_a_total_outside_0_to_1_raises(total):
    with pytest.raises(ValueError, match="total must be"):
        RECORD.suggest(total)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsities": []}, "sparsities must be in (0, 1), got []"),
        ({"sparsities": [0.0, 0.5]}, "sparsities must be in (0, 1), got [0.0, 0.5]"),
        ({"sparsities": [0.5, 1.0]}, "sparsities must be in [0, 1), got 1.0"),
        ({"sparsities": [float("nan")]}, "sparsities must be in [0, 1), got nan"),
        ({"criterion": "size"}, "criterion must be one of magnitude"),
        ({"criterion": "taylor"}, "data must be given for criterion 'taylor', got None"),
        ({"criterion": "taylor", "data": (X, Y)}, "loss must be set if the model is not"),
        ({"layers": "z"}, "layers must name layers with a kernel, got 'z'"),
        ({"granularity": "2:4", "sparsities": [0.6]}, "sparsity must be at most 0.5 with granular"),
        ({"granularity": "2:3"}, "granularity '2:3' must divide"),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tfnas.sensitivity(network(), quality, **{"sparsities": [0.5], **arguments})


@pytest.mark.parametrize("value", [None, "good", float("nan"), [1, 2]])
def test_an_evaluation_returns_a_number(value):
    with pytest.raises(ValueError, match="evaluate must return a number, got"):
        tfnas.sensitivity(network(), lambda model: value, [0.5])


def test_the_example_is_true():
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0
