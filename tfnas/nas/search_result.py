"""The results of a search, as values: trials, Pareto front, comparison on the test part."""

from __future__ import annotations

import dataclasses
import html
import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfnas.drawing.pareto_figure import pareto_figure
from tfnas.drawing.pareto_plot import ParetoLabels, ParetoPlot
from tfnas.measure.accuracy import paired_difference
from tfnas.measure.measurement import Latency, Measurement
from tfnas.nas.latency_prediction import PredictionErrors
from tfnas.nas.measured_trial import MeasuredTrial, last_measured, trial_text
from tfnas.nas.objectives import Objectives, metric_text
from tfnas.nas.trial_plot import plot_of_trials
from tfnas.table import html_table, table
from tfnas.targets.device import ON_DEVICE

_HEADERS = ["model", "accuracy", "95% interval", "latency", "ms", "bytes", "gzip", "MACs", "reward"]
_SHORT = [0, 1, 2, 3, 5, 8]  # columns of a terminal of 80 characters
_OF_TRIALS = ("rung", "epochs", "supernet_accuracy", "patches")
_FORMATS = {"supernet_accuracy": ".4f"}
_FRONT = ["trial", "accuracy", "latency_ratio", "latency_ms", "size_bytes", "gzip_bytes", "macs"]
INTERRUPTED = "Interrupted: the same call, or command, goes on from here"
Table = tuple[list[str], list[list[str]]]  # headers and rows


