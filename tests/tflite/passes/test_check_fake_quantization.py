import pytest
from small_conversions import conversion, network, quantized

import tfnas
from tfnas.quantization.aware_models import fake_quants
from tfnas.tflite.passes import check_fake_quantization as module
from tfnas.tflite.passes.check_fake_quantization import check_fake_quantization


def test_a_model_that_is_ready_goes_through():
    state = conversion("int8", quantized(), aware=True)
    assert check_fake_quantization(state) is state


def test_a_float_model_goes_through_whatever_the_request():
    state = conversion("int8", sparse=True)
    assert check_fake_quantization(state) is state


@pytest.mark.parametrize(
    ("mode", "sparse", "match"),
    [
        ("int8", True, "sparse must be False for a quantization-aware model, got True"),
        ("int16x8", False, "mode must have activations of 8 bits as model .* got 'int16x8'"),
        ("int8x4", False, "mode must have weights of 8 bits as model .* got 'int8x4'"),
    ],
)
def test_requests_that_do_not_fit_the_training_are_refused(mode, sparse, match):
    with pytest.raises(ValueError, match=match):
        check_fake_quantization(conversion(mode, quantized(), aware=True, sparse=sparse))


def test_models_that_are_not_ready_are_refused(monkeypatch):
    state = conversion("int8", tfnas.quantize_aware(network()), aware=True)
    with pytest.raises(ValueError, match=r"model must have seen data .* got no range for"):
        check_fake_quantization(state)
    state = conversion("int8", quantized(), aware=True)
    for layer in fake_quants(state.model):
        layer.active = False
    with pytest.raises(ValueError, match=r"model must round its activations, got '.*' inactive"):
        check_fake_quantization(state)
    monkeypatch.setattr(module, "other_precision_layers", lambda model: ["first"])
    with pytest.raises(
        ValueError, match=r"model must compute in float32 .* got 'first' of another"
    ):
        check_fake_quantization(state)
