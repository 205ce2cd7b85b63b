"""Conversion to and from tf_keras, and tfmot: layers, models, old files, errors."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from tfnas import legacy
from tfnas.legacy import configs, operations, tensorflow_function, tfmot_qat
from tfnas.legacy.output_comparison import difference
from tfnas.quantization.aware_models import trained_formats
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.flatbuffer import read_graphs
from tfnas.tflite.quiet_converter import quiet_converter

pytest.importorskip("tf_keras")
SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"

pytestmark = [
    # Keras' traversal of structures and its conversion of tensors.
    pytest.mark.filterwarnings("ignore:.*__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
    # tf_keras and tfmot on Python 3.11 and NumPy 2.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tf_keras"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_model_optimization"),
]


def randomize(model, seed=0):
    """Sets random weights: a new BatchNormalization would be the identity."""
    generator = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        for weight in layer._trainable_variables + layer._non_trainable_variables:
            if "float" not in weight.dtype:
                continue
            if weight.name in ("gamma", "moving_variance", "variance"):
                weight.assign(generator.uniform(0.5, 1.5, weight.shape))
            elif len(weight.shape) == 1:
                weight.assign(generator.normal(0, 0.2, weight.shape))
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def both_ways(model, data):
    """Converts a model to tf_keras and back; returns both differences and the last model."""
    converted = legacy.to_tf_keras(model)
    returned = legacy.from_tf_keras(converted)
    outputs = [np.asarray(each(data, training=False)) for each in (model, converted, returned)]
    return difference(*outputs[:2]), difference(*outputs[::2]), returned


IMAGE, SEQUENCE, VECTOR, VOLUME = (8, 8, 4), (6, 4), (8,), (4, 4, 4, 2)
GROUPS = {
    "convolutions": (
        IMAGE,
        [
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(8, 3, groups=2, dilation_rate=2, padding="same", use_bias=False),
            layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu6"),
            layers.SeparableConv2D(4, 3, padding="same", activation="silu"),
            layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="hard_swish"),
        ],
    ),
    "one dimension": (
        SEQUENCE,
        [
            layers.ZeroPadding1D(2),
            layers.Conv1D(8, 3, padding="causal", activation="gelu"),
            layers.DepthwiseConv1D(3),
            layers.SeparableConv1D(4, 3),
            layers.Conv1DTranspose(4, 3, strides=2),
            layers.UpSampling1D(2),
            layers.MaxPooling1D(2),
            layers.AveragePooling1D(2),
            layers.Cropping1D(1),
            layers.SpatialDropout1D(0.2),
            layers.GlobalMaxPooling1D(),
            layers.RepeatVector(3),
            layers.GlobalAveragePooling1D(),
        ],
    ),
    "three dimensions": (
        VOLUME,
        [
            layers.ZeroPadding3D(1),
            layers.Conv3D(4, 3, padding="same"),
            layers.Conv3DTranspose(4, 2, strides=2),
            layers.MaxPooling3D(2),
            layers.AveragePooling3D(2),
            layers.UpSampling3D(2),
            layers.Cropping3D(1),
            layers.GlobalAveragePooling3D(),
        ],
    ),
    "normalization": (
        IMAGE,
        [
            layers.Rescaling([0.5, 1.0, 2.0, 3.0], offset=-1.0),
            layers.Normalization(),
            layers.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0]),
            layers.BatchNormalization(momentum=0.9, epsilon=1e-2),
            layers.BatchNormalization(center=False, scale=False),
            layers.LayerNormalization(axis=[2, 3]),
            layers.GroupNormalization(2),
            layers.UnitNormalization(),
        ],
    ),
    "activation layers": (
        IMAGE,
        [
            layers.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.1),
            layers.LeakyReLU(negative_slope=0.2),
            layers.ELU(0.5),
            layers.PReLU(shared_axes=[1, 2]),
            *(
                layers.Activation(name)
                for name in (
                    "linear",
                    "hard_sigmoid",
                    "elu",
                    "hard_silu",
                    "leaky_relu",
                    "tanh",
                    "softplus",
                    "mish",
                    "log_softmax",
                    "softsign",
                    "selu",
                    "gelu",
                    "relu6",
                    "silu",
                    "exponential",
                    "log_sigmoid",
                    "hard_tanh",
                    "sigmoid",
                    "softmax",
                )
            ),
            layers.Softmax(axis=2),
        ],
    ),
    "reshaping": (
        IMAGE,
        [
            layers.ZeroPadding2D(((1, 2), (0, 3))),
            layers.Cropping2D(((1, 0), (0, 1))),
            layers.UpSampling2D(2, interpolation="bilinear"),
            layers.MaxPooling2D(3, strides=2, padding="same"),
            layers.AveragePooling2D(2),
            layers.Resizing(6, 6),
            layers.Permute((3, 1, 2)),
            layers.Reshape((6, 24)),
            layers.Flatten(),
            layers.Identity(),
        ],
    ),
    "regularization": (
        VECTOR,
        [
            layers.Dense(8, "hard_sigmoid", kernel_regularizer="l2", kernel_constraint="non_neg"),
            layers.Dropout(0.5, seed=3),
            layers.GaussianNoise(0.5),
            layers.GaussianDropout(0.2),
            layers.AlphaDropout(0.2),
            layers.ActivityRegularization(l2=0.1),
            layers.Dense(4, trainable=False),
        ],
    ),
    "recurrent": (
        SEQUENCE,
        [
            layers.LSTM(5, return_sequences=True),
            layers.GRU(5, return_sequences=True, recurrent_activation="sigmoid"),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(4, "relu")),
            layers.SimpleRNN(3),
        ],
    ),
}


@pytest.mark.parametrize("group", GROUPS)
def test_layers_both_ways(group):
    shape, stack = GROUPS[group]
    copies = [type(layer).from_config(layer.get_config()) for layer in stack]
    model = randomize(keras.Sequential([keras.Input(shape), *copies]))
    data = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    there, back, returned = both_ways(model, data)
    assert (there, back) <= (1e-6, 1e-6)
    assert [layer.name for layer in returned.layers] == [layer.name for layer in model.layers]
    trainable = [layer.trainable for layer in model.layers]
    assert [layer.trainable for layer in returned.layers] == trainable
    assert isinstance(returned, keras.Sequential)


def test_graphs_both_ways():
    image, words = (
        keras.Input((8, 8, 3), name="image"),
        keras.Input((5,), name="words", dtype="int32"),
    )
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    inner = keras.Sequential([keras.Input((8, 8, 4)), layers.BatchNormalization()], name="inner")
    x = inner(shared(image), training=False)
    x = inner(shared(x[..., :3])) + x
    flat = layers.GlobalAveragePooling2D()(x)
    embedded = layers.Embedding(7, 4)(words)
    attended = layers.MultiHeadAttention(2, 3)(embedded, embedded)
    y = layers.Dot(axes=(2, 1))([attended, flat])
    merged = [
        merge()([flat, flat * 2.0])
        for merge in (layers.Average, layers.Maximum, layers.Minimum, layers.Subtract)
    ]
    outputs = {"merged": layers.Concatenate()(merged), "dot": y}
    model = randomize(keras.Model({"image": image, "words": words}, outputs))
    converted = legacy.to_tf_keras(model)
    returned = legacy.from_tf_keras(converted)
    generator = np.random.default_rng(0)
    data = {
        "image": generator.normal(size=(3, 8, 8, 3)).astype("float32"),
        "words": generator.integers(0, 7, (3, 5)).astype("int32"),
    }
    for name in outputs:
        found = [
            np.asarray(each(data, training=False)[name]) for each in (model, converted, returned)
        ]
        assert max(difference(found[0], found[1]), difference(found[0], found[2])) <= 1e-6
    assert returned.get_layer("inner").layers[0].name == model.get_layer("inner").layers[0].name
    assert len(returned.weights) == len(model.weights)


OPERATORS = {
    "scalars": lambda x: (1.0 - x * 2.0) / 3.0 + 0.5 - x**2,
    "tensors": lambda x: x * x + x - keras.ops.maximum(x, keras.ops.minimum(x, -x)) / (x + 9.0),
    "ranks": lambda x: x + keras.ops.mean(x, axis=(0, 1, 2)),
    "array": lambda x: x * np.arange(4, dtype="float32"),
    "slices": lambda x: x[:, 1:, ::2, 0],
    "shapes": lambda x: keras.ops.reshape(keras.ops.transpose(x, (0, 3, 1, 2)), (-1, 4, 64)),
    "axes": lambda x: keras.ops.squeeze(keras.ops.expand_dims(keras.ops.sum(x, -1), 1), 1),
    "stacks": lambda x: keras.ops.concatenate(
        [keras.ops.stack([x, x], axis=1), keras.ops.stack([x, -x], axis=1)], axis=-1
    ),
    "split": lambda x: keras.ops.split(x, 2, axis=-1)[1],
    "matmul": lambda x: keras.ops.matmul(x, keras.ops.transpose(x, (0, 1, 3, 2))),
    "unary": lambda x: keras.ops.sqrt(keras.ops.abs(keras.ops.exp(x))) + keras.ops.square(x),
    "clip": lambda x: keras.ops.clip(keras.ops.max(x, axis=1, keepdims=True), -0.5, 0.5),
    "activations": lambda x: keras.ops.relu6(keras.ops.silu(x)) + keras.ops.hard_silu(x),
    "parameters": lambda x: keras.ops.leaky_relu(x, 0.3) + keras.ops.gelu(x, approximate=False),
    "softmax": lambda x: keras.ops.softmax(keras.ops.cast(x, "float32"), axis=2),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_both_ways(name):
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, OPERATORS[name](inputs))
    data = np.random.default_rng(1).normal(size=(2, 8, 8, 4)).astype("float32")
    there, back, returned = both_ways(model, data)
    assert (there, back) <= (1e-6, 1e-6)
    keras.Model.from_config(returned.get_config())


def test_operators_have_their_public_names():
    from tensorflow.python.util.tf_export import get_canonical_name_for_symbol

    for row in operations.TABLE:
        found = get_canonical_name_for_symbol(tensorflow_function.function(row.symbol))
        assert found == row.symbol
        assert not row.function or hasattr(keras.ops, row.function)


def test_a_slash_in_a_name_becomes_an_underscore():
    tf_keras = legacy.tf_keras()
    inputs = tf_keras.Input((4,), name="in")
    x = tf_keras.layers.Dense(2, name="block/dense")(inputs)
    model = tf_keras.Model(inputs, tf_keras.layers.ThresholdedReLU(0.3, name="block/relu")(x * 0.5))
    names = [layer.name for layer in legacy.from_tf_keras(model).layers]
    assert names == ["in", "block_dense", "block_relu"]


def test_each_hard_sigmoid_keeps_its_meaning(tmp_path):
    tf_keras = legacy.tf_keras()
    layer = tf_keras.layers.Activation("hard_sigmoid", name="a")
    old = tf_keras.Sequential([tf_keras.Input((5,)), layer])
    data = np.linspace(-4, 4, 5, dtype="float32")[None]
    expected = np.clip(0.2 * data + 0.5, 0, 1)
    old.save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file.attrs["keras_version"] = "2.4.0"
    model = legacy.load_model(tmp_path / "old.h5")
    np.testing.assert_allclose(model.predict(data, verbose=0), expected, atol=1e-6)
    # Keras 3 loads it too, but computes something else.
    wrong = keras.models.load_model(tmp_path / "old.h5", compile=False)
    assert np.abs(wrong.predict(data, verbose=0) - expected).max() > 0.03
    model.save(tmp_path / "new.keras")
    again = legacy.load_model(tmp_path / "new.keras")
    np.testing.assert_allclose(again.predict(data, verbose=0), expected, atol=1e-6)
    returned = legacy.to_tf_keras(again)
    assert returned.layers[-1].activation is tf_keras.activations.hard_sigmoid


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED.name} of the shared data is absent")
@pytest.mark.parametrize("name", ["vww_96.h5", "pretrainedResnet.h5"])
def test_published_files_of_keras_2(name):
    path = SHARED / "mlperf_tiny" / name
    model = legacy.load_h5(path)
    old = legacy.tf_keras().models.load_model(path, compile=False)
    data = np.random.default_rng(0).uniform(0, 1, (4, *model.input_shape[1:])).astype("float32")
    got, expected = (np.asarray(each(data, training=False)) for each in (model, old))
    assert difference(expected, got) <= 5e-6  # float32: the kernels round differently
    assert np.ptp(expected) > 1e-3
    assert model.count_params() == old.count_params()


def write_h5(path, layer, version="2.4.0"):
    config = {
        "class_name": "Sequential",
        "config": {
            "name": "s",
            "layers": [
                {
                    "class_name": "InputLayer",
                    "config": {"batch_input_shape": [None, 4], "dtype": "float32", "name": "i"},
                },
                layer,
            ],
        },
    }
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version
        file.attrs["model_config"] = json.dumps(config)
        file.create_group("model_weights").attrs["layer_names"] = []
    return path


@pytest.mark.parametrize("version", ["2.4.0", "3.5.0"])
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            {"class_name": "Lambda", "config": {"name": "evil", "function": ["4wEA", None, None]}},
            r"layer 'evil' \(Lambda\): it holds Python code, which is not run",
        ),
        (
            {"class_name": "Dense", "module": "os", "config": {"name": "d", "units": 2}},
            r"layer 'd' \(Dense\): it imports the module 'os'",
        ),
        (
            {"class_name": "TFOpLambda", "config": {"name": "w", "function": "io.write_file"}},
            r"layer 'w' \(TFOpLambda\): it calls tf.io.write_file",
        ),
        (
            {"class_name": "StringLookup", "config": {"name": "v", "vocabulary": "/etc/passwd"}},
            r"layer 'v' \(StringLookup\): it reads the file '/etc/passwd'",
        ),
        (
            {"class_name": "Mine", "config": {"name": "m"}},
            r"layer 'm' \(Mine\): it is not a stock class of",
        ),
        (
            {
                "class_name": "Dense",
                "config": {
                    "name": "d",
                    "units": 2,
                    "activation": {"class_name": "function", "config": "system", "module": "os"},
                },
            },
            r"layer 'function' \(function\): it is not a stock class",
        ),
    ],
)
def test_no_code_of_a_file_is_run(tmp_path, layer, message, version):
    with pytest.raises(ValueError, match=message):
        legacy.load_h5(write_h5(tmp_path / "m.h5", layer, version))


def test_broken_files(tmp_path):
    with pytest.raises(ValueError, match="which does not exist"):
        legacy.load_model(tmp_path / "nothing.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.h5' can't be loaded"):
        legacy.load_model(tmp_path / "text.h5")
    (tmp_path / "old.keras").write_bytes(b"\x89HDF broken")  # as TensorFlow 2.11 named them
    with pytest.raises(ValueError, match=r"old\.keras"):
        legacy.load_model(tmp_path / "old.keras")
    (tmp_path / "file.tflite").write_bytes(b"TFL3")
    with pytest.raises(ValueError, match="pass the Keras model that it was converted from"):
        legacy.load_model(tmp_path / "file.tflite")
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.keras' can't be loaded"):
        legacy.load_model(tmp_path / "text.keras")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["keras_version"] = "2.4.0"
    with pytest.raises(ValueError, match="must hold an entire model, got weights only"):
        legacy.load_h5(tmp_path / "weights.h5")
    bad = {"class_name": "Dense", "config": {"name": "d", "units": -2}}
    with pytest.raises(ValueError, match=r"can't be loaded: "):
        legacy.load_h5(write_h5(tmp_path / "bad.h5", bad))


class Twice(layers.Layer):
    def call(self, x):
        return x * 2


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Twice(name="t"), r"layer 't' \(.*Twice\) can't be converted: it is not the Twice of"),
        (layers.Lambda(lambda x: x, name="l"), r"layer 'l' .* has no Lambda to replace it"),
        (layers.RMSNormalization(name="r"), r"layer 'r' .* has no RMSNormalization to replace"),
        (layers.Dense(2, "sparsemax", name="s"), "layer 's' .* activation 'sparsemax' has no"),
        (layers.Resizing(2, 2, pad_to_aspect_ratio=True, name="p"), "its pad_to_aspect_ratio=True"),
    ],
)
def test_layers_without_a_counterpart_are_named(layer, message):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, layer(inputs))
    with pytest.raises(ValueError, match=message):
        legacy.to_tf_keras(model)


def test_operations_without_a_counterpart_are_named():
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=r"keras\.ops operation Cumsum has no counterpart"):
        legacy.to_tf_keras(keras.Model(inputs, keras.ops.cumsum(inputs, axis=1)))
    import tensorflow as tf

    tf_keras = legacy.tf_keras()
    inputs = tf_keras.Input((4,))
    with pytest.raises(ValueError, match=r"tf\.math\.cumsum has no counterpart in Keras 3"):
        legacy.from_tf_keras(tf_keras.Model(inputs, tf.cumsum(inputs, axis=1)))


def test_arguments_are_checked():
    unbuilt = keras.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match="model must be a built functional or Sequential Keras 3"):
        legacy.to_tf_keras(unbuilt)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="Sequential tf_keras model, got 'sequential"):
        legacy.from_tf_keras(model)
    assert legacy.is_tf_keras(legacy.to_tf_keras(model))
    assert not legacy.is_tf_keras(model)


def test_the_first_layer_that_differs_is_named(monkeypatch):
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="fine")(inputs)
    x = layers.Dense(4, "tanh", name="guilty")(x)
    model = keras.Model(inputs, layers.Dense(4, name="after")(x))
    real = configs.activations.to_tf_keras
    swapped = {"tanh": "sigmoid"}
    monkeypatch.setattr(configs.activations, "to_tf_keras", lambda f: swapped.get(real(f), real(f)))
    with pytest.raises(ValueError, match=r"has other outputs after .* first after layer 'guilty'"):
        legacy.to_tf_keras(model)
    assert legacy.to_tf_keras(model, check=False).layers[-1].name == "after"


def test_missing_packages_are_named(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tf_keras" else real(name)
    )
    with pytest.raises(ImportError, match=r'tf-keras must be installed .* "\.\[legacy\]"'):
        legacy.tfmot()


@pytest.mark.parametrize("value", [None, pytest.param("0", marks=pytest.mark.slow)])
def test_tf_keras_stays_keras_3(value):
    pytest.importorskip("tensorflow_model_optimization")
    code = (
        "import os, sys\n"
        "before = dict(os.environ)\n"
        "import tfnas.legacy\n"
        "assert not {'keras', 'tensorflow', 'tf_keras'} & set(sys.modules)\n"
        "mot = tfnas.legacy.tfmot()\n"
        "assert mot.quantization.keras.quantize_model\n"
        "assert dict(os.environ) == before\n"
        "import tensorflow as tf, keras\n"
        "assert tf.keras.layers.Dense is keras.layers.Dense\n"
        "from tensorflow import keras as k\n"
        "print(tf.keras.__version__, k.__version__, tfnas.legacy.tf_keras().__version__)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    environment |= {} if value is None else {"TF_USE_LEGACY_KERAS": value}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment
    )
    assert run.returncode == 0, run.stderr
    assert [version[0] for version in run.stdout.split()] == ["3", "3", "2"]


@pytest.mark.slow
def test_tfmot_trains_converted_models():
    pytest.importorskip("tensorflow_model_optimization")
    import tensorflow as tf

    inner = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.SeparableConv2D(4, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
        ],
        name="inner",
    )
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu6", name="first")(inputs)
    # The automatic name of one half of a separable convolution in tf_keras.
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise_conv2d")(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization(name="bn")(y))
    x = inner(x + y) * x[:, :, :, :1]
    x = layers.Conv2D(8, 1, activation="hard_swish", name="last")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    wrapped, skipped = legacy.quantize_aware_tfmot(model)
    assert skipped == ()
    assert tfmot_qat.is_quantized(wrapped)
    assert trained_formats(wrapped) == QuantSpec.of("int8")
    assert not tfmot_qat.computes_in_float(wrapped)
    names = [layer.name for layer in wrapped.layers]
    assert {"quant_first_relu6", "quant_bn", "quant_last_hard_silu"} <= set(names)
    generator = np.random.default_rng(0)
    data, targets = generator.uniform(size=(64, 8, 8, 3)).astype("float32"), np.arange(64) % 3
    wrapped.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    history = wrapped.fit(data, targets, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()

    converter = tf.lite.TFLiteConverter.from_keras_model(wrapped)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with quiet_converter():
        (graph,) = read_graphs(converter.convert())
    floats = [
        op.name
        for op in graph.operators
        if any(tensor.dtype.startswith("float") for tensor in (*op.inputs, *op.outputs))
    ]
    assert floats == []
    assert "HARD_SWISH" in [op.name for op in graph.operators]


def test_layers_that_compute_in_float_are_reported():
    pytest.importorskip("tensorflow_model_optimization")
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255, name="scale")(inputs)
    x = layers.Conv2D(4, 3, activation="elu", name="conv")(x)
    x = layers.LayerNormalization(name="norm")(x)
    model = keras.Model(inputs, layers.Maximum()([x, x * 0.5]))
    wrapped, skipped = legacy.quantize_aware_tfmot(model)
    assert tfmot_qat.computes_in_float(wrapped)
    assert not tfmot_qat.is_quantized(legacy.to_tf_keras(model))
    assert [each.name for each in skipped] == ["scale", "conv_elu", "norm"]
    assert {each.reason for each in skipped} == {"tfmot quantizes its output only"}
    dense = layers.Dense(3, name="dense")
    twice = keras.Model(inputs, dense(dense(inputs)))
    with pytest.raises(
        ValueError, match="can't be quantized by tfmot: layer 'dense' is used twice"
    ):
        legacy.quantize_aware_tfmot(twice)


FAMILIES = {
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "DenseNet121": 32,
    "VGG16": 32,
    "Xception": 71,
    "InceptionV3": 75,
    "InceptionResNetV2": 75,
    "NASNetMobile": 32,
    "ConvNeXtTiny": 32,
}


@pytest.fixture
def floats(request):
    """Sets Keras' default precision for one test."""
    policy = keras.config.dtype_policy()
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(policy)


# float64 distinguishes a wrong setting from rounding, which differs between the libraries'
# kernels: in float32 ResNet50, ResNet50V2 and InceptionResNetV2 add it up to 1.3e-6.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("floats", "limit"), [("float64", 1e-6), ("float32", 2e-6)], indirect=["floats"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_keras_applications(family, floats, limit):
    size = FAMILIES[family]
    top = {"include_top": False} if family == "VGG16" else {"classifier_activation": None}
    create = getattr(keras.applications, family)
    model = randomize(create(weights=None, input_shape=(size, size, 3), **top))
    data = np.random.default_rng(1).uniform(0, 255, (2, size, size, 3)).astype(floats)
    there, back, returned = both_ways(model, data)
    assert max(there, back) <= limit
    names = [layer.name for layer in model.layers]
    assert set(names) <= {layer.name for layer in returned.layers}
    assert returned.count_params() == model.count_params()
