"""tfnas.quantization_error against NumPy."""

import dataclasses
import doctest
import itertools
import json
import math
import re

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.measure.quantization_debugger import activation_error, layer_names, quantization_error
from tfnas.measure.quantization_debugger import sqnr as sqnr_module
from tfnas.measure.quantization_debugger.error_report import (
    FloatLayers,
    LayerError,
    OutputError,
    QuantizationError,
    Unaligned,
)
from tfnas.measure.quantization_debugger.operator_alignment import Flow
from tfnas.measure.quantization_debugger.quantization_error import quantization_error as measure
from tfnas.reports.plots import quantization_picture

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(150, 12)).astype(np.float32)  # no multiple of the batch


def network(*, hurt=False):
    """Three dense layers; `hurt` gives the middle one a scale as large as its other weights."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, "relu", name="a"),
            layers.Dense(32, "relu", name="b"),
            layers.Dense(3, name="c"),
        ]
    )
    for layer in model.layers:
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, np.random.default_rng(1).normal(0, 0.3, bias.shape)])
    if hurt:
        kernel, bias = model.get_layer("a").get_weights()
        bias[0] = -50.0  # 0 after the ReLU, so that no output of the model changes
        model.get_layer("a").set_weights([kernel, bias])
        kernel, bias = model.get_layer("b").get_weights()
        kernel[0] = 60.0
        model.get_layer("b").set_weights([kernel, bias])
    return model


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def int8(model):
    return tfnas.to_tflite(model, "int8", X)


@pytest.fixture(scope="module")
def found(model, int8):
    return measure(model, int8, X, keep_float=())


@pytest.fixture(scope="module")
def trainable(model):
    return tfnas.quantize_aware(model, "int8x4", data=X)


@pytest.fixture(scope="module")
def int8x4(trainable):
    return tfnas.to_tflite(trainable, "int8x4")


def by_layer(record):
    return {error.layer: error for error in record.layers}


def sqnr(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return -10 * np.log10(np.square(x - y).sum() / np.square(x).sum())


def float_values(model, x=X):
    """The outputs of each dense layer by NumPy."""
    values = {}
    for layer in model.layers:
        kernel, bias = layer.get_weights()
        x = x.astype(np.float64) @ kernel + bias
        x = np.maximum(x, 0) if layer.name != "c" else x
        values[layer.name] = x
    return values


def raw_kernels(artifact):
    """The stored values and the scales of each dense layer's kernel, in the file's order."""
    interpreter = artifact.interpreter(xnnpack=False)
    details = {d["index"]: d for d in interpreter.get_tensor_details()}
    for op in artifact.graph.operators:
        if op.name == "FULLY_CONNECTED":
            tensor = op.inputs[1]
            yield tensor, interpreter, details[tensor.index]["quantization_parameters"]["scales"]


def integer_values(artifact, x=X):
    """The outputs of each dense layer by the integer arithmetic of TFLite's specification."""
    interpreter = artifact.interpreter()
    details = {d["index"]: d for d in interpreter.get_tensor_details()}

    def step(tensor):
        scale, zero = details[tensor.index]["quantization"]
        return np.float64(np.float32(scale)), zero

    first = artifact.graph.operators[0].inputs[0]
    scale, zero = step(first)
    q = np.clip(np.round(x / scale) + zero, -128, 127)
    values = {"INPUT": (q - zero) * scale}
    for name, op in zip("abc", artifact.graph.operators, strict=True):
        kernel, bias = (interpreter.get_tensor(t.index).astype(np.int64) for t in op.inputs[1:])
        steps = details[op.inputs[1].index]["quantization_parameters"]["scales"]
        sums = (q - zero).astype(np.int64) @ kernel.T + bias
        out, zero_out = step(op.outputs[0])
        least = zero_out if name != "c" else -128
        q = np.clip(np.round(sums * (scale * steps / out)) + zero_out, least, 127)
        scale, zero = out, zero_out
        values[name] = (q - zero) * scale
    return values


# Measured errors


