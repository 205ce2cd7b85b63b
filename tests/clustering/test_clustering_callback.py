"""ClusteringCallback: shared values are trained with the sum of their weights' gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.clustering.cluster import cluster
from tfnas.clustering.clusterable_kernels import find_kernels
from tfnas.clustering.clustering_callback import ClusteringCallback
from tfnas.clustering.shared_values import keep_clusters, tied_values
from tfnas.tflite.file_weights import read_kernels

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 16),
            layers.Conv2D(6, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10, name="head"),
        ]
    )


def fit(model, digits, callbacks, epochs=2, optimizer=None, initial_epoch=0, **settings):
    settings = {"jit_compile": False, **settings}
    if not getattr(model, "compiled", False):
        model.compile(optimizer or keras.optimizers.Adam(3e-3), LOSS, **settings)
    x, y = digits.x_train[:256], digits.y_train[:256]
    return model.fit(
        *(x, y, 32, epochs),
        verbose=0,
        shuffle=False,
        callbacks=callbacks,
        initial_epoch=initial_epoch,
    )


def kernels(model):
    return {kernel.name: kernel.numpy() for kernel in find_kernels(model)[0]}


def distinct(model):
    return {name: len(np.unique(kernel)) for name, kernel in kernels(model).items()}


class Watch(keras.callbacks.Callback):
    """The most distinct values of a kernel after each batch, and the clusters of the head."""

    def __init__(self):
        super().__init__()
        self.seen, self.moves = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(max(distinct(self.model).values()))
        tie = tied_values(self.model.get_layer("head").kernel.constraint)
        self.moves.append(tie.labels())


# --- the gradient of a shared value


def tied_problem(optimizer, gradients="sum"):
    """One step of a Dense layer with 3 values; returns weights before, gradients, weights after."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, use_bias=False, name="d")])
    rng = np.random.default_rng(1)
    values = rng.choice(np.float32([-0.5, 0.1, 0.8]), (6, 4))
    model.layers[0].kernel.assign(values)
    x, y = rng.normal(size=(8, 6)).astype("f"), rng.normal(size=(8, 4)).astype("f")
    gradient = 2 * x.T @ (x @ values - y) / y.size
    model.compile(optimizer, "mse", jit_compile=False)
    callback = ClusteringCallback(3, gradients=gradients)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[callback])
    return values, gradient, np.asarray(model.layers[0].kernel)


@pytest.mark.parametrize("gradients", ["sum", "mean"])
def test_sgd_moves_a_value_along_the_sum_of_its_weights_gradients(gradients):
    """Han et al. 2016, section 3.3."""
    values, gradient, after = tied_problem(keras.optimizers.SGD(0.01), gradients)
    for value in np.unique(values):
        mine = values == value
        total = gradient[mine].sum() if gradients == "sum" else gradient[mine].mean()
        np.testing.assert_allclose(after[mine], value - 0.01 * total, rtol=1e-5)


@pytest.mark.parametrize("gradients", ["sum", "mean"])
def test_adam_moves_a_value_as_if_it_were_the_variable(gradients):
    values, gradient, after = tied_problem(keras.optimizers.Adam(0.01), gradients)
    for value in np.unique(values):
        mine = values == value
        step = 0.01 * np.sign(gradient[mine].sum())  # Adam's first step
        np.testing.assert_allclose(after[mine], value - step, rtol=1e-4)


def test_the_mean_of_adams_steps_may_increase_the_loss():
    """Why gradients are tied before the optimizer step, not only weights after it."""
    slopes = np.float32([[10, -1, -1, -1]])  # the sum is 7, so the value must fall

    def moved(tie):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(2, use_bias=False)])
        model.layers[0].kernel.assign([[0.5, 0.1]] * 4)
        callbacks = tie(model)
        model.compile(keras.optimizers.Adam(0.01), lambda true, got: got[:, 0], jit_compile=False)
        model.fit(slopes, np.zeros((1, 2)), verbose=0, callbacks=callbacks)
        values = np.unique(np.asarray(model.layers[0].kernel)[:, 0])
        assert len(values) == 1
        return values[0] - 0.5

    assert moved(lambda model: keep_clusters(model) and []) == pytest.approx(0.005, rel=1e-3)
    assert moved(lambda model: [ClusteringCallback(None)]) == pytest.approx(-0.01, rel=1e-3)


# --- in fit


