"""tfnas.to_tflite and Artifact: the content of the file, and that it computes as Keras does."""

import gzip
import hashlib
import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfnas
from tfnas.quantization.spec import MODES

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"


def dtypes(artifact, constants):
    return {t.dtype for t in artifact.graph.tensors if (t.constant is not None) == constants}


def two_by_two(seed=0):
    """Inputs of equal shape, not in the order of the alphabet; outputs of different shapes."""
    keras.utils.set_random_seed(seed)
    zebra, apple = keras.Input((4,), name="zebra"), keras.Input((4,), name="apple")
    joined = layers.Concatenate()([layers.Dense(8, "relu")(zebra), layers.Dense(3)(apple)])
    return keras.Model([zebra, apple], [layers.Dense(5)(joined), layers.Dense(2)(joined)])


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "relu", name="first"), layers.Dense(3, name="last")],
        name="small",
    )


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(150, 6)).astype(np.float32)


# --- what the file holds


@pytest.mark.parametrize(
    ("mode", "ends"),
    [
        ("float32", "float32"),
        ("float16", "float32"),
        ("dynamic", "float32"),
        ("int8", "int8"),
        ("int16x8", "int16"),
    ],
)
def test_inputs_and_outputs(artifacts, mode, ends):
    artifact = artifacts[mode]
    assert artifact.mode == mode
    (image,), (classes,) = artifact.inputs, artifact.outputs
    assert (image.name, image.dtype, image.shape) == ("image", ends, (-1, 8, 8, 1))
    assert (classes.name, classes.dtype, classes.shape) == ("output_0", ends, (-1, 10))
    assert {t.dtype for t in (*artifact.graph.inputs, *artifact.graph.outputs)} == {ends}
    assert bool(image.scale) == bool(classes.scale) == (ends != "float32")
    assert not any(op.custom for op in artifact.graph.operators)


@pytest.mark.parametrize("mode", ["int8", "int16x8"])
def test_integer_files_hold_no_float_at_all(artifacts, mode):
    found = {t.dtype for t in artifacts[mode].graph.tensors}
    assert not {d for d in found if d.startswith("float")}
    assert "int8" in dtypes(artifacts[mode], constants=True)
    activations = {t.dtype for op in artifacts[mode].graph.operators for t in op.outputs}
    assert {d for d in activations if d != "int32"} == {"int8" if mode == "int8" else "int16"}


def weights(artifact):
    """Kernel of each convolution and dense layer; the constant before a DEQUANTIZE."""
    producers = {op.outputs[0].index: op for op in artifact.graph.operators}
    kernels = [
        op.inputs[1]
        for op in artifact.graph.operators
        if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    ]
    return [producers[k.index].inputs[0] if k.constant is None else k for k in kernels]


@pytest.mark.parametrize(
    ("mode", "dtype"),
    [("float32", "float32"), ("float16", "float16"), ("int8", "int8"), ("int16x8", "int8")],
)
def test_every_weight_has_the_type_of_the_mode(tiny_model, artifacts, mode, dtype):
    kernels = weights(artifacts[mode])
    expected = [w for layer in tiny_model.layers for w in layer.weights if w.name == "kernel"]
    assert len(kernels) == len(expected)
    assert sum(int(np.prod(k.shape)) for k in kernels) == sum(
        int(np.prod(w.shape)) for w in expected
    )
    assert {k.dtype for k in kernels} == {dtype}
    assert all(len(k.constant) == np.dtype(dtype).itemsize * np.prod(k.shape) for k in kernels)


def test_dynamic_has_int8_weights_where_they_are_large(artifacts):
    kernels = weights(artifacts["dynamic"])
    assert {k.dtype for k in kernels if np.prod(k.shape) >= 1024} == {"int8"}
    assert {k.dtype for k in kernels if np.prod(k.shape) < 1024} <= {"int8", "float32"}
    outs = {t.dtype for op in artifacts["dynamic"].graph.operators for t in op.outputs}
    assert outs - {"int32"} == {"float32"}


def test_fewer_bits_make_smaller_files(artifacts):
    sizes = {mode: artifacts[mode].size for mode in MODES}
    assert sizes["float32"] > sizes["float16"] > sizes["int8"]
    assert sizes["float32"] > sizes["dynamic"]


def test_sizes_and_hash(artifacts, tmp_path):
    for mode, artifact in artifacts.items():
        path = artifact.save(tmp_path / f"{mode}.tflite")
        content = path.read_bytes()
        assert artifact.size == len(content) == path.stat().st_size
        assert artifact.sha256 == hashlib.sha256(content).hexdigest()
        assert artifact.gzip_size == len(gzip.compress(content, 9, mtime=0)) < artifact.size
        assert gzip.decompress(gzip.compress(content, 9)) == artifact.content