def test_the_sqnr_of_activations_equals_that_of_integer_arithmetic_in_numpy(model, int8, found):
    expected, quantized = float_values(model), integer_values(int8)
    errors = by_layer(found)
    for name in "abc":  # halves are rounded in another way
        assert errors[name].sqnr == pytest.approx(sqnr(expected[name], quantized[name]), abs=0.2)
        assert errors[name].operator == "FULLY_CONNECTED"
        assert errors[name].dtype == "int8"
    assert errors["a"].shape == (1, 16)
    (start,) = (error for error in found.layers if error.operator == "INPUT")
    assert start.sqnr == pytest.approx(sqnr(X, quantized["INPUT"]), abs=0.01)
    assert start.sqnr == pytest.approx(sqnr_module.sqnr_db(start.grid_noise))
    assert found.examples == len(X)
    assert found.unaligned == ()


def test_the_sqnr_of_activations_equals_that_of_the_files_tensors(model, int8, found):
    interpreter = Interpreter(
        model_content=int8.content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    expected = float_values(model)
    details = {d["index"]: d["quantization"] for d in interpreter.get_tensor_details()}
    held = {name: [] for name in "abc"}
    for row in int8.inputs[0].quantize(X):
        interpreter.set_tensor(int8.inputs[0].index, row[None])
        interpreter.invoke()
        for name, op in zip("abc", int8.graph.operators, strict=True):
            index = op.outputs[0].index
            scale, zero = details[index]
            held[name].append((interpreter.get_tensor(index)[0].astype(float) - zero) * scale)
    for name in "abc":
        assert by_layer(found)[name].sqnr == pytest.approx(
            sqnr(expected[name], held[name]), abs=1e-3
        )


def test_outputs_and_changed_classes_are_those_of_predict(model, int8, found):
    expected, quantized = float_values(model)["c"], int8.predict(X)
    (output,) = found.outputs
    assert output.sqnr == pytest.approx(
        sqnr(expected, quantized), abs=0.2
    )  # XNNPACK rounds otherwise
    changed = (expected.argmax(axis=1) != quantized.argmax(axis=1)).mean()
    assert output.changed == pytest.approx(changed)
    assert found.size == int8.size


def test_noise_added_is_output_noise_minus_input_noise(found):
    errors = by_layer(found)
    chain = [next(e for e in found.layers if e.operator == "INPUT"), *(errors[n] for n in "abc")]
    assert chain[0].added == chain[0].noise
    for before, after in itertools.pairwise(chain):
        assert after.added == pytest.approx(max(after.noise - before.noise, 0.0))
    added = [error.added for error in found.layers]
    assert added == sorted(added, reverse=True)


def test_the_sqnr_of_weights_is_that_of_numpy(model, int8, found):
    for name, (tensor, interpreter, steps) in zip("abc", raw_kernels(int8), strict=True):
        kernel = model.get_layer(name).get_weights()[0].T
        quantized = interpreter.get_tensor(tensor.index).astype(np.float64) * steps[:, None]
        error = by_layer(found)[name]
        assert error.weight_sqnr == pytest.approx(sqnr(kernel, quantized))
        assert error.weights == kernel.size
        assert error.weight_bits == 8


def test_four_bit_weights_are_two_per_byte_low_bits_first(model, trainable, int8x4):
    found = measure(trainable, int8x4, X, keep_float=())
    for name, (tensor, _, steps) in zip("abc", raw_kernels(int8x4), strict=True):
        numbers = []
        for byte in tensor.constant:
            numbers += [byte & 15, byte >> 4]
        stored = np.array([n - 16 if n > 7 else n for n in numbers])
        kernel = model.get_layer(name).get_weights()[0].T
        quantized = stored[: kernel.size].reshape(kernel.shape) * steps.astype(np.float64)[:, None]
        error = by_layer(found)[name]
        assert error.weight_bits == 4
        assert error.weight_sqnr == pytest.approx(sqnr(kernel, quantized))


def test_batches_do_not_matter(model, int8, found, monkeypatch):
    monkeypatch.setattr(activation_error, "_MAX_BATCH", 7)
    again = measure(model, int8, X, keep_float=())
    assert [error.layer for error in again.layers] == [error.layer for error in found.layers]
    for one, other in zip(again.layers, found.layers, strict=True):
        assert one.noise == pytest.approx(other.noise)
        assert one.saturation == other.saturation


def test_nothing_saturates_on_the_data_that_set_the_ranges(found):
    assert {error.saturation for error in found.layers} == {0.0}


def test_ranges_of_a_tenth_saturate(model):
    narrow = tfnas.to_tflite(model, "int8", X / 10)
    found = measure(model, narrow, X, keep_float=())
    (start,) = (error for error in found.layers if error.operator == "INPUT")
    scale, zero = narrow.inputs[0].scale, narrow.inputs[0].zero_point
    low, high = (-128 - zero - 1) * scale, (127 - zero + 1) * scale
    outside = ~((low <= X) & (high >= X))
    assert start.saturation == pytest.approx(outside.mean())
    assert start.saturation > 0.3
    assert all(by_layer(found)[name].saturation > 0 for name in "abc")


# Layers in float32


@pytest.fixture(scope="module")
def hurt():
    model = network(hurt=True)
    return measure(model, tfnas.to_tflite(model, "int8", X), X, keep_float=(0, 1, 2, 9))


def test_a_layer_that_was_hurt_is_first(hurt):
    assert hurt.worst() == ("b", *hurt.worst()[1:])
    assert hurt.layers[0].layer == "b"
    assert hurt.layers[0].weight_sqnr == min(e.weight_sqnr for e in hurt.layers if e.weights)
    assert hurt.worst(1) == ("b",)


def test_keeping_it_in_float32_gains_most_sqnr_and_costs_bytes(hurt):
    original, converted, one, two, three = hurt.kept_float
    assert [len(kept.layers) for kept in hurt.kept_float] == [0, 0, 1, 2, 3]
    assert (original.size, one.layers) == (hurt.size, ("b",))
    assert not any(kept.note for kept in hurt.kept_float)
    assert one.size > converted.size
    ratios = [kept.outputs[0].sqnr for kept in (converted, one, two, three)]
    gains = np.diff(ratios)
    assert gains[0] > 10
    assert gains[0] > 3 * np.abs(gains[1:]).max()
    assert one.outputs[0].changed < original.outputs[0].changed


def test_a_model_that_was_trained_is_rebuilt_from_its_float_form(trainable, int8x4):
    found = measure(trainable, int8x4, X, keep_float=[3])
    as_float = measure(tfnas.strip_quantization(trainable), int8x4, X, keep_float=())
    assert found.layers == as_float.layers
    original, kept = found.kept_float
    assert kept.size > original.size
    assert kept.outputs[0].sqnr > original.outputs[0].sqnr + 10
    assert set(kept.layers) == set("abc")


def test_formats_of_other_layers_are_kept(model):
    spec = tfnas.QuantSpec("int4", "int8", layers={"a": "int8"})
    artifact = tfnas.to_tflite(tfnas.quantize_aware(model, spec, data=X), spec)
    found = measure(model, artifact, X, keep_float=[0])
    assert {n: e.weight_bits for n, e in by_layer(found).items() if e.weights} == {
        **{"a": 8, "b": 4, "c": 4}
    }
    original, converted = found.kept_float
    assert (converted.size, converted.outputs) == (original.size, original.outputs)


@pytest.fixture(scope="module")
def wide():
    """A network with kernels large enough for mode "dynamic"."""
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(64, "relu", name=name) for name in ("first", "second")]
    return keras.Sequential([keras.Input((12,)), *stack, layers.Dense(32, name="last")])


