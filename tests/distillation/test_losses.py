"""Distillation losses, compared with NumPy, SciPy and Keras."""

import doctest
import importlib

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfnas.distillation import feature_distances
from tfnas.distillation.losses import (
    as_logits,
    averaged,
    cross_entropy,
    distillation_loss,
    kl_divergence,
    weighted_mean,
)

LOGITS = arrays(np.float32, (4, 5), elements=st.floats(-8, 8, width=32))
TEMPERATURES = st.sampled_from([0.5, 1.0, 2.0, 4.0, 20.0])
few = settings(max_examples=15, deadline=None)


def numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


@pytest.mark.parametrize(
    "module", ["losses", "feature_distances", "feature_losses", "distiller", "cached_teacher"]
)
def test_doctests_pass(module):
    result = doctest.testmod(importlib.import_module(f"tfnas.distillation.{module}"))
    assert result.failed == 0
    assert result.attempted > 0 or module == "feature_distances"


def test_the_worked_example():
    student, teacher = np.array([[0.1, 0.2, 0.7]]), np.array([[0.05, 0.15, 0.8]])
    loss = distillation_loss(
        np.array([2]), as_logits(student), as_logits(teacher), 0.5, 1.0, reverse=True
    )
    kl = 0.1 * np.log(0.1 / 0.05) + 0.2 * np.log(0.2 / 0.15) + 0.7 * np.log(0.7 / 0.8)
    np.testing.assert_allclose(loss, [0.5 * -np.log(0.7) + 0.5 * kl], rtol=1e-5)


@few
@given(LOGITS, LOGITS, TEMPERATURES, st.booleans())
def test_divergence_is_scipys(student, teacher, temperature, reverse):
    s, t = (scipy.special.softmax(z.astype(float) / temperature, -1) for z in (student, teacher))
    expected = scipy.stats.entropy(*((s, t) if reverse else (t, s)), axis=-1)
    found = numpy(kl_divergence(student, teacher, temperature, reverse))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=3e-6)
    assert (found > -1e-6).all()
    assert abs(numpy(kl_divergence(student, student, temperature))).max() < 1e-6


@few
@given(LOGITS, LOGITS, TEMPERATURES, st.booleans())
def test_multi_label_divergence_is_the_mean_of_binary_ones(s, t, temperature, reverse):
    p, q = (scipy.special.expit(z.astype(float) / temperature) for z in (t, s))
    p, q = (q, p) if reverse else (p, q)
    rel = scipy.special.rel_entr
    expected = (rel(p, q) + rel(1 - p, 1 - q)).mean(-1)
    found = kl_divergence(s, t, temperature, reverse, multi_label=True)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=3e-6)


@few
@given(LOGITS, LOGITS, st.sampled_from([0.0, 0.3, 1.0]), TEMPERATURES, st.booleans())
def test_the_loss_is_its_formula(student, teacher, student_loss_weight, temperature, multi_label):
    labels = np.eye(5, dtype=np.float32)[[0, 3, 3, 4]]
    label_part = cross_entropy(labels, student, multi_label=multi_label)
    divergence = kl_divergence(student, teacher, temperature, multi_label=multi_label)
    expected = student_loss_weight * numpy(label_part) + (
        1 - student_loss_weight
    ) * temperature**2 * numpy(divergence)
    found = distillation_loss(
        labels, student, teacher, student_loss_weight, temperature, multi_label=multi_label
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@few
@given(LOGITS, st.sampled_from([0.0, 0.1, 0.5]))
def test_cross_entropy_is_keras(logits, smoothing):
    numbers = np.array([0, 3, 3, 4])
    one_hot = np.eye(5, dtype=np.float32)[numbers]
    keras_loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing, reduction=None
    )
    expected = numpy(keras_loss(one_hot, logits))
    for labels in (numbers, numbers[:, None], numbers.astype(np.float32), one_hot):
        found = cross_entropy(labels, logits, smoothing)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    soft = np.full((4, 5), 0.2, np.float32)
    np.testing.assert_allclose(
        cross_entropy(soft, logits, smoothing), keras_loss(soft, logits), rtol=1e-4, atol=1e-5
    )
    yes_or_no = (one_hot + np.eye(5)[0] > 0).astype(int)
    keras_loss = keras.losses.BinaryCrossentropy(
        from_logits=True, label_smoothing=smoothing, reduction=None
    )
    found = cross_entropy(yes_or_no, logits, smoothing, multi_label=True)
    np.testing.assert_allclose(found, keras_loss(yes_or_no, logits), rtol=1e-4, atol=1e-5)


