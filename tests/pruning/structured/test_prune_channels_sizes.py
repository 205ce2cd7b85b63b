"""`prune_channels(sizes=...)`: a target number of channels per layer."""

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


def test_groups_get_the_target_sizes_and_others_keep_theirs(model):
    smaller, report = tfnas.prune_channels(model, sizes={"inner": 3, "outer": 7})
    widths = {n: smaller.get_layer(n).filters for n in ("stem", "inner", "outer")}
    assert widths == {"stem": 7, "inner": 3, "outer": 7}  # the addition couples stem and outer
    assert [(g.before, g.after) for g in report.groups] == [(12, 7), (10, 3), (4, 4)]


def test_the_most_important_channels_stay(model):
    smaller, _ = tfnas.prune_channels(model, sizes={"inner": 4}, criterion="l2")
    producer, consumer = (np.asarray(model.get_layer(n).kernel) for n in ("inner", "outer"))
    output_norms = np.linalg.norm(producer.reshape(-1, 10), axis=0)
    input_norms = np.linalg.norm(np.moveaxis(consumer, 2, 0).reshape(10, -1), axis=1)
    best = np.sort(
        np.argsort(output_norms / output_norms.mean() + input_norms / input_norms.mean())[-4:]
    )
    np.testing.assert_array_equal(smaller.get_layer("inner").kernel, producer[..., best])


def test_the_present_sizes_change_nothing(model):
    same, report = tfnas.prune_channels(model, sizes={"inner": 10})
    assert report.macs[0] == report.macs[1]
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(same(x), model(x), atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "error"),
    [
        ({}, "sizes must map layers to numbers of channels, got {}"),
        (3, "sizes must map layers to numbers of channels, got 3"),
        ({"none": 3}, "sizes must name layers with output channels, got 'none'; these are head"),
        ({"inner": 0}, "from 1 to the number of channels, got 0 for 'inner' with 10"),
        ({"inner": 11}, "got 11 for 'inner' with 10"),
        ({"inner": 2.0}, "must be whole numbers"),
        ({"inner": True}, "must be whole numbers"),
        ({"stem": 5, "outer": 6}, "sizes must be the same for 'stem' and 'outer', .* got 5 and 6"),
        ({"head": 3}, "sizes must leave 'head' at least 4 channels, got 3: softmax"),
    ],
)
def test_bad_sizes_raise(model, sizes, error):
    with pytest.raises(ValueError, match=error):
        tfnas.prune_channels(model, sizes=sizes)


def test_sizes_exclude_other_targets(model):
    error = r"exactly one of .* sizes must be set, got ratio, sizes"
    with pytest.raises(ValueError, match=error):
        tfnas.prune_channels(model, 0.5, sizes={"inner": 3})


def test_sizes_are_exact(model):
    with pytest.raises(ValueError, match=r"round_to must be None with sizes, .* got 8"):
        tfnas.prune_channels(model, sizes={"inner": 3}, round_to=8)


def test_the_error_of_a_missed_target_names_max_ratio(model):
    with pytest.raises(ValueError, match="max_ratio allows the removal of 30% of a group"):
        tfnas.prune_channels(model, target_macs=0.1, max_ratio=0.3)


def test_zeros_and_clusters_that_training_would_change_are_noted(model):
    pruned, _ = tfnas.prune(model, 0.5)
    _, report = tfnas.prune_channels(pruned, 0.3)
    assert any("keep_zeros(smaller)" in note for note in report.notes)
    clustered, _ = tfnas.cluster(pruned, 4)
    _, report = tfnas.prune_channels(clustered, 0.3)
    assert any("ClusteringCallback(None)" in note for note in report.notes)
    [untrained] = tfnas.prune_channels(model, 0.3)[1].notes
    assert "nothing is trained yet" in untrained


@pytest.mark.parametrize("change", ["weights", "options"])
def test_a_folder_of_another_run_raises(model, tmp_path, change):
    def fit(smaller, step):
        smaller.compile("sgd", "mse", jit_compile=False)

    def pruning(model, **options):
        return tfnas.ChannelPruning(model, 0.6, steps=1, fit=fit, folder=tmp_path, **options)

    first, _ = pruning(model).run()
    again, _ = pruning(model).run()
    assert first.compiled
    assert again.compiled  # as fit left it
    other = keras.models.clone_model(model)  # with other weights
    arguments = {"weights": (other, {}), "options": (model, {"criterion": "l1"})}[change]
    with pytest.raises(ValueError, match=r"got a run with another (model|options)$"):
        pruning(arguments[0], **arguments[1]).run()
