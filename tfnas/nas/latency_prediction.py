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
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.measure.latency import benchmark, reference_artifact
from tfnas.measure.latency_model.latency_model import LatencyModel
from tfnas.measure.latency_model.regression import LatencyErrors
from tfnas.quantization.spec import QuantSpec
from tfnas.search_space.architecture import Architecture
from tfnas.search_space.hypermodel import SpaceHyperModel

FILE = "latency_model.json"
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
        text = f"Predicted latency, cross-validated: {self.cross_validated}"
        return text if self.trials is None else f"{text}; on the trials: {self.trials}"


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

    def prepare(self, folder: str | os.PathLike[str], seed: int) -> None:
        """Fits the latency model, or loads it if the search is resumed.

        Args:
            folder: Folder of the search; the fitted model is kept in it.
            seed: Seed of the networks that are measured.
        """
        file = pathlib.Path(folder) / FILE
        if self.model is None and file.exists():
            self.model = LatencyModel.load(file, mode=self.spec.mode, threads=self.threads)
        elif self.model is None:
            assert self.seconds is not None
            model = LatencyModel(self.spec, threads=self.threads)
            self.model = model.fit(self.space, self.seconds, seed=seed)
            self.model.save(file)
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
