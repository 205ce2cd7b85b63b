"""Names of outputs: those that a user's losses have, also of what is made of a model."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 8)).astype("float32")
Y = {"kind": RNG.integers(0, 3, 16), "probs": X[:, :1] > 0, "inside": X[:, :2]}
LOSSES = {"kind": "sparse_categorical_crossentropy", "probs": "binary_crossentropy"}
LOSSES["inside"] = "mse"


@pytest.fixture
def model():
    """Three outputs in a list: of a layer, of a function behind one, and of a model inside."""
    inputs = keras.Input((8,))
    x = layers.Dense(8, "relu", name="trunk")(inputs)
    kind = layers.Dense(3, "softmax", name="kind")(x)
    probs = layers.Activation("sigmoid", name="probs")(layers.Dense(1, name="logits")(x))
    deep = keras.Sequential([keras.Input((8,)), layers.Dense(2, name="deep")], name="inside")
    return keras.Model(inputs, [kind, probs, deep(x)])


def assert_trains_by_names(made):
    made.compile("sgd", LOSSES, metrics={"kind": ["accuracy"]}, run_eagerly=True)
    history = made.fit(X, Y, batch_size=16, verbose=0).history
    assert {"kind_loss", "probs_loss", "inside_loss", "kind_accuracy"} <= set(history)


@pytest.mark.parametrize(
    "technique",
    [
        lambda model: tfnas.factorize(model, rank=1)[0],
        lambda model: tfnas.prune_channels(model, 0.3)[0],
        lambda model: tfnas.strip_quantization(tfnas.quantize_aware(model)),
        lambda model: tfnas.prune(tfnas.factorize(model, rank=1)[0], 0.5)[0],
    ],
    ids=["factorize", "prune_channels", "strip_quantization", "prune a factorized one"],
)
def test_what_is_made_of_a_model_has_the_names_of_its_outputs(model, technique):
    assert_trains_by_names(technique(model))


def test_a_loaded_quantization_aware_model_has_the_names_of_the_float_model(model, tmp_path):
    trainable = tfnas.quantize_aware(model, data=X)
    assert_trains_by_names(trainable)
    trainable.save(tmp_path / "aware.keras")
    assert_trains_by_names(tfnas.load_model(tmp_path / "aware.keras"))


def test_a_saved_float_model_has_the_layers_of_its_outputs_again(model, tmp_path):
    plain = tfnas.strip_quantization(tfnas.quantize_aware(model, data=X))
    plain.save(tmp_path / "plain.keras")
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    assert loaded.output_names[:2] == ["kind", "probs"]
    assert loaded.get_layer("kind").activation is keras.activations.softmax
    for one, other in zip(loaded(X), model(X), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_loaded_student_has_the_names_of_the_float_model(model, tmp_path):
    distiller = tfnas.Distiller(model, tfnas.quantize_aware(model, data=X))
    distiller.save(tmp_path / "distiller.keras")
    loaded = tfnas.load_model(tmp_path / "distiller.keras")
    assert loaded.student.output_names == ["kind", "probs", "inside"]


def test_what_uses_a_quantization_aware_model_keeps_its_own_names(model, tmp_path):
    trainable = tfnas.quantize_aware(model, data=X)
    inputs = keras.Input((8,))
    kind, probs, _ = trainable(inputs)
    outer = keras.Model(inputs, [layers.Rescaling(2.0, name="twice")(kind), probs])
    outer.save(tmp_path / "outer.keras")
    assert tfnas.load_model(tmp_path / "outer.keras").output_names == outer.output_names


def test_the_last_factor_of_an_output_is_saved_with_its_name(tmp_path):
    inputs = keras.Input((8,))
    heads = [layers.Dense(8, name=name)(inputs) for name in ("low", "high")]
    smaller, _ = tfnas.factorize(keras.Model(inputs, heads), rank=1)
    smaller.save(tmp_path / "factors.keras")
    loaded = keras.models.load_model(tmp_path / "factors.keras")
    assert loaded.output_names == ["low", "high"]
    names = [layer.name for layer in loaded.layers[1:]]
    assert sorted(names) == ["high", "high_first", "low", "low_first"]
