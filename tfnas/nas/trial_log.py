"""The log of a search: one line of JSON for each trial, and the progress display."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Mapping, Sequence

import keras_tuner as kt

from tfnas.compression.progress import Progress, TrialNews
from tfnas.nas.measured_trial import trial_text
from tfnas.nas.objectives import metric_text
from tfnas.nas.search_callbacks import Phase, TrialCallbacks
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.tuner import MeasuredTuner
from tfnas.runtime.files import write_atomically
from tfnas.runtime.interrupts import Interrupts


class TrialLog(TrialCallbacks):
    """Writes one line of JSON for each trial that ended, and reports progress.

    Args:
        tuner: The tuner whose trials are logged.
        path: The `.jsonl` file; trials that have ended already are written at once. None: nothing
            is written, as the search has ended in a folder that is read only.
        progress: Receives the progress.
        config: The settings of the search.
    """

    def __init__(
        self,
        tuner: MeasuredTuner,
        path: pathlib.Path | None,
        progress: Progress,
        config: SearchConfig,
    ):
        self.tuner, self.path, self.progress, self.config = tuner, path, progress, config
        self.started = time.monotonic()
        self._phase = ""
        self.interrupts = Interrupts()
        """Asked after each epoch and before each trial."""
        oracle = tuner.oracle
        ended = [self._line(oracle.get_trial(trial_id)) for trial_id in oracle.end_order]
        if path is not None:
            write_atomically(path, "".join(ended))  # a resumed search has no line twice

    def phase_progressed(self, phase: Phase) -> None:
        """Reports a phase before the trials."""
        begins = phase.text != self._phase
        if begins:
            self._phase = phase.text
            self.progress.phase(phase.text)
        if phase.note:
            self.progress.note(phase.note)
        if begins and phase.total:
            self.progress.part_began(phase.text, phase.done, phase.total)
        elif phase.total and phase.unit == "epoch":
            self.progress.epoch_ended(phase.done, phase.total)
        elif phase.total:
            self.progress.step_ended(phase.done, phase.total, phase.unit)
        self.interrupts.check()

    def trial_began(self, trial: kt.engine.trial.Trial) -> None:
        """Reports the start of a trial."""
        self.started = time.monotonic()
        self.progress.trial_began(int(trial.trial_id) + 1, self.total)
        self.interrupts.check()

    def epoch_ended(self, trial: kt.engine.trial.Trial, epoch: int) -> None:
        """Reports an epoch."""
        self.progress.epoch_ended(epoch + 1, self.config.epochs)
        self.interrupts.check()

    def trial_ended(self, trial: kt.engine.trial.Trial) -> None:
        """Writes the line of the trial and reports it, with the best trial so far."""
        if trial.trial_id not in self.tuner.oracle.end_order:
            return  # sent for a retry
        seconds = time.monotonic() - self.started
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(self._line(trial, seconds))
        oracle = self.tuner.oracle
        done = trial.status == "COMPLETED"
        best = self._best() if oracle.records else None
        self.progress.trial_ended(
            TrialNews(
                int(trial.trial_id) + 1,
                self.total,
                seconds,
                self._text(trial) if done else f"failed: {failure_cause(trial)}",
                None if best is None else f"{self._text(best)} ({self._place(best)})",
                self._front() if done else None,
            )
        )

    @property
    def total(self) -> int:
        """Number of trials; shared weights may have fewer finalists than was set."""
        return min(self.config.max_trials, self.tuner.oracle.max_trials or self.config.max_trials)

    def _text(self, trial: kt.engine.trial.Trial) -> str:
        """A trial that ended well in one line."""
        objectives, target = self.tuner.oracle.objectives, self.tuner.target_ratio
        return trial_text(self.tuner.candidate(trial), objectives, target)

    def _best(self) -> kt.engine.trial.Trial:
        """The best of the trials that ended well."""
        return self.tuner.oracle.get_best_trials(1)[0]

    def _place(self, trial: kt.engine.trial.Trial) -> str:
        """Where a trial is found."""
        return f"in search/trial_{trial.trial_id}"

    def _front(self) -> str | None:
        """The Pareto front in one line; None: a single objective has a best trial instead."""
        names = self.tuner.oracle.objectives.names
        if len(names) == 1:
            return None
        return front_text([trial.metrics for trial in self.tuner.pareto_front()], names)

    def _line(self, trial: kt.engine.trial.Trial, seconds: float | None = None) -> str:
        """A trial as a line of JSON."""
        done = trial.status == "COMPLETED"
        known = bool(trial.hyperparameters.values)  # not of a file that can't be read
        arch = self.tuner.oracle.architecture(trial) if known else None
        candidate = self.tuner.candidate(trial) if done else None
        line = {
            "trial": trial.trial_id,
            "status": trial.status,
            "objective": trial.score if done else None,
            "seconds": None if seconds is None else round(seconds, 2),
            "architecture": None if arch is None else arch.to_dict(),
            "measurement": None if candidate is None else candidate.measurement.to_dict(),
            "metrics": None if candidate is None else dict(candidate.metrics),
            "failure": None if done else failure_cause(trial),
            **self.tuner.oracle.halving.metrics(trial.trial_id),
        }
        return json.dumps(line) + "\n"


def front_text(front: Sequence[Mapping[str, float]], objectives: Sequence[str]) -> str:
    """Returns the Pareto front of several objectives in one line.

    Example:
        >>> front_text([{"val_loss": 0.25, "size_bytes": 3000}], ["val_loss", "size_bytes"])
        'Pareto front, val_loss / size_bytes: 0.25 / 3,000'

    Args:
        front: The metrics of its trials.
        objectives: Names of the objectives.
    """
    rows = [" / ".join(metric_text(metrics[name]) for name in objectives) for metrics in front]
    more = f" and {len(rows) - 6} more" if len(rows) > 6 else ""
    return f"Pareto front, {' / '.join(objectives)}: {', '.join(rows[:6])}{more}"


def failure_cause(trial: kt.engine.trial.Trial) -> str:
    """Returns the last line of the message of a failed trial."""
    return (trial.message or "no message").strip().splitlines()[-1]
