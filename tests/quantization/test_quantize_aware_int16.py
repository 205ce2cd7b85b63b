"""tfnas.quantize_aware with 16-bit activations: every kind of layer, and what differs."""

import functools

import aware_checks as checks
import aware_kinds as base
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.tflite.graph_repair import repair

MODE = "int16x8"
# Steps, for 99% of the numbers. 16-bit kernels use lookup tables and 16-bit multipliers, and one
# step of a wide range can be five of the narrower one after it ("relu, relu of 1").
TAIL = 5.001
# Those of int8 are others where their forms are the same.
SHORT = (
    "kernels of images",
    "kernels of vectors",
    "moves of sequences",
    "operations of vectors",
)
ALL = [group for group in base.GROUPS if group in SHORT or group not in base.PARTS]
GROUPS = slow_but(ALL, *SHORT)
L = layers


@functools.cache
def case(name):
    """The model of a group, its data, its quantization-aware model and its file."""
    kinds = base.GROUPS[name]
    shape = base.KINDS[kinds[0]][0]
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape, name="given")
    model = keras.Model(inputs, [base.KINDS[kind][1](inputs) for kind in kinds], name="net")
    return checks.quantized(checks.randomize(model), base.examples(shape), MODE, MODE, names=kinds)


def file_of(c):
    if isinstance(c.file, Exception):
        raise c.file
    return c.file


def steps_apart(trainable, file, x):
    found = keras.tree.flatten(file.predict(x, reference=True))
    pairs = zip(found, checks.predict(trainable, x), file.outputs, strict=True)
    return [np.abs(a - b) / output.scale for a, b, output in pairs]


# --- every kind of layer


@pytest.mark.parametrize("kind", GROUPS)
def test_the_file_holds_integers_only_and_agrees_with_the_model(kind):
    c = case(kind)
    assert tfnas.unquantized_layers(c.trainable) == []
    checks.assert_near(
        checks.predict(c.trainable, c.x), checks.predict(c.model, c.x), 0.03, c.names
    )
    file = file_of(c)
    assert checks.floats_in(file) == []
    assert {t.dtype for t in (*file.inputs, *file.outputs)} == {"int16"}
    outputs = {t.dtype for op in file.graph.operators for t in op.outputs}
    assert outputs <= {"int16", "int32"}  # int32 are shapes
    assert set(checks.kernels_of(file)) <= {"int8"}
    points = {p for t in file.graph.tensors if t.dtype == "int16" for p in t.zero_points}
    assert points <= {0}
    checks.assert_agree(c.trainable, file, c.x, c.names, TAIL)


@pytest.mark.parametrize("kind", slow_but(ALL, "kernels of images", "moves of sequences"))
def test_strip_and_saving_keep_the_function(kind, tmp_path):
    c = case(kind)
    float_model = tfnas.strip_quantization(c.trainable)
    assert fake_quants(float_model) == []
    for a, b in zip(checks.predict(float_model, c.x), checks.predict(c.model, c.x), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6 * max(1.0, np.abs(b).max()))
    c.trainable.save(tmp_path / "m.keras")
    loaded = tfnas.load_model(tmp_path / "m.keras")
    for a, b in zip(checks.predict(loaded, c.x), checks.predict(c.trainable, c.x), strict=True):
        np.testing.assert_array_equal(a, b)


# --- a trained classifier


@pytest.fixture(scope="module")
def trained(digits):
    model = checks.classifier()
    checks.fit(model, digits, 2)
    trainable = tfnas.quantize_aware(model, MODE, data=digits.x_train[:100])
    checks.fit(trainable, digits, 2)
    return model, trainable, tfnas.to_tflite(trainable, MODE)


def mixtures(digits, count=1000):
    rng = np.random.default_rng(0)
    one, other = digits.x_test[rng.integers(0, len(digits.x_test), (2, count))]
    weight = rng.uniform(size=(count, 1, 1, 1))
    return (weight * one + (1.0 - weight) * other).astype(np.float32)


def test_a_trained_model_and_its_file_agree(trained, digits):
    _, trainable, file = trained
    x = mixtures(digits)
    expected, found = np.asarray(trainable(x)), file.predict(x)
    first, second = np.sort(expected, axis=1)[:, :-3:-1].T
    sure = first - second > 0.05  # 1,638 steps; a mixture of two digits may be as much of both
    assert sure.mean() > 0.7
    np.testing.assert_array_equal(expected[sure].argmax(1), found[sure].argmax(1))
    (steps,) = steps_apart(trainable, file, x)
    assert np.median(steps) <= 1.0  # 0 seen
    assert np.quantile(steps, 0.99) <= 4.0  # 3 seen


