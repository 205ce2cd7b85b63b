"""Random networks of a search space, measured on this machine, and the costs fitted to them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tfnas.measure.latency import benchmark, reference_artifact
from tfnas.measure.latency_model.features import Features, macs, macs_features, network_features
from tfnas.measure.latency_model.regression import LatencyErrors, cross_validated, fit_costs
from tfnas.search_space.architecture import Architecture
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.network_operators import Operators, operators_of_architecture
from tfnas.tflite.network_writer import MODES, writable, write

FEWEST = 10  # networks; two for each part of the cross-validation
TOGETHER = 4  # networks a measurement: few, so that the reference is measured often
ROUNDS, SAMPLE_MS = 16, 0.3
_ATTEMPTS = 50
_CHECKED = 2
_FINGERPRINT = 16


@dataclasses.dataclass(frozen=True)
class LatencyFit:
    """What was learned of a search space on a machine.

    Args:
        costs: Feature -> the ratio that a unit of it adds.
        errors: Of networks that were left out of the fit, each once; beside measurements
            that were short, so that the noise of these is part of it.
        macs_costs: Those of a model that knows the multiply-accumulates alone, for comparison.
        macs_errors: Its errors.
        space: Fingerprint of the space.
        seconds: Time that profiling took.
        direct: Whether networks of the space are priced without being built.
    """

    costs: dict[str, float] = dataclasses.field(repr=False)
    errors: LatencyErrors
    macs_costs: dict[str, float] = dataclasses.field(repr=False)
    macs_errors: LatencyErrors
    space: str
    seconds: float
    direct: bool

    def __str__(self) -> str:
        return (
            f"cross-validated: {self.errors}\nMACs alone: {self.macs_errors}\n"
            f"profiled for {self.seconds:.0f} s"
        )


class SpaceProfiler:
    """Measures random networks of a space until the time is used.

    Args:
        space: The search space.
        mode: Numbers that the files compute with.
        threads: Threads of the interpreter.
        seed: Seed of the networks, their weights and the order of measurements.
        lower: Tells the operators of a model.
        convert: Converts a model, where an operator of it can't be written directly.
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
        """Profiles for that long, and until ten networks are measured.

        Raises:
            ValueError: The space has fewer networks.
        """
        start = time.perf_counter()
        networks = self._networks()
        while time.perf_counter() - start < seconds or len(self.rows) < FEWEST:
            batch = [pair for _, pair in zip(range(TOGETHER), networks, strict=False)]
            if not batch:
                break
            self._measure(batch)
        if len(self.rows) < FEWEST:
            raise ValueError(
                f"space must have at least {FEWEST} different networks, got {len(self.rows)}"
            )
        lines = [macs_features(count) for count in self.macs]
        return LatencyFit(
            costs=fit_costs(self.rows, self.ratios),
            errors=cross_validated(self.rows, self.ratios, self.seed),
            macs_costs=fit_costs(lines, self.ratios),
            macs_errors=cross_validated(lines, self.ratios, self.seed),
            space=fingerprint(self.space),
            seconds=time.perf_counter() - start,
            direct=self.direct,
        )

    def _networks(self) -> Iterator[tuple[Operators, Artifact]]:
        """Random networks, none twice, as operators and as files."""
        seen: set[Operators] = set()
        misses = 0
        while misses < _ATTEMPTS:
            arch = self.space.sample(self.rng)
            network, model = self._operators(arch, check=len(seen) < _CHECKED)
            plain = dataclasses.replace(network, calls={})
            misses = misses + 1 if plain in seen else 0
            if not misses:
                seen.add(plain)
                yield plain, self._file(network, model or (lambda a=arch: self.space.build(a)))

    def _operators(self, arch: Any, check: bool) -> tuple[Operators, Any]:
        """The operators, and the model where it had to be built for them."""
        told = self._told(arch) if self.direct else None
        if told is not None and not check:
            return told, None
        model = self.space.build(arch)
        network = self.lower(model)
        # What follows from an architecture is believed after the models of two said the same.
        self.direct = self.direct and told == network
        return network, lambda: model

    def _told(self, arch: Any) -> Operators | None:
        if not isinstance(arch, Architecture):
            return None
        if getattr(arch, "compression", None) is not None:
            arch = dataclasses.replace(arch, compression=None)  # the space builds it so, too
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
    """Measures files beside the reference model by what each takes while nothing disturbs it.

    Where other programs take turns on the processor, medians of few samples are far off. So
    samples are short, that many fall between two turns, and the 10th percentile of a file is
    held against that of the reference, measured as one of the files.

    Args:
        files: The files; few, so that all meet the same processor.
        threads: Threads of the interpreter.
        seed: Seed of the order of measurements.
        rounds: Interleaved rounds.
    """
    reference, *found = benchmark(
        [reference_artifact(), *files],
        rounds=rounds,
        threads=threads,
        sample_ms=SAMPLE_MS,
        seed=seed,
    )
    return [latency.p10_ms / reference.p10_ms for latency in found]


def fingerprint(space: Any) -> str:
    """Returns 16 hexadecimal digits that tell one search space from another.

    Args:
        space: A search space; its architectures have a key.
    """
    rng = np.random.default_rng(0)
    keys = [getattr(arch, "key", repr(arch)) for arch in _some(space, rng)]
    text = json.dumps([type(space).__name__, keys])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _some(space: Any, rng: np.random.Generator) -> list[Any]:
    return [space.sample(rng) for _ in range(_FINGERPRINT)]
