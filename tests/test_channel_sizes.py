"""`prune_channels(sizes=...)`: as many channels of a layer as the caller says."""

import keras
import numpy as np
import pytest

import tfnas

LAYERS = keras.layers


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    stem = LAYERS.Conv2D(12, 3, padding="same", activation="relu", name="stem")(inputs)
    inner = LAYERS.Conv2D(10, 3, padding="same", activation="relu", name="inner")(stem)
    outer = LAYERS.Conv2D(12, 3, padding="same", name="outer")(inner)
    x = LAYERS.GlobalAveragePooling2D()(LAYERS.Add()([stem, outer]))
    return keras.Model(inputs, LAYERS.Dense(4, activation="softmax", name="head")(x))


def test_groups_get_their_sizes_and_others_stay(model):
    smaller, report = tfnas.prune_channels(model, sizes={"inner": 3, "outer": 7})
    widths = {n: smaller.get_layer(n).filters for n in ("stem", "inner", "outer")}
    assert widths == {"stem": 7, "inner": 3, "outer": 7}  # what is added hangs together
    assert [(g.before, g.after) for g in report.groups] == [(12, 7), (10, 3), (4, 4)]


def test_what_stays_is_worth_most(model):
    smaller, _ = tfnas.prune_channels(model, sizes={"inner": 4}, criterion="l2")
    makes, takes = (np.asarray(model.get_layer(n).kernel) for n in ("inner", "outer"))
    made = np.linalg.norm(makes.reshape(-1, 10), axis=0)
    taken = np.linalg.norm(np.moveaxis(takes, 2, 0).reshape(10, -1), axis=1)
    best = np.sort(np.argsort(made / made.mean() + taken / taken.mean())[-4:])
    np.testing.assert_array_equal(smaller.get_layer("inner").kernel, makes[..., best])


def test_all_sizes_as_they_are_change_nothing(model):
    same, report = tfnas.prune_channels(model, sizes={"inner": 10})
    assert report.macs[0] == report.macs[1]
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(same(x), model(x), atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({}, "sizes must map layers to numbers of channels, got {}"),
        (3, "sizes must map layers to numbers of channels, got 3"),
        ({"none": 3}, "sizes must name layers that make channels, got 'none'; there are head"),
        ({"inner": 0}, "from 1 to what a layer has, got 0 for 'inner' of 10"),
        ({"inner": 11}, "got 11 for 'inner' of 10"),
        ({"inner": 2.0}, "must be whole numbers"),
        ({"inner": True}, "must be whole numbers"),
        ({"head": 3}, "sizes must leave 'head' at least 4 channels, got 3: softmax"),
    ],
)
def test_bad_sizes_are_told(model, sizes, told):
    with pytest.raises(ValueError, match=told):
        tfnas.prune_channels(model, sizes=sizes)


def test_sizes_are_a_target_of_their_own(model):
    told = r"exactly one of .* sizes must be given, got ratio, sizes"
    with pytest.raises(ValueError, match=told):
        tfnas.prune_channels(model, 0.5, sizes={"inner": 3})
