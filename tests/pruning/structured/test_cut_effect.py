"""What a cut of channels loses stands in its report."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,)), layers.Dense(16, "relu"), layers.Dense(3)])


def test_without_data_the_report_says_that_nothing_is_trained(model):
    _, report = tfnas.prune_channels(model, 0.5)
    assert "nothing is trained yet: fine-tune the model" in str(report).replace("\n  ", " ")


def test_with_data_the_report_says_how_far_outputs_moved(model):
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    smaller, report = tfnas.prune_channels(model, 0.5, data=x)
    expected, found = model.predict(x, verbose=0), smaller.predict(x, verbose=0)
    moved = np.sqrt(np.mean((found - expected) ** 2)) / expected.std()
    same = (expected.argmax(axis=1) == found.argmax(axis=1)).mean()
    [note] = [each for each in report.notes if "outputs" in each]
    assert f"outputs on 64 examples moved by {moved:.1%} of their spread" in note
    assert f"the same in {same:.0%}" in note
    assert moved > 0.05
