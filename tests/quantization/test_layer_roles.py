"""Operations that move numbers have integer forms of the bits that TFLite's kernels have."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfnas


def largest_scores():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    scores = layers.Dense(10, activation="softmax")(inputs)
    return keras.Model(inputs, list(ops.top_k(scores, 3)))


def test_the_largest_numbers_are_those_of_the_file():
    model = largest_scores()
    x = np.random.default_rng(0).normal(size=(64, 12)).astype("float32")
    trainable = tfnas.quantize_aware(model, data=x)
    file = tfnas.to_tflite(trainable, "int8")
    assert [op.name for op in file.graph.operators] == ["FULLY_CONNECTED", "SOFTMAX", "TOPK_V2"]
    (values, places), expected = file.predict(x, reference=True), trainable.predict(x, verbose=0)
    step = file.outputs[0].scale
    assert np.abs(values - expected[0]).max() <= 1.001 * step
    # Of numbers of one step the place may be another.
    apart = np.abs(np.diff(expected[0], axis=-1)).min(axis=-1) > 2.001 * step
    np.testing.assert_array_equal(places[apart][:, :2], expected[1][apart][:, :2])


def test_16_bits_have_no_form_of_it():
    with pytest.raises(ValueError, match=r'top_k.*: no 16-bit form of TopK.*"TopK": "float32"'):
        tfnas.quantize_aware(largest_scores(), "int16x8")
