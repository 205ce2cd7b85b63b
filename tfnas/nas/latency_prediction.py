"""Latencies of candidates before they are trained, by costs fitted on this machine.

A search that wants a low latency, or a limit of it, can know beforehand how long a candidate
takes, to the error of :class:`tfnas.LatencyModel`: proposals that break a latency limit are
dropped without being built or converted, and the surrogate that chooses among the others sees
their predicted latency beside their decisions. What counts stays what is measured: each trial's
file is measured as without predictions, and the limit is held against that.

A proposal is dropped where even the prediction less its error (the 90th percentile of the
cross-validation) is above the limit.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.measure.latency import benchmark, reference_artifact
from tfnas.measure.latency_model.latency_model import LatencyModel
from tfnas.measure.latency_model.regression import LatencyErrors
from tfnas.quantization.spec import QuantSpec
from tfnas.search_space.hypermodel import SpaceHyperModel

FILE = "latency_model.json"
_SAMPLED = 64  # random architectures that tell how far latencies are spread


@dataclasses.dataclass(frozen=True)
class PredictionErrors:
    """How far predicted latencies can be believed.

    Args:
        cross_validated: On the profiled networks, each left out of the fit.
        trials: On the trials of the search; None: fewer than two were measured.
    """

    cross_validated: LatencyErrors
    trials: LatencyErrors | None

    def __str__(self) -> str:
        told = f"Predicted latency, cross-validated: {self.cross_validated}"
        return told if self.trials is None else f"{told}; on the trials: {self.trials}"


class Prediction:
    """The latencies of a search space.

    Example:
        >>> import tfnas
        >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
        >>> tuner = tfnas.EvolutionTuner(space, latency_seconds=60, directory="runs",
        ...                              limits={"latency_ratio": 0.1})
        >>> tuner.prediction.seconds
        60

    Args:
        hypermodel: What is searched, a :class:`SpaceHyperModel`.
        model: A fitted latency model; None: one is fitted when the search begins.
        seconds: Time to fit it, in seconds.
        spec: Number formats of the trials' files.
        threads: Threads of the latency measurement.
        milliseconds: Whether times in ms are asked for too.

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
                f"{name} must go with a search space such as tfnas.MobileNetV2Space, "
                f"got {type(hypermodel).__name__}"
            )
        if getattr(hypermodel.space, "compression", None) is not None or spec.layers:
            raise ValueError(
                f"{name} must go with files of one number format and no compression, which it "
                "can't predict"
            )
        if model is None:
            real = isinstance(seconds, numbers.Real) and not isinstance(seconds, bool)
            if not real or not 0 < float(seconds or 0) < math.inf:
                raise ValueError(
                    f"latency_seconds must be a finite number above 0, got {seconds!r}"
                )
        elif seconds is not None:
            raise ValueError("latency_seconds must not be given beside latency_model, which is fit")
        else:
            _check_model(model, spec, threads)
        self.space, self.model, self.seconds = hypermodel.space, model, seconds
        self.spec, self.threads, self.milliseconds = spec, threads, milliseconds
        self._reference_ms: float | None = None
        self._ratios: dict[Any, float] = {}
        self._spread: tuple[float, float] | None = None

    def prepare(self, folder: str | os.PathLike[str], seed: int) -> None:
        """Fits the model, or reads it where the search was begun earlier.

        Args:
            folder: Of the search; the fitted model is kept there.
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

    def ratio(self, arch: Any) -> float:
        """Returns the predicted latency of an architecture, as a ratio to the reference model."""
        assert self.model is not None
        assert self.model.fitted is not None
        if arch.network not in self._ratios:
            asked = arch if self.model.fitted.direct else self.space.build(arch)
            self._ratios[arch.network] = self.model(asked)
        return self._ratios[arch.network]

    def known(self, arch: Any) -> dict[str, float]:
        """Returns the least latency that an architecture has for all that is known."""
        assert self.model is not None
        assert self.model.fitted is not None
        least = self.ratio(arch) / (1 + self.model.fitted.errors.p90)
        if self._reference_ms is None:
            return {"latency_ratio": least}
        return {"latency_ratio": least, "latency_ms": least * self._reference_ms}

    def feature(self, arch: Any) -> np.ndarray:
        """Returns what a surrogate sees of the latency: ln of it, in the space's deviations."""
        if self._spread is None:
            rng = np.random.default_rng(0)
            logs = np.log([self.ratio(self.space.sample(rng)) for _ in range(_SAMPLED)])
            self._spread = float(logs.mean()), float(logs.std()) or 1.0
        mean, deviation = self._spread
        return np.array([(math.log(self.ratio(arch)) - mean) / deviation])

    def errors(self, tried: Sequence[tuple[Any, float]]) -> PredictionErrors:
        """Returns the errors, on the profiled networks and on trials.

        Args:
            tried: Architectures with their measured ratios.
        """
        assert self.model is not None
        assert self.model.fitted is not None
        found = None
        if len(tried) > 1:
            found = LatencyErrors.of([self.ratio(arch) for arch, _ in tried], [r for _, r in tried])
        return PredictionErrors(self.model.fitted.errors, found)


def _check_model(model: Any, spec: QuantSpec, threads: int) -> None:
    if not isinstance(model, LatencyModel) or model.fitted is None:
        raise ValueError(
            "latency_model must be a fitted tfnas.LatencyModel, such as "
            f"tfnas.LatencyModel({spec.mode!r}).fit(space), got {model!r}"
        )
    for name, own, wanted in (
        ("mode", model.spec.mode, spec.mode),
        ("threads", model.threads, threads),
    ):
        if own != wanted:
            raise ValueError(
                f"latency_model must be of the search's {name} {wanted!r}, got {own!r}"
            )