def test_float_activations_do_not_saturate(wide):
    found = measure(wide, tfnas.to_tflite(wide, "dynamic"), X, keep_float=[1])
    errors = by_layer(found)
    bits = {name: errors[name].weight_bits for name in ("first", "second", "last")}
    assert bits == {"first": 32, "second": 8, "last": 8}
    assert errors["first"].noise == pytest.approx(0, abs=1e-10)
    assert {(e.saturation, e.grid_noise, e.dtype) for e in found.layers} == {(0, 0, "float32")}
    assert not any(error.operator == "INPUT" for error in found.layers)
    original, kept = found.kept_float
    assert kept.note == ""
    assert kept.size > original.size
    assert kept.outputs[0].sqnr > original.outputs[0].sqnr


def test_float16(wide):
    artifact = tfnas.to_tflite(wide, "float16")
    found = measure(wide, artifact, X, keep_float=[1])
    for name in ("first", "second", "last"):
        kernel = wide.get_layer(name).get_weights()[0]
        error = by_layer(found)[name]
        assert error.weight_bits == 16
        assert error.weight_sqnr == pytest.approx(sqnr(kernel, kernel.astype(np.float16)))
    assert found.outputs[0].sqnr > 60
    assert len(found.kept_float) == 2
    assert found.kept_float[1].size or found.kept_float[1].note


