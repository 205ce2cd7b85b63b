"""Planned memory of operators with a state, against what TFLite Micro uses."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfnas.targets.tflite_micro.interpreter import micro_memory, planned_arena
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.flatbuffer import pack
from tfnas.tflite.graph_writer import GraphWriter, NumberFormat

FLOAT, INT8, INT16 = (
    NumberFormat("float32"),
    NumberFormat("int8", 0.05),
    NumberFormat("int16", 2.0**-11),
)
RNG = np.random.default_rng(0)


def new_file():
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [], [schema.BufferT()]
    model.operatorCodes = []
    return GraphWriter(model)


def finished(writer, x, y):
    writer.finish([x], [y])
    return Artifact(pack(writer.model))


def state(writer, shape, form):
    index = writer.tensor(shape, form, "state")
    writer.graph.tensors[index].isVariable = True
    return index


def lstm(units, features=5, steps=6):
    """A fused LSTM of floats."""
    writer = new_file()

    def weights(*shape):
        return writer.constant(RNG.normal(size=shape), FLOAT, "weights")

    x = writer.tensor((1, steps, features), FLOAT, "x")
    y = writer.tensor((1, steps, units), FLOAT, "y")
    inputs = [
        *(x, *(weights(units, features) for _ in range(4))),
        *(*(weights(units, units) for _ in range(4)), -1, -1, -1),
        *(*(weights(units) for _ in range(4)), -1, -1),
        *(state(writer, (1, units), FLOAT), state(writer, (1, units), FLOAT)),
        *(-1, -1, -1, -1),
    ]
    options = {"fusedActivationFunction": schema.ActivationFunctionType.TANH}
    writer.operator("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [y], **options)
    return finished(writer, x, y)


def svdf(units, integers, features=5, memory=4):
    """An SVDF of rank 1."""
    writer = new_file()
    form, inner = (INT8, INT16) if integers else (FLOAT, FLOAT)

    def weights(of, *shape):
        return writer.constant(of.integers(0.1 * RNG.normal(size=shape)), of, "weights")

    x, y = writer.tensor((1, features), form, "x"), writer.tensor((1, units), form, "y")
    bias = NumberFormat("int32", 2.0**-22) if integers else FLOAT
    inputs = [x, weights(form, units, features), weights(inner, units, memory)]
    inputs += [weights(bias, units), state(writer, (1, memory * units), inner)]
    writer.operator("SVDF", inputs, [y], rank=1)
    return finished(writer, x, y)


FILES = {
    "LSTM": lambda: lstm(8),
    "wide LSTM": lambda: lstm(40),
    "SVDF of floats": lambda: svdf(24, False),
    "SVDF of integers": lambda: svdf(24, True),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_planned_memory_is_what_tflite_micro_uses(kind):
    pytest.importorskip("tflite_micro")
    file = FILES[kind]()
    assert planned_arena(file) == micro_memory(file).non_persistent
