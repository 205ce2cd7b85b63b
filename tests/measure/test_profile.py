"""tfnas.profile: against the paper, against the file, and by hand."""

import math

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.search_space.blocks import build_model


def macs_of(layer, shape):
    inputs = keras.Input(shape)
    return tfnas.profile(keras.Model(inputs, layer(inputs))).macs


def macs_of_file(artifact):
    """Multiply-accumulates counted from the operators of a float32 file."""
    total = 0
    for op in artifact.graph.operators:
        if op.name == "CONV_2D":
            _, height, width, filters = op.outputs[0].shape
            _, kh, kw, channels = op.inputs[1].shape
            total += height * width * filters * kh * kw * channels
        elif op.name == "DEPTHWISE_CONV_2D":
            _, height, width, filters = op.outputs[0].shape
            total += height * width * filters * math.prod(op.inputs[1].shape[1:3])
        elif op.name == "FULLY_CONNECTED":
            total += math.prod(op.inputs[1].shape)
    return total


def test_mobilenet_v2_of_the_paper():
    found = tfnas.profile(build_model(tfnas.mobilenet_v2((224, 224, 3), 1000)))
    assert found.parameters == 3_538_984
    assert found.macs == 300_774_272
    assert found.uncounted == ()
    # The expansion of stage 2: 112x112x16 in, 112x112x96 out, then padded to 114 x 114.
    assert found.peak_activations == (112 * 112 + 114 * 114) * 96


def test_macs_equal_those_of_the_file(tiny_model, artifacts):
    found = tfnas.profile(tiny_model)
    assert found.macs == macs_of_file(artifacts["float32"]) > 0
    assert found.parameters == tiny_model.count_params()
    assert found.parameters == sum(layer.parameters for layer in found.layers)


def test_macs_equal_those_of_the_file_with_strides_and_every_block():
    arch = tfnas.Architecture(
        (65, 97, 3),
        7,
        (
            tfnas.BlockSpec(filters=8, expansion=1, kernel=5),
            tfnas.BlockSpec(filters=16, repeats=2, stride=2, expansion=3, kernel=7),
            tfnas.BlockSpec("fused_inverted_residual", 24, repeats=2, stride=2, expansion=2),
        ),
        resolution=(33, 49),
        stem_filters=8,
        head_filters=40,
    )
    model = build_model(arch)
    assert tfnas.profile(model).macs == macs_of_file(tfnas.to_tflite(model))


