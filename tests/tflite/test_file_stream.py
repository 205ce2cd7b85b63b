"""A file of one frame and its state computes what the file of the whole sequence computes."""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.quantization.quantize_aware import quantize_aware
from tfnas.tflite.file_stream import STEPS as STEPS_RECORD
from tfnas.tflite.file_stream import check_sequences, sequence_predictor, stream_ends
from tfnas.tflite.flatbuffer import pack, unpack
from tfnas.tflite.frame_model import frame_model
from tfnas.tflite.metadata import set_entry

STEPS, FEATURES = 8, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, STEPS, FEATURES)).astype("float32")


def model_of(*parts, features=FEATURES):
    keras.utils.set_random_seed(2)
    return keras.Sequential([keras.Input((STEPS, features)), *parts], name="net")


def spotter():
    """Causal convolutions, of which one is dilated, two recurrent layers, and classes."""
    return model_of(
        layers.Conv1D(4, 3, padding="causal", activation="relu", name="near"),
        layers.Conv1D(4, 2, padding="causal", dilation_rate=2, name="far"),
        layers.GRU(5, return_sequences=True, name="gru"),
        layers.LSTM(4, name="lstm"),
        layers.Dense(3, activation="softmax"),
    )


def short_spotter():
    """One convolution and one recurrent layer of them."""
    return model_of(
        layers.Conv1D(4, 2, padding="causal", dilation_rate=2, name="far"),
        layers.GRU(4, name="gru"),
        layers.Dense(3, activation="softmax"),
    )


@functools.cache
def files(mode, build):
    model = build()
    model = model if mode == "float32" else quantize_aware(model, mode, X)
    return tfnas.to_tflite(model, mode), tfnas.to_tflite(model, mode, streaming=True)


def streamed(file, x):
    stream = tfnas.FileStream(file, reference=True)
    outputs = []
    for sequence in x:
        stream.reset()
        outputs.append(stream(sequence))
    return np.stack(outputs)


@pytest.mark.parametrize(
    ("mode", "build"),
    slow_but(
        [
            *(("float32", spotter), ("int8", short_spotter)),
            *(("int8", spotter), ("int16x8", spotter)),
        ],
        *(("float32", spotter), ("int8", short_spotter)),
    ),
)
def test_the_last_frame_gives_what_the_sequence_gives(mode, build):
    whole, frames = files(mode, build)
    expected, found = whole.predict(X, reference=True), streamed(frames, X)[:, -1]
    if mode == "float32":
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected)


SHORT_STATES = {"state_far_frames_before": "int8", "state_gru_hidden": "int16"}
STATES = {
    "state_near_frames_before": "int8",
    **SHORT_STATES,
    "state_lstm_hidden": "int16",
    "state_lstm_cell": "int16",
}


@pytest.mark.parametrize(
    ("build", "states"),
    slow_but([(short_spotter, SHORT_STATES), (spotter, STATES)], (short_spotter, SHORT_STATES)),
)
def test_states_have_one_name_as_input_and_output_and_formats_of_their_own(build, states):
    frames = files("int8", build)[1]
    before = {t.name: t for t in frames.inputs if t.name.startswith("state_")}
    after = {t.name: t for t in frames.outputs if t.name.startswith("state_")}
    assert list(before) == list(after) == sorted(frames.origin["states"])
    assert {name: tensor.dtype for name, tensor in before.items()} == states
    channels = FEATURES if build is short_spotter else 4
    assert before["state_far_frames_before"].shape == (1, 2, channels)
    # Firmware knows places alone: the states are last, in one order.
    names = [{t.index: name for name, t in ends.items()} for ends in (before, after)]
    inputs, outputs = frames.graph.inputs[-len(states) :], frames.graph.outputs[-len(states) :]
    assert [names[0][t.index] for t in inputs] == [names[1][t.index] for t in outputs]
    assert all(before[name].scale == after[name].scale for name in before)
    assert not {op.name for op in frames.graph.operators} & {"DEQUANTIZE", "WHILE"}


def test_frames_may_come_one_by_one_or_together():
    frames = files("float32", spotter)[1]
    stream = tfnas.FileStream(frames)
    together = stream(X[0])
    stream.reset()
    singly = np.concatenate([stream(frame[None]) for frame in X[0]])
    np.testing.assert_array_equal(singly, together)


def test_tflite_micro_runs_a_stream():
    pytest.importorskip("tflite_micro")
    from tfnas.targets.tflite_micro.interpreter import run_micro

    file = files("int8", short_spotter)[1]
    [output] = [tensor for tensor in file.outputs if not tensor.name.startswith("state_")]
    found = run_micro(file, X[0], stateful=True)
    assert found.shape == (STEPS, 3)
    assert len(np.unique(found)) > 5
    with pytest.raises(ValueError, match="stateful must be True for a file that takes one frame"):
        run_micro(file, X)
    with pytest.raises(ValueError, match=r"^x must hold at least one frame"):
        run_micro(file, X[0, :0], stateful=True)
    # Its dense layers round twice: a step, which the states carry on.
    assert np.abs(found - streamed(file, X[:1])[0]).max() <= 2.001 * output.scale


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (layers.Bidirectional(layers.GRU(2), name="both"), "got 'both' of class Bidirectional"),
        (layers.LSTM(2, go_backwards=True, name="back"), "got 'back': it starts at the last frame"),
        (layers.Conv1D(2, 3, name="ahead"), "got 'ahead' with padding='valid' and stride 1"),
        (layers.GlobalAveragePooling1D(name="mean"), "got 'mean' of class GlobalAveragePooling1D"),
        (
            layers.LSTM(2, activation="elu", name="elu"),
            "got 'elu': no integer form",
        ),
    ],
)
def test_what_needs_other_frames_is_refused_by_name(part, message):
    with pytest.raises(ValueError, match=message):
        frame_model(model_of(part))


