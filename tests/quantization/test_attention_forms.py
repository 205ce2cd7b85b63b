"""Attention and products of activations in integers: Keras and the file agree, masks are exact."""

import keras
import numpy as np
import pytest
from each_rounding import apart_at_each_rounding
from keras import layers, ops
from slow_cases import slow_but

import tfnas
from tfnas.quantization.attention_forms import ScoresRange
from tfnas.quantization.einsum_axes import product

WORDS, WIDTH, LENGTH = 50, 16, 8
IDS, ROWS = "ids", "rows"


def _head(x):
    return layers.Dense(4)(ops.reshape(x, (-1, int(np.prod(x.shape[1:])))))


def _attends(**options):
    call = {k: options.pop(k) for k in ("use_causal_mask",) if k in options}
    return lambda x: _head(layers.MultiHeadAttention(2, 8, name="mha", **options)(x, x, **call))


MODELS = {
    "multi-head": (ROWS, _attends()),
    "causal": (ROWS, _attends(use_causal_mask=True)),
    "padded": (IDS, _attends()),
    "padded and causal, with dropout": (IDS, _attends(dropout=0.1, use_causal_mask=True)),
    "grouped": (
        ROWS,
        lambda x: _head(layers.GroupQueryAttention(8, 4, 2)(x, x, use_causal_mask=True)),
    ),
    "plain": (IDS, lambda x: _head(layers.Attention()([x, x]))),
    "with a scale": (
        IDS,
        lambda x: _head(layers.Attention(use_scale=True, dropout=0.1)([x, x])),
    ),
    "additive": (IDS, lambda x: _head(layers.AdditiveAttention()([x, x]))),
    "additive without a scale": (
        ROWS,
        lambda x: _head(layers.AdditiveAttention(use_scale=False)([x, x[:, :5]])),
    ),
    "of joined rows": (
        ROWS,
        lambda x: _head(layers.Attention(use_scale=True, score_mode="concat")([x, x])),
    ),
    "dot": (ROWS, lambda x: _head(layers.Dot((2, 2))([layers.Dense(8)(x), x[..., :8]]))),
    "einsum dense": (
        ROWS,
        lambda x: _head(layers.EinsumDense("abc,cde->abde", (LENGTH, 2, 4), bias_axes="de")(x)),
    ),
    "einsum dense with an ellipsis": (
        ROWS,
        lambda x: _head(layers.EinsumDense("...x,xy->...y", 7)(x)),
    ),
    "masked mean": (IDS, lambda x: layers.Dense(4)(layers.GlobalAveragePooling1D()(x))),
}


def _model(kind, build):
    keras.utils.set_random_seed(3)
    if kind == ROWS:
        inputs = x = keras.Input((LENGTH, WIDTH))
    else:
        inputs = keras.Input((LENGTH,), dtype="int32")
        x = layers.Embedding(WORDS, WIDTH, "normal", mask_zero=True)(inputs)
    model = keras.Model(inputs, build(x))
    rng = np.random.default_rng(2)
    for weight in model.weights:
        if weight.name in ("scale", "concat_score_weight"):
            weight.assign(0.2 + 0.2 * rng.random(weight.shape))
        if "bias" in weight.name or weight.name == "embeddings":
            weight.assign(rng.normal(size=weight.shape) * (1.0 if weight.name[0] == "e" else 0.1))
    return model


def _data(kind):
    rng = np.random.default_rng(4)
    if kind == ROWS:
        return rng.normal(size=(48, LENGTH, WIDTH)).astype("float32")
    ids = rng.integers(1, WORDS, (48, LENGTH)).astype("int32")
    return ids * (np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (48, 1)))


def outputs(model, x):
    """What `predict` returns, which would trace each model first."""
    return np.asarray(model(x, training=False))


# Masks alone and together are one form; each part of the others is in another one.
SLOW = (
    "einsum dense with an ellipsis",
    "causal",
    "padded",
    "additive without a scale",
    "of joined rows",
)
FAST = [kind for kind in MODELS if kind not in SLOW]


@pytest.fixture(scope="module", params=slow_but([*MODELS], *FAST))
def case(request):
    kind, build = MODELS[request.param]
    model, data = _model(kind, build), _data(kind)
    return model, tfnas.quantize_aware(model, "int8", data=data), data


def test_file_is_of_integers_and_agrees_with_keras(case):
    model, aware, data = case
    file = tfnas.to_tflite(aware, "int8")
    names = [op.name for op in file.graph.operators]
    tensors = [t.dtype for op in file.graph.operators for t in (*op.inputs, *op.outputs)]
    assert not any(dtype.startswith("float") for dtype in tensors), names
    assert not tfnas.unquantized_layers(aware)
    expected = outputs(aware, data)
    steps = np.abs(file.predict(data) - expected) / file.outputs[0].scale
    assert np.median(steps) <= 1.01
    assert steps.max() < 4.5
    exact = outputs(model, data)
    assert np.abs(expected - exact).mean() < 0.05 * np.abs(exact).max()


def test_strip_gives_the_float_function_back(case):
    model, aware, data = case
    stripped = tfnas.strip_quantization(aware)
    assert all(type(layer).__module__.startswith("keras.") for layer in stripped.layers)
    np.testing.assert_allclose(outputs(stripped, data), outputs(model, data), atol=1e-5)


@pytest.mark.parametrize("case", slow_but([*MODELS], "multi-head", "grouped"), indirect=True)
def test_saved_models_load(case, tmp_path):
    _, aware, data = case
    aware.save(tmp_path / "aware.keras")
    loaded = tfnas.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(outputs(loaded, data), outputs(aware, data))


