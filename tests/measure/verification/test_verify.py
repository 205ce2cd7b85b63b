"""A file beside its model: verified, or where it departs, why, and what repairs it."""

import dataclasses
import json
import re

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.measure.quantization_debugger.error_report import LayerError
from tfnas.measure.verification.bounds import DEFAULT_BOUNDS, format_of
from tfnas.measure.verification.cases import EXTREME, REAL, Case
from tfnas.measure.verification.output_errors import errors
from tfnas.measure.verification.reasons import reason_of_noise
from tfnas.measure.verification.verify import Verification, _case_checks


def network(resize="bilinear", softmax_axis=-1, approximate=False):
    """Returns an untrained network of seeded weights, of layers that converters get wrong."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Activation(lambda t: keras.activations.gelu(t, approximate), name="smooth")(x)
    x = layers.UpSampling2D(2, interpolation=resize, name="resize")(x)
    x = layers.Flatten()(layers.Softmax(softmax_axis, name="weights")(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def with_weights_of(model, other):
    model.set_weights(other.get_weights())
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(40, 8, 8, 2)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def file(model):
    return tfnas.to_tflite(model)


@pytest.fixture(scope="module")
def dense():
    keras.utils.set_random_seed(0)
    rows = np.random.default_rng(0).normal(size=(200, 12)).astype("float32")
    hidden = layers.Dense(16, activation="relu", name="hidden")
    small = keras.Sequential([keras.Input((12,)), hidden, layers.Dense(4, name="head")])
    return small, rows, tfnas.to_tflite(small, "int8", rows)


def test_a_converted_file_is_verified_on_every_case(model, file, images):
    found = tfnas.verify(model, file, images)
    assert found.passed
    assert found.departure is None
    assert not found.repairs
    cases = [check.case for check in found.checks]
    assert cases == ["real inputs", "ends of ranges", "batch of 1", "batch of 3"]
    assert found.worst().relative <= 1e-5
    assert str(found).startswith("verified: the float32 file computes what")


def test_a_file_of_other_weights_departs_at_the_layer_that_has_them(model, images):
    changed = network()
    changed.get_layer("head").set_weights(
        [w + 0.1 for w in changed.get_layer("head").get_weights()]
    )
    stale = tfnas.to_tflite(changed)
    found = tfnas.verify(model, stale, images, repair=True)
    assert not found.passed
    assert (found.departure.layer, found.departure.operator) == ("head", "FULLY_CONNECTED")
    assert found.departure.before <= 1e-5 < found.departure.after
    assert found.repairs[0].what == "converted again"
    assert found.repairs[0].passed
    assert tfnas.verify(model, found.repaired, images).passed
    assert "departs first" in str(found)
    assert str(found).startswith("not verified: output 'head' of the float32 file differs from")


@pytest.mark.parametrize(
    ("other", "layer", "reason"),
    [
        ({"softmax_axis": 1}, "weights", "the softmax is over axis 1 in the file"),
        ({"resize": "nearest"}, "resize", "resized by nearest with align_corners=False"),
    ],
)
def test_known_reasons_are_named_where_the_numbers_show_them(model, images, other, layer, reason):
    file = tfnas.to_tflite(with_weights_of(network(**other), model))
    departure = tfnas.verify(model, file, images).departure
    assert departure.layer == layer
    assert reason in departure.reason


def strided(kind, explicit):
    """Returns a network that pads a strided layer as Keras does, or equally on both sides."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 2))
    x = layers.ZeroPadding2D(1)(inputs) if explicit else inputs
    layer = kind(strides=2, padding="valid" if explicit else "same", name="strided")
    return keras.Model(inputs, layers.ReLU()(layer(x)))


