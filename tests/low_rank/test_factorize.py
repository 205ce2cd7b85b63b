"""`factorize`: structure, outputs, errors and reports of factorized models."""

import doctest
import functools
import json
import logging

import keras
import numpy as np
import pytest
from slow_cases import slow_but

import tfnas
from tfnas.graph.functional import walk
from tfnas.low_rank import (
    factorizable_layers,
    factorized_model,
    low_rank_report,
    options,
    rank_selection,
)
from tfnas.low_rank import factorize as factorize_module
from tfnas.low_rank.factorize import factorize
from tfnas.low_rank.low_rank_report import FactorizationReport

layers = keras.layers


def images(model, count=16, seed=0):
    shape = [n or 9 for n in model.inputs[0].shape[1:]]
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype("float32")


def outputs(model, x):
    return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)), np.float32)


def sequential(shape, *parts):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), *parts])
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            rng = np.random.default_rng(1)
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        elif getattr(layer, "use_bias", False):
            layer.bias.assign(np.random.default_rng(2).normal(size=layer.bias.shape))
    return model


@functools.cache
def network():
    """A model shared by tests that do not change it."""
    return fresh_network()


def fresh_network():
    return sequential(
        (12, 12, 6),
        layers.Conv2D(24, 3, padding="same", use_bias=False, name="stem"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(),
        layers.Conv2D(24, 3, strides=2, activation="relu", name="body"),
        layers.DepthwiseConv2D(3, name="depthwise"),
        layers.Conv2D(32, 1, activation="relu", name="wide"),
        layers.Flatten(),
        layers.Dense(10, activation="softmax", name="head"),
    )


def replaced(model, method, ranks, data=None):
    """Factorizes every layer that `method` applies to, at given ranks, even without saving MACs."""
    flow = walk(model)
    units, _ = factorizable_layers.find_layers(flow, (method,))
    parts = []
    for unit in units:
        second = mean = None
        if data is not None:
            measured = factorize_module.measure_covariances(model, [unit.layer], [data])
            covariance = measured[id(unit.layer)]
            second = covariance.shrinkage_estimate(unit.absorbs_mean)
            mean = covariance.mean
        layer_options = options.Options(unit, second)
        option = layer_options.at(method, ranks or layer_options.full(method))
        parts.append(factorized_model.layer_factors(layer_options, option, mean))
    return factorized_model.build(model, flow, parts), parts


@pytest.mark.parametrize(
    "module",
    [rank_selection, factorized_model, options, factorizable_layers, low_rank_report],
)
def test_doctests_pass(module):
    assert doctest.testmod(module).failed == 0


def test_the_doctest_of_factorize_passes():
    result = doctest.testmod(factorize_module)
    assert (result.attempted, result.failed) == (4, 0)


CONVOLUTIONS = [
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "padding": "same", "strides": 2},
    {"kernel_size": (5, 3), "padding": "same", "strides": (2, 1)},
    {"kernel_size": (3, 2), "strides": (1, 2), "padding": "same"},
    {"kernel_size": 4, "padding": "same", "strides": 3, "use_bias": False},
    {"kernel_size": 3, "dilation_rate": 2, "padding": "same"},
    {"kernel_size": (3, 2), "dilation_rate": (1, 3)},
    {"kernel_size": (1, 7), "padding": "same", "strides": 2},
    {"kernel_size": (7, 1), "padding": "same", "strides": (2, 2)},
]


@pytest.mark.parametrize("method", ["spatial", "tucker"])
@pytest.mark.parametrize("shape", slow_but(CONVOLUTIONS, *CONVOLUTIONS[2::2]), ids=str)
def test_full_rank_reproduces_the_layer(method, shape):
    size = (11, 10, 3) if shape.get("strides", 1) != 2 else (11, 12, 3)
    model = sequential(size, layers.Conv2D(4, activation="tanh", name="conv", **shape))
    smaller, (part,) = replaced(model, method, None)
    x = images(model)
    np.testing.assert_allclose(outputs(smaller, x), outputs(model, x), atol=1e-5)
    assert part.option.error < 1e-12
    assert tfnas.profile(smaller).macs == part.option.macs
    assert smaller.count_params() == part.parameters


