"""tfnas.prune: worked examples, copies of all kinds of models, scores by hand."""

import doctest
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.pruning import prune
from tfnas.pruning.prunable_kernels import find_kernels

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(64, 16)).astype(np.float32)
Y = DRAW.normal(size=(64, 4)).astype(np.float32)
TENTHS = np.linspace(0.1, 1.0, 10, dtype=np.float32)


def network(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(8, "tanh", name="hidden"),
            layers.Dense(4, name="head"),
        ],
        name="net",
    )


def zeros(model):
    return [int((k.numpy() == 0).sum()) for k in find_kernels(model)[0]]


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


# The worked examples


def tenths(weights):
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1, use_bias=False, name="only")])
    model.get_layer("only").kernel.assign(np.reshape(weights, (10, 1)))
    return model


def mean(y, prediction):
    """A loss whose gradient with respect to a Dense(1) kernel is the mean of the inputs."""
    return prediction


IMPORTANCE = {"criterion": "gradient", "data": (TENTHS[None], np.zeros((1, 1))), "loss": mean}


@pytest.mark.parametrize("sign", [1, -1])
def test_a_threshold_of_0_5_keeps_magnitudes_from_0_5_on(sign):
    model = tenths(sign * TENTHS)
    pruned, report = tfnas.prune(model, threshold=0.5)
    kept = np.where(TENTHS >= 0.5, sign * TENTHS, 0)
    np.testing.assert_array_equal(pruned.get_weights()[0].ravel(), kept)
    assert (report.zeros, report.weights) == (4, 10)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_threshold_of_0_5_keeps_importances_from_0_5_on(sign):
    weights = np.linspace(5, 7, 10)[::-1]  # in another order than the importance
    data = sign * TENTHS[None], np.zeros((1, 1))
    pruned, report = tfnas.prune(
        tenths(weights), threshold=0.5, criterion="gradient", data=data, loss=mean
    )
    kept = np.where(TENTHS >= 0.5, weights, 0)
    np.testing.assert_allclose(pruned.get_weights()[0].ravel(), kept, rtol=1e-6)
    assert (report.zeros, report.weights) == (4, 10)


def test_a_threshold_of_0_5_keeps_taylor_scores_from_0_5_on():
    # The importance |w dL/dw| is 0.1 to 1.0 where all gradients are 1.
    data = np.ones((1, 10)), np.zeros((1, 1))
    _, report = tfnas.prune(tenths(TENTHS), threshold=0.5, criterion="taylor", data=data, loss=mean)
    assert report.zeros == 4


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
@pytest.mark.parametrize("tenth", slow_but([*range(1, 11)], 1, 3, 7))
@pytest.mark.parametrize("by", ["magnitude", "importance"])
def test_a_score_equal_to_the_threshold_stays_in_each_precision(by, tenth, kind):
    threshold = kind(tenth / 10)
    more = IMPORTANCE if by == "importance" else {}
    _, report = tfnas.prune(tenths(TENTHS), threshold=threshold, **more)
    assert report.zeros == tenth - 1


def test_a_threshold_may_prune_all_or_nothing():
    assert tfnas.prune(network(), threshold=0.0)[1].zeros == 0
    assert tfnas.prune(network(), threshold=-1)[1].zeros == 0
    assert tfnas.prune(network(), threshold=100)[1].sparsity == 1.0


# The copy and the model


def test_the_model_is_not_changed_and_the_copy_has_the_kept_weights():
    model = network()
    model.compile("sgd", "mse", run_eagerly=True)
    before = model.get_weights()
    pruned, report = tfnas.prune(model, 0.75)
    same(model.get_weights(), before)
    assert all(k.variable.constraint is None for k in find_kernels(model)[0])
    assert model.compiled
    assert not pruned.compiled
    assert zeros(pruned) == [96, 24]
    assert report.sparsity == 0.75
    for kept, weight in zip(pruned.get_weights(), before, strict=True):
        assert ((kept == weight) | (kept == 0)).all()
    same(pruned.get_weights()[1::2], before[1::2])
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in model.layers]


@pytest.mark.parametrize("sparsity", [0.0, 0.001, 0.33, 0.5, 0.9, 0.999])
def test_the_sparsity_is_exact_to_half_a_weight_per_layer(sparsity):
    report = tfnas.prune(network(), sparsity)[1]
    for kernel in report.kernels:
        expected = min(round(sparsity * kernel.weights), kernel.weights - 1)
        assert kernel.zeros == expected


