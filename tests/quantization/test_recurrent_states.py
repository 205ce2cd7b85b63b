"""Recurrent layers that take a state before the first step, and return the one after the last."""

import keras
import numpy as np
import pytest
from keras import layers as L

import tfnas
from tfnas.graph.functional import walk
from tfnas.quantization.normal_form import normal_form
from tfnas.quantization.recurrent_cells import (
    has_mask,
    initial_states,
    reason_for_float_loop,
)

RNG = np.random.default_rng(0)
SOURCE = RNG.normal(size=(64, 7, 5)).astype("float32")
TARGET = RNG.normal(size=(64, 4, 3)).astype("float32")


def translator():
    """An LSTM that begins where another one ends, and a GRU where both directions of one end."""
    keras.utils.set_random_seed(0)
    source, target = keras.Input((7, 5), name="source"), keras.Input((4, 3), name="target")
    _, *states = L.LSTM(6, return_state=True, return_sequences=True, name="encoder")(source)
    decoder = L.LSTM(6, return_state=True, return_sequences=True, name="decoder")
    steps, *last = decoder(target, initial_state=states)
    both = L.Bidirectional(L.GRU(3, return_state=True), merge_mode="sum", name="both")
    summed, forward, backward = both(source)
    start = L.Concatenate(name="start")([forward, backward])
    # Far beyond what a GRU's steps reach.
    start = L.Dense(6, kernel_initializer=keras.initializers.RandomNormal(stddev=2.0))(start)
    after = L.GRU(6, name="after")(target, initial_state=start)
    outputs = [L.Dense(4, name="scores")(steps), *last, summed, after]
    return keras.Model([source, target], outputs, name="translator")


@pytest.fixture(scope="module")
def case():
    model, x = translator(), [SOURCE, TARGET]
    aware = tfnas.quantize_aware(model, "int8", data=x)
    return model, aware, tfnas.to_tflite(aware, "int8", batch_size=1)


def steps_apart(found, expected, file):
    pairs = zip(found, expected, file.outputs, strict=True)
    return [np.abs(a - np.asarray(b)) / each.scale for a, b, each in pairs]


def test_nothing_stays_float_and_the_model_is_nearly_the_same(case):
    model, aware, _ = case
    assert tfnas.unquantized_layers(aware) == []
    for found, expected in zip(aware([SOURCE, TARGET]), model([SOURCE, TARGET]), strict=True):
        assert np.abs(found - expected).max() < 0.03 * np.ptp(expected)


def test_the_file_has_integers_alone_and_is_what_keras_computes(case):
    _, aware, file = case
    x = [SOURCE[:16], TARGET[:16]]
    outputs = [t for graph in file.graphs for op in graph.operators for t in op.outputs]
    assert {t.dtype for t in outputs} <= {"int8", "int16", "int32", "bool"}
    for steps in steps_apart(file.predict(x, reference=True), aware(x), file):
        assert steps.max() <= 1.01
        assert np.median(steps) < 0.01


def test_tflite_micro_computes_the_same(case):
    *_, file = case
    x = [SOURCE[:3], TARGET[:3]]
    expected = file.predict(x, reference=True)
    assert all(s.max() <= 1.01 for s in steps_apart(tfnas.run_micro(file, x), expected, file))