@pytest.mark.parametrize("ranks", [(3, 2), (3, 4), (2, 4), (2, 2)])
def test_tucker_leaves_out_factors_that_reduce_nothing(ranks):
    model = sequential((8, 8, 3), layers.Conv2D(4, 3, strides=2, padding="same", name="conv"))
    smaller, (part,) = replaced(model, "tucker", ranks)
    names = [layer.name for layer in smaller.layers[1:]]
    expected = ["conv_first"] * (ranks[0] < 3) + ["conv_core"] + ["conv_last"] * (ranks[1] < 4)
    assert names == expected
    assert tfnas.profile(smaller).macs == part.option.macs
    assert smaller.layers[-1].use_bias
    assert not any(layer.use_bias for layer in smaller.layers[1:-1])


@pytest.mark.parametrize("data", [False, True])
def test_full_rank_of_dense_and_1x1_with_and_without_data(data):
    model = sequential(
        (9, 9, 6),
        layers.Conv2D(5, 1, strides=2, activation="relu"),
        layers.Conv2D(7, 1, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.Dense(3, activation="tanh"),
        layers.Flatten(),
        layers.Dense(4, use_bias=False, activation="softmax"),
    )
    x = images(model)
    smaller, parts = replaced(model, "svd", None, x if data else None)
    assert len(parts) == 4
    np.testing.assert_allclose(outputs(smaller, x), outputs(model, x), atol=1e-5)
    assert tfnas.profile(smaller).macs == sum(part.option.macs for part in parts)


@pytest.mark.parametrize("padding", slow_but(["valid", "same", "causal"], "causal"))
def test_one_dimensional_convolutions(padding):
    model = sequential(
        (20, 6),
        layers.Conv1D(8, 3, padding=padding, dilation_rate=2, name="a"),
        layers.Conv1D(8, 3, padding=padding, strides=2, name="b"),
        layers.Conv1D(5, 1, name="c"),
    )
    x = images(model)
    for method, count in (("spatial", 2), ("tucker", 2), ("svd", 1)):
        smaller, parts = replaced(model, method, None, x)
        assert len(parts) == count
        np.testing.assert_allclose(outputs(smaller, x), outputs(model, x), atol=1e-5)
        assert all(part.option.error < 1e-9 for part in parts)


def test_a_lossless_rank_is_found():
    model = fresh_network()
    rng = np.random.default_rng(0)
    wide, body = model.get_layer("wide"), model.get_layer("body")
    low = rng.normal(size=(1, 1, 24, 5)) @ rng.normal(size=(5, 32)) / 10
    core = rng.normal(size=(24, 4)) @ rng.normal(size=(3, 3, 4, 6)) @ rng.normal(size=(6, 24)) / 20
    wide.set_weights([low, wide.get_weights()[1]])
    body.set_weights([core, body.get_weights()[1]])
    x = images(model)
    for data in (None, x):
        smaller, report = factorize(model, energy=1.0, data=data)
        assert [(f.name, f.method, f.ranks) for f in report.layers] == [
            ("body", "tucker", (4, 6)),
            ("wide", "svd", (5,)),
        ]
        np.testing.assert_allclose(outputs(smaller, x), outputs(model, x), atol=1e-5)
        assert report.macs == (tfnas.profile(model).macs, tfnas.profile(smaller).macs)
        assert report.macs[1] < report.macs[0]


@pytest.mark.parametrize("target", [0.9, 0.6, 0.3, 100_000])
def test_a_target_is_met_closely_from_below(target):
    model = network()
    before = tfnas.profile(model).macs
    limit = target * before if target <= 1 else target
    smaller, report = factorize(model, target_macs=target)
    assert tfnas.profile(smaller).macs == report.macs[1] <= limit
    assert report.macs[1] > 0.9 * limit
    assert smaller.count_params() == report.parameters[1]
    assert report.parameters[0] == model.count_params()


def test_data_reduces_the_loss_at_the_same_target():
    model = network()
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(200, 12, 12, 1))
    x = (shared * rng.normal(size=6) + 0.1 * rng.normal(size=(200, 12, 12, 6))).astype("float32")
    errors = []
    for data in (None, x[:100]):
        smaller, report = factorize(model, target_macs=0.6, data=data)
        errors.append(np.mean((outputs(smaller, x[100:]) - outputs(model, x[100:])) ** 2))
        assert report.weighted is (data is not None)
    assert errors[1] < 0.5 * errors[0]


