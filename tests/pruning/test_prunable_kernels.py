"""The kernels of a model, their names, and their layout compared with the file."""

import doctest
import re

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.graph.layer_kernels import layers_with_paths, match
from tfnas.pruning import prunable_kernels as module
from tfnas.pruning.prunable_kernels import find_kernels, select
from tfnas.tflite.flatbuffer import read_graphs


def built(shape, *stack, name=None):
    return keras.Sequential([keras.Input(shape), *stack], name=name)


def names(model):
    return [kernel.name for kernel in find_kernels(model)[0]]


def distinct(model, seed=0):
    """Gives all weights of a variable different values other than 0."""
    draw = np.random.default_rng(seed)
    model.set_weights(
        [
            draw.permutation(np.arange(1, w.size + 1)).reshape(w.shape) / w.size
            for w in model.get_weights()
        ]
    )
    return model


def constants(model):
    """The float constants of the model's file by name, in the file's shape."""
    return [
        np.frombuffer(tensor.constant, np.float32).reshape(tensor.shape)
        for graph in read_graphs(tfnas.to_tflite(model).content)  # of loops too
        for tensor in graph.tensors
        if tensor.constant and tensor.dtype == "float32"
    ]


# Layer -> input shape, layer, the kernels: (name, rows, positions, columns, filters).
ZOO = {
    "Dense": ((6,), lambda: layers.Dense(5, name="x"), [("x", 5, 1, 6, 0)]),
    "Conv1D": ((6, 4), lambda: layers.Conv1D(3, 2, name="x"), [("x", 3, 2, 4, 0)]),
    "Conv2D": ((6, 6, 4), lambda: layers.Conv2D(3, (2, 3), name="x"), [("x", 3, 6, 4, 0)]),
    "Conv2D in groups": (
        (6, 6, 4),
        lambda: layers.Conv2D(6, (2, 3), groups=2, name="x"),
        [("x", 6, 6, 2, 0)],
    ),
    "Conv3D": (
        (4, 4, 4, 5),
        lambda: layers.Conv3D(3, (1, 2, 3), name="x"),
        [("x", 5, 6, 3, 2)],
    ),
    "Conv1DTranspose": (
        (6, 4),
        lambda: layers.Conv1DTranspose(3, 2, name="x"),
        [("x", 3, 2, 4, 0)],
    ),
    "Conv2DTranspose": (
        (4, 4, 4),
        lambda: layers.Conv2DTranspose(3, (2, 3), name="x"),
        [("x", 3, 6, 4, 0)],
    ),
    "Conv3DTranspose": (
        (3, 3, 3, 4),
        lambda: layers.Conv3DTranspose(3, (1, 2, 3), name="x"),
        [("x", 3, 6, 4, 0)],
    ),
    "DepthwiseConv1D": (
        (6, 4),
        lambda: layers.DepthwiseConv1D(3, depth_multiplier=2, name="x"),
        [("x", 1, 3, 8, 2)],
    ),
    "DepthwiseConv2D": (
        (6, 6, 4),
        lambda: layers.DepthwiseConv2D((2, 3), depth_multiplier=2, name="x"),
        [("x", 1, 6, 8, 2)],
    ),
    "SeparableConv1D": (
        (6, 4),
        lambda: layers.SeparableConv1D(5, 3, name="x"),
        [("x/depthwise_kernel", 1, 3, 4, 2), ("x/pointwise_kernel", 5, 1, 4, 0)],
    ),
    "SeparableConv2D": (
        (6, 6, 4),
        lambda: layers.SeparableConv2D(5, (2, 3), name="x"),
        [("x/depthwise_kernel", 1, 6, 4, 2), ("x/pointwise_kernel", 5, 1, 4, 0)],
    ),
    "EinsumDense": (
        (6, 4),
        lambda: layers.EinsumDense("abc,cde->abde", (None, 3, 5), name="x"),
        [("x", 15, 1, 4, 0)],
    ),
    "EinsumDense over two axes": (
        (6, 4, 3),
        lambda: layers.EinsumDense("abcd,cde->abe", (None, 5), name="x"),
        [("x", 5, 1, 12, 0)],
    ),
    "EinsumDense over two axes, turned": (
        (6, 4, 3),
        lambda: layers.EinsumDense("abcd,dce->abe", (None, 5), name="x"),
        [("x", 5, 1, 12, 0)],
    ),
    "EinsumDense, outputs first": (
        (6, 4),
        lambda: layers.EinsumDense("abc,dc->abd", (None, 5), name="x"),
        [("x", 5, 1, 4, 0)],
    ),
    "EinsumDense with ...": (
        (6, 4),
        lambda: layers.EinsumDense("...x,xy->...y", 5, name="x"),
        [("x", 5, 1, 4, 0)],
    ),
    "TimeDistributed": (
        (3, 4),
        lambda: layers.TimeDistributed(layers.Dense(5, name="in"), name="x"),
        [("x/in", 5, 1, 4, 0)],
    ),
}
# In a three-dimensional kernel the axes in the file are (positions, rows, columns): input
# channels, then outputs as the innermost axis.
POSITIONS_FIRST = {"Conv3D", "Conv3DTranspose"}


