"""tfnas.quantize_aware: layers that stay float, formats of single layers, ranges."""

import functools

import keras
import numpy as np
import pytest
from aware_checks import (
    FLOATS,
    allowed,
    assert_agree,
    assert_near,
    floats_in,
    kernels_of,
    predict,
    quantized,
    randomize,
    three_layers,
)
from aware_kinds import IMAGE, VECTOR, L, examples, shared, shared_dense, shared_norm_and_relu
from slow_cases import slow_but

import tfnas
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.quantized_kernel import QuantizedKernel
from tfnas.tflite.file_weights import read_kernels

# --- what stays float


QUICK = ("layer normalization", "custom", "custom without config")


@pytest.mark.parametrize(
    ("build", "shape", "mode"),
    slow_but(
        [
            (build, shape, mode)
            for build, shape in (
                *((shared, IMAGE), (shared_norm_and_relu, IMAGE)),
                (shared_dense, VECTOR),
            )
            for mode in ("int8", "int8x4")
        ],
        *((shared_norm_and_relu, IMAGE, "int8"), (shared_dense, VECTOR, "int8x4")),
    ),
)
def test_every_use_of_a_shared_kernel_has_its_integers(build, shape, mode):
    """By itself the converter chooses another grid for a kernel that is used twice."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape)
    c = quantized(randomize(keras.Model(inputs, build(inputs))), examples(shape), mode, mode)
    (wrapper,) = (layer for layer in c.trainable.layers if isinstance(layer, QuantizedKernel))
    qmax, values = 2 ** (wrapper.bits - 1) - 1, np.asarray(wrapper.rounded(wrapper.layer.kernel))
    axes = None if shape == VECTOR else (0, 1, 2)
    expected = np.round(values / np.abs(values).max(axes, keepdims=True) * qmax)
    uses = [k for k in read_kernels(c.file) if k.operator in ("CONV_2D", "FULLY_CONNECTED")]
    assert [k.tensor.dtype for k in uses] == [f"int{wrapper.bits}"] * 2
    for use in uses:
        np.testing.assert_array_equal(np.sort(use.values, axis=None), np.sort(expected, axis=None))
    assert_agree(c.trainable, c.file, c.x)


def test_a_shared_kernel_is_in_the_file_once():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((64,))
    one = L.Dense(64)
    model = keras.Model(inputs, one(L.ReLU()(one(inputs))))
    file = tfnas.to_tflite(tfnas.quantize_aware(model, data=examples((64,))), "int8")
    assert file.size < 1.9 * one.kernel.shape[0] * one.kernel.shape[1]


@functools.cache
def float_case(name):
    shape, build = FLOATS[name]
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape, name="given")
    head = L.Dense(3, name="head")(L.Flatten()(build(inputs)))
    model = randomize(keras.Model(inputs, head, name="net"))
    return quantized(model, examples(shape, 100), allowed(model))


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in FLOATS]
)
def test_a_float_layer_does_not_prevent_the_quantization_of_others(kind):
    c = float_case(kind)
    assert_near(predict(c.trainable, c.x), predict(c.model, c.x), 0.1)
    float_model = tfnas.strip_quantization(c.trainable)
    assert_near(predict(float_model, c.x), predict(c.model, c.x), 1e-5)
    if isinstance(c.file, Exception):
        raise c.file
    assert {t.dtype for t in (*c.file.inputs, *c.file.outputs)} == {"int8"}
    skipped = tfnas.unquantized_layers(c.trainable)
    if not floats_in(c.file):
        assert skipped == []  # it has an integer form after all, which is fine
    else:
        assert len(skipped) >= 1
        assert all(s.name and s.kind and s.reason for s in skipped)
        assert "head" not in [s.name for s in skipped]
    last = [op for op in c.file.graph.operators if op.name == "FULLY_CONNECTED"][-1]
    assert last.inputs[1].dtype == last.outputs[0].dtype == "int8"
    assert_agree(c.trainable, c.file, c.x)


@pytest.mark.parametrize(
    ("kind", "what", "reason"),
    [
        (
            "custom",
            "Doubled",
            "no integer form of Doubled (tfnas.register_layer can give it one)",
        ),
    ],
)
def test_a_layer_that_stays_float_has_a_reason(kind, what, reason):
    (skipped,) = tfnas.unquantized_layers(float_case(kind).trainable)
    assert (skipped.name, skipped.kind, skipped.reason) == ("odd", what, reason)


# --- specifications


@functools.cache
def three(layers=(), mode="int8", ranges="moving_average"):
    spec = tfnas.QuantSpec.of(mode)
    spec = tfnas.QuantSpec(spec.weights, spec.activations, layers, ranges, percentile=99.0)
    c = quantized(three_layers(), examples(IMAGE), spec, spec)
    if isinstance(c.file, Exception):
        raise c.file
    return c


@pytest.mark.parametrize(
    ("layers", "mode", "expected"),
    [
        ((), "int8", ["int8", "int8", "int8"]),
        ((), "int8x4", ["int4", "int4", "int4"]),
        ((("last", "int8"),), "int8x4", ["int4", "int4", "int8"]),
        ((("first", "float32"), ("second", "int4")), "int8", ["float32", "int4", "int8"]),
        # How a layer is named is seen without a file: tests/quantization/test_spec.py.
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ((("first", "int4"),), "int8", ["int4", "int8", "int8"]),
                ((("*st", "int4"),), "int8", ["int4", "int8", "int4"]),
                ((("Dense", "int4"),), "int8", ["int8", "int8", "int4"]),
                ((("last", "float32"),), "int8", ["int8", "int8", "float32"]),
            )
        ),
    ],
)
def test_every_kernel_has_its_format_in_the_file(layers, mode, expected):
    c = three(layers, mode)
    assert kernels_of(c.file) == expected
    assert_agree(c.trainable, c.file, c.x)
    skipped = tfnas.unquantized_layers(c.trainable)
    assert len(skipped) == expected.count("float32")
    assert all(s.reason == "left float by the specification" for s in skipped)
    assert bool(floats_in(c.file)) == ("float32" in expected)


def test_four_bits_make_a_smaller_file():
    assert three((), "int8x4").file.size < three().file.size
    for wrapper in three((), "int8x4").trainable.layers:
        if isinstance(wrapper, QuantizedKernel):
            rounded = np.asarray(wrapper.rounded(wrapper.layer.kernel)).reshape(-1)
            assert all(
                len(np.unique(rounded[i :: wrapper.layer.kernel.shape[-1]])) <= 15
                for i in range(wrapper.layer.kernel.shape[-1])
                if wrapper.layer.name == "first"
            )


def test_an_average_over_whole_images_has_a_range_of_its_own():
    """TFLite's pooling rounds to the steps of its inputs, which are coarse for small means."""
    steps = [L.ReLU(), L.AveragePooling2D(8), L.Flatten(), L.Dense(2)]
    model = keras.Sequential([keras.Input(IMAGE), *steps])
    x = np.random.default_rng(0).normal(size=(20, *IMAGE)) ** 3
    file = tfnas.to_tflite(tfnas.quantize_aware(model, data=x), "int8")
    mean = next(op for op in file.graphs[0].operators if op.name == "MEAN")
    assert mean.outputs[0].scales[0] < 0.5 * mean.inputs[0].scales[0]