def test_the_reported_error_is_that_of_the_output_on_the_data():
    model = sequential(
        (10, 10, 4),
        layers.Conv2D(12, 3, padding="same", name="conv"),
    )
    x = (2 + images(model, 300)).astype("float32")
    for method in ("spatial", "tucker"):
        smaller, report = factorize(model, rank=2, data=x, methods=[method])
        y = outputs(model, x)
        measured = np.mean((outputs(smaller, x) - y) ** 2) / np.mean((y - y.mean((0, 1, 2))) ** 2)
        assert report.layers[0].error == pytest.approx(measured, rel=0.02)


def test_the_error_is_exact_for_correlated_inputs():
    """200 examples of 5 directions in 60 inputs: rank 5 loses next to nothing."""
    rng = np.random.default_rng(0)
    model = sequential((60,), layers.Dense(40, name="d"))
    x = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 60)) + 0.01 * rng.normal(size=(200, 60))
    x = x.astype("float32")
    smaller, report = factorize(model, rank=5, data=x)
    y = outputs(model, x)
    measured = np.mean((outputs(smaller, x) - y) ** 2) / np.mean((y - y.mean(0)) ** 2)
    assert report.layers[0].error == pytest.approx(measured, rel=0.02)
    assert measured < 0.01
    _, found = factorize(model, energy=0.99, data=x)
    assert found.layers[0].ranks[0] <= 5
    assert found.layers[0].error <= 0.01


def test_the_bias_or_normalization_compensates_the_mean():
    for tail in ([], [layers.BatchNormalization(name="norm")]):
        model = sequential((6,), layers.Dense(8, use_bias=not tail, name="d"), *tail)
        x = (5 + images(model, 400)).astype("float32")
        smaller, report = factorize(model, rank=2, data=x)
        np.testing.assert_allclose(
            outputs(smaller, x).mean(0), outputs(model, x).mean(0), atol=1e-4
        )
        assert report.layers[0].error > 0.05
        assert tail == [] or not np.allclose(
            smaller.get_layer("norm").moving_mean, model.get_layer("norm").moving_mean
        )


def test_ranks_by_name_and_fraction():
    model = network()
    _, report = factorize(model, rank={"head": 2, "w*": 0.25, "stem": 3, "*": 10_000})
    assert {f.name: f.ranks for f in report.layers} == {
        "head": (2,),
        "wide": (6,),
        "stem": (3, 3) if report.layers[0].method == "tucker" else (3,),
    }
    reasons = {skipped.name: skipped.reason for skipped in report.left}
    assert reasons["body"] == "rank 10000 would save no MACs"
    assert "nothing to save" in reasons["depthwise"]
    _, report = factorize(model, rank={"wide": 4})
    assert {s.reason for s in report.left if s.name != "depthwise"} == {"not named in rank"}


def test_more_energy_takes_more_macs():
    model = network()
    macs = []
    for energy in (0.3, 0.6, 0.9):
        _, report = factorize(model, energy=energy)
        assert all(f.error <= 1 - energy + 1e-9 for f in report.layers)
        macs.append(report.macs[1])
    assert macs == sorted(macs)
    assert macs[0] < macs[-1]
    _, report = factorize(model, energy=1.0)
    assert report.layers == ()
    assert "keeping 1 of its energy would save no MACs" in str(report)


