"""What every technique must do with a model, alone and in the engine. The model is tiny."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.technique_context import Context
from tfnas.compression.technique_row import Step, run_row
from tfnas.compression.techniques.registry import technique as registered
from tfnas.compression.techniques.registry import techniques
from tfnas.data.examples import ArrayParts, Examples
from tfnas.tasks.image_classes import ImageClasses

# Name -> model, further arguments -> (new model, report).
TECHNIQUES = {
    "prune": functools.partial(tfnas.prune, sparsity=0.5),
    "prune at random": functools.partial(tfnas.prune, sparsity=0.5, criterion="random", seed=3),
    "prune_channels": functools.partial(tfnas.prune_channels, ratio=0.5),
    "cluster": functools.partial(tfnas.cluster, clusters=4),
    "factorize": functools.partial(tfnas.factorize, rank=0.5),
}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Conv2D(16, 3, name="middle"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="head"),
        ],
        name="tiny",
    )
    model(np.ones((1, 8, 8, 3), "float32"))
    return model


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).random((4, 8, 8, 3), dtype=np.float32)


@pytest.fixture(scope="module", params=TECHNIQUES)
def technique(request):
    return TECHNIQUES[request.param]


@pytest.fixture(scope="module")
def applied(technique, model):
    """(Weights and config of the model before, new model, report)."""
    before = [weights.copy() for weights in model.get_weights()], model.get_config()
    return before, *technique(model)


def outputs(model, x):
    return np.asarray(model(x, training=False))


def test_the_model_itself_stays_as_it_is(applied, model):
    (weights, config), changed, _ = applied
    assert changed is not model
    assert model.get_config() == config
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    theirs = {id(variable) for variable in model.variables}
    assert not [variable.path for variable in changed.variables if id(variable) in theirs]


def test_it_changes_the_model_and_keeps_inputs_and_outputs(applied, model, x):
    _, changed, _ = applied
    assert changed.input_shape == model.input_shape
    assert changed.output_shape == model.output_shape
    found = outputs(changed, x)
    assert np.isfinite(found).all()
    assert not np.array_equal(found, outputs(model, x))


def test_the_new_model_is_plain_keras_and_comes_back_from_its_file(applied, x, tmp_path):
    _, changed, _ = applied
    assert {type(layer).__module__.split(".")[0] for layer in changed.layers} == {"keras"}
    changed.save(tmp_path / "model.keras")
    for load in (keras.models.load_model, tfnas.load_model):
        np.testing.assert_array_equal(
            outputs(load(tmp_path / "model.keras"), x), outputs(changed, x)
        )


def test_it_does_the_same_again_whatever_the_global_seed(applied, technique, model):
    _, changed, report = applied
    keras.utils.set_random_seed(99)
    again, report_again = technique(model)
    assert str(report_again) == str(report)
    for first, second in zip(changed.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_report_is_a_table_that_names_the_layers(applied):
    _, _, report = applied
    lines = str(report).splitlines()
    assert set(lines[1]) == {"-", " "}
    assert all(any(name in line for line in lines) for name in ("stem", "middle", "head"))
    assert all(line == line.rstrip() for line in lines)


def test_an_excluded_layer_keeps_its_kernel(technique, model):
    changed, _ = technique(model, exclude=("middle",))
    kernels = [layer.kernel.numpy() for layer in changed.layers if layer.name == "middle"]
    [kept] = kernels
    original = model.get_layer("middle").kernel.numpy()
    # Channels that go before it take their rows of the kernel along.
    assert kept.shape[-1] == original.shape[-1]
    if kept.shape == original.shape:
        np.testing.assert_array_equal(kept, original)


def test_a_layer_to_exclude_that_is_not_there_is_named(technique, model):
    with pytest.raises(ValueError, match=r"exclude .*'midle'"):
        technique(model, exclude=("midle",))


@pytest.mark.parametrize("wrong", [None, 3, "model.keras"])
def test_what_is_no_model_is_refused(technique, wrong):
    with pytest.raises((TypeError, ValueError), match="model"):
        technique(wrong)


# --- the same as rows of the engine, with training


AMOUNTS = {"cluster": 4, "qat": 8, "train": 1, "ptq": 4}


@pytest.fixture(scope="module", params=[each.name for each in techniques()])
def run_alone(request, model):
    """(Technique, weights of the model before, what it did)."""
    own = registered(request.param)
    rng = np.random.default_rng(0)
    examples = Examples(
        rng.random((40, 8, 8, 3), dtype=np.float32), rng.integers(0, 10, 40).astype("int64")
    )
    data = ArrayParts("noise", examples, examples, examples)
    settings = FineTuneSettings(epochs=1, batch_size=20)
    before = [weights.copy() for weights in model.get_weights()]
    amount = AMOUNTS.get(own.name, 0.5)
    step = Step(own.name, own.for_amount(amount, brief=True))
    [outcome] = run_row(model, [step], Context(model, ImageClasses(), data, settings))
    return own, before, outcome


def test_a_row_leaves_the_model_as_it_is(run_alone, model):
    _, before, outcome = run_alone
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    theirs = {id(variable) for variable in model.variables}
    assert not [v.path for v in outcome.model.variables if id(v) in theirs]


def test_a_row_says_what_it_did(run_alone, x):
    own, _, outcome = run_alone
    assert outcome.technique == own.name
    assert isinstance(outcome.settings, own.settings)
    assert outcome.training.epochs == 1
    assert outcome.training.learning_rate == pytest.approx(1e-3 * own.learning_rate_scale)
    assert np.isfinite(outputs(outcome.model, x)).all()
    for report in filter(None, outcome.reports):
        lines = str(report).splitlines()
        assert all(any(name in line for line in lines) for name in ("stem", "middle", "head"))


def test_the_model_of_a_row_comes_back_from_its_file(run_alone, x, tmp_path):
    own, _, outcome = run_alone
    for name, each in own.models(outcome).items():
        each.save(tmp_path / name)
        np.testing.assert_array_equal(
            outputs(tfnas.load_model(tmp_path / name), x), outputs(each, x)
        )
