"""What the log of a search tells the progress of phases before its trials, and of its front."""

import types

import pytest

from tfnas.compression.progress import Progress
from tfnas.nas.search_callbacks import Phase
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.trial_log import TrialLog


class Told(Progress):
    def __init__(self):
        self.calls = []

    def phase(self, text):
        self.calls.append(text)

    def note(self, text):
        self.calls.append(f"  {text}")

    def part_began(self, name, done=0, total=1):
        self.calls.append((name, done, total))

    def epoch_ended(self, number, total):
        self.calls.append(("epoch", number, total))

    def step_ended(self, number, total, unit):
        self.calls.append((unit, number, total))


def log_of(max_trials=4, front=(), objectives=("reward",)):
    names = types.SimpleNamespace(names=objectives)
    oracle = types.SimpleNamespace(end_order=[], max_trials=max_trials, objectives=names)
    tuner = types.SimpleNamespace(oracle=oracle, pareto_front=lambda: list(front))
    return TrialLog(tuner, None, Told(), SearchConfig("digits", max_trials=8))


def test_phases_are_told_once_with_what_was_done_before_and_each_step():
    log = log_of()
    for phase in (
        Phase("measuring"),
        Phase("measuring", note="good"),
        Phase("training", 1, 2, note="1 of 2 epochs were done before"),
        Phase("training", 2, 2),
        Phase("scoring", 0, 900, "network"),
        Phase("scoring", 1, 900, "network"),
    ):
        log.phase_progressed(phase)
    assert log.progress.calls == [
        *("measuring", "  good"),
        *("training", "  1 of 2 epochs were done before"),
        *(("training", 1, 2), ("epoch", 2, 2)),
        *("scoring", ("scoring", 0, 900), ("network", 1, 900)),
    ]


def test_as_many_trials_are_told_as_there_are_finalists():
    assert log_of(max_trials=4).total == 4
    assert log_of(max_trials=None).total == 8


def test_a_phase_is_left_where_ctrl_c_was_pressed():
    log = log_of()
    log.interrupts.pressed = True
    with pytest.raises(KeyboardInterrupt):
        log.phase_progressed(Phase("training", 0, 2))


def test_the_front_of_several_objectives_names_its_numbers():
    objectives = ("file_accuracy", "size_bytes")
    front = [
        types.SimpleNamespace(metrics={"file_accuracy": accuracy, "size_bytes": size})
        for accuracy, size in ((0.9, 800.0), (0.95, 4000.0))
    ]
    text = log_of(front=front, objectives=objectives)._front()
    assert text.startswith("Pareto front, file_accuracy / size_bytes: 0.9 / 800, 0.95 / 4,000")
    more = log_of(front=front * 4, objectives=objectives)._front()
    assert more.endswith(" and 2 more")
    assert log_of(front=front, objectives=("file_accuracy",))._front() is None
