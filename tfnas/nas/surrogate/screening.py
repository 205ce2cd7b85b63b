"""Choosing among an oracle's own proposals by a surrogate.

An oracle that costs nothing proposes some children by its own operators; a Gaussian process
over what was measured (:mod:`.surrogate`) says which of them is expected to improve most.
With several objectives each choice looks at them along a random direction, so that the
choices together spread along the front.

References:
    Knowles, "ParEGO: A Hybrid Algorithm with On-Line Landscape Approximation", IEEE
    Transactions on Evolutionary Computation 2006, equation 2 (augmented Tchebycheff).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras_tuner as kt
import numpy as np

from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.surrogate.gaussian_process import Surrogate, expected_improvement
from tfnas.nas.trial_records import Entry, Proposal
from tfnas.runtime.argument_rules import check_count

MOST = 256  # measurements that a surrogate is fitted on
_LEAST = 4
_AUGMENTED = 0.05
_OWN = 0.5  # share of what the surrogate can't explain that is the architecture's own


class Screening:
    """Ranks points by what was measured on others.

    Args:
        encode: Point -> vector.
    """

    def __init__(self, encode: Callable[[Any], np.ndarray]) -> None:
        self._encode = encode
        self._vectors: dict[str, np.ndarray] = {}
        self._settings: tuple[int, tuple[float, float]] = (0, (1.0, 1.0))
        self._last: tuple[int, Surrogate | None, list[Entry]] = (-1, None, [])

    def choose(
        self, proposals: list[Proposal], entries: Sequence[Entry], rng: np.random.Generator
    ) -> Proposal:
        """Returns the proposal that is expected to improve most.

        Args:
            proposals: At least one.
            entries: What was measured; with too few the first proposal is taken.
            rng: NumPy's random generator.
        """
        if len(proposals) == 1 or len(entries) < _LEAST:
            return proposals[0]
        if len(entries[0].losses) == 1:
            surrogate, known = self.fitted(entries)
        else:
            known = _sample(entries)
            weights = rng.dirichlet(np.ones(len(entries[0].losses)))
            surrogate = Surrogate(self._matrix(known), _scalarised(known, weights))
        mean, deviation = surrogate.predict(np.stack([self._encode(p.point) for p in proposals]))
        best = float(surrogate.means(self._matrix(known)).max())
        return proposals[int(np.argmax(expected_improvement(mean, deviation, best)))]

    def fitted(self, entries: Sequence[Entry]) -> tuple[Surrogate, list[Entry]]:
        """Returns the surrogate of the first objective and the entries that it knows.

        Its length and noise are found anew each time the entries have grown by a fifth, on
        the entries there were then: so they are the same after a reload.
        """
        count = len(entries)
        if self._last[0] != count:
            mark = _mark(count)
            if self._settings[0] != mark:
                early = _sample(entries[:mark])
                first = Surrogate(self._matrix(early), _signed(early))
                self._settings = (mark, first.settings)
            known = _sample(entries)
            fit = Surrogate(self._matrix(known), _signed(known), self._settings[1])
            self._last = (count, fit, known)
        surrogate = self._last[1]
        assert surrogate is not None
        return surrogate, self._last[2]

    def means(self, entries: Sequence[Entry], wanted: Sequence[Entry]) -> np.ndarray:
        """Returns what the surrogate of the first objective holds of some entries."""
        return self.fitted(entries)[0].means(self._matrix(wanted))

    def believed(self, entries: Sequence[Entry], wanted: Sequence[Entry]) -> np.ndarray:
        """Returns what some entries are worth, between the surrogate and the measurement.

        What the surrogate can't explain of a measurement is noise, or what this architecture has
        beyond others like it. One measurement does not tell them apart: half is believed.
        """
        means = self.means(entries, wanted)
        return means + _OWN * (_signed(wanted) - means)

    def _matrix(self, entries: Sequence[Entry]) -> np.ndarray:
        for entry in entries:
            if entry.trial_id not in self._vectors:
                self._vectors[entry.trial_id] = self._encode(entry.point)
        return np.stack([self._vectors[entry.trial_id] for entry in entries])


class ScreenedOracle(SpaceOracle):
    """An oracle whose proposals a surrogate chooses among.

    Args:
        *args: As for :class:`SpaceOracle`.
        children: Proposals that a surrogate picks one of; 1: no surrogate.
        unscreened: Trials at the start that are taken as proposed.
        **kwargs: As for :class:`SpaceOracle`.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    def __init__(self, *args: Any, children: int, unscreened: int, **kwargs: Any) -> None:
        check_count("children", children, 1)
        super().__init__(*args, **kwargs)
        self.children = children
        self._unscreened = unscreened
        self.screening = Screening(self._encode)

    def forget(self) -> None:
        """The surrogate is of the new rung alone."""
        self.screening = Screening(self._encode)

    def _encode(self, point: Any) -> np.ndarray:
        """What the surrogate sees: the decisions, and what is known without a trial."""
        if self.known_features is None:
            return self.space.encode(point)
        return np.concatenate([self.space.encode(point), self.known_features(point)])

    @property
    def enough(self) -> int:
        """As many as are tried before the surrogate chooses."""
        return max(self._unscreened, _LEAST)

    @property
    def wanted(self) -> int:
        """How many proposals the surrogate chooses from; at the start, one."""
        return self.children if self.begun >= max(self._unscreened, 1) else 1

    @property
    def sees(self) -> bool:
        """Whether there is a surrogate of the one objective."""
        single = len(self.objectives.names) == 1
        return self.children > 1 and single and len(self.evidence) >= _LEAST

    def choose(self, proposals: list[Proposal], rng: np.random.Generator) -> Proposal:
        """Returns the proposal that is expected to improve most."""
        return self.screening.choose(proposals, self.evidence, rng)

    def pick(self) -> kt.engine.trial.Trial:
        """Returns the best trial, between what was measured and what the surrogate makes of it.

        Without a surrogate, with several objectives or with halving (the surrogate knows one
        rung) it is the best as measured.

        Raises:
            ValueError: No trial ended well.
        """
        if not self.entries:
            raise ValueError("pick needs a trial that ended well, got none")
        if not self.sees or self.halving.eta is not None:
            return self.get_best_trials(1)[0]
        within = [e for e in self.entries if e.violation == 0] or self.entries
        worth = self.screening.believed(self.evidence, within)
        return self.trials[within[int(np.argmax(worth))].trial_id]

    def rank_correlation(self) -> float | None:
        """Returns Spearman's correlation of measurements and the surrogate's predictions.

        Each is predicted from all others. None: too few, several objectives, no surrogate.
        """
        return self.screening.fitted(self.evidence)[0].rank_correlation() if self.sees else None


