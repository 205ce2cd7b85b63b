"""Zeros counted in the file, and files in sparse encoding."""

import doctest
import re

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import tfnas
from tfnas.tflite import file_sparsity as file_sparsity_module
from tfnas.tflite.file_sparsity import file_sparsity, sparse_fault
from tfnas.tflite.file_weights import FileKernel, dense_values, read_kernels
from tfnas.tflite.flatbuffer import TensorInfo

SHAPE = (16, 16, 3)
# Sparse kernels, where a processor has them, add the nonzero products in another order. Two
# orders of up to 256 float32 numbers differ by at most 256 * 2**-24 = 1.5e-5 of the sum of their
# magnitudes, here of the order of 1, in each of six layers. Faults were NaN or above 1.
SUMS = 1e-4
NAMES = ["stem", "depthwise", "project", "up", "hidden", "head"]
PRUNED = {
    "float32": NAMES,
    "float16": [name for name in NAMES if name != "up"],
    "int8": ["stem", "depthwise", "project", "up"],
}


def pruned(kernel, fraction, block=1):
    """The kernel with a fraction of its weights at 0, in blocks along the input channels."""
    inner = np.moveaxis(kernel, -2, -1)  # a dense or convolution kernel in the file's order
    flat = inner.reshape(-1, block).copy()
    zeros = round(fraction * len(flat))
    flat[np.random.default_rng(0).permutation(len(flat))[:zeros]] = 0
    flat /= max(1 - fraction, 0.1) ** 0.5  # else the outputs hardly depend on the inputs
    return np.moveaxis(flat.reshape(inner.shape), -1, -2)


def prune(model, fraction, block=1, names=None):
    for layer in model.layers:
        if hasattr(layer, "kernel") and (names is None or layer.name in names):
            layer.kernel.assign(pruned(layer.kernel.numpy(), fraction, block))
    return model


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    x = layers.ZeroPadding2D(1)(inputs)
    x = layers.Conv2D(32, 3, strides=2, use_bias=False, name="stem")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(128, 1, activation="relu", name="project")(x)
    x = layers.Conv2DTranspose(16, 2, strides=2, name="up")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(64, "relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(8, "tanh", name="head")(x))


def dense_net(fraction, block):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64,), name="features")
    model = keras.Sequential([inputs, layers.Dense(64, "relu"), layers.Dense(32)])
    return prune(model, fraction, block)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)  # of different colors, so that the outputs differ
    return (rng.normal(0, 20, (20, *SHAPE)) + rng.normal(0, 20, (20, 1, 1, 3))).astype(np.float32)


@pytest.fixture(scope="module")
def models():
    """Mode -> a model that is pruned in the layers whose sparse kernels the mode supports."""
    return {mode: prune(network(), 0.9, names=names) for mode, names in PRUNED.items()}


@pytest.fixture(scope="module")
def files(models, images):
    """(mode, sparse) -> file."""
    return {
        (mode, sparse): tfnas.to_tflite(model, mode, images, sparse=sparse)
        for mode, model in models.items()
        for sparse in (False, True)
    }


@pytest.fixture(scope="module")
def blocks():
    """Dense layers in 1x4 blocks: (dense file, sparse file)."""
    source = dense_net(0.9, 4)
    return tfnas.to_tflite(source), tfnas.to_tflite(source, sparse=True)


def zeros_of(model):
    return {
        layer.name: int((layer.kernel.numpy() == 0).sum())
        for layer in model.layers
        if hasattr(layer, "kernel")
    }


def sparse_tensors(artifact):
    """Tensors with a sparse encoding, by the schema."""
    graph = schema.Model.GetRootAs(artifact.content, 0).Subgraphs(0)
    tensors = map(graph.Tensors, range(graph.TensorsLength()))
    return [tensor for tensor in tensors if tensor.Sparsity() is not None]


# --- counting


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("mode", ["float32", "float16"])
def test_float_files_hold_the_zeros_of_keras(files, models, mode, sparse):
    model = models[mode]
    found = file_sparsity(files[mode, sparse])
    assert [kernel.layer for kernel in found.kernels] == NAMES
    assert {kernel.layer: kernel.zeros for kernel in found.kernels} == zeros_of(model)
    assert {kernel.dtype for kernel in found.kernels} == {mode}
    expected = sum(w.shape.num_elements() for w in model.weights if w.name == "kernel")
    assert (found.weights, found.zeros) == (expected, sum(zeros_of(model).values()))
    if mode == "float32":
        assert found.sparsity == pytest.approx(0.9, abs=0.001)


@pytest.mark.parametrize("sparse", [False, True])
def test_int8_rounds_more_weights_to_zero_and_none_away(files, models, sparse):
    kernels = file_sparsity(files["int8", sparse]).kernels
    pruned = zeros_of(models["int8"])
    assert {kernel.dtype for kernel in kernels} == {"int8"}
    for kernel in kernels:
        assert pruned[kernel.layer] <= kernel.zeros <= pruned[kernel.layer] + 0.05 * kernel.weights


