"""Removal of what nothing reads, from the objects of a file."""

import keras
import numpy as np

import tfnas
from tfnas.tflite.flatbuffer import pack, unpack
from tfnas.tflite.unused_parts import remove_unused


def test_an_operator_may_have_an_empty_list_of_intermediate_tensors():
    """As the converter gives it to operators beside some recurrent layers."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    file, x = tfnas.to_tflite(model), np.ones((2, 4), "float32")
    objects = unpack(file.content)
    for operator in objects.subgraphs[0].operators:
        operator.intermediates = np.zeros(0, np.int32)
    remove_unused(objects)
    np.testing.assert_array_equal(tfnas.Artifact(pack(objects)).predict(x), file.predict(x))
