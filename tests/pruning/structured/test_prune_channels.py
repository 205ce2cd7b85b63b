"""Structured pruning: dependencies between channels, and the smaller models."""

import doctest
import importlib
import json
import re

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers
from masked_models import assert_pruned_equals_masked, half_removed
from model_kinds import answers
from random_graphs import examples
from slow_cases import slow_but

import tfnas
from tfnas.graph.functional import clone
from tfnas.measure.profile import profile
from tfnas.pruning.structured.channel_groups import trace
from tfnas.pruning.structured.channel_importance import importance_of, input_kernels, scores
from tfnas.pruning.structured.channel_report import ChannelPruningReport
from tfnas.pruning.structured.prune_channels import prune_channels
from tfnas.pruning.structured.slicing import remove_again, slice_channels


def randomized(model, seed=0):
    """The model with random weights, also those that are initialized to 0 or 1."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.dtype == "float32":
            low = 0.5 if "variance" in variable.name else -0.7
            variable.assign(rng.uniform(low, 1.0, variable.shape))
    return model


def masked(model, dependencies, removed):
    """A copy whose kernels are zero for the removed input channels."""
    copy = clone(model)
    copies = dict(zip(map(id, model.variables), copy.variables, strict=True))
    for kernel in input_kernels(dependencies):
        array = np.array(kernel.variable)
        for axis, ids in kernel.axes.items():
            if axis != kernel.output_axis:
                gone = ~dependencies.kept(ids, removed)
                np.moveaxis(array, axis, 0)[gone] = 0
        copies[id(kernel.variable)].assign(array)
    return copy


def assert_equal_to_masked(model, seed=0):
    return assert_pruned_equals_masked(model, seed, tolerance=1e-5)


def squeeze_and_excite():
    x = inputs = keras.Input((8, 8, 3))
    x = stem = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    s = layers.GlobalAveragePooling2D()(x)
    s = layers.Reshape((1, 1, 8))(s)
    s = layers.Conv2D(4, 1, activation="relu", name="squeeze")(s)
    s = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(s)
    x = layers.Multiply()([stem, s])
    return keras.Model(inputs, layers.Conv2D(5, 1, name="head")(x))


def concatenated():
    inputs = keras.Input((8, 8, 3))
    a = layers.Conv2D(6, 3, padding="same", name="a")(inputs)
    b = layers.SeparableConv2D(4, 3, padding="same", depth_multiplier=2, name="b")(a)
    x = layers.Concatenate()([a, b, inputs])
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.LeakyReLU()(layers.DepthwiseConv2D(3, depth_multiplier=2, name="depth")(x))
    x = layers.Conv2DTranspose(6, 3, strides=2, name="up")(x)
    x = layers.Flatten()(layers.MaxPooling2D(3)(layers.PReLU(shared_axes=[1, 2])(x)))
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Dense(9, name="hidden")(x)))


def grouped_and_shared():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(12, 3, padding="same", name="stem")(inputs)
    shared = layers.Conv2D(12, 3, padding="same", groups=3, name="shared")
    x = shared(keras.ops.relu(shared(x)))
    x = layers.Conv2D(24, 3, groups=12, padding="same", name="channelwise")(x)
    x = keras.ops.mean(x, axis=(1, 2)) * 2.0 + 1.0
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def two_inputs_nested():
    first, second = keras.Input((6, 6, 2)), keras.Input((5,))
    block = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(7, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
        ],
        name="block",
    )
    image = layers.GlobalMaxPooling2D()(block(first))
    vector = layers.Dense(7, activation="tanh", name="vector")(second)
    joined = layers.Add()([image, vector])
    scores = layers.Dense(3, name="scores")(joined)
    value = layers.Dense(1, name="value")(layers.Dropout(0.5)(joined))
    return keras.Model([first, second], [scores, value])


def one_dimensional():
    inputs = keras.Input((16, 3))
    x = layers.Conv1D(8, 3, padding="causal", name="a")(inputs)
    x = layers.DepthwiseConv1D(3, name="d")(layers.ZeroPadding1D(1)(x))
    x = layers.Conv1DTranspose(6, 2, strides=2, name="t")(layers.AveragePooling1D(2)(x))
    x = layers.Cropping1D(1)(layers.UpSampling1D(2)(x))
    x = layers.Dense(5, activation="gelu", name="inner")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(x)))


def volumes():
    inputs = keras.Input((4, 4, 4, 2))
    x = layers.Conv3D(6, 2, name="a")(inputs)
    x = layers.Conv3DTranspose(5, 2, name="t")(layers.ZeroPadding3D(1)(x))
    return keras.Model(inputs, layers.Conv3D(2, 1, name="head")(layers.MaxPooling3D(2)(x)))


MODELS = [
    *(squeeze_and_excite, concatenated, grouped_and_shared, two_inputs_nested),
    *(one_dimensional, volumes),
]


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize("seed", slow_but([0, 1], 1))
def test_removing_any_channels_equals_masking_them(build, seed):
    keras.utils.set_random_seed(0)
    _, removed, _ = assert_equal_to_masked(randomized(build()), seed)
    assert removed.any()


@st.composite
def graphs(draw):
    """A random network of convolutions, shortcuts, concatenations and gates."""
    kinds = st.sampled_from(
        ["conv", "depthwise", "norm", "relu", "add", "multiply", "concat", "pool", "gate", "pad"]
    )
    plan = draw(st.lists(st.tuples(kinds, st.integers(1, 6), st.integers(0, 9)), max_size=9))
    return [("conv", 4, 0), *plan], draw(st.integers(0, 1000)), draw(st.booleans())


def built(plan, flat):
    x = keras.Input((6, 6, 3))
    values = [x]
    for number, (kind, width, pick) in enumerate(plan):
        x = values[pick % len(values)] if pick < 3 else values[-1]
        other = values[(pick + width) % len(values)]
        same = tuple(x.shape) == tuple(other.shape)
        aligned = tuple(x.shape[1:3]) == tuple(other.shape[1:3])
        if kind == "conv":
            x = layers.Conv2D(width + 1, 3, padding="same", name=f"c{number}")(x)
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1 + width % 2)(x)
        elif kind == "norm":
            x = layers.BatchNormalization()(x)
        elif kind == "relu":
            x = layers.ReLU()(x)
        elif kind == "pad":
            x = layers.Cropping2D(1)(layers.ZeroPadding2D(1)(x))
        elif kind == "pool":
            x = layers.AveragePooling2D(3, strides=1, padding="same")(x)
        elif kind == "concat" and aligned:
            x = layers.Concatenate()([x, other])
        elif kind == "add" and same:
            x = x + other if width % 2 else layers.Add()([x, other])
        elif kind == "multiply" and same:
            x = layers.Multiply()([x, other])
        elif kind == "gate":
            gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
            x = x * layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(gate)
        values.append(x)
    x = layers.Flatten()(values[-1]) if flat else layers.GlobalMaxPooling2D()(values[-1])
    return keras.Model(values[0], layers.Dense(3, name="head")(x))


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_removing_channels_of_a_random_graph_equals_masking_them(drawn):
    plan, seed, flat = drawn
    assert_equal_to_masked(randomized(built(plan, flat), seed), seed)


@pytest.mark.parametrize("excludes", [False, True])
@pytest.mark.parametrize("build", [squeeze_and_excite, concatenated, grouped_and_shared])
def test_the_channels_of_a_report_are_removed_again(build, excludes):
    model = randomized(build())
    groups = [group for group in trace(model).groups if len(group.removable)]
    exclude = [groups[0].makers[0]] if excludes and len(groups) > 1 else []
    smaller, report = prune_channels(model, 0.2, exclude=exclude)
    kept = ChannelPruningReport.of(json.loads(json.dumps(report.as_dict())))
    assert kept == report
    with pytest.raises(ValueError, match="unknown key in ChannelPruningReport: speed"):
        ChannelPruningReport.of({**report.as_dict(), "speed": 1})
    with pytest.raises(ValueError, match=r"GroupChange.before must be int, got '16'"):
        ChannelPruningReport.of(
            {**report.as_dict(), "groups": [{**report.as_dict()["groups"][0], "before": "16"}]}
        )
    assert any(group.removed for group in report.groups)
    assert all(len(group.removed) == group.before - group.after for group in report.groups)
    again = remove_again(model, kept)
    for one, other in zip(smaller.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"report must be on .*, whose .* are others than its"):
        remove_again(smaller, kept)


def test_removing_channels_that_contribute_nothing_keeps_the_outputs():
    model = randomized(squeeze_and_excite())
    dependencies = trace(model)
    removed = half_removed(dependencies, 3)
    silent = masked(model, dependencies, removed)
    smaller = slice_channels(silent, trace(silent), removed)
    x = examples(model)
    np.testing.assert_allclose(answers(smaller, x)[0], answers(silent, x)[0], atol=1e-5)


def test_channels_last_and_first_agree():
    first = keras.Input((3, 8, 8))
    x = layers.Conv2D(8, 3, data_format="channels_first", padding="same", name="a")(first)
    x = layers.BatchNormalization(axis=1)(x)
    x = layers.Permute((2, 3, 1))(layers.ReLU()(x))
    model = keras.Model(first, layers.Dense(3)(x))
    dependencies = trace(model)
    assert next((g.name, len(g.removable)) for g in dependencies.groups) == ("a", 8)


def test_what_is_not_understood_locks_its_group_with_the_reason():
    inputs = keras.Input((8, 6))
    x = layers.Dense(8, name="seen")(inputs)
    x = keras.ops.cumsum(x, axis=-1)
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Dense(8, name="free")(x)))
    _, report = prune_channels(model, 0.5)
    reasons = {g.name: g.reason for g in report.groups}
    assert re.match(r"Cumsum '.*' is not supported", reasons["seen"])
    assert reasons["head"] == "it is the model's output"
    assert reasons["free"] == ""
    assert {g.name for g in report.locked} == {"seen", "head"}


@pytest.mark.parametrize("lock", ["softmax", "constant"])
def test_operations_across_channels_lock(lock):
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 1, name="a", activation="softmax" if lock == "softmax" else None)(inputs)
    if lock == "constant":
        x = x * np.arange(6, dtype="float32")
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="head")(x))
    dependencies = trace(model)
    assert not len(next(g for g in dependencies.groups if g.name == "a").removable)


def flattened(through, width=6, **settings):
    """A convolution, an operation, and a Dense layer on all elements."""
    inputs = keras.Input((4, 6, 3))
    x = through(layers.Conv2D(width, 1, name="a", **settings)(inputs))
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


THROUGH = {
    "flatten, first": lambda x: layers.Flatten(data_format="channels_first")(x),
    "transpose from behind": lambda x: keras.ops.transpose(x, (0, -1, 1, 2)),
}


@pytest.mark.parametrize("through", THROUGH.values(), ids=THROUGH)
def test_channels_are_followed_through(through):
    _, removed, _ = assert_equal_to_masked(randomized(flattened(through)))
    assert removed.any()


class ReLU(layers.Layer):
    """A custom layer with the name of a Keras layer; it sums over the channels."""

    def call(self, x):
        return keras.ops.cumsum(x, axis=-1)


LOCKING = {
    "average": lambda x: keras.ops.average(x, axis=-1),
    "separable": lambda x: layers.SeparableConv2D(6, 1, activation="softmax", name="b")(x),
    "transposed": lambda x: layers.Conv2DTranspose(6, 1, activation="softmax", name="b")(x),
    "depthwise": lambda x: layers.DepthwiseConv2D(1, activation="softmax")(x),
    "channelwise": lambda x: layers.Conv2D(6, 1, groups=6, activation="softmax")(x),
    "layer as activation": lambda x: layers.Conv2D(6, 1, activation=layers.Softmax(), name="b")(x),
    "masking": lambda x: keras.ops.abs(layers.Masking(0.5)(x)),
    "noise shape": lambda x: layers.Dropout(0.5, noise_shape=(None, 1, 1, 6))(x),
    "clip": lambda x: keras.ops.clip(x, np.zeros(6), np.ones(6)),
    "another's class": lambda x: ReLU()(x),
    "resizing": lambda x: layers.Resizing(6, 8)(layers.Permute((3, 1, 2))(x)),
    "rows": lambda x: layers.Embedding(9, 2)(keras.ops.cast(x, "int32")),
}


@pytest.mark.parametrize("lock", LOCKING)
def test_layers_that_need_every_channel_lock(lock):
    groups = {g.name: g for g in trace(flattened(LOCKING[lock])).groups}
    group = groups.get("b", groups["a"])
    assert not len(group.removable)
    assert group.locked


def test_operations_that_are_equal_for_all_channels_lock_nothing():
    drop = layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))
    model = flattened(drop, activation=layers.LeakyReLU())
    _, removed, _ = assert_equal_to_masked(randomized(model))
    assert removed.any()


@pytest.mark.parametrize("change", ["lora", "int8"])
def test_layers_with_weights_of_other_kinds_lock(change):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, name="a"), layers.Dense(6)])
    layer = model.layers[1]
    layer.enable_lora(2) if change == "lora" else layer.quantize("int8")
    group = next(g for g in trace(model).groups if g.name == "a")
    assert not len(group.removable)


def test_a_quantized_model_raises_with_the_reason():
    model = tfnas.quantize_aware(flattened(lambda x: x), "int8")
    with pytest.raises(ValueError, match="must not be quantization-aware yet"):
        prune_channels(model, 0.5)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6), layers.Dense(3)])
    for layer in model.layers:
        layer.quantize("int8")
    with pytest.raises(ValueError, match="prune the channels of a model before it is quantized"):
        prune_channels(model, 0.5)


def test_the_error_of_a_missed_target_has_the_reason_of_most_locked_channels():
    with pytest.raises(ValueError, match=r"6 channels have to stay: Cumsum .* is not"):
        prune_channels(flattened(lambda x: keras.ops.cumsum(x, axis=-1)), 0.5)


def test_the_notes_name_layers_with_unknown_macs():
    inputs = keras.Input((8, 6))
    x = layers.Lambda(sum_of_steps, name="own")(layers.Dense(4)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(8)(x)))
    _, report = prune_channels(model, np.float32(0.5))
    assert "MACs are at least these: those of some layers are unknown: own" in report.notes


def sum_of_steps(x):
    return keras.ops.sum(x, axis=1)


class Nameless(layers.Layer):
    """A layer with weights that can't be copied."""

    def __init__(self, units):
        super().__init__()
        self.factor = self.add_weight(shape=(units,))

    def call(self, x):
        return x * self.factor


