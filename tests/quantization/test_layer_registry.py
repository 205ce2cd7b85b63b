"""tfnas.register_layer: custom layers in integer files."""

import doctest
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from slow_cases import slow_but

import tfnas
from tfnas.graph import registered_layers
from tfnas.graph.registered_layers import register_layer
from tfnas.quantization.quantize_aware import quantize_aware_partly
from tfnas.quantization.quantized_kernel import QuantizedKernel

IMAGE = (8, 8, 4)
PACKAGE = "test_quantizable"
pytestmark = pytest.mark.usefixtures("registry")


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


@pytest.mark.parametrize("kind", slow_but([*KINDS], "compute", "open, inner layers"))
def test_a_layer_is_float_before_and_integer_after_it_is_registered(kind):
    layer, x = KINDS[kind](name="own"), examples()
    model = model_with(layer)
    before = quantize_aware_partly(model, data=x)
    reason = f"no integer form of {type(layer).__name__} (tfnas.register_layer can give it one)"
    found = [(each.name, each.kind, each.reason) for each in tfnas.unquantized_layers(before)]
    # A layer that holds layers is opened without it.
    assert found == ([] if "inner" in kind else [("own", type(layer).__name__, reason)])
    register_layer(type(layer), integer_form=kind.split(",")[0])
    after = tfnas.quantize_aware(model, data=x)
    assert tfnas.unquantized_layers(after) == []
    np.testing.assert_allclose(np.asarray(after(x)), np.asarray(model(x)), atol=0.1)
    file = tfnas.to_tflite(after, "int8")
    assert floats_in(file) == []
    assert_agree(after, file, x)
    float_model = tfnas.strip_quantization(after)
    np.testing.assert_allclose(np.asarray(float_model(x)), np.asarray(model(x)), atol=1e-5)


def test_a_layer_that_is_not_registered_stays_float_in_the_file():
    aware = quantize_aware_partly(model_with(QuickGelu()), data=examples())
    file = tfnas.to_tflite(aware, "int8")
    assert floats_in(file) != []
    assert file.inputs[0].dtype == file.outputs[0].dtype == "int8"


@pytest.mark.parametrize("kind", slow_but(["same", "compute", "open, inner layers"], "same"))
def test_with_sixteen_bits(kind):
    register_layer(KINDS[kind], integer_form=kind.split(",")[0])
    quantized = tfnas.quantize_aware(model_with(KINDS[kind]()), "int16x8", data=examples())
    file = tfnas.to_tflite(quantized, "int16x8")
    assert floats_in(file) == []
    assert_agree(quantized, file, examples())


@pytest.mark.slow  # the kinds above have inner layers
def test_inner_layers_of_an_open_layer_train_and_are_saved(tmp_path):
    register_layer(Block, integer_form="open")
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
    register_layer(Block, integer_form="open")
    inputs = keras.Input(IMAGE)
    model = keras.Model(inputs, Block(name="b")(Block(name="a")(inputs)))
    spec = tfnas.QuantSpec(layers={"b/conv": "int4"})
    quantized = tfnas.quantize_aware(model, spec)
    bits = [layer.bits for layer in quantized.layers if isinstance(layer, QuantizedKernel)]
    assert bits == [8, 4]


def test_an_open_layer_that_is_used_twice_has_one_kernel():
    register_layer(Block, integer_form="open")
    inputs, block = keras.Input(IMAGE), Block(name="own")
    model = keras.Model(inputs, block(block(inputs)))
    quantized = tfnas.quantize_aware(model, data=examples())
    assert sum(isinstance(layer, QuantizedKernel) for layer in quantized.layers) == 1
    assert_agree(quantized, tfnas.to_tflite(quantized, "int8"), examples())


def test_a_decorator_registers_and_a_subclass_inherits():
    @register_layer(integer_form="same")
    class Turned(layers.Layer):
        def call(self, x):
            return ops.transpose(x, (0, 2, 1, 3))

    class Named(Turned):
        pass

    @register_layer(integer_form="open")
    class Opened(layers.Layer):
        def call(self, x):
            return ops.relu(x)

    for layer in (Turned(), Named(), Opened()):
        assert tfnas.unquantized_layers(tfnas.quantize_aware(model_with(layer))) == []
    register_layer(Named, integer_form="float")
    (skipped,) = tfnas.unquantized_layers(quantize_aware_partly(model_with(Named())))
    assert skipped.reason == "Named is registered as float"
    registered_layers.unregister_layer(Named)
    assert tfnas.unquantized_layers(tfnas.quantize_aware(model_with(Named()))) == []