@dataclasses.dataclass(frozen=True, eq=False)
class ReportRow:
    """A row of the final comparison, measured on the test part.

    Args:
        label: Name of the model and its number format.
        measurement: What was measured on its file.
        reward: Its reward, as the search computes it.
        right: Whether each test example was classified correctly, (examples,), for paired
            comparisons.
    """

    label: str
    measurement: Measurement
    reward: float
    right: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class SearchResult:
    """The result of a search; `print` shows its tables.

    Args:
        directory: Folder of the search.
        winner: The best candidate, as its trial measured it.
        candidates: All trials that ended well.
        front: The Pareto front of the objectives, or with one objective that of accuracy, latency
            and size; its latencies were measured again, side by side.
        rows: The comparison on the test part; empty if the search was interrupted before it.
        randoms: Rows of random architectures with about as many parameters as the winner.
        interrupted: Whether the user interrupted the search.
        prediction: Errors of the predicted latencies; None: no latencies were predicted.
        sharing: A paragraph on shared weights; "": networks shared none.
        target_ratio: The target latency as a ratio to the reference model's; None: no target.
        objectives: The objectives and limits; None: not known, as of several objectives.
    """

    directory: pathlib.Path
    winner: MeasuredTrial
    candidates: list[MeasuredTrial]
    front: list[MeasuredTrial]
    rows: list[ReportRow]
    randoms: list[ReportRow]
    interrupted: bool
    prediction: PredictionErrors | None = None
    sharing: str = ""
    target_ratio: float | None = None
    objectives: Objectives | None = None

    @property
    def meets_target(self) -> bool:
        """Whether the winner's file is as fast as the target; True if there is none."""
        return self.target_ratio is None or self._latency.ratio <= self.target_ratio

    @property
    def _latency(self) -> Latency:
        """The winner's latency, by the last measurement."""
        assert self._measured.latency is not None
        return self._measured.latency

    def target_verdict(self) -> str:
        """Returns a sentence on whether the target latency is met; "" if there is none."""
        target, found = self.target_ratio, self._latency
        if target is None:
            return ""
        trials = last_measured(self.candidates, self.front)
        found_by = [trial.measurement.latency for trial in trials]
        ratios = [latency.ratio for latency in found_by if latency]
        kept = sum(ratio <= target for ratio in ratios)
        return (
            f"The target latency is {'met' if self.meets_target else 'missed'}: "
            f"{found.ratio:.4f} [{found.ratio_low:.4f}, {found.ratio_high:.4f}] of the reference "
            f"model's, {found.ratio / target:.2f} times the target of {target:.4f}; {kept} of "
            f"{len(ratios)} trials are as fast."
        )

    @property
    def _has_one_objective(self) -> bool:
        return self.objectives is not None and len(self.objectives.names) == 1

    @property
    def _trials_that_ended_well(self) -> str:
        count = len(self.candidates)
        return f"{count} trial{'s' * (count != 1)} that ended well"

    def best_trial(self) -> str:
        """Returns a sentence on the best trial of a single objective; "" of several."""
        objectives = self.objectives
        if objectives is None or not self._has_one_objective:
            return ""
        sentence = (
            f"The best of the {self._trials_that_ended_well}, on the validation part, is in "
            f"{_place(self.winner)}: {trial_text(self.winner, objectives)}."
        )
        kept = [trial for trial in self.candidates if not objectives.broken(trial.metrics)]
        top = min(kept or self.candidates, key=lambda trial: objectives.losses(trial.metrics))
        if objectives.losses(top.metrics) == objectives.losses(self.winner.metrics):
            return sentence
        [name] = objectives.names
        return (
            f"{sentence} In {_place(top)} {name} was {metric_text(top.metrics[name])}, which "
            "trials like it do not confirm."
        )

    @property
    def best_file(self) -> str:
        """Name of the winner's file in the folder."""
        return f"best_{self._measured.mode or 'int8'}.tflite"

    @property
    def _measured(self) -> Measurement:
        """The winner's file, by the last measurement."""
        return self.rows[0].measurement if self.rows else self.winner.measurement

    def answer(self, metric: str = "accuracy") -> str:
        """Returns in a sentence what the winner's file is worth.

        Args:
            metric: How the metric is called.
        """
        found, latency = self._measured, self._latency
        assert found.score is not None
        value, low, high = found.score.value, found.score.low, found.score.high
        part = "test" if self.rows else "validation"
        return (
            f"{metric} {value:.4f} [{low:.4f}, {high:.4f}] on the {part} part, "
            f"{latency.ratio:.3f} of the reference model's time, {found.size_bytes:,} bytes: "
            f"`{self.best_file}`."
        )

    def plot(self, over: Sequence[str] = ("latency",)) -> Any:
        """Draws the trials: the accuracy of their files over their time, or their size.

        A notebook shows the figure. In a script, save it.

        Example:
            >>> result.plot()  # doctest: +SKIP
            >>> result.plot(over=["latency", "bytes"]).savefig("trials.png")  # doctest: +SKIP

        Args:
            over: "latency", "bytes" or both: a panel for each.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ValueError: `over` holds something else, or nothing.
            ImportError: matplotlib is not installed.
        """
        return pareto_figure(self.pareto_plot(over))

    def pareto_plot(
        self,
        over: Sequence[str],
        title: str = "",
        labels: ParetoLabels | None = None,
        objectives: Sequence[str] = (),
    ) -> ParetoPlot:
        """Returns what a plot of the trials shows; see :func:`.trial_plot.plot_of_trials`."""
        return plot_of_trials(
            *(self.candidates, self.front, over),
            chosen=self.winner,
            title=title,
            labels=labels,
            objectives=objectives,
        )

    def comparison(self) -> Table:
        """Returns headers and rows of the comparison on the test part."""
        rows = [_cells(row) for row in (*self.rows, *self.randoms)]
        if self.rows and self.randoms:
            rows.append(_median_cells(self.randoms))
        return _HEADERS, rows

    def verdicts(self) -> list[str]:
        """Returns sentences that compare the winner with each other model on the test part."""
        best = self.rows[0]
        verdicts = []
        for other in self.rows[1:]:
            if other.measurement.mode != best.measurement.mode:
                continue
            value, low, high = paired_difference(best.right, other.right)
            a, b = best.measurement, other.measurement
            assert a.latency is not None
            assert b.latency is not None
            verdicts.append(
                f"against {other.label}: {b.size_bytes / a.size_bytes:.2f}x smaller, "
                f"{b.latency.ratio / a.latency.ratio:.2f}x faster, accuracy {value:+.4f} "
                f"[{low:+.4f}, {high:+.4f}] (paired, 95%)"
            )
        if self.randoms:
            worse = sum(best.reward > row.reward for row in self.randoms)
            median = statistics.median(row.right.mean() for row in self.randoms)
            plural = "s" if len(self.randoms) > 1 else ""
            verdicts.append(
                f"against {len(self.randoms)} random candidate{plural} with as many parameters "
                f"(within a factor of 1.5; each one draw, trained as long): accuracy "
                f"{best.right.mean():.4f}, their median {median:.4f}; "
                f"better reward than {worse} of them"
            )
        return verdicts

    def front_table(self) -> Table:
        """Returns headers and rows of the Pareto front, on the validation part.

        Further columns hold a trial's rung, the metrics of a device and the compression, where
        trials report them.
        """
        more = [name for name in (*_OF_TRIALS, *ON_DEVICE) if name in self.winner.metrics]
        headers = [*_FRONT, *more]
        if self.winner.architecture.compression is not None:
            headers.append("compression")
        return headers, [_front_cells(candidate, more) for candidate in self.front]

    def notes(self) -> list[str]:
        """Returns paragraphs on successive halving, shared weights and predicted latencies."""
        predicted = [] if self.prediction is None else [f"{self.prediction}."]
        shared = [self.sharing] if self.sharing else []
        return [*_halving_savings(self.candidates), *shared, *predicted]

    def _paragraphs(self, show: Callable[[list[str], list[list[str]]], str]) -> list[str]:
        """The result with each table as `show` renders it."""
        parts = [self.target_verdict()] if self.target_ratio is not None else []
        parts += filter(None, [self.best_trial()])
        if self.rows:
            headers, rows = self.comparison()
            short = [[row[i] for i in _SHORT] for row in (headers, *rows)]
            parts += ["Test part, latency as a ratio to the reference model:"]
            parts += [show(short[0], short[1:]), *filter(None, ["\n".join(self.verdicts())])]
        elif self.interrupted:
            parts += [f"{INTERRUPTED}; the test part was not touched."]
        if not self._has_one_objective:
            parts += [
                f"Pareto front of the {self._trials_that_ended_well}, on the validation part:",
                show(*self.front_table()),
            ]
        return [*parts, *self.notes()]

    def _closing(self) -> str:
        """Where the rest is."""
        more = "; report.html has the Pareto front of accuracy, latency and size, and all trials"
        return f"Everything is in {self.directory}{more if self._has_one_objective else ''}"

    def __str__(self) -> str:
        return "\n\n".join([*self._paragraphs(table), self._closing()])

    def __repr__(self) -> str:
        return (
            f"<SearchResult: {len(self.candidates)} candidates, {len(self.front)} on the front, "
            f"winner trial {self.winner.trial_id}, in {str(self.directory)!r}>"
        )

    def _repr_html_(self) -> str:
        parts = [*self._paragraphs(html_table), self._closing()]
        return "".join(
            part if part.startswith("<table>") else f"<p>{html.escape(part)}</p>" for part in parts
        )


