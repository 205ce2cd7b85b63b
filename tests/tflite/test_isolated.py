"""Conversions and first runs in the helper process: the same files, and no crash of this one."""

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import tfnas
from tfnas.runtime import helper_process
from tfnas.tflite import conversion_error, file_interpreter, saved_model_converter
from tfnas.tflite.artifact import Artifact

RNG = np.random.default_rng(0)


def chain():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(4, activation="silu"),
            layers.Dense(4, activation="softmax", name="last"),
        ]
    )


def two_ends():
    wide, narrow = keras.Input((8, 8, 3), name="wide"), keras.Input((5,), name="narrow")
    both = layers.Concatenate()([layers.Flatten()(wide), narrow])
    return keras.Model([wide, narrow], {"scores": layers.Dense(3)(both), "sum": both})


def stateful():
    inputs = keras.Input(batch_shape=(1, 3, 4))
    return keras.Model(inputs, layers.SimpleRNN(2, stateful=True, unroll=True)(inputs))


def of_tf_keras():
    old = pytest.importorskip("tf_keras").layers
    model = pytest.importorskip("tf_keras").Sequential(
        [old.InputLayer((8, 8, 1)), old.Conv2D(4, 3, activation="relu"), old.Flatten()]
    )
    model.add(old.Dense(3))
    return model


@pytest.fixture
def calls(monkeypatch):
    """The functions that go to the helper process."""
    found, run = [], helper_process._HELPER.run

    def recorded(payload, timeout):
        found.append(helper_process.cloudpickle.loads(payload)[0])
        return run(payload, timeout)

    monkeypatch.setattr(helper_process._HELPER, "run", recorded)
    return found


@pytest.mark.parametrize(
    ("make", "modes"),
    [
        (chain, ("float32", "int8x4")),
        pytest.param(
            *(chain, ("float16", "dynamic", "int4", "int8", "int16x8")), marks=pytest.mark.slow
        ),
        (two_ends, ("float32", "int8")),
        pytest.param(stateful, ("float32",), marks=pytest.mark.slow),
        pytest.param(of_tf_keras, ("float32", "int8"), marks=pytest.mark.slow),
    ],
)
def test_files_are_the_same_byte_by_byte(make, modes, calls):
    keras.utils.set_random_seed(0)
    model = make()
    data = [RNG.normal(size=(20, *t.shape[1:])).astype("float32") for t in model.inputs]
    data = data if len(data) > 1 else data[0]
    for mode in modes:
        calibration = data if mode in ("int8", "int16x8", "int8x4") else None
        here = tfnas.to_tflite(model, mode, calibration)
        assert calls == []
        with tfnas.isolated():
            there = tfnas.to_tflite(model, mode, calibration)
        assert calls == [saved_model_converter.convert_stored]
        calls.clear()
        assert (there.content, there.origin) == (here.content, here.origin)


def test_trained_ranges_and_sparse_files(calls):
    keras.utils.set_random_seed(0)
    data = RNG.normal(size=(20, 8, 8, 3)).astype("float32")
    aware = tfnas.quantize_aware(chain(), "int8", data=data)
    sparse = keras.Sequential([keras.Input((64,)), layers.Dense(64)])
    sparse.layers[0].kernel.assign(np.where(RNG.random((64, 64)) < 0.95, 0, 1))
    for model, mode, options in ((aware, "int8", {}), (sparse, "float32", {"sparse": True})):
        here = tfnas.to_tflite(model, mode, **options)
        with tfnas.isolated():
            assert tfnas.to_tflite(model, mode, **options).content == here.content
    assert calls == [saved_model_converter.convert_stored] * 3  # a dense file comes before a sparse


def test_errors_have_the_same_message(calls):
    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, layers.Lambda(keras.ops.svd, name="parts")(inputs)[1])
    messages = []
    for enabled in (False, True):
        with tfnas.isolated(enabled), pytest.raises(tfnas.ConversionError, match="Svd") as caught:
            tfnas.to_tflite(model)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert len(calls) == 1


