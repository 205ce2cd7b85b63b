"""A slimmed file: the same operators, weights, names at its ends and numbers, in fewer bytes."""

import io
import pathlib
import zipfile
from collections import Counter

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.bench.layer_names import LayerNames
from tfnas.bench.micro import planned_arena
from tfnas.export.flatbuffer import PRODUCT
from tfnas.export.kernels import read_kernels
from tfnas.export.slimming import short_name
from tfnas.quantization.spec import MODES

REFERENCE = pathlib.Path(tfnas.__file__).parent / "bench" / "reference.tflite"


def parts(artifact):
    """What a file computes by: its operators and all of its tensors but the inner names."""
    graph = artifact.graph
    tensors = [(t.dtype, t.shape, t.constant, t.zero_points, t.scales) for t in graph.tensors]
    operators = [
        (op.name, [t.index for t in op.inputs], [t.index for t in op.outputs], vars(op.options))
        for op in graph.operators
        if op.options is not None
    ]
    return tensors, str(operators)


@pytest.mark.parametrize("mode", MODES)
def test_what_it_computes_stays_to_the_bit(artifacts, digits, mode):
    file = artifacts[mode]
    slim = file.slimmed()
    assert slim.size < file.size
    assert parts(slim) == parts(file)
    assert slim.inputs == file.inputs
    assert slim.outputs == file.outputs
    x = digits.x_test[:40]
    np.testing.assert_array_equal(slim.predict(x), file.predict(x))
    assert (slim.mode, slim.origin) == (file.mode, file.origin)
    assert slim.slimmed().content == slim.content


def test_equal_lists_are_held_once(artifacts):
    """8 bytes of zero point a channel go but for one list a length, and long names."""
    file = artifacts["int8"]
    lists = [t.zero_points for t in file.graph.tensors if t.zero_points]
    repeated = sum(map(len, lists)) - sum(map(len, set(lists)))
    assert file.size - file.slimmed().size > 8 * repeated > 1000


def test_buffers_stay_aligned(artifacts):
    content = artifacts["int8"].slimmed().content
    for tensor in artifacts["int8"].graph.tensors:
        if tensor.constant and len(tensor.constant) > 64:
            assert content.find(tensor.constant) % 16 == 0


def test_names_tell_the_same_layers(artifacts, tiny_model):
    names = LayerNames(tiny_model)
    file = artifacts["int8"]
    ends = {t.index for t in (*file.graph.inputs, *file.graph.outputs)}
    slim = file.slimmed().graph.tensors
    told = [names.mentioned(tensor.name) for tensor in file.graph.tensors]
    assert len({layer for found in told for layer in found}) > 5
    for tensor, short, found in zip(file.graph.tensors, slim, told, strict=True):
        kernels = [layer for layer in found if layer in names.with_kernel]
        product = any(PRODUCT.search(part) for part in tensor.name.split(";"))
        kept = kernels if tensor.constant and product else found
        assert set(kept) <= set(names.mentioned(short.name)) <= set(found)
        assert (short.name == tensor.name) or tensor.index not in ends


@pytest.mark.parametrize("mode", ["float32", "int8", "int8x4"])
def test_kernels_are_of_the_same_layers(artifacts, mode):
    file = artifacts[mode]
    whole, slim = ([k.layer for k in read_kernels(f)] for f in (file, file.slimmed()))
    assert slim == whole


def test_errors_by_layer_are_those_of_the_whole_file(artifacts, tiny_model, digits):
    file, x = artifacts["int8"], digits.x_train[:32]
    whole, slim = (tfnas.quantization_error(tiny_model, f, x) for f in (file, file.slimmed()))
    assert slim.layers == whole.layers


def test_short_name():
    name = "net_1/bn_1/add_1;net_1/bn_1/mul;net_1/inner_1/conv_1/convolution"
    assert short_name(name) == "net_1/bn_1/;net_1/inner_1/conv_1/convolution"
    assert short_name(name, constant=True) == "net_1/inner_1/conv_1/convolution"
    assert short_name("net_1/bn_1/add_1", constant=True) == "net_1/bn_1/"
    assert short_name("arith.constant") == ""
    assert short_name("") == ""


def test_metadata_and_labels_stay(artifacts):
    file = artifacts["int8"].with_metadata(labels=[f"digit {i}" for i in range(10)], mean=1, std=2)
    slim = file.slimmed()
    assert slim.size < file.size
    assert slim.metadata == file.metadata
    held = [zipfile.ZipFile(io.BytesIO(f.content)).read("labels.txt") for f in (file, slim)]
    assert held[0] == held[1]


def test_ends_are_called_by_their_names():
    first, second = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    file = tfnas.to_tflite(keras.Model([first, second], layers.Dense(3)(first - second)))
    slim = file.slimmed()
    assert slim.size < file.size
    x = {"left": np.ones((1, 4), np.float32), "right": np.full((1, 4), 3, np.float32)}
    runner = [f.interpreter().get_signature_runner() for f in (file, slim)]
    (whole,), (same,) = (tuple(run(**x).values()) for run in runner)
    np.testing.assert_array_equal(whole, same)
    np.testing.assert_array_equal(slim.predict(x), file.predict(x))


def test_a_microcontroller_needs_as_much_memory(artifacts):
    file = artifacts["int8"]
    assert planned_arena(file.slimmed()) == planned_arena(file)


def test_files_of_others():
    file = tfnas.Artifact.load(REFERENCE)
    slim = file.slimmed()
    assert slim.size <= file.size
    kinds = [Counter(op.name for op in f.graph.operators) for f in (file, slim)]
    assert kinds[0] == kinds[1]


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
