"""The quality of predictions: intervals and differences beside SciPy's, and directions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tfnas.measure.accuracy import paired_difference, wilson_interval
from tfnas.tasks import metrics
from tfnas.tasks.assessment import ACCURACY, Assessment, Metric

ERROR = Metric("error", higher_is_better=False, unit="m")
FINITE = st.floats(-1e3, 1e3, allow_nan=False)


def of(values, metric=ACCURACY):
    return Assessment(metric, np.asarray(values))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_proportion_has_wilsons_interval(values):
    found = of(np.array(values, bool)).score
    right, count = sum(values), len(values)
    assert (found.name, found.examples) == ("accuracy", count)
    assert found.value == right / count
    assert (found.low, found.high) == wilson_interval(right, count)
    other = stats.binomtest(right, count).proportion_ci(0.95, "wilson")
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(FINITE, min_size=2, max_size=30))
def test_a_mean_has_students_interval(values):
    found = of(np.array(values), ERROR).score
    assert (found.name, found.examples) == ("error", len(values))
    assert found.value == pytest.approx(np.mean(values))
    scale = stats.sem(values)
    if scale > 1e-9:
        expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), scale)
        assert (found.low, found.high) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found.low <= found.value <= found.high


def test_one_number_says_nothing_of_the_mean():
    found = of(np.array([2.5]), ERROR).score
    assert (found.value, found.low, found.high) == (2.5, -math.inf, math.inf)


PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@settings(max_examples=50, deadline=None)
@given(PAIRS)
def test_differences_of_proportions_are_those_of_paired_examples(pairs):
    one, other = (np.array(column, bool) for column in zip(*pairs, strict=True))
    found = of(one).minus(of(other))
    assert found == paired_difference(one, other)
    assert found[0] == pytest.approx(one.mean() - other.mean())
    back = of(other).minus(of(one))
    assert back == pytest.approx((-found[0], -found[2], -found[1]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(FINITE, FINITE), min_size=2, max_size=30))
def test_differences_of_means_are_those_of_paired_examples(pairs):
    one, other = (np.array(column) for column in zip(*pairs, strict=True))
    value, low, high = of(one, ERROR).minus(of(other, ERROR))
    assert value == pytest.approx(np.mean(one - other))
    if stats.sem(one - other) > 1e-9:
        interval = stats.ttest_rel(one, other).confidence_interval(0.95)
        assert (low, high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)


def test_a_constant_difference_is_certain():
    one = np.array([1.0, 2.0, 5.0])
    assert of(one + 0.5, ERROR).minus(of(one, ERROR)) == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize("kind", [bool, float])
def test_other_examples_are_refused(kind):
    with pytest.raises(ValueError, match=r"must (hold 3 examples|have the shape \(3,\)), got"):
        of(np.ones(3, kind)).minus(of(np.ones(4, kind)))


def test_a_drop_is_what_got_worse_in_the_metrics_unit():
    right = np.array([True] * 8 + [False] * 2)
    fewer = np.array([True] * 7 + [False] * 3)
    value, low, high = of(fewer).drop_from(of(right))
    assert value == pytest.approx(10)  # points
    assert low <= value <= high
    assert of(right).drop_from(of(fewer)) == pytest.approx((-value, -high, -low))
    assert of(right).drop_from(of(right))[0] == 0


def test_lower_is_better_turns_the_sign():
    before, after = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.5, 2.0, 3.5, 5.0])
    value, low, high = of(after, ERROR).drop_from(of(before, ERROR))
    assert value == pytest.approx(0.5)  # a larger error is worse
    assert low < value < high
    assert of(before, ERROR).drop_from(of(after, ERROR)) == pytest.approx((-value, -high, -low))
    assert Metric("score").drop(0.5) == -0.5
    assert Metric("error", higher_is_better=False, scale=1000).drop(0.5) == 500


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(FINITE, FINITE), min_size=2, max_size=20), st.booleans())
def test_a_drop_is_inside_its_interval_whatever_the_direction(pairs, higher):
    one, other = (np.array(column) for column in zip(*pairs, strict=True))
    metric = Metric("m", higher_is_better=higher, scale=3.0)
    value, low, high = of(one, metric).drop_from(of(other, metric))
    assert low <= value <= high
    sign = -1 if higher else 1
    assert value == pytest.approx(sign * 3 * np.mean(one - other), abs=1e-9)


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (ACCURACY, "1.50 points"),
        (ERROR, "1.5000 m"),
        (Metric("score"), "1.5000"),
        (Metric("error", scale=1e6, unit="um"), "2 um"),
    ],
)
def test_differences_have_the_decimals_of_the_scale(metric, text):
    assert metric.text(1.5) == text


@pytest.mark.parametrize(
    ("field", "value"),
    [("scale", 0.0), ("scale", math.inf), ("little", -1), ("hopeless", math.nan)],
)
def test_numbers_of_a_metric_outside_their_rule_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        Metric("score", **{field: value})


def test_two_functions_of_one_name_are_two_metrics():
    def metric(factor, added=0):
        return Metric("distance", values=lambda y, p: factor * abs(y - p) + added)

    def other(factor):
        return Metric("distance", values=lambda y, p: factor * (y - p) ** 2)

    assert metric(2).identity() == metric(2).identity()
    found = [metric(2), metric(3), metric(2, 1), other(2)]
    names = {str(each.identity()["values"]) for each in found}
    assert len(names) == 4
    assert metrics.mse().identity()["values"].startswith("_")  # those of the library: by name
