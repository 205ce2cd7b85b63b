"""tfnas.register_quantizable: custom layers in integer files."""

import doctest
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import tfnas
from tfnas.quantization import layer_registry
from tfnas.quantization.layer_registry import register_quantizable
from tfnas.quantization.quantized_kernel import QuantizedKernel

IMAGE = (8, 8, 4)
PACKAGE = "test_quantizable"


@keras.saving.register_keras_serializable(PACKAGE)
class Shuffle(layers.Layer):
    """Shuffles the channels of groups."""

    def __init__(self, groups=2, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups

    def call(self, x):
        *sides, channels = x.shape[1:]
        x = ops.reshape(x, (-1, *sides, self.groups, channels // self.groups))
        return ops.reshape(ops.transpose(x, (0, 1, 2, 4, 3)), (-1, *sides, channels))

    def get_config(self):
        return {**super().get_config(), "groups": self.groups}


@keras.saving.register_keras_serializable(PACKAGE)
class Gate(layers.Layer):
    def call(self, x):
        return x * ops.sigmoid(x)


@keras.saving.register_keras_serializable(PACKAGE)
class QuickGelu(layers.Layer):
    def call(self, x):
        return x * ops.sigmoid(1.702 * x)


@keras.saving.register_keras_serializable(PACKAGE)
class Block(layers.Layer):
    """A residual block with inner layers, as users write them."""

    def __init__(self, filters=4, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.conv = layers.Conv2D(filters, 3, padding="same", use_bias=False, name="conv")
        self.norm = layers.BatchNormalization(name="norm")
        self.drop = layers.Dropout(0.1)

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build((*shape[:-1], self.filters))
        self.built = True

    def call(self, x, training=None):
        y = self.norm(self.conv(x), training=training)
        return ops.relu(self.drop(y, training=training) + x)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable(PACKAGE)
class Weighted(layers.Layer):
    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.gain


class OfTensorFlow(layers.Layer):
    def call(self, x):
        return tf.nn.relu(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


KINDS = {"same": Shuffle, "compute": Gate, "open": QuickGelu, "open, inner layers": Block}


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """Clears the registry after each test."""
    monkeypatch.setattr(layer_registry, "_REGISTERED", {})
    monkeypatch.setattr(tfnas, "register_quantizable", register_quantizable, raising=False)


def model_with(layer):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(IMAGE),
            layers.Conv2D(4, 3, padding="same", name="first"),
            layer,
            layers.Conv2D(3, 1, name="last"),
        ]
    )


def examples(count=200):
    return np.random.default_rng(0).normal(size=(count, *IMAGE)).astype(np.float32)


def floats_in(artifact):
    return [t.name for t in artifact.graph.tensors if t.dtype.startswith("float")]


def assert_agree(quantized, file, x):
    steps = np.abs(file.predict(x) - np.asarray(quantized(x))) / file.outputs[0].scale
    assert np.median(steps) <= 1.001
    assert np.quantile(steps, 0.99) <= 3.001


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_float_before_and_integer_after_it_is_registered(kind):
    layer, x = KINDS[kind](name="own"), examples()
    model = model_with(layer)
    before = tfnas.quantize_aware(model, data=x)
    (skipped,) = tfnas.unquantized_layers(before)
    assert (skipped.name, skipped.kind) == ("own", type(layer).__name__)
    assert skipped.reason == (
        f"no integer form of {type(layer).__name__} (tfnas.register_quantizable can give it one)"
    )
    register_quantizable(type(layer), kind.split(",")[0])
    after = tfnas.quantize_aware(model, data=x)
    assert tfnas.unquantized_layers(after) == []
    np.testing.assert_allclose(np.asarray(after(x)), np.asarray(model(x)), atol=0.1)
    file = tfnas.to_tflite(after, "int8")
    assert floats_in(file) == []
    assert_agree(after, file, x)
    float_model = tfnas.strip_quantization(after)
    np.testing.assert_allclose(np.asarray(float_model(x)), np.asarray(model(x)), atol=1e-5)


def test_a_layer_that_is_not_registered_stays_float_in_the_file():
    file = tfnas.to_tflite(tfnas.quantize_aware(model_with(QuickGelu()), data=examples()), "int8")
    assert floats_in(file) != []
    assert file.inputs[0].dtype == file.outputs[0].dtype == "int8"


@pytest.mark.parametrize("kind", ["same", "compute", "open, inner layers"])
def test_with_sixteen_bits(kind):
    register_quantizable(KINDS[kind], kind.split(",")[0])
    quantized = tfnas.quantize_aware(model_with(KINDS[kind]()), "int16x8", data=examples())
    file = tfnas.to_tflite(quantized, "int16x8")
    assert floats_in(file) == []
    assert_agree(quantized, file, examples())


def test_inner_layers_of_an_open_layer_train_and_are_saved(tmp_path):
    register_quantizable(Block, "open")
    model, x = model_with(Block(name="own")), examples(64)
    quantized = tfnas.quantize_aware(model, data=x)
    before = [np.array(w) for w in model.get_weights()]
    quantized.compile("adam", "mse", jit_compile=False)
    quantized.fit(x, np.zeros((64, 8, 8, 3)), epochs=2, verbose=0)
    kernels = [k for k in quantized.layers if isinstance(k, QuantizedKernel)]
    assert [k.layer.name for k in kernels] == ["first", "conv", "last"]
    assert (np.asarray(kernels[1].layer.kernel) != before[2]).any()
    moving = next(w for w in quantized.weights if w.path == "norm/moving_variance")
    assert (np.asarray(moving) != 1.0).all()
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    quantized.save(tmp_path / "m.keras")
    loaded = tfnas.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(np.asarray(loaded(x)), np.asarray(quantized(x)))
    assert_agree(quantized, tfnas.to_tflite(quantized, "int8"), x)


def test_an_inner_layer_is_named_by_its_path():
    register_quantizable(Block, "open")
    inputs = keras.Input(IMAGE)
    model = keras.Model(inputs, Block(name="b")(Block(name="a")(inputs)))
    spec = tfnas.QuantSpec(layers={"b/conv": "int4"})
    quantized = tfnas.quantize_aware(model, spec)
    bits = [layer.bits for layer in quantized.layers if isinstance(layer, QuantizedKernel)]
    assert bits == [8, 4]


def test_an_open_layer_that_is_used_twice_has_one_kernel():
    register_quantizable(Block, "open")
    inputs, block = keras.Input(IMAGE), Block(name="own")
    model = keras.Model(inputs, block(block(inputs)))
    quantized = tfnas.quantize_aware(model, data=examples())
    assert sum(isinstance(layer, QuantizedKernel) for layer in quantized.layers) == 1
    assert_agree(quantized, tfnas.to_tflite(quantized, "int8"), examples())


def test_a_decorator_registers_and_a_subclass_inherits():
    @register_quantizable(role="same")
    class Turned(layers.Layer):
        def call(self, x):
            return ops.transpose(x, (0, 2, 1, 3))

    class Named(Turned):
        pass

    @register_quantizable
    class Opened(layers.Layer):
        def call(self, x):
            return ops.relu(x)

    for layer in (Turned(), Named(), Opened()):
        assert tfnas.unquantized_layers(tfnas.quantize_aware(model_with(layer))) == []
    register_quantizable(Named, "float")
    (skipped,) = tfnas.unquantized_layers(tfnas.quantize_aware(model_with(Named())))
    assert skipped.reason == "Named is registered as float"
    assert register_quantizable(Named, None) is Named
    assert tfnas.unquantized_layers(tfnas.quantize_aware(model_with(Named()))) == []


def test_a_layer_of_keras_can_stay_float_too():
    register_quantizable(layers.Softmax, "float")
    quantized = tfnas.quantize_aware(model_with(layers.Softmax(name="own")))
    assert [s.name for s in tfnas.unquantized_layers(quantized)] == ["own"]


@pytest.mark.parametrize("role", ["kernel", "", 3, Shuffle])
def test_an_unknown_role_is_refused(role):
    match = r"role must be one of same, compute, open, float or None, got"
    with pytest.raises(ValueError, match=match):
        register_quantizable(Shuffle, role)
    with pytest.raises(ValueError, match=match):
        register_quantizable(role=role)
    assert layer_registry._REGISTERED == {}


@pytest.mark.parametrize("what", ["same", Shuffle(), int, lambda x: x])
def test_what_is_no_layer_class_is_refused(what):
    with pytest.raises(ValueError, match=r"layer_class must be a subclass of keras.layers.Layer"):
        register_quantizable(what)
    assert layer_registry._REGISTERED == {}


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (Weighted, r"layer 'own' of class Weighted.*must hold its weights in inner .* got 'gain'"),
        (OfTensorFlow, r"layer 'own' of class OfTensorFlow.*Keras layers and keras.ops alone, got"),
    ],
)
def test_a_layer_that_cannot_be_unfolded_is_refused(layer, match):
    register_quantizable(layer, "open")
    with pytest.raises(ValueError, match=match):
        tfnas.quantize_aware(model_with(layer(name="own")))


def test_a_registered_layer_that_is_float_in_the_file_is_named():
    register_quantizable(QuickGelu, "compute")
    quantized = tfnas.quantize_aware(model_with(QuickGelu(name="own")), data=examples())
    with pytest.raises(tfnas.ConversionError, match=r"file must hold no float tensor .*'own'"):
        tfnas.to_tflite(quantized, "int8")


@pytest.mark.parametrize("module", ["layer_registry", "quantization_schedule"])
def test_the_examples_are_true(module):
    result = doctest.testmod(importlib.import_module(f"tfnas.quantization.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