@pytest.mark.parametrize(
    "kind",
    [
        lambda **options: layers.Conv2D(4, 3, **options),
        lambda **options: layers.DepthwiseConv2D(3, **options),
        lambda **options: layers.AveragePooling2D(3, **options),
    ],
    ids=["Conv2D", "DepthwiseConv2D", "AveragePooling2D"],
)
def test_padding_on_both_sides_is_the_reason_where_the_file_has_it(kind, images):
    keras_form, file_form = strided(kind, False), strided(kind, True)
    file_form.set_weights(keras_form.get_weights())
    found = tfnas.verify(keras_form, tfnas.to_tflite(file_form), np.abs(images))
    # A mean over padding counts zeros in the one form and not in the other: no reason is claimed.
    expected = "" if kind(strides=2).name.startswith("average") else "equal on both sides"
    assert found.departure.layer == "strided"
    assert expected in found.departure.reason


def test_gelu_by_tanh_is_told_from_the_exact_one():
    x = np.linspace(-4, 4, 60).reshape(20, 3).astype("float32")

    def gelu(approximate):
        inputs = keras.Input((3,))
        return keras.Model(inputs, keras.ops.gelu(inputs, approximate))

    found = tfnas.verify(gelu(False), tfnas.to_tflite(gelu(True)), x)
    assert found.departure.reason == "GELU is computed by tanh in the file"


def test_weights_that_float16_can_not_hold_are_the_reason():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(40, use_bias=False, name="large")])
    model.get_layer("large").set_weights([np.full((4, 40), 1e5, "float32")])
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    found = tfnas.verify(model, tfnas.to_tflite(model, "float16"), x, repair=True)
    assert found.departure.reason == "its weights reach 1e+05, and float16 holds 65,504 at most"
    assert found.repairs[-1].passed
    assert format_of(found.repaired) == "float32"


def test_differences_that_grow_from_layer_to_layer_are_told_from_a_wrong_layer():
    """A difference of near numbers makes a small error before it large; the layer is right."""

    def network(scale):
        dense = [layers.Dense(2, use_bias=False, name="first"), layers.Dense(1, name="difference")]
        model = keras.Sequential([keras.Input((2,)), *dense, layers.BatchNormalization()])
        dense[0].set_weights([np.diag([2.0, 2.0 * scale])])
        dense[1].set_weights([np.array([[1.0], [-1.0]]), np.zeros(1)])
        return model

    x = 1 + 0.01 * np.random.default_rng(0).normal(size=(20, 2)).astype("float32")
    departure = tfnas.verify(network(1.0), tfnas.to_tflite(network(1 + 5e-5)), x).departure
    assert departure.layer == "difference"
    assert departure.before < 1e-4 < departure.after < 0.1
    assert "small differences have grown" in departure.reason


TAILS = {
    "a number": (lambda x: x * 0.5, 0.3),
    "a slice": (lambda x: x[:, :2], 0.3),
    "what hides it": (lambda x: layers.Dense(2, use_bias=False)(layers.Softmax()(0.01 * x)), 0.3),
}


@pytest.mark.parametrize("tail", TAILS)
def test_the_error_is_that_of_the_layer_itself(tail):
    """Operations after it keep their other arguments, and may make its error smaller."""
    behind, expected = TAILS[tail]

    def network(scale):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,))
        wrong = layers.Dense(4, use_bias=False, name="wrong")
        model = keras.Model(inputs, behind(wrong(layers.Dense(4, name="right")(inputs))))
        wrong.set_weights([scale * each for each in wrong.get_weights()])
        return model

    x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    departure = tfnas.verify(network(1.0), tfnas.to_tflite(network(1.3)), x).departure
    assert departure.layer == "wrong"
    assert departure.after == pytest.approx(expected, rel=0.05)
    assert departure.reason == ""


def test_outputs_in_another_order_are_named(images):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 2))
    flat = layers.Flatten()(inputs)
    one, two = layers.Dense(3, name="one")(flat), layers.Dense(3, name="two")(flat)
    model, turned = keras.Model(inputs, [one, two]), keras.Model(inputs, [two, one])
    found = tfnas.verify(model, tfnas.to_tflite(turned), images)
    assert not found.passed
    assert found.departure.layer == "one"
    assert "in another order: one is output_1, two is output_0" in found.departure.reason
    assert {check.output for check in found.checks} == {"one", "two"}


