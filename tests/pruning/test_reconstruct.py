"""Reconstruction of pruned layers, and the distribution of zeros over layers."""

import keras
import numpy as np
import pytest
from keras import layers

from tfnas.graph.traversal import Visit, visit
from tfnas.pruning.allocation import Curve, distribute, measure_curves
from tfnas.pruning.input_moments import measure, patches, quadratic, to_rows
from tfnas.pruning.optimal_brain_surgeon import cheapest, refit
from tfnas.pruning.prunable_kernels import find_kernels
from tfnas.pruning.reconstruct import layer_problem, reconstruct


def network():
    keras.utils.set_random_seed(0)
    start = keras.Input((9, 9, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(start)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.Add()([x, layers.Conv2D(8, 1, name="project")(y)])
    inner = keras.Sequential(
        [keras.Input((5, 5, 8)), layers.Conv2D(8, 3, dilation_rate=2, name="wide")], name="inner"
    )
    return keras.Model(start, layers.Dense(4, name="head")(layers.Flatten()(inner(x))))


def images(count=150):
    return np.random.default_rng(0).normal(size=(count, 9, 9, 3)).astype("float32")


def copied(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy, find_kernels(copy)[0]


def change(model, original, x):
    expected = np.asarray(original(x))
    return float(((np.asarray(model(x)) - expected) ** 2).mean() / expected.var())


def magnitude(kernels):
    return {k.name: cheapest(np.abs(k.numpy()), k.size // 2) for k in kernels}


def test_without_zeros_the_model_equals_the_original():
    original, x = network(), images()
    model, kernels = copied(original)
    results = reconstruct(model, original, kernels, x, zeros={k.name: 0 for k in kernels})
    assert set(results) == {"stem", "depthwise", "project", "inner/wide", "head"}
    assert all(error < 1e-6 for errors in results.values() for error in errors)
    assert change(model, original, x) < 1e-9


def test_fitting_lowers_the_error_and_keeps_the_zeros():
    original, x = network(), images()
    model, kernels = copied(original)
    keep = magnitude(kernels)
    for kernel in kernels:
        kernel.variable.assign(kernel.numpy() * keep[kernel.name])
    before = change(model, original, x)
    results = reconstruct(model, original, kernels, x, keep=keep)
    assert all(after <= start for start, after in results.values())
    assert change(model, original, x) < 0.8 * before
    for kernel in kernels:
        assert (kernel.numpy()[~keep[kernel.name]] == 0).all()


def test_selected_zeros_are_exact_in_number_and_better_than_by_magnitude():
    original, x = network(), images()
    fixed, kernels = copied(original)
    reconstruct(fixed, original, kernels, x, keep=magnitude(kernels))
    model, kernels = copied(original)
    zeros = {k.name: k.size // 2 for k in kernels}
    reconstruct(model, original, kernels, x, zeros=zeros)
    assert {k.name: int((k.numpy() == 0).sum()) for k in kernels} == zeros
    assert change(model, original, x) < change(fixed, original, x)


def test_kernels_that_can_not_be_fitted_have_the_reason():
    start = keras.Input((6, 4))
    x = layers.Conv1D(4, 3, padding="causal", name="causal")(start)
    x = layers.Conv1D(4, 3, groups=2, name="grouped")(x)
    original = keras.Model(start, layers.LSTM(3, name="lstm")(x))
    model, kernels = copied(original)
    before = model.get_weights()
    x = np.ones((8, 6, 4), "float32")
    results = reconstruct(model, original, kernels, x, zeros={k.name: 2 for k in kernels})
    assert results["causal"] == "its padding is 'causal'"
    assert results["grouped"] == "convolutions of 2 groups can't be fitted yet"
    assert "LSTM" in next(reason for name, reason in results.items() if "lstm" in name)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_errors_name_the_kernels():
    original = network()
    model, kernels = copied(original)
    with pytest.raises(ValueError, match="zeros must name kernels, got nothing"):
        reconstruct(model, original, kernels, images(2), zeros={"nothing": 1})
    keep = {"head": np.ones(kernels[-1].shape, bool)}
    with pytest.raises(ValueError, match="must be in zeros or in keep, got head in both"):
        reconstruct(model, original, kernels, images(2), zeros={"head": 1}, keep=keep)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, (3, 2), strides=2, padding="same"),
        layers.Conv2D(4, 3, dilation_rate=2, padding="valid"),
        layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2),
        layers.Conv1D(4, 3, strides=2, padding="same"),
        layers.Dense(4),
    ],
)
def test_patches_times_rows_are_the_layers_output(layer):
    one_dimension = isinstance(layer, layers.Conv1D)
    x = np.random.default_rng(0).normal(size=(2, 8, 3) if one_dimension else (2, 8, 7, 3))
    expected = np.asarray(layer(x.astype("float32")))  # biases are 0
    rows = to_rows(layer, layer.kernel)
    taken = patches(layer, x, 10_000)
    if len(taken) == 1:
        product = taken[0] @ rows.T
    else:
        multiplier = len(rows) // len(taken)
        product = np.stack([taken[row // multiplier] @ rows[row] for row in range(len(rows))], -1)
    np.testing.assert_allclose(product.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_moments_are_those_of_the_patches():
    kernel = find_kernels(keras.Sequential([keras.Input((5,)), layers.Dense(2)]))[0][0]
    rng = np.random.default_rng(0)
    a, b = 3 + rng.normal(size=(40, 5)), rng.normal(size=(40, 5))
    halves = [a[:25], a[25:]], [b[:25], b[25:]]
    moments = measure(kernel, *halves, 1000, central=True)
    np.testing.assert_allclose(moments.hessian, np.cov(a.T, bias=True), rtol=1e-4)
    joint = (a - a.mean(axis=0)).T @ (b - b.mean(axis=0)) / 40
    np.testing.assert_allclose(moments.mixed, joint, rtol=1e-3, atol=1e-5)
    raw = measure(kernel, *halves, 1000, central=False)
    np.testing.assert_allclose(raw.mixed, a.T @ b / 40, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [layers.Dense, layers.DepthwiseConv2D])
@pytest.mark.parametrize("central", [True, False])
def test_moments_of_two_parts_together_are_those_of_all(kind, central):
    shape = (5,) if kind is layers.Dense else (6, 6, 3)
    kernel = find_kernels(keras.Sequential([keras.Input(shape), kind(3)]))[0][0]
    rng = np.random.default_rng(0)
    a, b = (1 + rng.normal(size=(40, *shape)) for _ in range(2))
    parts = [measure(kernel, [a[s]], [b[s]], 9000, central) for s in (slice(9), slice(9, 40))]
    together, expected = parts[0].together(parts[1]), measure(kernel, [a], [b], 9000, central)
    for name in ("hessian", "mixed", "target", "mean", "original_mean"):
        found, wanted = getattr(together, name), getattr(expected, name)
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert (together.central, together.count) == (central, expected.count)


def test_curves_rise_and_the_model_is_not_changed():
    model, x = network(), images()
    before = model.get_weights()
    kernels, _ = find_kernels(model)
    curves = measure_curves(model, kernels, x)
    assert [curve.name for curve in curves] == [kernel.name for kernel in kernels]
    assert all(curve.slope > 0 for curve in curves)
    assert all(curve.errors[-1] > curve.errors[0] for curve in curves)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    sparsities = distribute(curves, 0.5)
    sizes = {kernel.name: kernel.size for kernel in kernels}
    zeros = sum(sparsities[name] * size for name, size in sizes.items())
    assert zeros == pytest.approx(0.5 * sum(sizes.values()))


def test_a_sparsity_that_is_too_high_raises():
    curve = Curve("a", 10, (0.5, 0.9), (0.1, 0.5), 1.0)
    with pytest.raises(ValueError, match="sparsity must leave 5% of the 10 prunable weights"):
        distribute([curve], 0.5, total=100)


def test_a_layer_corrects_the_error_of_its_shortcut():
    keras.utils.set_random_seed(0)
    start = keras.Input((12,))
    x = layers.Dense(16, name="stem")(start)
    y = layers.Dense(16, name="branch")(layers.ReLU()(x))
    original = keras.Model(start, layers.Add()([x, y]))
    data = np.random.default_rng(0).normal(size=(600, 12)).astype("float32")
    model, kernels = copied(original)
    stem = kernels[0]
    keep = np.abs(stem.numpy()) > np.median(np.abs(stem.numpy()))
    stem.variable.assign(stem.numpy() * keep)
    alone = change(model, original, data)
    results = reconstruct(model, original, kernels, data, zeros={"branch": 0}, shrinkage=0.0)
    assert results["branch"][1] < results["branch"][0]
    assert change(model, original, data) < 0.8 * alone
    # The branch is the least-squares fit of the original output minus the present shortcut.
    inner = np.maximum(data @ stem.numpy() + np.asarray(stem.layer.bias), 0)
    expected = np.asarray(original(data)) - (data @ stem.numpy() + np.asarray(stem.layer.bias))
    design = np.column_stack([inner, np.ones(len(inner))])
    best = design @ np.linalg.lstsq(design, expected, rcond=None)[0]
    least = float(((best - expected) ** 2).mean() / np.asarray(original(data)).var())
    assert least <= change(model, original, data) < 1.02 * least


WIDTH, UNITS = 24, 5


def dense_problem(examples, noise, lost=0):
    """A Dense layer whose inputs are noisy in one model, and of which it lacks some columns."""
    rng = np.random.default_rng(3)
    mix, weights = rng.normal(size=(WIDTH, WIDTH)), rng.normal(size=(WIDTH, UNITS))

    def inputs(count):
        x = rng.normal(size=(count, WIDTH)) @ mix
        y = x + noise * rng.normal(size=x.shape)
        y[:, :lost] = noise * rng.normal(size=(count, lost))
        return y, x

    def visit(layer, batches):
        return Visit(layer, [each.astype("float32") for each in batches], None)

    dense = layers.Dense(UNITS)
    dense.build((None, WIDTH))
    dense.kernel.assign(weights)
    batches = [inputs(examples // 4) for _ in range(4)]
    noisy, clean = (visit(dense, column) for column in zip(*batches, strict=True))
    kernel = find_kernels(keras.Sequential([keras.Input((WIDTH,)), dense]))[0][0]
    problem = layer_problem(kernel, noisy, clean, 10_000, 0.05, halves=True)
    seen, expected = inputs(20_000)

    def error(solved):
        found = (seen - seen.mean(0)) @ solved.T
        wanted = (expected - expected.mean(0)) @ weights
        return float(((found - wanted) ** 2).mean() / wanted.var())

    return problem, error


@pytest.mark.parametrize(
    ("case", "is_free"),
    [
        ({"examples": 40, "noise": 0.3}, False),
        ({"examples": 4_000, "noise": 0.3, "lost": 4}, True),
    ],
    ids=["few examples, small errors", "many examples, large errors"],
)
def test_the_target_is_as_free_as_other_examples_allow(case, is_free):
    problem, error = dense_problem(**case)
    keep, scale = np.ones((UNITS, WIDTH), bool), np.ones(UNITS)
    free = error(refit(problem.weights, keep, *problem.shrunk()))
    original, chosen = error(problem.weights), error(problem.target(keep, scale))
    assert (free < original) is is_free
    assert chosen <= 1.05 * min(free, original)


def test_halves_have_other_examples_also_where_a_layer_is_used_twice():
    dense = layers.Dense(2)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, dense(inputs) + dense(100.0 * inputs))
    batches = [np.full((2, 3), number, np.float32) for number in range(1, 5)]
    (place,) = visit(model, batches, [dense])
    assert (place.uses, place.batches) == (2, 4)
    found = [[float(np.asarray(x).max()) for x in place.half(i).inputs] for i in range(2)]
    assert found == [[1.0, 100.0, 3.0, 300.0], [2.0, 200.0, 4.0, 400.0]]


def test_halves_together_are_the_whole():
    problem, _ = dense_problem(400, 0.3)
    one, other = problem.halves
    assert one.moments.count + other.moments.count == problem.moments.count == 400
    rows = np.array([3, 1])
    some, scale = problem.of_rows(rows), np.ones(UNITS)
    solved = 0.9 * problem.weights
    each = [problem.of_rows(np.array([row])).error(solved[[row]], scale[:1]) for row in rows]
    power = np.array([quadratic(some.weights[[i]], some.moments.target)[0] for i in range(2)])
    total = some.error(solved[rows], scale[:2])
    np.testing.assert_allclose(total, np.dot(each, power) / power.sum(), rtol=1e-6)