def test_methods_and_exclude_are_respected():
    model = network()
    _, report = factorize(model, rank=0.3, methods="svd", exclude="head")
    assert [f.name for f in report.layers] == ["wide"]
    reasons = {skipped.name: skipped.reason for skipped in report.left}
    assert reasons["head"] == "named in exclude"
    assert reasons["stem"] == "svd can't take a kernel of 3x3"
    assert [s.name for s in report.left] == ["stem", "body", "depthwise", "head"]
    for method in ("spatial", "tucker"):
        _, report = factorize(model, rank=0.3, methods=(method,))
        assert {f.method for f in report.layers} == {method}


def test_layers_that_can_not_be_factorized_have_a_reason():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, groups=2, name="groups")(inputs)
    x = layers.SeparableConv2D(4, 3, name="separable")(x)
    x = layers.Conv2DTranspose(4, 3, name="transposed")(x)
    x = layers.Conv2D(4, 3, kernel_constraint="unit_norm", name="held")(x)
    x = layers.TimeDistributed(layers.Conv1D(3, 3), name="wrapped")(x)
    x = layers.Lambda(keras.ops.tanh, name="own")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(3, bias_constraint="non_neg", name="bias")(x)
    broken = layers.Dense(3, name="broken")
    model = keras.Model(inputs, broken(x))
    broken.kernel.assign(np.full((3, 3), np.nan))
    _, report = factorize(model, rank=1)
    reasons = {skipped.name: skipped.reason for skipped in report.left}
    assert report.layers == ()
    assert "2 groups" in reasons["groups"]
    assert "nothing to save" in reasons["separable"]
    assert "type Conv2DTranspose" in reasons["transposed"]
    assert "under a constraint" in reasons["held"]
    assert "type TimeDistributed" in reasons["wrapped"]
    assert "bias is under a constraint" in reasons["bias"]
    assert "NaN" in reasons["broken"]
    assert "MACs are at least these: those of some layers are unknown: own" in str(report)
    first = layers.Conv2D(4, 3, data_format="channels_first", name="first")
    _, report = factorize(keras.Sequential([keras.Input((4, 8, 8)), first]), rank=1)
    assert report.left[0].reason == "its data format is channels_first"


def test_a_shared_layer_in_nested_models_becomes_one_pair():
    keras.utils.set_random_seed(0)
    shared = layers.Dense(16, activation="relu", name="shared")
    inner_input = keras.Input((16,))
    inner = keras.Model(inner_input, shared(inner_input), name="inner")
    a, b = keras.Input((16,), name="a"), keras.Input((16,), name="b")
    total = layers.Add()([inner(a), shared(b), inner(shared(a))])
    model = keras.Model({"a": a, "b": b}, total)
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(40, 16)).astype("float32") for name in "ba"}
    smaller, report = factorize(model, energy=0.8, data=x)
    (line,) = report.layers
    assert line.macs[0] == 4 * 16 * 16
    assert tfnas.profile(smaller).macs == report.macs[1] == line.macs[1]
    dense = [layer for layer in smaller.layers if isinstance(layer, layers.Dense)]
    assert [layer.name for layer in dense] == ["shared_first", "shared_last"]
    assert smaller.count_params() == report.parameters[1]
    both = replaced(model, "svd", None)[0]
    np.testing.assert_allclose(outputs(both, x), outputs(model, x), atol=1e-5)
    assert np.corrcoef(outputs(smaller, x).ravel(), outputs(model, x).ravel())[0, 1] > 0.8


