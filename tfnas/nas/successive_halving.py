"""Asynchronous successive halving: trials begin with few epochs, the best of a rung go on.

With `eta` 3 and at most 18 epochs there are three rungs, of 2, 6 and 18 epochs. Whenever a
trial is asked for, the highest rung is looked at first: is one of the best third of those that
ended there not promoted yet, then it goes on; else the lowest rung gets a new architecture.
Nobody waits for a rung to be full, so it works with any number of workers, one among them.

A promotion is a trial of its own, with its own file, which continues from the weights of the
trial below it. So a trial's file is never written again once the trial has ended, and a kill
costs what it costs without rungs.

An accuracy after 2 epochs is none after 18: the search learns from one rung at a time, the
highest in which as many trials ended as the search needs to begin (BOHB does so). What has
reached it was chosen on the rungs below it. Candidates and the Pareto front are of files,
which compare whatever made them; an architecture is there with its highest rung alone.

References:
    Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (ASHA).
    Falkner, Klein and Hutter, "BOHB", ICML 2018, section 3.3 (one model, of the largest budget
    with enough observations).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfnas.nas.trial_records import Entry, ranked
from tfnas.runtime.argument_rules import check_count


class Halving:
    """Which trial is on which rung.

    Example:
        >>> halving = Halving(3, min_epochs=2)
        >>> halving.fix(epochs=18, max_trials=20)
        >>> [halving.epochs_of(rung) for rung in range(halving.top + 1)]
        [2, 6, 18]

    Args:
        eta: One in so many of a rung goes on, at least 2; None: no rungs.
        min_epochs: The lowest rung has at least so many epochs.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    def __init__(self, eta: int | None = None, min_epochs: int = 1) -> None:
        check_count("halving", eta, 2, optional=True)
        check_count("min_epochs", min_epochs, 1)
        if eta is None and min_epochs != 1:
            raise ValueError(f"min_epochs must go with halving, got {min_epochs} without it")
        self.eta, self.min_epochs = eta, min_epochs
        self.epochs: int | None = None
        """Epochs of the highest rung, known once the search began."""
        self.continues: dict[str, str] = {}
        """Trial -> the trial whose weights it begins with."""
        self._rungs: dict[str, int] = {}
        self._roots: dict[str, str] = {}
        self._at: dict[tuple[str, int], str] = {}
        self._ended: dict[int, list[Entry]] = {}
        self._learned = 0  # the rung that is learned from

    # ---- epochs

    def fix(self, epochs: int, max_trials: int | None) -> None:
        """Sets the epochs of the highest rung.

        Args:
            epochs: As for Keras' `fit`.
            max_trials: Of the search; None: any.

        Raises:
            ValueError: There would be one rung, the epochs of an earlier run were others, or
                there are too few trials for one to reach the highest rung.
        """
        if self.eta is None:
            return
        check_count("epochs", epochs, self.eta * self.min_epochs)
        if self.epochs not in (None, epochs):
            raise ValueError(
                f"epochs of a search with halving must stay {self.epochs}, got {epochs}: results "
                "of a rung would not compare"
            )
        self.epochs = epochs
        least = sum(self.eta**rung for rung in range(self.top + 1))
        if max_trials is not None and max_trials < least:
            raise ValueError(
                f"max_trials must be at least {least} for one trial to reach {epochs} epochs with "
                f"halving={self.eta} and min_epochs={self.min_epochs}, got {max_trials}"
            )

    @property
    def top(self) -> int:
        """The highest rung; the lowest is 0."""
        assert self.eta is not None
        assert self.epochs is not None
        rung = 0
        while self.epochs // self.eta ** (rung + 1) >= self.min_epochs:
            rung += 1
        return rung

    def epochs_of(self, rung: int) -> int:
        """Returns the epochs that a network has been trained when it leaves a rung."""
        assert self.eta is not None
        assert self.epochs is not None
        return self.epochs // self.eta ** (self.top - rung)

    def budget(self, trial_id: str) -> dict[str, int]:
        """Returns a trial's `epochs` and `initial_epoch` for Keras' `fit`; {} without rungs."""
        if self.eta is None or self.epochs is None:
            return {}
        rung = self.rung(trial_id)
        begin = 0 if rung == 0 else self.epochs_of(rung - 1)
        return {"epochs": self.epochs_of(rung), "initial_epoch": begin}

    def metrics(self, trial_id: str) -> dict[str, float]:
        """Returns what a trial reports: its rung, and the epochs up to its end."""
        budget = self.budget(trial_id)
        if not budget:
            return {}
        return {"rung": float(self.rung(trial_id)), "epochs": float(budget["epochs"])}

    # ---- trials

    def rung(self, trial_id: str) -> int:
        """Returns a trial's rung."""
        return self._rungs.get(trial_id, 0)

    def promotable(self) -> str | None:
        """Returns the trial that goes on, of the highest rung that has one; None: none.

        Trials are ranked as everywhere: those outside of the limits come last, but they are
        not left out, since training may bring an accuracy within its limit.
        """
        if self.eta is None or self.epochs is None:
            return None
        gone = set(self.continues.values())
        for rung in range(self.top - 1, -1, -1):
            ended = self._ended.get(rung, [])
            for place in ranked(ended)[: len(ended) // self.eta]:
                if ended[place].trial_id not in gone:
                    return ended[place].trial_id
        return None

    def begin(self, trial_id: str, source: str, rung: int | None = None) -> None:
        """Notes a promotion.

        Args:
            trial_id: The new trial.
            source: The trial that it continues.
            rung: The new trial's; None: the one above.
        """
        self.continues[trial_id] = source
        self._rungs[trial_id] = self.rung(source) + 1 if rung is None else rung
        self._roots[trial_id] = self._roots.get(source, source)
        self._at[self._roots[trial_id], self._rungs[trial_id]] = trial_id

    def parent(self, trial_id: str, parents: Mapping[str, str]) -> str | None:
        """Returns the trial of the same rung that a trial's architecture was made from.

        Args:
            trial_id: The trial.
            parents: Trial of the lowest rung -> what it was made from.
        """
        parent = parents.get(self._roots.get(trial_id, trial_id))
        rung = self.rung(trial_id)
        if self.eta is None or parent is None:
            return parent
        root = self._roots.get(parent, parent)
        return root if rung == 0 else self._at.get((root, rung))

    def ended(self, entry: Entry, enough: int) -> tuple[list[Entry], bool]:
        """Returns what there is to learn now that a trial ended, and whether it is a new rung's.

        Args:
            entry: The trial.
            enough: Trials of a rung with which the search learns from it.
        """
        rung = self.rung(entry.trial_id)
        of_rung = self._ended.setdefault(rung, [])
        of_rung.append(entry)
        if rung > self._learned and len(of_rung) >= enough:
            self._learned = rung
            return list(of_rung), True
        return ([entry] if rung == self._learned else []), False

    def for_worker(self, trial_id: str) -> Halving:
        """Returns what a worker needs to run a trial."""
        twin = Halving(self.eta, self.min_epochs)
        twin.epochs = self.epochs
        if trial_id in self.continues:
            twin.begin(trial_id, self.continues[trial_id], self.rung(trial_id))
        return twin

    # ---- the files

    def kept(self, trial_id: str) -> dict[str, Any]:
        """Returns what a trial's file keeps."""
        if trial_id not in self.continues:
            return {}
        return {"continues": self.continues[trial_id], "rung": self.rung(trial_id)}

    def restore(self, trial_id: str, kept: Mapping[str, Any]) -> None:
        """Takes back what :meth:`kept` gave."""
        if kept.get("continues") is not None:
            self.begin(trial_id, str(kept["continues"]), int(kept["rung"]))


def continue_from(model: Any, path: str) -> None:
    """Gives a compiled model the weights, and the optimizer's state, of a file.

    Args:
        model: A built model like the one that the file is of.
        path: What `save_weights` wrote.
    """
    if getattr(model, "optimizer", None) is not None:
        model.optimizer.build(model.trainable_variables)  # else its state is not read
    model.load_weights(path)
