"""The time left of a job: on a clock that is moved by hand."""

import pytest

from tfnas.compression.progress import PrintedProgress, TrialNews
from tfnas.jobs.time_left import TRIALS, TimedProgress, TimeLeft


class Clock:
    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


def job(clock, parts):
    """Runs a job whose parts take (work, seconds), in tenths; returns (time, estimate)."""
    left = TimeLeft({name: work for name, (work, _) in parts.items()}, clock)
    found = []
    for name, (_, seconds) in parts.items():
        left.reached(name, 0.0)
        for step in range(1, 11):
            clock.time += seconds / 10
            left.reached(name, step / 10)
            found.append((clock.time, left.seconds()))
    return found


def test_parts_that_did_not_run_take_the_pace_of_those_that_did():
    found = job(Clock(), {"a": (1.0, 30.0), "b": (2.0, 60.0), "c": (0.5, 15.0)})
    for time, seconds in found:
        assert seconds == pytest.approx(105.0 - time, abs=1e-6)


def test_a_part_that_runs_has_its_own_pace():
    found = job(Clock(), {"a": (1.0, 30.0), "b": (1.0, 90.0)})
    assert found[9][1] == pytest.approx(30.0)
    assert found[10][1] == pytest.approx(81.0)


def test_what_is_not_typical_is_no_pace():
    clock = Clock()
    left = TimeLeft({"a": 1.0}, clock)
    left.begun("a", 0.0)
    clock.time = 50.0  # the first step is traced
    left.begun("a", 0.1)
    for fraction in (0.2, 0.3):
        clock.time += 10.0
        left.reached("a", fraction)
    assert left.seconds() == pytest.approx(70.0)
    clock.time += 40.0
    left.reached("a", 0.35, typical=False)
    assert left.seconds() == pytest.approx(65.0)


def test_parts_that_were_skipped_are_over():
    clock = Clock()
    left = TimeLeft({"a": 5.0, "b": 1.0, "c": 1.0}, clock)
    left.reached("b", 0.5)  # resumed
    assert left.seconds() is None
    clock.time = 10.0
    left.reached("b", 0.75)
    assert left.seconds() == pytest.approx(10.0 + 40.0)


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

    def work():
        calls.append(1)
        return {"shared": 2.0, TRIALS: 4.0, "comparison": 2.0}

    progress = TimedProgress(watch, work)
    progress.phase("search: data")
    progress.phase("shared")
    progress.epoch_ended(0, 2)
    for epoch in (1, 2):
        clock.time += 60.0
        progress.epoch_ended(epoch, 2)
    assert watch.times == [360.0]  # the first step is traced
    for number in (1, 2):
        progress.trial_began(number, 2)
        clock.time += 80.0
        progress.epoch_ended(1, 1)
        clock.time += 20.0
        progress.trial_ended(TrialNews(number, 2, 100.0, "good", None))
    assert watch.times[-1] == pytest.approx(320.0 / 6 * 2)  # 320 s for 6 of 8
    progress.phase("training for comparison: MobileNetV2")
    progress.part("comparison")
    clock.time += 50.0
    progress.epoch_ended(1, 2)
    # Its first step is traced: the pace is that of the job, 370 s for 7 of 8.
    assert watch.times[-1] == pytest.approx(370.0 / 7)
    clock.time += 20.0
    assert watch.left() == "about 33 s left"  # it ticks
    assert calls == [1]
    assert "  epoch 2 of 2; about 6 min 00 s left" in capsys.readouterr().out
    progress.phase("stopping")
    assert watch.times[-1] is None
    assert watch.left() == ""
