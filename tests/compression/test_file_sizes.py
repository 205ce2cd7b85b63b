"""Sizes of files before anything is trained for them, of real models, and where a plan lands."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.compression.budget import Budget
from tfnas.compression.choice import best_for_budget
from tfnas.compression.device_costs import Target
from tfnas.compression.effort import EFFORTS
from tfnas.compression.file_sizes import untrained_size
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.known_file import KnownFile
from tfnas.compression.plan_settings import PlanSettings
from tfnas.compression.planner import first_state, next_step
from tfnas.compression.progress import Progress
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.technique_context import Context
from tfnas.compression.techniques.channel_sizes import equal_sizes
from tfnas.data.data_split import DataSplit
from tfnas.tasks.image_classes import ImageClasses


class Told(Progress):
    def __init__(self):
        self.phases = []

    def phase(self, text):
        self.phases.append(text)

    def epoch_ended(self, epoch, epochs):
        raise AssertionError("nothing may be trained for a size")


@pytest.fixture(scope="module")
def context():
    """A keyword spotter's shape: several separable layers of the same width."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="first")(x)
    for number in range(3):
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name=f"deep{number}")(x)
        x = layers.Conv2D(32, 1, activation="relu", name=f"wide{number}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x))
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (96, 8, 8, 2), dtype="uint8"), np.arange(96) % 4
    parts = [(x[start::3], y[start::3]) for start in range(3)]
    split = DataSplit("noise", *(each for part in parts for each in part), ("a", "b", "c", "d"))
    settings = FineTuneSettings(epochs=3)
    return Context(model, ImageClasses(), split, settings, Told())


def size_of(context, folder, recipe):
    recipe = dataclasses.replace(recipe, untrained=True)
    return untrained_size(recipe, context, folder, Target())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("job")


def test_a_size_is_kept_for_a_job_that_was_killed(context, folder):
    recipe = Recipe((RecipeStep("prune_channels", 1.0, 0.5),), "int8")
    found = size_of(context, folder, recipe)
    assert found.recipe.untrained
    assert not found.recipe.trains
    assert np.isnan(found.costs.drop)
    assert np.isnan(found.costs.latency)
    assert found.costs.macs < 0.6
    context.progress.phases.clear()
    again = size_of(context, folder, recipe)
    assert again.costs.bytes == found.costs.bytes
    assert [text[:2] for text in context.progress.phases] == ["  "]  # read, not computed
    whole = size_of(context, folder, Recipe((), "int8")).costs
    assert whole.macs == 1.0
    assert whole.bytes == (
        tfnas.to_tflite(context.original, "int8", context.calibration()).minified().size
    )
    assert 0.5 * whole.bytes < found.costs.bytes < 0.9 * whole.bytes


def test_a_technique_that_refuses_the_model_has_no_size(context, folder):
    recipe = Recipe((RecipeStep("prune_channels", 1.0, 0.0001),), "int8")
    assert size_of(context, folder, recipe) is None
    assert "not possible" in context.progress.phases[-1]
    assert size_of(context, folder, recipe) is None


def test_layers_of_equal_widths_stay_equal(context):
    sizes = equal_sizes(context.original, None, 0.5)
    assert len(set(sizes.values())) == 1
    assert len(sizes) >= 3
    stricter = equal_sizes(context.original, 0.2, 0.5)
    assert all(stricter[name] < size for name, size in sizes.items())
    _, report = tfnas.prune_channels(context.original, sizes=sizes)
    assert report.parameters[1] <= 0.5 * report.parameters[0]


def test_equal_widths_take_fewer_bytes_for_as_many_weights(context, folder):
    step = RecipeStep("prune_channels", 1.0, 0.5)
    unequal = size_of(context, folder, Recipe((step,), "int8"))
    equal = size_of(context, folder, Recipe((dataclasses.replace(step, equal=True),), "int8"))
    assert equal.costs.bytes < unequal.costs.bytes


@pytest.mark.parametrize(
    ("fraction", "integers"), slow_but([(0.75, True), (0.9, False)], (0.9, False))
)
def test_a_plan_lands_under_a_limit_on_bytes(context, folder, fraction, integers):
    """With the sizes of real files, after training for int8 or not; what they lose is made up."""
    whole = size_of(context, folder, Recipe((), "int8"))
    weights = sum(
        int(np.prod(weight.shape))
        for layer in context.original.layers
        for weight in layer.weights
        if len(weight.shape) > 1
    )
    limit = int(fraction * whole.costs.bytes)
    budget = Budget(max_drop=2.0, max_bytes=limit)
    plan = PlanSettings(("int8",), integers=integers, weights=weights, sized=True)
    trained = []

    def outcome(recipe):
        size = size_of(context, folder, recipe)
        if size is None or recipe.untrained:
            return size
        lost = 0.1 + 1.5 * bool(recipe.steps)
        costs = dataclasses.replace(size.costs, drop=lost, latency=0.5)
        trained.append(KnownFile(recipe, costs))
        return trained[-1]

    state, recipe = next_step(first_state(budget, EFFORTS["normal"], plan), None)
    while recipe is not None:
        state, recipe = next_step(state, outcome(recipe))
    pruned = [file for file in trained if file.recipe.steps]
    assert any(file.recipe.aware for file in pruned) is integers
    assert 0.95 * limit < max(file.costs.bytes for file in pruned) <= limit
    assert best_for_budget(trained, budget) in pruned
