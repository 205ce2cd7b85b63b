"""Multiply-accumulates of every class of keras.layers, against TensorFlow's own graph."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfnas
from tests.tensorflow_macs import tensorflow_macs
from tfnas.graph import operation_macs
from tfnas.graph.functional import walk
from tfnas.graph.macs import call_macs, layer_macs, uncounted

SERIES, IMAGE, VOLUME, MOVIE = (6, 5), (9, 8, 4), (5, 4, 6, 3), (4, 7, 6, 3)


def of(layer, *shapes):
    """A case of one layer: called with its inputs one after the other."""
    return lambda: _model(layer, shapes, lambda tensors: layer(*tensors))


def listed(layer, *shapes):
    """A case of one layer that takes its inputs as a list."""
    return lambda: _model(layer, shapes, layer)


def _model(layer, shapes, call):
    inputs = [keras.Input(shape) for shape in shapes]
    outputs = call(inputs)
    return keras.Model(inputs, keras.tree.flatten(outputs))


def recurrent(kind, **options):
    return of(getattr(layers, kind)(4, unroll=True, **options), SERIES)


def movie(kind, shape, **options):
    layer = getattr(layers, kind)(2, 3, **options)
    layer.unroll = True
    return of(layer, shape)


def stacked(cells):
    return of(layers.RNN(cells, unroll=True), SERIES)


COUNTED = {
    "Conv1D": of(layers.Conv1D(5, 3, dilation_rate=2, padding="causal"), SERIES),
    "Conv2D": of(layers.Conv2D(6, (3, 2), strides=(2, 1), groups=2, padding="same"), IMAGE),
    "Conv3D": of(layers.Conv3D(2, 3, padding="same"), VOLUME),
    "Conv1DTranspose": of(layers.Conv1DTranspose(5, 3, 2, padding="same"), SERIES),
    "Conv2DTranspose": of(layers.Conv2DTranspose(6, 3, 2), IMAGE),
    "Conv3DTranspose": of(layers.Conv3DTranspose(2, 3, 2), VOLUME),
    "DepthwiseConv1D": of(layers.DepthwiseConv1D(3, depth_multiplier=2), SERIES),
    "DepthwiseConv2D": of(layers.DepthwiseConv2D(3, 2, depth_multiplier=2), IMAGE),
    "SeparableConv1D": of(layers.SeparableConv1D(6, 3, depth_multiplier=2), SERIES),
    "SeparableConv2D": of(layers.SeparableConv2D(6, 3, padding="same"), IMAGE),
    "Dense": of(layers.Dense(7), VOLUME),
    "EinsumDense": of(layers.EinsumDense("abc,cde->abde", (None, 2, 3)), SERIES),
    "EinsumDense with an ellipsis": of(layers.EinsumDense("...x,xy->...y", 7), IMAGE),
    "Embedding": of(layers.Embedding(9, 4), (6,)),
    "MultiHeadAttention": of(layers.MultiHeadAttention(3, 4, value_dim=2), SERIES, (7, 6)),
    "MultiHeadAttention with a key": of(
        layers.MultiHeadAttention(2, 4, output_shape=3), (4, 5), (7, 6), (7, 3)
    ),
    "MultiHeadAttention over one axis": of(
        layers.MultiHeadAttention(2, 4, attention_axes=(2,)), (3, 5, 6), (3, 4, 6)
    ),
    "MultiHeadAttention over two axes": of(layers.MultiHeadAttention(2, 4), IMAGE, IMAGE),
    "GroupedQueryAttention": of(layers.GroupQueryAttention(3, 4, 2), (6, 5), (7, 5)),
    "Attention": listed(layers.Attention(), (6, 5), (7, 5)),
    "Attention with a key": listed(layers.Attention(), (6, 5), (7, 3), (7, 5)),
    "AdditiveAttention without a scale": listed(
        layers.AdditiveAttention(use_scale=False), (6, 5), (7, 5)
    ),
    "Dot": listed(layers.Dot((2, 1)), (4, 5), (5, 6)),
    "Dot of vectors": listed(layers.Dot(1), (5,), (5,)),
    "SimpleRNN": recurrent("SimpleRNN"),
    "LSTM": recurrent("LSTM", return_sequences=True),
    "GRU": recurrent("GRU", return_state=True),
    "GRU, reset before": recurrent("GRU", reset_after=False),
    "RNN": stacked(layers.LSTMCell(4)),
    "StackedRNNCells": stacked([layers.LSTMCell(4), layers.GRUCell(3), layers.SimpleRNNCell(2)]),
    "Bidirectional": of(layers.Bidirectional(layers.LSTM(4, unroll=True)), SERIES),
    "Bidirectional of two": of(
        layers.Bidirectional(
            layers.LSTM(4, unroll=True, return_state=True),
            backward_layer=layers.LSTM(
                4, unroll=True, go_backwards=True, return_state=True, use_bias=False
            ),
        ),
        SERIES,
    ),
    "ConvLSTM1D": movie("ConvLSTM1D", (4, 7, 3), return_sequences=True),
    "ConvLSTM2D": movie("ConvLSTM2D", MOVIE, strides=2, padding="same"),
    "ConvLSTM3D": movie("ConvLSTM3D", (2, 4, 4, 4, 2), padding="same"),
    "SpectralNormalization": of(layers.SpectralNormalization(layers.Dense(7)), SERIES),
    "STFTSpectrogram": of(
        layers.STFTSpectrogram(frame_length=8, frame_step=3, fft_length=8), (40, 2)
    ),
    "STFTSpectrogram, one part": of(
        layers.STFTSpectrogram(mode="real", frame_length=8, fft_length=8, padding="same"), (40, 2)
    ),
    "matmul": lambda: _model(None, [(3, 6, 5), (3, 5, 7)], lambda t: ops.matmul(*t)),
    "matmul, a constant": lambda: _model(None, [(5, 7)], lambda t: ops.matmul(np.ones((6, 5)), *t)),
    "einsum": lambda: _model(
        None, [(3, 6, 5), (7, 6, 5)], lambda t: ops.einsum("btnh,bsnh->bnts", *t)
    ),
    "einsum, a constant first": lambda: _model(
        None, [(5, 7)], lambda t: ops.einsum("ij,bjk->bik", np.ones((6, 5), "float32"), *t)
    ),
    "tensordot": lambda: _model(
        None, [(4, 5)], lambda t: ops.tensordot(t[0], np.ones((5, 6), "float32"), 1)
    ),
    "conv": lambda: _model(
        None, [IMAGE], lambda t: ops.conv(t[0], np.ones((3, 3, 4, 5), "float32"), 2)
    ),
    "attention": lambda: _model(
        None, [(5, 2, 4), (6, 2, 4)], lambda t: ops.dot_product_attention(t[0], t[1], t[1])
    ),
}


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


# Arguments of the layers below that need some.
ARGUMENTS = {
    **{f"Adaptive{kind}Pooling{n}D": (2,) for kind in ("Average", "Max") for n in (1, 2, 3)},
    **{f"AveragePooling{n}D": (2,) for n in (1, 2, 3)},
    **{f"SpatialDropout{n}D": (0.1,) for n in (1, 2, 3)},
    **dict.fromkeys(("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise"), (0.1,)),
    "Activation": ("relu",),
    "CenterCrop": (4, 4),
    "Discretization": ([0.0, 1.0],),
    "GroupNormalization": (1,),
    "Permute": ((2, 1),),
    "RandomBrightness": (0.1,),
    "RandomColorDegeneration": (0.1,),
    "RandomContrast": (0.1,),
    "RandomCrop": (4, 4),
    "RandomHue": (0.1,),
    "RandomPosterization": (4,),
    "RandomRotation": (0.1,),
    "RandomSaturation": (0.1,),
    "RandomSharpness": (0.1,),
    "RandomTranslation": (0.1, 0.1),
    "RandomZoom": (0.1,),
    "RepeatVector": (2,),
    "Rescaling": (0.5,),
    "Reshape": ((-1,),),
    "Resizing": (4, 4),
}
# Layers of strings, those that Keras puts into no functional model, and abstract classes multiply
# nothing; those that call functions or transform are named below.
APART = {
    "CategoryEncoding",
    "Equalization",
    "FlaxLayer",
    "HashedCrossing",
    "Hashing",
    "Input",
    "InputLayer",
    "InputSpec",
    "IntegerLookup",
    "JaxLayer",
    "Lambda",
    "Layer",
    "MaxNumBoundingBoxes",
    "MelSpectrogram",
    "Pipeline",
    "StringLookup",
    "TFSMLayer",
    "TextVectorization",
    "TorchModuleWrapper",
    "Wrapper",
}


def test_every_class_of_keras_layers_is_counted_free_or_named():
    counted = {name.split(",")[0].split(" ")[0] for name in COUNTED}
    counted |= {"AdditiveAttention", "ReversibleEmbedding", "TimeDistributed"}
    counted |= {"GRUCell", "LSTMCell", "SimpleRNNCell"}  # in the recurrent layers
    classes = {each.__name__: each for each in vars(layers).values() if inspect.isclass(each)}
    for name in sorted(classes.keys() - counted - APART):
        model = _model_of(classes[name])
        [call] = [each for each in walk(model).calls if each.kind == name]
        assert call_macs(call) == 0, name


def _model_of(layer_class):
    """A model with a layer that multiplies no matrices."""
    refusals = []
    for shape in (SERIES, (8, 8, 3), (8, 8, 8, 3), (4,)):
        inputs = keras.Input(shape)
        for tensors in (inputs, [inputs, inputs]):
            try:
                layer = layer_class(*ARGUMENTS.get(layer_class.__name__, ()))
                return keras.Model(inputs, layer(tensors))
            except Exception as error:  # it takes another number of axes or of tensors
                refusals.append(str(error))
    raise AssertionError(f"{layer_class.__name__} can't be called: {refusals}")


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