def test_an_int8_file_is_verified_within_the_bound_of_its_format(dense):
    model, rows, file = dense
    found = tfnas.verify(model, file, rows)
    assert found.mode == "int8"
    assert found.passed
    assert 1e-4 < found.worst().relative < DEFAULT_BOUNDS["int8"].relative


def test_an_operator_that_moves_numbers_is_not_said_to_round_them():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 6))
    x = layers.MultiHeadAttention(2, 3, name="look")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    rows = np.random.default_rng(0).normal(size=(40, 8, 6)).astype("float32")
    file = tfnas.to_tflite(model, "int8", rows)
    departure = tfnas.verify(model, file, rows, bound=1e-6).departure
    assert (departure.layer, departure.operator) == ("look", "RESHAPE")
    assert departure.after < 1  # of a counterpart that computes the same
    assert departure.reason.startswith(
        "it only moves numbers, which operators before it have computed and rounded; the float "
        "file has no counterpart of this layer's FULLY_CONNECTED"
    )


def test_what_is_judged_is_said_below_the_table(dense):
    model, rows, file = dense
    found = tfnas.verify(model, file, rows)
    bounds = "relative 0.1, largest 0.25, changed 0.03, 1 at the ends of ranges"
    line = "verified, in a row: each error within its bound; bounds of int8, the format of the file"
    assert any(note.startswith(line) and note.endswith(bounds) for note in found.notes())
    assert "bounds as given: relative 0.5" in str(tfnas.verify(model, file, rows, bound=0.5))
    changed = [dataclasses.replace(check, changed=0.75) for check in found.checks]
    table = str(dataclasses.replace(found, checks=tuple(changed)))
    assert "75.0%" in table
    assert "(75.0%)" in table  # of the ends of ranges
    assert "(changed): not judged, since no example lies at the ends of all ranges" in table
    assert "(changed)" not in str(dataclasses.replace(found, checks=tuple(changed[:1])))


class FileOfOutputs:
    """A file beside a model, with outputs as they are given; "head" is its only output."""

    names = ("head",)

    def __init__(self, outputs):
        self.run = outputs

    def outputs(self, case):
        return [self.run(case)]


def test_an_example_whose_classes_are_close_fails_no_batch_that_it_is_in():
    """One change in 40 is below a bound of 3%, and 1 of the 2 examples of a batch of 1 above it."""
    expected = np.tile([[0.0, 1.0]], (40, 1))
    found = expected.copy()
    found[1] = [1.01, 1.0]
    bound, changed = tfnas.Bound(changed=0.03), {}
    file = FileOfOutputs(lambda case: found[: len(case.columns[0])])
    for case in (Case(REAL, (expected,)), Case("batch of 1", (expected[:2],), 1)):
        (check,) = _case_checks(file, case, [expected[: len(case.columns[0])]], bound, changed)
        assert check.passed
    assert check.changed == 0.5  # it is shown

    wrong = FileOfOutputs(lambda case: found[: len(case.columns[0])] * [[-1.0, 1.0]] + [[2.0, 0]])
    case = Case("batch of 3", (expected[:6],), 3)
    (check,) = _case_checks(wrong, case, [expected[:6]], bound, changed)
    assert check.excesses == ("changed",)  # those that change there alone

    real = dataclasses.replace(check, case=REAL, excesses=())
    found = Verification("small", "int8", bound, (real, check))
    assert "83.3%" in found.tables()[0].rows[1]  # not in parentheses
    known = dataclasses.replace(check, case="batch of 1", changed=0.5, excesses=())
    table = str(dataclasses.replace(found, checks=(real, known)))
    assert "(50.0%)" in table
    assert "these examples change among the real" in " ".join(table.split())


def test_changes_at_another_size_are_not_judged():
    expected, found = np.array([[0.0, 1.0]] * 2), np.array([[1.01, 1.0]] * 2)
    case = Case("inputs of 12x12", (expected,), 2, real=False)
    file, bound = FileOfOutputs(lambda case: found), tfnas.Bound(changed=0.03)
    (check,) = _case_checks(file, case, [expected], bound, {})
    assert check.passed
    assert check.changed == 1.0


