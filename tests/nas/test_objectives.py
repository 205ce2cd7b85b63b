"""Objectives and limits of a search."""

import keras_tuner as kt
import pytest

from tfnas.nas.objectives import Objectives, ParetoObjective, objective_of

# ---- objectives


def test_objectives_keep_their_directions():
    found = objective_of(["file_accuracy", "latency_ratio", kt.Objective("x", "max")])
    assert isinstance(found, ParetoObjective)
    assert found.name_to_direction == {"file_accuracy": "max", "latency_ratio": "min", "x": "max"}
    objectives = Objectives.of(found, {"latency_ratio": 0.5, "file_accuracy": 0.8})
    metrics = {"file_accuracy": 0.7, "latency_ratio": 0.75, "x": 2.0}
    assert objectives.losses(metrics) == (-0.7, 0.75, -2.0)
    assert objectives.violation(metrics) == pytest.approx(0.1 / 0.8 + 0.25 / 0.5)
    assert objectives.broken(metrics) == [
        "latency_ratio 0.75 breaks latency_ratio <= 0.5",
        "file_accuracy 0.7 breaks file_accuracy >= 0.8",
    ]
    assert objectives.violation({"latency_ratio": 0.4}) == 0
    assert objectives.standing({"file_accuracy": 0.8, "latency_ratio": 0.75}) == [
        "latency_ratio 0.75 breaks <= 0.5",
        "file_accuracy 0.8 keeps >= 0.8",
    ]
    assert objectives.standing({"latency_ratio": 0.4})[1:] == [
        "file_accuracy not measured, must be >= 0.8"
    ]


def test_limits_that_no_file_can_keep_are_refused():
    for bound in (-1, 0):
        with pytest.raises(ValueError, match=r"limits\['ram_bytes'\] must be above 0"):
            Objectives.of(objective_of("reward"), {"ram_bytes": bound})
    kept = Objectives.of(objective_of("reward"), {"vela_cpu_operators": 0, "reward": -1})
    assert [limit.bound for limit in kept.limits] == [0, -1]
    with pytest.raises(ValueError, match="limits must be a dictionary of metrics and bounds"):
        Objectives.of(objective_of("reward"), [1])
    with pytest.raises(ValueError, match="objective must be a metric that tfnas"):
        objective_of(["reward", "lambency"])