@few
@given(LOGITS, st.booleans(), TEMPERATURES)
def test_as_logits_inverts_softmax_and_sigmoid(logits, multi_label, temperature):
    softened = scipy.special.expit if multi_label else lambda z: scipy.special.softmax(z, -1)
    found = as_logits(softened(logits).astype(np.float32), multi_label)
    divergence = kl_divergence(found, logits, temperature, multi_label=multi_label)
    np.testing.assert_allclose(divergence, 0, atol=1e-4)


def test_probabilities_of_zero_and_one_stay_finite():
    for multi_label in (False, True):
        found = numpy(as_logits(np.array([[0.0, 1.0]]), multi_label))
        assert np.isfinite(found).all()
        assert np.isfinite(numpy(kl_divergence(found, -found, multi_label=multi_label))).all()


@pytest.mark.parametrize("multi_label", [False, True])
def test_teachers_are_averaged_by_their_probabilities(multi_label):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 5)).astype("float32")
    softened = scipy.special.expit if multi_label else lambda z: scipy.special.softmax(z, -1)
    expected = 0.25 * softened(a) + 0.75 * softened(b)
    found = numpy(averaged([a, b], [1, 3], multi_label))
    np.testing.assert_allclose(softened(found), expected, rtol=1e-5)
    np.testing.assert_array_equal(averaged([a], [5.0], multi_label), a)


def test_weighted_mean_reduces_as_keras_does():
    losses, weights = np.arange(6, dtype="float32").reshape(3, 2), np.array([0.0, 1.0, 2.0])
    tensor = keras.ops.convert_to_tensor(losses)
    assert float(weighted_mean(tensor)) == losses.mean()
    expected = (losses * weights[:, None]).mean()
    for form in (weights, weights[:, None], (weights, weights), losses * 0 + weights[:, None]):
        assert float(weighted_mean(tensor, form)) == pytest.approx(expected)
    flat = keras.ops.convert_to_tensor(losses[:, 0])
    assert float(weighted_mean(flat, weights[:, None])) == pytest.approx(
        (losses[:, 0] * weights).mean()
    )
    mask = np.array([[True, True], [True, False], [False, False]])
    assert float(weighted_mean(tensor, None, mask)) == pytest.approx(losses[mask].mean())


def pairs(x):
    """Returns [i, j]: the distance of two rows, divided by the mean over all pairs."""
    distances = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    return distances / distances[~np.eye(len(x), dtype=bool)].mean()


def cosine(x, i, j, k):
    a, b = x[i] - x[j], x[k] - x[j]
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def huber(e):
    return 0.5 * e * e if abs(e) < 1 else abs(e) - 0.5


