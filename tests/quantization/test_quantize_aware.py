"""tfnas.quantize_aware: every kind of layer, and that a model and its file agree."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from aware_checks import (
    assert_agree,
    assert_near,
    case,
    floats_in,
    predict,
    quantized,
    randomize,
    sorted_weights,
)
from aware_kinds import ALL, IMAGE, SAVED, VECTOR, L, conv, examples, inner_model
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.graph.functional import refresh_normalization
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.quantized_kernel import QuantizedKernel

# --- every kind of layer


@pytest.mark.parametrize("kind", ALL)
def test_the_quantization_aware_model_computes_nearly_the_same(kind):
    c = case(kind)
    assert tfnas.unquantized_layers(c.trainable) == []
    assert_near(predict(c.trainable, c.x), predict(c.model, c.x), 0.05, c.names)


@pytest.mark.parametrize("kind", ALL)
def test_the_file_holds_integers_only_and_agrees_with_the_model(kind):
    c = case(kind)
    if isinstance(c.file, Exception):
        raise c.file
    assert floats_in(c.file) == []
    assert {t.dtype for t in (*c.file.inputs, *c.file.outputs)} == {"int8"}
    assert c.file.origin["quantization_aware"] is True
    assert c.file.origin["calibration_examples"] == 0
    assert_agree(c.trainable, c.file, c.x, c.names)


@pytest.mark.parametrize("kind", ALL)
def test_strip_gives_back_the_model_and_its_weights(kind):
    c = case(kind)
    float_model = tfnas.strip_quantization(c.trainable)
    assert fake_quants(float_model) == []
    for a, b in zip(predict(float_model, c.x), predict(c.model, c.x), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * max(1.0, np.abs(b).max()))
    assert sorted_weights(float_model) == sorted_weights(c.model)


@pytest.mark.parametrize("kind", ALL)
def test_the_original_is_unchanged(kind):
    c = case(kind)
    for a, b in zip(c.model.get_weights(), c.before, strict=True):
        np.testing.assert_array_equal(a, b)
    again = keras.Model.from_config(c.model.get_config())
    again.set_weights(c.before)
    refresh_normalization(again)
    for a, b in zip(predict(again, c.x[:5]), predict(c.model, c.x[:5]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("kind", SAVED)
def test_saving_and_loading_changes_nothing(kind, tmp_path):
    c = case(kind)
    c.trainable.save(tmp_path / "m.keras")
    loaded = tfnas.load_model(tmp_path / "m.keras")
    for a, b in zip(predict(loaded, c.x), predict(c.trainable, c.x), strict=True):
        np.testing.assert_array_equal(a, b)
    assert tfnas.unquantized_layers(loaded) == []
    assert [type(layer) for layer in loaded.layers] == [type(i) for i in c.trainable.layers]


# --- models of other forms


def two_inputs_two_outputs():
    zebra, apple = keras.Input((4,), name="zebra"), keras.Input((3,), name="apple")
    joined = L.Concatenate()([L.Dense(8, "relu")(zebra), L.Dense(5)(apple)])
    return keras.Model([zebra, apple], [L.Dense(5)(joined), L.Dense(2, "sigmoid")(joined)])


def dictionaries():
    zebra, apple = keras.Input((4,), name="zebra"), keras.Input((3,), name="apple")
    joined = L.Concatenate()([zebra, apple])
    outputs = {"one": L.Dense(5)(joined), "another": L.Dense(2)(joined)}
    return keras.Model({"zebra": zebra, "apple": apple}, outputs)


def output_that_is_used_inside():
    zebra, apple = keras.Input((4,), name="zebra"), keras.Input((3,), name="apple")
    first = L.Dense(5)(zebra)
    return keras.Model([zebra, apple], [first, L.Dense(4)(L.Concatenate()([first, apple]))])


@pytest.mark.parametrize(
    "build",
    slow_but(
        [two_inputs_two_outputs, dictionaries, output_that_is_used_inside],
        *(dictionaries, output_that_is_used_inside),
    ),
)
def test_several_inputs_and_outputs(build):
    keras.utils.set_random_seed(2)
    model = randomize(build())
    x = {"zebra": 3 * examples((4,)), "apple": examples((3,), seed=1)}
    if not isinstance(model.input, dict):
        x = [x["zebra"], x["apple"]]
    c = quantized(model, x)
    # TensorFlow's converter refuses models with a dictionary of outputs, float ones too.
    in_a_file = not isinstance(model.output, dict)
    assert c.trainable.input_shape == model.input_shape
    assert c.trainable.output_shape == model.output_shape
    assert_near(predict(c.trainable, x), predict(model, x), 0.05)
    if in_a_file:
        assert floats_in(c.file) == []
        assert_agree(c.trainable, c.file, x, tail=3.05)  # 3.02 seen, between 3 and 4 steps
    float_model = tfnas.strip_quantization(c.trainable)
    assert_near(predict(float_model, x), predict(model, x), 1e-6)
    assert float_model.output_shape == model.output_shape


def test_sequential_models_nested_in_each_other():
    keras.utils.set_random_seed(3)
    stem = keras.Sequential([L.Conv2D(4, 3, name="c"), L.BatchNormalization(), L.ReLU()], name="s")
    model = keras.Sequential(
        [keras.Input(IMAGE), stem, L.Flatten(), L.Dense(4, activation="softmax", name="d")]
    )
    c = quantized(randomize(model), examples(IMAGE))
    assert_near(predict(c.trainable, c.x), predict(model, c.x), 0.05)
    assert floats_in(c.file) == []
    assert_agree(c.trainable, c.file, c.x)
    assert sorted_weights(tfnas.strip_quantization(c.trainable)) == sorted_weights(model)


def test_names_that_occur_twice_in_nested_models():
    def block(name):
        inputs = keras.Input(VECTOR)
        return keras.Model(
            inputs, L.Dense(6, name="conv")(L.Dense(6, name="deep")(inputs)), name=name
        )

    inputs = keras.Input(VECTOR)
    x = block("b")(block("a")(inputs))
    model = keras.Model(inputs, L.Dense(3, name="conv_2")(L.Dense(4, name="deep_relu")(x)))
    trainable = tfnas.quantize_aware(model, data=examples(VECTOR))
    assert_near(predict(trainable, examples(VECTOR)), predict(model, examples(VECTOR)), 0.05)


def test_layers_that_do_not_train_still_do_not():
    inputs = keras.Input(IMAGE)
    base = inner_model("base")
    base.trainable = False
    model = keras.Model(inputs, L.Dense(2, name="head")(L.Flatten()(base(inputs))))
    trainable = tfnas.quantize_aware(model, data=examples(IMAGE, 20))
    assert [w.shape for w in trainable.trainable_weights] == [
        w.shape for w in model.trainable_weights
    ]
    assert [w.shape for w in tfnas.strip_quantization(trainable).trainable_weights] == [
        (192, 2),
        (2,),
    ]


def test_images_of_bytes():
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(inputs, conv(L.Rescaling(1 / 255)(inputs)))
    x = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3)).astype(np.uint8)
    trainable = tfnas.quantize_aware(model, data=x)
    assert_near(predict(trainable, x), predict(model, x), 0.05)


def test_a_file_of_floats_is_that_of_the_stripped_model():
    c = case("kernels of vectors")
    for mode in ("float32", "float16", "dynamic"):
        assert tfnas.to_tflite(c.trainable, mode) == tfnas.to_tflite(
            tfnas.strip_quantization(c.trainable), mode
        )


# --- the layers themselves


@pytest.mark.parametrize(
    "layer",
    [
        FakeQuant(4, "percentile", 0.9, 99.0, relu=6.0, name="r"),
        FakeQuant(fixed=(0.0, 0.5), after_float=True, frozen=True, active=False, name="f"),
        QuantizedKernel(L.Dense(3, name="inner"), 4, name="q"),
    ],
)
def test_layers_are_rebuilt_from_their_configuration(layer):
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_a_kernel_of_zeros_and_constant_inputs_are_quantized():
    model = keras.Sequential([keras.Input(VECTOR), L.Dense(3), L.ReLU(), L.Dense(2)])
    model.layers[0].kernel.assign(np.zeros((6, 3)))
    trainable = tfnas.quantize_aware(model, data=np.zeros((10, 6)))
    np.testing.assert_array_equal(predict(trainable, np.zeros((4, 6)))[0], np.zeros((4, 2)))
    file = tfnas.to_tflite(trainable, "int8")
    np.testing.assert_allclose(file.predict(np.zeros((4, 6))), np.zeros((4, 2)), atol=1e-6)


def test_rounding_passes_the_gradient_inside_the_range_only():

    layer = FakeQuant(8, fixed=(-1.0, 1.0))
    x = tf.constant([-2.0, -0.5, 0.3, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1, 1, 0])


@pytest.mark.parametrize("mode", slow_but(["int8", "int16x8"], "int16x8"))
def test_a_channel_of_tiny_weights_keeps_its_bias(mode):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, use_bias=False, name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    model = keras.Model(inputs, keras.layers.ReLU(6.0)(x))
    kernel = np.array(model.get_layer("conv").kernel)
    kernel[..., 2] *= 1e-9
    model.get_layer("conv").kernel.assign(kernel)
    model.get_layer("norm").beta.assign(np.linspace(0.5, 3.0, 6))
    images = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
    file = tfnas.to_tflite(tfnas.quantize_aware(model, mode, data=images), mode)
    found = file.predict(images)[..., 2]
    np.testing.assert_allclose(found, 1.5, atol=max(1.5 * file.outputs[0].scale, 1e-3))


def test_masks_reach_the_layers_behind():
    x = np.array([[3, 1, 0, 0], [2, 4, 1, 0]])
    inputs = keras.Input((4,))
    hidden = layers.Embedding(5, 3, mask_zero=True)(inputs)
    hidden = layers.Dense(3, name="each_step")(hidden)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(hidden))
    trainable = tfnas.quantize_aware(model, "int8x4", data=x)
    # The mean over all steps, masked ones too, is another by far.
    np.testing.assert_allclose(trainable(x), model(x), atol=0.05)