def test_unpruned_kernels_hold_no_zeros():
    found = file_sparsity(tfnas.to_tflite(network()))
    assert (found.zeros, found.sparsity) == (0, 0.0)
    assert not any(kernel.sparse for kernel in found.kernels)


def test_file_without_kernels():
    model = keras.Sequential([keras.Input((4,)), layers.ReLU()])
    found = file_sparsity(tfnas.to_tflite(model))
    assert (found.kernels, found.weights, found.sparsity) == ((), 0, 0.0)


def test_layer_that_is_used_twice_is_counted_once():
    inputs = keras.Input((8,))
    shared = layers.Dense(8, name="shared")
    artifact = tfnas.to_tflite(keras.Model(inputs, shared(layers.ReLU()(shared(inputs)))))
    assert [op.name for op in artifact.graph.operators].count("FULLY_CONNECTED") == 2
    assert file_sparsity(artifact).weights == 64


def test_kernels_in_the_body_of_a_loop_are_counted():
    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(1, 5, 8))
    artifact = tfnas.to_tflite(keras.Model(inputs, layers.LSTM(16, return_state=True)(inputs)))
    assert "WHILE" in [op.name for op in artifact.graph.operators]
    assert sorted(k.shape for k in file_sparsity(artifact).kernels) == [(64, 8), (64, 16)]


def test_table_ends_with_the_total_the_bytes_and_the_verdict(files):
    artifact = files["float32", True]
    lines = str(file_sparsity(artifact)).splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith("file: "))
    rows, size = lines[:end], lines[end]
    verdict = " ".join(" ".join(lines[end + 1 :]).split())
    assert max(map(len, lines)) <= 80
    assert rows[0].split() == (
        ["layer", "operator", "dtype", "shape", "stored", "weights", "zeros", "share"]
    )
    assert rows[2].split()[:5] == ["stem", "CONV_2D", "float32", "32x3x3x3", "sparse"]
    assert rows[-1].split() == ["total", "14976", "13479", "90.0%"]
    assert size == f"file: {len(artifact.content)} bytes, {artifact.gzip_size} gzipped"
    assert verdict == str(tfnas.sparse_eligibility(artifact))
    assert verdict.startswith("not eligible for sparse kernels: ")


def test_example_is_true():
    assert doctest.testmod(file_sparsity_module).failed == 0


# --- kernels as arrays


@pytest.mark.parametrize("mode", ["float32", "float16", "int8"])
def test_sparse_file_holds_the_dense_file_s_kernels(files, mode):
    pairs = zip(read_kernels(files[mode, False]), read_kernels(files[mode, True]), strict=True)
    for dense, sparse in pairs:
        assert (sparse.operator, sparse.values.dtype) == (dense.operator, dense.values.dtype)
        np.testing.assert_array_equal(sparse.values, dense.values)


def test_kernels_are_in_the_file_s_layout(files, models):
    found = {kernel.layer: kernel.values for kernel in read_kernels(files["float32", True])}
    kernel = {name: models["float32"].get_layer(name).kernel.numpy() for name in NAMES}
    np.testing.assert_array_equal(found["project"], kernel["project"].transpose(3, 0, 1, 2))
    np.testing.assert_array_equal(found["hidden"], kernel["hidden"].T)


def test_two_of_four_can_be_seen_along_the_innermost_axis():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4, 4, 16)), layers.Conv2D(64, 1)])
    kernel = model.layers[0].kernel
    groups = np.moveaxis(kernel.numpy(), -2, -1).reshape(-1, 4)
    np.put_along_axis(groups, np.abs(groups).argsort(1)[:, :2], 0, 1)
    kernel.assign(np.moveaxis(groups.reshape(1, 1, 64, 16), -1, -2))
    for sparse in (False, True):
        [found] = read_kernels(tfnas.to_tflite(model, sparse=sparse))
        assert (found.zeros.reshape(-1, 4).sum(1) == 2).all()


def test_blocks_are_decoded(blocks):
    dense, sparse = blocks
    assert [len(t.Sparsity().BlockMapAsNumpy()) for t in sparse_tensors(sparse)] == [1, 1]
    for a, b in zip(read_kernels(dense), read_kernels(sparse), strict=True):
        np.testing.assert_array_equal(a.values, b.values)


def tensor(dtype, data, shape, **more):
    return TensorInfo(0, "t", dtype, shape, bytes(data), **more)


@pytest.mark.parametrize(
    ("dtype", "data", "expected"),
    [
        ("int4", [0xF0, 0x78, 0x01], [[0, -1, -8], [7, 1, 0]]),
        ("uint4", [0xF0, 0x78, 0x01], [[0, 15, 8], [7, 1, 0]]),
        ("int2", [0b11100100, 0b0001], [[0, 1, -2], [-1, 1, 0]]),
        ("int16", [1, 0, 255, 255, 0, 0, 2, 0, 0, 1, 3, 0], [[1, -1, 0], [2, 256, 3]]),
    ],
)
def test_packed_numbers(dtype, data, expected):
    np.testing.assert_array_equal(dense_values(tensor(dtype, data, (2, 3))), expected)