def test_a_model_that_cannot_be_copied_raises_before_time_is_measured():
    measured = []
    with pytest.raises(ValueError, match="can't be copied"):
        prune_channels(
            flattened(lambda x: layers.Conv2D(8, 1)(Nameless(6)(x))),
            target_latency_ratio=0.5,
            latency=lambda model: measured.append(model) or 1.0,
        )
    assert not measured


def two_and_fourteen(least):
    """Two makers beside each other, added to a third: one group."""
    inputs = keras.Input((4, 4, 3))
    a = layers.Conv2D(least, 1, name="a")(inputs)
    b = layers.Conv2D(16 - least, 1, name="b")(inputs)
    x = layers.Concatenate()([a, b]) + layers.Conv2D(16, 1, name="c")(inputs)
    return keras.Model(inputs, layers.Conv2D(2, 1, name="head")(x))


def test_no_layer_loses_all_of_its_channels():
    model = randomized(two_and_fourteen(2))
    for name in ("a", "head"):
        kernel = np.array(model.get_layer(name).kernel)
        kernel[(..., slice(2), slice(None)) if name == "head" else ...] *= 1e-6
        model.get_layer(name).kernel.assign(kernel)
    smaller, _ = prune_channels(model, 0.8)
    assert smaller.get_layer("a").filters == 1
    smaller, _ = prune_channels(
        two_and_fourteen(8),
        target_latency_ratio=0.7,
        latency=lambda candidate: candidate.count_params(),
    )
    assert smaller.get_layer("a").filters >= 1


