"""Which decisions of a search mattered."""

import numpy as np
import pytest

from tfnas.reports.decision_sections import decision_sections, decisions_of, explained


def test_the_share_is_that_of_a_regression_on_groups():
    """Epsilon squared is the adjusted R squared of a regression on the groups."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 30)
    values = 0.5 * groups + rng.normal(size=30)
    design = np.eye(3)[groups]
    fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    total = ((values - values.mean()) ** 2).sum()
    r2 = 1 - ((values - fitted) ** 2).sum() / total
    adjusted = 1 - (1 - r2) * 29 / 27
    assert explained(groups.tolist(), values) == pytest.approx(max(0.0, adjusted))


def test_chance_explains_nothing_on_average():
    rng = np.random.default_rng(1)
    found = [explained(rng.integers(0, 4, 20).tolist(), rng.normal(size=20)) for _ in range(200)]
    assert np.mean(found) < 0.08  # those below zero count as zero


def test_real_numbers_are_put_into_groups():
    numbers = np.linspace(0.1, 0.9, 12)
    assert explained(numbers.tolist(), numbers) > 0.8
    assert explained(list("abcdefghijkl"), numbers) is None  # each trial has its own


def test_only_what_varies_is_shown_the_most_important_first():
    trials = [{"width": 8 * (i % 2), "kernel": 3, "depth": i // 4} for i in range(8)]
    accuracy = [0.8 + 0.1 * (i % 2) + 0.001 * i for i in range(8)]
    names, kinds = [f"trial {i}" for i in range(8)], ["chosen", *["dominated"] * 7]
    [section] = decision_sections(trials, {"accuracy": accuracy}, names, kinds)
    _, table, picture = section.blocks
    assert [row[0] for row in table.rows] == ["width", "depth"]
    assert table.rows[0][1] > 90 > table.rows[1][1]
    assert [axis.words[-1] for axis in picture.axes] == ["width", "depth", "accuracy"]
    assert picture.lines[-1].name == "trial 0"  # the best lies on top


def test_few_trials_say_nothing():
    trials = [{"width": i} for i in range(5)]
    assert decision_sections(trials, {"a": [0.1] * 5}, list("abcde"), ["front"] * 5) == []


def test_the_decisions_of_an_architecture_are_those_of_its_stages_too():
    stages, compression = [{"kernel": 3}], {"mode": "int8"}
    record = {"stem": 8, "shape": [8, 8], "stages": stages, "compression": compression}
    assert decisions_of(record) == {
        "stem": 8,
        "shape": "8x8",
        "stage 1 kernel": 3,
        "mode": "int8",
    }
