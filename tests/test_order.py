"""Techniques one after another: what each keeps of the one before, and orders that are refused."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.export.kernels import read_kernels
from tfnas.order import channels_share_values, is_pruned, shares_values

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def network(digits):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(32, 3, strides=2, padding="same", name="middle"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10, name="head"),
        ]
    )
    fit(model, digits, 3)
    return model


def fit(model, digits, epochs=1, callbacks=()):
    model.compile(keras.optimizers.Adam(2e-3), LOSS, metrics=["accuracy"], jit_compile=False)
    model.fit(
        digits.x_train, digits.y_train, epochs=epochs, verbose=0, callbacks=list(callbacks)
    )  # fmt: skip
    return model


def accuracy(file, digits):
    return (file.predict(digits.x_test).argmax(-1) == digits.y_test).mean()


@pytest.fixture(scope="module")
def pruned(network, digits):
    model, _ = tfnas.prune(network, 0.6)
    return fit(model, digits, 1)


@pytest.fixture(scope="module")
def clustered(pruned, digits):
    model, _ = tfnas.cluster(pruned, 8)
    return fit(model, digits, 1, [tfnas.ClusteringCallback(None)])


@pytest.fixture(scope="module")
def aware(network, digits):
    return tfnas.quantize_aware(network, data=digits.x_train[:100])


# --- what is kept, in the file


def test_pruned_then_clustered_then_quantised(network, pruned, clustered, digits):
    trainable = tfnas.quantize_aware(clustered, data=digits.x_train[:100])
    tfnas.keep_clusters(trainable)
    file = tfnas.to_tflite(fit(trainable, digits), "int8")
    zeros = [(np.asarray(pruned.get_layer(n).kernel) == 0).sum() for n in ("middle", "head")]
    held = {k.layer: k for k in read_kernels(file)}
    for name, count in zip(("middle", "head"), zeros, strict=True):
        kernel = held[f"quantized_{name}"]
        assert kernel.values.dtype == np.int8
        assert kernel.zeros.sum() == count
        channels = np.moveaxis(kernel.values, kernel.tensor.channel_axis or 0, 0)
        assert max(len(np.unique(channel)) for channel in channels) <= 8
    whole = tfnas.to_tflite(network)
    assert 6 * file.gzip_size < whole.gzip_size
    assert accuracy(file, digits) > accuracy(whole, digits) - 0.03


def test_shrunk_then_distilled_then_quantised(network, digits):
    smaller, report = tfnas.prune_channels(network, target_macs=0.5)
    widths = [smaller.get_layer(name).filters for name in ("stem", "middle")]
    distiller = tfnas.Distiller(smaller, network)
    distiller.compile(keras.optimizers.Adam(2e-3), jit_compile=False)
    distiller.fit(digits.x_train, digits.y_train, epochs=3, verbose=0)
    trainable = tfnas.quantize_aware(smaller, data=digits.x_train[:100])
    file = tfnas.to_tflite(fit(trainable, digits), "int8")
    held = {k.layer: k for k in read_kernels(file)}
    channels = [held[f"quantized_{name}"].tensor.shape[0] for name in ("stem", "middle")]
    assert channels == widths
    assert report.macs[1] <= 0.5 * report.macs[0]
    assert accuracy(file, digits) > 0.9


def test_factorised_then_trained_then_int8(network, digits):
    thin, report = tfnas.factorize(network, target_macs=0.6, data=digits.x_train[:200])
    file = tfnas.to_tflite(fit(thin, digits, 2), "int8", digits.x_train[:100])
    shapes = {k.layer: k.tensor.shape for k in read_kernels(file)}
    done = next(layer for layer in report.layers if layer.name == "middle")
    assert shapes["middle_first"][0] == done.ranks[0]
    assert accuracy(file, digits) > 0.9


def test_a_pruned_model_loses_channels_and_keeps_its_zeros(pruned):
    smaller, _ = tfnas.prune_channels(pruned, target_macs=0.6)
    assert is_pruned(np.asarray(smaller.get_layer("middle").kernel))


# --- what is refused


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("prune_channels", lambda model: tfnas.prune_channels(model, target_macs=0.5)),
        ("factorize", lambda model: tfnas.factorize(model, target_macs=0.5)),
        ("fold_batchnorm", tfnas.fold_batchnorm),
    ],
)
def test_layers_of_a_quantisation_aware_model_are_not_replaced(name, call, aware):
    with pytest.raises(ValueError, match=rf"(?s)quantisation-aware yet.*{name}.*tfnas\.strip"):
        call(aware)
    call(tfnas.strip(aware))


def test_factors_would_have_no_zeros(pruned):
    with pytest.raises(ValueError, match="60% zeros in the kernel of 'stem', which would be lost"):
        tfnas.factorize(pruned, target_macs=0.5)
    tfnas.factorize(pruned, rank={"head": 4}, ignore=["stem", "middle", "head"])


def test_factors_would_share_no_values(network):
    shared, _ = tfnas.cluster(network, 8)
    with pytest.raises(ValueError, match=r"before factorize, got 8 shared values .*stem"):
        tfnas.factorize(shared, energy=0.9)


def test_equal_weights_are_not_pruned(network, digits):
    shared, _ = tfnas.cluster(network, 8)
    with pytest.raises(ValueError, match="pruned before it is clustered, got 8 shared values"):
        tfnas.prune(shared, 0.5)
    callback = tfnas.PruningCallback(tfnas.schedules.constant(0.5))
    with pytest.raises(ValueError, match="pruned before it is clustered"):
        fit(shared, digits, 1, [callback])


# --- how it is seen


def test_shared_values():
    rng = np.random.default_rng(0)
    assert shares_values(rng.choice([0.0, 0.1, 0.2], (30, 30)))
    own = np.stack([rng.choice(rng.normal(size=4), 100) for _ in range(30)], -1)
    assert shares_values(own)  # each channel has its own
    assert not shares_values(rng.normal(size=(30, 30)))
    assert not shares_values(np.ones((30, 30)))
    assert not shares_values(np.where(rng.random((30, 30)) < 0.99, 0, rng.normal(size=(30, 30))))


def test_pruned():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 3, 8, 8))
    assert not is_pruned(weights)
    assert is_pruned(np.where(rng.random(weights.shape) < 0.2, 0, weights))
    assert not is_pruned(np.where(rng.random(weights.shape) < 0.05, 0, weights))  # of training
    weights[..., :4] = 0  # channels as a whole
    weights[:, :, 2] = 0
    assert not is_pruned(weights)
    assert not is_pruned(np.zeros((8, 16)))


def test_values_of_channels():
    rng = np.random.default_rng(0)
    assert channels_share_values(rng.choice([0.0, 0.1, 0.2, 0.3], (3, 3, 8, 8)))
    own = np.stack([rng.choice(rng.normal(size=4), 100) for _ in range(4)], -1)
    assert shares_values(own)
    assert not channels_share_values(own)
    assert not channels_share_values(rng.normal(size=(30, 30)))
