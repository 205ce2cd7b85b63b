"""tfnas.profile of a `.tflite` file: against the Keras model, and operators by hand."""

import types

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.cli import app
from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo, TensorInfo
from tfnas.tflite.operator_macs import known_shapes, operator_macs


def convolutional():
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    x = layers.SeparableConv2D(6, 3, padding="same")(layers.DepthwiseConv2D(3)(x))
    x = layers.Conv2D(4, 3, groups=2)(layers.Conv2DTranspose(4, 3, 2)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def transformer():
    inputs = keras.Input((6,))
    x = layers.Embedding(20, 16)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    x = layers.Dense(16)(layers.Dense(32, "gelu")(x))
    return keras.Model(inputs, layers.Dense(5)(x[:, 0]))


def dense_of_rank_three():
    return keras.Sequential([keras.Input((7, 5)), layers.Dense(4), layers.Dense(3)])


def volume():
    return keras.Sequential([keras.Input((6, 6, 6, 2)), layers.Conv3D(3, 3)])


def loop():
    """A GRU of fixed batch is a WHILE of six steps."""
    inputs = keras.Input(batch_shape=(1, 6, 5))
    return keras.Model(inputs, layers.Dense(3)(layers.GRU(4)(inputs)))


@pytest.mark.parametrize("build", [convolutional, transformer, dense_of_rank_three, volume, loop])
def test_macs_of_a_file_are_those_of_its_keras_model(build):
    model = build()
    file = tfnas.to_tflite(model)
    found = tfnas.profile(file)
    assert found.uncounted == ()
    assert found.macs == tfnas.profile(model).macs > 0
    assert [op.name for op in found.operators] == [op.name for op in file.graph.operators]
    assert found.size == file.size


@pytest.fixture(scope="module")
def small():
    """Input 4x4x2 -> convolution 4x4x8 -> convolution 4x4x4: the first two are alive at once."""
    parts = [layers.Conv2D(8, 3, padding="same"), layers.Conv2D(4, 1, name="last")]
    return keras.Sequential([keras.Input((4, 4, 2)), *parts])


def test_bytes_of_weights_and_activations_by_hand(small):
    file = tfnas.to_tflite(small, "int8", np.random.default_rng(0).normal(size=(8, 4, 4, 2)))
    found = tfnas.profile(file)
    assert [op.name for op in found.operators] == ["CONV_2D", "CONV_2D"]
    assert found.weight_bytes == {"int8": 144 + 32, "int32": 4 * (8 + 4)}
    assert [op.weight_bytes for op in found.operators] == [144 + 32, 32 + 16]
    assert found.operators[1].output_shape == (1, 4, 4, 4)
    assert found.peak_activation_bytes == 16 * (8 + 4)
    assert "weights 176 int8, 48 int32" in found.summary()
    assert str(found).count("CONV_2D") == 3  # two operators, and the table of kinds


def test_open_sizes_come_from_data():
    model = keras.Sequential([keras.Input((None, 3)), layers.Conv1D(4, 3, padding="same")])
    file = tfnas.to_tflite(model)
    with pytest.raises(
        ValueError, match=r"file must have inputs of known shape, got \(-1, -1, 3\)"
    ):
        tfnas.profile(file)
    assert tfnas.profile(file, np.zeros((5, 10, 3))).macs == 10 * 36
    with pytest.raises(ValueError, match=r"data must fit input .* got \(10, 4\) an example"):
        tfnas.profile(file, np.zeros((5, 10, 4)))
    with pytest.raises(ValueError, match="data must have 1 inputs, got 2"):
        tfnas.profile(file, [np.zeros((5, 10, 3))] * 2)


def tensor(index, *shape, constant=False, signature=()):
    content = b"\0" * int(np.prod(shape)) if constant else None
    return TensorInfo(index, str(index), "int8", shape, content, signature=signature)


def macs_of(name, inputs, output, custom=False, **options):
    op = OperatorInfo(name, tuple(inputs), (output,), types.SimpleNamespace(**options), custom)
    graph = FileGraph((op,), (*inputs, output), tuple(inputs), (output,))
    return operator_macs(op, graph, known_shapes(graph), [graph])


def lstm_weights():
    """Four kernels of each side, four biases, and the two states."""
    sides = [tensor(n, 8, size, constant=True) for n, size in enumerate([5] * 4 + [8] * 4, 1)]
    biases = [tensor(n, 8, constant=True) for n in range(9, 13)]
    return [*sides, *biases, tensor(13, 1, 8), tensor(14, 1, 8)]


BY_HAND = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        [tensor(0, 1, 6, 5), *lstm_weights()],
        tensor(20, 1, 6, 8),
        6 * 4 * 8 * (5 + 8),
    ),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (
        [tensor(0, 1, 6, 5), tensor(1, 8, 5, constant=True), tensor(2, 8, 8, constant=True)],
        tensor(20, 1, 6, 8),
        6 * 8 * 13,
    ),
    "SVDF": (
        [tensor(0, 1, 5), tensor(1, 8, 5, constant=True), tensor(2, 8, 10, constant=True)],
        tensor(20, 1, 4),
        8 * 15,
    ),
    "BATCH_MATMUL": ([tensor(0, 2, 5, 3), tensor(1, 2, 5, 4)], tensor(20, 2, 3, 4), 2 * 3 * 4 * 5),
    "TRANSPOSE_CONV": (
        [tensor(0, 4), tensor(1, 6, 3, 3, 4, constant=True), tensor(2, 1, 5, 5, 4)],
        tensor(20, 1, 10, 10, 6),
        25 * 6 * 9 * 4,
    ),
    "CONV_3D_TRANSPOSE": (
        [tensor(0, 5), tensor(1, 2, 2, 2, 6, 4, constant=True), tensor(2, 1, 3, 3, 3, 4)],
        tensor(20, 1, 6, 6, 6, 6),
        27 * 8 * 24,
    ),
    "AVERAGE_POOL_2D": ([tensor(0, 1, 4, 4, 2)], tensor(20, 1, 2, 2, 2), 0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_operators_by_hand(name):
    inputs, output, expected = BY_HAND[name]
    assert macs_of(name, inputs, output, adjX=name == "BATCH_MATMUL") == expected


def test_what_can_not_be_counted_is_none():
    inputs, output, _ = BY_HAND["BATCH_MATMUL"]
    assert macs_of("RFFT2D", inputs, output) is None
    assert macs_of("Mine", inputs, output, custom=True) is None
    left_open = tensor(20, 2, 1, 4, signature=(2, -1, 4))
    assert macs_of("BATCH_MATMUL", inputs, left_open) is None


def test_a_transform_is_named():
    inputs = keras.Input((32,))
    spectrum = keras.ops.rfft(inputs)
    model = keras.Model(inputs, layers.Dense(2)(spectrum[0]))
    assert len(tfnas.profile(model).uncounted) == 1
    file = tfnas.to_tflite(model)
    found = tfnas.profile(file)
    assert [name.split(" ")[0] for name in found.uncounted] == ["RFFT2D"]
    assert f"at least {found.macs:,} MACs" in found.summary()
    assert "MACs not counted: RFFT2D" in str(found)
    with pytest.raises(ValueError, match=r"max_macs must be left out .* got RFFT2D"):
        found.check_counted("max_macs")


def test_the_command_takes_files(small, tmp_path, capsys):
    tfnas.to_tflite(small).save(tmp_path / "m.tflite")
    assert app.main(["profile", str(tmp_path / "m.tflite")]) == 0
    shown = capsys.readouterr().out
    assert "CONV_2D" in shown
    assert f"{tfnas.profile(tmp_path / 'm.tflite').macs:,} MACs" in shown
    series = keras.Sequential([keras.Input((None, 3)), layers.Conv1D(4, 3, padding="same")])
    tfnas.to_tflite(series).save(tmp_path / "s.tflite")
    np.savez(tmp_path / "d.npz", x=np.zeros((5, 10, 3)))
    flags = [f"--data={tmp_path / 'd.npz'}", "--nolayers"]
    assert app.main(["profile", str(tmp_path / "s.tflite"), *flags]) == 0
    assert "360 MACs" in capsys.readouterr().out