@pytest.mark.parametrize("layers", [{"outer/inner": "int4"}, {"inner": "int4"}])
def test_a_layer_in_a_nested_model_is_named_by_its_path(layers):
    inside = keras.Input(VECTOR)
    outer = keras.Model(inside, L.Dense(6, name="inner")(inside), name="outer")
    model = keras.Sequential([keras.Input(VECTOR), outer, L.Dense(3, name="last")])
    trainable = tfnas.quantize_aware(model, tfnas.QuantSpec(layers=layers))
    bits = [layer.bits for layer in trainable.layers if isinstance(layer, QuantizedKernel)]
    assert bits == [4, 8]


@pytest.mark.parametrize("pattern", ["both", "SeparableConv2D", L.SeparableConv2D])
def test_a_separable_layer_is_named_as_one(pattern):
    model = keras.Sequential(
        [keras.Input(IMAGE), L.SeparableConv2D(4, 3, name="both"), L.Flatten(), L.Dense(2)]
    )
    trainable = tfnas.quantize_aware(model, tfnas.QuantSpec(layers={pattern: "int4"}))
    bits = [layer.bits for layer in trainable.layers if isinstance(layer, QuantizedKernel)]
    assert bits == [4, 4, 8]


@pytest.mark.parametrize(
    "ranges",
    slow_but(
        ["moving_average", "percentile", "mse", "learned"],
        *("moving_average", "percentile", "learned"),
    ),
)
def test_every_way_to_find_ranges(ranges):
    c = three((), "int8", ranges)
    assert_near(predict(c.trainable, c.x), predict(c.model, c.x), 0.2)
    assert_agree(c.trainable, c.file, c.x)
    ends = [w for w in c.trainable.trainable_weights if w.name in ("low", "high")]
    assert bool(ends) == (ranges == "learned")
    first = fake_quants(c.trainable)[0]
    if ranges == "percentile":
        assert np.quantile(c.x, 0.985) < float(first.high) < np.quantile(c.x, 0.995)
        assert np.quantile(c.x, 0.005) < float(first.low) < np.quantile(c.x, 0.015)
    elif ranges == "mse":
        assert 0.5 * c.x.max() < float(first.high) <= 1.01 * c.x.max()
        assert 0.5 * c.x.min() > float(first.low) >= 1.01 * c.x.min()
    else:
        np.testing.assert_allclose([first.low, first.high], [c.x.min(), c.x.max()], rtol=1e-5)


def test_calibration_widens_observed_ranges():
    trainable = tfnas.quantize_aware(three_layers())
    first = fake_quants(trainable)[0]
    assert not first.observed
    assert tfnas.calibrate(trainable, examples(IMAGE, 64)) is trainable
    assert first.observed
    before = float(first.high)
    tfnas.calibrate(trainable, 10 * examples(IMAGE, 64))
    assert float(first.high) > before
    assert not first.observing


def test_ranges_hold_the_extremes_of_all_calibration_data():
    """Examples are read in batches; those above 0 come last."""
    x = np.sort(examples(VECTOR, 1024), axis=0)
    model = keras.Sequential([keras.Input(VECTOR), L.Dense(3)])
    first = fake_quants(tfnas.quantize_aware(model, data=x))[0]
    assert float(first.high) > 0.5 * x.max()
    assert float(first.low) < 0.5 * x.min()