def test_the_lowest_magnitudes_are_pruned():
    model = network()
    weights = model.layers[0].kernel.numpy()
    pruned, _ = tfnas.prune(model, 0.5)
    gone = pruned.layers[0].kernel.numpy() == 0
    assert np.abs(weights)[gone].max() < np.abs(weights)[~gone].min()


def test_two_calls_give_the_same_copy_and_seeds_order_equal_scores():
    model = network()
    model.layers[0].kernel.assign(np.ones((16, 8)))
    one, two, other = (tfnas.prune(model, 0.5, seed=seed)[0].get_weights() for seed in (1, 1, 2))
    same(one, two)
    assert (one[0] != other[0]).any()
    one, two, other = (
        tfnas.prune(model, 0.5, criterion="random", seed=seed)[0].get_weights()
        for seed in (1, 1, 2)
    )
    same(one, two)
    assert (one[0] != other[0]).any()


def test_zeros_stay_when_the_copy_is_trained():
    pruned, _ = tfnas.prune(network(), 0.75)
    before = [w == 0 for w in pruned.get_weights()[::2]]
    optimizer = keras.optimizers.AdamW(0.05, weight_decay=0.1)
    pruned.compile(optimizer, "mse", steps_per_execution=2, jit_compile=False)
    pruned.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    same([w == 0 for w in pruned.get_weights()[::2]], before)


def test_pruning_twice_and_pruning_a_model_with_masks():
    once, _ = tfnas.prune(network(), 0.5)
    twice, _ = tfnas.prune(once, 0.75)
    assert (zeros(once), zeros(twice)) == ([64, 16], [96, 24])
    for one, two in zip(once.get_weights()[::2], twice.get_weights()[::2], strict=True):
        assert (two[one == 0] == 0).all()
    once.compile("sgd", "mse", run_eagerly=True)
    pruning = tfnas.PruningCallback(0.25)  # a lower sparsity: weights become nonzero again
    once.fit(X, Y, batch_size=8, verbose=0, callbacks=[pruning])
    assert zeros(once)[1] == 8


def test_a_copy_is_saved_and_converted_like_any_model(tmp_path):
    pruned, report = tfnas.prune(network(), 0.5)
    pruned.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    same(loaded.get_weights(), pruned.get_weights())
    constants = [
        np.frombuffer(tensor.constant, np.float32)
        for tensor in tfnas.to_tflite(loaded).graph.tensors
        if tensor.constant and tensor.dtype == "float32" and len(tensor.shape) == 2
    ]
    assert sum(int((c == 0).sum()) for c in constants) == report.zeros == 80


