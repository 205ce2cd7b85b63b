"""Activation functions as integers: tables for 8 bits, several operators for 16."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from slow_cases import slow_but

import tfnas
from tfnas.quantization.quantize_aware import quantize_aware_partly

TABLES = {
    "elu": lambda: layers.ELU(),
    "selu": lambda: layers.Activation("selu"),
    "softplus": lambda: layers.Activation("softplus"),
    "mish": lambda: layers.Activation("mish"),
    "exponential": lambda: layers.Activation("exponential"),
    "hard_sigmoid": lambda: layers.Activation("hard_sigmoid"),
    "relu": lambda: layers.ReLU(negative_slope=0.1, max_value=2.0, threshold=0.2),
    "clip": lambda: lambda x: ops.clip(x, -0.5, 0.5),
    "power": lambda: lambda x: x**3,
}
BOTH = {
    "gelu": lambda: layers.Activation("gelu"),
    "approximate gelu": lambda: lambda x: ops.gelu(x, approximate=True),
    "silu": lambda: layers.Activation("silu"),
    "prelu": lambda: layers.PReLU(shared_axes=[1], alpha_initializer="random_uniform"),
    "leaky": lambda: layers.ReLU(negative_slope=0.2),
    "softmax": lambda: layers.Softmax(),
    # The converter failed on these behind a Dense layer of many places, and on a number times a
    # tensor of five dimensions.
    "product": lambda: lambda x: x * x,
    "square": lambda: ops.square,
    "half": lambda: lambda x: layers.Reshape((6, 2, 2, 4))(x) * 0.5,
    "transposed": lambda: layers.Conv1DTranspose(4, 3, 2, "same", activation="gelu"),
}
ONLY_16 = {"elu": lambda: layers.ELU(0.7), "selu": lambda: layers.Activation("selu")}
MODES = {"int8": {**BOTH, **TABLES}, "int16x8": {**BOTH, **ONLY_16}}
X = np.random.default_rng(0).normal(size=(60, 6, 16)).astype("float32")


@pytest.fixture(scope="module", params=MODES)
def case(request):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 16))
    heads = [build()(layers.Dense(16)(inputs)) for build in MODES[request.param].values()]
    model = keras.Model(inputs, heads)
    trainable = tfnas.quantize_aware(model, request.param, data=X)
    return model, trainable, tfnas.to_tflite(trainable, request.param)


def test_every_operator_is_of_integers(case):
    _, trainable, file = case
    assert tfnas.unquantized_layers(trainable) == []
    dtypes = {t.dtype for op in file.graph.operators for t in (*op.inputs, *op.outputs)}
    assert not [dtype for dtype in dtypes if dtype.startswith("float")]


def test_file_and_keras_agree(case):
    _, trainable, file = case
    found, expected = file.predict(X, reference=True), trainable.predict(X, verbose=0)
    for name, answer, twin in zip(MODES[file.mode], found, expected, strict=True):
        step = np.ptp(twin) / (255 if file.mode == "int8" else 4000)
        steps = np.abs(answer - twin) / step
        assert np.median(steps) <= 1.0, name
        assert steps.max() <= 3.01, name


def test_the_form_is_near_the_function(case):
    model, trainable, file = case
    most = 0.02 if file.mode == "int8" else 0.006
    for name, found, expected in zip(MODES[file.mode], trainable(X), model(X), strict=True):
        error = np.sqrt(np.mean(np.square(np.asarray(found) - np.asarray(expected))))
        assert error <= most * np.ptp(np.asarray(expected)), name


def test_quantization_is_stripped(case):
    model, trainable, _ = case
    for found, expected in zip(tfnas.strip_quantization(trainable)(X), model(X), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("case", slow_but([*MODES], "int8"), indirect=True)
def test_a_saved_model_computes_the_same(case, tmp_path):
    _, trainable, _ = case
    trainable.save(tmp_path / "model.keras")
    again = tfnas.load_model(tmp_path / "model.keras")
    for found, expected in zip(again(X[:8]), trainable(X[:8]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_function_without_a_16_bit_form_stays_float_by_name():
    inputs = keras.Input((6,))
    outputs = layers.Dense(3)(layers.Dense(4, "softplus", name="dense")(inputs))
    model = keras.Model(inputs, outputs)
    trainable = quantize_aware_partly(model, "int16x8", data=X[:, 0, :6])
    (skipped,) = tfnas.unquantized_layers(trainable)
    assert skipped.reason == "no 16-bit form of the activation 'softplus'"