@pytest.mark.usefixtures("traced_by_keras")
@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        pytest.param("adam", {}, marks=pytest.mark.slow),
        ("sgd", {"steps_per_execution": 4}),
        pytest.param("adam", {"jit_compile": True}, marks=pytest.mark.slow),
        pytest.param("adam", {"run_eagerly": True}, marks=pytest.mark.slow),
        pytest.param("accumulating", {}, marks=pytest.mark.slow),
        pytest.param("decaying", {}, marks=pytest.mark.slow),
    ],
)
def test_at_most_k_values_after_every_step(optimizer, settings, digits):
    optimizers = {
        "adam": lambda: keras.optimizers.Adam(3e-3),
        "sgd": lambda: keras.optimizers.SGD(1e-3, momentum=0.9),
        "accumulating": lambda: keras.optimizers.Adam(3e-3, gradient_accumulation_steps=2),
        "decaying": lambda: keras.optimizers.AdamW(3e-3, weight_decay=0.1, clipnorm=1.0),
    }
    model, watch = network(), Watch()
    clustering = ClusteringCallback({"stem": 4, "head": 8})
    losses = fit(model, digits, [clustering, watch], 3, optimizers[optimizer](), **settings)
    assert losses.history["loss"][-1] < losses.history["loss"][0]
    assert set(watch.seen) == {8}
    assert distinct(model) == {"stem": 4, "head": 8}
    assert all((a == watch.moves[0]).all() for a in watch.moves)
    assert [k.after for k in clustering.report.kernels] == [4, 8]
    assert [s.kind for s in clustering.report.skipped] == ["BatchNormalization"]


@pytest.mark.parametrize(
    ("renew", "by"), [pytest.param(1, "epoch", marks=pytest.mark.slow), (5, "step")]
)
def test_renewed_clusters_change_but_not_their_number(renew, by, digits):
    model, watch = network(), Watch()
    clustering = ClusteringCallback(6, renew, by)
    losses = fit(model, digits, [clustering, watch], 3).history["loss"]
    assert losses[-1] < losses[0]
    assert set(watch.seen) == {6}
    changes = [i for i in range(1, 24) if (watch.moves[i] != watch.moves[i - 1]).any()]
    assert changes
    assert set(changes) <= set(range(8 if by == "epoch" else 5, 24, 8 if by == "epoch" else 5))
    assert distinct(model) == {"stem": 6, "head": 6}
    assert tied_values(model.get_layer("head").kernel.constraint).latent is None
    fit(model, digits, [], 1)
    assert max(distinct(model).values()) == 6


def test_each_channel_has_its_own_values(digits):
    model = network()
    fit(model, digits, [ClusteringCallback({"head": 3}, granularity="channel")])
    columns = np.asarray(model.get_layer("head").kernel).T
    assert {len(np.unique(column)) for column in columns} == {3}
    assert len(np.unique(columns)) == 30


@pytest.mark.parametrize("renew", slow_but([None, 5], 5))
def test_zeros_of_a_pruned_model_stay(renew, digits):
    pruned, report = tfnas.prune(network(), 0.5)
    before = kernels(pruned)
    fit(pruned, digits, [ClusteringCallback(5, renew, "step")])
    for name, kernel in kernels(pruned).items():
        np.testing.assert_array_equal((kernel == 0)[before[name] == 0], True)
        assert len(np.unique(kernel)) <= 5
    assert sum(int((k == 0).sum()) for k in kernels(pruned).values()) == report.zeros


def test_training_in_half_precision(digits):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network()
        fit(model, digits, [ClusteringCallback(6)])
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.optimizer.name == "loss_scale_optimizer"
    assert set(distinct(model).values()) == {6}


@pytest.mark.slow
def test_a_second_fit_and_a_recompiled_model(digits):
    model = network()
    clustering = ClusteringCallback(6)
    fit(model, digits, [clustering], 1)
    fit(model, digits, [clustering], 1)
    model.compiled = False
    fit(model, digits, [clustering], 1, keras.optimizers.SGD(1e-4))
    assert set(distinct(model).values()) == {6}
    step = model.optimizer._backend_update_step
    assert type(step).__name__ == "TiedStep"
    assert type(step.step).__name__ != "TiedStep"


@pytest.mark.slow
def test_a_model_that_the_first_batch_builds_is_clustered(digits):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Rescaling(1 / 16), layers.Flatten(), layers.Dense(10)])
    fit(model, digits, [ClusteringCallback(6)])
    assert list(distinct(model).values()) == [6]


def test_a_custom_training_loop(digits):
    model = network()
    model.compile(keras.optimizers.Adam(3e-3), LOSS)
    clustering = ClusteringCallback(6)
    clustering.set_model(model)
    clustering.on_train_begin()
    for epoch in range(2):
        clustering.on_epoch_begin(epoch)
        for start in range(0, 64, 32):
            part = slice(start, start + 32)
            with tf.GradientTape() as tape:
                loss = LOSS(digits.y_train[part], model(digits.x_train[part], training=True))
            weights = model.trainable_variables
            model.optimizer.apply(tape.gradient(loss, [w.value for w in weights]), weights)
            assert set(distinct(model).values()) == {6}


# --- with other callbacks


