"""tfnas.QuantSpec: modes by name, formats of single layers, and invalid arguments."""

import dataclasses

import keras
import pytest

from tfnas import QuantSpec
from tfnas.quantization.spec import MODES, RANGES


@pytest.mark.parametrize(
    ("mode", "weights", "activations", "bits", "data"),
    [
        ("float32", "float32", "float32", 32, False),
        ("float16", "float16", "float32", 32, False),
        ("dynamic", "int8", "float32", 32, False),
        ("int8", "int8", "int8", 8, True),
        ("int16x8", "int8", "int16", 16, True),
        ("int8x4", "int4", "int8", 8, True),
    ],
)
def test_a_mode_is_short_for_a_specification(mode, weights, activations, bits, data):
    spec = QuantSpec.of(mode)
    assert (spec.weights, spec.activations) == (weights, activations)
    assert (spec.mode, spec.activation_bits, spec.needs_calibration) == (mode, bits, data)
    assert spec == QuantSpec(weights, activations)
    assert hash(spec) == hash(QuantSpec(weights, activations))
    assert QuantSpec.of(spec) is spec


def test_modes_are_in_the_order_of_the_table():
    expected = (
        "float32",
        "float16",
        "dynamic",
        "int4",
        "weights8",
        "weights4",
        "int8",
        "int8x4",
        "int16x8",
    )
    assert expected == MODES


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_and_its_record_name_each_other(mode):
    assert QuantSpec.of(mode).mode == mode


def test_weight_only_goes_with_integer_weights_and_float_activations():
    assert QuantSpec("int4", "float32", weight_only=True).mode == "weights4"
    with pytest.raises(ValueError, match="weight_only"):
        QuantSpec("int8", "int8", weight_only=True)


def test_the_default_is_int8():
    assert QuantSpec() == QuantSpec.of("int8")
    assert QuantSpec().layers == ()


@pytest.mark.parametrize("mode", ["int3", "", "INT8", None, 8, ("int8", "int8"), ["int8"]])
def test_unknown_modes_are_refused(mode):
    with pytest.raises(ValueError, match=r"mode must be one of float32, float16, .*, got"):
        QuantSpec.of(mode)


@pytest.mark.parametrize(
    ("weights", "activations"),
    [
        ("int4", "int16"),
        ("float32", "int8"),
        ("float16", "int8"),
        ("int16", "int16"),
        ("int2", "int8"),
        (8, 8),
        (None, "int8"),
    ],
)
def test_pairs_of_formats_without_a_mode_are_refused(weights, activations):
    with pytest.raises(ValueError, match=r"weights/activations must be one of .*, got"):
        QuantSpec(weights, activations)


# --- formats of single layers


@pytest.mark.parametrize(
    ("pattern", "name", "kind", "found"),
    [
        ("head", "head", "Dense", True),
        ("head", "head_2", "Dense", False),
        ("head*", "head_2", "Dense", True),
        ("*", "any", "Conv2D", True),
        ("block_?", "block_1", "Conv2D", True),
        ("block_?", "block_10", "Conv2D", False),
        ("block_[12]", "block_2", "Conv2D", True),
        ("conv", "outer/conv", "Conv2D", True),
        ("outer/conv", "outer/conv", "Conv2D", True),
        ("outer/*", "outer/conv", "Conv2D", True),
        ("outer", "outer/conv", "Conv2D", True),
        ("Dense", "head", "Dense", True),
        ("Dense", "head", "Conv2D", False),
        ("dense", "head", "Dense", False),
        ("HEAD", "head", "Dense", False),
        (keras.layers.Dense, "head", "Dense", True),
        (keras.layers.Dense, "head", "Conv2D", False),
        (keras.layers.Conv2D, "head", "DepthwiseConv2D", False),
    ],
)
def test_layers_are_named_by_name_pattern_path_or_class(pattern, name, kind, found):
    spec = QuantSpec(layers={pattern: "int4"})
    assert spec.weight_bits(name, kind) == (4 if found else 8)
    if found:
        spec.check_patterns([("first", "Other"), (name, kind)])
    else:
        with pytest.raises(ValueError, match=f"layers must name layers .* of first, {name}"):
            spec.check_patterns([("first", "Other"), (name, kind)])


