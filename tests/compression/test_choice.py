"""The front and the best candidate, over random candidates and over those of a recorded job."""

import dataclasses
import json
import math
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.compression.budget import Budget, CandidateCosts, relative_loss
from tfnas.compression.choice import (
    best_for_budget,
    compared,
    front,
    limited_costs,
    measured_front,
    shortfall,
)
from tfnas.compression.known_file import KnownFile
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.tolerance import OF_ACCURACY, Tolerance
from tfnas.tasks.assessment import ACCURACY

BASELINE = 0.9
DEVICE = ("ram_bytes", "flash_bytes")
JOB = json.loads(pathlib.Path(__file__).with_name("recorded_job.json").read_text())


def of_costs(drop, size, gz, latency, macs, memory, device=(), recipe=None, baseline=BASELINE):
    quality = baseline - drop / 100
    costs = CandidateCosts(
        *(drop, size, gz, latency, macs, memory, dict(device), ""),
        *(relative_loss(quality, baseline, True), quality),
    )
    return KnownFile(recipe or Recipe((), "int8"), costs)


def recorded():
    found = []
    for row in JOB["candidates"]:
        recipe = Recipe(
            tuple(RecipeStep(*step) for step in row["steps"]), row["mode"], row["aware"]
        )
        costs = row["costs"]
        numbers = [costs[n] for n in ("drop", "bytes", "gzip_bytes", "latency", "macs", "memory")]
        found.append(of_costs(*numbers, costs["device"], recipe, JOB["original"]))
    return found


# Few distinct values, so that candidates dominate each other and tie.
small = st.integers(1, 4)
candidates = st.lists(
    st.builds(
        lambda drop, size, gz, latency, macs, memory, ram, flash: of_costs(
            drop - 1.0,
            size,
            gz,
            latency / 4,
            macs / 4,
            memory,
            zip(DEVICE, (ram, flash), strict=True),
        ),
        *(small,) * 8,
    ),
    min_size=1,
    max_size=8,
)


def budgets(values):
    """Returns random budgets; `values`: limit -> strategy."""
    optional = {name: st.none() | strategy for name, strategy in values.items()}
    limits = st.fixed_dictionaries(optional).map(
        lambda found: {name: limit for name, limit in found.items() if limit is not None}
    )
    return limits.filter(bool).map(Budget.of)


random_budgets = budgets(
    {
        "max_drop": st.integers(0, 3),
        "max_relative_loss": st.sampled_from([0.005, 0.02, 0.05]),
        "quality_limit": st.sampled_from([0.87, 0.895, 0.91]),
        **dict.fromkeys(["max_bytes", "max_gzip_bytes", "max_memory"], small),
        **dict.fromkeys(["max_latency_ratio", "max_macs"], st.sampled_from([0.25, 0.5, 0.75])),
        **{f"max_{name}": small for name in DEVICE},
    }
)


def tolerance_of(budget, baseline=BASELINE):
    return Tolerance.of(ACCURACY, baseline, budget)


def check_best(found, budget, baseline=BASELINE):
    """Whatever the candidates, the best keeps all limits if one does, and none dominates it."""
    best = best_for_budget(found, budget, tolerance_of(budget, baseline))
    if any(not budget.excesses(each.costs) for each in found):
        assert not budget.excesses(best.costs)
    gzipped = budget.max_gzip_bytes is not None
    kept = front(found, gzipped, budget)
    assert any(each is best for each in kept)
    assert best_for_budget(kept, budget, tolerance_of(budget, baseline)) is best
    own = compared(best.costs, gzipped, also=limited_costs(budget))
    for other in found:
        row = compared(other.costs, gzipped, also=limited_costs(budget))
        assert not (row != own and all(a <= b for a, b in zip(row, own, strict=True)))
    return best


@settings(max_examples=150, deadline=None)
@given(candidates, random_budgets)
def test_the_best_keeps_the_limits_and_is_not_dominated(found, budget):
    check_best(found, budget)


