"""Limits of a budget on quality, and what they allow."""

import doctest
import math

import pytest

from tfnas.compression import budget as budget_module
from tfnas.compression import choice, tolerance
from tfnas.compression.budget import Budget, CandidateCosts, cost_of_limit, relative_loss
from tfnas.compression.results.compress_result import _excess
from tfnas.compression.tolerance import Tolerance
from tfnas.tasks.assessment import ACCURACY, Metric

ERROR = Metric("error", higher_is_better=False, scale=1000.0, unit="mm")
R2 = Metric("R2")


@pytest.mark.parametrize("module", [budget_module, choice, tolerance])
def test_the_examples_are_true(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def costs(quality, baseline, metric):
    drop = metric.drop(quality - baseline)
    higher = metric.higher_is_better
    lost = relative_loss(quality, baseline, higher)
    return CandidateCosts(drop, 1, 1, 1.0, 1.0, 1, {}, "", lost, quality, higher)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_relative_loss": 0}, "max_relative_loss must be a finite number above 0, got 0"),
        (
            {"max_relative_loss": -0.1},
            "max_relative_loss must be a finite number above 0, got -0.1",
        ),
        ({"quality_limit": math.inf}, "quality_limit must be a finite number, got inf"),
        ({"quality_limit": math.nan}, "quality_limit must be a finite number, got nan"),
        ({"quality_limit": "0.9"}, "quality_limit must be a finite number, got '0.9'"),
        ({"max_bytes": 5e-324 / 2}, "max_bytes must be a finite number above 0, got 0.0"),
    ],
)
def test_bad_limits_are_named(limits, message):
    with pytest.raises(ValueError, match=message):
        Budget.of(limits)


def test_a_limit_on_the_value_may_be_anything_finite():
    assert Budget(quality_limit=-3).limits == {"quality_limit": -3}
    assert Budget(quality_limit=0).limits_quality
    assert not Budget(max_bytes=1).limits_quality
    assert cost_of_limit("quality_limit") == "quality"
    assert cost_of_limit("max_relative_loss") == "relative_loss"


@pytest.mark.parametrize(
    ("metric", "baseline", "limits", "allowed"),
    [
        (ACCURACY, 0.9, {"max_drop": 1.0}, 1.0),
        (ACCURACY, 0.9, {"max_drop": 0}, 0.0),
        (ACCURACY, 0.9, {"quality_limit": 0.88}, 2.0),
        (ACCURACY, 0.9, {"quality_limit": 0.95}, -5.0),  # better than the original
        (ACCURACY, 0.8, {"max_relative_loss": 0.05}, 4.0),
        (ACCURACY, 0.8, {"max_relative_loss": 0.05, "max_drop": 3, "quality_limit": 0.7}, 3.0),
        (ERROR, 0.2, {"max_relative_loss": 0.05}, 10.0),
        (ERROR, 0.2, {"quality_limit": 0.25}, 50.0),
        (ERROR, 0.2, {"quality_limit": 0.15}, -50.0),
        (R2, -0.5, {"max_relative_loss": 0.1}, 0.05),
        (R2, 0.0, {"max_relative_loss": 0.1}, 0.0),
        (R2, 0.5, {"max_bytes": 7}, None),
    ],
)
def test_limits_on_quality_become_one_drop(metric, baseline, limits, allowed):
    budget = Budget.of(limits)
    expected = None if allowed is None else pytest.approx(allowed)
    assert budget.allowed_drop(metric, baseline) == expected
    assert Tolerance.of(metric, baseline, budget).allowed_by(budget) == expected
    if allowed is None:
        return
    for drop in (allowed - 1e-3, allowed + 1e-3):
        found = budget.excesses(costs(baseline + metric.gain(-drop), baseline, metric))
        assert bool(found) == (drop > allowed)
        assert all(excess > 0 for excess in found.values())


def test_excesses_of_quality():
    found = Budget(max_relative_loss=0.1).excesses(costs(0.3, 0.2, ERROR))
    assert found == {"max_relative_loss": pytest.approx(4.0)}  # 50% instead of 10%
    assert Budget(quality_limit=0.25).excesses(costs(0.3, 0.2, ERROR)) == {
        "quality_limit": pytest.approx(0.05)
    }
    assert Budget(quality_limit=0.95).excesses(costs(0.9, 0.9, ACCURACY)) == {
        "quality_limit": pytest.approx(0.05)
    }
    assert Budget(quality_limit=-1.0).excesses(costs(-0.5, 0.9, R2)) == {}


def test_values_that_are_not_known_exceed_every_limit():
    unknown = CandidateCosts(0.0, 1, 1, 1.0, 1.0, 1)
    for name in ("max_relative_loss", "quality_limit"):
        assert Budget.of({name: 0.5}).excesses(unknown) == {name: math.inf}


def test_losses_of_a_baseline_of_zero():
    assert relative_loss(0.0, 0.0, higher_is_better=True) == 0.0
    assert relative_loss(-0.1, 0.0, higher_is_better=True) == math.inf
    assert relative_loss(-0.1, 0.0, higher_is_better=False) == -math.inf


def test_excesses_of_quality_in_words():
    assert _excess("quality_limit", 0.05, ACCURACY) == "5.00 points"
    assert _excess("quality_limit", 0.05, ERROR) == "50.0 mm"
    assert _excess("max_relative_loss", 0.2, ERROR) == "20%"
