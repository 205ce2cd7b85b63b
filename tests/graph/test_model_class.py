"""Techniques keep a model's own training, or refuse the model."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.graph.functional import clone
from tfnas.graph.model_class import own_objects, own_steps, plain
from tfnas.quantization.quantize_aware import quantize_aware_partly


class OwnStep(Exception):
    """A model's own training step ran."""


class Plain(keras.Model):
    """A class without training of its own."""


class Own(keras.Model):
    def train_step(self, data):
        raise OwnStep


class OwnLoss(keras.Model):
    def compute_loss(self, *args, **kwargs):
        raise OwnStep


class Weighted(Own):
    """Has a further argument, a metric and a weight outside of the graph."""

    def __init__(self, inputs, outputs, weight=0.5, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self.weight = weight
        self.tracker = keras.metrics.Mean(name="own")
        self.scale = self.add_weight(shape=(2,), initializer="zeros", name="scale")

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


class FromConfig(Weighted):
    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "weight": float(config["weight"])})


class AnyArguments(Own):
    """Has a layer outside of the graph, of other weights in each instance."""

    made = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.judge = layers.Dense(3)
        self.judge.build((None, 2))
        self.judge.bias.assign(np.full(3, float(AnyArguments.made)))
        AnyArguments.made += 1


class OwnSequential(keras.Sequential):
    def train_step(self, data):
        raise OwnStep


class Forgetful(Own):
    """Its configuration lacks an argument."""

    def __init__(self, inputs, outputs, weight=0.5):
        super().__init__(inputs, outputs)


class MakesItsGraph(Own):
    def __init__(self, units=8):
        super().__init__(*graph(units))

    def get_config(self):
        return {"units": 8}


class ChangesItsGraph(Own):
    def __init__(self, inputs, outputs, **kwargs):
        super().__init__(inputs, layers.Softmax()(outputs), **kwargs)


class Grows(Own):
    """Later copies have other weights outside of the graph."""

    made = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        Grows.made += 1
        self.scale = self.add_weight(shape=(Grows.made,), name="scale")


def graph(units=8):
    inputs = keras.Input((16,))
    x = layers.Dense(units, "relu")(inputs)
    return inputs, layers.Dense(2)(x)


KEPT = {
    "train_step": lambda: Own(*graph()),
    "compute_loss": lambda: OwnLoss(*graph()),
    "further arguments": lambda: Weighted(*graph(), weight=0.25),
    "from_config": lambda: FromConfig(*graph(), weight=0.25),
    "*args": lambda: AnyArguments(*graph()),
    "Sequential": lambda: OwnSequential(
        [keras.Input((16,)), layers.Dense(8, "relu"), layers.Dense(2)]
    ),
}
REFUSED = {
    "an argument is missing": (lambda: Forgetful(*graph()), "does not return 'weight'"),
    "it makes its graph": (MakesItsGraph, "does not take inputs and outputs"),
    "it changes its graph": (lambda: ChangesItsGraph(*graph()), "changes the outputs"),
    "other weights": (lambda: Grows(*graph()), "weights outside of its graph"),
}
REBUILDS = {
    "quantize_aware": lambda model: tfnas.quantize_aware(model, "int8"),
    "strip_quantization": lambda model: tfnas.strip_quantization(quantize_aware_partly(model)),
    "factorize": lambda model: tfnas.factorize(model, target_macs=0.6)[0],
    "prune_channels": lambda model: tfnas.prune_channels(model, target_macs=0.6)[0],
    "prune": lambda model: tfnas.prune(model, 0.5)[0],
    "cluster": lambda model: tfnas.cluster(model, 8)[0],
    "fold_batchnorm": lambda model: tfnas.fold_batchnorm(model)[0],
    "clone": clone,
}
each_rebuild = pytest.mark.parametrize("rebuild", REBUILDS.values(), ids=REBUILDS)


def kept_cases():
    """(class, rebuild): each class in one, each rebuild of one; the others are slow."""
    for make in KEPT:
        for rebuild in REBUILDS:
            fast = rebuild == "prune" or make == "further arguments"
            marks = () if fast else pytest.mark.slow
            yield pytest.param(make, rebuild, marks=marks)