def test_sixteen_bit_activations(model):
    found = measure(model, tfnas.to_tflite(model, "int16x8", X), X, keep_float=[1])
    assert {error.dtype for error in found.layers} == {"int16"}
    assert all(sqnr_module.sqnr_db(error.grid_noise) > 80 for error in found.layers)
    assert len(found.kept_float) == 2


def quantized_by_recipe(recipe):
    """A model with rows of a multiple of 32 (one block), its inputs, and its file."""
    quantizer = pytest.importorskip("ai_edge_quantizer.quantizer")
    recipes = pytest.importorskip("ai_edge_quantizer.recipe")
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(64, "relu", name="first"), layers.Dense(64, name="second")]
    model = keras.Sequential([keras.Input((64,)), *stack])
    worker = quantizer.Quantizer(tfnas.to_tflite(model).content, getattr(recipes, recipe)())
    artifact = tfnas.Artifact(bytes(worker.quantize().quantized_model))
    return model, artifact, DRAW.normal(size=(20, 64)).astype(np.float32)


@pytest.mark.parametrize(
    ("recipe", "bits"), [("dynamic_wi4_afp32", 4), ("weight_only_wi8_afp32", 8)]
)
def test_files_of_ai_edge_quantizer(recipe, bits):
    model, artifact, x = quantized_by_recipe(recipe)
    found = measure(model, artifact, x, keep_float=[1])
    assert found.unaligned == ()
    error = by_layer(found)["second"]
    assert error.weight_bits == bits
    assert 6 * bits - 8 < error.weight_sqnr < 6 * bits + 3  # 6 dB a bit
    assert found.outputs[0].sqnr > 5 * bits - 10
    original, kept = found.kept_float
    assert kept.note == ""
    assert kept.outputs[0].sqnr > original.outputs[0].sqnr


def test_blockwise_scales_are_refused():
    model, artifact, x = quantized_by_recipe("dynamic_wi4b32_afp32")
    with pytest.raises(
        ValueError, match="artifact must be quantized per tensor or per channel, got"
    ):
        measure(model, artifact, x)


# Larger graphs


def branched():
    keras.utils.set_random_seed(1)
    image, vector = keras.Input((8, 8, 3), name="z_image"), keras.Input((4,), name="vector")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.ReLU(name="act")(layers.BatchNormalization(name="bn")(x))
    y = layers.SeparableConv2D(4, 3, padding="same", activation="relu", name="sep")(x)
    x = layers.GlobalAveragePooling2D(name="gap")(layers.Add(name="add")([x, y]))
    v = layers.Dense(4, "tanh", name="dv")(vector)
    shared = layers.Dense(8, "relu", name="shared")
    x = shared(shared(layers.Concatenate(name="cat")([x, v])))
    classes = layers.Dense(3, "softmax", name="classes")(x)
    return keras.Model([image, vector], [classes, layers.Dense(1, name="value")(x)])


PAIR = [
    DRAW.normal(size=(40, 8, 8, 3)).astype(np.float32),
    DRAW.normal(size=(40, 4)).astype(np.float32),
]
ROWS = {
    ("conv", "CONV_2D"): 1,
    ("sep", "DEPTHWISE_CONV_2D"): 1,
    ("sep", "CONV_2D"): 1,
    ("add", "ADD"): 1,
    ("gap", "MEAN"): 1,
    ("dv", "FULLY_CONNECTED"): 1,
    ("dv", "TANH"): 1,
    ("cat", "CONCATENATION"): 1,
    ("shared", "FULLY_CONNECTED"): 2,
    ("classes", "FULLY_CONNECTED"): 1,
    ("classes", "SOFTMAX"): 1,
    ("value", "FULLY_CONNECTED"): 1,
}
ENDS = {("z_image", "INPUT"): 1, ("vector", "INPUT"): 1}


@pytest.fixture(scope="module")
def graph():
    return branched()


@pytest.mark.parametrize(
    "mode", slow_but(["float16", "int8", "int16x8", "trained"], "float16", "int16x8", "trained")
)
def test_every_operator_has_a_row_in_every_mode(graph, mode):
    if mode == "trained":
        artifact = tfnas.to_tflite(tfnas.quantize_aware(graph, data=PAIR), "int8")
    else:
        artifact = tfnas.to_tflite(graph, mode, PAIR)
    found = measure(graph, artifact, PAIR, keep_float=())
    rows = {}
    for error in found.layers:
        key = error.layer, error.operator
        rows[key] = rows.get(key, 0) + 1
    assert rows == (ROWS if mode == "float16" else {**ROWS, **ENDS})
    assert found.unaligned == ()
    assert min(error.sqnr for error in found.layers) > 20
    classes, value = found.outputs
    assert classes.changed < 0.1
    assert value.changed is None
    named = dict(zip(("z_image", "vector"), PAIR, strict=True))
    again = measure(graph, artifact, named, keep_float=())
    assert again.layers == found.layers