@pytest.mark.parametrize(
    ("renew", "behind"),
    [
        (None, True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((None, False), (1, True), (1, False))
        ),
    ],
)
def test_restored_best_weights_are_clustered(renew, behind, digits):
    model = network()
    stopping = keras.callbacks.EarlyStopping("loss", patience=0, restore_best_weights=True)
    clustering = ClusteringCallback(6, renew)
    # The learning rate is so high that the weights of the first epoch are restored.
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.PiecewiseConstantDecay([8], [3e-3, 1.0])
    )
    order = [stopping, clustering] if behind else [clustering, stopping]
    history = fit(model, digits, order, 6, optimizer).history["loss"]
    assert len(history) < 6
    assert set(distinct(model).values()) == {6}


@pytest.mark.slow
def test_averaged_weights_are_clustered(digits):
    model = network()
    fit(model, digits, [ClusteringCallback(6)], 2, keras.optimizers.Adam(3e-3, use_ema=True))
    assert set(distinct(model).values()) == {6}


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_restored_training_continues_unchanged(digits, tmp_path):
    uninterrupted = network()
    fit(uninterrupted, digits, [ClusteringCallback(6)], 3)
    broken = network()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        fit(broken, digits, [ClusteringCallback(6), backup, Stop()], 3)
    resumed = network(seed=5)
    # The optimizer must be built, so that its variables can be restored.
    resumed.compile(keras.optimizers.Adam(3e-3), LOSS, jit_compile=False)
    resumed.optimizer.build(resumed.trainable_variables)
    again = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    fit(resumed, digits, [ClusteringCallback(6), again], 3)
    for name, kernel in kernels(uninterrupted).items():
        np.testing.assert_allclose(kernels(resumed)[name], kernel, atol=1e-6)
        assert len(np.unique(kernels(resumed)[name])) == 6


# --- models that are clustered already, and quantization-aware training


def test_present_clusters_are_kept(digits, tmp_path):
    clustered, report = cluster(network(), 6)
    clustered.save(tmp_path / "m.keras")
    loaded = tfnas.load_model(tmp_path / "m.keras")
    clustering = ClusteringCallback(None)
    fit(loaded, digits, [clustering])
    assert set(distinct(loaded).values()) == {6}
    assert [k.after for k in clustering.report.kernels] == [k.after for k in report.kernels]


@pytest.fixture(scope="module")
def trained(digits):
    """A clustered and pruned model after quantization-aware training."""
    pruned, _ = tfnas.prune(network(), 0.4)
    clustered, report = cluster(pruned, 6)
    trainable = tfnas.quantize_aware(clustered, data=digits.x_train[:100])
    before = kernels(trainable)
    fit(trainable, digits, [ClusteringCallback(None)], 2)
    return report, before, trainable, tfnas.to_tflite(trainable, "int8")


def test_quantization_aware_training_keeps_values_and_zeros(trained):
    report, before, trainable, file = trained
    for old, new in zip(before.values(), kernels(trainable).values(), strict=True):
        assert len(np.unique(new)) == 6
        np.testing.assert_array_equal(old == 0, new == 0)
    found = list(read_kernels(file))
    assert len(found) == 3  # the Rescaling's factor is the first
    for kernel in found[1:]:
        channels = np.moveaxis(kernel.values, kernel.tensor.channel_axis, 0)
        assert max(len(np.unique(channel)) for channel in channels) <= 6
    # A Dense layer has one scale, so its kernel has as many integers as values.
    assert len(np.unique(found[-1].values)) <= 6
    assert sum(int(k.zeros.sum()) for k in found) >= report.total("zeros")


@pytest.mark.slow
def test_keep_clusters_of_channels(digits):
    clustered, _ = cluster(network(), {"head": 30}, granularity="channel")
    trainable = tfnas.quantize_aware(clustered, data=digits.x_train[:100])
    assert keep_clusters(trainable) == {"head": 30}
    fit(trainable, digits, [], 1)
    columns = next(k for name, k in kernels(trainable).items() if "head" in name).T
    assert {len(np.unique(column)) for column in columns} == {30}


# --- bad arguments


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"clusters": 1}, "clusters must be a whole number from 2 to 256, got 1"),
        ({"renew": 0}, "renew must be None or a whole number >= 1, got 0"),
        ({"renew": 1.5}, "renew must be None or a whole number >= 1, got 1.5"),
        ({"renew": 1, "clusters": None}, "renew must be None if clusters is None, got 1"),
        ({"by": "batch"}, "by must be one of epoch, step, got 'batch'"),
        ({"gradients": "max"}, "gradients must be one of sum, mean, got 'max'"),
        ({"granularity": "row"}, "granularity must be one of layer, channel"),
    ],
)
def test_bad_arguments_raise_at_once(settings, error):
    with pytest.raises(ValueError, match=error):
        ClusteringCallback(**settings)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"exclude": "nothing"}, "exclude must name layers with a kernel, got 'nothing'"),
        ({"clusters": {"nothing": 3}}, "clusters must name layers with a kernel, got 'nothing'"),
        ({"clusters": None}, "model must have kernels with 2 to 256 distinct values"),
    ],
)
def test_arguments_that_do_not_fit_the_model_raise_before_the_first_step(settings, error, digits):
    model = network()
    before = kernels(model)
    with pytest.raises(ValueError, match=error):
        fit(model, digits, [ClusteringCallback(**settings)])
    for name, kernel in kernels(model).items():
        np.testing.assert_array_equal(kernel, before[name])


