"""What a conversion does not log."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow_cases import slow_but

import tfnas


class Messages(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


@pytest.mark.parametrize("write", slow_but(["to_tflite", "to_saved_model"], "to_tflite"))
def test_tables_that_were_made_before_are_not_warned_of(write, tmp_path):
    words = keras.layers.TextVectorization(9, output_sequence_length=4)
    words.adapt(np.array(["one two", "three"]))
    key = tf.compat.v1.GraphKeys.TABLE_INITIALIZERS
    if None not in tf.compat.v1.get_collection(key):
        pytest.skip("this TensorFlow has no such tables: drop the remedy")
    ids = keras.Input((4,), dtype="int32")
    model = keras.Model(ids, keras.layers.Flatten()(keras.layers.Embedding(9, 2)(ids)))
    messages = Messages()
    tf.get_logger().addHandler(messages)
    try:
        if write == "to_tflite":
            tfnas.to_tflite(model)
        else:
            tfnas.to_saved_model(model, tmp_path / "saved")
    finally:
        tf.get_logger().removeHandler(messages)
    assert not [text for text in messages.texts if "table_initializer" in text]
    assert np.asarray(words(["one", "unknown"]))[:, 0].tolist()[1] == 1  # its table still works