def test_a_converter_that_crashes_is_a_conversion_error(calls):
    """TensorFlow's calibrator ends the process on a TensorArray of a fixed batch."""
    keras.utils.set_random_seed(0)

    def collected(x):
        array = tf.TensorArray("float32", 6, element_shape=(1, 4))
        loop = tf.while_loop(
            lambda i, _: i < 6, lambda i, a: (i + 1, a.write(i, 2 * x[:, i])), (0, array)
        )
        return loop[1].stack()[-1]

    inputs = keras.Input(batch_shape=(1, 6, 4))
    last = layers.Lambda(collected, output_shape=(4,))(inputs)
    model = keras.Model(inputs, layers.Dense(2)(last), name="memory")
    message = (
        r"model 'memory' can't be converted to int8: the converter ended by signal 11 \(SIGSEGV\)"
    )
    with tfnas.isolated():
        with pytest.raises(tfnas.ConversionError, match=message):
            tfnas.to_tflite(model, "int8", RNG.normal(size=(8, 6, 4)).astype("float32"))
        tfnas.to_tflite(model)  # by another process
    assert len(calls) == 2


def test_a_death_is_told_with_layer_and_reason():
    printed = 'x.cc:1: error: scale out of range\n loc("net/last/MatMul"("call"))\nFatal\n'
    death = helper_process.HelperDied("ended by signal 6 (SIGABRT)", printed)
    message = conversion_error.death_message(chain(), tfnas.QuantSpec.of("int8"), death)
    reason = "the error 'scale out of range' in layer last"
    assert message.endswith(f"the converter ended by signal 6 (SIGABRT) after {reason}")


def test_text_for_calibration_stays_in_this_process(calls, monkeypatch):
    """Arrays of Python objects can't be written without pickling them."""
    monkeypatch.setattr(saved_model_converter, "_set_formats", lambda *_: None)
    columns = (np.array([["a"], ["b"]], object),)
    spec = tfnas.QuantSpec.of("float32")
    with tfnas.isolated():
        from tfnas.tflite.tensorflow_converter import run_converter

        run_converter(chain(), spec, columns)
    assert calls == []


# --- files of others


def deadly():
    """A valid file whose first operator crashes the interpreter: its options are another's."""
    keras.utils.set_random_seed(0)
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu"), layers.Dense(2)])
    content = tfnas.to_tflite(dense).content
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for code in model.operatorCodes:
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONCATENATION
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_a_file_that_crashes_the_interpreter_is_refused(tmp_path, calls):
    path = tmp_path / "deadly.tflite"
    path.write_bytes(deadly())
    file = Artifact.load(path)
    # What lies behind the missing tensor is chance: a crash, or LiteRT's own refusal.
    ends = r"ended by signal 11|was refused: .*failed to prepare"
    message = rf"(?s)file must run in LiteRT's interpreter, got one whose first run ({ends})"
    with tfnas.isolated():
        for use in (file.interpreter, lambda: file.inputs, lambda: file.predict(np.zeros((2, 4)))):
            with pytest.raises(RuntimeError, match=message):
                use()
    assert calls == [file_interpreter.first_run]  # it runs once, and never here


def test_a_file_of_others_runs_apart_once_and_ours_never(tmp_path, calls, monkeypatch):
    monkeypatch.setattr(file_interpreter, "_KNOWN", {})
    keras.utils.set_random_seed(0)
    own = tfnas.to_tflite(two_ends())
    file = Artifact.load(own.save(tmp_path / "file.tflite"))
    data = {t.name: np.ones((3, *t.shape[1:]), np.float32) for t in own.inputs}
    with tfnas.isolated():
        expected = own.predict(data)
        assert calls == []
        for _ in range(2):
            for one, other in zip(file.predict(data), expected, strict=True):
                np.testing.assert_array_equal(one, other)
        assert calls == [file_interpreter.first_run]
        file.interpreter(reference=True)  # other kernels
        assert calls == [file_interpreter.first_run] * 2


def test_text_inputs_are_run_apart_too(tmp_path, calls):
    inputs = keras.Input((1,), dtype="string")
    table = layers.StringLookup(vocabulary=["a", "b"])
    file = tfnas.to_tflite(keras.Model(inputs, table(inputs)))
    with tfnas.isolated():
        Artifact.load(file.save(tmp_path / "text.tflite")).interpreter()
    assert calls == [file_interpreter.first_run]