@pytest.fixture(scope="module")
def zoo():
    return {kind: distinct(built(shape, make())) for kind, (shape, make, _) in ZOO.items()}


@pytest.mark.parametrize("kind", ZOO)
def test_kernels_of_every_layer_with_their_layout(zoo, kind):
    found, skipped = find_kernels(zoo[kind])
    assert skipped == []
    laid = [(k.name, *k.to_file(k.numpy()).shape, k.filters) for k in found]
    assert laid == ZOO[kind][2]
    for kernel in found:
        assert kernel.path == kernel.name.removesuffix(f"/{kernel.variable.name}")
        assert kernel.size == kernel.numpy().size
        assert kernel.depthwise is ("Depthwise" in kind or "depthwise" in kernel.name)


@pytest.mark.parametrize("kind", ZOO)
def test_to_file_and_from_file_are_inverse(zoo, kind):
    for kernel in find_kernels(zoo[kind])[0]:
        array = kernel.numpy()
        np.testing.assert_array_equal(kernel.from_file(kernel.to_file(array)), array)
        there = np.arange(kernel.size).reshape(kernel.to_file(array).shape)
        np.testing.assert_array_equal(kernel.to_file(kernel.from_file(there)), there)


@pytest.mark.parametrize("kind", ZOO)
def test_the_layout_is_that_of_the_file(zoo, kind):
    stored = constants(zoo[kind])
    for kernel in find_kernels(zoo[kind])[0]:
        ours = kernel.to_file(kernel.numpy())
        [theirs] = [c for c in stored if np.array_equal(np.sort(c.ravel()), np.sort(ours.ravel()))]
        if kind in POSITIONS_FIRST:
            ours = ours.transpose(1, 0, 2)
        assert theirs.tobytes() == np.ascontiguousarray(ours).tobytes()


def test_the_columns_are_innermost_in_a_batched_matrix_product():
    # "b" is in the input, the kernel and the result: the converter writes a batched matrix product.
    model = distinct(built((6, 4), layers.EinsumDense("abc,bcd->abd", (6, 5), name="x")))
    [kernel] = find_kernels(model)[0]
    ours = kernel.to_file(kernel.numpy())
    [theirs] = [c for c in constants(model) if c.size == kernel.size]
    columns = {tuple(row) for row in theirs.reshape(-1, ours.shape[2])}
    assert columns == {tuple(row) for row in ours.reshape(-1, ours.shape[2])}


def test_the_layout_of_attention_is_that_of_the_file():
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 3, name="mha")(inputs, inputs))
    for seed, variable in enumerate(model.weights):
        variable.assign(np.random.default_rng(seed).normal(size=variable.shape))
    found, skipped = find_kernels(model)
    parts = ("query", "key", "value", "attention_output")
    assert [kernel.name for kernel in found] == [f"mha/{part}" for part in parts]
    assert skipped == []
    assert [k.to_file(k.numpy()).shape for k in found] == [(6, 1, 4)] * 3 + [(4, 1, 6)]
    stored = {constant.tobytes() for constant in constants(model)}
    for kernel in found:
        assert np.ascontiguousarray(kernel.to_file(kernel.numpy())).tobytes() in stored


def test_an_unrolled_recurrent_kernel_has_inputs_innermost_in_the_file():
    model = distinct(built((2, 4), layers.SimpleRNN(3, unroll=True)))
    stored = [constant.tobytes() for constant in constants(model)]
    for kernel in find_kernels(model)[0]:
        assert np.ascontiguousarray(kernel.to_file(kernel.numpy())).tobytes() in stored


