import pytest
from small_conversions import X, conversion, network, quantized

from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.float32_model import other_precision_layers
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.passes import prepare_model
from tfnas.tflite.passes.prepare_model import prepare


def test_a_float32_model_stays_as_it_is():
    state = conversion("int8", calibration=X, sparse=True)
    prepared = prepare(state)
    assert prepared.model is state.model
    assert (prepared.aware, prepared.sparse, prepared.spec) == (False, True, state.spec)
    assert prepared.calibration is X


def test_a_mixed_precision_model_becomes_float32():
    state = conversion(model=network("mixed_float16"))
    prepared = prepare(state)
    assert other_precision_layers(state.model)
    assert not other_precision_layers(prepared.model)


@pytest.mark.parametrize(("mode", "aware"), [("int8", True), ("float32", False), ("int4", False)])
def test_fake_quantization_stays_for_integer_activations_alone(mode, aware):
    prepared = prepare(conversion(mode, quantized()))
    assert prepared.aware is aware
    assert bool(fake_quants(prepared.model)) is aware


def test_formats_of_layers_are_refused_for_float16():
    spec = QuantSpec("float16", "float32", layers={"first": "int8"})
    with pytest.raises(ValueError, match=r"layers must be empty for mode 'float16', got \{'first'"):
        prepare(conversion(spec))


def test_a_model_of_tf_keras(monkeypatch):
    monkeypatch.setattr(prepare_model, "is_tf_keras", lambda model: True)
    monkeypatch.setattr(prepare_model, "is_quantized", lambda model: False)
    assert not prepare(conversion("int8")).aware
    with pytest.raises(ValueError, match="model must be a Keras 3 model for 4-bit weights"):
        prepare(conversion("int8x4"))
    monkeypatch.setattr(prepare_model, "is_quantized", lambda model: True)
    assert prepare(conversion("int8")).aware
    with pytest.raises(ValueError, match="mode must be 'int8' for model 'small', which tfmot"):
        prepare(conversion("int16x8"))
