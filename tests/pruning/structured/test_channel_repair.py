"""Layers fitted again after channels were removed."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.pruning.structured.channel_groups import trace
from tfnas.pruning.structured.channel_repair import remove_again_refitted, zeroed
from tfnas.pruning.structured.slicing import removal_of, slice_channels


def network():
    """Inverted residual blocks, and a layer that is not fitted."""
    keras.utils.set_random_seed(1)
    start = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(start)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="stem_norm")(x))
    y = layers.Conv2D(24, 1, use_bias=False, name="expand")(x)
    y = layers.Activation("swish")(layers.BatchNormalization(name="expand_norm")(y))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.Conv2D(8, 1, use_bias=False, name="project")(layers.ReLU()(y))
    x = layers.Add()([x, layers.BatchNormalization(name="project_norm")(y)])
    x = layers.Conv2DTranspose(6, 2, name="up")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(start, layers.Dense(4, name="head")(x))


@pytest.fixture(scope="module")
def model():
    built = network()
    tfnas.recalibrate_batchnorm(built, images(seed=5))
    return built


def images(count=200, seed=0):
    noise = np.random.default_rng(seed).normal(size=(count, 6, 6, 3))
    return noise.repeat(2, axis=1).repeat(2, axis=2).astype("float32")


def error(smaller, model, x):
    expected = np.asarray(model(x))
    return float(((np.asarray(smaller(x)) - expected) ** 2).mean() / expected.var())


def test_the_copy_with_zeros_computes_what_the_smaller_model_computes(model):
    x = images(8)
    _, report = tfnas.prune_channels(model, target_macs=0.6)
    dependencies = trace(model)
    removed = removal_of(dependencies, report)
    copy, masks = zeroed(model, dependencies, removed)
    smaller = slice_channels(model, dependencies, removed)
    np.testing.assert_allclose(np.asarray(copy(x)), np.asarray(smaller(x)), atol=1e-5)
    names = {v.path.split("/")[-2] for v in copy.variables if id(v) in masks}
    assert {"expand", "expand_norm", "depthwise", "project"} <= names


def test_fitting_beats_the_cut_and_recalibration_on_other_examples(model):
    x, other = images(), images(seed=9)
    cut, _ = tfnas.prune_channels(model, target_macs=0.6)
    fitted, report = tfnas.prune_channels(model, target_macs=0.6, reconstruct=True, data=x)
    assert report.macs[1] <= 0.6 * report.macs[0]
    assert [w.shape for w in fitted.weights] == [w.shape for w in cut.weights]
    plain = error(cut, model, other)
    tfnas.recalibrate_batchnorm(cut, x)
    assert error(fitted, model, other) < 0.7 * min(plain, error(cut, model, other))
    assert "cut, but not fitted: up (layers of type Conv2DTranspose can't be fitted yet)" in (
        report.notes
    )


def test_the_same_channels_are_removed_and_fitted_again(model):
    x = images()
    fitted, report = tfnas.prune_channels(model, target_macs=0.6, reconstruct=True, data=x)
    again = remove_again_refitted(model, report, x)
    for one, two in zip(fitted.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_zeros_stay_zero(model):
    pruned, _ = tfnas.prune(model, 0.5, layers=["expand"])
    fitted, _ = tfnas.prune_channels(
        pruned, sizes={"expand": 20}, reconstruct=True, data=images(), criterion="l1"
    )
    kernel = np.asarray(fitted.get_layer("expand").kernel)
    assert 0.3 < (kernel == 0).mean() < 0.7


def test_errors(model):
    with pytest.raises(ValueError, match="data must be given with reconstruct=True, got None"):
        tfnas.prune_channels(model, 0.5, reconstruct=True)
    clustered, _ = tfnas.cluster(model, 4)
    with pytest.raises(ValueError, match="reconstruct must be False for a model whose weights"):
        tfnas.prune_channels(clustered, 0.5, reconstruct=True, data=images(8))