def test_a_separable_layer_is_kept_in_float32_entirely(graph):
    artifact = tfnas.to_tflite(graph, "int8", PAIR)
    found = measure(graph, artifact, PAIR, keep_float=[6], calibration=PAIR)
    assert set(found.kept_float[1].layers) == set(found.worst()) >= {"sep", "shared", "conv"}
    assert found.kept_float[1].note == ""
    assert found.kept_float[1].size > artifact.size


def test_operators_without_a_counterpart_are_listed_and_the_others_measured():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, use_bias=False, name="d"),
            layers.BatchNormalization(name="bn"),
            layers.Dense(3, name="last"),
        ]
    )
    bn = model.get_layer("bn")
    bn.set_weights([DRAW.uniform(0.5, 2, 16), *DRAW.normal(size=(2, 16)), np.full(16, 2.0)])
    artifact = tfnas.to_tflite(tfnas.quantize_aware(model, data=X), "int8")
    found = measure(model, artifact, X, keep_float=[2])
    alone = {(op.layer, op.operator, op.file) for op in found.unaligned}
    assert ("d", "FULLY_CONNECTED", "quantized") in alone  # the float one has bn inside
    assert all(op.reason for op in found.unaligned)
    assert "d (FULLY_CONNECTED, quantized): the other file computes no" in str(found)
    errors = by_layer(found)
    assert errors["d"].sqnr > 30  # taken where both files have passed bn
    assert (errors["d"].weights, errors["d"].weight_bits) == (192, 8)
    assert errors["d"].weight_noise is None  # bn is in one kernel and not in the other
    assert errors["last"].sqnr > 30
    assert set(found.kept_float[1].layers) == {"d", "last"}


def test_layers_that_become_float32_unrequested_are_reported():
    keras.utils.set_random_seed(0)
    einsum = layers.EinsumDense("abc,bcd->abd", (4, 16), name="e")  # a kernel for each row
    stack = [layers.Reshape((4, 3)), einsum, layers.Flatten(), layers.Dense(3, name="d")]
    model = keras.Sequential([keras.Input((12,)), *stack])
    found = measure(model, tfnas.to_tflite(model, "int8", X), X, keep_float=[1])
    assert set(found.worst()) == {"e", "d"}
    original, kept = found.kept_float
    assert kept.layers == ("d",)  # quantization-aware conversion has no integer form of e
    assert kept.note == "e became float32 as well"
    assert kept.size > original.size


def test_nested_layers_are_named_by_path():
    keras.utils.set_random_seed(0)

    def part(name):
        stack = [layers.Dense(12, "relu", name="dense"), layers.Dense(12, name="dense_1")]
        return keras.Sequential([keras.Input((12,)), *stack], name=name)

    model = keras.Sequential(
        [keras.Input((12,)), part("one"), part("two"), layers.Dense(3, name="dense")]
    )
    found = measure(model, tfnas.to_tflite(model, "int8", X), X, keep_float=[2])
    names = {"one/dense", "one/dense_1", "two/dense", "two/dense_1", "dense"}
    assert set(found.worst()) == names
    assert found.kept_float[1].layers == found.worst(2)
    assert found.kept_float[1].note == ""


def test_an_operator_that_fixes_the_batch_is_run_one_example_at_a_time():
    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(1, 12))
    x = layers.Dense(8, name="d")(inputs)
    x = keras.ops.reshape(x, (1, 4, 2))
    model = keras.Model(inputs, layers.Dense(2, name="e")(layers.Flatten()(x)))
    found = measure(model, tfnas.to_tflite(model, "int8", X), X[:5], keep_float=())
    assert found.outputs[0].sqnr > 25
    assert {"d", "e"} <= set(by_layer(found))


def test_a_loaded_file_gives_the_same_result(model, int8, found, tmp_path):
    loaded = tfnas.Artifact.load(int8.save(tmp_path / "model.tflite"))
    again = measure(model, loaded, X, keep_float=())
    assert again.layers == found.layers
    assert again.mode == "file"