def test_configuration_is_split_between_the_factors():
    model = sequential(
        (8, 8, 8),
        layers.Conv2D(
            16,
            3,
            kernel_regularizer=keras.regularizers.L2(0.01),
            bias_regularizer=keras.regularizers.L1(0.02),
            activity_regularizer=keras.regularizers.L2(0.03),
            kernel_initializer=keras.initializers.Constant(0.5),
            activation="gelu",
            dtype="mixed_float16",
            name="conv",
            trainable=False,
        ),
    )
    kernel = np.random.default_rng(0).normal(size=model.layers[0].kernel.shape)
    model.layers[0].set_weights([kernel, np.ones(16)])
    smaller, _ = factorize(model, rank=2, methods=["spatial"])
    first, last = smaller.layers[1:]
    for layer in (first, last):
        assert layer.dtype_policy.name == "mixed_float16"
        assert float(layer.kernel_regularizer.l2) == pytest.approx(0.01)
        assert not layer.trainable
    assert (first.activation.__name__, last.activation.__name__) == ("linear", "gelu")
    assert first.activity_regularizer is None
    assert float(last.activity_regularizer.l2) == pytest.approx(0.03)
    assert float(last.bias_regularizer.l1) == pytest.approx(0.02)
    assert np.asarray(last.bias).tolist() == [1.0] * 16


def test_unknown_sizes_and_bfloat16():
    model = sequential(
        (None, None, 8),
        layers.Conv2D(16, 3, strides=2, padding="same", dtype="bfloat16"),
        layers.GlobalAveragePooling2D(),
    )
    with pytest.raises(ValueError, match=r"target_macs must be left out .* got conv2d"):
        factorize(model, target_macs=0.6)
    smaller, report = factorize(model, rank=7)
    assert report.macs == (0, 0)
    assert "at least these: those of some layers are unknown: conv2d" in str(report)
    x = images(model)
    assert np.corrcoef(outputs(smaller, x).ravel(), outputs(model, x).ravel())[0, 1] > 0.5


