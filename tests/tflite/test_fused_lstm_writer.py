"""The fused LSTM of int8 computes what the trained layer computes, in LiteRT and TFLite Micro."""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from one_layer_files import model_of_a_layer

from tfnas.quantization.fused_lstm import QuantizedFusedLstm
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.flatbuffer import pack, read_graphs
from tfnas.tflite.fused_lstm_writer import write_fused_lstm
from tfnas.tflite.graph_writer import NumberFormat

BATCH, STEPS, FEATURES, UNITS = 2, 7, 3, 5
ENDS = 2.0 ** np.arange(7)
INPUTS = NumberFormat("int8", 0.03, 11)
HIDDEN = NumberFormat("int8", 2.0**-7, 0)
LAYERS = {
    "sequences": lambda: layers.LSTM(UNITS, return_sequences=True),
    "last": lambda: layers.LSTM(UNITS),
    "backwards, no bias": lambda: layers.LSTM(UNITS, go_backwards=True, use_bias=False),
}


@functools.cache
def layer_and_inputs(kind, size=0.4):
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    layer = QuantizedFusedLstm(LAYERS[kind]())
    integers = rng.integers(-128, 128, (3 * BATCH, STEPS, FEATURES))
    x = ((integers - INPUTS.zero) * INPUTS.scale).astype("float32")
    layer.build(x.shape)
    layer.layer.set_weights([size * rng.normal(size=w.shape) for w in layer.layer.get_weights()])
    cell = layer.range_of("cell")
    cell.observing = True
    layer(x)
    cell.observing = False
    return layer, x, integers


def written(layer, batch=BATCH, steps=STEPS, output_form=HIDDEN, form=INPUTS):
    middle = (steps,) if layer.layer.return_sequences else ()
    model, _ = model_of_a_layer(
        lambda main, x, y: write_fused_lstm(main, layer, x, y),
        ((batch, steps, FEATURES), (batch, *middle, UNITS)),
        (form, output_form),
    )
    return Artifact(pack(model))


def half_up(values):
    return np.floor(values + 0.5)


def limited(values):
    return np.clip(values, -(2**15), 2**15 - 1)


def by_the_kernel(layer, integers):
    """The integers of LiteRT's kernel, but for its own approximations of sigmoid and tanh."""
    cell = layer.layer.cell
    largest = float(np.abs(np.asarray(layer.range_of("cell").grid_range())).max())
    step = ENDS[largest <= ENDS][0] / 2**15
    parts = [np.split(np.asarray(w, np.float64), 4, -1) for w in layer.layer.get_weights()]
    kernels, recurrent = parts[:2]
    biases = parts[2] if cell.use_bias else [np.zeros(UNITS)] * 4
    scales = [[np.abs(gate).max() / 127 for gate in kernel] for kernel in (kernels, recurrent)]
    h, c, found = np.zeros((len(integers), UNITS)), np.zeros((len(integers), UNITS)), []
    for x in np.moveaxis(integers - INPUTS.zero, 1, 0):
        gates = []
        for gate in range(4):
            scale = INPUTS.scale * scales[0][gate]
            sums = x @ half_up(kernels[gate] / scales[0][gate]) + half_up(biases[gate] / scale)
            first = limited(half_up(sums * scale * 2**12))
            sums = h @ half_up(recurrent[gate] / scales[1][gate])
            value = limited(first + half_up(sums * HIDDEN.scale * scales[1][gate] * 2**12)) / 2**12
            value = np.tanh(value) if gate == 2 else 1 / (1 + np.exp(-value))
            gates.append(limited(half_up(value * 2**15)))
        enter, keep, new, show = gates
        c = limited(half_up(keep * c / 2**15) + half_up(enter * new / 2**30 / step))
        h = half_up(show * limited(half_up(np.tanh(c * step) * 2**15)) / 2**30 / HIDDEN.scale)
        h = np.clip(h, -128, 127)
        found.append(h)
    return np.stack(found, 1) * HIDDEN.scale


def steps_apart(found, expected):
    return np.abs(found - expected) / HIDDEN.scale


def test_the_file_computes_the_integers_of_the_kernel():
    layer, x, integers = layer_and_inputs("sequences")
    apart = steps_apart(written(layer).predict(x, reference=True), by_the_kernel(layer, integers))
    assert np.median(apart) == 0.0
    assert apart.max() <= 2.001


@pytest.mark.parametrize("kind", LAYERS)
def test_the_operator_is_the_layer_to_a_step(kind):
    layer, x, _ = layer_and_inputs(kind)
    file = written(layer)
    apart = steps_apart(file.predict(x, reference=True), np.asarray(layer(x)))
    assert np.median(apart) == 0.0
    assert apart.max() <= 2.001
    assert file.state == "tensors"
    [graph] = read_graphs(file.content)
    names = [op.name for op in graph.operators]
    assert names.count("UNIDIRECTIONAL_SEQUENCE_LSTM") == 1
    assert set(names) <= {"UNIDIRECTIONAL_SEQUENCE_LSTM", "STRIDED_SLICE"}


@pytest.mark.parametrize("size", [0.4, 6.0])
def test_a_cell_has_the_power_of_two_that_holds_it(size):
    layer, x, _ = layer_and_inputs("sequences", size)
    cell = layer.range_of("cell")
    largest = max(-float(cell.low), float(cell.high))
    end = 2**15 * NumberFormat.of_range(cell).scale
    assert end in ENDS
    assert end / 2 < largest <= end or end == 1.0
    apart = steps_apart(written(layer).predict(x, reference=True), np.asarray(layer(x)))
    assert np.median(apart) == 0.0


def test_an_output_of_another_format_is_converted():
    layer, x, _ = layer_and_inputs("last")
    form = NumberFormat("int8", 2.0**-6, 3)
    found = written(layer, output_form=form).predict(x, reference=True)
    assert np.abs(found - np.asarray(layer(x))).max() <= 2.001 * form.scale


@pytest.mark.parametrize("kind", ["sequences", "backwards, no bias"])
def test_tflite_micro_runs_the_operator(kind):
    pytest.importorskip("tflite_micro")
    from tfnas.targets.tflite_micro.interpreter import micro_memory, planned_arena, run_micro

    layer, x, _ = layer_and_inputs(kind)
    file = written(layer, batch=1)
    apart = steps_apart(run_micro(file, x), np.asarray(layer(x)))
    assert np.median(apart) == 0.0
    assert apart.max() <= 2.001
    assert planned_arena(file) == micro_memory(file).non_persistent


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": None}, "got an input of int8 and the batch open"),
        ({"form": NumberFormat("int16", 0.01)}, "got an input of int16 and the batch 2"),
    ],
)
def test_what_the_operator_does_not_take_is_refused(options, message):
    layer, _, _ = layer_and_inputs("last")
    with pytest.raises(ConversionError, match=message):
        written(layer, **options)