BY_HAND = {
    "Conv1D": (layers.Conv1D(5, 3, padding="same"), (10, 4), 10 * 5 * 3 * 4),
    "Conv1D valid": (layers.Conv1D(5, 3), (10, 4), 8 * 5 * 3 * 4),
    "Conv2D strided": (layers.Conv2D(6, (3, 5), 2), (9, 9, 4), 4 * 3 * 6 * 15 * 4),
    "Conv2D dilated": (layers.Conv2D(6, 3, dilation_rate=2), (9, 9, 4), 25 * 6 * 9 * 4),
    "Conv2D grouped": (layers.Conv2D(6, 3, groups=2, padding="same"), (8, 8, 4), 64 * 6 * 9 * 2),
    "Conv2D channels first": (
        layers.Conv2D(6, 3, padding="same", data_format="channels_first"),
        (4, 8, 7),
        56 * 6 * 9 * 4,
    ),
    "Conv3D": (layers.Conv3D(2, 3, padding="same"), (4, 5, 6, 3), 120 * 2 * 27 * 3),
    "Conv1DTranspose": (layers.Conv1DTranspose(5, 3, 2), (10, 4), 10 * 5 * 3 * 4),
    "Conv2DTranspose": (
        layers.Conv2DTranspose(6, 3, 2, padding="same"),
        (8, 8, 4),
        64 * 6 * 9 * 4,
    ),
    "DepthwiseConv1D": (layers.DepthwiseConv1D(3, padding="same"), (10, 4), 10 * 3 * 4),
    "DepthwiseConv2D": (
        layers.DepthwiseConv2D(3, 2, "same", depth_multiplier=2),
        (8, 8, 4),
        16 * 9 * 4 * 2,
    ),
    "SeparableConv1D": (layers.SeparableConv1D(6, 3, padding="same"), (10, 4), 10 * (12 + 24)),
    "SeparableConv2D": (
        layers.SeparableConv2D(6, 3, padding="same", depth_multiplier=2),
        (8, 8, 4),
        64 * (9 * 4 * 2 + 8 * 6),
    ),
    "Dense": (layers.Dense(7), (5,), 35),
    "Dense 3D": (layers.Dense(7), (11, 5), 11 * 35),
    "Dense 4D": (layers.Dense(7), (3, 11, 5), 33 * 35),
    "EinsumDense": (layers.EinsumDense("abc,cd->abd", (None, 7)), (11, 5), 11 * 35),
    "EinsumDense heads": (
        layers.EinsumDense("abc,cde->abde", (None, 2, 3)),
        (11, 5),
        11 * 5 * 2 * 3,
    ),
    "EinsumDense ellipsis": (
        layers.EinsumDense("...x,xy->...y", 7),
        (11, 5),
        11 * 35,
    ),
    "nothing to multiply": (layers.MaxPooling2D(), (8, 8, 4), 0),
    "normalization": (layers.BatchNormalization(), (8, 8, 4), 0),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_macs_by_hand(case):
    layer, shape, macs = BY_HAND[case]
    assert macs_of(layer, shape) == macs


def test_matrix_product_of_two_tensors():
    a, b = keras.Input((6, 5)), keras.Input((5, 7))
    found = tfnas.profile(keras.Model([a, b], keras.ops.matmul(a, b)))
    assert found.macs == 6 * 5 * 7


def test_nested_models_are_included():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="d")], name="inner")
    middle_input = keras.Input((8,))
    middle = keras.Model(middle_input, layers.ReLU(name="r")(inner(middle_input)), name="middle")
    model = keras.Sequential([keras.Input((8,)), middle, layers.Dense(2, name="last")])
    found = tfnas.profile(model)
    assert [layer.name for layer in found.layers] == ["middle/inner/d", "middle/r", "last"]
    assert found.macs == 32 + 8
    assert found.parameters == model.count_params() == 36 + 10


def test_shared_layer_has_macs_per_call_and_parameters_once():
    shared = layers.Dense(4, name="shared")
    a, b = keras.Input((8,)), keras.Input((8,))
    model = keras.Model([a, b], layers.Add(name="sum")([shared(a), shared(b)]))
    found = tfnas.profile(model)
    assert [(layer.name, layer.parameters, layer.macs) for layer in found.layers] == [
        ("shared", 36, 32),
        ("shared", 0, 32),
        ("sum", 0, 0),
    ]
    assert (found.parameters, found.macs) == (36, 64)


def test_shared_nested_model():
    tower = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="d")], name="tower")
    a, b = keras.Input((8,)), keras.Input((8,))
    model = keras.Model([a, b], layers.Concatenate(name="join")([tower(a), tower(b)]))
    found = tfnas.profile(model)
    assert (found.parameters, found.macs) == (36, 64)
    assert sum(layer.parameters for layer in found.layers) == 36


def test_unknown_layer_with_weights_is_listed():
    class Scale(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=shape[1:])

        def call(self, x):
            return x * self.scale

    model = keras.Sequential([keras.Input((8,)), Scale(name="mine"), layers.Dense(2)])
    found = tfnas.profile(model)
    assert found.uncounted == ("mine",)
    assert found.layers[0].macs is None
    assert (found.parameters, found.macs) == (8 + 18, 16)
    assert "not counted" in str(found)


def test_recurrent_layer_is_counted():
    model = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4, name="lstm")])
    assert tfnas.profile(model).macs == 5 * 4 * (3 + 4) * 4


