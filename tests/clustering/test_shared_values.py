"""tfnas.keep_clusters: shared values stay shared in training and in the file."""

import doctest

import keras
import numpy as np
import pytest
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.clustering import shared_values
from tfnas.clustering.shared_values import TiedValues, keep_clusters
from tfnas.tflite.file_weights import read_kernels

VALUES = np.array([-0.31, -0.1, 0.0, 0.07, 0.26], np.float32)
NAMES = ("stem", "deep", "head")


@pytest.fixture(autouse=True)
def _public(monkeypatch):
    monkeypatch.setattr(tfnas, "keep_clusters", keep_clusters, raising=False)


def clustered(values=VALUES, zeros=0.4):
    """A classifier of digits whose kernels have few distinct values, many of them 0."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 16),
            layers.Conv2D(8, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same", name="deep"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10, name="head"),
        ]
    )
    rng = np.random.default_rng(0)
    probability = np.where(values == 0, zeros, (1 - zeros) / np.count_nonzero(values))
    for name in NAMES:
        kernel = model.get_layer(name).kernel
        kernel.assign(rng.choice(values, kernel.shape, p=probability / probability.sum()))
    return model


def fit(model, digits, epochs=2, optimizer=None, **settings):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    settings = {"jit_compile": False, **settings}
    model.compile(optimizer or keras.optimizers.Adam(2e-3), loss, **settings)
    return model.fit(
        digits.x_train[:400], digits.y_train[:400], epochs=epochs, batch_size=32, verbose=0
    )


def kernels(model):
    return [
        np.asarray(w) for w in model.trainable_weights if w.name == "kernel" and len(w.shape) > 1
    ]


def distinct(model):
    return [len(np.unique(kernel)) for kernel in kernels(model)]


class Watch(keras.callbacks.Callback):
    """The numbers of distinct values after each batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(distinct(self.model))


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        pytest.param(None, {}, marks=pytest.mark.slow),
        (keras.optimizers.SGD(0.01, momentum=0.9), {"steps_per_execution": 4}),
        pytest.param(keras.optimizers.AdamW(1e-3, weight_decay=0.1), {}, marks=pytest.mark.slow),
        pytest.param(None, {"jit_compile": True}, marks=pytest.mark.slow),
        pytest.param(None, {"run_eagerly": True}, marks=pytest.mark.slow),
    ],
    ids=["adam", "sgd, four steps", "adamw", "compiled", "eager"],
)
def test_shared_values_change_and_their_number_does_not_grow(optimizer, settings, digits):
    model = clustered()
    before = kernels(model)
    assert keep_clusters(model) == dict.fromkeys(NAMES, 5)
    losses = fit(model, digits, 3, optimizer, **settings).history["loss"]
    assert losses[2] < losses[0]
    for old, new in zip(before, kernels(model), strict=True):
        assert len(np.unique(new)) == 5
        assert (new[old == 0] == 0).all()
        for value in VALUES[VALUES != 0]:
            assert len(np.unique(new[old == value])) == 1
            assert np.unique(new[old == value]) != value


def test_without_keep_clusters_all_weights_differ(digits):
    model = clustered()
    fit(model, digits, 1)
    assert min(distinct(model)) > 20


def test_a_shared_value_is_the_mean_of_its_weights():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, use_bias=False)])
    model.layers[0].kernel.assign([[1, 2], [1, 0], [2, 0], [1, 2]])
    keep_clusters(model)
    tie = model.layers[0].kernel.constraint
    moved = np.asarray(tie(np.array([[1.0, 3], [2, 5], [4, -1], [6, 2]], np.float32)))
    np.testing.assert_allclose(moved, [[3, 3], [3, 0], [3, 0], [3, 3]])


def test_many_equal_weights_do_not_drift():
    model = keras.Sequential([keras.Input((1000,)), layers.Dense(1000, use_bias=False)])
    kernel = model.layers[0].kernel
    value = np.float32(0.1)
    kernel.assign(np.where(np.arange(10**6).reshape(1000, 1000) % 2, value, 0.7))
    keep_clusters(model)
    before = np.asarray(kernel)
    for _ in range(3):
        kernel.assign(kernel.constraint(kernel))
    np.testing.assert_array_equal(np.asarray(kernel), before)


# --- in quantization-aware training


@pytest.fixture(scope="module")
def trained(digits):
    """A clustered and pruned model after quantization-aware training (PCQAT)."""
    model = clustered()
    trainable = tfnas.quantize_aware(model, data=digits.x_train[:100])
    before, watch = kernels(trainable), Watch()
    found = keep_clusters(trainable)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainable.compile(keras.optimizers.Adam(2e-3), loss, jit_compile=False)
    trainable.fit(
        digits.x_train[:400], digits.y_train[:400], epochs=2, verbose=0, callbacks=[watch]
    )
    return before, found, watch.seen, trainable


def test_no_training_step_adds_values(trained):
    before, found, seen, trainable = trained
    assert found == dict.fromkeys(NAMES, 5)
    assert seen == [[5, 5, 5]] * len(seen)
    for old, new in zip(before, kernels(trainable), strict=True):
        np.testing.assert_array_equal(new == 0, old == 0)
        assert (new[old != 0] != old[old != 0]).all()


def test_the_file_has_no_more_values_and_all_zeros(trained, digits):
    before, _, _, trainable = trained
    file = tfnas.to_tflite(trainable, "int8")
    held = {k.layer: k for k in read_kernels(file)}
    for old, name in zip(before, NAMES, strict=True):
        kernel = held[f"quantized_{name}"]
        assert int(kernel.zeros.sum()) == int((old == 0).sum())
        assert len(np.unique(kernel.values)) <= 5  # channels with shared values have one scale
    steps = np.abs(file.predict(digits.x_test[:200]) - np.asarray(trainable(digits.x_test[:200])))
    assert np.median(steps / file.outputs[0].scale) <= 1.001