def test_frozen_layers_are_skipped(digits):
    model = network()
    model.get_layer("stem").trainable = False
    clustering = ClusteringCallback(6)
    fit(model, digits, [clustering], 1)
    assert [k.name for k in clustering.report.kernels] == ["head"]
    assert "not trainable: use tfnas.cluster" in {s.reason for s in clustering.report.skipped}
    model.trainable = False
    with pytest.raises(ValueError, match="model must have a trainable kernel"):
        fit(model, digits, [ClusteringCallback(6)], 1)


def test_the_report_is_available_after_training_has_started():
    with pytest.raises(RuntimeError, match="report is available after training has started"):
        _ = ClusteringCallback().report


def test_present_clusters_with_exclude_and_embeddings(digits):
    """`None` includes embeddings if requested, and skips excluded layers."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Embedding(50, 8, name="table"),
            layers.Flatten(),
            layers.Dense(20, name="d"),
            layers.Dense(10, name="e"),
        ]
    )
    few, _ = tfnas.cluster(model, 4, embeddings=True)
    few.compile("adam", LOSS, jit_compile=False)
    x, y = np.random.default_rng(0).integers(0, 50, (64, 12)), np.arange(64) % 10
    callback = ClusteringCallback(None, embeddings=True, exclude=["e"])
    few.fit(x, y, epochs=1, verbose=0, callbacks=[callback])
    values = {layer.name: len(np.unique(layer.weights[0])) for layer in few.layers if layer.weights}
    assert values["table"] <= 4
    assert values["d"] <= 4
    assert {row.name for row in callback.report.skipped} == {"e"}
    assert set(keep_clusters(few, embeddings=True)) == {"table/embeddings", "d", "e"}


SEQUENCE = (8, 16)
LAYERS_OF_SEQUENCES = {
    "Dense": lambda: layers.Dense(32),
    "Conv1D": lambda: layers.Conv1D(32, 3),
    "EinsumDense": lambda: layers.EinsumDense("abc,cd->abd", (None, 32)),
    "TimeDistributed": lambda: layers.TimeDistributed(layers.Dense(32)),
    "LSTM": lambda: layers.LSTM(16, return_sequences=True),
}


WAYS = {
    "sum": {},
    "mean": {"gradients": "mean", "granularity": "channel"},
    "renewed": {"renew": 1, "by": "step"},
}


def in_each_way():
    """(layer, way): each way once; the others are slow."""
    fast = ("LSTM", "sum"), ("EinsumDense", "mean"), ("Conv1D", "renewed")
    return slow_but([(layer, way) for layer in LAYERS_OF_SEQUENCES for way in WAYS], *fast)


@pytest.mark.parametrize(("layer", "way"), in_each_way())
def test_batches_may_differ_in_size(layer, way):
    """TensorFlow then knows no shape of the gradient of a kernel that meets 3-D inputs."""
    model = keras.Sequential(
        [
            keras.Input(SEQUENCE),
            LAYERS_OF_SEQUENCES[layer](),
            layers.GlobalAveragePooling1D(),
            layers.Dense(8),
        ]
    )
    model.compile("adam", "mse", jit_compile=False)
    rng = np.random.default_rng(0)
    x, y = rng.random((20, *SEQUENCE)), rng.random((20, 8))
    clustering = tfnas.ClusteringCallback(8, **WAYS[way])
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[clustering])
    assert all(kernel.after <= 8 for kernel in clustering.report.kernels)


def test_batches_of_words_may_differ_in_size():
    words = [keras.Input((8,), dtype="int32"), layers.Embedding(40, 16), layers.Dense(24)]
    model = keras.Sequential([*words, layers.GlobalAveragePooling1D(), layers.Dense(8)])
    model.compile("adam", "mse", jit_compile=False)
    x = np.random.default_rng(0).integers(0, 40, (20, 8))
    clustering = tfnas.ClusteringCallback(8, embeddings=True)
    model.fit(x, np.ones((20, 8)), batch_size=16, verbose=0, callbacks=[clustering])
    assert len(np.unique(model.layers[0].embeddings)) <= 8
