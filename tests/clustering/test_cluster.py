"""tfnas.cluster: at most k values per kernel, in the model, saved models and .tflite files."""

import doctest
import json

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.clustering import batchnorm_folding, clustering_callback, clustering_report
from tfnas.clustering import cluster as cluster_module
from tfnas.clustering.batchnorm_folding import fold_batchnorm
from tfnas.clustering.cluster import cluster
from tfnas.clustering.clusterable_kernels import find_kernels
from tfnas.clustering.clustering_callback import ClusteringCallback
from tfnas.clustering.clustering_report import ClusteringReport
from tfnas.tflite.file_weights import read_kernels

_LAST = ("DEPTHWISE_CONV_2D", "CONV_3D")


def built(parts, shape=(8, 8, 3), seed=0):
    """A model whose weights and statistics are never 0 or 1."""
    keras.utils.set_random_seed(seed)
    model = parts if isinstance(parts, keras.Model) else keras.Sequential([keras.Input(shape)])
    if model is not parts:
        for part in parts:
            model.add(part)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 2.0, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(size=weight.shape))
    return model


def classifier():
    return built(
        [
            layers.Rescaling(1 / 255, 0.1),
            layers.Conv2D(8, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="deep"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.SeparableConv2D(8, 3, name="split"),
            layers.BatchNormalization(),
            layers.Conv2DTranspose(6, 3, name="wide"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.BatchNormalization(name="before"),
            layers.Dropout(0.1),
            layers.Dense(20, name="body"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dense(10, name="head"),
        ]
    )


def images(shape=(8, 8, 3), n=40):
    return np.random.default_rng(0).uniform(0, 255, (n, *shape)).astype(np.float32)


def most(file):
    """The largest number of distinct values of a kernel of a file, and of an output channel."""
    per_kernel, per_channel = 0, 0
    for kernel in read_kernels(file):
        axis = -1 if kernel.operator in _LAST else 0
        per_kernel = max(per_kernel, len(np.unique(kernel.values)))
        parts = [len(np.unique(part)) for part in np.moveaxis(kernel.values, axis, 0)]
        per_channel = max(per_channel, *parts)
    return per_kernel, per_channel


def distinct(model, granularity="layer"):
    return {
        k.name: max(len(np.unique(g)) for g in k.groups(k.numpy(), granularity))
        for k in find_kernels(model)[0]
    }


# --- number of values in the artifacts


@pytest.fixture(scope="module")
def example():
    """A model, its clustered copy of at most 6 values per kernel, the report, and the file."""
    model = classifier()
    before = [np.array(w) for w in model.weights]
    clustered, report = cluster(model, 6)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    return model, clustered, report, tfnas.to_tflite(clustered)


def test_a_saved_model_has_at_most_k_values(example, tmp_path):
    _, clustered, report, _ = example
    names = ["stem", "deep", "split/depthwise_kernel", "split/pointwise_kernel", "wide", "body"]
    assert [kernel.name for kernel in report.kernels] == [*names, "head"]
    assert {kernel.after for kernel in report.kernels} == {6}
    clustered.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")  # plain Keras
    assert max(distinct(loaded).values()) == 6
    assert not any(w.constraint for w in loaded.trainable_weights)


def test_the_float_file_has_at_most_k_values(example):
    model, clustered, report, file = example
    assert set(report.folded) == {"stem", "deep", "split", "wide", "body"}
    assert report.skipped == ()
    assert most(file)[0] == 6
    expected = clustered.predict(images(), verbose=0)
    np.testing.assert_allclose(file.predict(images()), expected, rtol=1e-3, atol=1e-3)
    assert file.gzip_size < tfnas.to_tflite(model).gzip_size


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "each"), [("float16", 0), ("weights8", 1), ("dynamic", 1)])
def test_other_files_have_at_most_k_values(example, mode, each):
    assert most(tfnas.to_tflite(example[1], mode))[each] <= 6


def test_without_folding_the_file_has_k_values_per_channel_and_the_report_has_a_note():
    model = built([layers.Conv2D(8, 3, name="stem"), layers.BatchNormalization(name="norm")])
    clustered, report = cluster(model, 6, fold=False)
    per_kernel, per_channel = most(tfnas.to_tflite(clustered))
    assert per_kernel > 6
    assert per_channel <= 6
    assert report.kernels[0].note == "BatchNormalization norm multiplies each channel in the file"


def test_values_per_channel_need_no_folding_of_a_normalization_after_the_layer():
    clustered, report = cluster(classifier(), 4, granularity="channel")
    # A normalization before a Dense layer multiplies the rows of its kernel.
    assert report.folded == ("body",)
    assert {kernel.after for kernel in report.kernels} == {4}
    assert max(distinct(clustered, "channel").values()) == 4
    assert most(tfnas.to_tflite(clustered))[1] == 4


def test_kernels_with_few_weights_per_channel_are_skipped():
    _, report = cluster(classifier(), 9, granularity="channel")
    named = {s.name: s.reason for s in report.skipped}
    assert named["deep"] == "has 9 weights per channel, not more than clusters"


@pytest.mark.parametrize(
    ("parts", "shape"),
    [
        ([layers.Conv1D(6, 3, name="k"), layers.BatchNormalization()], (9, 8)),
        pytest.param(
            [layers.DepthwiseConv1D(3, name="k"), layers.BatchNormalization()],
            (9, 8),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [layers.SeparableConv1D(6, 3, name="k"), layers.BatchNormalization()],
            (9, 8),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [layers.Conv1DTranspose(6, 3, name="k"), layers.BatchNormalization()],
            (9, 8),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [layers.Conv3D(6, 2, name="k"), layers.BatchNormalization()],
            (4, 4, 4, 3),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [layers.Conv2D(6, 3, dilation_rate=2, name="k"), layers.BatchNormalization()],
            (8, 8, 3),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [layers.Conv2D(6, 3, groups=3, name="k"), layers.BatchNormalization()],
            (8, 8, 6),
            marks=pytest.mark.slow,
        ),
        ([layers.Dense(9, name="k"), layers.BatchNormalization(scale=False)], (5, 8)),
        ([layers.BatchNormalization(), layers.Dense(9, name="k")], (8,)),
        pytest.param([layers.EinsumDense("ab,bc->ac", 9, name="k")], (8,), marks=pytest.mark.slow),
        pytest.param(
            [layers.Normalization(mean=[0.1] * 8, variance=[2.0] * 8), layers.Dense(9)],
            (8,),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [layers.BatchNormalization(), layers.Flatten(), layers.Dense(9)],
            (4, 4, 2),
            marks=pytest.mark.slow,
        ),
        pytest.param([layers.GRU(5, unroll=True)], (4, 8), marks=pytest.mark.slow),
    ],
    ids=lambda value: value[0].__class__.__name__ if isinstance(value, list) else "",
)
def test_every_kind_of_layer_in_the_file(parts, shape):
    clustered, report = cluster(built(parts, shape), 4)
    assert not any(kernel.note for kernel in report.kernels)
    assert most(tfnas.to_tflite(clustered))[0] <= 4


@pytest.mark.slow
def test_integer_files_have_k_values_per_channel(digits):
    model = built(
        [
            layers.Rescaling(1 / 16),
            layers.Conv2D(8, 3, name="stem"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10, name="head"),
        ],
        (8, 8, 1),
    )
    clustered, _ = cluster(model, 8)
    file = tfnas.to_tflite(clustered, "int8", digits.x_train[:100])
    assert most(file)[1] <= 8
    dynamic = tfnas.to_tflite(clustered, "dynamic")
    assert most(dynamic)[1] <= 8


def test_zeros_of_a_pruned_model_stay_and_count_as_one_of_the_values():
    pruned, pruning = tfnas.prune(
        built(
            [layers.Conv2D(8, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(9)]
        ),
        0.6,
    )
    clustered, report = cluster(pruned, 5)
    assert report.total("zeros") == pruning.zeros
    file = tfnas.to_tflite(clustered)
    assert tfnas.file_sparsity(file).zeros == pruning.zeros
    assert most(file)[0] == 5
    for kernel in find_kernels(clustered)[0]:
        assert not np.signbit(kernel.numpy()[kernel.numpy() == 0]).any()
    assert cluster(pruned, 5, zeros=False)[1].total("zeros") < pruning.zeros


def test_a_few_zeros_do_not_stay_unless_requested():
    model = built([layers.Dense(20, name="d")], (40,))
    values = np.array(model.layers[0].kernel)
    values[0, :3] = 0.0
    model.layers[0].kernel.assign(values)
    assert cluster(model, 4)[1].kernels[0].zeros == 0
    assert cluster(model, 4, zeros=True)[1].kernels[0].zeros == 3


def test_kernels_with_few_values_are_kept():
    model = built([layers.Dense(20, name="d")], (40,))
    model.layers[0].kernel.assign(np.round(np.array(model.layers[0].kernel), 1))
    clustered, report = cluster(model, 16)
    assert report.kernels[0].error == 0.0
    np.testing.assert_array_equal(clustered.layers[0].kernel, model.layers[0].kernel)


# --- selection of layers


def nested():
    inner = keras.Sequential(
        [keras.Input((6, 6, 4)), layers.Conv2D(8, 3, name="a"), layers.BatchNormalization()],
        name="inner",
    )
    inputs = keras.Input((6, 6, 4))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    x = inner(shared(shared(inputs)))
    x = layers.MultiHeadAttention(2, 4, name="mha")(*[layers.Reshape((16, 8))(x)] * 2)
    return built(keras.Model(inputs, layers.Dense(5, name="head")(layers.Flatten()(x))))


def test_nested_models_and_shared_layers_are_clustered_once():
    clustered, report = cluster(nested(), 4, exclude="mha")
    assert [k.name for k in report.kernels] == ["shared", "inner/a", "head"]
    assert report.folded == ("inner/a",)
    assert sum(s.reason == "excluded by 'mha'" for s in report.skipped) == 4
    file = tfnas.to_tflite(clustered)
    counts = {kernel.layer: len(np.unique(kernel.values)) for kernel in read_kernels(file)}
    assert counts["shared"] == counts["a"] == counts["head"] == 4


def test_inner_layers_of_a_folded_model_are_clustered():
    clustered, report = cluster(nested(), 4)
    names = {f"mha/{part}" for part in ("query", "key", "value", "attention_output")}
    assert names < {kernel.name for kernel in report.kernels}
    assert max(distinct(clustered).values()) == 4


def test_a_shared_layer_is_not_folded_and_the_report_has_the_reason():
    inputs = keras.Input((6, 6, 4))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    x = layers.BatchNormalization(name="bn")(shared(shared(inputs)))
    model = built(keras.Model(inputs, x))
    _, report = cluster(model, 4)
    assert report.folded == ()
    assert report.kernels[0].note == (
        "BatchNormalization bn multiplies each channel in the file: "
        "its layer is called several times"
    )


def test_the_first_matching_item_of_a_dictionary_counts():
    clusters = {"head": 9, "s*": 5, "wide": None, "*": 3}
    clustered, report = cluster(classifier(), clusters)
    found = {k.name: k.after for k in report.kernels}
    assert found["head"] == 9
    assert found["stem"] == found["split/pointwise_kernel"] == 5
    assert found["deep"] == found["body"] == 3
    assert ("wide", "not among clusters") in {(s.name, s.reason) for s in report.skipped}
    assert len(np.unique(clustered.get_layer("wide").kernel)) > 100


def test_first_last_and_classes_can_be_excluded():
    _, report = cluster(classifier(), 4, exclude=["first", layers.Dense, "split"])
    assert [k.name for k in report.kernels] == ["deep", "wide"]
    _, report = cluster(classifier(), 4, exclude=["depthwise", "last"])
    assert "deep" not in [k.name for k in report.kernels]


def test_embeddings_are_clustered_unless_left_out():
    model = built([layers.Embedding(50, 8, name="table"), layers.Flatten(), layers.Dense(3)], (5,))
    _, report = cluster(model, 4, embeddings=False)
    assert [k.kind for k in report.kernels] == ["Dense"]
    clustered, report = cluster(model, 4)
    assert [k.kind for k in report.kernels] == ["Embedding", "Dense"]
    held = [t for t in tfnas.to_tflite(clustered).graph.tensors if t.shape == (50, 8)]
    assert len(np.unique(np.frombuffer(held[0].constant, np.float32))) <= 4


def test_a_subclassed_model_is_copied_with_a_note_on_unknown_connections():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(9, name="d")

        def call(self, x):
            return self.dense(x)

        def get_config(self):
            return {}

        @classmethod
        def from_config(cls, config):
            return cls()

    model = Net()
    model(np.zeros((1, 8)))
    clustered, report = cluster(model, 4)
    assert len(np.unique(clustered.dense.kernel)) == 4
    assert "connections" in report.notes[0]
    with pytest.raises(ValueError, match="functional or Sequential"):
        cluster(model, 4, fold=True)


def test_a_model_of_half_precision_is_clustered():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = built([layers.Conv2D(8, 3, name="stem"), layers.BatchNormalization()])
        clustered, _ = cluster(model, 6)
    finally:
        keras.config.set_dtype_policy("float32")
    assert clustered.get_layer("stem").compute_dtype == "float16"
    assert most(tfnas.to_tflite(clustered))[0] <= 6


# --- folding


def test_a_folded_model_computes_the_same():
    for model in (classifier(), nested()):
        folded, names = fold_batchnorm(model)
        assert names
        x = images(model.input_shape[1:])
        expected = np.asarray(model(x))
        limit = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(np.asarray(folded(x)), expected, rtol=0, atol=limit)
        kinds = [type(layer).__name__ for layer in folded.layers]
        assert kinds.count("BatchNormalization") == 0


@pytest.mark.parametrize("obstacle", ["activation", "other use", "output", "axis", "training"])
def test_normalizations_that_can_not_be_folded_stay(obstacle):
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(8, 3, activation="relu" if obstacle == "activation" else None)(inputs)
    norm = layers.BatchNormalization(axis=1 if obstacle == "axis" else -1)
    x = norm(conv, training=True) if obstacle == "training" else norm(conv)
    if obstacle == "other use":
        x = layers.Add()([x, conv])
    model = built(keras.Model(inputs, [x, conv] if obstacle == "output" else x))
    folded, names = fold_batchnorm(model)
    assert names == []
    assert len(folded.layers) == len(model.layers)


def test_one_normalization_is_folded_into_two_dense_layers():
    inputs = keras.Input((8,))
    x = layers.BatchNormalization()(inputs)
    model = built(keras.Model(inputs, [layers.Dense(4, name="a")(x), layers.Dense(5, name="b")(x)]))
    folded, names = fold_batchnorm(model, ["a"])
    assert set(names) == {"a", "b"}
    for new, old in zip(folded(images((8,))), model(images((8,))), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-3)


def test_folding_a_clustered_model_raises():
    chain = [layers.Conv2D(8, 3, name="a"), layers.BatchNormalization(), layers.Flatten()]
    model = built([*chain, layers.Dense(4, name="b")], (8, 8, 3))
    few, _ = tfnas.cluster(model, 8)  # folds before clustering
    assert not [layer for layer in few.layers if type(layer).__name__ == "BatchNormalization"]
    kernel = model.get_layer("a").kernel
    kernel.assign(np.round(np.asarray(kernel) * 8) / 8)
    with pytest.raises(ValueError, match="must not be clustered before fold_batchnorm"):
        fold_batchnorm(model)


def test_folding_removes_the_regularizer_of_the_kernel():
    chain = [
        layers.Conv2D(4, 3, kernel_regularizer="l2", name="a"),
        layers.BatchNormalization(),
        layers.SeparableConv2D(
            4, 3, depthwise_regularizer="l2", pointwise_regularizer="l2", name="s"
        ),
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3, depthwise_regularizer="l2", name="d"),
        layers.BatchNormalization(),
        layers.Flatten(),
        layers.Dense(3, kernel_regularizer="l2", name="e"),
    ]
    folded, names = fold_batchnorm(built(chain, (12, 12, 2)))
    assert set(names) == {"a", "s", "d"}
    assert folded.get_layer("a").kernel_regularizer is None
    assert folded.get_layer("s").pointwise_regularizer is None
    assert folded.get_layer("s").depthwise_regularizer is not None
    assert folded.get_layer("d").depthwise_regularizer is None
    assert folded.get_layer("e").kernel_regularizer is not None


# --- errors weighted by inputs


def test_weighting_by_inputs_lowers_the_output_error():
    model = built([layers.Dense(30, use_bias=False, name="d")], (40,))
    scales = np.geomspace(0.01, 1.0, 40)
    data = np.random.default_rng(0).normal(size=(500, 40)) * scales

    def loss(**settings):
        clustered, report = cluster(model, 8, **settings)
        error = np.square(clustered.predict(data, verbose=0) - expected).mean()
        return error, report.kernels[0].error

    plain, weighted = [], []
    for seed in range(5):  # one kernel alone may gain less than 5%
        model.set_weights([np.random.default_rng(seed).normal(size=(40, 30))])
        expected = model.predict(data, verbose=0)
        (error, near), (weighted_error, far) = loss(), loss(data=data)
        plain.append(error)
        weighted.append(weighted_error)
        assert far > near
    assert np.mean(weighted) < 0.95 * np.mean(plain)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(6, 3, groups=2),
        layers.DepthwiseConv2D(3),
        layers.Conv2DTranspose(6, 3),
        layers.Conv2D(6, 3),
    ],
    ids=lambda layer: layer.__class__.__name__,
)
def test_weighting_of_convolutions(layer):
    clustered, _ = cluster(built([layer], (8, 8, 4)), 4, data=images((8, 8, 4)))
    assert max(distinct(clustered).values()) == 4