@pytest.mark.slow
def test_a_recurrent_layer_that_stays_float_has_a_float_step():
    model = model_of(layers.GRU(4, return_sequences=True, name="own"), layers.LSTM(3, name="lstm"))
    spec = tfnas.QuantSpec(layers={"own": "float32"})
    trainable = quantize_aware(model, spec, X)
    frames = tfnas.to_tflite(trainable, spec, streaming=True)
    states = {t.name: t.dtype for t in frames.inputs if t.name.startswith("state_")}
    assert states["state_own_hidden"] == "float32"
    expected = trainable.predict(X, verbose=0)
    found = streamed(frames, X)[:, -1]
    scale = next(t.scale for t in frames.outputs if t.name == "output_0")
    assert np.abs(found - expected).max() <= 1.001 * scale


def test_arguments_are_checked_before_the_conversion():
    with pytest.raises(ValueError, match="mode must be one of float32, int8, int16x8 for stream"):
        tfnas.to_tflite(spotter(), "dynamic", streaming=True)
    with pytest.raises(ValueError, match=r"inputs of shape \(batch, steps, features\)"):
        tfnas.to_tflite(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), streaming=True)
    with pytest.raises(ValueError, match="streaming must be False for model 'net'"):
        tfnas.to_tflite(model_of(layers.Dense(2)), streaming=True)


def test_a_file_without_states_and_frames_of_another_shape_are_refused():
    whole, frames = files("float32", spotter)
    with pytest.raises(ValueError, match="file must have states as inputs and outputs"):
        tfnas.FileStream(whole)
    with pytest.raises(ValueError, match=r"must have the shape \(frames, 3\), got \(4, 2\)"):
        tfnas.FileStream(frames)(np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"frames must hold at least one frame, .*, got \[0\]"):
        tfnas.FileStream(frames)(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="frames must hold the inputs"):
        tfnas.FileStream(frames)({"other": np.zeros((4, 3))})


def test_predict_of_a_stream_says_what_keeps_its_state():
    frames = files("float32", spotter)[1]
    hint = r"takes one frame and the state .*; tfnas\.FileStream\(file\) keeps the state"
    for x in (X, X[0]):
        with pytest.raises(ValueError, match=rf"x must hold \d inputs .*, got 1: .*{hint}"):
            frames.predict(x)
    with pytest.raises(ValueError, match=rf"x must hold the inputs .*, got \['a'\]: .*{hint}"):
        frames.predict({"a": X})
    with pytest.raises(ValueError, match=r"x must hold 1 inputs .*, got 2$"):
        files("float32", spotter)[0].predict([X, X])


def test_sequences_without_frames_are_refused_by_the_name_of_the_argument():
    frames, empty = files("float32", spotter)[1], X[:, :0]
    rule = "must hold at least one sequence .*, got the shape"
    with pytest.raises(ValueError, match=f"^x {rule}"):
        tfnas.evaluate(frames, empty, np.zeros(len(empty), int))
    for columns in ([empty], [X, X[:, 1:]]):
        with pytest.raises(ValueError, match=f"^data {rule}"):
            check_sequences(columns, "data")


@pytest.fixture(scope="module")
def of_one_row():
    """A model whose last step is a row of its own, and its stream."""
    model = model_of(layers.LSTM(4), layers.Reshape((1, 4)))
    return model, tfnas.to_tflite(model, streaming=True)


def test_a_last_step_of_one_row_is_no_frame(of_one_row, tmp_path):
    """The file says which outputs have steps, whatever is done to it since."""
    model, file = of_one_row
    exact = np.asarray(model(X))
    file.save(tmp_path / "file.tflite")
    for each in (file, tfnas.Artifact.load(tmp_path / "file.tflite"), file.minified()):
        assert tfnas.FileStream(each)(X[0]).shape == (STEPS, 1, 4)
        np.testing.assert_allclose(sequence_predictor(each)(X), exact, atol=1e-5)
        assert tfnas.evaluate(each, X, exact, metric="mse").value < 1e-9
    assert tfnas.verify(model, file, X).passed


def test_a_record_of_steps_that_does_not_fit_is_refused(of_one_row):
    _, file = of_one_row
    for record in (b"[true, false]", b"{}", b"\xff"):
        model = unpack(file.content)
        set_entry(model, STEPS_RECORD, record)
        with pytest.raises(ValueError, match="TFNAS_STEPS in the file's metadata must say of each"):
            tfnas.FileStream(tfnas.Artifact(pack(model)))


def test_a_stream_without_a_record_is_read_by_its_shapes():
    file = files("float32", spotter)[1]
    model = unpack(file.content)
    model.metadata = [item for item in model.metadata if item.name != STEPS_RECORD]
    assert stream_ends(tfnas.Artifact(pack(model))).steps == stream_ends(file).steps


def test_refusals_name_the_layer_of_the_user_and_a_way_out():
    model = model_of(layers.Bidirectional(layers.GRU(2), name="both"))
    rule = "got 'both' of class Bidirectional: a recurrent layer of one direction has a step. With"
    with pytest.raises(ValueError, match=rule):
        tfnas.to_tflite(model, "int8", X, streaming=True)
