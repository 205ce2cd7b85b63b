"""Integer files of models of mixed precision, and while Keras' policy is one of mixed precision."""

import keras
import numpy as np
import pytest
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.graph.precision import new_layers_of
from tfnas.quantization.float32_model import other_precision_layers

IDS = np.random.default_rng(0).integers(1, 20, (32, 6)).astype("int32")
IDS[::2, 4:] = 0


def network(**settings):
    """Attention with masks, a normalization and an LSTM."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, "normal", mask_zero=True, **settings)(inputs)
    x = layers.MultiHeadAttention(2, 4, **settings)(x, x, use_causal_mask=True)
    x = layers.LayerNormalization(**settings)(x)
    return keras.Model(inputs, layers.LSTM(3, **settings)(x[:, ::3]))


def outputs(model):
    return np.asarray(model(IDS, training=False), np.float32)


def agrees(file, model):
    exact = outputs(model)
    return np.abs(file.predict(IDS) - exact).mean() < 0.04 * np.abs(exact).max()


def test_a_model_is_converted_under_a_policy_of_mixed_precision():
    model = network()
    alone = outputs(tfnas.quantize_aware(model, data=IDS))
    with new_layers_of("mixed_float16"):
        file = tfnas.to_tflite(model, "int8", IDS)
        aware = tfnas.quantize_aware(model, data=IDS)
        assert not other_precision_layers(aware)
        assert keras.config.dtype_policy().name == "mixed_float16"
    np.testing.assert_array_equal(outputs(aware), alone)
    assert agrees(file, model)


WAYS = [
    ("mixed_float16", "built under it"),
    ("mixed_float16", "of each layer"),
    ("mixed_bfloat16", "built under it"),
]


@pytest.mark.parametrize(("policy", "way"), slow_but(WAYS, WAYS[0]))
def test_a_model_of_mixed_precision_is_trained_and_becomes_integers(policy, way, tmp_path):
    under = policy if way == "built under it" else "float32"
    with new_layers_of(under):
        model = network(**({} if under == policy else {"dtype": policy}))
        aware = tfnas.quantize_aware(model, "int8", data=IDS)
        assert len(other_precision_layers(aware)) > 10
        aware.compile(keras.optimizers.SGD(1e-3), "mse", run_eagerly=True)
        aware.fit(IDS, outputs(model), verbose=0)
        file = tfnas.to_tflite(aware, "int8")
        aware.save(tmp_path / "aware.keras")
    loaded = tfnas.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(aware))
    assert not any(t.dtype.startswith("float") for op in file.graph.operators for t in op.inputs)
    assert agrees(file, aware)
    assert agrees(file, model)
