"""Sequences of techniques: what each step preserves, and which orders are refused."""

import keras
import numpy as np
import pytest
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.graph.kernel_state import (
    is_pruned,
)
from tfnas.pruning.mask_constraint import assign_masks
from tfnas.pruning.prunable_kernels import find_kernels
from tfnas.tflite.file_weights import read_kernels

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


# --- what is preserved, in the file


def test_pruned_then_clustered_then_quantized(network, pruned, clustered, digits):
    trainable = tfnas.quantize_aware(clustered, data=digits.x_train[:100])
    tfnas.keep_clusters(trainable)
    file = tfnas.to_tflite(fit(trainable, digits), "int8")
    zeros = [(np.asarray(pruned.get_layer(n).kernel) == 0).sum() for n in ("middle", "head")]
    kernels = {k.layer: k for k in read_kernels(file)}
    for name, count in zip(("middle", "head"), zeros, strict=True):
        kernel = kernels[f"quantized_{name}"]
        assert kernel.values.dtype == np.int8
        assert kernel.zeros.sum() == count
        channels = np.moveaxis(kernel.values, kernel.tensor.channel_axis or 0, 0)
        assert max(len(np.unique(channel)) for channel in channels) <= 8
    baseline = tfnas.to_tflite(network)
    assert 6 * file.gzip_size < baseline.gzip_size
    assert accuracy(file, digits) > accuracy(baseline, digits) - 0.03


@pytest.mark.slow  # tests/compression/test_trial_compression.py has techniques in one trial
def test_channels_pruned_then_distilled_then_quantized(network, digits):
    smaller, report = tfnas.prune_channels(network, target_macs=0.5)
    widths = [smaller.get_layer(name).filters for name in ("stem", "middle")]
    distiller = tfnas.Distiller(network, smaller)
    distiller.compile(keras.optimizers.Adam(2e-3), jit_compile=False)
    distiller.fit(digits.x_train, digits.y_train, epochs=3, verbose=0)
    trainable = tfnas.quantize_aware(smaller, data=digits.x_train[:100])
    file = tfnas.to_tflite(fit(trainable, digits), "int8")
    kernels = {k.layer: k for k in read_kernels(file)}
    channels = [kernels[f"quantized_{name}"].tensor.shape[0] for name in ("stem", "middle")]
    assert channels == widths
    assert report.macs[1] <= 0.5 * report.macs[0]
    assert accuracy(file, digits) > 0.9


@pytest.mark.slow  # tests/compression/test_trial_compression.py has techniques in one trial
def test_factorized_then_trained_then_int8(network, digits):
    low_rank, report = tfnas.factorize(network, target_macs=0.6, data=digits.x_train[:200])
    file = tfnas.to_tflite(fit(low_rank, digits, 2), "int8", digits.x_train[:100])
    shapes = {k.layer: k.tensor.shape for k in read_kernels(file)}
    middle = next(layer for layer in report.layers if layer.name == "middle")
    assert shapes["middle_first"][0] == middle.ranks[0]
    assert accuracy(file, digits) > 0.9


def test_prune_channels_keeps_the_zeros_of_a_pruned_model(pruned):
    smaller, _ = tfnas.prune_channels(pruned, target_macs=0.6)
    assert is_pruned(np.asarray(smaller.get_layer("middle").kernel))


@pytest.mark.slow  # tests/quantization/test_attention_forms.py trains pruned layers
def test_zeros_stay_in_quantization_aware_training(pruned, digits):
    """Without another call: the pruning constraints are copied along."""
    trainable = tfnas.quantize_aware(pruned, data=digits.x_train[:100])
    fit(trainable, digits)
    plain = tfnas.strip_quantization(trainable)
    for name in ("stem", "middle", "head"):
        before, after = (np.asarray(m.get_layer(name).kernel) for m in (pruned, plain))
        np.testing.assert_array_equal(before == 0, after == 0)


# --- what is refused


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("prune_channels", lambda model: tfnas.prune_channels(model, target_macs=0.5)),
        ("factorize", lambda model: tfnas.factorize(model, target_macs=0.5)),
        ("fold_batchnorm", tfnas.fold_batchnorm),
        ("prune", lambda model: tfnas.prune(model, 0.5)),
        ("cluster", lambda model: tfnas.cluster(model, 8)),
    ],
)
def test_layers_of_a_quantization_aware_model_are_not_replaced(name, call, aware):
    with pytest.raises(ValueError, match=rf"(?s)quantization-aware yet.*{name}.*tfnas\.strip"):
        call(aware)
    call(tfnas.strip_quantization(aware))


def test_clustering_must_precede_quantization_aware_training(aware, digits):
    with pytest.raises(ValueError, match=r"quantization-aware yet.*ClusteringCallback"):
        fit(aware, digits, 1, [tfnas.ClusteringCallback(8)])


def test_pruning_may_accompany_quantization_aware_training(network, digits):
    """The ranges are updated during training."""
    trainable = tfnas.quantize_aware(network, data=digits.x_train[:100])
    fit(trainable, digits, 2, [tfnas.PruningCallback(0.5)])
    file = tfnas.to_tflite(trainable, "int8")
    zeros = tfnas.file_sparsity(file)
    assert zeros.zeros >= 0.49 * zeros.weights
    assert accuracy(file, digits) > 0.9


