"""tfnas.QuantSpec: the specification of a mode."""

import pytest

from tfnas.quantization.spec import MODES, QuantSpec


@pytest.mark.parametrize(
    ("mode", "weights", "activations", "calibrated"),
    [
        ("float32", "float32", "float32", False),
        ("float16", "float16", "float32", False),
        ("dynamic", "int8", "float32", False),
        ("int8", "int8", "int8", True),
        ("int16x8", "int8", "int16", True),
    ],
)
def test_quant_spec_of_a_mode(mode, weights, activations, calibrated):
    spec = QuantSpec.of(mode)
    assert spec == QuantSpec(weights, activations)
    assert spec.mode == mode
    assert spec.needs_calibration is calibrated
    assert QuantSpec.of(spec) is spec


def test_quant_spec_refuses_unknown_modes():
    known = ", ".join(MODES)
    with pytest.raises(ValueError, match=f"mode must be one of {known}, got 'int3'"):
        QuantSpec.of("int3")
    with pytest.raises(ValueError, match=r"one of float32/float32, .*, got float16/int8"):
        QuantSpec("float16", "int8")