# --- the report


def test_the_report_is_right_and_restored_from_json(example):
    report = example[2]
    text = json.dumps(report.as_dict())
    assert ClusteringReport.of(json.loads(text)) == report
    head = report.kernels[-1]
    assert (head.bytes, head.before, head.after, head.shape) == (800, 200, 6, (20, 10))
    assert head.coded == 6 * 4 + 200 * 3 // 8
    assert 0 < head.huffman <= head.coded + 6
    assert head.gzip_after < head.gzip_before
    assert 0 < head.error < 0.5
    assert "total" in str(report)
    assert "BatchNormalization folded into stem" in str(report)
    with pytest.raises(ValueError, match="unknown key in ClusteredKernel: color"):
        ClusteringReport.of({"kernels": [{**report.as_dict()["kernels"][0], "color": 1}]})


def test_more_values_lower_the_error():
    model = built([layers.Dense(20, name="d")], (40,))
    errors = [cluster(model, k)[1].kernels[0].error for k in (2, 4, 16, 64)]
    assert errors == sorted(errors, reverse=True)


# --- bad arguments


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"clusters": 1}, "clusters must be a whole number from 2 to 256, got 1"),
        ({"clusters": 257}, "clusters must be a whole number from 2 to 256, got 257"),
        ({"clusters": True}, "clusters must be a whole number from 2 to 256, got True"),
        ({"clusters": 2.5}, "clusters must be a whole number from 2 to 256, got 2.5"),
        ({"clusters": None}, "clusters must be a whole number from 2 to 256, got None"),
        ({"clusters": {}}, "clusters must name a layer"),
        ({"clusters": {"head": 0}}, "from 2 to 256 for 'head', got 0"),
        ({"clusters": {1: 4}}, "clusters must name layers by strings, got 1"),
        ({"clusters": {"nothing": 4}}, "clusters must name layers with a kernel, got 'nothing'"),
        ({"granularity": "row"}, "granularity must be one of layer, channel, got 'row'"),
        ({"initialization": "x"}, "initialization must be one of kmeans.., linear, density"),
        ({"zeros": "yes"}, "zeros must be 'auto', True or False, got 'yes'"),
        ({"fold": "yes"}, "fold must be 'auto', True or False, got 'yes'"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"exclude": "nothing"}, "exclude must name layers with a kernel, got 'nothing'"),
        ({"exclude": "*"}, "clusters and exclude must leave a kernel"),
        ({"data": "images"}, "data must be arrays"),
        ({"data": np.zeros((4, 9))}, "data must fit the inputs"),
    ],
)
def test_bad_arguments_raise(settings, error):
    with pytest.raises(ValueError, match=error):
        cluster(built([layers.Dense(20, name="head")], (40,)), **settings)


@pytest.mark.parametrize("model", [None, "model", keras.Sequential([layers.Dense(2)])])
def test_other_objects_than_built_models_raise(model):
    with pytest.raises(ValueError, match=r"model must be (a Keras 3 model|built), got"):
        cluster(model)


def test_weights_that_are_not_finite_raise():
    model = built([layers.Dense(20, name="d")], (40,))
    model.layers[0].kernel.assign(np.full((40, 20), np.nan))
    with pytest.raises(ValueError, match="model must hold finite weights, got NaN or inf in 'd'"):
        cluster(model, 4)


@pytest.mark.parametrize(
    "module", [cluster_module, clustering_callback, batchnorm_folding, clustering_report]
)
def test_the_examples_are_true(module, monkeypatch):
    monkeypatch.setattr(tfnas, "cluster", cluster, raising=False)
    monkeypatch.setattr(tfnas, "ClusteringCallback", ClusteringCallback, raising=False)
    assert doctest.testmod(module).failed == 0
