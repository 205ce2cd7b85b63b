"""The settings and the results of a search, as values.

:class:`SearchConfig` holds the settings, :class:`SearchResult` the trials, the Pareto front and the
comparison on the test part. :func:`tfnas.search` takes the first and returns the second.
"""

from __future__ import annotations

import dataclasses
import html
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.measure.accuracy import paired_difference
from tfnas.measure.measurement import Measurement
from tfnas.nas.latency_prediction import PredictionErrors
from tfnas.nas.measured_trial import MeasuredTrial
from tfnas.nas.objectives import REWARD, Objectives, objective_of
from tfnas.nas.successive_halving import Halving
from tfnas.search_space.compression_choices import CompressionSpace
from tfnas.settings_fields import check_whole_numbers
from tfnas.table import html_table, table
from tfnas.targets.device import MICRO, VELA, Device

ALGORITHMS = ("evolution", "reinforce", "random")
_MINIMA = {
    "max_trials": 1,
    "epochs": 1,
    "final_epochs": 0,
    "batch_size": 1,
    "train_limit": 1,
    "population_size": 1,
    "tournament_size": 1,
    "threads": 1,
    "random_candidates": 0,
    "seed": 0,
    "children": 1,
    "workers": 0,
    "halving": 2,
    "min_epochs": 1,
}
_HEADERS = ["model", "accuracy", "95% interval", "latency", "ms", "bytes", "gzip", "MACs", "reward"]
_SHORT = [0, 1, 2, 3, 5, 8]  # columns of a terminal of 80 characters
_RUNGS = ("rung", "epochs")
_FRONT = ["trial", "accuracy", "latency_ratio", "latency_ms", "size_bytes", "gzip_bytes", "macs"]
Table = tuple[list[str], list[list[str]]]  # headers and rows


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The settings of a search, as they are kept in its folder.

    Args:
        dataset: Name or path of the data set.
        preset: Preset of the search space.
        max_trials: Number of trials.
        epochs: Epochs of each trial; with `halving`, of a trial on the highest rung.
        halving: Reduction factor of successive halving (:mod:`tfnas.nas.successive_halving`): the
            best 1/halving of a rung continue, from their own weights, until they have trained
            `halving` times as many epochs. Each promotion counts as a trial. None: every trial
            trains `epochs` epochs.
        min_epochs: Smallest number of epochs of the lowest rung.
        final_epochs: Epochs that the best architecture is trained again for, on the training and
            the validation part together; 0 keeps the model of its trial.
        batch_size: Examples in a training step.
        learning_rate: Initial learning rate of Adam, which decays along a cosine.
        train_limit: Number of training examples used by trials; None: all.
        image_size: (height, width) in pixels that the images of a folder are resized to.
        target_latency_ms: Target latency of the reward, in ms on this machine.
        target_latency_ratio: The same as a ratio to the reference model.
        latency_exponent: Exponent of MnasNet's reward, at most 0.
        algorithm: "evolution", "reinforce" or "random".
        objectives: Objectives of the search: "reward", or several metrics whose Pareto front is
            searched for.
        limits: Metric -> bound that the winner and the Pareto front must keep.
        population_size: Population size of the evolution.
        tournament_size: Tournament size of the evolution.
        children: Number of proposals from which a surrogate chooses each trial; 1: no surrogate.
        form: Policy of the reinforcement learning, "building" or "modifying".
        inherit: Whether a child starts from the weights that overlap with its parent's.
        workers: Number of processes that run trials, so that a crash costs only its own trial;
            0: trials run in this process.
        trial_timeout: Time limit of a trial in a worker, in s; None: no limit.
        threads: Threads of the latency measurement.
        baseline: Whether MobileNetV2 0.35 is trained for comparison.
        random_candidates: Number of random architectures with about as many parameters as the
            winner that are trained for comparison.
        seed: Seed of the search; the caller's random generators keep their state.
        compression: Choices of pruning, clustering, low rank, number formats and distillation that
            are searched too; None: every network is converted to int8.
        teacher: Path of a trained Keras model, the teacher of compressions with `distill`; it takes
            the raw images of the data set.
        accelerator: NPU of the metrics `vela_ms`, `vela_sram_bytes` and so on.
        runtime_flash: Flash that the firmware takes beside the file, in bytes (`flash_bytes`).
        runtime_ram: RAM that the firmware takes beside the activations, in bytes (`ram_bytes`).
        latency_seconds: Time to fit a latency model of the space before the first trial, in s:
            proposals that exceed a latency limit by its prediction are not tried, and the surrogate
            sees the predicted latency (:mod:`tfnas.nas.latency_prediction`). None: no predictions.

    Raises:
        ValueError: A setting is outside its rule; the message names it.
    """

    dataset: str
    preset: str = "mobile"
    max_trials: int = 20
    epochs: int = 3
    halving: int | None = None
    min_epochs: int = 1
    final_epochs: int = 0
    batch_size: int = 64
    learning_rate: float = 3e-3
    train_limit: int | None = None
    image_size: tuple[int, int] | None = None
    target_latency_ms: float | None = None
    target_latency_ratio: float | None = None
    latency_exponent: float = -0.07
    algorithm: str = "evolution"
    objectives: tuple[str, ...] = (REWARD,)
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    population_size: int = 8
    tournament_size: int = 3
    children: int = 24
    form: str = "building"
    inherit: bool = False
    workers: int = 0
    trial_timeout: float | None = None
    threads: int = 1
    baseline: bool = True
    random_candidates: int = 0
    seed: int = 0
    compression: CompressionSpace | None = None
    teacher: str | None = None
    accelerator: str = "ethos-u55-128"
    runtime_flash: int = 0
    runtime_ram: int = 0
    latency_seconds: float | None = None

    def __post_init__(self) -> None:
        check_whole_numbers(self, optional=True, **_MINIMA)
        Halving(self.halving, self.min_epochs).set_epochs(self.epochs, self.max_trials)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate!r}")
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"algorithm must be one of {', '.join(ALGORITHMS)}, got {self.algorithm!r}"
            )
        if self.trial_timeout is not None and not (self.workers and self.trial_timeout > 0):
            raise ValueError(
                f"trial_timeout must be above 0 s and needs workers, got {self.trial_timeout!r}"
            )
        objectives = Objectives.of(objective_of(list(self.objectives)), self.limits)
        device = Device(self.accelerator, self.runtime_flash, self.runtime_ram)
        device.check_room({limit.name: limit.bound for limit in objectives.limits})
        may_distill = self.compression is not None and any(self.compression.distill)
        if may_distill != (self.teacher is not None):
            raise ValueError(
                "teacher must be given if and only if a choice of compression distills, "
                f"got {self.teacher!r}"
            )


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
    """

    directory: pathlib.Path
    winner: MeasuredTrial
    candidates: list[MeasuredTrial]
    front: list[MeasuredTrial]
    rows: list[ReportRow]
    randoms: list[ReportRow]
    interrupted: bool
    prediction: PredictionErrors | None = None

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
            verdicts.append(
                f"against {len(self.randoms)} random candidates with as many parameters (within a "
                f"factor of 1.5; each one draw, trained as long): accuracy "
                f"{best.right.mean():.4f}, their median {median:.4f}; "
                f"better reward than {worse} of them"
            )
        return verdicts

    def front_table(self) -> Table:
        """Returns headers and rows of the Pareto front, on the validation part.

        Further columns hold a trial's rung, the metrics of a device and the compression, where
        trials report them.
        """
        more = [name for name in (*_RUNGS, *MICRO, *VELA) if name in self.winner.metrics]
        headers = [*_FRONT, *more]
        if self.winner.architecture.compression is not None:
            headers.append("compression")
        return headers, [_front_cells(candidate, more) for candidate in self.front]

    def notes(self) -> list[str]:
        """Returns paragraphs on successive halving and on predicted latencies."""
        predicted = [] if self.prediction is None else [f"{self.prediction}."]
        return [*_halving_savings(self.candidates), *predicted]

    def _paragraphs(self, show: Callable[[list[str], list[list[str]]], str]) -> list[str]:
        """The result with each table as `show` renders it."""
        parts = []
        if self.rows:
            headers, rows = self.comparison()
            short = [[row[i] for i in _SHORT] for row in (headers, *rows)]
            parts += ["Test part, latency as a ratio to the reference model:"]
            parts += [show(short[0], short[1:]), "\n".join(self.verdicts())]
        elif self.interrupted:
            parts += ["Interrupted: the test part was not touched."]
        count = len(self.candidates)
        parts += [f"Pareto front, out of {count} candidates, on the validation part:"]
        return [*parts, show(*self.front_table()), *self.notes()]

    def __str__(self) -> str:
        return "\n\n".join([*self._paragraphs(table), f"Everything is in {self.directory}"])

    def __repr__(self) -> str:
        return (
            f"<SearchResult: {len(self.candidates)} candidates, {len(self.front)} on the front, "
            f"winner trial {self.winner.trial_id}, in {str(self.directory)!r}>"
        )

    def _repr_html_(self) -> str:
        parts = [
            *self._paragraphs(html_table),
            f"Everything is in {self.directory}",
        ]
        return "".join(
            part if part.startswith("<table>") else f"<p>{html.escape(part)}</p>" for part in parts
        )


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
        f"{m.macs:,}",
        f"{row.reward:.4f}",
    ]


def _median_cells(rows: Sequence[ReportRow]) -> list[str]:
    def median(values: list[Any]) -> float:
        return statistics.median(values)

    ms = [row.measurement for row in rows]
    return [
        f"median of {len(rows)} random, int8",
        f"{median([m.score.value for m in ms if m.score]):.4f}",
        "",
        f"{median([m.latency.ratio for m in ms if m.latency]):.3f}x",
        f"{median([m.latency.median_ms for m in ms if m.latency]):.4f}",
        f"{median([m.size_bytes for m in ms]):,.0f}",
        f"{median([m.gzip_bytes for m in ms]):,.0f}",
        f"{median([m.macs for m in ms]):,.0f}",
        f"{median([row.reward for row in rows]):.4f}",
    ]


def _front_cells(candidate: MeasuredTrial, more: Sequence[str]) -> list[str]:
    accuracy, ratio, size = candidate.objectives()
    m = candidate.measurement
    assert m.latency is not None
    cells = [candidate.trial_id, f"{accuracy:.4f}", f"{ratio:.4f}", f"{m.latency.median_ms:.4f}"]
    cells += [str(size), str(m.gzip_bytes), str(m.macs)]
    cells += [f"{candidate.metrics[name]:g}" for name in more]
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
