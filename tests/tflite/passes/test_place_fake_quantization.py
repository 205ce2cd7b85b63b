import dataclasses

import keras
import pytest
from small_conversions import X, conversion

import tfnas
from tfnas.quantization.aware_models import fake_quants, has_4_bit_kernel
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.passes.place_fake_quantization import place_fake_quantization


def test_the_model_gets_ranges_of_the_data():
    state = conversion("int8x4", columns=(X,))
    placed = place_fake_quantization(state)
    assert placed.float_model is state.model
    assert placed.aware
    assert has_4_bit_kernel(placed.model)
    assert all(layer.observed for layer in fake_quants(placed.model))
    assert not fake_quants(state.model)


@pytest.mark.parametrize(
    ("mode", "aware"),
    [("int8", False), ("int4", False), ("int8x4", True)],
    ids=["the converter's own ranges", "float activations", "ranges of training"],
)
def test_other_models_stay_as_they_are(mode, aware):
    state = conversion(mode, aware=aware, columns=(X,))
    assert place_fake_quantization(state) is state


@pytest.mark.parametrize("change", [{"ranges": "percentile"}, {"correct": True}])
def test_a_file_with_fake_quantization_is_not_stored_sparse(change):
    spec = dataclasses.replace(QuantSpec.of("int8"), **change)
    with pytest.raises(ValueError, match="sparse must be False for an integer file with"):
        tfnas.to_tflite(keras.Sequential([keras.Input((3,))]), spec, X, sparse=True)


def test_four_bits_for_no_kernel_are_refused():
    spec = QuantSpec("int4", "int8", layers={"*": "int8"})
    with pytest.raises(ValueError, match="mode 'int8x4' must give 4 bits to the kernel of some"):
        place_fake_quantization(conversion(spec, columns=(X,)))
