"""Distillation of attention: against numpy, with masks, heads and depths that differ."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfnas
from tfnas.distillation.attention_maps import attention_layers
from tfnas.distillation.attention_taps import ActivationTap
from tfnas.distillation.feature_distances import map_divergence
from tfnas.distillation.forward import ForwardPass, ForwardResult

IDS = np.random.default_rng(0).integers(1, 9, (6, 5)).astype("int32")
IDS[:4, 3:] = 0


TAP = ActivationTap("look_0", maps=True)
KINDS = ("mha", "grouped", "Attention", "AdditiveAttention")
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")


def model(blocks=1, heads=2, kind="mha", seed=0, dropout=0.5, flat=False, **call):
    """Attention over words, of which zeros are padding; classes of them."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 8, keras.initializers.RandomNormal(stddev=1.0), mask_zero=True)(inputs)
    for i in range(blocks):
        same = {"name": f"look_{i}", "dropout": dropout}
        if kind == "mha":
            x = layers.MultiHeadAttention(heads, 4, **same)(x, x, **call)
        elif kind == "grouped":
            x = layers.GroupQueryAttention(4, heads, 2, **same)(x, x, **call)
        else:
            x = getattr(layers, kind)(**same)([x, x], **call)
    x = layers.Flatten()(x) if flat else layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3, "softmax")(x))


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def maps_of(network, kind="mha", causal=False):
    """The probabilities of attention, (batch, heads, queries, keys), in numpy."""
    x = np.asarray(network.layers[1].embeddings)[IDS]
    weights = network.get_layer("look_0").get_weights()
    if kind in ("mha", "grouped"):
        query, key = (np.einsum("btc,cnh->btnh", x, weights[i]) + weights[i + 1] for i in (0, 2))
        key = np.repeat(key, query.shape[2] // key.shape[2], axis=2)
        scores = np.einsum("btnh,bsnh->bnts", query, key) / np.sqrt(query.shape[-1])
    elif kind == "Attention":
        scores = np.einsum("btc,bsc->bts", x, x)[:, None]
    else:
        scores = (weights[0] * np.tanh(x[:, :, None] + x[:, None])).sum(-1)[:, None]
    seen = (IDS > 0)[:, None, None, :] & (np.tril(np.ones((5, 5), bool)) if causal else True)
    return softmax(np.where(seen, scores, -1e9))


def divergence(student, teacher, queries):
    """KL(teacher || student) of each example, averaged over heads and queries that count."""
    found = []
    for s, t, counts in zip(student, teacher, queries, strict=True):
        s, t = s[:, counts], t[:, counts]
        parts = np.where(t > 1e-30, t * np.log(np.maximum(t, 1e-30) / np.maximum(s, 1e-30)), 0.0)
        found.append(parts.sum(-1).mean())
    return np.array(found)


@pytest.mark.parametrize(
    ("kind", "heads", "causal"),
    [
        ("mha", 2, False),
        ("mha", 2, True),
        ("mha", 4, False),
        ("grouped", 4, False),
        ("Attention", 1, True),
        ("AdditiveAttention", 1, False),
    ],
)
def test_the_loss_is_that_of_numpy(kind, heads, causal):
    call = {"use_causal_mask": True} if causal else {}
    student, teacher = model(heads=2, **call), model(heads=heads, kind=kind, seed=1, **call)
    maps = [maps_of(student, causal=causal), maps_of(teacher, kind, causal)]
    if heads != 2:
        maps = [each.mean(1, keepdims=True) for each in maps]
    expected = divergence(*maps, IDS > 0)
    assert np.median(expected) > 0.03
    passes = [ForwardPass(each, "student", [TAP]) for each in (student, teacher)]
    # Training sees the same probabilities as inference: dropout leaves none out.
    found = [each.run(IDS, training=True).features[TAP] for each in passes]
    np.testing.assert_allclose(map_divergence(*found), expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found[1].shape[1:], passes[1].shape_of(TAP)[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_computes_what_it_does_without_maps(kind):
    network = model(blocks=2, kind=kind, dropout=0.0, flat=True)
    taps = [ActivationTap(f"look_{i}", maps=True) for i in range(2)]
    for role, training in (("student", True), ("teacher", False)):
        result = ForwardPass(network, role, taps).run(IDS, training)
        np.testing.assert_allclose(result.outputs, network(IDS), atol=1e-6)
    maps = result.features[TAP]
    counts = np.broadcast_to((IDS > 0)[:, None, :], maps.shape[:3])
    np.testing.assert_allclose(np.sum(maps, axis=-1), counts, atol=1e-5)
    assert np.abs(np.asarray(maps) * (IDS == 0)[:, None, None, :]).max() < 1e-6


def test_scores_that_the_model_returns_and_losses_of_activations_stay_its_own():
    inputs = keras.Input((5, 8))
    look = layers.MultiHeadAttention(2, 4, activity_regularizer="l2", name="look_0")
    y, scores = look(inputs, inputs, return_attention_scores=True)
    network = keras.Model(inputs, [layers.Dense(3)(layers.Flatten()(y)), scores])
    x = np.random.default_rng(0).normal(size=(4, 5, 8)).astype("float32")
    expected = [np.asarray(each) for each in network(x)]
    loss = np.sum(look.losses)
    forward = ForwardPass(network, "student", [TAP])
    results = list[ForwardResult]()
    # Inside another layer's call, as in a distiller, losses of both calls of the model add up.
    layers.Lambda(lambda x: results.append(forward.run(x, training=True)) or x)(x)
    (result,) = results
    for found, own in zip(result.tensors, expected, strict=True):
        np.testing.assert_allclose(found, own, atol=1e-6)
    np.testing.assert_allclose(result.features[TAP], expected[1], atol=1e-6)
    np.testing.assert_allclose(np.sum(look.losses), 2 * loss, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "spread"), [("float32", 2), ("float16", 12)])
def test_keys_that_the_student_can_not_see_do_not_count(dtype, spread):
    rng = np.random.default_rng(0)
    full, scores = softmax(rng.normal(size=(2, 2, 5, 5))), spread * rng.normal(size=(2, 2, 5, 5))
    seen = np.tril(np.ones((5, 5), bool))
    common = full * seen
    common /= common.sum(-1, keepdims=True)
    logits = tf.Variable(np.where(seen, scores, -3e4), dtype=dtype)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(map_divergence(tf.nn.softmax(logits), tf.constant(full, dtype)))
    assert np.isfinite(tape.gradient(loss, logits)).all()
    if dtype == "float32":
        expected = divergence(softmax(np.where(seen, scores, -1e9)), common, np.ones((2, 5), bool))
        np.testing.assert_allclose(loss, expected.mean(), rtol=1e-3)
    np.testing.assert_allclose(map_divergence(common.astype(dtype), full), 0, atol=2e-3)
    # The student is told not to look where the teacher's mask leaves out.
    assert (np.asarray(map_divergence(full.astype(dtype), common)) > 0.1).all()


def test_lengths_that_only_the_batch_tells():
    transfer = tfnas.AttentionMapTransfer("a", "b")
    maps = [np.full((2, 2, n, n), 1 / n, "float32") for n in (6, 3)]
    transfer.check((None, 2, None, None), (None, 2, None, None))
    with pytest.raises(ValueError, match=r"as many queries and keys .* 'b' with \(2, 2, 3, 3\)"):
        transfer.distance(*maps)
    open_lengths = [tf.TensorSpec((None, 2, None, None))] * 2
    distance = tf.function(transfer.distance, input_signature=open_lengths)
    np.testing.assert_allclose(distance(maps[0], maps[0]), [0, 0], atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="as many queries and keys"):
        distance(*maps)


def test_the_student_learns_where_the_teacher_looks(tmp_path):
    student, teacher = model(blocks=1), model(blocks=3, heads=4, seed=1)
    maps = tfnas.attention_map_transfers(student, teacher, weight=10.0)
    distiller = tfnas.Distiller(teacher, student, student_loss_weight=0.5, features=maps)
    distiller.compile(keras.optimizers.Adam(0.02), run_eagerly=True)
    y = np.arange(6) % 3
    history = distiller.fit(IDS, y, batch_size=6, epochs=12, verbose=0).history
    assert history["feature_loss"][-1] < 0.5 * history["feature_loss"][0]
    distiller.save(tmp_path / "distiller.keras")
    assert tfnas.load_model(tmp_path / "distiller.keras").features == distiller.features


def test_depths_that_differ():
    def pairs(*counts, **settings):
        student, teacher = (model(blocks=count) for count in counts)
        found = tfnas.attention_map_transfers(student, teacher, **settings)
        return [(each.student[-1], each.teacher[-1], each.weight) for each in found]

    assert pairs(2, 4) == [("0", "1", 0.5), ("1", "3", 0.5)]
    assert pairs(2, 3, weight=4) == [("0", "1", 2.0), ("1", "2", 2.0)]
    assert [pair[:2] for pair in pairs(3, 2)] == [("0", "0"), ("1", "1"), ("2", "1")]
    assert pairs(2, 4, layers={"look_1": "look_0"}) == [("1", "0", 1.0)]


def test_what_can_not_be_compared_is_refused():
    student, teacher = model(), model(seed=1)
    with pytest.raises(
        ValueError, match="of the teacher, look_0, got 'lok_0'; did you mean 'look_0"
    ):
        tfnas.attention_map_transfers(student, teacher, layers={"look_0": "lok_0"})
    plain = keras.Sequential([keras.Input((5,)), layers.Dense(3)], name="plain")
    with pytest.raises(ValueError, match=r"teacher must have attention layers .* got 'plain' with"):
        tfnas.attention_map_transfers(student, plain)
    aware = tfnas.quantize_aware(student, data=IDS)
    assert not attention_layers(aware)[0]
    name = student.layers[-1].name
    with pytest.raises(
        ValueError, match=f"attention layers of the student .* got '{name}' of class"
    ):
        tfnas.Distiller(teacher, student, features=[tfnas.AttentionMapTransfer(name, "look_0")])
    inputs = keras.Input((7, 8))
    longer = keras.Model(inputs, layers.MultiHeadAttention(2, 4, name="look_0")(inputs, inputs))
    with pytest.raises(ValueError, match=r"as many queries and keys .* \(None, 2, 7, 7\)"):
        tfnas.AttentionMapTransfer("a", "b").check(
            (None, 2, 5, 5),
            ForwardPass(longer, "teacher", [TAP]).shape_of(TAP),
        )


@pytest.mark.parametrize("counts", [(2, 4), (3, 1)])
def test_a_swapped_student_and_teacher_are_refused_where_it_shows(counts):
    student, teacher = (model(blocks=count) for count in counts)
    swapped = tfnas.attention_map_transfers(teacher, student)
    rule = (
        r"the student's layer first, .* fits with student and teacher swapped: .*Distiller\(teach"
    )
    with pytest.raises(ValueError, match=rule):
        tfnas.Distiller(teacher, student, features=swapped)
    right = tfnas.attention_map_transfers(student, teacher)
    with pytest.raises(ValueError, match=rule):  # the other call is the wrong one
        tfnas.Distiller(student, teacher, features=right)


def test_swapped_models_are_refused_where_the_names_of_layers_show_it():
    student, teacher = model(blocks=1), model(blocks=3)
    with pytest.raises(ValueError, match=r"student must be the first .*: 'look_0', a student"):
        tfnas.attention_map_transfers(teacher, student, layers={"look_0": "look_2"})
    same = tfnas.attention_map_transfers(teacher, student, layers={"look_0": "look_0"})
    assert tfnas.Distiller(teacher, student, features=same).features == tuple(same)


def test_layers_that_are_left_out_are_named():
    inputs, mask = keras.Input((5, 8)), keras.Input((1, 5, 5))
    twice = layers.MultiHeadAttention(2, 4, name="twice")
    x = twice(twice(inputs, inputs), inputs)
    shared = keras.Model(inputs, x, name="shared")
    with pytest.raises(ValueError, match="got 'shared' with none: 'twice' is called 2 times"):
        tfnas.attention_map_transfers(shared, shared)
    x = layers.MultiHeadAttention(2, 4, name="look_0")(x, x, attention_mask=mask)
    network = keras.Model([inputs, mask], x)
    with pytest.warns(UserWarning, match="the student are left out: 'twice' is called 2 times"):
        (pair,) = tfnas.attention_map_transfers(network, model())
    assert (pair.student, pair.teacher) == ("look_0", "look_0")
    with pytest.raises(ValueError, match="got 'twice', which is called 2 times"):
        tfnas.attention_map_transfers(network, model(), layers={"twice": "look_0"})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([("look_0", "look_0")], "layers must be None or a dictionary"),
        ({1: "look_0"}, "layers must hold names of layers, got 1"),
        ({"look_0": None}, "layers must hold names of layers, got None"),
        ({}, "layers must name at least one pair"),
    ],
)
def test_pairs_that_are_no_names_are_refused(names, message):
    network = model()
    with pytest.raises(ValueError, match=message):
        tfnas.attention_map_transfers(network, network, layers=names)