def test_origin(artifacts, tiny_model):
    origin = artifacts["int8"].origin
    assert origin["model"] == tiny_model.name
    assert (origin["mode"], origin["inputs"]) == ("int8", ["image"])
    assert origin["calibration_examples"] == 100
    assert artifacts["float32"].origin["calibration_examples"] == 0
    assert (origin["keras"], origin["tensorflow"]) == (keras.__version__, tf.__version__)


def test_spec_stands_for_a_mode(small, data):
    by_name = tfnas.to_tflite(small, "int16x8", data)
    by_spec = tfnas.to_tflite(small, tfnas.QuantSpec("int8", "int16"), data)
    assert by_spec == by_name
    assert by_spec.mode == "int16x8"


# --- what the file computes


# Float32 kernels add in different orders, which changes a probability by about 1e-6 (LiteRT's
# reference kernels, its fast ones, XNNPACK and Keras differ by up to 9e-7 here).
SUMS = 1e-5


@pytest.mark.parametrize(("mode", "atol"), [("float32", SUMS), ("float16", 0.02)])
def test_predictions_are_those_of_keras(tiny_model, artifacts, digits, mode, atol):
    expected = tiny_model.predict(digits.x_test, verbose=0)
    found = artifacts[mode].predict(digits.x_test)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("mode", ["dynamic", "int16x8"])
def test_predictions_of_integers_are_near_those_of_keras(tiny_model, artifacts, digits, mode):
    """Over all images: a single one between two classes may change by any amount."""
    expected = tiny_model.predict(digits.x_test, verbose=0)
    found = artifacts[mode].predict(digits.x_test)
    assert found.shape == expected.shape
    assert np.sqrt(np.square(found - expected).mean()) < 0.02


def test_int8_finds_the_classes_of_keras(tiny_model, artifacts, digits):
    expected = tiny_model.predict(digits.x_test, verbose=0).argmax(1)
    assert (expected == digits.y_test).mean() > 0.8  # the model is trained
    found = artifacts["int8"].predict(digits.x_test)
    assert found.dtype == np.float32
    assert (found.argmax(1) == expected).mean() > 0.95


@pytest.mark.parametrize("mode", ["float32", "int8"])
@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_batch_size_changes_nothing(artifacts, digits, mode, batch_size):
    x = digits.x_test[:50]
    found = artifacts[mode].predict(x, batch_size=batch_size)
    # A kernel for one example may add in another order than one for many; integer sums are equal.
    atol = SUMS if mode == "float32" else 1e-6
    np.testing.assert_allclose(found, artifacts[mode].predict(x), atol=atol, rtol=0)


def test_predict_takes_every_kind_of_data(artifacts, digits):
    x, y = digits.x_test[:40], digits.y_test[:40]
    expected = artifacts["int8"].predict(x)
    for data in (tf.data.Dataset.from_tensor_slices((x, y)).batch(9), x.astype(float), (x, y)):
        np.testing.assert_array_equal(artifacts["int8"].predict(data), expected)
    np.testing.assert_array_equal(artifacts["int8"].predict(x, threads=2), expected)


def test_quantize_and_dequantize_are_inverse_and_clip(artifacts):
    tensor = artifacts["int8"].outputs[0]
    grid = np.arange(-128, 128, dtype=np.int8)
    np.testing.assert_array_equal(tensor.quantize(tensor.dequantize(grid)), grid)
    np.testing.assert_array_equal(tensor.quantize(np.array([-1e9, 1e9])), [-128, 127])
    assert tensor.dequantize(np.array([tensor.zero_point], np.int8)) == [0.0]


def test_model_that_fixes_the_batch():
    inputs = keras.Input(batch_shape=(1, 4))
    model = keras.Model(inputs, keras.ops.reshape(layers.Dense(6)(inputs), (1, 3, 2)))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = np.concatenate([model(row[None]).numpy() for row in x])
    np.testing.assert_allclose(tfnas.to_tflite(model).predict(x), expected, atol=1e-5)


