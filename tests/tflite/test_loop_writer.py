"""Loops of integers, written without the converter, compute what the trained layer computes."""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from one_layer_files import model_of_a_layer
from slow_cases import slow_but

from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.recurrent_forms import QuantizedRecurrent
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.flatbuffer import pack, read_graphs
from tfnas.tflite.graph_writer import NumberFormat
from tfnas.tflite.loop_writer import LoopWriter
from tfnas.tflite.passes.integer_loops import remove_unused

STEPS, FEATURES, UNITS = 7, 3, 5
RNG = np.random.default_rng(0)
LAYERS = {
    "lstm": lambda: layers.LSTM(UNITS),
    "lstm sequences": lambda: layers.LSTM(UNITS, return_sequences=True, use_bias=False),
    "lstm relu": lambda: layers.LSTM(UNITS, activation="relu", recurrent_activation="sigmoid"),
    "gru": lambda: layers.GRU(UNITS, return_sequences=True),
    "gru reset before": lambda: layers.GRU(UNITS, reset_after=False, go_backwards=True),
    "gru backwards": lambda: layers.GRU(UNITS, go_backwards=True, return_sequences=True),
    "simple": lambda: layers.SimpleRNN(UNITS),
    "simple relu": lambda: layers.SimpleRNN(UNITS, activation="relu", return_sequences=True),
    "simple linear": lambda: layers.SimpleRNN(UNITS, activation="linear"),
}


def format_of(values, bits):
    layer = FakeQuant(bits)
    layer.build(())
    layer.low.assign(min(values.min(), 0.0))
    layer.high.assign(max(values.max(), 0.0))
    return NumberFormat.of_range(layer)


def rounded(values, form):
    return ((form.integers(values).astype(np.float64) - form.zero) * form.scale).astype("float32")


def layer_and_inputs(kind, bits, state_bits):
    keras.utils.set_random_seed(1)
    layer = QuantizedRecurrent(LAYERS[kind](), state_bits=state_bits)
    x = RNG.normal(size=(6, STEPS, FEATURES)).astype("float32")
    layer.build(x.shape)
    layer.layer.set_weights([0.4 * RNG.normal(size=w.shape) for w in layer.layer.get_weights()])
    form = format_of(x, bits)
    x = rounded(x, form)
    for each in layer.fake_quants:
        each.observing = True
    layer(x)
    for each in layer.fake_quants:
        each.observing = False
    return layer, x, form


def written(layer, form, output_form, batch, steps):
    middle = (steps,) if layer.layer.return_sequences else ()
    model, main = model_of_a_layer(
        lambda main, x, y: LoopWriter(main, layer, x, [y]).write(),
        ((batch, steps, FEATURES), (batch, *middle, UNITS)),
        (form, output_form),
    )
    model.subgraphs.sort(key=lambda graph: graph is not main.graph)
    for op in main.graph.operators:
        if hasattr(op.builtinOptions, "bodySubgraphIndex"):
            op.builtinOptions.condSubgraphIndex, op.builtinOptions.bodySubgraphIndex = 1, 2
    remove_unused(model)
    return Artifact(pack(model))


@functools.cache
def case(kind, bits, state_bits, batch=None, steps=STEPS):
    layer, x, form = layer_and_inputs(kind, bits, state_bits)
    expected = np.asarray(layer(x))
    output_form = format_of(expected, bits)
    file = written(layer, form, output_form, batch, steps)
    return file, x, rounded(expected, output_form), output_form, layer


def steps_apart(found, expected, form):
    return np.abs(found - expected) / form.scale


@pytest.mark.parametrize(
    "kind", slow_but([*LAYERS], "lstm relu", "gru reset before", "gru", "simple linear")
)
def test_an_int8_loop_with_a_16_bit_step_is_the_layer_to_a_step(kind):
    file, x, expected, form, _ = case(kind, 8, 16)
    apart = steps_apart(file.predict(x, reference=True), expected, form)
    assert apart.max() <= 1.001
    assert np.median(apart) == 0.0


