"""Layers that read the sizes of their input alone are found, and told from others."""

import keras
import pytest
from keras import layers, ops

import tfnas
from tfnas.graph.functional import walk
from tfnas.graph.place_tables import reads_sizes_alone


class Places(layers.Layer):
    """A row for each place, whatever stands there."""

    def build(self, input_shape):
        self.table = self.add_weight(shape=(20, input_shape[-1]), name="table")

    def call(self, x):
        _, length, width = ops.shape(x)
        return ops.broadcast_to(ops.slice(self.table, (0, 0), (length, width)), ops.shape(x))


class Scaled(Places):
    """The rows times the input."""

    def call(self, x):
        return x * self.table[: ops.shape(x)[1]]


class Broken(Places):
    """Its code refuses tensors without numbers."""

    def call(self, x):
        return super().call(ops.convert_to_tensor(x.numpy()))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def only_call(layer, length=5):
    x = keras.Input((length, 4))
    [call] = walk(keras.Model(x, layer(x))).calls
    return call


@pytest.mark.parametrize("kind", [Places, Scaled, Broken])
def test_what_reads_sizes_alone(kind):
    assert reads_sizes_alone(only_call(kind())) is (kind is Places)
    assert not reads_sizes_alone(only_call(kind(), length=None))


def test_it_costs_nothing():
    x = keras.Input((5, 4))
    model = keras.Model(x, layers.Dense(3)(x + Places()(x)))
    cost = tfnas.profile(model)
    assert (cost.macs, cost.uncounted) == (5 * 4 * 3, ())
