import pytest
from small_conversions import conversion, float_file

from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.passes import quantize_weights as module
from tfnas.tflite.passes.quantize_weights import quantize_weights


def test_weights_of_a_float_file_are_quantized():
    quantized = quantize_weights(conversion("weights8", artifact=float_file())).file
    assert quantized.mode == quantized.origin["mode"] == "weights8"
    assert quantized.origin["recipe"]
    assert "int8" in {tensor.dtype for tensor in quantized.graph.tensors}


def test_other_files_stay_as_they_are():
    state = conversion("float16", artifact=float_file())
    assert quantize_weights(state) is state


def test_formats_that_fit_no_layer_are_refused():
    spec = QuantSpec(activations="float32", layers={"other": "int4"})
    with pytest.raises(ValueError, match="layers must name layers with a kernel, got 'other'"):
        quantize_weights(conversion(spec, artifact=float_file()))


def test_the_quantized_file_is_checked(monkeypatch):
    def refuse(artifact, spec):
        raise ConversionError(f"{artifact.mode} {spec.mode}")

    monkeypatch.setattr(module, "check_formats", refuse)
    with pytest.raises(ConversionError, match="weights8 weights8"):
        quantize_weights(conversion("weights8", artifact=float_file()))
