"""A minified file: smaller, with the same operators, weights, inputs, outputs and predictions."""

import io
import pathlib
import zipfile
from collections import Counter

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import tfnas
from tfnas.measure.quantization_debugger.layer_names import LayerNames
from tfnas.quantization.spec import MODES
from tfnas.targets.tflite_micro.interpreter import planned_arena
from tfnas.tflite.file_weights import read_kernels
from tfnas.tflite.flatbuffer import PRODUCT, pack, read_graphs, unpack
from tfnas.tflite.minify import short_name

REFERENCE = pathlib.Path(tfnas.__file__).parent / "measure" / "reference.tflite"


def parts(artifact):
    """Everything that determines the computation: operators and tensors, without inner names."""
    graph = artifact.graph
    tensors = [(t.dtype, t.shape, t.constant, t.zero_points, t.scales) for t in graph.tensors]
    operators = [
        (op.name, [t.index for t in op.inputs], [t.index for t in op.outputs], vars(op.options))
        for op in graph.operators
        if op.options is not None
    ]
    return tensors, str(operators)


@pytest.mark.parametrize("mode", MODES)
def test_predictions_are_the_same_bit_by_bit(artifacts, digits, mode):
    file = artifacts[mode]
    minified = file.minified()
    assert minified.size < file.size
    assert parts(minified) == parts(file)
    assert minified.inputs == file.inputs
    assert minified.outputs == file.outputs
    x = digits.x_test[:40]
    np.testing.assert_array_equal(minified.predict(x), file.predict(x))
    assert (minified.mode, minified.origin) == (file.mode, file.origin)
    assert minified.minified().content == minified.content


def test_equal_lists_are_held_once(artifacts):
    """8 bytes of zero point per channel are saved, except for one list per length."""
    file = artifacts["int8"]
    apart, minified = len(pack(unpack(file.content))), file.minified()
    lists = [t.zero_points for t in file.graph.tensors if t.zero_points]
    repeated = sum(map(len, lists)) - sum(map(len, set(lists)))
    names = [sum(len(t.name) for t in f.graph.tensors) for f in (file, minified)]
    assert apart - file.size > 0.8 * 8 * repeated  # of each integer file
    assert apart - minified.size > 0.95 * (8 * repeated + names[0] - names[1])


def test_buffers_stay_aligned(artifacts):
    content = artifacts["int8"].minified().content
    for tensor in artifacts["int8"].graph.tensors:
        if tensor.constant and len(tensor.constant) > 64:
            assert content.find(tensor.constant) % 16 == 0


def test_names_hold_the_same_layers(artifacts, tiny_model):
    names = LayerNames(tiny_model)
    file = artifacts["int8"]
    ends = {t.index for t in (*file.graph.inputs, *file.graph.outputs)}
    minified = file.minified().graph.tensors
    mentioned = [names.mentioned(tensor.name) for tensor in file.graph.tensors]
    assert len({layer for found in mentioned for layer in found}) > 5
    for tensor, short, found in zip(file.graph.tensors, minified, mentioned, strict=True):
        kernels = [layer for layer in found if layer in names.with_kernel]
        product = any(PRODUCT.search(part) for part in tensor.name.split(";"))
        kept = kernels if tensor.constant and product else found
        assert set(kept) <= set(names.mentioned(short.name)) <= set(found)
        assert (short.name == tensor.name) or tensor.index not in ends


@pytest.mark.parametrize("mode", ["float32", "int8", "int8x4"])
def test_kernels_are_of_the_same_layers(artifacts, mode):
    file = artifacts[mode]
    original, minified = ([k.layer for k in read_kernels(f)] for f in (file, file.minified()))
    assert minified == original


def test_errors_by_layer_are_those_of_the_original_file(artifacts, tiny_model, digits):
    file, x = artifacts["int8"], digits.x_train[:32]
    files = (file, file.minified())
    original, minified = (tfnas.quantization_error(tiny_model, f, x, keep_float=()) for f in files)
    assert minified.layers == original.layers


def test_operators_keep_names_that_differ(artifacts):
    graphs = [f.graph for f in (artifacts["int8"], artifacts["int8"].minified())]
    outputs = [[t.name for op in graph.operators for t in op.outputs] for graph in graphs]
    assert len(set(outputs[1])) == len(set(outputs[0]))
    assert all(outputs[1])


def test_short_name():
    name = "net_1/bn_1/add_1;net_1/bn_1/mul;net_1/inner_1/conv_1/convolution"
    assert short_name(name) == "net_1/bn_1/add_1;net_1/inner_1/conv_1/convolution"
    assert short_name(name, constant=True) == "net_1/inner_1/conv_1/convolution"
    assert short_name("net/a/x;net/b/y;net/b/z;net/a/v") == "net/a/x;net/b/"
    assert short_name("net_1/bn_1/add_1", constant=True) == "net_1/bn_1/add_1"
    for plain in ("arith.constant", "tfl.quantize", ""):
        assert short_name(plain) == plain