def test_zeros_of_pruned_projections_stay():
    kind, build = MODELS["multi-head"]
    model, _ = tfnas.prune(_model(kind, build), 0.5)
    aware = tfnas.quantize_aware(model, "int8", data=_data(kind))
    aware.compile("adam", "mse", run_eagerly=True)
    aware.fit(_data(kind), np.zeros((48, 4)), verbose=0)
    inner = [layer.layer for layer in aware.layers if hasattr(layer, "layer")]
    projections = [layer for layer in inner if isinstance(layer, layers.EinsumDense)]
    assert len(projections) == 4
    for layer in projections:
        assert 0.4 < np.mean(np.asarray(layer.kernel) == 0) < 0.6


def _with_scales(x):
    """One layer that is called twice, and one of features."""
    attention = layers.Attention(use_scale=True, name="attention")
    x = attention([attention([x, x]), x])
    return _head(layers.AdditiveAttention(name="additive")([x, x]))


@pytest.mark.parametrize("mode", slow_but(["int8", "int16x8"], "int8"))
def test_scales_are_trained_with_each_rounding_of_the_file(mode):
    model, data = _model(ROWS, _with_scales), _data(ROWS)
    aware = tfnas.quantize_aware(model, mode, data=data)
    before = [np.array(weight) for weight in aware.trainable_weights]
    assert len(before) == len(model.trainable_weights)
    aware.compile("sgd", "mse", run_eagerly=True)
    aware.fit(data, np.ones((48, 4)), verbose=0)
    assert all(np.any(old != new) for old, new in zip(before, aware.trainable_weights, strict=True))
    file = tfnas.to_tflite(aware, mode)
    apart = apart_at_each_rounding(aware, file, data)
    most = max(steps for steps in apart.values() if steps is not None)
    # TFLite's TANH and SOFTMAX of 16 bits interpolate between the places of a table.
    assert most <= (1.01 if mode == "int8" else 8.0), apart
    numbers = [t.dtype for op in file.graph.operators for t in (*op.inputs, *op.outputs)]
    assert not any(dtype.startswith("float") for dtype in numbers)


def test_a_scale_has_the_bits_of_its_attention():
    model = _model(ROWS, _with_scales)
    spec = tfnas.QuantSpec("int4", layers={"AdditiveAttention": "int8"})
    aware = tfnas.quantize_aware(model, spec)
    found = {each.layer.name: each.bits for each in aware.layers if hasattr(each, "layer")}
    assert (found["attention_scale"], found["additive_scale"]) == (4, 8)


def test_post_training_integers_take_the_same_forms():
    kind, build = MODELS["padded"]
    model, data = _model(kind, build), _data(kind)
    file = tfnas.to_tflite(model, "int8", data)
    assert "SELECT_V2" in [op.name for op in file.graph.operators]
    exact = outputs(model, data)
    assert np.abs(file.predict(data) - exact).mean() < 0.05 * np.abs(exact).max()


ISLANDS = [
    ("padded and causal, with dropout", "Softmax", "int8"),
    ("padded and causal, with dropout", "Softmax", "int16"),
    ("padded and causal, with dropout", "Where", "int8"),
    ("padded and causal, with dropout", "Rescaling", "int8"),
    ("grouped", "Softmax", "int8"),
    ("plain", "Softmax", "int8"),
    ("additive", "Where", "int8"),
    ("additive", "tanh", "int8"),
]


@pytest.mark.parametrize(
    ("name", "pattern", "activations"), slow_but(ISLANDS, ISLANDS[0], ISLANDS[2], ISLANDS[3])
)
def test_parts_of_masked_attention_may_stay_float(name, pattern, activations):
    """In training and after it; a mask of floats is not rounded before its softmax."""
    kind, build = MODELS[name]
    model, data = _model(kind, build), _data(kind)
    spec = tfnas.QuantSpec("int8", activations, layers={pattern: "float32"})
    aware = tfnas.quantize_aware(model, spec, data=data)
    left = {each.kind for each in tfnas.unquantized_layers(aware)}
    expected = {"Where": {"Where", "Softmax"}, "tanh": {"Activation"}}
    assert left == expected.get(pattern, {pattern})
    file = tfnas.to_tflite(aware, spec)
    after_training = tfnas.to_tflite(model, spec, data)
    np.testing.assert_array_equal(file.predict(data), after_training.predict(data))
    exact = outputs(model, data)
    assert np.abs(file.predict(data) - exact).mean() < 0.03 * np.abs(exact).max()
    assert np.abs(file.predict(data) - outputs(aware, data)).max() < 0.05 * np.abs(exact).max()


def test_masked_places_get_at_most_one_step_together():
    scores = np.random.default_rng(5).normal(0.0, 3.0, (64, 32)).astype("float32")
    mask = np.arange(32) < np.random.default_rng(6).integers(1, 33, (64, 1))
    layer = ScoresRange()
    layer.observing = True
    weights = np.asarray(ops.softmax(layer(scores, mask)))
    assert (weights * ~mask).sum(axis=1).max() <= 1 / 256
    exact = np.asarray(ops.softmax(np.where(mask, scores, -1e9)))
    assert np.abs(weights - exact).max() < 0.02


@pytest.mark.parametrize(
    ("equation", "ranks", "expected"),
    [
        ("btnh,bsnh->bnts", (4, 4), ("bn", "h", "t", "s")),
        ("...x,xy->...y", (3, 2), ("", "x", "ab", "y")),
        ("ab,bc->c", (2, 2), None),
        ("aa,ab->ab", (2, 2), None),
        ("ab->a", (2,), None),
    ],
)
def test_axes_of_products(equation, ranks, expected):
    axes = product(equation, ranks)
    found = axes and (axes.batch, axes.summed, axes.own(axes.first), axes.own(axes.second))
    assert found == expected