class Named(keras.Model):
    """A subclassed model whose layers have names."""

    def __init__(self, units=8, **more):
        super().__init__(**more)
        self.units = units
        self.a = layers.Dense(units, "tanh", name="a")
        self.b = layers.Dense(4, name="b")

    def call(self, x):
        return self.b(self.a(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Unnamed(Named):
    """Keras numbers the layers, so those of a copy have other names."""

    def __init__(self, units=8, **more):
        keras.Model.__init__(self, **more)
        self.units = units
        self.a, self.b = layers.Dense(units, "tanh"), layers.Dense(4)


class Twins(Unnamed):
    """Two layers of one name."""

    def __init__(self, units=8, **more):
        keras.Model.__init__(self, **more)
        self.units = units
        self.a, self.b = layers.Dense(16, "tanh", name="d"), layers.Dense(16, name="d")


@pytest.mark.parametrize("kind", [Named, Unnamed, Twins])
def test_subclassed_models_are_copied(kind):
    keras.utils.set_random_seed(0)
    model = kind()
    model(X[:1])
    before = model.get_weights()
    pruned, report = tfnas.prune(model, 0.5)
    same(model.get_weights(), before)
    for layer, weights in ((pruned.a, before[0]), (pruned.b, before[2])):
        kernel = layer.kernel.numpy()
        assert (kernel == 0).sum() == weights.size // 2
        assert np.abs(weights)[kernel == 0].max() < np.abs(weights)[kernel != 0].min()
    assert [kernel.sparsity for kernel in report.kernels] == [0.5, 0.5]


class NotCopied(keras.Model):
    def __init__(self, size):
        super().__init__()
        self.d = layers.Dense(size)

    def call(self, x):
        return self.d(x)


class NotOpened(NotCopied):
    def call(self, x):
        return tf.nn.relu(self.d(x))  # takes no symbolic tensor


def test_a_model_that_cant_be_copied_is_opened_or_raises_with_the_reason():
    model = NotCopied(4)
    model(X[:1])
    assert tfnas.prune(model, 0.5)[1].sparsity == 0.5
    model = NotOpened(4)
    model(X[:1])
    with pytest.raises(ValueError, match=r"of class NotOpened: .*the others need a functional"):
        tfnas.prune(model, 0.5)


def nested():
    inner_in = keras.Input((4, 4))
    x = layers.MultiHeadAttention(2, 4, name="mha")(inner_in, inner_in)
    x = layers.Bidirectional(layers.LSTM(4), name="both")(x)
    inner = keras.Model(inner_in, x, name="inner")
    inputs = keras.Input((16,))
    x = inner(layers.Reshape((4, 4))(inputs))
    return keras.Model(inputs, layers.Dense(4, name="head")(x))


def images():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.SeparableConv2D(8, 3, name="separable")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(x))


def shared():
    layer = layers.Dense(16, name="shared")
    inputs = keras.Input((16,))
    return keras.Model(inputs, layer(layer(inputs)))


@pytest.mark.parametrize("make", [nested, images, shared])
def test_models_of_all_kinds_are_copied(make):
    keras.utils.set_random_seed(0)
    model = make()
    before = model.get_weights()
    pruned, report = tfnas.prune(model, 0.5)
    same(model.get_weights(), before)
    assert [k.sparsity for k in report.kernels] == [0.5] * len(find_kernels(model)[0])
    assert len(pruned.get_weights()) == len(before)


def test_the_report_has_the_skipped_layers_with_the_reason():
    report = tfnas.prune(images(), 0.5, exclude=["last", layers.SeparableConv2D])[1]
    assert [kernel.name for kernel in report.kernels] == ["conv", "depthwise"]
    assert [(s.name, s.kind, s.reason) for s in report.skipped] == [
        ("separable/depthwise_kernel", "SeparableConv2D", "excluded by SeparableConv2D"),
        ("separable/pointwise_kernel", "SeparableConv2D", "excluded by SeparableConv2D"),
        ("head", "Dense", "excluded by 'last'"),
        ("norm", "BatchNormalization", "no kernel: gamma, beta, moving_mean, moving_variance"),
    ]
    text = str(report)
    assert "skipped: excluded by 'last'" in text
    assert text.endswith("in 2 kernels are zero: sparsity 0.5000")


@pytest.mark.parametrize("granularity", ["element", "1x4", (4, 1), "2:4", "filter"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_granularities_and_scopes_have_the_total(granularity, scope):
    model = images()
    pruned, report = tfnas.prune(model, 0.5, granularity=granularity, scope=scope)
    largest = {"element": 1, "1x4": 4, "2:4": 2, "filter": 72}.get(granularity, 4)
    allowed = len(report.kernels) * largest / 2
    assert abs(report.zeros - report.weights / 2) <= allowed
    if granularity == "2:4":
        for kernel in find_kernels(pruned)[0]:
            groups = kernel.to_file(kernel.numpy()).reshape(-1, 4)
            assert (np.count_nonzero(groups, axis=1) <= 2).all()


def test_a_dictionary_needs_no_common_sparsity():
    report = tfnas.prune(network(), scope={"hidden": 0.25})[1]
    assert [kernel.zeros for kernel in report.kernels] == [32, 0]
    report = tfnas.prune(network(), 0.5, scope={"hidden": 0.25})[1]
    assert [kernel.zeros for kernel in report.kernels] == [32, 16]
    assert tfnas.prune(network(), 0.7, scope="erk")[1].zeros == 112


# Scores by hand


def mean_gradients(model, pairs, regularized=False):
    """Mean of abs(dL/dw) over batches, weighted by their number of examples."""
    kernels = [k.variable for k in find_kernels(model)[0]]
    total = [np.zeros(k.shape) for k in kernels]
    for x, y in pairs:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=False) - y))
        for sums, slope in zip(total, tape.gradient(loss, [k.value for k in kernels]), strict=True):
            sums += len(x) * np.abs(slope.numpy())
    return [sums / sum(len(x) for x, _ in pairs) for sums in total]


