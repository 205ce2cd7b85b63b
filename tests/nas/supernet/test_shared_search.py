"""A search over scores: any sampler, each network once, limits, resumption."""

import dataclasses
import math

import numpy as np
import pytest

import tfnas
from tfnas.nas.objectives import Objectives, metric_text, objective_of
from tfnas.nas.supernet.shared_search import SharedSearch


@pytest.fixture(scope="module")
def space():
    return tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")


def width(arch):
    return float(sum(stage.filters for stage in arch.stages))


class Scores:
    """Accuracies that grow with the filters; the bytes are the kernels."""

    def __init__(self):
        self.calls = 0

    def __call__(self, arch):
        self.calls += 1
        return {"file_accuracy": width(arch) / 200, **costs(arch)}


def costs(arch):
    return {"size_bytes": 1.0 + sum(stage.kernel * stage.repeats for stage in arch.stages)}


def searched(space, path, names, evaluations, scores, sampler=None, limits=None, costs=costs):
    objectives = Objectives.of(objective_of(list(names)), limits)
    sampler = sampler or tfnas.EvolutionSampler(population_size=16, tournament_size=4, children=1)
    search = SharedSearch(space, objectives, sampler, costs, scores, 0, path)
    search.run(evaluations)
    return search


@pytest.mark.parametrize("kind", ["evolution", "reinforcement"])
def test_a_sampler_finds_more_than_chance(space, tmp_path, kind):
    sampler = tfnas.ReinforceSampler(children=1) if kind == "reinforcement" else None
    found = searched(space, tmp_path / "a", ["file_accuracy"], 120, Scores(), sampler)
    [(best, metrics)] = found.best(1)
    rng = np.random.default_rng(0)
    assert width(best) == 200 * metrics["file_accuracy"]
    assert width(best) > np.mean([width(space.sample(rng)) for _ in range(200)]) + 20
    assert len({arch.network for arch, _ in found.best(120)}) == 120


def test_scores_are_not_computed_twice(space, tmp_path):
    path = tmp_path / "scores.jsonl"
    first = searched(space, path, ["file_accuracy", "size_bytes"], 60, Scores())
    with path.open("a") as file:
        file.write('{"architecture": "half a li')
    again = Scores()
    second = searched(space, path, ["file_accuracy", "size_bytes"], 80, again)
    assert again.calls == 20
    assert second.learning_records[:60] == first.learning_records
    assert len(path.read_text().splitlines()) == 80


def test_limits_are_kept(space, tmp_path):
    limits = {"size_bytes": 20.0}
    found = searched(space, tmp_path / "a", ["file_accuracy"], 40, Scores(), limits=limits)
    assert all(metrics["size_bytes"] <= 20 for _, metrics in found.best(40))


def test_the_best_scores_are_of_networks_within_the_limits(space, tmp_path):
    names, limits = ["file_accuracy"], {"size_bytes": 20.0}
    found = searched(space, tmp_path / "a", names, 40, Scores(), limits=limits)
    best = max(metrics["file_accuracy"] for metrics in found.metrics)
    text = f"best of 40 networks, with the shared weights: file_accuracy {metric_text(best)}"
    assert found.best_scores() == text
    found.learning_records = [
        dataclasses.replace(record, violation=1.0) for record in found.learning_records
    ]
    assert found.best_scores() == "none of 40 networks keeps the limits"


def test_limits_that_no_network_keeps(space, tmp_path):
    limits = {"size_bytes": 0.5}
    with pytest.raises(RuntimeError, match="must leave a feasible architecture"):
        searched(space, tmp_path / "a", ["file_accuracy"], 4, Scores(), limits=limits)


def test_networks_that_no_device_runs_come_last(space, tmp_path):
    def score(arch):
        bad = arch.stages[0].kind == "identity"
        return {"file_accuracy": width(arch) / 200, "ram_bytes": math.inf if bad else 1.0}

    names = ["file_accuracy", "ram_bytes"]
    found = searched(space, tmp_path / "a", names, 30, score, costs=lambda arch: {})
    order = [math.isfinite(metrics["ram_bytes"]) for _, metrics in found.best(30)]
    assert order == sorted(order, reverse=True)
    assert not all(order)


def test_a_small_space_is_exhausted(tmp_path):
    stage = tfnas.StageChoices((8, 16), (1,), 2, ("inverted_residual",), (3,), (2,))
    space = tfnas.MobileNetV2Space((8, 8, 1), 10, stages=[stage], width_multipliers=(1.0,))
    found = searched(space, tmp_path / "a", ["file_accuracy"], 50, Scores())
    assert found.num_started == space.size == 2