def test_layers_whose_names_look_like_counters_are_distinguished():
    model = keras.Sequential(
        [keras.Input((4,)), *(layers.Dense(4, name=n) for n in ("dense", "dense_1", "dense_1_2"))]
    )
    names = layer_names.LayerNames(model)
    assert names.mentioned("sequential_1/dense_1/MatMul") == ("dense",)
    assert names.mentioned("sequential_1/dense_1_2/MatMul") == ("dense_1",)
    assert names.mentioned("sequential_1/dense_1_2_1/MatMul") == ("dense_1_2",)
    assert names.mentioned("m_1/quantized_dense_1_2/MatMul;m_1/x_1/Relu") == ("dense_1",)
    assert names.mentioned("arith.constant") == ()


# The record


RECORD = QuantizationError(
    "net",
    "int8",
    100,
    (
        LayerError("body", "CONV_2D", "int8", (1, 4, 4, 8), 0.01, 0.009, 0.25, 1e-4, 576, 8, 1e-5),
        LayerError("add", "ADD", "int8", (1, 4, 4, 8), 0.001, 0.0, 1e-6, 0.0),
        LayerError("head", "FULLY_CONNECTED", "float32", (1, 3), 0.0, 0.0, 0.0, 0.0, 24, 32, 0.0),
    ),
    (
        FloatLayers((), 1000, (OutputError("output_0", 0.1, 0.02), OutputError("b", 0.0, None))),
        FloatLayers(("body",), None, (), "no such file"),
    ),
    (Unaligned("stem", "PAD", "float", "the other file computes none"),),
)


def test_it_prints_as_tables():
    text = str(RECORD)
    assert RECORD.rows() == [
        [
            *("body", "CONV_2D", "1x4x4x8", "int8", "20.0", "9.00e-03", "40.0", "25.00%"),
            *("576", "8", "50.0"),
        ],
        ["add", "ADD", "1x4x4x8", "int8", "30.0", "0", "exact", "<0.01%", "", "", ""],
        ["head", "FULLY_CONNECTED", "1x3", "float32", "exact", "0", "", "", "24", "32", "exact"],
    ]
    assert len(RECORD.headers()) == 11
    assert RECORD.kept_rows() == [
        ["none, the file itself", "0", "1,000", "+0.0%", "10.0 exact", "2.00% -"],
        ["body: no such file", "1", "-", "-", "-", "-"],
    ]
    assert text.index("body ") < text.index("add ") < text.index("head ")
    assert "stem (PAD, float): the other file computes none" in text
    assert "inf" not in text
    assert max(map(len, text.splitlines())) <= 80
    for title in (*RECORD.headers(), *RECORD.kept_headers()):
        assert title in text
    assert "\n" not in repr(RECORD)
    assert RECORD._repr_html_().count("<table>") == 2
    assert RECORD.layers[2].sqnr == RECORD.outputs[1].sqnr == math.inf
    assert RECORD.worst() == ("body",)


def test_json_gives_the_record_back(found, hurt):
    for record in (RECORD, found, hurt):
        again = QuantizationError.from_json(record.to_json())
        assert again == record
        assert str(again) == str(record)
        assert hash(again) == hash(record)
    assert "Infinity" not in RECORD.to_json()


