"""Damaged files and signal operators: refused by a ValueError, or taken, and nothing else."""

import contextlib
import dataclasses

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import tfnas
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.flatbuffer import pack, unpack

BUILTIN = schema.BuiltinOperator
COUNT = 150  # of mutants of each kind
SIGNAL = """
    Delay Energy FftAutoScale FilterBank FilterBankLog FilterBankSpectralSubtraction
    FilterBankSquareRoot Framer Irfft OverlapAdd PCAN Rfft Stacker Window
"""


@pytest.fixture(scope="module")
def file():
    inputs = keras.Input((6, 6, 2))
    x = layers.DepthwiseConv2D(3, activation="relu6")(inputs)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    x = keras.ops.take(layers.Dense(8)(x), [0, 2, 4, 6], axis=1)
    data = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype("float32")
    return tfnas.to_tflite(keras.Model(inputs, x), "int8", data)


def bytes_changed(content, rng):
    """A file with up to four other bytes, most of them in its head."""
    damaged = bytearray(content)
    for place in rng.integers(0, len(damaged), 1 + rng.integers(4)):
        damaged[place] = rng.integers(256)
    return bytes(damaged)


def parts_changed(content, rng):
    """A well-formed file whose operators have other inputs, outputs, codes or types."""
    model = unpack(content)
    graph = model.subgraphs[0]
    for op in graph.operators:
        change = rng.integers(8)
        if change < 2:
            name = ("inputs", "outputs")[change]
            tensors = list(getattr(op, name))
            setattr(op, name, np.array(tensors[: rng.integers(len(tensors))], np.int32))
        elif change == 2:
            op.inputs = rng.integers(-1, len(graph.tensors), len(op.inputs)).astype(np.int32)
        elif change == 3:
            code = model.operatorCodes[op.opcodeIndex]
            code.builtinCode = int(rng.integers(0, BUILTIN.RELU_0_TO_1 + 1))
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    for tensor in graph.tensors:
        if rng.random() < 0.05:
            tensor.type = int(rng.integers(0, 18))
        if rng.random() < 0.05:
            tensor.shape = rng.integers(-1, 5, rng.integers(5)).astype(np.int32)
        if rng.random() < 0.05:
            tensor.quantization = None
    return pack(model)


@pytest.fixture
def without_native_code(monkeypatch):
    """LiteRT itself may end the process on a damaged file; these rules are Python's."""

    def refuse(*_, **__):
        raise RuntimeError("refused")

    monkeypatch.setattr(Artifact, "interpreter", refuse)


@pytest.mark.parametrize("mutate", [bytes_changed, parts_changed])
def test_a_damaged_file_is_refused_or_taken(file, mutate, without_native_code):
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(COUNT):
        content = mutate(file.content, rng)
        try:
            damaged = Artifact(content)
        except ValueError:
            continue
        passed += 1
        for rule in (
            tfnas.check_micro,
            tfnas.micro_operators,
            tfnas.resolver_code,
            tfnas.planned_arena,
        ):
            with contextlib.suppress(ValueError):
                rule(damaged)
    assert passed  # else nothing was tried


def test_missing_inputs_are_named(file, without_native_code):
    model = unpack(file.content)
    graph = model.subgraphs[0]
    for op in graph.operators:
        op.inputs = np.array([], np.int32)
    damaged = Artifact(pack(model))
    with pytest.raises(ValueError, match="CONV_2D: 0 inputs and 1 outputs"):
        tfnas.check_micro(damaged)


@pytest.mark.parametrize("name", SIGNAL.split())
def test_signal_operators_have_kernels(file, name):
    model = unpack(file.content)
    for code in model.operatorCodes:
        code.builtinCode, code.deprecatedBuiltinCode = BUILTIN.CUSTOM, BUILTIN.CUSTOM
        code.customCode = f"Signal{name}".encode()
    signal = dataclasses.replace(file, content=pack(model))
    tfnas.check_micro(signal)
    assert f"resolver.Add{name}();" in tfnas.resolver_code(signal)
