"""tfnas.register_layer: one call opens a class to all techniques; an unregistered one is named."""

import pathlib
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfnas
from tfnas.graph.registered_layers import register_layer
from tfnas.quantization.quantize_aware import quantize_aware_partly

GUIDE = pathlib.Path(__file__).parents[2] / "docs" / "your_own_layer.md"
PACKAGE = "test_registered"
pytestmark = pytest.mark.usefixtures("registry")


@keras.saving.register_keras_serializable(PACKAGE)
class Turned(layers.Layer):
    """A dense layer whose kernel is (outputs, inputs), with a factor for each output."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(self.units, input_shape[-1]), name="w")
        self.factor = self.add_weight(shape=(self.units,), initializer="ones", name="factor")

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.w)) * self.factor

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(PACKAGE)
class Scaled(layers.Layer):
    def build(self, input_shape):
        self.gamma = self.add_weight(shape=input_shape[-1:], initializer="ones", name="gamma")

    def call(self, x):
        return x * self.gamma


class Mixed(layers.Layer):
    """Adds its inputs."""

    def call(self, a, b):
        return a + b


CHANNELS = {"consumes": {"w": 1}, "produces": {"w": 0, "factor": 0}, "size": "units"}


def product(layer, input_shape, output_shape):
    return layer.w.shape[0] * layer.w.shape[1]


def turned_model():
    keras.utils.set_random_seed(0)
    parts = [Turned(12, name="a"), layers.ReLU(), Turned(10, name="b"), layers.Dense(3, name="c")]
    return keras.Sequential([keras.Input((6,)), *parts])


def test_the_guide_runs():
    code = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile("\n".join(code), str(GUIDE), "exec"), {"__name__": "docs"})


def test_an_unregistered_layer_is_named_in_every_report():
    model = turned_model()
    names, hint = {"a", "b"}, "tfnas.register_layer can "
    _, pruned = tfnas.prune(model, 0.5)
    _, clustered = tfnas.cluster(model, 4)
    for report in (pruned, clustered):
        assert {s.name for s in report.skipped if hint in s.reason} == names
    _, channels = tfnas.prune_channels(
        keras.Sequential(
            [keras.Input((6,)), layers.Dense(8, name="d"), Turned(4), layers.Dense(2)]
        ),
        sizes={"d": 8},
    )
    assert hint in " ".join(group.reason for group in channels.groups)
    assert set(tfnas.profile(model).uncounted) == names
    unquantized = tfnas.unquantized_layers(quantize_aware_partly(model))
    assert {s.name for s in unquantized if hint in s.reason} >= names


def test_kernels_have_the_axis_of_their_outputs():
    register_layer(Turned, kernels={"w": 0})
    pruned, _ = tfnas.prune(turned_model(), 0.5, granularity="filter")
    assert [(np.array(pruned.get_layer(n).w) == 0).all(1).sum() for n in "ab"] == [6, 5]
    clustered, _ = tfnas.cluster(turned_model(), 2, granularity="channel")
    values = np.array(clustered.get_layer("a").w)
    assert [len(np.unique(row)) for row in values] == [2] * 12


def test_channels_that_are_removed_compute_as_if_they_were_masked():
    register_layer(Turned, channels=CHANNELS, macs=product)
    model, x = turned_model(), np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    smaller, report = tfnas.prune_channels(model, target_macs=0.5)
    found = tfnas.profile(smaller)
    assert report.macs == (tfnas.profile(model).macs, found.macs)
    assert found.macs <= 0.5 * tfnas.profile(model).macs
    for change in report.groups:
        for index in change.removed:
            rows = np.array(model.get_layer(change.name).factor)
            rows[index] = 0.0
            model.get_layer(change.name).factor.assign(rows)
    np.testing.assert_allclose(
        smaller.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5
    )


def test_channels_pass_through_weights_and_sums():
    register_layer(Scaled, channels={"passes": {"gamma": 0}}, macs=0)
    register_layer(Mixed, channels="same", macs=0)
    inputs = keras.Input((6,))
    a = Scaled(name="s")(layers.Dense(8, name="a")(inputs))
    b = layers.Dense(8, name="b")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(Mixed()(a, b)))
    smaller, report = tfnas.prune_channels(model, target_macs=0.5)
    assert report.groups[0].makers == ("a", "b")
    assert smaller.get_layer("s").gamma.shape == (4,)
    assert tfnas.profile(smaller).macs == 2 * 6 * 4 + 4 * 3


def test_other_costs_than_those_of_the_kernel_are_taken_to_stay():
    register_layer(
        Turned, channels=CHANNELS, macs=lambda own, x, y: 2 * own.w.shape[0] * own.w.shape[1]
    )
    model = turned_model()
    with pytest.raises(ValueError, match="target_macs can't be met"):
        tfnas.prune_channels(model, target_macs=0.3)
    smaller, _ = tfnas.prune_channels(model, target_params=0.5)
    assert tfnas.profile(smaller).macs < tfnas.profile(model).macs


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"kernels": ["v"]}, "kernels of register_layer must name weights .*'v'; 'a' has .*, w"),
        ({"kernels": ["factor"]}, "at least 2 dimensions, got 'factor' of shape"),
        ({"channels": {"passes": {"v": 0}}}, "must fit Turned, got channels that pass"),
        ({"channels": {**CHANNELS, "size": "width"}}, "'width', which is None"),
        (
            {"channels": {**CHANNELS, "consumes": {"w": 0}, "produces": {"w": 1, "factor": 0}}},
            "got axis 0 of 'w'",
        ),
        ({"channels": {**CHANNELS, "produces": {"w": 0}}}, "got none for 'factor' of Turned: with"),
        ({"macs": lambda *_: 0.5}, "macs of register_layer must return a whole number .* got 0.5"),
    ],
)
def test_a_registration_that_does_not_fit_the_layer_is_refused(arguments, match):
    register_layer(Turned, **arguments)
    model = turned_model()
    technique = tfnas.prune if "kernels" in arguments else tfnas.prune_channels
    with pytest.raises(ValueError, match=match):
        technique(model, 0.5)


def test_an_integer_form_of_no_weight_is_refused():
    register_layer(Turned, integer_form={"v": None})
    with pytest.raises(ValueError, match=r"integer_form of register_layer must name .*got 'v'"):
        tfnas.quantize_aware(turned_model())


def test_a_count_of_macs_takes_a_layer_and_shapes():
    with pytest.raises(
        ValueError, match=r"macs must take \(layer, input shape, output shape\), got"
    ):
        register_layer(Turned, macs=lambda layer: 3)


def test_a_layer_with_weights_is_quantized_and_saved(tmp_path):
    register_layer(Scaled, integer_form={"gamma": None})
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8), Scaled(name="s"), layers.Dense(3)]
    )
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    quantized = tfnas.quantize_aware(model, data=x)
    assert tfnas.unquantized_layers(quantized) == []
    quantized.save(tmp_path / "m.keras")
    loaded = tfnas.load_model(tmp_path / "m.keras")
    expected = quantized.predict(x, verbose=0)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
    file = tfnas.to_tflite(loaded, "int8")
    assert {t.dtype for t in file.graph.tensors} <= {"int8", "int32"}
    steps = np.abs(file.predict(x, reference=True) - expected) / file.outputs[0].scale
    assert np.median(steps) <= 1.001
    assert steps.max() <= 3.001
    plain = tfnas.strip_quantization(loaded)
    assert isinstance(plain.get_layer("s"), Scaled)
    left = tfnas.quantize_aware(model, tfnas.QuantSpec(layers={"s": "float32"}))
    assert [s.name for s in tfnas.unquantized_layers(left)] == ["s"]


def test_an_open_layer_is_open_to_all_techniques():
    @register_layer(integer_form="open")
    class Pair(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.first, self.last = layers.Dense(8, name="first"), layers.Dense(4, name="last")

        def build(self, input_shape):
            self.first.build(input_shape)
            self.last.build((*input_shape[:-1], 8))

        def call(self, x):
            return self.last(self.first(x))

    model = keras.Sequential([keras.Input((6,)), Pair(name="p"), layers.Dense(3)])
    assert tfnas.profile(model).macs == 48 + 32 + 12
    smaller, _ = tfnas.prune_channels(model, target_macs=0.5)
    assert tfnas.profile(smaller).macs <= 46
    factorized, _ = tfnas.factorize(model, rank={"p/first": 2})
    assert tfnas.profile(factorized).macs == 2 * (6 + 8) + 32 + 12


class Sigmoid(layers.Layer):
    """Computes something else than the operation of Keras of that name."""

    def call(self, x):
        return 3 * x - 1


def test_a_class_with_the_name_of_an_operation_is_not_taken_for_it():
    inputs = keras.Input((6,))
    outputs = layers.Dense(3, name="b")(Sigmoid(name="mine")(layers.Dense(5, name="a")(inputs)))
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    with pytest.raises(ValueError, match=r"no integer form of \w+\.Sigmoid"):
        tfnas.quantize_aware(model, data=x)
    trainable = quantize_aware_partly(model, data=x)
    np.testing.assert_allclose(trainable.predict(x), model.predict(x), atol=0.5)