def test_result_trains_saves_and_loads_and_the_original_is_unchanged(digits, tmp_path):
    model = sequential(
        digits.input_shape,
        layers.Rescaling(1 / 255),
        layers.Conv2D(16, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(24, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    )
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    before = [np.array(w) for w in model.get_weights()]
    smaller, report = factorize(model, target_macs=0.5, data=digits.x_train[:200])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not {id(v) for v in model.variables} & {id(v) for v in smaller.variables}
    assert {type(layer).__module__.split(".")[0] for layer in smaller.layers} == {"keras"}
    smaller.compile(
        keras.optimizers.Adam(3e-3),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    x, y = digits.x_train[:400], digits.y_train[:400]
    losses = smaller.fit(x, y, epochs=5, batch_size=32, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    path = tmp_path / "model.keras"
    smaller.save(path)
    loaded = keras.saving.load_model(path)
    expected = outputs(smaller, digits.x_test[:64])
    np.testing.assert_allclose(outputs(loaded, digits.x_test[:64]), expected, atol=1e-6)
    json.dumps(report.as_dict())


def test_the_file_agrees_with_the_factorized_model():
    model = network()
    x = images(model, 64)
    smaller, _ = factorize(model, target_macs=0.5, data=x)
    got = tfnas.to_tflite(smaller).predict(x)
    np.testing.assert_allclose(got, outputs(smaller, x), atol=1e-5)


def test_results_are_reproducible():
    model = network()
    x = images(model, 64)
    one, first = factorize(model, target_macs=0.5, data=x)
    two, second = factorize(model, target_macs=0.5, data=x)
    assert first == second
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    again, third = factorize(one, target_macs=0.8)
    assert third.macs[0] == first.macs[1]
    assert len({layer.name for layer in again.layers}) == len(again.layers)


def test_names_of_other_layers_are_not_reused():
    model = sequential((16,), layers.Dense(16, name="d"), layers.Dense(2, name="d_first"))
    smaller, _ = factorize(model, rank={"d": np.int64(3)})
    assert [layer.name for layer in smaller.layers[1:]] == ["d_first_factor", "d_last", "d_first"]


def test_the_report_is_read_from_json_and_prints():
    _, report = factorize(network(), target_macs=0.5)
    assert FactorizationReport.of(json.loads(json.dumps(report.as_dict()))) == report
    text = str(report)
    assert "tucker" in text or "spatial" in text
    assert "depthwise (DepthwiseConv2D) stays" in text
    assert "MACs: " in text
    with pytest.raises(ValueError, match="unknown"):
        FactorizationReport.of({**report.as_dict(), "unknown": 1})


def test_a_target_that_is_met_already():
    model = network()
    smaller, report = factorize(model, target_macs=1.0)
    assert report.layers == ()
    assert report.macs[0] == report.macs[1]
    x = images(model)
    np.testing.assert_array_equal(outputs(smaller, x), outputs(model, x))


def test_a_target_opens_a_subclassed_model_once(caplog):
    class Augmented(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(32)

        def call(self, x, training=None):
            return self.dense(keras.ops.relu(x) if training else x)

    model = Augmented()
    model(np.zeros((1, 64), np.float32))
    with caplog.at_level(logging.WARNING, "tfnas"):
        _, report = factorize(model, target_macs=0.5)
    assert len(report.layers) == 1
    assert caplog.text.count("computes other layers in training") == 1


def test_an_unreachable_target_names_the_smallest_possible_one():
    model = network()
    with pytest.raises(ValueError, match=r"target_macs can't be met: got 0\.001") as raised:
        factorize(model, target_macs=0.001)
    fraction = float(str(raised.value).rsplit(" ", 1)[1])
    factorize(model, target_macs=fraction + 0.001)
    with pytest.raises(ValueError, match="can't be met"):
        factorize(model, target_macs=fraction - 0.001)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of rank, energy and target_macs must be given, got none"),
        ({"rank": 2, "energy": 0.5}, "got rank and energy"),
        ({"rank": 0}, "rank must be a whole number >= 1, or a fraction in \\(0, 1\\), got 0"),
        ({"rank": 2.5}, "rank must be a whole number"),
        ({"rank": True}, "rank must be a whole number"),
        ({"rank": "big"}, "rank must be a whole number"),
        ({"rank": {}}, "rank must name layers, got {}"),
        ({"rank": {"head": -1}}, "rank must be a whole number"),
        ({"rank": {"nothing": 2}}, "rank must name layers, got 'nothing', which matches none"),
        ({"energy": 0.0}, "energy must be in \\(0, 1\\], got 0.0"),
        ({"energy": 1.5}, "energy must be in"),
        ({"energy": "all"}, "energy must be in"),
        ({"target_macs": 0}, "target_macs must be a number above 0, got 0"),
        ({"target_macs": float("nan")}, "target_macs must be a number above 0, got nan"),
        ({"rank": 2, "methods": ()}, "methods must be some of svd, spatial, tucker, got \\(\\)"),
        ({"rank": 2, "methods": "cp"}, "methods must be some of"),
        ({"rank": 2, "exclude": "nothing"}, "exclude must name layers, got 'nothing'"),
        ({"rank": 2, "data": np.zeros((0, 12, 12, 6))}, "data must hold at least one example"),
        ({"rank": 2, "data": np.zeros((4, 12, 6))}, "data must have the shape"),
        ({"rank": 2, "data": np.full((4, 12, 12, 6), np.nan)}, "data must be finite"),
    ],
)
def test_invalid_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        factorize(network(), **arguments)


def test_models_without_known_shapes_are_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="model must be built, got"):
        factorize(Own(), rank=2)


def test_a_rank_that_replaces_nothing_is_reported():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.DepthwiseConv2D(3, name="dw"),
            layers.Flatten(name="flat"),
            layers.Dense(10, name="head"),
        ]
    )
    same, report = factorize(model, rank=999)
    assert same.count_params() == model.count_params()
    assert report.notes == ("no layer was replaced: the model is unchanged",)
    assert report.notes[0] in str(report)
    assert factorize(model, rank={"head": 2})[1].notes == ()
    for name, reason in (
        ("dw", "dw: a depthwise kernel is one small map"),
        ("flat", "nothing in it"),
    ):
        with pytest.raises(
            ValueError, match=f"rank must name layers that can .*'{name}': {reason}"
        ):
            factorize(model, rank={name: 4, "head": 2})