def test_sixteen_bits_are_nearer_to_the_float_model_than_eight(trained, digits):
    model = trained[0]
    x, errors = digits.x_test[:200], {}
    for mode in ("int8", MODE):
        aware = tfnas.quantize_aware(model, mode, data=digits.x_train[:200])
        errors[mode] = np.square(np.asarray(aware(x)) - np.asarray(model(x))).mean()
    assert errors[MODE] < 0.5 * errors["int8"]


def test_the_file_gives_back_what_the_interpreter_computes(trained, digits):
    file = trained[2]
    assert (file.mode, file.inputs[0].dtype, file.outputs[0].dtype) == (MODE, "int16", "int16")
    assert file.outputs[0].scale == 2.0**-15
    assert file.origin["quantization_aware"] is True
    biases = [op.inputs[2].dtype for op in file.graph.operators if len(op.inputs) == 3]
    assert "int64" in biases
    assert "int32" not in biases


def test_a_sum_of_tensors_of_two_shapes():
    """The converter's ADD of 16 bits takes equal shapes alone."""
    keras.utils.set_random_seed(1)
    image, condition = keras.Input((4, 4, 8), name="image"), keras.Input((5,), name="condition")
    shift = layers.Dense(8, name="shift")(condition)
    normal = layers.LayerNormalization(name="normal")(image)
    model = keras.Model([image, condition], shift[:, None, None, :] + normal)
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(40, *each.shape[1:])).astype(np.float32) for each in model.inputs]
    trainable = tfnas.quantize_aware(model, MODE, data=x)
    expected = model.predict(x, verbose=0)
    assert np.abs(trainable.predict(x, verbose=0) - expected).max() <= 2e-3 * np.ptp(expected)
    (steps,) = steps_apart(trainable, tfnas.to_tflite(trainable, MODE), x)
    assert np.quantile(steps, 0.99) <= TAIL
    # A pattern knows it by the class that it has in the model, and leaves it as it is there.
    left = tfnas.quantize_aware(model, tfnas.QuantSpec("int8", "int16", layers={"Add": "float32"}))
    assert {each.kind for each in tfnas.unquantized_layers(left)} == {"Add"}
    other = tfnas.QuantSpec("int8", "int16", layers={"Subtract": "float32"})
    with pytest.raises(ValueError, match="'Subtract'"):
        tfnas.quantize_aware(model, other)


# --- ranges


@pytest.mark.slow  # int8 has all of them
@pytest.mark.parametrize("ranges", ["moving_average", "learned", "percentile"])
def test_every_way_to_find_ranges(ranges, digits):
    spec = tfnas.QuantSpec("int8", "int16", ranges=ranges)
    trainable = tfnas.quantize_aware(checks.classifier(), spec)
    losses = checks.fit(trainable, digits, 2, count=400).history["loss"]
    assert losses[1] < losses[0]
    file = tfnas.to_tflite(trainable, spec)
    (steps,) = steps_apart(trainable, file, digits.x_test[:200])
    assert np.median(steps) <= 1.0


def test_a_sixteen_bit_grid_is_symmetric_around_0():
    import tensorflow as tf

    layer = FakeQuant(16, momentum=0.0)
    x = tf.constant([-1.0, 0.0, 0.3, 3.0])
    layer(x, training=True)
    assert (float(layer.low), float(layer.high)) == (-1.0, 3.0)
    step = 3.0 / 32767
    values = np.asarray(layer(tf.constant([-9.0, -step, 0.0, 0.4 * step, 0.6 * step, 9.0])))
    np.testing.assert_allclose(values / step, [-32767, -1, 0, 0, 1, 32767], atol=0.01)


# --- other formats


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({"*": "int4"}, ["int4", "int8", "int4"]),  # no 4-bit depthwise convolution
        pytest.param({"first": "float32"}, ["float32", "int8", "int8"], marks=pytest.mark.slow),
    ],
)
def test_formats_of_single_layers(layers, expected):
    spec = tfnas.QuantSpec("int8", "int16", layers=layers)
    c = checks.quantized(checks.three_layers(), base.examples(base.IMAGE), spec, spec)
    assert checks.kernels_of(file_of(c)) == expected
    checks.assert_agree(c.trainable, c.file, c.x, tail=TAIL)
    assert bool(tfnas.unquantized_layers(c.trainable)) == ("float32" in expected)


@pytest.mark.parametrize(
    "kind",
    [
        "normalization of an axis",
        "powers",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("custom", "attention", "embedding")),
    ],
)
def test_a_float_layer_does_not_prevent_the_quantization_of_others(kind):
    shape, build = checks.FLOATS[kind]
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape, name="given")
    head = L.Dense(3, name="head")(L.Flatten()(build(inputs)))
    model = checks.randomize(keras.Model(inputs, head))
    c = checks.quantized(model, base.examples(shape, 100), checks.allowed(model, MODE), MODE)
    file = file_of(c)
    assert {t.dtype for t in (*file.inputs, *file.outputs)} == {"int16"}
    assert bool(tfnas.unquantized_layers(c.trainable)) == bool(checks.floats_in(file))
    last = [op for op in file.graph.operators if op.name == "FULLY_CONNECTED"][-1]
    assert (last.inputs[1].dtype, last.outputs[0].dtype) == ("int8", "int16")
    checks.assert_agree(c.trainable, file, c.x, tail=TAIL)