TWO_OF_FOUR = ["Conv1D", "Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "EinsumDense"]


@pytest.fixture(scope="module")
def wide():
    """A model of many layers, each pruned 2:4."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.SeparableConv2D(8, 3, padding="same", name="separable")(x)
    x = layers.Conv2DTranspose(8, 2, strides=2, name="up")(x)
    x = layers.Reshape((64, 8))(x)
    x = layers.Conv1D(8, 3, name="line")(x)
    x = layers.EinsumDense("abc,cd->abd", (None, 12), name="einsum")(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(8, name="dense")(x))
    return tfnas.prune(model, 0.5, granularity="2:4")


def test_at_most_two_of_four_neighbors_in_the_file_are_nonzero(wide):
    pruned, report = wide
    found = find_kernels(pruned)[0]
    sizes = {kernel.size for kernel in found}
    seen = 0
    for constant in constants(pruned):
        if constant.size in sizes and constant.ndim > 1:
            groups = constant.reshape(-1, 4)
            assert (np.count_nonzero(groups, axis=1) <= 2).all()
            seen += 1
    assert seen == len(found) == 8
    assert report.sparsity == 0.5


def test_whole_filters_are_zero_in_the_file():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(8, 3, activation="relu", use_bias=False, name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10, use_bias=False, name="dense")(x))
    pruned, _ = tfnas.prune(model, 0.5, granularity="filter")
    stored = {c.shape: c for c in constants(pruned)}
    channels = [
        stored[8, 3, 3, 4].any(axis=(1, 2, 3)),
        stored[1, 3, 3, 8].any(axis=(0, 1, 2)),
        stored[10, 8].any(axis=1),
    ]
    assert [int(c.sum()) for c in channels] == [4, 4, 5]
    # A filter is an output channel of the layer.
    outputs = keras.Model(pruned.inputs, pruned.get_layer("conv").output)
    predicted = outputs.predict(np.random.default_rng(0).normal(size=(2, 6, 6, 4)), verbose=0)
    np.testing.assert_array_equal(predicted.any(axis=(0, 1, 2)), channels[0])


# Finding


RECURRENT = {
    "SimpleRNN": lambda: layers.SimpleRNN(3, name="r"),
    "LSTM": lambda: layers.LSTM(3, name="r"),
    "GRU": lambda: layers.GRU(3, name="r"),
}


@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_layers_have_two_kernels_and_no_filters(kind):
    found, skipped = find_kernels(built((5, 4), RECURRENT[kind]()))
    gates = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}[kind]
    assert [k.variable.name for k in found] == ["kernel", "recurrent_kernel"]
    assert all(k.name.startswith("r/") for k in found)
    assert [k.shape for k in found] == [(4, 3 * gates), (3, 3 * gates)]
    assert [k.filters for k in found] == [None, None]
    assert skipped == []


def test_convolutional_recurrent_layers_have_two_kernels():
    found, _ = find_kernels(built((3, 5, 5, 2), layers.ConvLSTM2D(3, 2, name="r")))
    assert [k.variable.name for k in found] == ["kernel", "recurrent_kernel"]
    assert [k.filters for k in found] == [None, None]


def test_a_bidirectional_layer_has_four_kernels():
    found, _ = find_kernels(built((5, 4), layers.Bidirectional(layers.LSTM(3), name="both")))
    assert len(found) == 4
    assert len({k.name for k in found}) == 4
    assert all(k.name.startswith("both/") for k in found)


def test_stacked_cells_are_found():
    cells = [layers.LSTMCell(3, name="a"), layers.GRUCell(2, name="b")]
    found, _ = find_kernels(built((5, 4), layers.RNN(cells, name="r")))
    assert len({k.name for k in found}) == 4


class Block(layers.Layer):
    """A model with layers in a list and in a dictionary, and its own kernel."""

    def __init__(self, **more):
        super().__init__(**more)
        self.line = [layers.Dense(4, name="one"), layers.Dense(4, name="two")]
        self.table = {"three": layers.Dense(4, name="three")}

    def build(self, shape):
        self.own_kernel = self.add_weight(shape=(4, 4), name="own_kernel")
        self.scale = self.add_weight(shape=(4, 4), name="scale")
        for layer in (*self.line, *self.table.values()):
            layer.build(shape)

    def call(self, x):
        for layer in self.line:
            x = layer(x)
        return self.table["three"](x) @ self.own_kernel * self.scale[0]


class Net(keras.Model):
    def __init__(self, **more):
        super().__init__(**more)
        self.block = Block(name="block")
        self.tail = built((4,), layers.Dense(3, name="inner"), name="tail")
        self.norm = layers.BatchNormalization(name="norm")

    def call(self, x):
        return self.norm(self.tail(self.block(x)))


@pytest.fixture(scope="module")
def subclassed():
    model = Net(name="net")
    model(np.zeros((1, 4), np.float32))
    return model


def test_subclassed_models_lists_dictionaries_and_custom_layers_are_searched(subclassed):
    found, skipped = find_kernels(subclassed)
    assert {k.name for k in found} == {
        *("block", "block/one", "block/two", "block/three"),
        "tail/inner",
    }
    [own] = [k for k in found if k.name == "block"]
    assert own.variable is subclassed.block.own_kernel
    assert [(s.name, s.kind) for s in skipped] == [("norm", "BatchNormalization")]
    assert skipped[0].reason.startswith("no kernel: gamma, beta")


def test_nested_functional_models_have_paths():
    inner_most = built((4,), layers.Dense(4, name="d"), name="deep")
    inner = keras.Sequential([keras.Input((4,)), inner_most, layers.Dense(4, name="d")], name="mid")
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2, name="d")], name="top")
    assert names(model) == ["mid/deep/d", "mid/d", "d"]


def test_a_shared_layer_and_a_shared_variable_are_listed_once():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(shared(inputs)))
    assert names(model) == ["shared"]
    twice = built((4,), shared, name="inner")
    outputs = twice(layers.Dense(4, name="own")(shared(inputs)))
    assert sorted(names(keras.Model(inputs, outputs))) == ["own", "shared"]


def test_a_layer_alone_and_a_model_without_names_can_be_searched():
    layer = layers.Dense(3, name="alone")
    layer.build((None, 4))
    assert names(layer) == ["alone"]


def test_each_layer_is_listed_once_in_order(subclassed):
    paths = [path for path, _ in layers_with_paths(subclassed)]
    assert paths[0] == "net"
    assert len(paths) == len(set(paths))
    assert paths.index("block") < paths.index("tail") < paths.index("norm")


def test_layers_without_kernel_are_skipped_with_the_reason():
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(10, 4, name="words"),
            layers.LayerNormalization(name="norm"),
            layers.Flatten(),
            layers.Dense(8, name="adapted"),
            layers.Dense(8, name="quantized"),
            layers.Dense(2, name="head"),
        ]
    )
    model.get_layer("adapted").enable_lora(2)
    model.get_layer("quantized").quantize("int8")
    found, skipped = find_kernels(model)
    assert [k.name for k in found] == ["words", "head"]
    assert found[0].to_file(found[0].numpy()).shape == (10, 1, 4)
    reasons = {s.name: s.reason for s in skipped}
    assert set(reasons) == {"norm", "adapted", "quantized"}
    assert reasons["norm"] == "no kernel: gamma, beta"
    assert reasons["adapted"] == "LoRA adds to its kernel: merge it first"
    assert "int8" in reasons["quantized"]


def test_frozen_layers_are_kernels_too():
    model = built((4,), layers.Dense(3, name="frozen", trainable=False))
    assert names(model) == ["frozen"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_kernels_of_other_precisions_are_found(policy):
    model = built((4,), layers.Dense(3, name="d", dtype=policy))
    [kernel] = find_kernels(model)[0]
    assert kernel.numpy().shape == (4, 3)


def test_other_objects_than_built_models_raise():
    with pytest.raises(ValueError, match="model must be a Keras 3 model, got dict"):
        find_kernels({})
    with pytest.raises(ValueError, match="model must be built, got 'late': start it with"):
        find_kernels(keras.Sequential([layers.Dense(2)], name="late"))


# Selecting


@pytest.fixture(scope="module")
def net():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="stem")(inputs)
    for n in (1, 2):
        block = keras.Sequential(
            [
                keras.Input(x.shape[1:]),
                layers.DepthwiseConv2D(3, padding="same", name="dw"),
                layers.Conv2D(4, 1, name="pw"),
            ],
            name=f"block_{n}",
        )
        x = block(x)
    x = layers.SeparableConv2D(4, 3, name="sep")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


ALL = [
    *("stem", "block_1/dw", "block_1/pw", "block_2/dw", "block_2/pw"),
    *("sep/depthwise_kernel", "sep/pointwise_kernel", "head"),
]


def test_without_arguments_all_kernels_are_selected(net):
    kept, skipped = select(find_kernels(net)[0])
    assert [k.name for k in kept] == ALL
    assert skipped == []


@pytest.mark.parametrize(
    ("selected", "expected"),
    [
        ("stem", ["stem"]),
        (["stem", "head"], ["stem", "head"]),
        ("block_1", ALL[1:3]),
        ("block_1/pw", ["block_1/pw"]),
        ("pw", ["block_1/pw", "block_2/pw"]),
        ("block_*", ALL[1:5]),
        ("block_*/dw", ["block_1/dw", "block_2/dw"]),
        ("sep", ALL[5:7]),
        ("sep/pointwise_kernel", ["sep/pointwise_kernel"]),
        ("*", ALL),
        (layers.Dense, ["head"]),
        ([layers.Dense, layers.DepthwiseConv2D], ["block_1/dw", "block_2/dw", "head"]),
        (("head", "block_2"), ["block_2/dw", "block_2/pw", "head"]),
        ("last", ["head"]),
        ("first", ["stem"]),
        ("depthwise", ["block_1/dw", "block_2/dw", "sep/depthwise_kernel"]),
        (["first", "last", "depthwise"], ["stem", *ALL[1::2][:2], "sep/depthwise_kernel", "head"]),
    ],
)
def test_layers_and_exclude_take_the_same_values(net, selected, expected):
    found = find_kernels(net)[0]
    kept, skipped = select(found, layers=selected)
    assert [k.name for k in kept] == expected
    assert {s.reason for s in skipped} <= {"not among layers"}
    assert sorted([*expected, *(s.name for s in skipped)]) == sorted(ALL)
    if expected == ALL:
        return
    kept, skipped = select(found, exclude=selected)
    assert [s.name for s in skipped] == expected
    assert all(s.reason.startswith("excluded by ") for s in skipped)
    assert [k.name for k in kept] == [name for name in ALL if name not in expected]


def test_layer_objects_include_their_inner_layers(net):
    found = find_kernels(net)[0]
    block = net.get_layer("block_2")
    assert [k.name for k in select(found, layers=block)[0]] == ["block_2/dw", "block_2/pw"]
    assert [k.name for k in select(found, layers=[block.get_layer("pw")])[0]] == ["block_2/pw"]
    _, skipped = select(found, exclude=net.get_layer("stem"))
    assert [(s.name, s.kind, s.reason) for s in skipped] == [
        ("stem", "Conv2D", "excluded by 'stem'")
    ]


def test_exclude_takes_precedence_over_layers(net):
    found = find_kernels(net)[0]
    kept, skipped = select(found, layers=["block_1", "head"], exclude=["last", "dw"])
    assert [k.name for k in kept] == ["block_1/pw"]
    reasons = {s.name: s.reason for s in skipped}
    assert reasons["head"] == "excluded by 'last'"
    assert reasons["block_1/dw"] == reasons["block_2/dw"] == "excluded by 'dw'"
    assert reasons["stem"] == "not among layers"


def test_a_layer_named_first_is_selected_by_its_name():
    model = built((4,), layers.Dense(4, name="a"), layers.Dense(4, name="first"))
    found = find_kernels(model)[0]
    assert [k.name for k in select(found, exclude="first")[0]] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "steam"}, "layers must name layers with a kernel, got 'steam', which matches"),
        ({"layers": ["stem", "block_9*"]}, "got 'block_9*', which matches none of stem, block_1/"),
        ({"exclude": "nothing"}, "exclude must name layers with a kernel, got 'nothing'"),
        ({"exclude": layers.LSTM}, "exclude must name layers with a kernel, got LSTM"),
        ({"layers": 3}, "layers must name layers with a kernel, got 3"),
        ({"layers": []}, "layers and exclude must leave a kernel, got none of 8"),
        ({"exclude": "*"}, "layers and exclude must leave a kernel, got none of 8"),
        ({"layers": "stem", "exclude": "stem"}, "layers and exclude must leave a kernel"),
    ],
)
def test_names_that_match_nothing_raise(net, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        select(find_kernels(net)[0], **arguments)


def test_a_layer_of_another_model_raises(net):
    with pytest.raises(ValueError, match="layers must name layers with a kernel, got 'other'"):
        select(find_kernels(net)[0], layers=layers.Dense(2, name="other"))


def test_names_are_case_sensitive_and_match_entire_parts(net):
    [stem, *_] = find_kernels(net)[0]
    assert match(stem, "stem")
    assert match(stem, "s?em")
    assert not match(stem, "Stem")
    assert not match(stem, "ste")


def test_examples_are_true():
    assert doctest.testmod(module).failed == 0
