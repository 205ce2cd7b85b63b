"""What a network of a space costs, as far as that is known without a training.

The latency is predicted by a fitted model. Flash and RAM are those of the network's file with
random weights, which is written in milliseconds; the converter adds names and tables to a file,
whose bytes are estimated from a few converted networks. Where there is no writer for a network, it
is converted. MACs and parameters are counted on the Keras model.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from tfnas.nas.feasibility import STATIC_METRICS, KnownCosts
from tfnas.nas.latency_prediction import LatencyPredictor
from tfnas.nas.metric_directions import KNOWN_DIRECTIONS, REWARD
from tfnas.nas.tuner_config import TunerConfig
from tfnas.search_space.architecture import Architecture
from tfnas.search_space.search_space import SearchSpace
from tfnas.targets.device import ON_DEVICE, Device, NotOnDevice, worst
from tfnas.targets.ethos_u import VelaError
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import to_tflite
from tfnas.tflite.network_operators import Operators, operators_of_architecture
from tfnas.tflite.network_writer import MODES, write

LATENCIES = frozenset({REWARD, "latency_ratio", "latency_ms"})
"""Metrics that need a latency."""
_SIZES = frozenset({"size_bytes", "gzip_bytes", "flash_bytes"})
_OF_FILES = frozenset({*_SIZES, *ON_DEVICE})
_CONVERTED = 6  # networks that the bytes that the converter adds are estimated from


class MemberCosts:
    """Costs of the networks of a space, each computed once.

    Args:
        space: The space.
        config: The settings of the trials.
        device: The device of the metrics that need one.
        names: Names of the objectives and limits.
        predictor: Predicts latencies; None: they are not needed.
    """

    def __init__(
        self,
        space: SearchSpace,
        config: TunerConfig,
        device: Device,
        names: Set[str],
        predictor: LatencyPredictor | None,
    ) -> None:
        self.space, self.config, self.device, self.predictor = space, config, device, predictor
        self.names = names & set(KNOWN_DIRECTIONS)
        self._static = KnownCosts(space, config, names & STATIC_METRICS, None)
        self._known: dict[Any, dict[str, float]] = {}
        self._more_bytes: np.ndarray | None = None

    def __call__(self, arch: Architecture) -> Mapping[str, float]:
        """Returns the costs among the objectives and limits; infinite if no device runs it.

        Args:
            arch: The network.
        """
        if arch.network not in self._known:
            found = {n: v for n, v in self._static(arch).items() if n in self.names}
            if self.names & _OF_FILES:
                found |= self._of_file(arch)
            if self.predictor is not None:
                found |= self.predictor.metrics(arch)
            self._known[arch.network] = found
        return self._known[arch.network]

    def _of_file(self, arch: Architecture) -> dict[str, float]:
        file = self.file(arch)
        on_device = self.names & {*ON_DEVICE}
        try:
            found = self.device.metrics(file, on_device)
        except (NotOnDevice, VelaError):
            found = {name: worst(name) for name in on_device}
        added = self._added_bytes(arch) if self.names & _SIZES else 0.0
        found |= {"size_bytes": float(file.size), "gzip_bytes": float(file.gzip_size)}
        return {n: v + added if n in _SIZES else v for n, v in found.items() if n in self.names}

    def file(self, arch: Architecture) -> Artifact:
        """Returns the file of a network with random weights.

        Args:
            arch: The network.
        """
        operators = self._written_operators(arch)
        if operators is None:
            return self._converted(arch)
        return write(operators, self.config.spec.mode)

    def _written_operators(self, arch: Architecture) -> Operators | None:
        """The operators of a network that is written; None where it is converted."""
        spec = self.config.spec
        is_written = spec.mode in MODES and not spec.layers
        return operators_of_architecture(arch) if is_written else None

    def _converted(self, arch: Architecture) -> Artifact:
        model, spec = self.space.build(arch), self.config.spec
        noise = np.random.default_rng(0).uniform(0, 255, (8, *arch.input_shape))
        data = noise.astype(np.float32) if spec.needs_calibration else None
        return to_tflite(model, spec, data)

    def _added_bytes(self, arch: Architecture) -> float:
        """What the converter's file has more than the written one, by operators and channels."""
        operators = self._written_operators(arch)
        if operators is None:
            return 0.0
        if self._more_bytes is None:
            self._more_bytes = self._fitted_bytes()
        return float(np.dot(_file_features(operators), self._more_bytes))

    def _fitted_bytes(self) -> np.ndarray:
        """Bytes of a file, of an operator, of a channel, (3,), by least squares."""
        rng = np.random.default_rng(0)
        drawn = [self.space.sample(rng) for _ in range(_CONVERTED)]
        archs = {arch.network: arch for arch in drawn}.values()
        found = [(arch, self._written_operators(arch)) for arch in archs]
        written = [(arch, operators) for arch, operators in found if operators is not None]
        more = [self._converted(arch).size - self.file(arch).size for arch, _ in written]
        rows = [_file_features(operators) for _, operators in written]
        return np.asarray(np.linalg.lstsq(np.array(rows), np.array(more), rcond=None)[0])


def _file_features(operators: Operators) -> list[float]:
    weighted = ("convolution", "depthwise", "dense")
    channels = sum(each.output[-1] for each in operators.operators if each.kind in weighted)
    return [1.0, float(len(operators.operators)), float(channels)]
