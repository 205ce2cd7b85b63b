"""Dot layers of vectors and of unit vectors in integer files."""

import keras
import numpy as np
from keras import layers as L

import tfnas


def test_dots_of_vectors_and_of_unit_vectors():
    keras.utils.set_random_seed(0)
    ends = [keras.Input((6,), name="one"), keras.Input((6,), name="two")]
    rows = [L.Reshape((3, 2), name=f"rows_{place}")(end) for place, end in enumerate(ends)]
    outputs = [
        L.Dot(axes=1, name="product")(ends),
        L.Dot(axes=-1, normalize=True, name="cosine")(ends),
        L.Dot(axes=1, normalize=True, name="cosines")(rows),
    ]
    model = keras.Model(ends, outputs, name="similar")
    x = list(np.random.default_rng(0).normal(size=(2, 40, 6)).astype("float32"))
    aware = tfnas.quantize_aware(model, "int8", data=x)
    assert tfnas.unquantized_layers(aware) == []
    assert aware.output_shape == model.output_shape == [(None, 1), (None, 1), (None, 2, 2)]
    file = tfnas.to_tflite(aware, "int8")
    pairs = zip(file.predict(x, reference=True), aware(x), model(x), file.outputs, strict=True)
    for found, rounded, floats, end in pairs:
        assert np.abs(found - np.asarray(rounded)).max() <= 1.01 * end.scale
        assert np.abs(rounded - floats).max() < 0.03 * np.ptp(floats)