def test_a_layer_of_keras_can_stay_float_too():
    register_layer(layers.Softmax, integer_form="float")
    quantized = quantize_aware_partly(model_with(layers.Softmax(name="own")))
    assert [s.name for s in tfnas.unquantized_layers(quantized)] == ["own"]


@pytest.mark.parametrize("what", ["same", Shuffle(), int, lambda x: x])
def test_what_is_no_layer_class_is_refused(what):
    before = dict(registered_layers._REGISTERED)
    with pytest.raises(ValueError, match=r"layer_class must be a subclass of keras.layers.Layer"):
        register_layer(what, integer_form="same")
    assert before == registered_layers._REGISTERED


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({}, "must get kernels, channels, macs or integer_form, got none"),
        ({"integer_form": "kernel"}, "integer_form must be 'same', 'compute', .* got 'kernel'"),
        ({"integer_form": {}}, "integer_form must be .* or map kernels to axes, got {}"),
        ({"integer_form": {"w": 0}}, "integer_form must map 'w' to -1.* or to None .* got 0"),
        ({"integer_form": {"w": "last"}}, "integer_form must map 'w' to an axis or None, got"),
        ({"integer_form": "open", "macs": 0}, "must be left out with integer_form 'open'"),
        ({"kernels": 3}, "kernels must be names of attributes, got 3"),
        ({"kernels": ["a b"]}, "kernels must be names of attributes, got 'a b'"),
        ({"kernels": {"w": None}}, "kernels must map 'w' to an axis, got None"),
        ({"macs": -1}, "macs must be a function or a whole number from 0 on, got -1"),
        ({"macs": 0.5}, "macs must be a function or a whole number from 0 on, got 0.5"),
        ({"channels": "all"}, "channels must be 'same', 'locked' or a mapping .* got 'all'"),
        ({"channels": {"takes": {}}}, "channels must have the keys consumes, .* got 'takes'"),
        ({"channels": {"passes": ["w"]}}, r"channels\['passes'\] must map attributes to axes"),
        ({"channels": {"consumes": {"w": 0}}}, "'consumes' and 'produces' together"),
        (
            {"channels": {"consumes": {"w": 0}, "produces": {"w": 0}, "size": "n"}},
            "two axes of 'w', got one for both sides",
        ),
        (
            {"channels": {"consumes": {"w": 0}, "produces": {"w": 1}}},
            "channels must have 'size' with 'produces', got none",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        register_layer(Shuffle, **arguments)
    with pytest.raises(ValueError, match="one of Keras takes integer_form='float' alone"):
        register_layer(layers.Dense, macs=0)
    assert Shuffle not in registered_layers._REGISTERED


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (Weighted, r"layer 'own' of class Weighted.*must hold its weights in inner .* got 'gain'"),
        (OfTensorFlow, r"layer 'own' of class OfTensorFlow.*Keras layers and keras.ops alone, got"),
    ],
)
def test_a_layer_that_cannot_be_unfolded_is_refused(layer, match):
    register_layer(layer, integer_form="open")
    with pytest.raises(ValueError, match=match):
        tfnas.quantize_aware(model_with(layer(name="own")))


def test_a_registered_layer_that_is_float_in_the_file_is_named():
    register_layer(QuickGelu, integer_form="compute")
    quantized = tfnas.quantize_aware(model_with(QuickGelu(name="own")), data=examples())
    with pytest.raises(tfnas.ConversionError, match=r"file must hold no float tensor .*'own'"):
        tfnas.to_tflite(quantized, "int8")


@pytest.mark.parametrize(
    "path",
    slow_but(
        ["graph.registered_layers", "quantization.quantization_schedule"],
        "graph.registered_layers",
    ),
)
def test_the_examples_are_true(path):
    result = doctest.testmod(importlib.import_module(f"tfnas.{path}"))
    assert result.attempted > 0
    assert result.failed == 0