def changed(key=None, **fields):
    known = json.loads(RECORD.to_json())
    place = known if key is None else known[key][0]
    place.update(fields)
    for name in [name for name, value in fields.items() if value is None]:
        del place[name]
    return json.dumps(known)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(layer=1), "unknown key in QuantizationError: layer"),
        (changed(layers=None), "missing key in QuantizationError: layers"),
        (changed("layers", sqnr=3.0), "unknown key in LayerError: sqnr"),
        (changed("kept_float", size=None), "missing key in FloatLayers: size"),
        (changed("kept_float", outputs=[{}]), "missing key in OutputError"),
        (changed("unaligned", why=""), "unknown key in Unaligned: why"),
        (changed(layers=3), "layers must be a list, got 3"),
        (changed(kept_float=[]), "kept_float must begin with the file itself"),
        ("[]", "quantization error must be a JSON object"),
        ("{", "quantization error is not valid JSON"),
    ],
)
def test_other_json_is_refused_and_names_the_key(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        QuantizationError.from_json(text)


def test_a_signal_of_zeros_has_a_finite_noise():
    sums = activation_error.Sums(signal=0.0, noise=1.0)
    assert sums.relative(sums.noise) == activation_error.MAX_NOISE
    assert activation_error.Sums().relative(0.0) == 0.0


def test_the_picture_is_a_png(found, hurt):
    negative = dataclasses.replace(RECORD.layers[0], noise=4.0)
    odd = dataclasses.replace(RECORD, layers=(negative, *RECORD.layers))
    for record in (RECORD, odd, found, hurt):
        assert quantization_picture(record).startswith(b"\x89PNG")


# Bad input


class Plain(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "net"}, "model must be a Keras 3 model, got str"),
        ({"model": Plain(name="p"), "data": X[:0]}, "data must hold at least one example"),
        ({"artifact": b"TFL3"}, "artifact must be a tfnas.Artifact, got bytes"),
        ({"data": X[:0]}, "data must hold at least one example"),
        ({"data": X * np.nan}, "data must be finite"),
        ({"data": X[:, :5]}, "data must have the shape (examples, 12)"),
        ({"data": [X, X]}, "data must hold 1 inputs, got 2"),
        ({"calibration": X[:, :5]}, "calibration must have the shape (examples, 12)"),
        (
            {"keep_float": [-1]},
            "keep_float must be a list of whole numbers >= 0, got [-1]",
        ),
        ({"keep_float": [1.0]}, "keep_float must be a list of whole numbers >= 0"),
        ({"keep_float": [True]}, "keep_float must be a list of whole numbers >= 0"),
        ({"keep_float": 2}, "keep_float must be a list of whole numbers >= 0, got 2"),
        ({"keep_float": "12"}, "keep_float must be a list of whole numbers >= 0"),
    ],
)
def test_errors_name_argument_rule_and_value(model, int8, arguments, message):
    arguments = {"model": model, "artifact": int8, "data": X, **arguments}
    with pytest.raises(ValueError, match=re.escape(message)):
        measure(
            arguments.pop("model"), arguments.pop("artifact"), arguments.pop("data"), **arguments
        )


def test_a_file_must_be_quantized(model):
    with pytest.raises(
        ValueError, match="artifact must have quantized weights or activations, got a file of mode"
    ):
        measure(model, tfnas.to_tflite(model), X)


def test_a_file_must_fit_the_model(model, graph, int8):
    other = keras.Sequential([keras.Input((7,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=re.escape("artifact must take the shape (None, 7)")):
        measure(other, int8, X[:, :7])
    with pytest.raises(ValueError, match="artifact must have the inputs"):
        measure(graph, int8, PAIR)
    inputs = keras.Input((12,))
    twice = keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(3)(inputs)])
    with pytest.raises(ValueError, match="artifact must have the 2 outputs of the model, got 1"):
        measure(twice, int8, X)


@pytest.mark.parametrize("module", [sqnr_module, layer_names, quantization_error])
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("mode", slow_but(["int8", "int8x4"], "int8"))
def test_a_factor_folded_in_one_file_is_no_weight_noise(mode):
    """The float file's kernels hold the Rescaling and the BatchNormalization, the other's don't."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Rescaling(1 / 255),
            layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="wide"),
            layers.Conv2D(4, 3, activation="relu", name="c"),
            layers.Flatten(),
            layers.BatchNormalization(),
            layers.Dense(5, name="head"),
        ]
    )
    norm, rng = model.layers[4], np.random.default_rng(0)
    norm.set_weights([rng.uniform(0.2, 3, w.shape) for w in norm.get_weights()])
    x = rng.uniform(0, 255, (40, 6, 6, 2)).astype(np.float32)
    file = tfnas.to_tflite(tfnas.quantize_aware(model, mode, data=x), mode)
    rows = {row.layer: row for row in measure(model, file, x, keep_float=()).layers}
    by_layer = [rows[name].weight_noise for name in ("wide", "c", "head")]
    assert None not in by_layer
    assert max(by_layer) < (0.03 if mode == "int8x4" else 1e-4)


def test_what_a_split_moves_is_computed_by_the_layer_before_it():
    inputs = keras.Input((4,))
    parts = keras.ops.split(keras.layers.Dense(6, name="d")(inputs), 2, axis=-1)
    model = keras.Model(inputs, keras.layers.Add()(parts))
    rows = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    flow = Flow(tfnas.to_tflite(model, "int8", rows), layer_names.LayerNames(model))
    [split] = [op for op in flow.operators if op.name.startswith("SPLIT")]
    assert flow.computing(split).name == "FULLY_CONNECTED"
