"""Layer inputs and BatchNormalization statistics, compared with direct computations."""

import keras
import numpy as np
import pytest
from keras import layers

from tfnas.graph.batchnorm import (
    input_batches,
    layers_with_foreign_statistics,
    recalibrate_batchnorm,
)
from tfnas.graph.traversal import visit


@keras.saving.register_keras_serializable("test_calibration")
class Subclassed(keras.Model):
    """Two Dense layers, each with a BatchNormalization after it; one pair is nested."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(4, use_bias=False)
        self.norm = layers.BatchNormalization()
        self.block = keras.Sequential([layers.Dense(3), layers.BatchNormalization()])

    def call(self, inputs, training=None):
        hidden = self.norm(self.first(inputs), training=training)
        return self.block(keras.ops.relu(hidden), training=training)


def examples(count=70, seed=0):
    return np.random.default_rng(seed).normal(1.0, 2.0, (count, 6)).astype("float32")


def functional(dropout=0.5):
    inner = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, name="inner_dense"), layers.BatchNormalization()],
        name="inner",
    )
    start = keras.Input((6,))
    x = layers.BatchNormalization(name="first")(layers.Dense(5, use_bias=False, name="d")(start))
    x = layers.Dropout(dropout)(layers.ReLU()(x))
    return keras.Model(start, layers.Dense(2, name="last")(inner(x)))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 6), "float32"))
    return model


def norms(model):
    return [x for x in model._flatten_layers() if isinstance(x, layers.BatchNormalization)]


def batch_inputs(model, layer, x):
    """Records the inputs of a layer, with all examples in one batch."""
    seen = []
    call = layer.call

    def recording(inputs, *args, **kwargs):
        seen.append(np.array(inputs))
        return call(inputs, *args, **kwargs)

    layer.call = recording
    model(x, training=False)
    del layer.call
    return seen


@pytest.mark.parametrize("build", [functional, subclassed])
@pytest.mark.parametrize("batch_size", [1, 32, 500])
def test_statistics_are_those_of_all_examples_in_the_recalibrated_network(build, batch_size):
    model, x = build(), examples()
    weights = [np.array(v) for v in model.trainable_variables]
    assert recalibrate_batchnorm(model, x, batch_size) is model
    assert len(norms(model)) == 2
    for norm in norms(model):  # in the final network: each was measured after recalibrated ones
        inputs = np.concatenate(batch_inputs(model, norm, x))
        np.testing.assert_allclose(norm.moving_mean, inputs.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.moving_variance, inputs.var(axis=0), rtol=1e-4, atol=1e-6)
    for variable, before in zip(model.trainable_variables, weights, strict=True):
        np.testing.assert_array_equal(variable, before)


def test_images_with_channels_first_axis_and_a_shared_layer():
    start = keras.Input((2, 4, 4))
    norm = layers.BatchNormalization(axis=1)
    model = keras.Model(start, norm(keras.ops.abs(norm(start))))
    x = np.random.default_rng(0).normal(2.0, 3.0, (20, 2, 4, 4)).astype("float32")
    inputs = np.concatenate(batch_inputs(model, norm, x))  # of both uses, before the change
    recalibrate_batchnorm(model, x, 8)
    np.testing.assert_allclose(norm.moving_mean, inputs.mean(axis=(0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, inputs.var(axis=(0, 2, 3)), rtol=1e-4)


def test_the_variance_is_accurate_with_a_large_mean():
    model = keras.Sequential([keras.Input((3,)), layers.BatchNormalization()])
    x = (1000 + np.random.default_rng(0).normal(size=(300, 3))).astype("float32")
    recalibrate_batchnorm(model, x)
    np.testing.assert_allclose(model.layers[0].moving_variance, x.astype(float).var(axis=0), 1e-3)


def test_all_data_formats_give_the_same():
    import tensorflow as tf

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 7

        def __getitem__(self, index):
            return x[index * 10 : index * 10 + 10], y[index * 10 : index * 10 + 10]

    x, y = examples(), np.zeros(70, int)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(9)
    statistics = []
    model = functional()
    first = model.get_weights()
    for data in (x, (x, y), dataset, Batches()):
        model.set_weights(first)
        statistics.append(recalibrate_batchnorm(model, data, 16).get_weights())
    for other in statistics[1:]:
        for one, two in zip(statistics[0], other, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_flags_and_call_methods_are_unchanged():
    model = functional()
    norms(model)[0].trainable = False
    before = [layer.trainable for layer in model._flatten_layers()]
    recalibrate_batchnorm(model, examples())
    assert [layer.trainable for layer in model._flatten_layers()] == before
    assert not any("call" in layer.__dict__ for layer in model._flatten_layers())


def test_a_model_with_two_inputs_takes_a_dictionary():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    norm = layers.BatchNormalization()
    model = keras.Model({"a": a, "b": b}, norm(layers.Add()([a, b])))
    x = examples()
    recalibrate_batchnorm(model, {"a": x[:, :3], "b": x[:, 3:]})
    np.testing.assert_allclose(norm.moving_mean, (x[:, :3] + x[:, 3:]).mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("build", [functional, subclassed])
def test_nan_leaves_the_model_unchanged(build):
    model, x = build(), examples()
    before = [np.array(v) for v in model.variables]
    x[50, 2] = np.nan
    with pytest.raises(ValueError, match="data must hold finite numbers"):
        recalibrate_batchnorm(model, x, 20)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_invalid_arguments_are_named():
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="model must hold a BatchNormalization layer, got none"):
        recalibrate_batchnorm(plain, examples())
    with pytest.raises(ValueError, match="data must hold at least one example"):
        recalibrate_batchnorm(functional(), examples()[:0])
    with pytest.raises(ValueError, match=r"data must fit the inputs .*got a batch of \(64, 5\)"):
        recalibrate_batchnorm(functional(), examples()[:, :5])
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        recalibrate_batchnorm(functional(), examples(), 0)


@pytest.mark.parametrize("build", [functional, subclassed])
def test_inputs_reflect_changes_to_earlier_layers(build):
    model, x = build(), examples()
    dense = [layer for layer in model._flatten_layers() if isinstance(layer, layers.Dense)]
    batches = input_batches(x, 32)
    seen = []
    for place in visit(model, batches, dense[::-1]):  # the order of the request does not matter
        seen.append(place)
        place.layer.kernel.assign(np.array(place.layer.kernel) * 2)
    assert {place.layer for place in seen} == set(dense)
    for place in seen:
        expected = np.concatenate(batch_inputs(model, place.layer, x))
        np.testing.assert_allclose(np.concatenate(place.inputs), expected, rtol=1e-4, atol=1e-5)


def test_the_successor_is_the_layer_that_takes_the_output():
    model = functional()
    dense = [layer for layer in model._flatten_layers() if isinstance(layer, layers.Dense)]
    successors = {
        place.layer.name: place.successor
        for place in visit(model, [examples()], [*dense, *norms(model)])
    }
    assert successors["d"] is model.get_layer("first")
    assert successors["inner_dense"] is model.get_layer("inner").layers[-1]
    assert successors["first"] is None
    assert successors["last"] is None


def normalized(gamma=1.0, mean=0.0, variance=1.0):
    """A Dense layer and a BatchNormalization with given statistics."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.BatchNormalization()])
    norm = model.layers[-1]
    norm.set_weights([np.full(8, v) for v in (gamma, 0.0, mean, variance)])
    return model


def test_statistics_of_folded_normalization_are_pointed_out(caplog):
    model, x = normalized(), examples(seed=3) * 4
    assert list(layers_with_foreign_statistics(model, x)) == [model.layers[-1].name]
    before = model.predict(x, verbose=0)
    recalibrate_batchnorm(model, x)
    assert "1 of 1 BatchNormalization layers" in caplog.text
    assert "mean 0 and variance 1 in all channels" in caplog.text
    assert "normalization was folded" in caplog.text
    assert np.abs(model.predict(x, verbose=0) - before).max() > 1  # as the warning says


def test_data_in_another_range_is_pointed_out(caplog):
    model, x = normalized(), examples(seed=3)
    recalibrate_batchnorm(model, x)
    caplog.clear()
    recalibrate_batchnorm(model, x * 0.9)  # as compression moves them
    assert not caplog.text
    recalibrate_batchnorm(model, x * 255)
    assert "had others; the data's mean is" in caplog.text


def test_identity_statistics_that_fit_the_data_are_no_reason_to_warn(caplog):
    x = np.random.default_rng(0).normal(size=(500, 4)).astype("float32")
    recalibrate_batchnorm(keras.Sequential([keras.Input((4,)), layers.BatchNormalization()]), x)
    assert not caplog.text