def test_relations_are_those_of_the_paper():
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(5, 3)) + 4, rng.normal(size=(5, 2, 2)) ** 3
    flat = t.reshape(5, 4)
    ds, dt = pairs(s), pairs(flat)
    expected = [np.mean([huber(ds[i, j] - dt[i, j]) for j in range(5) if j != i]) for i in range(5)]
    np.testing.assert_allclose(feature_distances.distance_relations(s, t), expected, rtol=1e-4)
    expected = [
        np.mean(
            [
                huber(cosine(s, i, j, k) - cosine(flat, i, j, k))
                for i in range(5)
                for k in range(5)
                if len({i, j, k}) == 3
            ]
        )
        for j in range(5)
    ]
    np.testing.assert_allclose(feature_distances.angle_relations(s, t), expected, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "relation", [feature_distances.distance_relations, feature_distances.angle_relations]
)
def test_relations_of_few_or_equal_examples_are_finite(relation, count):
    import tensorflow as tf

    s = tf.Variable(np.ones((count, 3), np.float32))
    with tf.GradientTape() as tape:
        value = relation(s, np.eye(count, 4, dtype=np.float32))
        total = tf.reduce_sum(value)
    assert value.shape == (count,)
    assert np.isfinite(value).all()
    assert np.isfinite(tape.gradient(total, s)).all()
    if count == 1:
        assert float(total) == 0.0


@few
@given(arrays(np.float32, (2, 6, 6, 3), elements=st.floats(-4, 4, width=32)))
def test_attention_compares_positions_not_channels(maps):
    power = (maps.astype(float) ** 2).mean(-1).reshape(2, -1)
    other = np.roll(maps, 1, axis=1)
    moved = (other.astype(float) ** 2).mean(-1).reshape(2, -1)
    a, b = (m / np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-6) for m in (power, moved))
    found = numpy(feature_distances.attention_distance(maps, other))
    np.testing.assert_allclose(found, ((a - b) ** 2).sum(1), rtol=1e-3, atol=1e-4)
    same = numpy(feature_distances.attention_distance(maps, np.concatenate([maps, maps], -1) * 2))
    above_the_floor = np.linalg.norm(power, axis=1) > 1e-6  # below it norms count as 1e-6
    assert (abs(same)[above_the_floor] < 1e-5).all()


def test_maps_of_different_sizes_are_downsampled_to_the_smaller():
    rng = np.random.default_rng(0)
    large = rng.normal(size=(2, 8, 6, 3)).astype("float32")
    pooled = large.reshape(2, 4, 2, 3, 2, 3).mean((2, 4))
    for small, big in ((pooled, large), (large, pooled)):
        assert abs(numpy(feature_distances.hint_distance(small, big))).max() < 1e-10
    odd = feature_distances.area_downsample(large, (3, 4))
    rows = [large[:, :3], large[:, 2:6], large[:, 5:]]  # thirds of 8 rows
    weights = [[3, 3, 2], [1, 3, 3, 1], [2, 3, 3]]
    thirds = [
        np.einsum("nhwc,h->nwc", r, np.array(w) / 8) for r, w in zip(rows, weights, strict=True)
    ]
    halves = np.stack(thirds, 1).reshape(2, 3, 2, 3, 3) @ np.eye(3)
    first = np.einsum("nhgwc,w->nhgc", halves, np.array([2, 1, 0]) / 3)
    np.testing.assert_allclose(numpy(odd)[:, :, [0, 2]], first, rtol=1e-4, atol=1e-6)
    crossed = feature_distances.same_size(np.zeros((1, 2, 9, 1)), np.zeros((1, 4, 3, 1)))
    assert [tuple(maps.shape[1:3]) for maps in crossed] == [(2, 3), (2, 3)]
    expected = ((large[..., :2] - large[..., 1:]) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(
        feature_distances.hint_distance(large[..., :2], large[..., 1:]), expected, rtol=1e-5
    )


def test_half_precision_is_computed_in_float32():
    s, t = np.full((1, 3), 9.0, np.float16), np.array([[9.0, -9.0, 0.0]], np.float16)
    assert numpy(distillation_loss(np.array([1]), s, t, 0.5, 4.0)).dtype == np.float32
    assert numpy(feature_distances.hint_distance(s * 500, t)).dtype == np.float32
    assert np.isfinite(numpy(feature_distances.hint_distance(s * 500, t))).all()
