"""Distillation of attention: against numpy, with masks, heads and depths that differ."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.distillation.attention_maps import attention_layers
from tfnas.distillation.attention_taps import ActivationTap
from tfnas.distillation.feature_distances import map_divergence
from tfnas.distillation.forward import ForwardPass

IDS = np.random.default_rng(0).integers(1, 9, (6, 5)).astype("int32")
IDS[:4, 3:] = 0


def model(blocks=1, heads=2, kind="mha", seed=0, **call):
    """Attention over words, of which zeros are padding; classes of them."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 8, keras.initializers.RandomNormal(stddev=1.0), mask_zero=True)(inputs)
    for i in range(blocks):
        name = f"look_{i}"
        if kind == "mha":
            x = layers.MultiHeadAttention(heads, 4, dropout=0.5, name=name)(x, x, **call)
        elif kind == "grouped":
            x = layers.GroupQueryAttention(4, heads, 2, name=name)(x, x, **call)
        else:
            x = getattr(layers, kind)(name=name)([x, x], **call)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3, "softmax")(x))


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def maps_of(network, causal=False):
    """The probabilities of a MultiHeadAttention, (batch, heads, queries, keys), in numpy."""
    x = np.asarray(network.layers[1].embeddings)[IDS]
    query, key = (
        np.einsum("btc,cnh->btnh", x, np.asarray(dense.kernel)) + np.asarray(dense.bias)
        for dense in (
            network.get_layer("look_0").query_dense,
            network.get_layer("look_0").key_dense,
        )
    )
    scores = np.einsum("btnh,bsnh->bnts", query, key) / np.sqrt(query.shape[-1])
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


@pytest.mark.parametrize(("heads", "causal"), [(2, False), (2, True), (4, False)])
def test_the_loss_is_that_of_numpy(heads, causal):
    call = {"use_causal_mask": True} if causal else {}
    student, teacher = model(heads=2, **call), model(heads=heads, seed=1, **call)
    maps = [maps_of(student, causal), maps_of(teacher, causal)]
    if heads != 2:
        maps = [each.mean(1, keepdims=True) for each in maps]
    expected = divergence(*maps, IDS > 0)
    assert np.median(expected) > 0.03
    passes = [
        ForwardPass(each, "student", [ActivationTap("look_0", maps=True)])
        for each in (student, teacher)
    ]
    found = [
        each.run(IDS, training).features
        for each, training in zip(passes, (True, False), strict=True)
    ]
    # Dropout comes behind the probabilities, so training sees the same ones.
    distance = map_divergence(*(each[ActivationTap("look_0", maps=True)] for each in found))
    np.testing.assert_allclose(distance, expected, rtol=1e-3)
    assert passes[0].shape_of(ActivationTap("look_0", maps=True)) == (None, 2, 5, 5)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
@pytest.mark.parametrize("kind", ["grouped", "Attention", "AdditiveAttention"])
def test_other_attention_has_probabilities_without_a_change_of_the_output(kind):
    network = model(kind=kind)
    run = ForwardPass(network, "student", [ActivationTap("look_0", maps=True)])
    result = run.run(IDS, False)
    np.testing.assert_allclose(result.outputs, network(IDS), atol=1e-6)
    (maps,) = result.features.values()
    assert maps.shape == (6, *run.shape_of(ActivationTap("look_0", maps=True))[1:])
    counts = np.broadcast_to((IDS > 0)[:, None, :], maps.shape[:3])
    np.testing.assert_allclose(np.sum(maps, axis=-1), counts, atol=1e-5)
    assert np.abs(np.asarray(maps) * (IDS == 0)[:, None, None, :]).max() < 1e-6


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
    assert not attention_layers(aware)
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
            ForwardPass(longer, "teacher", [ActivationTap("look_0", maps=True)]).shape_of(
                ActivationTap("look_0", maps=True)
            ),
        )
