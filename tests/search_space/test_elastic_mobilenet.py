"""Members of an elastic network compute what their plain models compute."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfnas
from tfnas.search_space.elastic import ElasticSpace, Statistics

KINDS = ("inverted_residual", "fused_inverted_residual")


@pytest.fixture(scope="module")
def space():
    stages = [
        tfnas.StageChoices((8, 16), (1, 2), 1, (*KINDS, "identity"), (3, 5), (1, 2)),
        tfnas.StageChoices((16, 24), (1,), 2, ("inverted_residual",), (3,), (2,)),
        tfnas.StageChoices((16,), (1,), 1, ("fused_inverted_residual", "identity"), (1, 3), (2,)),
    ]
    return tfnas.MobileNetV2Space(
        (8, 10, 1),
        3,
        stages=stages,
        width_multipliers=(0.5, 1.0),
        resolutions=(6, 8),
        fixed=tfnas.FixedLayers(stem_filters=16, head_filters=16, dropout=0.5),
    )


class Traced:
    """The graphs of an elastic network, with the number of their traces."""

    def __init__(self, space):
        self.network, self.traces = space.elastic_network(seed=1), []
        signature = [tf.TensorSpec((None, 8, 10, 1)), tf.TensorSpec([None], tf.int32)]

        def graph(function):
            def counted(images, member):
                self.traces.append(function.__name__)
                return function(images, member)

            return tf.function(counted, input_signature=signature, autograph=False)

        def measure(images, member):
            return self.network.logits(images, member, Statistics.MEASURE)

        def infer(images, member):
            return self.network.logits(images, member, Statistics.MEASURED)

        def gradients(images, member):
            logits = self.network.logits(images, member, Statistics.BATCH)
            loss = tf.reduce_mean(tf.square(logits))
            values = [variable.value for variable in self.network.trainable_variables]
            return loss, tf.gradients(loss, values)

        self.measure, self.infer, self.gradients = graph(measure), graph(infer), graph(gradients)


@pytest.fixture(scope="module")
def traced(space):
    return Traced(space)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (12, 8, 10, 1)).astype("float32")


def members(space, count=4):
    rng = np.random.default_rng(3)
    return [space.largest(rng), space.smallest(rng), *(space.sample(rng) for _ in range(count))]


def plain(space, traced, arch):
    model = space.build(arch)
    traced.network.transfer(arch, model)
    return keras.Model(model.input, model.get_layer("logits").output)


def test_outputs_are_those_of_plain_models(space, traced, images):
    for arch in members(space):
        traced.network.forget_statistics()
        member = traced.network.member(arch)
        for part in (images[:6], 0.5 * images[6:]):
            traced.measure(part, member)
        found = traced.infer(images, member).numpy()
        expected = plain(space, traced, arch)(images, training=False).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert traced.traces.count("measure") == traced.traces.count("infer") == 1


def test_statistics_are_those_of_all_examples(space, traced, images):
    arch = space.largest(np.random.default_rng(0))
    traced.network.forget_statistics()
    for part in (images[:6], 2.0 * images[6:]):
        traced.measure(part, traced.network.member(arch))
    model = space.build(arch)
    traced.network.transfer(arch, model)
    together = np.concatenate([images[:6], 2.0 * images[6:]])
    stem = keras.Model(model.input, model.get_layer("stem").output)(together).numpy()
    normalization = model.get_layer("stem_bn")
    mean, variance = stem.mean((0, 1, 2)), stem.var((0, 1, 2))
    np.testing.assert_allclose(np.array(normalization.moving_mean), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.array(normalization.moving_variance), variance, rtol=1e-3)


def test_gradients_are_those_of_plain_models(space, traced, images):
    for arch in members(space, 1):
        model = plain(space, traced, arch)
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(images, training=True)))
        expected = tape.gradient(loss, [v.value for v in model.trainable_variables])
        own_loss, found = traced.gradients(images, traced.network.member(arch))
        np.testing.assert_allclose(float(own_loss), float(loss), rtol=1e-5)
        # A member's gradient is a part of the whole one, which is 0 elsewhere.
        squares = [sum(float(tf.reduce_sum(g * g)) for g in each) for each in (found, expected)]
        np.testing.assert_allclose(*squares, rtol=1e-3)
    assert traced.traces.count("gradients") == 1


def test_largest_and_smallest(space):
    rng = np.random.default_rng(0)
    largest, smallest = space.largest(rng), space.smallest(rng)
    assert largest.width_multiplier == 1.0
    assert largest.working_resolution == (8, 10)
    assert [stage.filters for stage in largest.stages] == [16, 24, 16]
    assert largest.stages[0].repeats == 2
    assert "identity" not in {stage.kind for stage in largest.stages}
    assert [stage.kind for stage in smallest.stages] == [
        "identity",
        "inverted_residual",
        "identity",
    ]
    assert {space.largest(rng).stages[0].kind for _ in range(20)} == set(KINDS)
    assert largest in space
    assert smallest in space


def test_seeds_decide_the_weights(space):
    first, same, other = (space.elastic_network(seed) for seed in (0, 0, 1))
    pairs = zip(first.trainable_variables, same.trainable_variables, strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    assert not np.array_equal(first.trainable_variables[0], other.trainable_variables[0])


def test_dropout_is_drawn_from_its_seed(space, traced, images):
    member = tf.constant(traced.network.member(space.smallest(np.random.default_rng(0))))

    @tf.function(autograph=False)
    def logits(member, seed):
        return traced.network.logits(images, member, Statistics.BATCH, seed)

    first, same, other = (logits(member, tf.constant([0, seed])).numpy() for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_the_space_is_elastic(space):
    assert isinstance(space, ElasticSpace)
