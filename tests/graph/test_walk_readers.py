"""Who makes and who reads the values of a model."""

from __future__ import annotations

import keras
import numpy as np

from tfnas.graph.functional import LayerCopies, rebuild, walk


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


def test_copies_of_wrappers_share_the_copy_of_their_layer() -> None:
    inputs, inside = keras.Input((3, 4), name="x"), keras.layers.Dense(4, name="inside")
    wrappers = [keras.layers.TimeDistributed(inside, name=name) for name in ("one", "two")]
    outputs = inside(wrappers[1](wrappers[0](inputs)))
    model, copies = keras.Model(inputs, outputs), LayerCopies()
    rebuilt = rebuild(model, copies.call, class_of=model)
    copies.carry_weights()
    assert rebuilt.count_params() == model.count_params()
    one, two, plain = rebuilt.layers[1:]
    assert one.layer is two.layer is plain
    assert plain is not inside
    x = np.ones((2, 3, 4), "float32")
    np.testing.assert_array_equal(rebuilt(x), model(x))