def rising(epoch):
    return [0, 0.2, 0.5][epoch]


@pytest.mark.parametrize(
    ("callbacks", "got"),
    [
        (
            lambda: [tfnas.PruningCallback(rising), tfnas.ClusteringCallback(8)],
            "a PruningCallback with a changing sparsity beside a ClusteringCallback for 'stem'",
        ),
        pytest.param(
            lambda: [tfnas.PruningCallback(0.5), tfnas.ClusteringCallback(8, zeros=False)],
            "a PruningCallback beside a ClusteringCallback with zeros=False for 'stem'",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda: [tfnas.ClusteringCallback(8), tfnas.PruningCallback(0.5)],
            "a ClusteringCallback before a PruningCallback for 'stem'",
            marks=pytest.mark.slow,
        ),
        (
            lambda: [tfnas.ClusteringCallback(8), tfnas.PruningCallback(rising)],
            "a ClusteringCallback before a PruningCallback for 'stem'",
        ),
    ],
)
def test_pruning_and_clustering_in_one_fit(callbacks, got, network, digits):
    model, steps = keras.models.clone_model(network), []
    counter = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_: steps.append(1))
    with pytest.raises(ValueError, match=rf"callbacks must not .*got {got}.*Prune first, in a fit"):
        fit(model, digits, 3, [*callbacks(), counter])
    assert not steps
    fit(model, digits, 1, [tfnas.ClusteringCallback(8)])  # the failed fit leaves no state behind


def test_constant_pruning_can_be_combined_with_clustering(network, digits):
    model = keras.models.clone_model(network)
    model.set_weights(network.get_weights())
    fit(model, digits, 2, [tfnas.PruningCallback(0.5), tfnas.ClusteringCallback(8)])
    for name in ("stem", "middle", "head"):
        kernel = np.asarray(model.get_layer(name).kernel)
        assert (kernel == 0).mean() == pytest.approx(0.5, abs=0.01)
        assert len(np.unique(kernel)) == 8


@pytest.mark.slow  # the fast test above has both callbacks in a fit
def test_other_kernels_may_be_clustered_while_some_are_pruned(network, digits):
    model = keras.models.clone_model(network)
    clustering = tfnas.ClusteringCallback({"head": 8})
    fit(model, digits, 3, [clustering, tfnas.PruningCallback(rising, layers=["stem", "middle"])])
    assert len(np.unique(model.get_layer("head").kernel)) == 8
    assert (np.asarray(model.get_layer("middle").kernel) == 0).mean() == pytest.approx(
        0.5, abs=0.01
    )


def test_masks_can_not_change_under_tied_values(network):
    shared, _ = tfnas.cluster(network, 8)
    kernel = find_kernels(shared)[0][0]
    with pytest.raises(ValueError, match=r"masks must not change after the weights of 'stem'"):
        assign_masks([kernel], [np.ones(kernel.shape, bool)])


def test_pruned_kernels_are_not_factorized(pruned):
    with pytest.raises(ValueError, match="60% zeros in the kernel of 'stem', which would be lost"):
        tfnas.factorize(pruned, target_macs=0.5)
    tfnas.factorize(pruned, rank={"head": 4}, exclude=["stem", "middle", "head"])


def test_clustered_kernels_are_not_factorized(network):
    shared, _ = tfnas.cluster(network, 8)
    with pytest.raises(ValueError, match=r"before factorize, got 8 shared values .*stem"):
        tfnas.factorize(shared, energy=0.9)


def test_clustered_kernels_are_not_pruned(network, digits):
    shared, _ = tfnas.cluster(network, 8)
    with pytest.raises(ValueError, match="pruned before it is clustered, got 8 shared values"):
        tfnas.prune(shared, 0.5)
    callback = tfnas.PruningCallback(tfnas.schedules.constant(0.5))
    with pytest.raises(ValueError, match="pruned before it is clustered"):
        fit(shared, digits, 1, [callback])


@pytest.mark.parametrize(
    ("sparsity", "filters"),
    slow_but(
        [(sparsity, filters) for sparsity in (0.0, 0.3, 0.5, 0.75, 0.9) for filters in (2, 4, 24)],
        *((0.0, 24), (0.5, 2), (0.9, 24)),
    ),
)
def test_the_file_of_a_small_kernel_has_no_more_integers_than_values(sparsity, filters):
    keras.utils.set_random_seed(filters)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(filters, 3, name="stem"), layers.Flatten()]
    )
    pruned, _ = tfnas.prune(model, sparsity)
    kernel, _ = tfnas.cluster(pruned, 16)
    values = len(np.unique(kernel.get_layer("stem").kernel))
    data = np.random.default_rng(0).normal(size=(20, 8, 8, 1))
    file = tfnas.to_tflite(tfnas.quantize_aware(kernel, data=data), "int8")
    (stored,) = read_kernels(file)
    assert len(np.unique(stored.values)) <= values <= 16


def test_channels_with_separate_values_keep_separate_scales():
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(24, 3), layers.Flatten()])
    pruned, _ = tfnas.prune(model, 0.3)
    for start in (model, pruned):
        clustered, _ = tfnas.cluster(start, 4, granularity="channel")
        for trainable in map(tfnas.quantize_aware, (start, clustered)):
            kernel = next(v for v in trainable.layers if hasattr(v, "one_scale"))
            assert not kernel.one_scale
