"""Who makes and who reads the values of a model."""

from __future__ import annotations

import keras

from tfnas.graph.functional import walk


def test_producers_readers_and_uses_of_values() -> None:
    inputs = keras.Input((4,), name="x")
    dense = keras.layers.Dense(4, name="shared")
    first = dense(inputs)
    doubled = keras.layers.Add(name="doubled")([first, first])
    second = dense(doubled)
    flow = walk(keras.Model(inputs, [first, second]))
    one, add, two = flow.calls
    value = one.outputs[0]
    assert flow.producers == {call.outputs[0]: call for call in flow.calls}
    assert flow.readers[flow.inputs[0]] == [one]
    assert flow.readers[value] == [add], "a call that reads a value twice is there once"
    assert flow.uses[value] == 3, "two inputs of the sum, and an output of the model"
    assert flow.readers[two.outputs[0]] == []
    assert flow.uses[two.outputs[0]] == 1
    assert flow.calls_of(dense) == [one, two]
    assert flow.calls_of(keras.layers.Dense(4)) == []