def _place(trial: MeasuredTrial) -> str:
    """Where a trial is in the folder of the search."""
    return f"search/{trial.path.parent.name}"


def _cells(row: ReportRow) -> list[str]:
    m = row.measurement
    assert m.score is not None
    assert m.latency is not None
    return [
        row.label,
        f"{m.score.value:.4f}",
        f"[{m.score.low:.4f}, {m.score.high:.4f}]",
        f"{m.latency.ratio:.3f}x",
        f"{m.latency.median_ms:.4f}",
        f"{m.size_bytes:,}",
        f"{m.gzip_bytes:,}",
        "" if m.macs is None else f"{m.macs:,}",
        f"{row.reward:.4f}",
    ]


def _median_cells(rows: Sequence[ReportRow]) -> list[str]:
    def median(values: list[Any]) -> float:
        return statistics.median(values)

    ms = [row.measurement for row in rows]
    known = [m.macs for m in ms if m.macs is not None]
    return [
        f"median of {len(rows)} random, int8",
        f"{median([m.score.value for m in ms if m.score]):.4f}",
        "",
        f"{median([m.latency.ratio for m in ms if m.latency]):.3f}x",
        f"{median([m.latency.median_ms for m in ms if m.latency]):.4f}",
        f"{median([m.size_bytes for m in ms]):,.0f}",
        f"{median([m.gzip_bytes for m in ms]):,.0f}",
        f"{median(known):,.0f}" if known else "",
        f"{median([row.reward for row in rows]):.4f}",
    ]


def _front_cells(candidate: MeasuredTrial, more: Sequence[str]) -> list[str]:
    accuracy, ratio, size = candidate.objectives()
    m = candidate.measurement
    assert m.latency is not None
    cells = [candidate.trial_id, f"{accuracy:.4f}", f"{ratio:.4f}", f"{m.latency.median_ms:.4f}"]
    cells += [str(size), str(m.gzip_bytes), str(m.macs)]
    cells += [f"{candidate.metrics[name]:{_FORMATS.get(name, 'g')}}" for name in more]
    compression = candidate.architecture.compression
    return cells if compression is None else [*cells, str(compression)]


def _halving_savings(candidates: Sequence[MeasuredTrial]) -> list[str]:
    """The epochs that successive halving trained, in one line; none without it."""
    spent = [c.metrics["epochs"] for c in candidates if "epochs" in c.metrics]
    if not spent:
        return []
    most = max(spent)
    rungs = [(sum(e >= rung for e in spent), rung) for rung in sorted(set(spent))]
    reached = ", ".join(f"{count} trained {rung:.0f} epochs" for count, rung in rungs)
    return [
        f"Successive halving: {reached}; {sum(spent):.0f} epochs together, "
        f"{len(spent) * most:.0f} if all had had {most:.0f}."
    ]