@pytest.mark.parametrize("kind", slow_but([*LAYERS], "lstm sequences", "gru backwards", "simple"))
def test_an_int16_loop_is_the_layer_to_a_few_fine_steps(kind):
    file, x, expected, form, _ = case(kind, 16, 16)
    apart = steps_apart(file.predict(x, reference=True), expected, form)
    # LOGISTIC and TANH interpolate in a table: some of 32,768 steps a time.
    assert np.median(apart) <= 3.001
    assert apart.max() <= 32


@pytest.mark.parametrize("kind", ["lstm", "gru", "simple relu"])
def test_a_loop_of_8_bits_alone_follows_the_layer(kind):
    file, x, expected, form, _ = case(kind, 8, 8)
    apart = steps_apart(file.predict(x, reference=True), expected, form)
    assert np.median(apart) <= 1.001
    assert apart.max() <= 6


@pytest.mark.parametrize("kind", ["lstm sequences", "gru backwards"])
def test_a_file_of_open_steps_takes_any_number_of_them(kind):
    file, x, expected, form, layer = case(kind, 8, 16, steps=None)
    assert steps_apart(file.predict(x, reference=True), expected, form).max() <= 1.001
    few = x[:, :3]
    apart = steps_apart(file.predict(few, reference=True), rounded(layer(few), form), form)
    assert apart.max() <= 1.001


@pytest.mark.parametrize(("kind", "bits"), [("lstm sequences", 8), ("gru backwards", 16)])
def test_tflite_micro_runs_the_loop_as_the_reference_kernels_do(kind, bits):
    pytest.importorskip("tflite_micro")
    from tfnas.targets.tflite_micro.interpreter import run_micro

    file, x, _, form, _ = case(kind, bits, 16, batch=1)
    apart = steps_apart(run_micro(file, x), file.predict(x, reference=True), form)
    assert apart.max() <= (1.001 if bits == 8 else 32.001)


def test_a_loop_holds_its_operators_once_and_no_floats():
    file = case("lstm sequences", 8, 16, batch=1)[0]
    main, condition, body = read_graphs(file.content)
    assert [op.name for op in main.operators].count("WHILE") == 1
    assert [op.name for op in condition.operators] == ["LESS"]
    assert [op.name for op in body.operators].count("FULLY_CONNECTED") == 2
    kinds = {t.dtype for g in (main, condition, body) for op in g.operators for t in op.inputs}
    assert "float32" not in kinds
    assert [t.dtype for t in body.outputs] == ["int32", "int8", "int8", "int16", "int16"]


def test_names_of_operators_lead_to_the_layer():
    file = case("gru", 8, 16)[0]
    names = {op.layer for graph in read_graphs(file.content)[1:] for op in graph.operators}
    assert "memory" in "".join(names)


@pytest.mark.parametrize(("features", "types"), [(3, set()), (600, {"int64"})])
def test_products_have_a_bias_only_where_32_bits_could_overflow(features, types):
    layer = QuantizedRecurrent(layers.SimpleRNN(2))
    layer.build((1, 2, features))
    layer.layer.cell.kernel.assign(np.full((features, 2), 0.1))
    form = NumberFormat("int16", 2.0**-15)
    model, _ = model_of_a_layer(
        lambda main, x, y: LoopWriter(main, layer, x, [y]).write(),
        ((1, 2, features), (1, 2)),
        (form, form),
    )
    operators = [op for graph in read_graphs(pack(model)) for op in graph.operators]
    products = [op for op in operators if op.name == "FULLY_CONNECTED"]
    assert {t.dtype for op in products for t in op.inputs[2:]} == types
    assert sum(op.name == "ADD" and op.outputs[0].dtype == "int16" for op in operators) == 2 - len(
        types
    )
