"""Multiply-accumulates of every class of keras.layers, against TensorFlow's own graph."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from layer_models import APART, COUNTED, SERIES, classes, listed, model_of, of
from tensorflow_macs import tensorflow_macs

import tfnas
from tfnas.graph import operation_macs
from tfnas.graph.functional import walk
from tfnas.graph.macs import call_macs, layer_macs, uncounted


@pytest.mark.parametrize("case", COUNTED)
def test_macs_are_those_of_the_graph_of_tensorflow(case):
    model = COUNTED[case]()
    found = tfnas.profile(model)
    assert found.uncounted == ()
    assert found.macs == tensorflow_macs(model)
    assert (found.macs > 0) == (case != "Embedding")


def test_time_distributed_layers_and_models_are_counted():
    """TensorFlow folds steps into the batch, whose graph has no count of its own."""
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(3), layers.Dense(2)])
    assert tfnas.profile(of(layers.TimeDistributed(inner), (6, 5))()).macs == 6 * (15 + 6)
    image = of(layers.TimeDistributed(layers.Conv2D(2, 3)), (4, 6, 6, 3))()
    assert tfnas.profile(image).macs == 4 * 16 * 54


def test_a_weighted_sum_of_additive_attention_is_counted():
    """TensorFlow has no product of matrices there, but a multiplication and a sum."""
    model = listed(layers.AdditiveAttention(), (6, 5), (7, 5))()
    assert tfnas.profile(model).macs == 6 * 7 * 5 + tensorflow_macs(model)


def test_a_reversed_embedding_is_a_dense_layer():
    layer = layers.ReversibleEmbedding(11, 4)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layer(layer(inputs), reverse=True))
    assert tfnas.profile(model).macs == 6 * 4 * 11 == tensorflow_macs(model)


def test_every_class_of_keras_layers_is_counted_free_or_named():
    counted = {name.split(",")[0].split(" ")[0] for name in COUNTED}
    counted |= {"AdditiveAttention", "ReversibleEmbedding", "TimeDistributed"}
    counted |= {"GRUCell", "LSTMCell", "SimpleRNNCell"}  # in the recurrent layers
    for name in sorted(classes().keys() - counted - APART):
        model = model_of(classes()[name])
        [call] = [each for each in walk(model).calls if each.kind == name]
        assert call_macs(call) == 0, name


def double(x):
    return 2.0 * x


class Mine(layers.Layer):
    """Without weights, and yet it multiplies."""

    def call(self, x):
        return ops.matmul(x, ops.transpose(x, (0, 2, 1)))


class Renamed(layers.Dense):
    """A Dense layer that is constructed in another way."""

    def __init__(self, **options):
        super().__init__(7, **options)


class Doubled(layers.Dense):
    def call(self, x):
        return super().call(super().call(x))


UNCOUNTED = {
    "Lambda": layers.Lambda(double),
    "MelSpectrogram": layers.MelSpectrogram(fft_length=8, sequence_stride=4),
    "Mine": Mine(),
    "Doubled": Doubled(5),
}


@pytest.mark.parametrize("case", UNCOUNTED)
def test_what_can_not_be_counted_is_named_and_makes_a_target_an_error(case):
    layer = UNCOUNTED[case]
    inputs = keras.Input(SERIES if case != "MelSpectrogram" else (32,))
    model = keras.Model(inputs, layers.Dense(4)(layers.Dense(3)(layer(inputs))))
    found = tfnas.profile(model)
    assert found.uncounted == (layer.name,)
    assert f"at least {found.macs:,} MACs" in found.summary()
    assert f"MACs not counted: {layer.name}" in str(found)
    with pytest.raises(ValueError, match=f"target_macs must be left out .* got {layer.name}: "):
        tfnas.prune_channels(model, target_macs=0.5)
    with pytest.raises(ValueError, match=f"target_macs must be left out .* got {layer.name}: "):
        tfnas.factorize(model, target_macs=0.5)
    _, report = tfnas.prune_channels(model, ratio=0.3)
    assert f"those of some layers are unknown: {layer.name}" in str(report)
    assert report.macs[0] == found.macs


def test_operations_that_are_no_products_are_named():
    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, ops.linalg.inv(inputs))
    assert len(tfnas.profile(model).uncounted) == 1
    product = keras.Model([inputs] * 1, ops.einsum("bij,bjk,bkl->bil", inputs, inputs, inputs))
    assert len(tfnas.profile(product).uncounted) == 1  # in the order of the backend's choice


def test_operations_apart_are_of_keras():
    """A name that Keras drops would go unnoticed."""
    modules = ("core", "image", "linalg", "math", "nn", "numpy")
    known = {name for module in modules for name in vars(getattr(keras.src.ops, module))}
    assert set(operation_macs.OPERATIONS) <= known
    assert len(operation_macs.UNCOUNTED_OPERATIONS - known) < 6  # of a later release


def test_a_subclass_that_computes_the_same_is_counted():
    assert tfnas.profile(of(Renamed(), SERIES)()).macs == 6 * 35


def test_unknown_sizes_make_a_layer_uncounted():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.GlobalMaxPooling2D()(layers.Conv2D(8, 3, name="c")(inputs)))
    assert uncounted(walk(model).calls) == ["c"]
    with pytest.raises(
        ValueError, match=r"target_macs must be left out .* got c: .* fix the sizes"
    ):
        tfnas.prune_channels(model, target_macs=0.5)
    found = tfnas.profile(model, np.zeros((1, 8, 9, 3)))
    assert found.macs == 6 * 7 * 27 * 8


def test_a_nested_model_has_the_sizes_of_its_call():
    open_inputs = keras.Input((None, None, 3))
    inner = keras.Model(open_inputs, layers.Conv2D(8, 3)(layers.Conv2D(4, 3)(open_inputs)))
    inputs = keras.Input((9, 8, 3))
    model = keras.Model(inputs, inner(inputs))
    assert tfnas.profile(model).macs == 7 * 6 * 27 * 4 + 5 * 4 * 36 * 8 == tensorflow_macs(model)
    outer_inputs = keras.Input((None, None, 3))
    outer = keras.Model(outer_inputs, inner(outer_inputs))
    assert tfnas.profile(outer, np.zeros((1, 9, 8, 3))).macs == tfnas.profile(model).macs


def test_a_layer_inside_another_is_counted_by_shapes():
    layer = layers.Dense(4)
    layer.build((None, 3))
    assert layer_macs(layer, (None, 5, 3), (None, 5, 4)) == 60
    assert layer_macs(layer, (None, None, 3), (None, None, 4)) is None


def test_a_quantization_aware_model_has_the_macs_of_its_float_model():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    found = tfnas.profile(tfnas.quantize_aware(model))
    assert (found.macs, found.uncounted) == (tfnas.profile(model).macs, ())
