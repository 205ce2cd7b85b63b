"""Channels chosen by what the outputs lose once the layers are fitted again."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.pruning.structured.channel_groups import trace
from tfnas.pruning.structured.surgeon_importance import Surgeon, _Consumer, _eliminated


def test_a_channel_that_others_replace_is_cheap_until_they_are_gone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    x = np.column_stack([x, x[:, 0] + 0.01 * rng.normal(size=400)])  # channel 3 repeats channel 0
    hessian = x.T @ x / len(x)
    weights = np.array([[1.0, 0.5, 0.1, 1.0]])
    consumer = _Consumer(np.arange(4), weights, np.linalg.inv(hessian), np.ones(1))
    scores = _eliminated([consumer], np.arange(4))
    order = np.argsort(scores, kind="stable")
    assert order[0] in (0, 3)
    assert scores[order[0]] < 1e-3
    assert set(order[1:3]) == {1, 2}
    # Removing all of them one by one removes the whole output.
    steps = np.array([0.01**2, 0.1**2, 0.5**2, 2.0**2])
    np.testing.assert_allclose(np.sort(scores), steps, rtol=0.3)


def test_costs_of_convolutions_are_those_of_exact_least_squares():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12))
    hessian = x.T @ x / len(x)
    weights = rng.normal(size=(5, 12))
    roots = np.tile(np.arange(4), 3)  # 3 positions of 4 channels
    factor = rng.random(5)
    consumer = _Consumer(roots, weights, np.linalg.inv(hessian), factor)

    def error(gone):
        kept = ~np.isin(roots, gone)
        target = x @ weights.T
        solved = np.linalg.lstsq(x[:, kept], target, rcond=None)[0]
        return float((((x[:, kept] @ solved - target) ** 2).mean(axis=0) * factor).sum())

    scores = _eliminated([consumer], np.arange(4))
    first, second = np.argsort(scores, kind="stable")[:2]
    assert scores[first] == pytest.approx(min(error([c]) for c in range(4)))
    assert scores[second] == pytest.approx(error([first, second]) - error([first]))


def test_repeated_channels_go_first_and_the_outputs_stay():
    keras.utils.set_random_seed(0)
    start = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="a")(start)
    x = layers.Conv2D(6, 3, activation="relu", name="b")(x)
    model = keras.Model(start, layers.Dense(3, name="c")(layers.Flatten()(x)))
    kernel = np.array(model.get_layer("a").kernel)
    kernel[..., 4:] = 2 * kernel[..., :4]  # large weights, of no use
    model.get_layer("a").kernel.assign(kernel)
    x = np.random.default_rng(0).normal(size=(96, 8, 8, 3)).astype("float32")
    smaller, report = tfnas.prune_channels(
        model, sizes={"a": 4}, criterion="obs", reconstruct=True, data=x
    )
    removed = report.groups[0].removed
    assert sorted(channel % 4 for channel in removed) == [0, 1, 2, 3]
    expected = np.asarray(model(x))
    assert float(np.square(np.asarray(smaller(x)) - expected).mean() / expected.var()) < 0.01


def test_channels_of_layers_that_can_not_be_fitted_go_last():
    start = keras.Input((6, 4))
    x = layers.Conv1D(4, 1, name="first")(start)
    x = layers.LSTM(4, return_sequences=True, name="lstm")(x)
    model = keras.Model(start, layers.Dense(2)(layers.Dense(6, name="last")(x)))
    x = np.random.default_rng(0).normal(size=(64, 6, 4)).astype("float32")
    dependencies = trace(model)
    scores = Surgeon(x).prepared(model, dependencies).scores
    of = {group.makers[0]: scores[group.removable] for group in dependencies.groups}
    assert min(of["first"].min(), of["lstm"].min()) > 1e5 * of["last"].max()


def test_errors():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(2)])
    with pytest.raises(ValueError, match="data must hold inputs for criterion 'obs', got None"):
        tfnas.prune_channels(model, 0.5, criterion="obs")
    with pytest.raises(ValueError, match="Surgeon must be prepared"):
        Surgeon(np.zeros((4, 4)))(None)