def test_outputs_without_classes_have_none_that_changed():
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(inputs))
    x = np.random.default_rng(0).normal(size=(20, 5, 4)).astype("float32")
    file = tfnas.to_tflite(model)
    model.get_layer("head").set_weights([w + 1 for w in model.get_layer("head").get_weights()])
    found = tfnas.verify(model, file, x)
    assert {check.changed for check in found.checks} == {None}
    (table,) = found.tables()
    assert {row[table.headers.index("changed")] for row in table.rows} == {"-"}
    assert "relative" in found.answer()
    assert "(bound 0.0001)" in found.answer()


@pytest.mark.parametrize("activation", ["softmax", None])
def test_outputs_of_an_aware_model_have_the_names_of_its_float_layers(activation):
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, "relu", name="body")(inputs)
    heads = [keras.layers.Dense(2, activation, name=name)(x) for name in ("left", "right")]
    aware = tfnas.quantize_aware(keras.Model(inputs, heads), "int8", np.ones((8, 4), "float32"))
    rows = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    found = tfnas.verify(aware, tfnas.to_tflite(aware), rows)
    assert {check.output for check in found.checks} == {"left", "right"}


def test_a_range_that_is_too_narrow_is_the_reason_and_is_repaired(dense):
    model, rows, _ = dense
    narrow = tfnas.to_tflite(model, "int8", 0.2 * rows)
    found = tfnas.verify(model, narrow, rows, repair=True)
    assert not found.passed
    assert "outside of the range" in found.departure.reason
    assert [repair.what for repair in found.repairs] == ["converted again"]
    assert found.repaired is not None
    assert tfnas.verify(model, found.repaired, rows).passed


def test_a_bound_may_be_set_and_stands_in_the_report(dense):
    model, rows, file = dense
    strict = tfnas.verify(model, file, rows, bound=1e-6)
    assert not strict.passed
    assert strict.bound == tfnas.Bound(relative=1e-6)
    assert tfnas.verify(model, file, rows, bound=tfnas.Bound(changed=0.2)).passed
    record = json.loads(strict.to_json())
    assert record["passed"] is False
    assert record["bound"]["relative"] == 1e-6
    with pytest.raises(ValueError, match="relative must be a number of at least 0, got -1"):
        tfnas.verify(model, file, rows, bound=-1)


def test_open_sizes_are_run_at_another_size():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, 3))
    x = layers.Conv1D(4, 3, padding="same", name="conv")(inputs)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    series = np.random.default_rng(0).normal(size=(10, 6, 3)).astype("float32")
    found = tfnas.verify(model, tfnas.to_tflite(model), series)
    assert found.passed
    assert "inputs of 9x3" in {check.case for check in found.checks}


def test_wrong_arguments_are_refused_by_name(model, file, images, dense):
    with pytest.raises(ValueError, match="model must be a Keras 3 model, got str"):
        tfnas.verify("model", file, images)
    with pytest.raises(ValueError, match=r"file must be a tfnas.Artifact or a path, got int"):
        tfnas.verify(model, 3, images)
    with pytest.raises(ValueError, match="data must have the shape"):
        tfnas.verify(model, file, images[:, :4])
    with pytest.raises(ValueError, match="artifact must take the shape"):
        tfnas.verify(model, dense[2], images)


def test_errors_are_those_of_numpy():
    rng = np.random.default_rng(0)
    expected, found = rng.normal(size=(2, 30, 4))
    measured = errors(expected, found)
    difference = expected - found
    assert measured["relative"] == pytest.approx(
        np.linalg.norm(difference) / np.linalg.norm(expected)
    )
    assert measured["largest"] == pytest.approx(np.abs(difference).max() / np.abs(expected).max())
    assert measured["changed"] == np.mean(expected.argmax(1) != found.argmax(1))
    assert errors(expected, np.full_like(expected, np.nan))["relative"] == np.inf
    overflow = np.array([[np.inf, 1.0]])
    assert errors(overflow, overflow)["largest"] == 0.0
    assert errors(np.zeros((2, 3)), np.zeros((2, 3)))["relative"] == 0.0
    assert errors(np.zeros((2, 3)), np.ones((2, 3)))["relative"] == np.inf