def _mark(count: int) -> int:
    """The largest of 4, 5, 6, 8, 10, 12, 15, 18, ... up to a count."""
    mark = _LEAST
    while (following := max(mark + 1, int(1.2 * mark))) <= count:
        mark = following
    return min(mark, count)


def _sample(entries: Sequence[Entry]) -> list[Entry]:
    """All, or of many the latest half and the best of the others."""
    if len(entries) <= MOST:
        return list(entries)
    older = sorted(entries[: -MOST // 2], key=lambda e: (e.violation, e.losses))
    return [*older[: MOST // 2], *entries[-MOST // 2 :]]


def _signed(entries: Sequence[Entry]) -> np.ndarray:
    """The first objective, larger is better; what breaks a limit is pushed down."""
    values = -np.array([entry.losses[0] for entry in entries])
    spread = float(np.ptp(values)) or 1.0
    return values - spread * np.array([min(entry.violation, 10.0) for entry in entries])


def _scalarised(entries: Sequence[Entry], weights: np.ndarray) -> np.ndarray:
    """Several objectives along one direction, larger is better."""
    losses = np.array([entry.losses for entry in entries])
    low, spread = losses.min(0), np.ptp(losses, axis=0)
    weighted = weights * (losses - low) / np.where(spread > 0, spread, 1.0)
    outside = np.array([min(entry.violation, 10.0) for entry in entries])
    return -(weighted.max(1) + _AUGMENTED * weighted.sum(1)) - outside
