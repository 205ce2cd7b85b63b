"""Importance as an object: users' own, and those of tfnas."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.pruning.structured.channel_groups import trace
from tfnas.pruning.structured.channel_importance import Norm, Random, Scale, Taylor, scores


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, padding="same", name="a")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Add(name="sum")([x, layers.Conv2D(8, 1, name="b")(inputs)])
    x = layers.Conv2D(6, 3, name="c")(layers.ReLU()(x))
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def test_a_group_has_the_slices_of_its_weights(model):
    seen = {}

    def importance(group):
        seen[group.name] = group
        return np.ones(group.channels)

    tfnas.prune_channels(model, 0.3, criterion=importance)
    assert set(seen) == {"a and 1 more", "c"}
    group = seen["a and 1 more"]
    assert group.makers == ("a", "b")
    found = {(s.weight.split("/")[-2:][0], s.role, s.enters) for s in group.slices}
    assert {("a", "kernel", False), ("b", "kernel", False), ("c", "kernel", True)} <= found
    assert ("norm", "scale", False) in found
    flat = next(s for s in seen["c"].slices if s.weight.split("/")[-2] == "head")
    assert flat.values.shape == (96, 2)
    counts = flat.per_channel(np.ones(96))
    np.testing.assert_array_equal(counts, np.full(6, 16))


def test_the_channels_of_lowest_score_go(model):
    wanted = np.array([5, 1, 6, 2, 7, 0, 4, 3])

    class Ranked:
        def __call__(self, group):
            return wanted if group.channels == 8 else 100 * np.ones(group.channels)

    smaller, report = tfnas.prune_channels(model, sizes={"a": 5}, criterion=Ranked())
    assert report.groups[0].removed == (1, 3, 5)
    kept = [0, 2, 4, 6, 7]
    np.testing.assert_array_equal(
        smaller.get_layer("a").kernel, np.array(model.get_layer("a").kernel)[..., kept]
    )


def test_comparable_scores_are_not_divided_by_the_mean_of_a_group(model):
    dependencies = trace(model)

    def squares(group):
        return np.full(group.channels, float(group.channels))

    equal = scores(dependencies, squares)
    squares.comparable = True
    apart = scores(dependencies, squares)
    a, c = (group.removable for group in dependencies.groups[:2])
    np.testing.assert_allclose(equal[np.concatenate([a, c])], 1)
    np.testing.assert_allclose((apart[a][0], apart[c][0]), (1, 6 / 8))


@pytest.mark.parametrize(
    ("name", "importance"),
    [("l1", Norm(1)), ("l2", Norm(2)), ("scale", Scale()), ("random", Random(3))],
)
def test_names_are_short_for_objects(model, name, importance):
    _, by_name = tfnas.prune_channels(model, 0.4, criterion=name, seed=3)
    _, by_object = tfnas.prune_channels(model, 0.4, criterion=importance)
    assert by_name == by_object
    assert by_name.groups[0].removed


def test_taylor_is_an_object_too(model):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(8, 6, 6, 3)).astype("float32"), rng.normal(size=(8, 2))
    _, by_name = tfnas.prune_channels(model, 0.4, criterion="taylor", data=data, loss="mse")
    _, by_object = tfnas.prune_channels(model, 0.4, criterion=Taylor(data, "mse"))
    without = {"notes": ()}  # how far outputs moved is measured on `data` alone
    assert dataclasses.replace(by_name, **without) == dataclasses.replace(by_object, **without)
    with pytest.raises(ValueError, match="Taylor must be prepared for a model"):
        scores(trace(model), Taylor(data, "mse"))


def test_norms_are_relative_to_the_kernel_and_averaged(model):
    dependencies = trace(model)
    found = scores(dependencies, Norm(2))
    group = dependencies.groups[0]
    rows = [np.array(model.get_layer(name).kernel).reshape(-1, 8).T for name in ("a", "b")]
    rows.append(np.moveaxis(np.array(model.get_layer("c").kernel), 2, 0).reshape(8, -1))
    norms = [np.linalg.norm(row, axis=1) for row in rows]
    expected = np.mean([norm / norm.mean() for norm in norms], axis=0)
    np.testing.assert_allclose(found[group.removable], expected / expected.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("criterion", "error"),
    [
        (lambda group: np.ones(3), r"criterion must return one score for each of the 8 channels"),
        (lambda group: -np.ones(group.channels), "finite scores of at least 0, got -1.0"),
        (lambda group: np.full(group.channels, np.nan), "finite scores of at least 0, got nan"),
        (Norm, "criterion must be one of l1, l2, .* or a function of a group"),
        (None, "criterion must be one of l1, l2, .* or a function of a group"),
    ],
)
def test_bad_importances_raise(model, criterion, error):
    with pytest.raises(ValueError, match=error):
        tfnas.prune_channels(model, 0.3, criterion=criterion)


def test_an_own_importance_is_part_of_an_interrupted_run(model, tmp_path):
    def mine(group):
        return np.arange(group.channels)

    def run(criterion):
        return tfnas.ChannelPruning(
            model, 0.7, steps=1, fit=lambda *_: None, folder=tmp_path, criterion=criterion
        ).run()

    first, _ = run(mine)
    again, _ = run(mine)
    assert again.count_params() == first.count_params()
    with pytest.raises(ValueError, match="a run with another options"):
        run("l2")