@pytest.mark.parametrize(("mode", "atol"), [("float32", 1e-5), ("int8", 0.3)])
def test_two_inputs_and_two_outputs(mode, atol):
    model = two_by_two()
    rng = np.random.default_rng(0)
    zebra, apple = rng.normal(size=(60, 4)), 3 * rng.normal(size=(60, 4)) + 2
    artifact = tfnas.to_tflite(model, mode, [zebra, apple])
    assert sorted(t.name for t in artifact.inputs) == ["apple", "zebra"]
    expected = model.predict([zebra, apple], verbose=0)
    as_list = artifact.predict([zebra, apple])
    as_dict = artifact.predict({"apple": apple, "zebra": zebra})
    assert [o.shape for o in as_list] == [(60, 5), (60, 2)]
    for a, b, c in zip(as_list, as_dict, expected, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, atol=atol)
    swapped = artifact.predict([apple, zebra])[0]
    assert np.abs(swapped - expected[0]).max() > 1
    if mode == "int8":
        by_name = tfnas.to_tflite(model, mode, {"apple": apple, "zebra": zebra})
        assert by_name.sha256 == artifact.sha256


def test_twelve_outputs_keep_their_order():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, [layers.Dense(n)(inputs) for n in range(1, 13)])
    found = tfnas.to_tflite(model).predict(np.ones((2, 3)))
    assert [o.shape[1] for o in found] == list(range(1, 13))


# --- calibration


class Batches(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return -(-len(self.x) // 32)

    def __getitem__(self, index):
        part = self.x[32 * index : 32 * (index + 1)]
        return part, np.zeros(len(part))


def test_kind_of_calibration_data_does_not_matter(small, data):
    expected = tfnas.to_tflite(small, "int8", data).sha256
    sets = (
        tf.data.Dataset.from_tensor_slices(data).batch(32),
        tf.data.Dataset.from_tensor_slices((data, np.zeros(150))).batch(7),
        Batches(data),
        (data.astype(np.float64), np.zeros(150)),
    )
    assert {tfnas.to_tflite(small, "int8", s).sha256 for s in sets} == {expected}
    assert tfnas.to_tflite(small, "int8", 100 * data).sha256 != expected


def test_calibration_stops_at_500(small, data):
    endless = tf.data.Dataset.from_tensor_slices(data).batch(64).repeat()
    assert tfnas.to_tflite(small, "int8", endless).origin["calibration_examples"] == 500


BAD_CALIBRATION = {
    "none": (None, "must hold typical inputs for mode 'int8', got None"),
    "nan": (np.full((5, 6), np.nan), "must be finite for input '.*', got NaN or inf"),
    "inf": (np.full((5, 6), np.inf), "must be finite"),
    "shape": (np.zeros((5, 7)), r"shape \(examples, 6\) for input '.*', got \(5, 7\)"),
    "rank": (np.zeros((5, 6, 1)), r"shape \(examples, 6\)"),
    "two": ([np.zeros((5, 6)), np.zeros((5, 6))], "must hold 1 inputs, got 2"),
    "name": ({"x": np.zeros((5, 6))}, r"must hold the inputs \['.*'\], got \['x'\]"),
    "empty": (np.zeros((0, 6)), "calibration must hold at least one example"),
}


@pytest.mark.parametrize("case", BAD_CALIBRATION)
def test_calibration_that_is_refused(small, case):
    calibration, match = BAD_CALIBRATION[case]
    with pytest.raises(ValueError, match=match):
        tfnas.to_tflite(small, "int8", calibration)


# --- models and modes that are refused


def test_an_unknown_mode_is_refused(small):
    with pytest.raises(ValueError, match=r"mode must be one of float32, .*, got 'int3'"):
        tfnas.to_tflite(small, "int3")
    with pytest.raises(ValueError, match=r"weights/activations must be one of .* got float16/int8"):
        tfnas.QuantSpec("float16", "int8")


def test_models_that_are_not_built_are_refused():
    for other in ("model", tf.Module(), layers.Dense(2)):
        with pytest.raises(ValueError, match="model must be a Keras 3 or tf_keras model, got"):
            tfnas.to_tflite(other)
    with pytest.raises(ValueError, match="model must be built, got 'unbuilt'"):
        tfnas.to_tflite(keras.Sequential([layers.Dense(2)], name="unbuilt"))


def test_another_backend_is_refused(small, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match=r"TensorFlow backend to write .tflite files, got 'jax'"):
        tfnas.to_tflite(small)


class Betainc(layers.Layer):
    def call(self, x):
        return tf.raw_ops.Betainc(a=x * x + 1.0, b=x * x + 1.0, x=tf.sigmoid(x))


class Erfinv(layers.Layer):
    def call(self, x):
        return tf.math.erfinv(x * 0.5)


@pytest.mark.parametrize("mode", ["float32", "int8"])
@pytest.mark.parametrize("kind", [Betainc, Erfinv])
def test_operation_without_kernel_names_its_layer(kind, mode):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="fine"), kind(name="odd_one")], name="net"
    )
    match = rf"'net' can't be converted to {mode}: operation {kind.__name__}.* in layer odd_one$"
    with pytest.raises(tfnas.ConversionError, match=match):
        tfnas.to_tflite(model, mode, np.zeros((4, 4)))


