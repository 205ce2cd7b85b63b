"""Files as LiteRT for the web runs them: what changes, and what must not."""

import keras
import numpy as np
import pytest

import tfnas


@pytest.mark.parametrize("mode", ["int8", "float32", "int16x8"])
def test_a_batch_of_one_and_float_ends(mode):
    layers = [keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    x = np.random.default_rng(0).normal(size=(5, 6, 6, 1)).astype("float32")
    file = tfnas.to_tflite(keras.Sequential([keras.Input((6, 6, 1)), *layers]), mode, x)
    web = tfnas.for_browser(file)
    assert [t.shape[0] for t in (*web.inputs, *web.outputs)] == [1, 1]
    assert {t.dtype for t in (*web.inputs, *web.outputs)} == {"float32"}
    assert [t.name for t in web.inputs] == [t.name for t in file.inputs]
    assert np.array_equal(web.predict(x), file.predict(x))
    assert tfnas.for_browser(web) is web


def test_ids_stay_integers_and_names_stay():
    words, number = keras.Input((4,), dtype="int32", name="words"), keras.Input((3,), name="number")
    table = keras.layers.Flatten()(keras.layers.Embedding(7, 2)(words))
    both = keras.layers.Concatenate()([table, number])
    heads = {"first": keras.layers.Dense(2)(both), "second": keras.layers.Dense(3)(both)}
    x = {"words": np.arange(8).reshape(2, 4) % 7, "number": np.ones((2, 3), np.float32)}
    file = tfnas.to_tflite(keras.Model([words, number], heads), "int8", x)
    web = tfnas.for_browser(file)
    assert {t.name: t.dtype for t in web.inputs} == {"words": "int32", "number": "float32"}
    assert [t.name for t in web.outputs] == [t.name for t in file.outputs]
    for before, after in zip(file.predict(x), web.predict(x), strict=True):
        assert np.array_equal(before, after)