def mobile():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16, 16, 3))
    for number, width in enumerate((16, 24, 32)):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    return keras.Model(inputs, layers.Dense(10, name="head")(layers.Flatten()(x)))


@pytest.mark.parametrize(
    ("scope", "criterion"),
    slow_but(
        [(s, c) for s in ("global", "group", "saving") for c in ("l1", "l2", "scale", "random")],
        *(("global", "l1"), ("group", "scale"), ("saving", "l2"), ("saving", "random")),
    ),
)
def test_targets_are_met_from_below_and_nearly(criterion, scope):
    model = mobile()
    before = profile(model)
    for name, count in (("target_macs", "macs"), ("target_params", "parameters")):
        smaller, report = prune_channels(model, criterion=criterion, scope=scope, **{name: 0.5})
        after = profile(smaller)
        fraction = getattr(after, count) / getattr(before, count)
        assert 0.4 < fraction <= 0.5
        assert getattr(report, count) == (getattr(before, count), getattr(after, count))
    smaller, _ = prune_channels(model, target_macs=before.macs // 2)
    assert profile(smaller).macs <= before.macs // 2
    assert smaller.output_shape == model.output_shape


def test_scope_group_removes_the_same_fraction_of_each_group():
    _, report = prune_channels(mobile(), 0.5, scope="group")
    assert {(g.before, g.after) for g in report.groups} >= {(16, 8), (24, 12), (32, 16)}


def test_groups_whose_channels_save_more_lose_more():
    """The removed fraction is proportional to the square root of the saving per channel."""
    sizes = [(32, 3, "early"), (32, 3, "late"), (8, 1, "last")]
    x = inputs = keras.Input((16, 16, 32))
    for filters, kernel, name in sizes:
        x = layers.Conv2D(filters, kernel, padding="same", use_bias=False, name=name)(x)
        x = layers.AveragePooling2D(2)(x) if name == "early" else x
    model = keras.Model(inputs, x)
    _, report = prune_channels(model, target_macs=0.5, scope="saving")
    gone = {group.name: group.before - group.after for group in report.groups}
    per_channel = {  # MACs of the layer with the channel as output, and of the next
        "early": 256 * 9 * 32 + 64 * 9 * 32,
        "late": 64 * 9 * 32 + 64 * 8,
    }
    expected = (per_channel["early"] / per_channel["late"]) ** 0.5
    assert abs(gone["early"] - gone["late"] * expected) <= 1 + expected
    assert gone["early"] > gone["late"] > 0


def test_sizes_are_rounded_up_to_a_multiple():
    smaller, report = prune_channels(mobile(), target_macs=0.4, round_to=8)
    assert all(g.after % 8 == 0 for g in report.groups if g.name != "head")
    assert profile(smaller).macs <= 0.4 * profile(mobile()).macs


@pytest.mark.parametrize("max_ratio", [0.3, 0.5, 1.0])
def test_no_group_loses_more_than_max_ratio(max_ratio):
    """Even if its channels have the lowest scores."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(20, 3, name="poor"),
            layers.Conv2D(20, 3, name="rich"),
            layers.Conv2D(4, 3, name="last"),
        ]
    )
    kernel = np.full((3, 3, 3, 20), 1e-6, np.float32)
    kernel[..., 0] = 1.0  # scores are in units of their group's mean
    model.get_layer("poor").kernel.assign(kernel)
    smaller, _ = prune_channels(model, 0.25, max_ratio=max_ratio)
    kept = smaller.get_layer("poor").filters
    assert kept == max(10, 20 - round(20 * max_ratio))
    assert kept + smaller.get_layer("rich").filters == 30


def test_the_least_important_channels_are_removed_first():
    model = mobile()
    kernel = np.array(model.get_layer("conv1").kernel)
    kernel[..., 5:11] *= 1e-3
    following = np.array(model.get_layer("conv2").kernel)
    following[:, :, 5:11] *= 1e-3
    model.get_layer("conv1").kernel.assign(kernel)
    model.get_layer("conv2").kernel.assign(following)
    smaller, report = prune_channels(model, 6 / 72 - 1e-9)
    assert {g.name: g.after for g in report.groups}["conv1"] == 18
    np.testing.assert_array_equal(
        np.delete(kernel, range(5, 11), axis=3), np.array(smaller.get_layer("conv1").kernel)
    )


def test_taylor_keeps_the_channels_that_the_loss_needs():
    model = mobile()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 16, 16, 3)).astype("float32"), rng.integers(0, 10, 64)
    needed = np.array(model.get_layer("conv2").kernel)
    needed[:, :, :12] = 0  # the next layer does not use these channels of conv1
    model.get_layer("conv2").kernel.assign(needed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    dependencies = trace(model)
    importance = importance_of("taylor", data=(x, y), loss=loss).prepared(model, dependencies)
    found = scores(dependencies, importance)
    group = next(g for g in dependencies.groups if g.name == "conv1")
    assert found[group.removable][:12].max() == 0.0
    assert found[group.removable][12:].min() > 0.0
    smaller, _ = prune_channels(model, 0.2, criterion="taylor", data=(x, y), loss=loss)
    assert smaller.get_layer("conv1").filters < 24


def test_the_smaller_model_trains_saves_loads_and_exports(tmp_path):
    smaller, _ = prune_channels(mobile(), target_macs=0.4)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 16, 16, 3)).astype("float32"), rng.integers(0, 10, 32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    smaller.compile("adam", loss, run_eagerly=True)
    smaller.fit(x, y, epochs=1, verbose=0)
    smaller.save(tmp_path / "small.keras")
    again = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), smaller.predict(x, verbose=0))
    file = tfnas.to_tflite(smaller)
    np.testing.assert_allclose(file.predict(x), smaller.predict(x, verbose=0), atol=1e-4)


def test_channels_are_removed_where_the_latency_function_measures_a_saving():
    model = mobile()

    def latency(candidate):  # the last convolution costs everything
        return 1.0 + candidate.get_layer("conv2").filters

    smaller, report = prune_channels(model, target_latency_ratio=0.5, latency=latency)
    assert latency(smaller) <= 0.5 * latency(model)
    sizes = {g.name: (g.before, g.after) for g in report.groups}
    assert sizes["conv0"][0] == sizes["conv0"][1]
    assert sizes["conv2"][1] <= 15


def test_excluded_layers_keep_their_channels():
    _, report = prune_channels(mobile(), 0.5, exclude=["conv0"])
    change = next(g for g in report.groups if g.name == "conv0")
    assert (change.before, change.after, change.reason) == (16, 16, "it is excluded")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, "exactly one of ratio, target_macs"),
        ({"ratio": 0.5, "target_macs": 0.5}, "exactly one of"),
        ({"ratio": 1.0}, "ratio must be in"),
        ({"ratio": float("nan")}, "ratio must be a number above 0"),
        ({"target_macs": 0.0001}, "target_macs can't be met.*without all removable channels"),
        ({"target_macs": -1}, "target_macs must be a number above 0"),
        ({"target_latency_ratio": 0.5}, "latency and target_latency_ratio require each other"),
        ({"ratio": 0.5, "latency": len}, "latency and target_latency_ratio require each other"),
        ({"target_latency_ratio": 0.5, "latency": lambda model: 0.0}, "must return a time above 0"),
        ({"ratio": 0.5, "criterion": "best"}, "criterion must be one of"),
        ({"ratio": 0.5, "criterion": "taylor"}, "data must hold inputs and targets"),
        ({"ratio": 0.5, "scope": "layer"}, "scope must be one of"),
        ({"ratio": 0.5, "scope": "saving"}, "scope 'saving' requires target_macs"),
        ({"ratio": 0.5, "round_to": 0}, "round_to must be a whole number"),
        ({"ratio": 0.5, "max_ratio": 0}, r"max_ratio must be in \(0, 1\], got 0"),
        ({"ratio": 0.5, "exclude": ["nothing"]}, "exclude must name layers"),
    ],
)
def test_bad_arguments(arguments, error):
    with pytest.raises(ValueError, match=error):
        prune_channels(mobile(), **arguments)


def test_a_model_that_is_not_functional_raises():
    with pytest.raises(ValueError, match="model must be built, got"):
        prune_channels(keras.Sequential([layers.Dense(3)]), 0.5)


def test_an_interrupted_run_continues_after_the_last_step(tmp_path):
    model, seen = mobile(), []

    def fit(smaller, step):
        if step == 3 and len(seen) == 2:
            raise KeyboardInterrupt
        seen.append((step, profile(smaller).macs))

    def pruning():
        return tfnas.ChannelPruning(model, 0.3, steps=3, fit=fit, folder=tmp_path)

    with pytest.raises(KeyboardInterrupt):
        pruning().run()
    seen.append("again")
    smaller, reports = pruning().run()
    assert [step for step, *_ in seen] == [1, 2, "a", 3]
    assert len(reports) == 3
    baseline = profile(model).macs
    assert profile(smaller).macs == reports[-1].macs[1] <= 0.3 * baseline
    assert reports[1].macs[0] == reports[0].macs[1]
    with pytest.raises(ValueError, match="must be empty or hold the steps of this run"):
        tfnas.ChannelPruning(model, 0.4, steps=3, fit=fit, folder=tmp_path).run()


def nested():
    x = inputs = keras.Input((4, 4, 3))
    for name in ("one", "two"):
        block = [keras.Input(x.shape[1:]), layers.Conv2D(8, 3, padding="same", name="conv")]
        x = keras.Sequential(block, name=name)(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


@pytest.mark.parametrize(("path", "kept"), [("one/conv", "conv"), ("two/*", "conv_2")])
def test_excluded_layers_are_excluded_in_every_step(path, kept):
    pruning = tfnas.ChannelPruning(
        nested(), 0.6, steps=2, fit=lambda model, step: None, exclude=[path]
    )
    smaller, _ = pruning.run()
    assert smaller.get_layer(kept).filters == 8


def test_the_loss_of_the_first_model_is_used_in_every_step(tmp_path):
    model = mobile()
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = np.zeros((4, 16, 16, 3), "float32"), np.zeros(4, int)
    _, reports = tfnas.ChannelPruning(
        model, 0.5, steps=2, fit=lambda model, step: None, criterion="taylor", data=data
    ).run()
    assert len(reports) == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"target_macs": 1.5}, "target_macs must be in"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"fit": None}, "fit must take a model"),
        ({"criterion": "best"}, "criterion must be one of"),
    ],
)
def test_bad_arguments_of_channel_pruning_raise_before_any_training(arguments, error):
    settings = {"target_macs": 0.5, "steps": 2, "fit": lambda model, step: None}
    with pytest.raises(ValueError, match=error):
        tfnas.ChannelPruning(mobile(), **{**settings, **arguments})


def test_nested_models_with_equal_operation_names_are_flattened():
    b = keras.Input((8, 8, 4))
    base = keras.Model(b, b + layers.Conv2D(4, 3, padding="same")(b), name="base")
    keras.backend.clear_session()
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = base(x) + x
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="head")(x))
    assert_equal_to_masked(randomized(model))


@pytest.mark.parametrize(
    "module",
    [
        *("channel_ids", "channel_importance", "channel_masks", "channel_report", "iterative"),
        *("prune_channels", "reshape_rules"),
    ],
)
def test_the_examples_are_true(module):
    result = doctest.testmod(importlib.import_module(f"tfnas.pruning.structured.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
