"""The time left of a job: on a clock that is moved by hand, in simulated searches."""

import dataclasses
import types

import keras
import numpy as np
import pytest

import tfnas
from tfnas.compression.progress import PrintedProgress, TrialNews
from tfnas.jobs import search_work
from tfnas.jobs.search_work import SearchWork, comparison
from tfnas.jobs.time_left import TRIALS, Sample, TimedProgress, TimeLeft, Work
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.supernet.member_draws import MemberDraws
from tfnas.nas.supernet.supernet_tuner import SupernetTuner


class Clock:
    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


def job(clock, parts, steps=10):
    """Runs parts of (work, seconds), with even steps; returns (time, estimate) after each step."""
    left = TimeLeft({name: work for name, (work, _) in parts.items()}, clock)
    found = []
    for name, (_, seconds) in parts.items():
        left.part_began(name)
        for step in range(1, steps + 1):
            clock.time += (seconds.first if step == 1 else 0.0) + seconds.steps / steps
            left.step_ended(step / steps)
            found.append((clock.time, left.seconds()))
        clock.time += seconds.last
    return found


def test_parts_that_did_not_run_take_the_pace_of_those_that_did():
    parts = {"a": Work(1.0), "b": Work(2.0), "c": Work(0.5)}
    found = job(Clock(), {name: (work, Work(30 * work.steps)) for name, work in parts.items()})
    assert found[0][1] is None  # the first step may be traced
    for time, seconds in found[1:]:
        assert seconds == pytest.approx(105.0 - time, abs=1e-6)


def test_a_part_that_runs_has_its_own_pace():
    found = job(Clock(), {"a": (Work(1.0), Work(30.0)), "b": (Work(1.0), Work(90.0))})
    assert found[9][1] == pytest.approx(30.0)
    assert found[14][1] == pytest.approx(45.0, rel=0.1)
    assert found[-1][1] == 0.0


def test_what_is_done_once_has_a_pace_of_its_own():
    """Here steps take as long as expected, and traces three times as long."""
    parts = {
        name: (work, dataclasses.replace(work, first=3 * work.first))
        for name, work in (("a", Work(20.0, 10.0)), ("b", Work(20.0, 10.0)), ("c", Work(5.0, 40.0)))
    }
    found = job(Clock(), parts)
    for time, seconds in found[1:10] + found[11:20] + found[21:]:
        assert seconds == pytest.approx(225.0 - time, abs=1e-6)


def test_a_part_goes_on_where_an_earlier_run_stopped():
    clock = Clock()
    left = TimeLeft({"a": Work(5.0), "b": Work(1.0), "c": Work(1.0)}, clock)
    left.part_began("b", 0.4)
    assert left.seconds() is None
    for fraction in (0.6, 0.8):  # the first step is traced, for 30 s
        clock.time += 40.0 if fraction == 0.6 else 10.0
        left.step_ended(fraction)
    assert left.seconds() == pytest.approx(10.0 + 50.0)
    left.part_began("c", 1.0)
    assert left.seconds() == 0.0


def test_trials_take_the_pace_of_those_that_ended():
    clock = Clock()
    work = Work(4.0, 2.0, 2.0, networks=4)
    left = TimeLeft({TRIALS: work, "after": Work(8.0, 4.0)}, clock)
    left.part_began(TRIALS)
    for number in range(4):
        left.network_began()
        for epoch, seconds in enumerate((6.0, 2.0, 2.0, 2.0), 1):
            clock.time += seconds
            left.step_ended(epoch / 4)
            if epoch > 1:
                assert left.seconds() == pytest.approx(16.0 * (4 - number) + 24.0 - 4 - 2 * epoch)
        clock.time += 4.0
        left.network_ended()
        assert left.seconds() == pytest.approx(16.0 * (3 - number) + 24.0)


def test_small_and_large_trials_have_their_own_work():
    """The first trial is three times as large as those that are expected."""
    clock = Clock()
    left = TimeLeft({TRIALS: Work(10.0, networks=11)}, clock)
    left.part_began(TRIALS)
    left.network_began(Work(30.0))
    for epoch in (1, 2, 3):
        clock.time += 10.0
        left.step_ended(epoch / 3)
    left.network_ended()
    expected = (2 * 10.0 + 30.0) / 3  # that one has been drawn, beside two that were expected
    assert left.seconds() == pytest.approx(10 * expected)


def test_trials_beside_each_other_count_when_they_end():
    clock = Clock()
    left = TimeLeft({TRIALS: Work(4.0, 2.0, networks=8), "after": Work(4.0, 2.0)}, clock)
    left.part_began(TRIALS)
    left.network_began()
    left.network_began()
    for ended in range(1, 7):
        clock.time += 50.0
        left.network_ended()
        left.network_began()
        assert left.seconds() == pytest.approx(50.0 * (8 - ended) + 50.0)