def residual():
    """Input 4x4x2 -> conv a 4x4x4 -> BN, ReLU -> conv b 4x4x8 -> conv c 4x4x4 -> a + c."""
    inputs = keras.Input((4, 4, 2))
    a = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    a = layers.ReLU(name="a_relu")(layers.BatchNormalization(name="a_bn")(a))
    b = layers.Conv2D(8, 1, name="b")(a)
    c = layers.Conv2D(4, 1, name="c")(b)
    return keras.Model(inputs, layers.Add(name="add")([a, c]), name="residual")


def test_peak_activations_with_a_residual():
    # a: 32 + 64; b: 64 + 128; c: 64 (held for the sum) + 128 + 64; add: 64 + 64 + 64.
    found = tfnas.profile(residual())
    assert found.peak_activations == 256
    assert found.peak_activation_bytes() == 256
    assert found.peak_activation_bytes(4) == 1024


def test_peak_activations_of_a_chain_hold_two_tensors_at_most():
    sizes = [8, 20, 5, 30]
    model = keras.Sequential([keras.Input((sizes[0],)), *map(layers.Dense, sizes[1:])])
    assert tfnas.profile(model).peak_activations == 35


def test_peak_activations_where_the_input_of_an_activation_is_used_again():
    # Not in place: the value before the activation is an output too.
    inputs = keras.Input((8,))
    before = layers.Dense(10)(inputs)
    wide = layers.Dense(40)(layers.ReLU()(before))
    model = keras.Model(inputs, [before, layers.Dense(1)(wide)])
    assert tfnas.profile(model).peak_activations == 10 + 10 + 40


def test_text_is_a_table_with_totals():
    found = tfnas.profile(residual())
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["layer", "kind", "output", "parameters", "MACs"]
    row = next(line for line in lines if line.startswith("a "))
    assert row.split() == ["a", "Conv2D", "4x4x4", "76", "1,152"]
    assert found.summary() == (
        "residual: 168 parameters, 2,176 MACs, peak activations 256 bytes in int8, 1,024 in float32"
    )
    assert " ".join(str(found).split()).endswith(found.summary())


def test_models_that_cannot_be_profiled():
    class Own(keras.Model):
        def call(self, x):
            return x

    for model in (Own(), keras.Sequential([layers.Dense(2)])):
        with pytest.raises(ValueError, match=r"model must be (built|a built functional)"):
            tfnas.profile(model)
    inputs = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match=r"inputs of known shape, got .None, None, None, 3"):
        tfnas.profile(keras.Model(inputs, layers.Conv2D(2, 3)(inputs)))


def test_data_tells_the_sizes_that_a_model_leaves_open():
    def model(length):
        inputs = {"t": keras.Input((length, 4), name="t"), "s": keras.Input((3,), name="s")}
        series = layers.GlobalAveragePooling1D()(layers.Conv1D(8, 3)(inputs["t"]))
        joined = layers.Concatenate()([series, inputs["s"]])
        return keras.Model(inputs, layers.Dense(2)(joined), name="mine")

    data = {"s": np.zeros((2, 3)), "t": np.zeros((2, 10, 4))}
    found = tfnas.profile(model(None), data)
    assert found.summary() == tfnas.profile(model(10)).summary()
    assert found.name == "mine"
    assert tfnas.profile(model(10), data).summary() == found.summary()
    sequential = keras.Sequential([keras.Input((None, 4)), layers.Conv1D(8, 3)], name="series")
    found = tfnas.profile(sequential, np.zeros((2, 10, 4)))
    assert (found.name, found.parameters, found.macs) == ("series", 104, 8 * 8 * 12)
    with pytest.raises(ValueError, match=r"must have the shape .* for input 't'"):
        tfnas.profile(model(10), {"s": np.zeros((2, 3)), "t": np.zeros((2, 9, 4))})