PAIRS = [(X[:32], Y[:32]), (X[32:64], Y[32:64])]
DATA = {
    "arrays": ((X[:32], Y[:32]), PAIRS[:1]),
    "dataset": (tf.data.Dataset.from_tensor_slices((X, Y)).batch(32), PAIRS),
    "uneven": (
        tf.data.Dataset.from_tensor_slices((X[:40], Y[:40])).batch(32),
        [(X[:32], Y[:32]), (X[32:40], Y[32:40])],
    ),
}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("criterion", slow_but(["gradient", "taylor"], "taylor"))
@pytest.mark.parametrize("kind", DATA)
def test_loss_criteria_equal_gradients_of_a_tape(kind, criterion, compiled):
    data, pairs = DATA[kind]
    model = network()
    if compiled:
        model.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    expected = mean_gradients(model, pairs)
    weights = [k.numpy() for k in find_kernels(model)[0]]
    if criterion == "taylor":
        expected = [s * np.abs(w) for s, w in zip(expected, weights, strict=True)]
    loss = None if compiled else "mse"
    pruned, _ = tfnas.prune(model, 0.5, criterion=criterion, data=data, loss=loss)
    for kernel, score in zip(find_kernels(pruned)[0], expected, strict=True):
        gone = kernel.numpy() == 0
        assert gone.sum() == score.size // 2
        assert score[gone].max() < score[~gone].min() * (1 + 1e-5)


def test_labels_and_a_loss_object_are_taken():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(4)])
    labels = np.arange(64) % 4
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for value in (loss, "sparse_categorical_crossentropy"):
        report = tfnas.prune(model, 0.5, criterion="taylor", data=(X, labels), loss=value)[1]
        assert report.zeros == 32


def test_a_function_of_the_weights_is_a_criterion():
    pruned, _ = tfnas.prune(network(), 0.5, criterion=lambda w: -np.abs(w))
    before = np.abs(network().layers[0].kernel.numpy())
    gone = pruned.layers[0].kernel.numpy() == 0
    assert before[gone].min() > before[~gone].max()


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "one of sparsity and threshold must be given, got sparsity=None and threshold=None"),
        ({"sparsity": 0.5, "threshold": 0.1}, "one of sparsity and threshold must be given, got"),
        ({"threshold": 0.1, "sparsity": 0}, "one of sparsity and threshold must be given, got"),
        ({"sparsity": 1.0}, "sparsity must be in [0, 1), got 1.0"),
        ({"sparsity": -0.1}, "sparsity must be in [0, 1), got -0.1"),
        ({"sparsity": float("nan")}, "sparsity must be in [0, 1), got nan"),
        ({"sparsity": "half"}, "sparsity must be a number in [0, 1), got 'half'"),
        ({"threshold": float("nan")}, "threshold must be a finite number, got nan"),
        ({"threshold": float("inf")}, "threshold must be a finite number, got inf"),
        ({"threshold": "0.5"}, "threshold must be a finite number, got '0.5'"),
        ({"sparsity": 0.5, "criterion": "l1"}, "criterion must be one of magnitude, gradient"),
        ({"sparsity": 0.5, "criterion": "taylor"}, "data must be given for criterion 'taylor'"),
        ({"sparsity": 0.5, "criterion": "taylor", "data": (X, Y)}, "loss must be set if the "
         "model is not compiled, got None for 'net'"),
        ({"sparsity": 0.5, "criterion": "taylor", "data": (X, Y), "loss": {"a": "mse"}}, "loss "
         "must be a name or a function, got {'a': 'mse'}"),
        ({"sparsity": 0.5, "criterion": "taylor", "data": X, "loss": "mse"}, "data must hold "
         "inputs and targets, got inputs alone"),
        ({"sparsity": 0.5, "criterion": "taylor", "data": (X * np.nan, Y), "loss": "mse"},
         "gradients must be finite, got NaN or inf for 'hidden' and 1 more"),
        ({"sparsity": 0.5, "layers": "hiden"}, "layers must name layers with a kernel, got"),
        ({"sparsity": 0.5, "exclude": "hiden"}, "exclude must name layers with a kernel"),
        ({"sparsity": 0.5, "exclude": "*"}, "layers and exclude must leave a kernel"),
        ({"sparsity": 0.6, "granularity": "2:4"}, "sparsity must be at most 0.5 with granularity"),
        ({"sparsity": 0.5, "granularity": "3:5"}, "granularity '3:5' must divide the kernel's"),
        ({"sparsity": 0.5, "granularity": "row"}, "granularity must be 'element', 'filter'"),
        ({"sparsity": 0.5, "scope": "model"}, "scope must be one of layer, global, erk"),
        ({"scope": {"tail": 0.5}}, "scope must name layers with a kernel, got 'tail'"),
        ({"scope": {"head": 1.5}}, "scope must be in [0, 1) for 'head', got 1.5"),
        ({"scope": {"head": 0.75}, "granularity": "2:4"}, "sparsity must be at most 0.5 with"),
    ],
)  # fmt: skip
def test_errors_name_argument_rule_and_value_and_do_not_change_the_model(arguments, message):
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match=re.escape(message)):
        tfnas.prune(model, **arguments)
    same(model.get_weights(), before)