def shared_weights(clock, sample):
    """A job whose shared weights take twice as long as expected; (time, estimate) at each step."""
    parts = {
        "shared": Work(100.0, 20.0, kind="shared"),
        "scores": Work(50.0, 10.0, kind="scores"),
        TRIALS: Work(20.0, 10.0, 10.0, networks=2),
        "comparison": Work(100.0, 10.0, 10.0),
    }
    left, found = TimeLeft(parts, clock), []
    if sample is not None:
        left.sampled(sample)
    for name, slower in (("shared", 2.0), ("scores", 1.5)):
        left.part_began(name)
        found.append((clock.time, left.seconds()))
        for step in range(1, 11):
            clock.time += slower * (parts[name].steps / 10 + parts[name].first * (step == 1))
            left.step_ended(step / 10)
            found.append((clock.time, left.seconds()))
    return found, 345.0 + 200.0  # what comes after the scores is as was expected


def test_kinds_have_paces_of_their_own_where_a_sample_was_measured():
    sample = Sample(Work(2.0, 5.0), steps=2.0, first=5.0)
    found, whole = shared_weights(Clock(), sample)
    assert found[0][1] == pytest.approx(120.0 + 60.0 + 200.0)  # before anything has run
    for time, seconds in found[2:12]:  # without the first step, which is traced
        assert time + seconds == pytest.approx(whole - 30.0, rel=0.03)
    for time, seconds in found[13:]:
        assert time + seconds == pytest.approx(whole, rel=0.03)
    known = [seconds for _, seconds in shared_weights(Clock(), None)[0]]
    assert known[0] is None
    assert known[9] == pytest.approx(10 * 2.0 + 2 * 60.0 + 2 * 200.0)  # one pace for all


def test_a_sample_counts_until_the_job_has_trained_a_network():
    """Also where networks tell their whole time alone, or begin beside each other."""
    clock, sample = Clock(), Sample(Work(1.0, 1.0), steps=1.0, first=1.0)
    left = TimeLeft({TRIALS: Work(10.0, networks=4), "again": Work(10.0)}, clock)
    assert left.seconds() is None
    left.sampled(sample)
    left.part_began(TRIALS)
    left.network_began()
    left.network_began()
    assert left.seconds() == pytest.approx(4 * 10.0 / 2 + 10.0)
    for _ in range(2):
        clock.time += 100.0
        left.step_ended(1.0)
        left.network_ended()
    left.part_began("again")
    assert left.seconds() == pytest.approx(100.0)


def test_the_only_trial_counts_once():
    clock = Clock()
    left = TimeLeft({TRIALS: Work(10.0, 5.0, 5.0), "again": Work(10.0, 5.0, 5.0)}, clock)
    left.part_began(TRIALS)
    left.network_began()
    for epoch, seconds in enumerate((60.0, 10.0, 10.0, 10.0), 1):
        clock.time += seconds
        left.step_ended(epoch / 4)
    clock.time += 50.0
    left.network_ended()
    assert left.seconds() == pytest.approx(140.0)
    clock.time += 1000.0  # what is between parts is no work of either
    left.part_began("again")
    assert left.seconds() == pytest.approx(140.0)


def test_a_sample_measures_a_network_of_the_space():
    """Only where the search begins with shared weights, and without a trace in its draws."""
    space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
    split = types.SimpleNamespace(x_train=np.zeros(64), x_val=np.zeros(16))
    config = SearchConfig("digits", preset="microcontroller", batch_size=32)
    hypermodel = types.SimpleNamespace(space=space)
    alone = types.SimpleNamespace(hypermodel=hypermodel)
    assert SearchWork(config, alone, split, split).sample() is None

    class Shared(SupernetTuner):
        def __init__(self):
            self.hypermodel, self.draws = hypermodel, MemberDraws(space, 2)

    ticks = iter(np.arange(0.0, 1000.0, 10.0))
    keras.utils.set_random_seed(3)
    sizes = SearchWork(config, Shared(), split, split)
    sample = sizes.sample(lambda: next(ticks))
    assert sample.first == 0.0  # the hand of this clock moves by as much each time
    steps = sample.steps / 10.0
    assert 2 <= steps <= 39
    archs = [space.smallest(np.random.default_rng(0)), space.largest(np.random.default_rng(0))]
    least, most = (steps * search_work.step(arch, 32) for arch in archs)
    assert least <= sample.work.steps <= most
    drawn = np.random.random()  # noqa: NPY002  the generator that Keras seeds
    keras.utils.set_random_seed(3)
    assert np.random.random() == drawn  # noqa: NPY002


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("algorithm", ["evolution", "random"])
def test_searches_are_right_within_a_fifth_after_a_third(algorithm, seed):
    """Networks of random sizes, on a machine whose constants are others than the measured ones."""
    rng = np.random.default_rng(seed)
    config = SearchConfig("digits", preset="microcontroller", max_trials=12, epochs=4)
    space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
    split = types.SimpleNamespace(x_train=np.zeros(1300), x_val=np.zeros(140))
    hypermodel = types.SimpleNamespace(space=space)
    sizes = SearchWork(config, types.SimpleNamespace(hypermodel=hypermodel), split, split)
    parts, archs = sizes.parts(), [space.sample(rng) for _ in range(12)]
    works = [sizes.trained(arch, 1300, config.epochs) for arch in archs]
    clock, expected, progress = Clock(), [], PrintedProgress()
    progress.time_left = lambda seconds: expected.append((clock.time, seconds))
    steps, once = rng.uniform(0.5, 3.0, 2) / 1000

    def spend(seconds):
        clock.time += seconds * rng.uniform(0.8, 1.2)

    def train(work, epochs, timed):
        spend(work.first * once)
        for epoch in range(1, epochs + 1):
            spend(work.steps * steps / epochs)
            timed.epoch_ended(epoch, epochs)
        spend(work.last * once)

    timed = TimedProgress(progress, lambda: parts, lambda number: works[number - 1], clock)
    for number, work in enumerate(works, 1):
        timed.trial_began(number, 12)
        train(work, 4, timed)
        timed.trial_ended(TrialNews(number, 12, 1.0, "good", None))
    timed.part_began(comparison(0))
    train(parts[comparison(0)], 4, timed)
    late = [at + left for at, left in expected if at > clock.time / 3]
    assert len(late) > 30
    assert late == pytest.approx([clock.time] * len(late), rel=0.2)