@pytest.mark.parametrize(("trained", "mode"), [(MODE, "int8"), ("int8", MODE)])
def test_export_with_other_bits_is_refused(trained, mode):
    trainable = tfnas.quantize_aware(checks.small(), trained, data=base.examples(base.VECTOR))
    with pytest.raises(ValueError, match=f"mode must have activations of .* got '{mode}'"):
        tfnas.to_tflite(trainable, mode)


# --- repair of the file


@pytest.mark.parametrize("mode", ["int8", MODE])
def test_a_bias_that_the_converter_has_clipped_is_refused(mode):
    model = keras.Sequential([keras.Input((6,)), L.Dense(3, name="only")], name="net")
    model.layers[0].kernel.assign(np.full((6, 3), 1e-6))
    model.layers[0].bias.assign([1e5, -1e5, 3.0])
    trainable = tfnas.quantize_aware(model, mode, data=1e-3 * base.examples((6,)))
    match = f"'net' can't be converted to {mode}: biases must fit into 32 bits, got .*only"
    with pytest.raises(tfnas.ConversionError, match=match):
        tfnas.to_tflite(trainable, mode)


def test_a_channel_of_tiny_weights_is_quantized():
    """Weight decay leaves such channels behind: weights near 0, and a bias."""
    keras.utils.set_random_seed(0)
    conv, norm = L.Conv2D(4, 3, use_bias=False), L.BatchNormalization()
    model = keras.Sequential([keras.Input(base.IMAGE), conv, norm, L.ReLU()])
    conv.kernel.assign(np.asarray(conv.kernel) * [1.0, 1e-20, 1.0, 1e-7])
    x = base.examples(base.IMAGE)
    outputs = np.asarray(conv(x))
    norm.moving_mean.assign(outputs.mean((0, 1, 2)))
    norm.moving_variance.assign(outputs.var((0, 1, 2)))
    norm.beta.assign([0.1, 0.7, -0.1, 0.2])
    trainable = tfnas.quantize_aware(model, MODE, data=x)
    checks.assert_near(checks.predict(trainable, x), checks.predict(model, x), 0.01)
    (steps,) = steps_apart(trainable, tfnas.to_tflite(trainable, MODE), x)
    assert steps.max() <= 2.0


@pytest.mark.parametrize("mode", slow_but(["int8", MODE], MODE))
@pytest.mark.parametrize("number", slow_but([3.0, -3.0, 0.0], -3.0, 0.0))
def test_adding_a_number_far_larger_than_the_input(mode, number):
    inputs, x = keras.Input((6,)), 1e-7 * base.examples((6,))
    model = keras.Model(inputs, 2.0 * (inputs + number))
    trainable = tfnas.quantize_aware(model, mode, data=x)
    file = tfnas.to_tflite(trainable, mode)
    assert checks.floats_in(file) == []
    np.testing.assert_allclose(file.predict(x), 2.0 * number, atol=1e-6 + file.outputs[0].scale)


def test_a_network_of_tiny_activations_can_be_converted():
    """Activations of an untrained network can vanish; the interpreter refuses tiny scales."""
    model = keras.Sequential([keras.Input((6,)), L.Dense(5, use_bias=False), L.ReLU(6.0)])
    model.layers[0].kernel.assign(1e-9 * np.asarray(model.layers[0].kernel))
    trainable = tfnas.quantize_aware(model, MODE, data=base.examples((6,)))
    file = tfnas.to_tflite(trainable, MODE)
    assert np.abs(file.predict(base.examples((6,)))).max() <= 1e-6


def edited(content, edit):
    """The file after a change of its objects."""
    import flatbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    edit(model)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_a_logistic_whose_scale_other_operators_need_is_refused():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, L.Activation("sigmoid")(L.Dense(4)(inputs)))
    trainable = tfnas.quantize_aware(model, MODE, data=base.examples((6,)))
    content = tfnas.to_tflite(trainable, MODE).content
    assert repair(content) == repair(repair(content))

    def make_it_an_output(model):
        graph = model.subgraphs[0]
        kinds = [model.operatorCodes[op.opcodeIndex].builtinCode for op in graph.operators]
        logistic = graph.operators[kinds.index(schema.BuiltinOperator.LOGISTIC)]
        graph.outputs = np.array(logistic.outputs)

    with pytest.raises(ValueError, match="a 16-bit LOGISTIC must be followed by a QUANTIZE or MUL"):
        repair(edited(content, make_it_an_output))