def test_other_objects_than_built_models_raise():
    with pytest.raises(ValueError, match="model must be a Keras 3 model, got str"):
        tfnas.prune("model.keras", 0.5)
    with pytest.raises(ValueError, match="model must be built"):
        tfnas.prune(keras.Sequential([layers.Dense(2)]), 0.5)
    flat = keras.Sequential([keras.Input((4,)), layers.Flatten()])
    with pytest.raises(ValueError, match="leave a kernel, got none of 0: no layer has weights"):
        tfnas.prune(flat, 0.5)
    integers = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="head")])
    integers.get_layer("head").quantize("int8")
    for technique, amount in ((tfnas.prune, 0.5), (tfnas.cluster, 4)):
        with pytest.raises(ValueError, match="got none of 0: Dense 'head': quantized already"):
            technique(integers, amount)


def test_the_example_is_true():
    result = doctest.testmod(prune)
    assert result.attempted > 0
    assert result.failed == 0


def plain_loss(y, prediction):
    """A custom loss that is not registered with Keras."""
    return keras.ops.mean(keras.ops.square(prediction - y))


class Weighted(keras.losses.Loss):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def call(self, y, prediction):
        return self.weight * plain_loss(y, prediction)


@pytest.mark.parametrize(
    "compiled",
    [
        {"loss": plain_loss},
        {"loss": Weighted(2.0)},
        {"loss": lambda y, prediction: plain_loss(y, prediction)},
        {"loss": "mse", "metrics": [plain_loss]},
        {"loss": "mse", "optimizer": type("Own", (keras.optimizers.SGD,), {})()},
    ],
    ids=["function", "class", "lambda", "metric", "optimizer"],
)
def test_a_model_compiled_with_objects_that_keras_cant_serialize_is_copied(compiled):
    model = network()
    model.compile(run_eagerly=True, **compiled)
    assert tfnas.prune(model, 0.5)[1].zeros == 80
    report = tfnas.prune(model, 0.5, criterion="taylor", data=(X, Y))[1]
    assert report.zeros == 80


@pytest.mark.parametrize("settings", [{"reconstruct": True}, {"criterion": "obs"}])
def test_present_zeros_stay_zero_in_reconstruction(settings):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6), layers.Dense(3)])
    x = np.random.default_rng(0).normal(size=(100, 8)).astype("float32")
    sparse, first = tfnas.prune(model, 0.75)
    _, second = tfnas.prune(sparse, 0.5, data=x, **settings)
    assert [k.zeros for k in second.kernels] == [k.zeros for k in first.kernels]


def test_several_inputs_and_targets_may_be_dictionaries():
    one, two = keras.Input((4,), name="one"), keras.Input((3,), name="two")
    joined = layers.Concatenate()([one, two])
    model = keras.Model(
        {"one": one, "two": two},
        {"a": layers.Dense(2, name="a")(joined), "b": layers.Dense(1, name="b")(joined)},
    )
    model.compile("sgd", {"a": "mse", "b": "mse"})
    rng = np.random.default_rng(0)
    x = {"one": rng.normal(size=(20, 4)), "two": rng.normal(size=(20, 3))}
    y = {"a": rng.normal(size=(20, 2)), "b": rng.normal(size=(20, 1))}
    _, report = tfnas.prune(model, 0.5, criterion="taylor", data=(x, y))
    assert report.zeros == 7 + 4