class Watch(PrintedProgress):
    def __init__(self):
        super().__init__()
        self.times = []

    def time_left(self, seconds):
        super().time_left(seconds)
        self.times.append(seconds)


def test_the_events_of_a_search_tell_the_time_left(monkeypatch, capsys):
    clock, watch, calls = Clock(), Watch(), []
    monkeypatch.setattr("time.monotonic", clock)
    parts = {"shared": Work(2.0), TRIALS: Work(2.0, networks=2), "comparison": Work(2.0)}
    parts["alone"] = Work(1.0, networks=3)
    progress = TimedProgress(watch, lambda: calls.append(1) or parts)
    progress.phase("search: data")
    progress.phase("shared")
    progress.part_began("shared", 0, 2)
    for epoch in (1, 2):
        clock.time += 60.0
        progress.epoch_ended(epoch, 2)
    assert watch.times == [540.0]  # the first step may be traced
    for number in (1, 2):
        progress.trial_began(number, 2)
        clock.time += 100.0
        progress.epoch_ended(1, 1)
        clock.time += 20.0
        progress.trial_ended(TrialNews(number, 2, 120.0, "good", None))
    assert watch.times[-1] == pytest.approx(300.0)
    progress.phase("training for comparison: MobileNetV2")
    assert watch.times[-1] is None
    progress.part_began("comparison")
    assert watch.times[-1] == pytest.approx(300.0)
    clock.time += 55.0
    progress.epoch_ended(1, 2)
    clock.time += 20.0
    assert calls == [1]
    assert "  epoch 1 of 2; about 4 min 00 s left" in capsys.readouterr().out
    assert watch.left() == "about 3 min 40 s left"  # it ticks
    progress.epoch_ended(2, 2)
    progress.part_began("alone")
    for network in (1, 2, 3):
        clock.time += 50.0
        progress.epoch_ended(1, 1)  # of a network, not of the part
        progress.step_ended(network, 3, "network")
        assert watch.times[-1] == pytest.approx(50.0 * (3 - network))
    progress.phase("stopping")
    assert watch.times[-1] is None
    assert watch.left() == ""


def test_a_trial_that_is_retried_is_one(monkeypatch):
    clock, watch = Clock(), Watch()
    monkeypatch.setattr("time.monotonic", clock)
    progress = TimedProgress(watch, lambda: {TRIALS: Work(2.0, networks=3)})
    progress.trial_began(1, 3)
    clock.time += 100.0
    progress.trial_began(1, 3)  # it failed
    for epoch in (1, 2):
        clock.time += 50.0
        progress.epoch_ended(epoch, 2)
    progress.trial_ended(TrialNews(1, 3, 100.0, "good", None))
    progress.trial_began(2, 3)
    clock.time += 50.0
    progress.epoch_ended(1, 2)
    clock.time += 50.0
    progress.epoch_ended(2, 2)
    assert not progress._left._series.overlap
    progress.trial_ended(TrialNews(2, 3, 100.0, "good", None))
    assert watch.times[-1] == pytest.approx(150.0)  # 300 s for two, with the failure


def test_there_may_be_fewer_trials_than_were_asked_for(monkeypatch):
    """And some may take no time at all, as those that broke a limit."""
    clock, watch = Clock(), Watch()
    monkeypatch.setattr("time.monotonic", clock)
    parts = {TRIALS: Work(2.0, networks=20), "comparison": Work(2.0)}
    progress = TimedProgress(watch, lambda: parts)
    for number, seconds in enumerate((0.0, 60.0, 60.0), 1):
        progress.trial_began(number, 3)
        clock.time += seconds
        progress.epoch_ended(1, 1)
        progress.trial_ended(TrialNews(number, 3, seconds, "good", None))
    assert watch.times[-1] == pytest.approx(40.0)
    progress.part_began("comparison", 0, 0)