def test_stripped_of_quantization_it_is_the_float_model(case):
    model, aware, _ = case
    floats = tfnas.strip_quantization(aware)
    for found, expected in zip(floats([SOURCE, TARGET]), model([SOURCE, TARGET]), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_it_is_saved_and_loaded(case, tmp_path):
    _, aware, _ = case
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    for found, expected in zip(loaded([SOURCE, TARGET]), aware([SOURCE, TARGET]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_both_directions_are_opened_with_their_states():
    inputs, start = keras.Input((7, 5)), [keras.Input((3,)) for _ in range(4)]
    both = L.Bidirectional(L.LSTM(3, return_state=True, return_sequences=True), name="both")
    model = keras.Model([inputs, *start], both(inputs, initial_state=start))
    x = [SOURCE, *(RNG.normal(size=(64, 3)).astype("float32") for _ in start)]
    opened, _ = normal_form(model)
    for found, expected in zip(opened(x), model(x), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_fused_lstm_has_no_states_outside():
    inputs = keras.Input((7, 5), name="series")
    lstm = L.LSTM(3, name="lstm")
    state = keras.Input((3,), name="state")
    model = keras.Model([inputs, state], [lstm(inputs), lstm(inputs, initial_state=[state, state])])
    with pytest.raises(ValueError, match="recurrent must be 'loop'"):
        tfnas.quantize_aware(model, tfnas.QuantSpec(recurrent="fused"))


def test_a_mask_by_position_is_a_mask():
    x, mask = keras.Input((7, 5)), keras.Input((7,), dtype="bool")
    call = walk(keras.Model([x, mask], L.LSTM(4)(x, None, mask))).calls[-1]
    assert has_mask(call)
    assert initial_states(call) == []
    assert reason_for_float_loop(call) is None


def test_a_mask_may_stand_beside_a_state():
    keras.utils.set_random_seed(0)
    x, mask = keras.Input((7, 5), name="x"), keras.Input((7,), dtype="bool", name="mask")
    state = L.Dense(4, name="state")(L.GlobalAveragePooling1D()(x))
    last = L.GRU(4, name="last")(x, state, mask)
    all_steps = L.LSTM(4, return_sequences=True, return_state=True, name="all_steps")
    outputs = [last, *all_steps(x, [state, state], mask)]
    model = keras.Model([x, mask], outputs, name="net")
    counts = RNG.random((64, 7)) < 0.5
    counts[:2] = [[False] * 7, [False] * 6 + [True]]  # the output is 0 until a step counts
    aware = tfnas.quantize_aware(model, "int8", data=[SOURCE, counts])
    assert tfnas.unquantized_layers(aware) == []
    expected = aware([SOURCE, counts])
    for found, exact in zip(expected, model([SOURCE, counts]), strict=True):
        assert np.abs(found - exact).max() < 0.03 * np.ptp(exact)
    assert not np.any(expected[0][0])
    assert not np.any(expected[1][1, :6])
    assert np.any(expected[2][0])  # the state stays
    file = tfnas.to_tflite(aware, "int8")
    found = file.predict([SOURCE[:16], counts[:16]], reference=True)
    for apart in steps_apart(found, [each[:16] for each in expected], file):
        assert apart.max() <= 1.01
        assert np.median(apart) < 0.01


def first_and_second():
    """Steps and states that are outputs of the model, and that a second layer begins with."""
    keras.utils.set_random_seed(0)
    x = keras.Input((7, 5), name="x")
    steps, *states = L.LSTM(4, return_sequences=True, return_state=True, name="first")(x)
    second = L.LSTM(4, name="second")(steps, initial_state=states)
    return keras.Model(x, [steps, *states, second], name="two")


@pytest.mark.parametrize("mode", ["int8", pytest.param("int16x8", marks=pytest.mark.slow)])
def test_a_recurrent_layer_may_read_outputs_of_the_model(mode):
    aware = tfnas.quantize_aware(first_and_second(), mode, data=SOURCE)
    file = tfnas.to_tflite(aware, mode, batch_size=1)
    outputs = [t for graph in file.graphs for op in graph.operators for t in op.outputs]
    assert {t.dtype for t in outputs} <= {"int8", "int16", "int32", "bool"}
    x = SOURCE[:8]
    # 16 bits have 256 times as many steps; the kernels' TANH and LOGISTIC are off by some.
    most, median = (1.01, 0.01) if mode == "int8" else (24.01, 4.01)
    found = file.predict(x, reference=True)
    for apart in steps_apart(found, aware(x), file):
        assert apart.max() <= most
        assert np.median(apart) <= median
    assert all(s.max() <= most for s in steps_apart(tfnas.run_micro(file, x), found, file))
