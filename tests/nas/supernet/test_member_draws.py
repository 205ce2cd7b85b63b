"""Draws of the networks of a step: the sandwich rule, and bounds that it keeps."""

import numpy as np
import pytest

import tfnas
from tfnas.nas.objectives import Objectives, objective_of
from tfnas.nas.supernet.member_draws import MemberDraws, load_of


@pytest.fixture(scope="module")
def space():
    return tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")


def filters(arch):
    return sum(stage.filters * stage.repeats for stage in arch.stages)


def drawn(draws, steps=20):
    rng = np.random.default_rng(0)
    return [draws(rng) for _ in range(steps)]


def test_without_bounds_the_largest_teaches(space):
    largest = filters(space.largest(np.random.default_rng(0)))
    smallest = filters(space.smallest(np.random.default_rng(0)))
    for load in (None, lambda arch: filters(arch) / largest):
        for teacher, least, *others in drawn(MemberDraws(space, 2, load)):
            assert filters(teacher) == largest
            assert filters(least) == smallest
            assert len(others) == 2


def test_within_bounds_the_nearest_to_them_teaches(space):
    steps = drawn(MemberDraws(space, 2, lambda arch: filters(arch) / 150))
    for teacher, _, *others in steps:
        assert max(map(filters, others)) <= filters(teacher) <= 150
    assert max(filters(teacher) for teacher, *_ in steps) > 130
    assert len({arch.network for step in steps for arch in step[2:]}) > 30


def test_bounds_that_no_network_keeps_are_approached(space):
    anything = np.mean([filters(space.sample(np.random.default_rng(n))) for n in range(50)])
    steps = drawn(MemberDraws(space, 1, lambda arch: 1.0 + filters(arch)), 5)
    assert np.mean([filters(arch) for step in steps for arch in step]) < anything / 1.5


def test_the_load_is_that_of_the_tightest_bound():
    def costs(arch):
        return {"latency_ratio": 0.2, "ram_bytes": 500.0}

    def load(names, limits=None, target=None):
        return load_of(costs, Objectives.of(objective_of(names), limits), target)

    assert load(["file_accuracy", "latency_ratio"]) is None
    assert load(["file_accuracy", "latency_ratio"], target=0.1) is None  # of no reward
    assert load("reward", target=0.1)(None) == pytest.approx(2.0)
    assert load("reward", {"ram_bytes": 100}, 0.1)(None) == pytest.approx(5.0)
    assert load("reward", {"latency_ratio": 0.05}, 0.1)(None) == pytest.approx(4.0)
    assert load("file_accuracy", {"size_bytes": 100})(None) == 0.0  # it is not known here
    assert load("macs", {"file_accuracy": 0.9}) is None