@pytest.mark.parametrize(("make", "rebuild"), list(kept_cases()))
def test_own_training_is_kept(make, rebuild):
    make, rebuild = KEPT[make], REBUILDS[rebuild]
    model = make()
    if isinstance(model, Weighted):
        model.scale.assign([1.0, 2.0])
    rebuilt = rebuild(model)
    assert type(rebuilt) is type(model)
    assert rebuilt is not model
    assert rebuilt.name == model.name
    assert not rebuilt.compiled
    rebuilt.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(OwnStep):
        rebuilt.fit(np.zeros((4, 16)), np.zeros((4, 2)), verbose=0)
    if isinstance(model, Weighted):
        assert rebuilt.weight == 0.25
        assert rebuilt.tracker is not model.tracker
        np.testing.assert_array_equal(rebuilt.scale, [1.0, 2.0])
    if isinstance(model, AnyArguments):
        np.testing.assert_array_equal(rebuilt.judge.bias, model.judge.bias)


@pytest.mark.parametrize("rebuild", [REBUILDS["quantize_aware"], clone], ids=["rebuild", "clone"])
@pytest.mark.parametrize(("make", "why"), REFUSED.values(), ids=REFUSED)
def test_own_training_that_would_be_lost_is_refused(make, why, rebuild):
    model = make()
    kind = type(model).__name__
    with pytest.raises(ValueError, match=f"the train_step of its class {kind}: .*{why}.*") as error:
        rebuild(model)
    assert "keras.Model(model.inputs, model.outputs)" in str(error.value)
    assert f"Give {kind} a constructor" in str(error.value)
    rebuild(keras.Model(model.inputs, model.outputs))  # the way out


@each_rebuild
def test_a_class_that_trains_as_keras_does_is_no_obstacle(rebuild):
    assert own_steps(rebuild(Plain(*graph()))) == ()


def test_a_sequential_model_that_is_no_chain_any_more_is_refused():
    model = OwnSequential([keras.Input((16,)), layers.Dense(8), layers.Dense(2)])
    inputs = keras.Input((16,))
    outputs = layers.Add()([layers.Dense(2)(inputs), layers.Dense(2)(inputs)])
    from tfnas.graph.model_class import in_class_of

    with pytest.raises(ValueError, match="no longer are a chain"):
        in_class_of(model, inputs, outputs)


@pytest.mark.parametrize("mode", ["float32", "int8", "int8x4"])
def test_a_model_whose_class_is_refused_converts(mode):
    model = Forgetful(*graph())
    x = np.random.default_rng(0).normal(size=(50, 16)).astype("float32")
    file = tfnas.to_tflite(model, mode, None if mode == "float32" else x)
    scale = np.abs(model.predict(x, verbose=0)).max()
    assert np.abs(file.predict(x) - model.predict(x, verbose=0)).max() < 0.5 * scale
    assert type(plain(model)) is not Forgetful


def test_the_class_is_refused_where_another_library_would_lose_it():
    with pytest.raises(ValueError, match="class Own with its own train_step: the conversion"):
        tfnas.legacy.to_tf_keras(Own(*graph()))


FACTOR = 3.0


class Scaled(layers.Layer):
    """Is not registered, and has a weight."""

    def __init__(self, start=2.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.start))

    def call(self, x):
        return self.factor * x

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {**super().get_config(), "start": self.start}


def bent(x):
    """An activation that is not registered."""
    return keras.ops.relu(x) * 0.5


@pytest.fixture(scope="module")
def custom():
    """Lambdas of one name that use a global value, and layers that are not registered."""
    inner = keras.Sequential(
        [keras.Input((4, 3)), layers.Lambda(lambda v: v * FACTOR, name="shared"), Scaled()],
        name="inner",
    )
    inputs = keras.Input((4, 3))
    x = layers.Lambda(lambda v: v + FACTOR, name="shared")(inputs)
    x = layers.TimeDistributed(Scaled(3.0))(inner(x))
    x = layers.Dense(16, activation=bent)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize("name", ["clone", "strip_quantization", "fold_batchnorm", "prune"])
def test_layers_of_the_users_own_are_copied_as_they_are(name, custom):
    x = np.random.default_rng(0).normal(size=(8, 4, 3)).astype("float32")
    copy = {**REBUILDS, "prune": lambda m: tfnas.prune(m, 0.0)[0]}[name](custom)
    np.testing.assert_allclose(
        copy.predict(x, verbose=0), custom.predict(x, verbose=0), rtol=1e-4, atol=1e-4
    )


def test_own_objects_are_what_keras_does_not_have(custom):
    assert set(own_objects(custom)) >= {"Scaled", "bent"}
    assert own_objects(custom)["Scaled"] is Scaled
    assert own_objects(keras.Sequential([keras.Input((4,)), layers.Dense(2, "relu")])) == {}
