"""Channel pruning as a technique, without epochs."""

import keras
import numpy as np
import pytest

from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.technique_context import Context
from tfnas.compression.techniques.channel_pruning import (
    ChannelPruningTechnique,
    PruneChannelsSettings,
)
from tfnas.data.data_split import DataSplit
from tfnas.tasks.image_classes import ImageClasses


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(12, 3, activation="relu", name="a"),
        keras.layers.Conv2D(12, 3, activation="relu", name="b"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(2, activation="softmax", name="c"),
    ]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


@pytest.fixture
def context(model, tmp_path):
    x = np.random.default_rng(0).random((80, 8, 8, 1)).astype("float32")
    y = np.arange(80) % 2
    data = DataSplit("few", x, y, x, y, x, y, ("a", "b"))
    settings = FineTuneSettings(epochs=0)
    return Context(model, ImageClasses(), data, settings, checkpoints=tmp_path)


def applied(model, context, **settings):
    found = ChannelPruningTechnique().apply(
        model, PruneChannelsSettings(sizes={"a": 6}, **settings), context
    )
    return found.model.get_weights()


def test_without_epochs_layers_are_fitted_and_again_after_a_kill(model, context):
    fitted = applied(model, context)
    again = applied(model, context)  # reads which channels the first one removed
    for one, two in zip(fitted, again, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)
    cut = applied(model, context, reconstruct=False)
    assert [w.shape for w in cut] == [w.shape for w in fitted]
    assert np.abs(cut[2] - fitted[2]).max() > 1e-3  # the kernel that reads them
    own = {tuple(row) for row in np.array(model.get_layer("b").kernel).reshape(-1, 12)}
    assert {tuple(row) for row in cut[2].reshape(-1, 12)} <= own


def test_with_epochs_training_does_it(model, context):
    trained = context.replace(settings=FineTuneSettings(epochs=1))
    weights = applied(model, trained)
    own = {tuple(row) for row in np.array(model.get_layer("b").kernel).reshape(-1, 12)}
    assert {tuple(row) for row in weights[2].reshape(-1, 12)} <= own
