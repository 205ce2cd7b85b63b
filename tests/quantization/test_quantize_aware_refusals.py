"""tfnas.quantize_aware: what is refused, and how the message says it."""

import keras
import numpy as np
import pytest
from aware_checks import kernels_of, small
from aware_kinds import VECTOR, L, examples

import tfnas
from tfnas.quantization.aware_models import fake_quants

# --- what is refused


@pytest.mark.parametrize("model", [None, "model", L.Dense(3)])
def test_other_objects_are_refused(model):
    with pytest.raises(ValueError, match="model must be a Keras 3 model, got"):
        tfnas.quantize_aware(model)


def test_a_model_that_was_never_built_is_refused():
    with pytest.raises(ValueError, match="model must be built, got 'raw'"):
        tfnas.quantize_aware(keras.Sequential([L.Dense(2)], name="raw"))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_is_opened():
    model = Subclassed()
    model(np.zeros((1, 3)))
    trainable = tfnas.quantize_aware(model)
    assert "quantized_dense" in " ".join(layer.name for layer in trainable.layers)
    assert not tfnas.unquantized_layers(trainable)


def test_a_subclassed_model_without_known_shapes_is_refused():
    with pytest.raises(ValueError, match="model must be built, got 'own'"):
        tfnas.quantize_aware(Subclassed())


def test_a_model_that_is_quantized_already_is_refused():
    trainable = tfnas.quantize_aware(small())
    with pytest.raises(ValueError, match="model must not be quantized yet, got 'small', which is"):
        tfnas.quantize_aware(trainable)


def test_kernels_of_lora_and_of_keras_own_integers_are_refused_by_name():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="head")])
    model.get_layer("head").enable_lora(2)
    with pytest.raises(ValueError, match="no LoRA weights, got those of 'head'"):
        tfnas.quantize_aware(model)
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="head")])
    model.get_layer("head").quantize("int8")
    for function in (tfnas.quantize_aware, tfnas.to_tflite):
        with pytest.raises(ValueError, match="got 'head' of int8 kernels by Keras' quantize"):
            function(model)


@pytest.mark.parametrize(
    "function", [tfnas.strip_quantization, lambda m: tfnas.calibrate(m, examples(VECTOR))]
)
def test_a_float_model_has_nothing_to_strip_or_calibrate(function):
    with pytest.raises(ValueError, match="model must be quantization-aware, got 'small'"):
        function(small())


@pytest.mark.parametrize("pattern", ["onyl", "Conv2D", "small"])
def test_a_specification_that_names_no_layer_is_refused(pattern):
    spec = tfnas.QuantSpec(layers={pattern: "int4"})
    with pytest.raises(ValueError, match=f"got '{pattern}', which matches none of only"):
        tfnas.quantize_aware(small(), spec)


@pytest.mark.parametrize("spec", ["float32", "float16", "dynamic"])
def test_specifications_of_floats_are_refused(spec):
    with pytest.raises(ValueError, match=f"spec must have integer .* got '{spec}'"):
        tfnas.quantize_aware(small(), spec)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"mode must be one of float32, .*, got 'int3'"):
        tfnas.quantize_aware(small(), "int3")


@pytest.mark.parametrize("spec", ["int16x8", "int8x4", tfnas.QuantSpec(layers={"*": "int4"})])
def test_the_engine_of_tfmot_takes_eight_bits_alone(spec):
    with pytest.raises(ValueError, match="spec must be 'int8', tfmot's only one"):
        tfnas.quantize_aware(small(), spec, engine="tfmot")


@pytest.mark.parametrize("engine", ["keras", None, ""])
def test_an_unknown_engine_is_refused(engine):
    with pytest.raises(ValueError, match="engine must be 'tfnas' or 'tfmot', got"):
        tfnas.quantize_aware(small(), engine=engine)


BAD_DATA = {
    "empty": (np.zeros((0, 6)), "data must hold at least one example"),
    "nan": (np.full((5, 6), np.nan), "data must be finite"),
    "inf": (np.full((5, 6), np.inf), "data must be finite"),
    "shape": (np.zeros((5, 7)), r"data must have the shape"),
    "rank": (np.zeros((5, 6, 1)), r"data must have the shape"),
    "two inputs": ([np.zeros((5, 6)), np.zeros((5, 6))], "data must hold 1 input"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_data_that_does_not_fit_is_refused(kind):
    data, match = BAD_DATA[kind]
    with pytest.raises(ValueError, match=match):
        tfnas.quantize_aware(small(), data=data)
    trainable = tfnas.quantize_aware(small())
    with pytest.raises(ValueError, match=match):
        tfnas.calibrate(trainable, data)
    assert not any(q.observed or q.observing for q in fake_quants(trainable))


def test_export_before_any_data_was_seen_is_refused():
    trainable = tfnas.quantize_aware(small())
    match = "must have seen data before it is exported, got no range for 'input_range' and 1 more"
    with pytest.raises(ValueError, match=match):
        tfnas.to_tflite(trainable, "int8")


@pytest.mark.parametrize(("spec", "mode"), [("int8", "int16x8"), ("int8", "int8x4")])
def test_export_in_a_mode_of_other_bits_is_refused(spec, mode):
    trainable = tfnas.quantize_aware(small(), spec, data=examples(VECTOR))
    with pytest.raises(ValueError, match=f"mode must have .* got '{mode}'"):
        tfnas.to_tflite(trainable, mode)


def test_four_bits_need_calibration_or_training():
    with pytest.raises(ValueError, match="calibration must hold typical inputs for mode 'int8x4'"):
        tfnas.to_tflite(small(), "int8x4")
    assert kernels_of(tfnas.to_tflite(small(), "int8x4", examples(VECTOR))) == ["int4"]


def test_a_sparse_file_of_a_trained_model_is_refused():
    trainable = tfnas.quantize_aware(small(), data=examples(VECTOR))
    with pytest.raises(ValueError, match="sparse must be False for a quantization-aware model"):
        tfnas.to_tflite(trainable, "int8", sparse=True)
