"""A model of each class of keras.layers, alone with its inputs."""

import inspect

import keras
import numpy as np
from keras import layers, ops

SERIES, IMAGE, VOLUME, MOVIE = (6, 5), (9, 8, 4), (5, 4, 6, 3), (4, 7, 6, 3)


def of(layer, *shapes):
    """A case of one layer: called with its inputs one after the other."""
    return lambda: model_from(layer, shapes, lambda tensors: layer(*tensors))


def listed(layer, *shapes):
    """A case of one layer that takes its inputs as a list."""
    return lambda: model_from(layer, shapes, layer)


def model_from(layer, shapes, call):
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
    "matmul": lambda: model_from(None, [(3, 6, 5), (3, 5, 7)], lambda t: ops.matmul(*t)),
    "matmul, a constant": lambda: model_from(
        None, [(5, 7)], lambda t: ops.matmul(np.ones((6, 5)), *t)
    ),
    "einsum": lambda: model_from(
        None, [(3, 6, 5), (7, 6, 5)], lambda t: ops.einsum("btnh,bsnh->bnts", *t)
    ),
    "einsum, a constant first": lambda: model_from(
        None, [(5, 7)], lambda t: ops.einsum("ij,bjk->bik", np.ones((6, 5), "float32"), *t)
    ),
    "tensordot": lambda: model_from(
        None, [(4, 5)], lambda t: ops.tensordot(t[0], np.ones((5, 6), "float32"), 1)
    ),
    "conv": lambda: model_from(
        None, [IMAGE], lambda t: ops.conv(t[0], np.ones((3, 3, 4, 5), "float32"), 2)
    ),
    "attention": lambda: model_from(
        None, [(5, 2, 4), (6, 2, 4)], lambda t: ops.dot_product_attention(t[0], t[1], t[1])
    ),
}


# Arguments of the layers that need some and multiply no matrices.
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
# Abstract classes, those of other frameworks, and Equalization, whose functional model is a cycle:
# no model can be made of them alone.
NO_MODEL = {
    *("Equalization", "FlaxLayer", "Input", "InputLayer", "InputSpec", "JaxLayer", "Layer"),
    *("MaxNumBoundingBoxes", "Pipeline", "TFSMLayer", "TorchModuleWrapper", "Wrapper"),
}
# These and layers of strings multiply nothing; those that call functions or transform are named
# below.
APART = NO_MODEL | {
    *("CategoryEncoding", "HashedCrossing", "Hashing", "IntegerLookup", "Lambda"),
    *("MelSpectrogram", "StringLookup", "TextVectorization"),
}


def classes() -> dict[str, type]:
    """Returns the classes of keras.layers by their names, without their aliases."""
    found = (each for each in vars(layers).values() if inspect.isclass(each))
    return {each.__name__: each for each in found}


def model_of(layer_class):
    """A model with a layer that multiplies no matrices."""
    refusals = []
    shapes: tuple[tuple[int, ...], ...] = (SERIES, (8, 8, 3), (8, 8, 8, 3), (4,))
    if "image_preprocessing" in layer_class.__module__:
        shapes = shapes[1:]  # three axes would be one image without a batch
    for shape in shapes:
        inputs = keras.Input(shape)
        for tensors in (inputs, [inputs, inputs]):
            try:
                layer = layer_class(*ARGUMENTS.get(layer_class.__name__, ()))
                return keras.Model(inputs, layer(tensors))
            except Exception as error:  # it takes another number of axes or of tensors
                refusals.append(str(error))
    raise AssertionError(f"{layer_class.__name__} can't be called: {refusals}")
