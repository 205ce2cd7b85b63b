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
        ({"stem": 5, "outer": 6}, "sizes must be the same for 'stem' and 'outer', .* got 5 and 6"),
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


def test_sizes_are_exact(model):
    with pytest.raises(ValueError, match=r"round_to doesn't go with sizes, .* got 8"):
        tfnas.prune_channels(model, sizes={"inner": 3}, round_to=8)


def test_what_limits_a_target_is_told(model):
    with pytest.raises(ValueError, match="by max_ratio at most 30% of a group go"):
        tfnas.prune_channels(model, target_macs=0.1, max_ratio=0.3)


def test_what_training_would_undo_is_noted(model):
    pruned, _ = tfnas.prune(model, 0.5)
    _, report = tfnas.prune_channels(pruned, 0.3)
    assert any("keep_zeros(smaller)" in note for note in report.notes)
    clustered, _ = tfnas.cluster(pruned, 4)
    _, report = tfnas.prune_channels(clustered, 0.3)
    assert any("ClusteringCallback(None)" in note for note in report.notes)
    assert not tfnas.prune_channels(model, 0.3)[1].notes


@pytest.mark.parametrize("change", ["weights", "options"])
def test_a_folder_of_another_run_is_refused(model, tmp_path, change):
    def fit(smaller, step):
        smaller.compile("sgd", "mse")

    def pruning(given, **options):
        return tfnas.ChannelPruning(given, 0.6, steps=1, fit=fit, folder=tmp_path, **options)

    first, _ = pruning(model).run()
    again, _ = pruning(model).run()
    assert first.compiled
    assert again.compiled  # as it was left
    other = keras.models.clone_model(model)  # weights of its own
    arguments = {"weights": (other, {}), "options": (model, {"criterion": "l1"})}[change]
    with pytest.raises(ValueError, match=r"got one of another (model|options)$"):
        pruning(arguments[0], **arguments[1]).run()