def test_metadata_and_labels_stay(artifacts):
    file = artifacts["int8"].with_metadata(labels=[f"digit {i}" for i in range(10)], mean=1, std=2)
    minified = file.minified()
    assert minified.size < file.size
    assert minified.metadata == file.metadata
    held = [zipfile.ZipFile(io.BytesIO(f.content)).read("labels.txt") for f in (file, minified)]
    assert held[0] == held[1]


def test_other_attached_files_stay(artifacts):
    """Labels of other tools may have any name, and our metadata has no field for vocabularies."""
    named = artifacts["int8"].with_metadata(labels=[f"digit {i}" for i in range(10)]).content
    stream = io.BytesIO(named)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("vocabulary.txt", "one\ntwo", zipfile.ZIP_DEFLATED)
    minified = tfnas.Artifact(stream.getvalue()).minified()
    assert minified.size < len(stream.getvalue())
    with zipfile.ZipFile(io.BytesIO(minified.content)) as archive:
        assert archive.namelist() == ["labels.txt", "vocabulary.txt"]
        assert archive.read("vocabulary.txt") == b"one\ntwo"
    assert minified.metadata.labels == tuple(f"digit {i}" for i in range(10))


def test_notes_in_a_buffer_that_is_used_elsewhere_stay(artifacts):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(artifacts["float32"].content, 0))
    tensors = model.subgraphs[0].tensors
    used = next(t.buffer for t in tensors if model.buffers[t.buffer].data is not None)
    [entry] = [entry for entry in model.metadata if entry.name == b"CONVERSION_METADATA"]
    entry.buffer = used
    file = tfnas.Artifact(pack(model))
    assert parts(file.minified()) == parts(file)


def test_sparse_kernels_stay(digits):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(64), layers.Dense(10)]
    )
    pruned, _ = tfnas.prune(model, 0.9)
    file = tfnas.to_tflite(pruned, sparse=True)
    minified = file.minified()
    assert any(t.sparsity is not None for t in minified.graph.tensors)
    assert minified.size < file.size
    x = digits.x_test[:20]
    np.testing.assert_array_equal(minified.predict(x), file.predict(x))


def test_several_graphs_stay():
    """A loop's condition and body are graphs of their own."""

    @keras.saving.register_keras_serializable("tests")
    class Doubling(layers.Layer):
        def call(self, x):
            return keras.ops.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v * 2.0), (0, x))[
                1
            ]

    inputs = keras.Input((4,), batch_size=1)
    file = tfnas.to_tflite(keras.Model(inputs, Doubling()(inputs)))
    minified = file.minified()
    assert len(read_graphs(minified.content)) == len(read_graphs(file.content)) > 1
    x = np.arange(4, dtype=np.float32)[None]
    np.testing.assert_array_equal(minified.predict(x), 8 * x)


def test_inputs_and_outputs_keep_their_names():
    first, second = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    file = tfnas.to_tflite(keras.Model([first, second], layers.Dense(3)(first - second)))
    minified = file.minified()
    assert minified.size < file.size
    x = {"left": np.ones((1, 4), np.float32), "right": np.full((1, 4), 3, np.float32)}
    runner = [f.interpreter().get_signature_runner() for f in (file, minified)]
    (original,), (same,) = (tuple(run(**x).values()) for run in runner)
    np.testing.assert_array_equal(original, same)
    np.testing.assert_array_equal(minified.predict(x), file.predict(x))


def test_a_microcontroller_needs_as_much_memory(artifacts):
    file = artifacts["int8"]
    assert planned_arena(file.minified()) == planned_arena(file)


def test_files_of_others():
    file = tfnas.Artifact.load(REFERENCE)
    minified = file.minified()
    assert minified.size <= file.size
    kinds = [Counter(op.name for op in f.graph.operators) for f in (file, minified)]
    assert kinds[0] == kinds[1]
    x = np.random.default_rng(0).normal(size=(2, *file.inputs[0].shape[1:])).astype(np.float32)
    np.testing.assert_array_equal(minified.predict(x), file.predict(x))


def test_command(tmp_path, tiny_model, tfnas_command):
    tiny_model.save(tmp_path / "m.keras")
    sizes = []
    for flag in ([], ["--slim"]):
        target = tmp_path / f"f{len(flag)}.tflite"
        code, out, err = tfnas_command("export", tmp_path / "m.keras", f"--output={target}", *flag)
        assert (code, err) == (0, "")
        sizes.append(target.stat().st_size)
        assert f"{sizes[-1]:,} bytes" in out
    assert sizes[1] < sizes[0]