@settings(max_examples=100, deadline=None)
@given(candidates, random_budgets, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(found, budget, random):
    best = best_for_budget(found, budget, tolerance_of(budget))
    random.shuffle(found)
    assert best_for_budget(found, budget, tolerance_of(budget)).costs == best.costs


@settings(max_examples=100, deadline=None)
@given(candidates, random_budgets)
def test_none_that_the_budget_compares_less_can_leave_out_one_that_keeps_it(found, budget):
    """Without a budget every cost counts, so that its front serves any of them."""
    every = front(found, gzipped=False)
    best = best_for_budget(every, budget, tolerance_of(budget))
    kept = [each for each in found if not budget.excesses(each.costs)]
    assert not kept or not budget.excesses(best.costs)


def between(name):
    """Returns limits from below the least to above the most of a recorded cost."""
    values = [candidate.costs.value(name) for candidate in recorded()]
    low, high = min(values), max(values)
    if low > 1:
        return st.integers(int(0.9 * low), int(1.1 * high))
    return st.floats(0.9 * low, min(1.0, 1.1 * high))


recorded_budgets = budgets(
    {
        "max_drop": st.floats(0, 20),
        "max_relative_loss": st.floats(0.001, 0.3),
        "quality_limit": st.floats(0.6, 0.95),
        "max_bytes": between("bytes"),
        "max_gzip_bytes": between("gzip_bytes"),
        "max_latency_ratio": between("latency"),
        "max_macs": between("macs"),
        "max_memory": between("memory"),
        "max_ram_bytes": between("ram_bytes"),
    }
)


@settings(max_examples=150, deadline=None)
@given(recorded_budgets)
def test_any_budget_on_a_recorded_job(budget):
    check_best(recorded(), budget, JOB["original"])


@settings(max_examples=100, deadline=None)
@given(candidates, random_budgets, st.data())
def test_latencies_measured_again_leave_out_none_that_keeps_the_limits(found, budget, data):
    """The best is the best of all by the last latencies, and those of the front are all new."""
    store, measured = list(found), []

    def measure(some):
        assert len(some) > len(measured)
        measured[:] = []
        for one in some:
            place = next(i for i, each in enumerate(store) if each is one)
            costs = dataclasses.replace(one.costs, latency=data.draw(small) / 4)
            store[place] = dataclasses.replace(one, costs=costs)
            measured.append(store[place])

    kept, best = measured_front(lambda: store, budget, tolerance_of(budget), measure)
    assert check_best(store, budget) is best
    for each in kept:
        assert any(each is one for one in measured)


# --- the nearest where none keeps the limits


def test_excesses_are_fractions_of_their_limits():
    budget = Budget(max_drop=2.0, max_bytes=100)
    lossy, large = of_costs(2.6, 90, 9, 0.5, 1, 1), of_costs(1.0, 140, 9, 0.5, 1, 1)
    assert shortfall(lossy.costs, budget) == pytest.approx(0.3)
    assert shortfall(large.costs, budget) == pytest.approx(0.4)
    # In points the first would be 0.6 over, more than the other.
    assert best_for_budget([large, lossy], budget) is lossy


def test_the_nearest_is_the_same_in_any_unit_of_the_metric():
    budget = Budget(max_bytes=100, max_drop=2.0)
    rows = [of_costs(2.6, 90, 9, 0.5, 1, 1), of_costs(1.0, 140, 9, 0.5, 1, 1)]
    for scale in (1e-3, 1.0, 1e3):
        scaled = [
            dataclasses.replace(
                row, costs=dataclasses.replace(row.costs, drop=scale * row.costs.drop)
            )
            for row in rows
        ]
        own = dataclasses.replace(budget, max_drop=2.0 * scale)
        tolerance = Tolerance(0.3 * scale, 3.0 * scale)
        assert best_for_budget(scaled, own, tolerance) is scaled[0]


def test_a_limit_of_zero_counts_as_the_drop_that_does_not_matter():
    none_lost = Budget(max_drop=0, max_bytes=100)
    lossy, large = of_costs(0.1, 100, 9, 0.5, 1, 1), of_costs(0.0, 150, 9, 0.5, 1, 1)
    assert shortfall(lossy.costs, none_lost) == pytest.approx(0.1 / 0.3)
    assert best_for_budget([large, lossy], none_lost) is lossy
    strict = Tolerance(0.0, 0.0)
    assert shortfall(lossy.costs, none_lost, strict) == math.inf
    assert best_for_budget([large, lossy], none_lost, strict) is large
    operators = Budget(max_vela_cpu_operators=0)
    costs = of_costs(0.0, 1, 1, 1.0, 1.0, 1, {"vela_cpu_operators": 2}).costs
    assert shortfall(costs, operators) == 2.0


def test_limits_on_quality_count_once():
    budget = Budget(max_drop=1.0, max_relative_loss=0.9, quality_limit=0.88)
    tolerance = tolerance_of(budget)
    assert tolerance.allowed == 1.0
    assert shortfall(of_costs(3.0, 1, 1, 1.0, 1.0, 1).costs, budget, tolerance) == (
        pytest.approx(2.0)
    )


def test_a_device_that_runs_no_file_leaves_the_one_that_loses_least():
    rows = [of_costs(drop, 10, 9, 0.5, 1.0, 1, {"ram_bytes": math.inf}) for drop in (2.0, 0.5, 3.0)]
    assert best_for_budget(rows, Budget(max_ram_bytes=9), OF_ACCURACY) is rows[1]


def test_costs_that_are_compared_follow_the_budget():
    assert limited_costs(None) == ("bytes", "gzip_bytes", "macs", "memory")
    assert limited_costs(Budget(max_drop=1.0, max_bytes=9)) == ()
    assert limited_costs(Budget(max_gzip_bytes=9, max_bytes=9, max_memory=3)) == ("bytes", "memory")
    many, few = of_costs(0.1, 9, 9, 0.5, 0.9, 9), of_costs(0.2, 9, 9, 0.5, 0.5, 9)
    assert front([many, few], False, Budget(max_bytes=9)) == [many]
    assert front([many, few], False, Budget(max_macs=0.6)) == [many, few]
    assert front([many, few], False) == [many, few]
