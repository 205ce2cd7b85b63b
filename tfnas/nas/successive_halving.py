"""Asynchronous successive halving: trials start with few epochs, the best ones train longer.

With `eta` 3 and at most 18 epochs there are three rungs, of 2, 6 and 18 epochs. Each request for a
trial promotes one of the best third of the trials that ended on a rung, on the highest rung
that has one that was not promoted yet. If there is none, a new architecture starts on the lowest
rung. No rung has to be complete, so this works with any number of workers, and with one.

A promotion is a trial of its own, with its own file, which continues from the weights of the trial
on the rung below. So the file of a trial never changes after its end, and a kill costs no more than
without rungs.

Accuracies after 2 and after 18 epochs don't compare. So the search learns from one rung at a time:
the highest one with as many ended trials as the search needs to start (as in BOHB). Candidates and
the Pareto front compare files, whatever their epochs; each architecture is represented by the trial
on its highest rung.

References:
    Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (ASHA).
    Falkner, Klein and Hutter, "BOHB", ICML 2018, section 3.3 (one model, of the largest budget
    with enough observations).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tfnas.nas.trial_records import TrialRecord, ranked
from tfnas.runtime.argument_rules import check_count

if TYPE_CHECKING:
    import keras


class Halving:
    """The rungs of successive halving, and the rung of each trial.

    Example:
        >>> halving = Halving(3, min_epochs=2)
        >>> halving.set_epochs(epochs=18, max_trials=20)
        >>> [halving.epochs_of(rung) for rung in range(halving.top_rung + 1)]
        [2, 6, 18]

    Args:
        eta: Reduction factor, at least 2: the best 1/eta of a rung are promoted. None: no rungs.
        min_epochs: Smallest number of epochs of the lowest rung.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    def __init__(self, eta: int | None = None, min_epochs: int = 1) -> None:
        check_count("halving", eta, 2, optional=True)
        check_count("min_epochs", min_epochs, 1)
        if eta is None and min_epochs != 1:
            raise ValueError(f"min_epochs needs halving, got {min_epochs} without it")
        self.eta, self.min_epochs = eta, min_epochs
        self.epochs: int | None = None
        """Epochs of the highest rung; None before the search begins."""
        self.continues: dict[str, str] = {}
        """Promoted trial -> the trial whose weights it continues from."""
        self._rungs: dict[str, int] = {}
        self._roots: dict[str, str] = {}
        self._at: dict[tuple[str, int], str] = {}
        self._ended: dict[int, list[TrialRecord]] = {}
        self._learning_rung = 0  # the search learns from the trials of this rung

    # ---- epochs

    def set_epochs(self, epochs: int, max_trials: int | None) -> None:
        """Sets the epochs of the highest rung.

        Args:
            epochs: Epochs, as in Keras' `fit`.
            max_trials: Number of trials of the search; None: no limit.

        Raises:
            ValueError: There would be only one rung, an earlier run of the search had other epochs,
                or no trial could reach the highest rung within `max_trials`.
        """
        if self.eta is None:
            return
        check_count("epochs", epochs, self.eta * self.min_epochs)
        if self.epochs not in (None, epochs):
            raise ValueError(
                f"epochs of a search with halving must stay {self.epochs}, got {epochs}: the "
                "results of a rung would not be comparable"
            )
        self.epochs = epochs
        least = sum(self.eta**rung for rung in range(self.top_rung + 1))
        if max_trials is not None and max_trials < least:
            raise ValueError(
                f"max_trials must be at least {least} for one trial to reach {epochs} epochs with "
                f"halving={self.eta} and min_epochs={self.min_epochs}, got {max_trials}"
            )

    @property
    def top_rung(self) -> int:
        """The highest rung; the lowest is 0."""
        assert self.eta is not None
        assert self.epochs is not None
        rung = 0
        while self.epochs // self.eta ** (rung + 1) >= self.min_epochs:
            rung += 1
        return rung

    def epochs_of(self, rung: int) -> int:
        """Returns the total epochs that a network has trained at the end of a rung."""
        assert self.eta is not None
        assert self.epochs is not None
        return self.epochs // self.eta ** (self.top_rung - rung)

    def budget(self, trial_id: str) -> dict[str, int]:
        """Returns a trial's `epochs` and `initial_epoch` for Keras' `fit`; {} without rungs."""
        if self.eta is None or self.epochs is None:
            return {}
        rung = self.rung(trial_id)
        begin = 0 if rung == 0 else self.epochs_of(rung - 1)
        return {"epochs": self.epochs_of(rung), "initial_epoch": begin}

    def metrics(self, trial_id: str) -> dict[str, float]:
        """Returns the metrics "rung" and "epochs" (in total) of a trial; {} without rungs."""
        budget = self.budget(trial_id)
        if not budget:
            return {}
        return {"rung": float(self.rung(trial_id)), "epochs": float(budget["epochs"])}

    # ---- trials

    def rung(self, trial_id: str) -> int:
        """Returns the rung of a trial, 0 for the lowest."""
        return self._rungs.get(trial_id, 0)

    def promotable(self) -> str | None:
        """Returns the trial to promote, on the highest rung that has one; None: there is none.

        Trials that break a limit rank last but can be promoted, as further training may bring an
        accuracy within its limit.
        """
        if self.eta is None or self.epochs is None:
            return None
        promoted = set(self.continues.values())
        for rung in range(self.top_rung - 1, -1, -1):
            ended = self._ended.get(rung, [])
            for place in ranked(ended)[: len(ended) // self.eta]:
                if ended[place].trial_id not in promoted:
                    return ended[place].trial_id
        return None

    def promote(self, trial_id: str, source: str, rung: int | None = None) -> None:
        """Registers a promotion.

        Args:
            trial_id: The new trial.
            source: The trial that it continues.
            rung: Rung of the new trial; None: the rung above that of `source`.
        """
        self.continues[trial_id] = source
        self._rungs[trial_id] = self.rung(source) + 1 if rung is None else rung
        self._roots[trial_id] = self._roots.get(source, source)
        self._at[self._roots[trial_id], self._rungs[trial_id]] = trial_id

    def parent(self, trial_id: str, parent_of: Callable[[str], str | None]) -> str | None:
        """Returns the trial of a trial's parent architecture on the same rung.

        One that was promoted later is none, so that a reload finds the same.

        Args:
            trial_id: The trial.
            parent_of: Returns the trial of the parent architecture of a trial of the lowest rung.
        """
        parent = parent_of(self._roots.get(trial_id, trial_id))
        rung = self.rung(trial_id)
        if self.eta is None or parent is None:
            return parent
        root = self._roots.get(parent, parent)
        if rung == 0:
            return root
        order = {name: place for place, name in enumerate(self.continues)}
        found = self._at.get((root, rung))
        known = found is not None and order[found] < order.get(trial_id, len(order))
        return found if known else None

    def add(self, record: TrialRecord, min_records: int) -> tuple[list[TrialRecord], bool]:
        """Adds the record of a trial that ended well.

        Args:
            record: The record.
            min_records: Number of trials of a rung from which on the search learns from it.

        Returns:
            The records to learn from now, and whether they are those of a new rung, which replace
            all earlier ones.
        """
        rung = self.rung(record.trial_id)
        of_rung = self._ended.setdefault(rung, [])
        of_rung.append(record)
        if rung > self._learning_rung and len(of_rung) >= min_records:
            self._learning_rung = rung
            return list(of_rung), True
        return ([record] if rung == self._learning_rung else []), False

    def for_worker(self, trial_id: str) -> Halving:
        """Returns a copy for a worker, which knows only one trial."""
        worker = Halving(self.eta, self.min_epochs)
        worker.epochs = self.epochs
        if trial_id in self.continues:
            worker.promote(trial_id, self.continues[trial_id], self.rung(trial_id))
        return worker

    # ---- the files

    def state_of(self, trial_id: str) -> dict[str, Any]:
        """Returns the state to keep in the file of a trial."""
        if trial_id not in self.continues:
            return {}
        return {"continues": self.continues[trial_id], "rung": self.rung(trial_id)}

    def restore(self, trial_id: str, state: Mapping[str, Any]) -> None:
        """Restores the state of a trial that :meth:`state_of` returned."""
        if state.get("continues") is not None:
            self.promote(trial_id, str(state["continues"]), int(state["rung"]))


def continue_from(model: keras.Model, path: str) -> None:
    """Loads the weights and the optimizer's state of a compiled model.

    Args:
        model: A built model of the same architecture as the saved one.
        path: File that `save_weights` wrote.
    """
    if getattr(model, "optimizer", None) is not None:
        model.optimizer.build(model.trainable_variables)  # load_weights skips an unbuilt optimizer
    model.load_weights(path)