def test_the_format_of_a_file_is_that_of_its_tensors(dense):
    _, _, file = dense
    assert format_of(file) == "int8"
    wide = keras.Sequential([keras.Input((64,)), layers.Dense(64)])
    for mode in ("float32", "float16", "dynamic"):
        assert format_of(tfnas.to_tflite(wide, mode)) == mode
    assert dataclasses.replace(DEFAULT_BOUNDS["int8"]).relative == 0.1


def test_a_file_of_8_bits_with_16_inside_is_one_of_8_bits():
    normed = keras.Sequential([keras.Input((6, 8)), layers.LayerNormalization(), layers.Dense(4)])
    x = np.random.default_rng(0).normal(size=(40, 6, 8)).astype("float32")
    file = tfnas.to_tflite(normed, "int8", x)
    assert "int16" in {op.outputs[0].dtype for op in file.graph.operators}
    assert format_of(file) == "int8"


@pytest.mark.parametrize(
    ("noise", "saturation", "reason"),
    [
        (0.2, 0.5, r"it only moves numbers.*; 50% of its values lie outside"),
        (0.2, 0.0, r"it only moves numbers, .* rounded$"),
        (0.1, 0.5, r"50% of its values lie outside"),
        (0.1, 0.0, r"its output is rounded to int8$"),  # a table, that no operator has computed
    ],
)
def test_the_reason_of_an_operator_that_moves_numbers(noise, saturation, reason):
    error = LayerError("look", "GATHER", "int8", (1, 3), noise, 0.1, saturation, 0.0)
    assert re.match(reason, reason_of_noise(error))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float64"])
def test_models_of_other_precisions_are_compared_in_float32(policy):
    """A half-precision model rounds more than a float32 file's bounds allow."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 2), name="image")
    x = inputs
    for name in ("one", "two", "three"):
        x = layers.Conv2D(8, 3, padding="same", activation="relu", dtype=policy, name=name)(x)
    x = layers.Dense(3, dtype=policy, name="head")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Softmax(dtype="float32", name="classes")(x))
    images = np.random.default_rng(0).normal(size=(40, 8, 8, 2)).astype("float32")
    file = tfnas.to_tflite(model)
    found = tfnas.verify(model, file, images)
    assert found.passed
    assert found.precisions == (policy.removeprefix("mixed_"),)
    assert any("with the same model in float32" in note for note in found.notes())
    kernel, bias = model.get_layer("two").get_weights()
    model.get_layer("two").set_weights([kernel * 1.01, bias])
    changed = tfnas.verify(model, file, images)
    assert not changed.passed
    assert changed.departure.layer == "two"


@pytest.mark.parametrize("mode", ["int8", "int16x8"])
def test_what_integers_clip_at_the_ends_of_ranges_is_no_error_of_the_format(mode):
    """All inputs at their ends at once give a sum that no calibration saw."""
    total = keras.Sequential([keras.Input((64,)), layers.Dense(2, kernel_initializer="ones")])
    x = np.random.default_rng(0).normal(size=(40, 64)).astype("float32")
    found = tfnas.verify(total, tfnas.to_tflite(total, mode, x), x)
    assert 0.5 < found.worst(EXTREME).largest < 1.0
    assert found.passed


def test_a_batch_of_small_outputs_is_judged_by_the_size_of_all():
    expected = np.array([[0.01], [1.0], [-1.0]])
    file, real = FileOfOutputs(lambda case: (expected + 0.005)[: len(case.columns[0])]), {}
    for case in (Case(REAL, (expected,)), Case("batch of 1", (expected[:1],), 1)):
        rows = [expected[: len(case.columns[0])]]
        (check,) = _case_checks(file, case, rows, tfnas.Bound(0.01, 0.01), real)
        assert check.passed
    assert check.largest == pytest.approx(0.005)
