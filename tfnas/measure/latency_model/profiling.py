"""Measures random networks of a search space on this machine and fits operator costs to them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tfnas.measure.latency import benchmark, reference_artifact
from tfnas.measure.latency_model.features import (
    Features,
    known_operators,
    macs,
    macs_features,
    network_features,
)
from tfnas.measure.latency_model.regression import LatencyErrors, cross_validated, fit_costs
from tfnas.search_space.architecture import Architecture
from tfnas.table import Tabular, TextTable
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.network_operators import Operators, operators_of_architecture
from tfnas.tflite.network_writer import MODES, writable, write

MIN_NETWORKS = 10  # two for each fold of the cross-validation
BATCH = 4  # networks per benchmark: few, so that the reference is measured often
ROUNDS, SAMPLE_MS = 16, 0.3
_ATTEMPTS = 50  # samples in a row that are known before the space counts as exhausted
_CHECKED = 2  # architectures whose derived operators are compared with those of the model
_FINGERPRINT_SAMPLES = 16


@dataclasses.dataclass(frozen=True, repr=False)
class LatencyFit(Tabular):
    """The operator costs of a search space on a machine, with cross-validated errors.

    Args:
        costs: The ratio to the reference that a unit of each feature adds.
        errors: Cross-validated errors: each network is predicted once by costs fitted without
            it. The measurements were short; their noise is part of the errors.
        macs_costs: Costs of a model of the multiply-accumulates alone, for comparison.
        macs_errors: Cross-validated errors of that model.
        space: Fingerprint of the space.
        seconds: Time that profiling took, in seconds.
        direct: Whether architectures of the space are predicted without being built.
    """

    costs: dict[str, float] = dataclasses.field(repr=False)
    errors: LatencyErrors
    macs_costs: dict[str, float] = dataclasses.field(repr=False)
    macs_errors: LatencyErrors
    space: str
    seconds: float
    direct: bool

    def tables(self) -> list[TextTable]:
        """Returns the errors, with those of the model of MACs alone below."""
        rows = [
            ["cross-validated", *self.errors.rows()[0]],
            ["MACs alone", *self.macs_errors.rows()[0]],
        ]
        return [TextTable(["costs", *self.errors.headers()], rows)]

    def notes(self) -> list[str]:
        """Returns how long was profiled, and the operators that the costs hold for."""
        return [f"profiled for {self.seconds:.0f} s", f"holds for {known_operators(self.costs)}"]


class SpaceProfiler:
    """Measures random networks of a space for a given time and fits operator costs.

    Args:
        space: The search space.
        mode: Mode of the files, such as "int8".
        threads: Threads of the interpreter.
        seed: Seed of the networks, their weights and the order of measurements.
        lower: Returns the operators of a model.
        convert: Converts a model that has an operator without a writer.
    """

    def __init__(
        self,
        space: Any,
        mode: str,
        threads: int,
        seed: int,
        lower: Callable[[Any], Operators],
        convert: Callable[[Any], Artifact],
    ) -> None:
        self.space, self.mode, self.threads, self.seed = space, mode, threads, seed
        self.lower, self.convert = lower, convert
        self.rng = np.random.default_rng(seed)
        self.rows: list[Features] = []
        self.macs: list[int] = []
        self.ratios: list[float] = []
        self.direct = True

    def run(self, seconds: float) -> LatencyFit:
        """Measures for that many seconds, and at least ten networks.

        Raises:
            ValueError: The space has fewer than ten networks.
        """
        start = time.perf_counter()
        networks = self._networks()
        while time.perf_counter() - start < seconds or len(self.rows) < MIN_NETWORKS:
            batch = [pair for _, pair in zip(range(BATCH), networks, strict=False)]
            if not batch:
                break
            self._measure(batch)
        if len(self.rows) < MIN_NETWORKS:
            raise ValueError(
                f"space must have at least {MIN_NETWORKS} different networks, got {len(self.rows)}"
            )
        macs_rows = [macs_features(count) for count in self.macs]
        return LatencyFit(
            costs=fit_costs(self.rows, self.ratios),
            errors=cross_validated(self.rows, self.ratios, self.seed),
            macs_costs=fit_costs(macs_rows, self.ratios),
            macs_errors=cross_validated(macs_rows, self.ratios, self.seed),
            space=fingerprint(self.space),
            seconds=time.perf_counter() - start,
            direct=self.direct,
        )

    def _networks(self) -> Iterator[tuple[Operators, Artifact]]:
        """Yields distinct random networks as operators and as files."""
        seen: set[Operators] = set()
        misses = 0
        while misses < _ATTEMPTS:
            arch = self.space.sample(self.rng)
            network, model = self._operators(arch, check=len(seen) < _CHECKED)
            operators = dataclasses.replace(network, calls={})
            misses = misses + 1 if operators in seen else 0
            if not misses:
                seen.add(operators)
                yield operators, self._file(network, model or (lambda a=arch: self.space.build(a)))

    def _operators(self, arch: Any, check: bool) -> tuple[Operators, Any]:
        """The operators, and a function that returns the model if it had to be built for them."""
        derived = self._derived(arch) if self.direct else None
        if derived is not None and not check:
            return derived, None
        model = self.space.build(arch)
        network = self.lower(model)
        # Operators derived from architectures are trusted once those of two models are equal.
        self.direct = self.direct and derived == network
        return network, lambda: model

    def _derived(self, arch: Any) -> Operators | None:
        """The operators as derived from an architecture, None where that is not possible."""
        if not isinstance(arch, Architecture):
            return None
        if getattr(arch, "compression", None) is not None:
            arch = dataclasses.replace(arch, compression=None)  # as the space builds it
        return operators_of_architecture(arch)

    def _file(self, network: Operators, model: Callable[[], Any]) -> Artifact:
        if self.mode in MODES and writable(network):
            return write(network, self.mode, int(self.rng.integers(2**31)))
        return self.convert(model())

    def _measure(self, batch: list[tuple[Operators, Artifact]]) -> None:
        seed = self.seed + len(self.rows)
        self.ratios += undisturbed_ratios([file for _, file in batch], self.threads, seed)
        for network, _ in batch:
            self.rows.append(network_features(network, self.mode))
            self.macs.append(macs(network))


def undisturbed_ratios(
    files: Sequence[Artifact], threads: int = 1, seed: int = 0, rounds: int = ROUNDS
) -> list[float]:
    """Measures files as ratios to the reference model, robust against other load.

    If other programs share the processor, medians of few samples are far off. So samples are
    short, many of them run uninterrupted, and the 10th percentile of a file is divided by that
    of the reference, which is measured as one of the files.

    Args:
        files: The files; few, so that all are measured under the same load.
        threads: Threads of the interpreter.
        seed: Seed of the order of measurements.
        rounds: Interleaved rounds.

    Returns:
        One ratio per file, no unit.
    """
    reference, *found = benchmark(
        [reference_artifact(), *files],
        rounds=rounds,
        threads=threads,
        warmup=1,  # slow files would spend most of their time on it; the percentile needs no more
        sample_ms=SAMPLE_MS,
        seed=seed,
    )
    return [latency.p10_ms / reference.p10_ms for latency in found]


def fingerprint(space: Any) -> str:
    """Returns 16 hexadecimal digits that identify a search space.

    Args:
        space: A search space; its architectures have a `key`.
    """
    rng = np.random.default_rng(0)
    samples = [space.sample(rng) for _ in range(_FINGERPRINT_SAMPLES)]
    keys = [getattr(arch, "key", repr(arch)) for arch in samples]
    text = json.dumps([type(space).__name__, keys])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