def test_the_first_match_counts():
    spec = QuantSpec(layers={"head": "float32", "h*": "int8", "Dense": "int4"})
    assert spec.weight_bits("head", "Dense") is None
    assert spec.weight_bits("hall", "Dense") == 8
    assert spec.weight_bits("last", "Dense") == 4
    assert spec.weight_bits("last", "Conv2D") == 8


@pytest.mark.parametrize(("mode", "bits"), [("int8", 8), ("int8x4", 4), ("int16x8", 8)])
def test_a_layer_without_a_match_gets_the_bits_of_the_mode(mode, bits):
    assert QuantSpec.of(mode).weight_bits("any", "Dense") == bits
    spec = dataclasses.replace(QuantSpec.of(mode), layers={"head": "float32"})
    assert spec.mode == mode
    assert spec.weight_bits("any", "Dense") == bits
    assert spec.weight_bits("head", "Dense") is None


@pytest.mark.parametrize("layers", [{"a": "int4"}, [("a", "int4")], (("a", "int4"),)])
def test_layers_may_be_a_dictionary_or_pairs(layers):
    assert QuantSpec(layers=layers) == QuantSpec(layers={"a": "int4"})


@pytest.mark.parametrize("value", ["int16", "float16", "int2", 4, None, "", True])
def test_formats_of_a_layer_that_are_refused(value):
    with pytest.raises(ValueError, match="layers must map to int8, int4 or float32, got 'head'"):
        QuantSpec(layers={"head": value})


@pytest.mark.parametrize("layers", ["head", ["head"], {"head"}, 3, [("a", "int4", "b")]])
def test_layers_that_are_no_dictionary_are_refused(layers):
    with pytest.raises(ValueError, match="layers must"):
        QuantSpec(layers=layers)


def test_a_pattern_that_matches_nothing_is_named():
    spec = QuantSpec(layers={"head": "int4", "tail": "int8"})
    with pytest.raises(ValueError, match="got 'tail', which matches none of head, body"):
        spec.check_patterns([("head", "Dense"), ("body", "Dense")])
    QuantSpec().check_patterns([])


# --- the record


def test_specifications_are_values():
    one = QuantSpec(layers={keras.layers.Dense: "int4", "head": "float32"}, ranges="learned")
    two = QuantSpec(layers=[("Dense", "int4"), ("head", "float32")], ranges="learned")
    assert one == two
    assert len({one, two, QuantSpec(), QuantSpec.of("int8")}) == 2
    assert one != QuantSpec(layers={"head": "float32", "Dense": "int4"}, ranges="learned")
    assert eval(repr(one), {"QuantSpec": QuantSpec}) == one
    assert dataclasses.replace(one) == one


def test_specifications_do_not_change():
    layers = {"head": "int4"}
    spec = QuantSpec(layers=layers)
    layers["head"] = "int8"
    assert spec.weight_bits("head", "Dense") == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.weights = "int4"


@pytest.mark.parametrize("ranges", RANGES)
def test_every_kind_of_range_is_accepted(ranges):
    assert QuantSpec(ranges=ranges).ranges == ranges


@pytest.mark.parametrize(
    ("argument", "value", "match"),
    [
        ("ranges", "minmax", "ranges must be one of moving_average, .*, learned, got 'm"),
        ("ranges", None, "ranges must be one of .*, got None"),
        ("momentum", 1.0, r"momentum must be in \[0, 1\), got 1.0"),
        ("momentum", -0.1, r"momentum must be in \[0, 1\), got -0.1"),
        ("momentum", float("nan"), r"momentum must be in \[0, 1\), got nan"),
        ("percentile", 50.0, r"percentile must be in \(50, 100\), got 50.0"),
        ("percentile", 100.0, r"percentile must be in \(50, 100\), got 100.0"),
        ("percentile", float("nan"), r"percentile must be in \(50, 100\), got nan"),
    ],
)
def test_settings_of_ranges_that_are_refused(argument, value, match):
    with pytest.raises(ValueError, match=match):
        QuantSpec(**{argument: value})


def test_bits_of_states_go_with_loops_alone():
    match = "state_bits must be 16 with recurrent 'fused'.*got state_bits=8, recurrent='fused'"
    with pytest.raises(ValueError, match=match):
        QuantSpec(recurrent="fused", state_bits=8)
    assert QuantSpec(recurrent="loop", state_bits=8).state_bits == 8
