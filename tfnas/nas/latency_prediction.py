"""Predicted latencies of architectures that have not been trained, for one machine.

A search with a latency objective or limit can use a fitted :class:`tfnas.LatencyModel`. Proposals
that exceed a latency limit by their prediction are dropped without being built or converted, and
the surrogate sees the predicted latency beside the decisions. Trials are measured as without
predictions: objectives and limits apply to the measured latency.

A proposal is dropped only if the prediction minus its error (the 90th percentile of the
cross-validation) is above the limit.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfnas.measure.latency import benchmark, reference_artifact
from tfnas.measure.latency_model.latency_model import LatencyModel
from tfnas.measure.latency_model.regression import LatencyErrors
from tfnas.nas.search_callbacks import Phase
from tfnas.quantization.spec import QuantSpec
from tfnas.search_space.architecture import Architecture
from tfnas.search_space.hypermodel import SpaceHyperModel

FILE = "latency_model.json"
_GOOD = 0.9  # share of networks within 10%, and rank correlation, of predictions to choose by
_JUDGED = 5  # trials from which their own errors are judged
_SAMPLES = 64  # random architectures from which the distribution of latencies is estimated


@dataclasses.dataclass(frozen=True)
class PredictionErrors:
    """Errors of predicted latencies.

    Args:
        cross_validated: Errors on the profiled networks, each predicted without itself.
        trials: Errors on the trials of the search; None: fewer than two were measured.
    """

    cross_validated: LatencyErrors
    trials: LatencyErrors | None

    def __str__(self) -> str:
        text, judged = f"Predicted latencies: {errors_text(self.cross_validated)}", ""
        if self.trials is None:
            return text
        few = self.trials.networks < _JUDGED
        if not few and self.trials.within_10 < self.cross_validated.within_10:
            judged = f": {_verdict(self.trials)}"
        return (
            f"{text}. Of the {self.trials.networks} trials: {self.trials.within_10:.0%} within "
            f"10%, median error {self.trials.median:.1%}{judged}"
        )


def errors_text(errors: LatencyErrors) -> str:
    """Returns in one line how far predictions can be trusted.

    Example:
        >>> print(errors_text(LatencyErrors(0.007, 0.018, 0.99, 0.999, 0.998, 92)))
        99% of 92 networks within 10% of the measured latency (each predicted without itself, median
        error 0.7%, rank correlation 1.00): good enough to choose networks by

    Args:
        errors: Cross-validated errors.
    """
    return (
        f"{errors.within_10:.0%} of {errors.networks} networks within 10% of the measured latency "
        f"(each predicted without itself, median error {errors.median:.1%}, rank correlation "
        f"{errors.spearman:.2f}): {_verdict(errors)}"
    )


def _verdict(errors: LatencyErrors) -> str:
    """What follows from the errors of predictions."""
    if errors.within_10 >= _GOOD and errors.spearman >= _GOOD:
        return "good enough to choose networks by"
    measured = "reported latencies are measured all the same"
    more = "a longer latency_seconds, on a machine that runs nothing else, may help"
    if errors.spearman >= _GOOD:
        return f"rough, but slow and fast networks are told apart; {measured}; {more}"
    return f"too rough to choose networks by; {measured}; {more}"


class LatencyPredictor:
    """Predicts the latencies of the architectures of a search space.

    Example:
        >>> import tfnas
        >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
        >>> config = tfnas.TunerConfig(latency_seconds=60)
        >>> tuner = tfnas.EvolutionTuner(space, limits={"latency_ratio": 0.1}, config=config,
        ...                              directory="runs")
        >>> tuner.latency_predictor.seconds
        60

    Args:
        hypermodel: The hypermodel of the search, a :class:`SpaceHyperModel`.
        model: A fitted latency model; None: one is fitted when the search begins.
        seconds: Time to fit it, in s.
        spec: Number formats of the trials' files.
        threads: Threads of the latency measurement.
        milliseconds: Whether an objective or limit is in ms.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    def __init__(
        self,
        hypermodel: Any,
        model: LatencyModel | None,
        seconds: float | None,
        spec: QuantSpec,
        threads: int,
        milliseconds: bool = False,
    ) -> None:
        name = "latency_seconds" if model is None else "latency_model"
        if not isinstance(hypermodel, SpaceHyperModel):
            raise ValueError(
                f"{name} needs a search space such as tfnas.MobileNetV2Space, "
                f"got {type(hypermodel).__name__}"
            )
        if getattr(hypermodel.space, "compression", None) is not None or spec.layers:
            raise ValueError(
                f"{name} needs files of one number format and without compression, whose latency "
                "it can predict"
            )
        if model is not None:
            _check_model(model, spec, threads)
        self.space, self.model, self.seconds = hypermodel.space, model, seconds
        self.spec, self.threads, self.milliseconds = spec, threads, milliseconds
        self._reference_ms: float | None = None
        self._ratios: dict[Any, float] = {}
        self._moments: tuple[float, float] | None = None  # mean and deviation of ln latency

    def prepare(
        self,
        folder: str | os.PathLike[str],
        seed: int,
        report: Callable[[Phase], None] = lambda phase: None,
    ) -> None:
        """Fits the latency model, or loads it if the search is resumed.

        Args:
            folder: Folder of the search; the fitted model is kept in it.
            seed: Seed of the networks that are measured.
            report: Receives the begin and the outcome of a fit.
        """
        file = pathlib.Path(folder) / FILE
        if self.model is None and file.exists():
            self.model = LatencyModel.load(file, mode=self.spec.mode, threads=self.threads)
        elif self.model is None:
            assert self.seconds is not None
            fitting = f"measuring operators for {self.seconds:g} s, to predict latencies"
            report(Phase(fitting))
            model = LatencyModel(self.spec, threads=self.threads)
            self.model = model.fit(self.space, self.seconds, seed=seed)
            self.model.save(file)
            assert self.model.fitted is not None
            report(Phase(fitting, note=errors_text(self.model.fitted.errors)))
        if self.milliseconds and self._reference_ms is None:
            [latency] = benchmark(reference_artifact(), threads=self.threads)
            self._reference_ms = latency.reference_ms

    def ratio(self, arch: Architecture) -> float:
        """Returns the predicted latency of an architecture, as a ratio to the reference model."""
        assert self.model is not None
        assert self.model.fitted is not None
        if arch.network not in self._ratios:
            self._ratios[arch.network] = self._predicted(self.model, arch)
        return self._ratios[arch.network]

    def _predicted(self, model: LatencyModel, arch: Architecture) -> float:
        """The ratio; layers that the fit has not met are measured alone, which needs a model."""
        assert model.fitted is not None
        if model.fitted.direct:
            try:
                return model(arch)
            except ValueError:  # an operator of another kind or size
                return model(self.space.build(arch))
        return model(self.space.build(arch))

    def metrics(self, arch: Architecture) -> dict[str, float]:
        """Returns the predicted metrics of latency of an architecture."""
        ratio = self.ratio(arch)
        if self._reference_ms is None:
            return {"latency_ratio": ratio}
        return {"latency_ratio": ratio, "latency_ms": ratio * self._reference_ms}

    def lower_bounds(self, arch: Architecture) -> dict[str, float]:
        """Returns the metrics of latency of an architecture, less the error of the prediction."""
        assert self.model is not None
        assert self.model.fitted is not None
        least = self.ratio(arch) / (1 + self.model.fitted.errors.p90)
        if self._reference_ms is None:
            return {"latency_ratio": least}
        return {"latency_ratio": least, "latency_ms": least * self._reference_ms}

    def feature(self, arch: Architecture) -> np.ndarray:
        """Returns the latency as a feature of a surrogate, (1,).

        It is the logarithm of the predicted latency, standardized over the space.
        """
        if self._moments is None:
            rng = np.random.default_rng(0)
            logs = np.log([self.ratio(self.space.sample(rng)) for _ in range(_SAMPLES)])
            self._moments = float(logs.mean()), float(logs.std()) or 1.0
        mean, deviation = self._moments
        return np.array([(math.log(self.ratio(arch)) - mean) / deviation])

    def errors(self, measured: Sequence[tuple[Architecture, float]]) -> PredictionErrors:
        """Returns the errors of predictions, on the profiled networks and on trials.

        Args:
            measured: Architectures with their measured latency ratios.
        """
        assert self.model is not None
        assert self.model.fitted is not None
        on_trials = None
        if len(measured) > 1:
            on_trials = LatencyErrors.of(
                [self.ratio(arch) for arch, _ in measured], [ratio for _, ratio in measured]
            )
        return PredictionErrors(self.model.fitted.errors, on_trials)


def _check_model(model: LatencyModel, spec: QuantSpec, threads: int) -> None:
    for name, value, expected in (
        ("mode", model.spec.mode, spec.mode),
        ("threads", model.threads, threads),
    ):
        if value != expected:
            raise ValueError(
                f"latency_model must have the {name} of the search, {expected!r}, got {value!r}"
            )