def test_operation_without_kernel_in_a_nested_model_and_a_lambda():
    inner = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Lambda(lambda x: tf.raw_ops.Betainc(a=x, b=x, x=x), name="strange"),
        ],
        name="inner",
    )
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), inner])
    with pytest.raises(tfnas.ConversionError, match=r"Betainc.* in layer strange"):
        tfnas.to_tflite(model)


def test_nothing_is_printed(small, data, capfd):
    for mode in MODES:
        tfnas.to_tflite(small, mode, data)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")  # stderr is what native code writes past Python


# --- inputs of predict that are refused


@pytest.mark.parametrize("mode", ["float32", "int8"])
def test_wrong_inputs_of_predict(artifacts, digits, mode):
    predict = artifacts[mode].predict
    with pytest.raises(ValueError, match=r"x must have the shape \(examples, 8, 8, 1\).*'image'"):
        predict(digits.x_test[..., 0])
    with pytest.raises(ValueError, match=r"got \(2, 8, 9, 1\)"):
        predict(np.zeros((2, 8, 9, 1)))
    with pytest.raises(ValueError, match=r"x must hold 1 inputs \['image'\], got 2"):
        predict([digits.x_test, digits.x_test])
    with pytest.raises(ValueError, match=r"x must hold the inputs \['image'\], got \['picture'\]"):
        predict({"picture": digits.x_test})
    with pytest.raises(ValueError, match="x must hold no NaN for input 'image'"):
        predict(np.full((1, 8, 8, 1), np.nan))
    with pytest.raises(ValueError, match="x must hold at least one example"):
        predict(digits.x_test[:0])
    with pytest.raises(ValueError, match="threads must be at least 1"):
        predict(digits.x_test, threads=0)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_is_checked(artifacts, digits, batch_size):
    with pytest.raises(ValueError, match="batch_size must be"):
        artifacts["float32"].predict(digits.x_test, batch_size=batch_size)


# --- saving and loading


def test_save_and_load(artifacts, digits, tmp_path):
    path = artifacts["int8"].save(tmp_path / "new" / "folder" / "a.tflite")
    loaded = tfnas.Artifact.load(path)
    assert loaded.content == artifacts["int8"].content
    assert loaded.sha256 == artifacts["int8"].sha256
    assert loaded.mode == "file"
    assert loaded.inputs == artifacts["int8"].inputs
    x = digits.x_test[:20]
    np.testing.assert_array_equal(loaded.predict(x), artifacts["int8"].predict(x))
    assert os.listdir(path.parent) == ["a.tflite"]


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_save_that_fails_leaves_the_old_file(artifacts, tmp_path, monkeypatch, function):
    path = artifacts["int8"].save(tmp_path / "a.tflite")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="disk full"):
        artifacts["float32"].save(path)
    assert path.read_bytes() == artifacts["int8"].content
    assert os.listdir(tmp_path) == ["a.tflite"]


@pytest.mark.parametrize("content", [b"", b"TFL3", b"garbage" * 100, b"\0" * 64])
def test_loading_garbage_is_refused(tmp_path, content):
    path = tmp_path / "x.tflite"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"path '.*x.tflite' must be a .tflite file"):
        tfnas.Artifact.load(path)
    with pytest.raises(ValueError, match=r"content must be a .tflite file"):
        tfnas.Artifact(content)


def test_loading_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        tfnas.Artifact.load(tmp_path / "absent.tflite")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("pretrainedResnet.tflite", "float32"), ("pretrainedResnet_quant.tflite", "int8")],
)
def test_a_file_of_another_origin(name, dtype):
    path = SHARED / "mlperf_tiny" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    artifact = tfnas.Artifact.load(path)
    assert [(t.dtype, t.shape[1:]) for t in artifact.inputs] == [(dtype, (32, 32, 3))]
    assert [(t.dtype, t.shape[1:]) for t in artifact.outputs] == [(dtype, (10,))]
    names = [op.name for op in artifact.graph.operators]
    assert (names.count("CONV_2D"), names.count("ADD"), names.count("FULLY_CONNECTED")) == (9, 3, 1)
    x = np.random.default_rng(0).uniform(0, 255, (5, 32, 32, 3))
    out = artifact.predict(x)
    assert out.shape == (5, 10)
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=0.03)
    np.testing.assert_allclose(out, artifact.predict(x, batch_size=2), atol=1e-5)