def test_clusters_are_kept_after_loading_with_another_call(trained, digits, tmp_path):
    before, found, _, trainable = trained
    trainable.save(tmp_path / "m.keras")
    loaded = tfnas.load_model(tmp_path / "m.keras")
    assert not any(isinstance(w.constraint, TiedValues) for w in loaded.trainable_weights)
    assert keep_clusters(loaded) == found
    fit(loaded, digits, 1)
    assert distinct(loaded) == [5, 5, 5]
    assert [int((k == 0).sum()) for k in kernels(loaded)] == [int((k == 0).sum()) for k in before]


@pytest.mark.slow  # the test before it trains such a model
@pytest.mark.parametrize("order", ["zeros first", "clusters first"])
def test_keep_clusters_with_keep_zeros(order, digits):
    trainable = tfnas.quantize_aware(clustered(), data=digits.x_train[:100])
    before = kernels(trainable)
    calls = [tfnas.keep_zeros, keep_clusters]
    for call in calls if order == "zeros first" else calls[::-1]:
        call(trainable)
    fit(trainable, digits, 1)
    assert distinct(trainable) == [5, 5, 5]
    for old, new in zip(before, kernels(trainable), strict=True):
        np.testing.assert_array_equal(new == 0, old == 0)


@pytest.mark.parametrize("mode", slow_but(["int8", "int8x4", "int16x8"], "int8x4"))
def test_zeros_of_a_pruned_model_stay(mode, digits):
    """PQAT (pruning and quantization-aware training), in Keras and in the file."""
    model = clustered(np.linspace(-0.3, 0.3, 600).astype(np.float32), zeros=0.0)
    pruned, report = tfnas.prune(model, 0.6)
    trainable = tfnas.quantize_aware(pruned, mode, data=digits.x_train[:100])
    before = kernels(trainable)
    assert tfnas.keep_zeros(trainable) == report.zeros
    fit(trainable, digits, 1)
    for old, new in zip(before, kernels(trainable), strict=True):
        np.testing.assert_array_equal(new == 0, old == 0)
    file = tfnas.file_sparsity(tfnas.to_tflite(trainable, mode))
    assert file.weights == report.weights + 1  # the Rescaling's factor
    assert file.zeros >= report.zeros


# --- which weights are tied


def test_kernels_with_many_values_or_one_are_not_tied(digits):
    model = clustered()
    model.get_layer("stem").kernel.assign(np.random.default_rng(0).normal(size=(3, 3, 1, 8)))
    model.get_layer("head").kernel.assign(np.zeros((288, 10)))
    assert list(keep_clusters(model).values()) == [5]
    fit(model, digits, 1)
    many, five, one = distinct(model)
    assert many > 60
    assert one > 1
    assert five == 5


def test_a_second_call_ties_the_present_values(digits):
    model = clustered()
    keep_clusters(model)
    kernel = model.get_layer("head").kernel
    kernel.assign(np.where(np.asarray(kernel) > 0, 0.2, -0.2))
    assert list(keep_clusters(model).values()) == [5, 5, 2]
    assert not isinstance(kernel.constraint.inner, TiedValues)
    fit(model, digits, 1)
    assert distinct(model) == [5, 5, 2]


def test_the_constraint_of_the_layer_is_applied_first():
    norm = keras.constraints.NonNeg()
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, kernel_constraint=norm)])
    model.layers[0].kernel.assign([[1, 2], [1, 2], [2, 1], [1, 2]])
    keep_clusters(model)
    moved = model.layers[0].kernel.constraint(-np.ones((4, 2), np.float32))
    np.testing.assert_array_equal(np.asarray(moved), np.zeros((4, 2)))


def test_the_training_function_of_a_trained_model_is_traced_again(digits):
    model = clustered()
    model.trainable = True
    model.compile("sgd", "mse", jit_compile=False)
    x, y = digits.x_train[:32], np.zeros((32, 10))
    kept = kernels(model)
    model.fit(x, y, verbose=0)
    for name, kernel in zip(NAMES, kept, strict=True):
        model.get_layer(name).kernel.assign(kernel)
    keep_clusters(model)
    model.fit(x, y, verbose=0)
    assert distinct(model) == [5, 5, 5]


def test_layers_of_one_name_and_kernels_of_one_layer():
    inner = keras.Sequential([keras.Input((3, 4)), layers.GRU(4, name="same")])
    inputs = keras.Input((3, 4))
    joined = layers.Concatenate()([inner(inputs), layers.GRU(2, name="same")(inputs)])
    model = keras.Model(inputs, layers.Dense(3, name="head")(joined))
    for weight in model.trainable_weights:
        if weight.name.endswith("kernel"):
            weight.assign(np.sign(weight))
    found = keep_clusters(model)
    assert sorted(found) == [
        "gru_cell",
        "gru_cell#2",
        "gru_cell/recurrent_kernel",
        "gru_cell/recurrent_kernel#2",
        "head",
    ]


@pytest.mark.parametrize("model", [None, "model", keras.Sequential([layers.Dense(2)])])
def test_other_objects_than_built_models_raise(model):
    with pytest.raises(ValueError, match=r"model must be (a Keras 3 model|built), got"):
        keep_clusters(model)


def test_a_model_without_clusters_raises():
    model = keras.Sequential([keras.Input((30,)), layers.Dense(20)], name="free")
    match = "model must have kernels with 2 to 256 distinct values, got none in 'free'"
    with pytest.raises(ValueError, match=match):
        keep_clusters(model)


def test_the_example_is_true():
    result = doctest.testmod(shared_values)
    assert result.attempted > 0
    assert result.failed == 0
