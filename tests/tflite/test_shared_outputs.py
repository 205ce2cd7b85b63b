"""Outputs of integer files that layers of floats read too."""

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from keras import layers as L

import tfnas
from tfnas.tflite.flatbuffer import pack
from tfnas.tflite.graph_writer import GraphWriter, NumberFormat
from tfnas.tflite.shared_outputs import split_shared_outputs

FLOAT, INT8 = NumberFormat("float32"), NumberFormat("int8", 0.1, 3)


def file_of(shared):
    """Integers as floats, and the floats' RELU where they are shared."""
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [], [schema.BufferT()]
    model.operatorCodes = []
    writer = GraphWriter(model)
    x, y, z = (writer.tensor((2, 3), f, n) for f, n in ((INT8, "x"), (FLOAT, "y"), (FLOAT, "z")))
    writer.operator("DEQUANTIZE", [x], [y])
    writer.operator("RELU", [y], [z])
    writer.finish([x], [y, z] if shared else [z])
    return pack(model)


def test_the_reader_of_an_output_gets_floats_of_its_own():
    before, after = (
        tfnas.Artifact(file_of(True)),
        tfnas.Artifact(split_shared_outputs(file_of(True))),
    )
    assert [op.name for op in after.graph.operators] == ["DEQUANTIZE", "DEQUANTIZE", "RELU"]
    shown, again, _ = (op.outputs[0].index for op in after.graph.operators)
    assert after.graph.outputs[0].index == shown
    assert [t.index for t in after.graph.operators[2].inputs] == [again]
    x = np.linspace(-9, 9, 6).reshape(2, 3)
    for one, other in zip(before.predict(x), after.predict(x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_without_such_outputs_stays_as_it_is():
    content = file_of(False)
    assert split_shared_outputs(content) is content


def test_a_layer_that_stays_float_may_read_an_output_of_the_model():
    keras.utils.set_random_seed(0)
    x = keras.Input((5,), name="x")
    shown = L.Dense(6, name="shown")(x)
    normalized = L.LayerNormalization(name="normalized")(shown)
    model = keras.Model(x, [shown, L.Dense(3, name="scores")(normalized)], name="net")
    data = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
    spec = tfnas.QuantSpec(layers={"normalized": "float32"})
    aware = tfnas.quantize_aware(model, spec, data=data)
    file = tfnas.to_tflite(aware, spec)
    assert [tensor.dtype for tensor in file.outputs] == ["int8", "int8"]
    found = file.predict(data, reference=True)
    for one, other, tensor in zip(found, aware(data), file.outputs, strict=True):
        assert np.abs(one - other).max() <= 1.001 * tensor.scale