def test_zero_is_the_zero_point():
    values = np.array([[3, 0], [5, 3]], np.uint8)
    one = FileKernel("a", "b", tensor("uint8", values.tobytes(), (2, 2), zero_points=(3,)), values)
    assert one.zeros.tolist() == [[True, False], [False, True]]
    for axis, expected in (
        (0, [[True, False], [True, False]]),
        (1, [[True, False], [False, False]]),
    ):
        info = tensor("uint8", b"", (2, 2), zero_points=(3, 5), channel_axis=axis)
        assert FileKernel("a", "b", info, values).zeros.tolist() == expected


def test_tensors_that_cannot_be_read():
    for dtype in ("string", "?"):
        with pytest.raises(
            ValueError, match=rf"tensor 't' must hold numbers, got {re.escape(dtype)}"
        ):
            dense_values(tensor(dtype, [0, 0], (1, 2)))
    with pytest.raises(
        ValueError, match=r"must hold int8 numbers of shape \(2, 3\), got 4 numbers"
    ):
        dense_values(tensor("int8", [0] * 4, (2, 3)))


# --- sparse files


@pytest.mark.parametrize("mode", ["float32", "float16", "int8"])
def test_sparse_file_is_sparse_smaller_and_computes_the_same(files, images, mode):
    dense, sparse = files[mode, False], files[mode, True]
    assert not sparse_tensors(dense)
    assert len(sparse_tensors(sparse)) == len(PRUNED[mode])
    stored = [kernel.layer for kernel in file_sparsity(sparse).kernels if kernel.sparse]
    assert stored == PRUNED[mode]
    assert sparse.size < dense.size
    assert sparse.mode == dense.mode == mode
    expected = dense.predict(images)
    assert expected.std(axis=0).max() > 2 * dense.outputs[0].scale + 0.005
    # Integers add up to the same in any order, and both files have dense integer kernels.
    atol = 1e-6 if mode == "int8" else SUMS
    np.testing.assert_allclose(sparse.predict(images), expected, atol=atol, rtol=0)


def test_origin_holds_the_size_of_the_dense_file(files):
    dense, sparse = files["float32", False], files["float32", True]
    assert "sparse" not in dense.origin
    assert sparse.origin == {
        **dense.origin,
        "sparse": True,
        "dense_size": dense.size,
        "dense_gzip_size": dense.gzip_size,
    }


def test_dense_layers_in_blocks_compute_the_same(blocks):
    x = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    dense, sparse = blocks
    assert sparse.size < dense.size
    assert "DENSIFY" not in [op.name for op in sparse.graph.operators]
    np.testing.assert_allclose(sparse.predict(x), dense.predict(x), atol=SUMS)


def test_int8_dense_layers_in_blocks_of_16():
    source = dense_net(0.75, 16)
    x = np.random.default_rng(0).normal(size=(50, 64))
    dense, sparse = (tfnas.to_tflite(source, "int8", x, sparse=sparse) for sparse in (False, True))
    assert len(sparse_tensors(sparse)) == 2
    step = dense.outputs[0].scale
    np.testing.assert_allclose(sparse.predict(x), dense.predict(x), atol=1.01 * step, rtol=0)


@pytest.mark.parametrize("mode", ["dynamic", "int16x8"])
def test_modes_without_sparse_files(models, images, mode):
    match = rf"sparse must be False for the modes .* float32, float16, int8, got True for '{mode}'"
    with pytest.raises(ValueError, match=match):
        tfnas.to_tflite(models["float32"], mode, images, sparse=True)


X = np.random.default_rng(0).normal(size=(8, 64))
REFUSED = {
    "unpruned": (
        "float32",
        0.0,
        1,
        "no kernel was stored sparsely: it must hold 30% zeros and .*, got 0.0% in layer",
    ),
    "float16 blocks": ("float16", 0.9, 4, "DEQUANTIZE would read the sparse float16 tensor"),
    "int8 elements": ("int8", 0.9, 1, r"refuses it: .*FULLY_CONNECTED.* only unpruned or in 1x16"),
    "not smaller": ("float16", 0.31, 1, r"must be smaller than the dense one, got \d+ bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_sparse_files_that_are_refused(case, request):
    if case == "int8 elements" and request.config.getoption("--no-xnnpack"):
        pytest.skip("it is XNNPACK that refuses them; LiteRT's own kernels read them")
    mode, fraction, block, match = REFUSED[case]
    source = dense_net(fraction, block)
    match = f"sparse must be False for model '{source.name}': .*{match}"
    with pytest.raises(tfnas.ConversionError, match=match):
        tfnas.to_tflite(source, mode, X, sparse=True)


def test_float16_transposed_convolution_is_refused(models):
    match = "TRANSPOSE_CONV is not known to read sparse float16 kernels right: .* layer 'up'"
    with pytest.raises(tfnas.ConversionError, match=match):
        tfnas.to_tflite(models["float32"], "float16", sparse=True)


def test_file_that_computes_something_else_is_found(blocks):
    _, sparse = blocks
    other = dense_net(0.0, 4)
    fault = sparse_fault(sparse, tfnas.to_tflite(other))
    assert fault.startswith("outputs must be those of the dense file, got a difference of")
