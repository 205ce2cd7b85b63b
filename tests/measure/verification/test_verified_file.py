"""A file of one frame is verified against the model of whole sequences."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.measure.verification import verified_file

X = np.random.default_rng(0).normal(size=(6, 7, 3)).astype("float32")


def model():
    """A causal convolution; an output for each step, and one of the last."""
    inputs = keras.Input((None, 3), name="frames")
    x = layers.Conv1D(4, 2, padding="causal", name="near")(inputs)
    x = layers.GRU(4, return_sequences=True, name="steps")(x)
    each = layers.Dense(1, name="each")(x)
    return keras.Model(inputs, [each, layers.Dense(3, name="last")(layers.LSTM(4)(x))])


@pytest.fixture(scope="module")
def pair():
    built = model()
    return built, tfnas.to_tflite(built, streaming=True)


def test_a_stream_gives_all_steps_and_the_last_one(pair, monkeypatch):
    built, file = pair
    found = tfnas.verify(built, file, X)
    assert found.passed
    names = [(check.case, check.output) for check in found.checks]
    assert names == [
        (case, output) for case in ("real inputs", "ends of ranges") for output in ("each", "last")
    ]
    monkeypatch.setattr(verified_file, "MOST_FRAMES", 14)
    assert [len(column) for column in verified_file.verified_file(built, file).used([X])] == [2]


def test_a_stream_of_other_weights_is_not_verified_and_repaired_as_a_stream(pair):
    _, file = pair
    changed = model()
    found = tfnas.verify(changed, file, X, repair=True)
    assert not found.passed
    assert found.departure is None
    assert found.repairs[0].what == "converted again"
    assert any(tensor.name.startswith("state_") for tensor in found.repaired.inputs)
    assert tfnas.verify(changed, found.repaired, X).passed


def test_a_stream_of_other_frames_is_refused(pair):
    inputs = keras.Input((None, 2), name="frames")
    with pytest.raises(ValueError, match=r"must take the shape \(None, None, 2\)"):
        tfnas.verify(keras.Model(inputs, layers.GRU(4)(inputs)), pair[1], X[..., :2])
    inputs = keras.Input((None, 3), name="frames")
    with pytest.raises(ValueError, match="must have the 1 outputs of the model, got 2"):
        tfnas.verify(keras.Model(inputs, layers.GRU(4)(inputs)), pair[1], X)
    inputs = keras.Input((None, 3), name="frames")
    outputs = [layers.GRU(1, name="each")(inputs), layers.GRU(3, name="last")(inputs)]
    with pytest.raises(
        ValueError, match=r"output 'each' has the shape \(None, 1\), got \(1,\) of e"
    ):
        tfnas.verify(keras.Model(inputs, outputs), pair[1], X)
