"""Channels through operations, attention and recurrent layers: pruned equals masked."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops
from masked_models import assert_pruned_equals_masked
from random_graphs import random_model
from slow_cases import slow_but

from tfnas.pruning.structured.channel_groups import trace
from tfnas.pruning.structured.prune_channels import prune_channels
from tfnas.pruning.structured.slicing import slice_channels


def image_model(through, width=8):
    """A convolution "a", an operation, and a convolution."""
    inputs = keras.Input((4, 6, 3))
    x = through(layers.Conv2D(width, 1, name="a")(inputs))
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def token_model(through, width=8, places=5):
    """An embedding of tokens by a Dense layer "a", an operation, and a Dense layer."""
    inputs = keras.Input((places, 3))
    x = through(layers.Dense(width, name="a")(inputs))
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def two_halves(x):
    one, other = ops.split(x, 2, axis=-1)
    return layers.Conv2D(4, 1, name="b")(one) + layers.Conv2D(4, 1, name="c")(other)


def shuffled(x):
    groups = ops.reshape(x, (-1, 4, 6, 2, 4))
    return ops.reshape(ops.transpose(groups, (0, 1, 2, 4, 3)), (-1, 4, 6, 8))


def pixels(x):
    apart = ops.transpose(ops.reshape(x, (-1, 4, 6, 2, 2, 2)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(apart, (-1, 8, 12, 2))


def windows(x):
    apart = ops.reshape(x, (-1, 2, 2, 3, 2, 8))
    return ops.reshape(ops.transpose(apart, (0, 1, 3, 2, 4, 5)), (-1, 4, 8))


IMAGES = {
    "reversed": lambda x: x[..., ::-1],
    "every other": lambda x: x[..., 1::2],
    "a part": lambda x: x[..., 2:7],
    "places": lambda x: x[:, 1:, ::2],
    "one place": lambda x: x[:, 0],
    "new axis": lambda x: x[:, None, ..., :5],
    "split": two_halves,
    "split at": lambda x: ops.concatenate(ops.split(x, [3, 5], axis=-1)[::2], axis=-1),
    "taken": lambda x: ops.take(x, [5, 0, 2], axis=-1),
    "rolled": lambda x: ops.roll(x, 3, axis=-1),
    "rolled places": lambda x: ops.roll(x, (1, 2), axis=(1, 2)),
    "expanded": lambda x: ops.squeeze(ops.expand_dims(x, 2), 2),
    "stacked": lambda x: ops.stack([x, ops.relu(x)], axis=1),
    "unstacked": lambda x: ops.add(*ops.unstack(ops.stack([x, x * x], axis=3), axis=3)),
    "moved": lambda x: ops.relu(ops.moveaxis(ops.swapaxes(x, 1, 3), 1, 3)),
    "rows joined": lambda x: layers.Concatenate(axis=1)([x, ops.tanh(x)]),
    "repeated": lambda x: ops.repeat(x, 2, axis=-1),
    "tiled": lambda x: ops.tile(x, (1, 1, 2, 3)),
    "space to depth": lambda x: ops.space_to_depth(x, 2),
    "depth to space": lambda x: ops.depth_to_space(x, 2),
    "pixel shuffle": pixels,
    "channel shuffle": shuffled,
    "windows": windows,
    "rows as examples": lambda x: ops.reshape(x, (-1, 8)),
    "gram": lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
    "summed": lambda x: ops.expand_dims(ops.sum(x, axis=-1), -1) * x,
    "normed": lambda x: layers.UnitNormalization()(x),
    "group norm": lambda x: layers.GroupNormalization(4)(x),
    "rms norm": lambda x: layers.RMSNormalization(epsilon=0.1)(x),
    "softmax of places": lambda x: ops.softmax(x, axis=2),
    "image from vector": lambda x: layers.Conv2DTranspose(3, 2)(
        layers.Reshape((3, 3, 4))(layers.Dense(36, name="wide")(layers.Flatten()(x)))
    ),
}


def heads_by_hand(x):
    joint = ops.reshape(layers.Dense(24, name="qkv")(x), (-1, 5, 3, 2, 4))
    query, key, value = ops.unstack(ops.transpose(joint, (2, 0, 3, 1, 4)), 3, axis=0)
    scores = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * 0.5)
    return ops.reshape(ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3)), (-1, 5, 8))


def mixer(x):
    turned = layers.Dense(6, activation="gelu", name="tokens")(layers.Permute((2, 1))(x))
    return x + layers.Permute((2, 1))(layers.Dense(5, name="back")(turned))


def attention(x, **settings):
    layer = layers.MultiHeadAttention(4, 6, **settings, name="heads")
    return layer(x, layers.Dense(7, name="memory")(x))


TOKENS = {
    "attention": attention,
    "attention of other values": lambda x: attention(x, value_dim=3, output_shape=5),
    "gated attention": lambda x: attention(x, use_gate=True, use_bias=False),
    "grouped queries": lambda x: layers.GroupQueryAttention(6, 4, 2, name="heads")(x, x),
    "attention by hand": heads_by_hand,
    "mixer": mixer,
    "einsum dense": lambda x: layers.EinsumDense(
        "abde,def->abf", (None, 4), bias_axes="f", name="out"
    )(layers.EinsumDense("abc,cde->abde", (None, 2, 6), bias_axes="de", name="in")(x)),
    "any rank": lambda x: layers.EinsumDense("...x,xy->...y", 4, name="in")(x),
    "plain attention": lambda x: layers.Attention(use_scale=True)([x, ops.relu(x)]),
    "additive attention": lambda x: layers.AdditiveAttention()([x, layers.Dense(8)(x)]),
    "dot": lambda x: layers.Dot(axes=2)([x, layers.Dense(8, name="key")(x)]),
    "einsum": lambda x: ops.einsum("btc,bsc->bts", x, layers.Dense(8, name="key")(x)),
    "lstm": lambda x: layers.LSTM(6, return_sequences=True, name="memory")(x),
    "gru": lambda x: layers.GRU(6, name="memory")(x),
    "gru of old": lambda x: layers.GRU(6, reset_after=False, use_bias=False, name="memory")(x),
    "simple": lambda x: layers.SimpleRNN(6, name="memory")(x),
    "states": lambda x: layers.LSTM(6, name="second")(
        x, initial_state=layers.LSTM(6, return_state=True, name="first")(x)[1:]
    ),
    "both ways": lambda x: layers.Bidirectional(layers.LSTM(6), name="memory")(x),
    "both ways, added": lambda x: layers.Bidirectional(layers.GRU(6), "sum", name="memory")(x),
    "repeat vector": lambda x: layers.RepeatVector(4)(layers.GlobalAveragePooling1D()(x)),
}


@pytest.mark.parametrize("through", slow_but([*IMAGES], *[*IMAGES][::2]))
def test_channels_of_images_are_followed(through):
    keras.utils.set_random_seed(0)
    dependencies, removed, _ = assert_pruned_equals_masked(image_model(IMAGES[through]))
    assert removed[next(g for g in dependencies.groups if g.name.startswith("a")).removable].any()


@pytest.mark.parametrize(
    "through",
    slow_but(
        [*TOKENS],
        *("attention", "grouped queries", "attention by hand", "mixer", "einsum dense"),
        *("plain attention", "einsum", "lstm", "gru", "both ways"),
    ),
)
def test_channels_of_tokens_are_followed(through):
    keras.utils.set_random_seed(0)
    dependencies, removed, _ = assert_pruned_equals_masked(token_model(TOKENS[through]))
    whole = {group.name for group in dependencies.groups if not removed[group.removable].any()}
    assert whole == {"head"} | ({"back"} if through == "mixer" else set())


def test_a_mask_is_no_state_of_a_recurrent_layer():
    keras.utils.set_random_seed(0)
    words = keras.Input((10,), dtype="int32")
    x = layers.Embedding(12, 8, mask_zero=True, name="table")(words)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both")(x)
    model = keras.Model(words, layers.Dense(2, name="head")(layers.LSTM(6, name="last")(x)))
    dependencies, removed, _ = assert_pruned_equals_masked(model)
    whole = {g.name for g in dependencies.groups if not removed[g.removable].any()}
    assert whole == {"head"}
    same = slice_channels(model, dependencies, np.zeros_like(removed))
    x = np.array([[3, 1, 2, 0, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_allclose(same(x), model(x), atol=1e-6)


def translator():
    """An encoder, a decoder that begins where it ends, and a shared layer at each step."""
    source, target = keras.Input((5, 4)), keras.Input((3, 6))
    _, *states = layers.LSTM(8, return_state=True, name="encoder")(source)
    x = layers.LSTM(8, return_sequences=True, name="decoder")(target, initial_state=states)
    hidden = layers.TimeDistributed(layers.Dense(6, activation="relu"), name="hidden")
    x = hidden(layers.Dense(4, name="narrow")(hidden(layers.Dense(4, name="first")(x))))
    return keras.Model([source, target], layers.TimeDistributed(layers.Dense(3))(x), name="net")


def video():
    """Layers of images at each frame."""
    frames = keras.Input((3, 8, 8, 2))
    x = frames
    for inside in (
        layers.Conv2D(6, 3, name="inside"),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.MaxPooling2D(2),
        layers.DepthwiseConv2D(2),
        layers.GroupNormalization(3),
        layers.Flatten(),
    ):
        x = layers.TimeDistributed(inside, name=f"each_{inside.name}")(x)
    return keras.Model(frames, layers.Dense(2)(layers.GRU(5, name="memory")(x)), name="net")


@pytest.mark.parametrize(
    ("make", "loses"),
    [
        (translator, {"encoder and 1 more", "first and 1 more", "hidden"}),
        (video, {"each_inside", "memory"}),
    ],
)
def test_channels_of_layers_at_each_step_go(make, loses):
    dependencies, removed, _ = assert_pruned_equals_masked(make())
    smaller = {g.name for g in dependencies.groups if removed[g.removable].any()}
    assert smaller == loses


@pytest.mark.parametrize("twice", ["in wrappers", "by itself"])
def test_a_layer_inside_that_is_called_elsewhere_too_stays_whole(twice):
    inputs, inside = keras.Input((3, 6)), layers.Dense(8, name="inside")
    other = layers.TimeDistributed(inside, name="two") if twice == "in wrappers" else inside
    x = [layers.TimeDistributed(inside, name="one")(inputs), other(layers.ReLU()(inputs))]
    x = layers.Dense(8, name="free")(layers.Concatenate()(x))
    model = keras.Model(inputs, layers.Dense(3, name="last")(x), name="net")
    smaller, _ = prune_channels(model, 0.25)
    assert smaller.count_params() < model.count_params()
    assert smaller.get_layer("one").layer.units == 8
    holders = [layer for layer in smaller.layers if layer.name in ("one", "two", "inside")]
    inner = [getattr(layer, "layer", layer) for layer in holders]
    assert len(inner) == 2
    assert inner[0] is inner[1]


@pytest.mark.parametrize("seed", slow_but([*range(25)], *range(8, 17)))
def test_random_graphs_pruned_equal_masked(seed):
    assert_pruned_equals_masked(random_model(seed, steps=6), seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_many_random_graphs_pruned_equal_masked(block):
    for seed in range(100 + 25 * block, 125 + 25 * block):
        assert_pruned_equals_masked(random_model(seed), seed)


def test_a_random_graph_is_that_of_its_seed():
    one, same, other = (random_model(seed, steps=4).get_config() for seed in (3, 3, 4))
    kinds = [[layer["class_name"] for layer in each["layers"]] for each in (one, same, other)]
    assert kinds[0] == kinds[1] != kinds[2]


LOCKED = {
    "layer norm": (layers.LayerNormalization(), "the mean of LayerNormalization"),
    "one group": (layers.GroupNormalization(1), "the mean of GroupNormalization"),
    "softmax": (layers.Softmax(), "Softmax .* is computed over all channels"),
    "unstacked": (lambda x: ops.unstack(x, axis=-1)[0][..., None], "takes each .* alone"),
    "maximum": (lambda x: ops.max(x, axis=-1, keepdims=True), "Max .* reduces the channel axis"),
    "cumsum": (lambda x: ops.cumsum(x, axis=-1), "Cumsum .* is not supported"),
    "chosen": (lambda x: ops.take(x, ops.argmax(x[..., 0], axis=-1), axis=1), "by values"),
    "layers inside": (
        lambda x: layers.TimeDistributed(keras.Sequential([layers.Dense(2)]))(x),
        "TimeDistributed .* has a Sequential inside",
    ),
}


@pytest.mark.parametrize("lock", LOCKED)
def test_what_mixes_channels_locks_them_and_says_why(lock):
    through, reason = LOCKED[lock]
    model = token_model(through)
    other = layers.Dense(2)(layers.Dense(8)(model.inputs[0]))
    _, report = prune_channels(keras.Model(model.inputs, [model.output, other]), 0.3)
    change = next(group for group in report.groups if group.name == "a")
    assert change.before == change.after
    assert re.search(reason, change.reason)


def test_layers_without_a_rule_are_named_where_nothing_and_where_something_goes():
    inputs = keras.Input((3, 4, 4, 2))
    x = layers.ConvLSTM2D(4, 3, padding="same", name="own")(inputs)
    alone = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    with pytest.raises(ValueError, match="ConvLSTM2D 'own' is not supported"):
        prune_channels(alone, 0.3)
    x = layers.Conv2D(2, 1)(layers.Conv2D(8, 1)(x))
    _, report = prune_channels(keras.Model(inputs, x), 0.3)
    assert "left whole: ConvLSTM2D 'own' is not supported" in report.notes
    ends = [layers.Dense(4)(inputs), layers.Dense(4)(inputs)]
    with pytest.raises(ValueError, match="8 channels have to stay: it is the model's output"):
        prune_channels(keras.Model(inputs, ends), 0.3)


def test_channels_that_all_depend_on_each_other_are_named():
    """A grouped convolution couples 0, 2 and 1, 3; one that is rolled couples the rest."""
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(4, 1, groups=2, name="a")(layers.Conv2D(4, 1, name="first")(inputs))
    x = layers.Conv2D(1, 1, name="one")(x + ops.roll(x, 1, axis=-1))
    x = layers.Conv2D(8, 1, name="free")(x)
    _, report = prune_channels(keras.Model(inputs, layers.Conv2D(2, 1)(x)), 0.5)
    reasons = {group.name: group.reason for group in report.groups}
    assert reasons["a"] == "its channels all depend on each other"
    assert reasons["one"] == "it is the only channel"
    assert reasons["free"] == ""


def test_key_dimensions_keep_the_scale_of_the_scores():
    """Removing dimensions that are zero changes nothing, though the scores are scaled by it."""
    keras.utils.set_random_seed(0)
    model = token_model(attention)
    layer = model.get_layer("heads")
    dependencies = trace(model)
    group = next(g for g in dependencies.groups if g.name == "heads (key_dim)")
    removed = np.zeros(len(dependencies.roots), bool)
    removed[group.removable[:4]] = True
    for dense in (layer.query_dense, layer.key_dense):
        kernel = np.array(dense.kernel)
        kernel[..., :4] = 0
        dense.kernel.assign(kernel)
    smaller = slice_channels(model, dependencies, removed)
    assert smaller.get_layer("heads").key_dim == 2
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    np.testing.assert_allclose(smaller(x), model(x), atol=1e-5)


def test_heads_are_removed_whole():
    model = token_model(attention)
    smaller, report = prune_channels(model, sizes={"heads (heads)": 3, "heads (value_dim)": 2})
    layer = smaller.get_layer("heads")
    assert (layer.num_heads, layer.key_dim, layer.value_dim) == (3, 6, 2)
    assert layer.output_dense.kernel.shape == (3, 2, 8)
    assert report.parameters[1] == smaller.count_params() < model.count_params()


def test_excluded_attention_keeps_its_heads():
    _, report = prune_channels(token_model(attention), 0.3, exclude=["heads"])
    kept = [group for group in report.groups if group.name.startswith("heads")]
    assert len(kept) == 4
    assert {group.reason for group in kept} == {"it is excluded"}


def test_layer_normalization_loses_channels_where_that_is_allowed():
    model = token_model(layers.LayerNormalization(name="norm"))
    _, exact = prune_channels(token_model(attention), 0.3)
    smaller, report = prune_channels(model, 0.3, approximate=True)
    assert smaller.get_layer("a").units < 8
    assert "statistics are over fewer channels now, an approximation: norm" in report.notes
    assert not exact.notes or "statistics" not in exact.notes[0]


def test_the_smaller_model_of_attention_and_memory_is_saved(tmp_path):
    model = token_model(lambda x: layers.Bidirectional(layers.LSTM(6))(attention(x)))
    smaller, _ = prune_channels(model, 0.4)
    smaller.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    np.testing.assert_array_equal(again(x), smaller(x))
