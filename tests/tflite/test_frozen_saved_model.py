"""Conversion through a frozen SavedModel writes the same file as TensorFlow's own way."""

import gc
import pathlib

import keras
import numpy as np
import pytest
from keras import layers
from tensorflow.python.framework.func_graph import FuncGraph

import tfnas
from tfnas.tflite import frozen_saved_model, tensorflow_converter
from tfnas.tflite.frozen_saved_model import (
    can_be_frozen,
    write_frozen_saved_model,
)
from tfnas.tflite.saved_model_converter import without_old_garbage


def two_ends():
    """Two inputs, not in alphabetical order, and outputs by name; nested, with batch statistics."""
    wide, narrow = keras.Input((8, 8, 3), name="wide"), keras.Input((5,), name="narrow")
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(8, 3), layers.ReLU()])
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3)(inner(wide)))
    x = layers.Concatenate()([layers.Flatten()(x), layers.Dense(4, activation="relu")(narrow)])
    named = {"scores": layers.Dense(3)(x), "area": layers.Dense(1, activation="sigmoid")(x)}
    return keras.Model([wide, narrow], named)


def chain():
    """A Sequential model with dropout, and with the custom gradient of silu."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(4, activation="silu"),
            layers.Dense(4, activation="softmax"),
        ]
    )


def contents(artifact):
    """Operators with their options, weights, types, shapes and scales, without names and order."""

    def described(tensor):
        numbers = tensor.constant and hash(tensor.constant)
        return tensor.dtype, tensor.shape, tensor.scales, tensor.zero_points, numbers

    return sorted(
        str((op.name, vars(op.options) if op.options else {}, *map(described, ends)))
        for op in artifact.graph.operators
        for ends in [(*op.inputs, *op.outputs)]
    )


FAST = ((two_ends, "int8"), (chain, "dynamic"))


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        pytest.param(make, mode, marks=() if (make, mode) in FAST else pytest.mark.slow)
        for make in (two_ends, chain)
        for mode in ("float32", "float16", "dynamic", "int8", "int16x8")
    ],
)
def test_the_file_is_that_of_from_keras_model(make, mode, monkeypatch):
    keras.utils.set_random_seed(0)
    model = make()
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(20, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    data = data if len(data) > 1 else data[0]
    calibration = data if mode in ("int8", "int16x8") else None
    fast = tfnas.to_tflite(model, mode, calibration)
    monkeypatch.setattr(tensorflow_converter, "written_for_converter", lambda *_: None)
    plain = tfnas.to_tflite(model, mode, calibration)
    assert contents(fast) == contents(plain)
    for ends in ("inputs", "outputs"):
        assert [t.name for t in getattr(fast, ends)] == [t.name for t in getattr(plain, ends)]
    for one, other in zip(fast.predict(data), plain.predict(data), strict=True):
        np.testing.assert_array_equal(one, other)


def test_trained_ranges_become_the_same_file(monkeypatch):
    keras.utils.set_random_seed(0)
    data = np.random.default_rng(0).normal(size=(20, 8, 8, 3)).astype("float32")
    trainable = tfnas.quantize_aware(chain(), "int8", data=data)
    fast = tfnas.to_tflite(trainable, "int8")
    monkeypatch.setattr(tensorflow_converter, "written_for_converter", lambda *_: None)
    assert contents(fast) == contents(tfnas.to_tflite(trainable, "int8"))


def test_models_without_constants_are_not_frozen(monkeypatch):
    assert can_be_frozen(chain())
    monkeypatch.setattr(frozen_saved_model, "_MOST_BYTES", 100)
    assert not can_be_frozen(chain())


class Counter(layers.Layer):
    """Adds the number of its calls."""

    def build(self, input_shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign_add(1.0)
        return x + self.calls


def counter():
    inputs = keras.Input((4,))
    return keras.Model(inputs, Counter()(inputs))


def stateful_rnn():
    inputs = keras.Input(batch_shape=(1, 3, 4))
    return keras.Model(inputs, layers.SimpleRNN(2, stateful=True, unroll=True)(inputs))


def invoked(interpreter, x):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize("make", [counter, stateful_rnn])
def test_state_that_changes_at_inference_is_kept(make, tmp_path):
    keras.utils.set_random_seed(0)
    model = make()
    assert not write_frozen_saved_model(model, tmp_path)
    assert list(tmp_path.iterdir()) == []
    file = tfnas.to_tflite(model)
    assert {"VAR_HANDLE", "ASSIGN_VARIABLE"} <= {op.name for op in file.graph.operators}
    interpreter = file.interpreter()
    x = np.linspace(-1, 1, np.prod(model.inputs[0].shape[1:]), dtype=np.float32)
    x = x.reshape(1, *model.inputs[0].shape[1:])
    for _ in range(3):
        expected = keras.ops.convert_to_numpy(model(x))
        np.testing.assert_allclose(invoked(interpreter, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "writes"),
    [
        ("AssignVariableOp", True),
        ("AssignSubVariableOp", True),
        ("ResourceScatterUpdate", True),
        ("ResourceScatterNdAdd", True),
        ("ResourceStridedSliceAssign", True),
        ("ReadVariableOp", False),
        ("ResourceGather", False),
        ("VarHandleOp", False),
    ],
)
def test_operations_that_write_to_a_variable(name, writes):
    assert bool(frozen_saved_model._ASSIGNMENT.fullmatch(name)) is writes


def test_plain_and_quantization_aware_models_are_frozen(tmp_path):
    data = np.zeros((2, 8, 8, 3), np.float32)
    for i, model in enumerate([chain(), tfnas.quantize_aware(chain(), data=data)]):
        folder = tmp_path / str(i)
        folder.mkdir()
        assert write_frozen_saved_model(model, folder)
        assert (folder / "saved_model.pb").is_file()


def test_an_input_that_nothing_reads_stays_one_of_the_file(tmp_path):
    used, unused = keras.Input((3,), name="used"), keras.Input((2,), name="unused")
    model = keras.Model([used, unused], layers.Dense(2)(used))
    assert write_frozen_saved_model(model, tmp_path)
    x = [np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)]
    found = tfnas.to_tflite(model).predict(x)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-6)


def test_outputs_nested_in_a_dictionary():
    inputs = keras.Input((4,))
    ends = [layers.Dense(units)(inputs) for units in (2, 3, 5, 6)]
    model = keras.Model(inputs, {"b": ends[0], "a": [ends[1], {"deep": ends[2]}], "c": (ends[3],)})
    file = tfnas.to_tflite(model)
    shapes = {tensor.name: tensor.shape[-1] for tensor in file.outputs}
    assert shapes == {"a_0": 3, "a_1_deep": 5, "b": 2, "c_0": 6}


def test_nested_outputs_of_one_name_are_a_conversion_error(tmp_path):
    inputs = keras.Input((4,))
    narrow, wide = layers.Dense(2)(inputs), layers.Dense(3)(inputs)
    model = keras.Model(inputs, {"a": [narrow], "a_0": wide})
    with pytest.raises(ValueError, match=r"outputs must have different names.*\['a_0', 'a_0'\]"):
        write_frozen_saved_model(model, tmp_path)
    with pytest.raises(tfnas.ConversionError, match="can't be converted to float32"):
        tfnas.to_tflite(model)


def fail(*_):
    raise TypeError("zip() of the export")


def tiny():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2, name="last")])


def test_an_export_that_fails_is_replaced_by_that_of_tensorflow(monkeypatch):
    model, folders = tiny(), []

    def write_half(model, directory):
        folders.append(pathlib.Path(directory))
        folders[0].mkdir()
        (folders[0] / "saved_model.pb").write_bytes(b"half")
        fail()

    expected = tfnas.to_tflite(model)
    monkeypatch.setattr(tensorflow_converter, "write_frozen_saved_model", write_half)
    assert contents(tfnas.to_tflite(model)) == contents(expected)
    assert len(folders) == 1
    assert not folders[0].exists()


@pytest.mark.parametrize("mode", ["float32", "dynamic"])
def test_whatever_the_export_raises_becomes_a_conversion_error(monkeypatch, mode):
    monkeypatch.setattr(tensorflow_converter, "write_frozen_saved_model", fail)
    monkeypatch.setattr(tensorflow_converter, "write_saved_model", fail)
    monkeypatch.setattr("tensorflow.lite.TFLiteConverter.from_keras_model", fail)
    message = rf"can't be converted to {mode}: zip\(\) of the export"
    with pytest.raises(tfnas.ConversionError, match=message) as caught:
        tfnas.to_tflite(tiny(), mode)
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize("layer", [layers.Dense, layers.SimpleRNN])  # the RNN is a loop
def test_no_graph_stays_where_a_function_has_its_own_gradient(layer, tmp_path):
    inputs = keras.Input((6, 3))
    model = keras.Model(inputs, layer(2, activation="silu")(inputs))
    write_frozen_saved_model(model, tmp_path / "model")
    gc.collect()
    assert [o for o in gc.get_objects() if isinstance(o, FuncGraph) and o.name == "infer"] == []


def test_the_collector_is_left_as_it_was():
    with without_old_garbage():
        assert gc.get_freeze_count()
    assert not gc.get_freeze_count()
    gc.freeze()
    try:
        with without_old_garbage():
            pass
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()
