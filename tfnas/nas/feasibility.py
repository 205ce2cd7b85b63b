"""Metrics that are known before a trial is trained, so that a broken limit costs no training.

:class:`KnownCosts` are those of an architecture: MACs, parameters, predicted latency. The oracle
drops proposals by them. :func:`untrained_metrics` are those of a built model and of its file before
training: the bytes of the file, the memory on a device, a lower bound of the latency.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Set
from typing import Any

import keras

from tfnas.compression.trial_compression import spec_of, untrained_form
from tfnas.compression.trial_refusals import NotCompressible
from tfnas.measure.latency import benchmark
from tfnas.measure.measure import ACTIVATION_BYTES
from tfnas.measure.profile import Profile, profile
from tfnas.nas.latency_prediction import LatencyPredictor
from tfnas.nas.tuner_config import TunerConfig
from tfnas.quantization.spec import QuantSpec
from tfnas.search_space.architecture import Architecture
from tfnas.search_space.compression import Compression
from tfnas.search_space.search_space import SearchSpace
from tfnas.targets.device import UNTRAINED as DEVICE_UNTRAINED
from tfnas.targets.device import Device
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError

STATIC_METRICS = frozenset({"macs", "parameters", "peak_activation_bytes"})
"""Metrics that are known without a file."""
_LATENCY_METRICS = frozenset({"latency_ratio", "latency_ms"})
UNTRAINED_METRICS = frozenset({"size_bytes", *_LATENCY_METRICS, *DEVICE_UNTRAINED})
"""Metrics of a file that are known before training."""


def spec_of_trial(config: TunerConfig, compression: Compression | None) -> QuantSpec:
    """Returns the number formats of a trial's file.

    Args:
        config: The settings of the search.
        compression: The compression of the trial; None: the file has the format of the settings.
    """
    return config.spec if compression is None else spec_of(compression)


def static_costs(
    model: keras.Model, spec: QuantSpec, names: Set[str] = frozenset()
) -> dict[str, float]:
    """Returns the :data:`STATIC_METRICS` of a model; without MACs that can't be counted.

    Args:
        model: A built model.
        spec: The number formats of its file.
        names: Names of the objectives and limits.

    Raises:
        ValueError: "macs" is among the names, and some layer can't be counted.
    """
    cost = profile(model)
    size = ACTIVATION_BYTES.get(spec.mode, 4)
    return {
        **macs_metric(cost, names),
        "parameters": float(cost.parameters),
        "peak_activation_bytes": float(cost.peak_activation_bytes(size)),
    }


def macs_metric(cost: Profile, names: Set[str]) -> dict[str, float]:
    """Returns the metric "macs", or nothing where some layer can't be counted.

    Args:
        cost: The profile of a model.
        names: Names of the objectives and limits.

    Raises:
        ValueError: "macs" is among the names, and some layer can't be counted.
    """
    if "macs" in names:
        cost.check_counted("the objective or limit 'macs'")
    return {} if cost.uncounted else {"macs": float(cost.macs)}


def untrained_metrics(
    convert: Callable[[], Artifact], names: Set[str], config: TunerConfig, device: Device
) -> dict[str, float]:
    """Returns the metrics of the file of an untrained model; the latency's are lower bounds.

    They are empty if the model can't be converted before training.

    Args:
        convert: Converts the model.
        names: Names of the requested metrics.
        config: The settings of the search.
        device: The target device.

    Raises:
        NotOnDevice: The device can't run the file.
        FileRefused: The device that measures can't run it.
        VelaError: The accelerator's compiler failed.
    """
    try:
        artifact = convert()
    except ConversionError:
        return {}  # some modes need trained weights
    metrics = {"size_bytes": float(artifact.size)}
    metrics |= device.metrics(artifact, names & DEVICE_UNTRAINED)
    if names & _LATENCY_METRICS:
        [latency] = benchmark(
            artifact, threads=config.threads, rounds=config.rounds, measure_on=config.measure_on
        )
        metrics["latency_ratio"] = latency.ratio_low
        metrics["latency_ms"] = latency.median_ms * latency.ratio_low / latency.ratio
    return metrics


class KnownCosts:
    """Metrics of the architectures of a search space that are known without a trial.

    Args:
        space: The search space.
        config: The settings of the search.
        names: Names of the objectives and limits.
        predictor: Predicts latencies; None: they are not predicted.
    """

    def __init__(
        self,
        space: SearchSpace,
        config: TunerConfig,
        names: Set[str],
        predictor: LatencyPredictor | None,
    ) -> None:
        self.space, self.config, self.predictor = space, config, predictor
        self._names = names
        self._needs_costs = bool(names & STATIC_METRICS)
        self._costs: dict[Any, dict[str, float]] = {}

    def __call__(self, arch: Architecture) -> Mapping[str, float]:
        """Returns the known metrics of an architecture.

        Args:
            arch: The architecture.
        """
        known = {} if self.predictor is None else self.predictor.lower_bounds(arch)
        if not self._needs_costs:
            return known
        if arch.network not in self._costs:
            compression = arch.compression
            model = self.space.build(arch)
            if compression is not None:
                with contextlib.suppress(NotCompressible):  # its trial reports the reason
                    model = untrained_form(model, compression)
            spec = spec_of_trial(self.config, compression)
            self._costs[arch.network] = static_costs(model, spec, self._names)
        return {**self._costs[arch.network], **known}
