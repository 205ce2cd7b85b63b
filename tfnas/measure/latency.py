"""Latency as a ratio to a fixed reference model, measured side by side.

On a shared machine absolute times drift by 20% within an hour, and so does everything
else that runs: the drift divides out. So all files are measured in interleaved rounds,
in a new random order each round, a fixed reference model beside them, and what is
reported is the median over the rounds of (time / reference's time in the same round).
"""

from __future__ import annotations

import functools
import gc
import importlib.resources
import math
import os
import pathlib
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from tfnas.measure.measurement import Latency
from tfnas.tflite.artifact import FILES, Artifact, as_artifact

DEFAULT_ROUNDS = 50
_PASSES = 25


def benchmark(
    artifacts: Artifact | str | os.PathLike[str] | Sequence[Any],
    *more: Any,
    rounds: int = DEFAULT_ROUNDS,
    threads: int = 1,
    xnnpack: bool = True,
    warmup: int = 3,
    sample_ms: float = 3.0,
    reference: Artifact | None = None,
    seed: int = 0,
) -> list[Latency]:
    """Measures the time of one inference (batch 1) of each file, interleaved.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> [latency] = tfnas.benchmark(tfnas.to_tflite(model), rounds=6)
        >>> latency.ratio < 1
        True

    Args:
        artifacts: One artifact or the path of a file, or a sequence of them.
        *more: Nothing: several files are one sequence.
        rounds: Number of interleaved rounds, at least 6 (below, no range of the samples holds
            the median with 95%).
        threads: Threads of each interpreter.
        xnnpack: Whether the XNNPACK delegate may run.
        warmup: Untimed inferences of each file before the first round.
        sample_ms: A sample repeats the inference until it lasts this long, in ms.
        reference: The file that ratios are taken to. Default: the one that tfnas ships,
            so that ratios from different runs compare.
        seed: Seed of the order within a round.

    Returns:
        One :class:`~tfnas.measure.measurement.Latency` a file, in the order given. The interval
        is that of the median over the rounds at 95% (order statistics).

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """
    if more:
        raise ValueError(
            f"artifacts must be one file or one list of files, got {1 + len(more)} arguments: "
            "write benchmark([a, b])"
        )
    files = as_artifacts(artifacts)
    check_rounds(rounds)
    if not isinstance(warmup, int) or warmup < 0:
        raise ValueError(f"warmup must be a whole number >= 0, got {warmup!r}")
    if not sample_ms > 0:
        raise ValueError(f"sample_ms must be above 0, got {sample_ms!r}")
    anchor = reference or reference_artifact()
    rng = np.random.default_rng(seed)
    blocks = []
    timers: dict[int, _Timer] = {}
    for block in np.array_split(np.arange(rounds), min(_PASSES, rounds)):
        # Where an interpreter's memory happens to lie shifts its time by up to 2%, for as
        # long as it lives: new ones, made in another order beside the old, average that out.
        order = rng.permutation(len(files) + 1)
        timers = {
            int(i): _Timer((anchor, *files)[i], threads, xnnpack, warmup, sample_ms) for i in order
        }
        blocks.append(_interleaved([timers[i] for i in sorted(timers)], len(block), rng))
    times = np.concatenate(blocks)
    return [
        _summary(times[:, i], times[:, 0], anchor.sha256, threads, xnnpack)
        for i in range(1, len(files) + 1)
    ]


def check_rounds(rounds: int) -> None:
    """Raises ValueError unless the number of rounds can give a 95% interval."""
    if not isinstance(rounds, int) or rounds < 6:
        raise ValueError(f"rounds must be a whole number >= 6, got {rounds!r}")


@functools.cache
def reference_artifact() -> Artifact:
    """Returns the reference model that tfnas ships; it never changes.

    It is a float32 MobileNetV2-like network of 48x48 images with random weights:
    about 0.2 ms on a desktop core. `benchmarks/make_reference.py` made it.
    """
    file = importlib.resources.files("tfnas.measure").joinpath("reference.tflite")
    return Artifact(file.read_bytes(), origin={"file": "tfnas reference"})


def provenance(**more: Any) -> dict[str, Any]:
    """Returns where and with what is measured: CPU, cores, system, versions.

    Args:
        **more: Further entries, such as the data set.
    """
    packages = ("tensorflow", "keras", "ai-edge-litert", "keras-tuner", "numpy")
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("tfnas", *packages)},
        **more,
    }


class _Timer:
    """Times one file; a sample is long enough for the clock."""

    def __init__(self, file: Artifact, threads: int, xnnpack: bool, warmup: int, sample_ms: float):
        self.interpreter = file.interpreter(threads, xnnpack)
        rng = np.random.default_rng(0)
        for tensor in self.interpreter.get_input_details():
            noise = rng.uniform(0, 100, tensor["shape"]).astype(tensor["dtype"])
            if noise.dtype.kind in "iu" and not tensor["quantization"][0]:
                noise[...] = 0  # may be an index: 0 is one in any vocabulary
            self.interpreter.set_tensor(tensor["index"], noise)
        for _ in range(warmup + 1):
            self.interpreter.invoke()
        once = min(self._run(1) for _ in range(3))
        self.repeats = max(1, math.ceil(sample_ms / 1000 / max(once, 1e-7)))

    def sample(self) -> float:
        """Seconds an inference, after one untimed to warm the caches."""
        self.interpreter.invoke()
        return self._run(self.repeats) / self.repeats

    def _run(self, repeats: int) -> float:
        invoke = self.interpreter.invoke
        start = time.perf_counter()
        for _ in range(repeats):
            invoke()
        return time.perf_counter() - start


def _interleaved(timers: Sequence[_Timer], rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Seconds an inference, (rounds, files); the reference is measured on both ends."""
    times = np.empty((rounds, len(timers)))
    collecting = gc.isenabled()
    gc.disable()
    try:
        for row in times:
            before = timers[0].sample()
            for i in 1 + rng.permutation(len(timers) - 1):
                row[i] = timers[i].sample()
            row[0] = (before + timers[0].sample()) / 2
    finally:
        if collecting:
            gc.enable()
    return times


def _summary(
    times: np.ndarray, anchor: np.ndarray, sha256: str, threads: int, xnnpack: bool
) -> Latency:
    low, high = median_interval(times / anchor)
    p10, median, p90 = np.percentile(times * 1000, [10, 50, 90])
    return Latency(
        median_ms=float(median),
        p10_ms=float(p10),
        p90_ms=float(p90),
        ratio=float(np.median(times / anchor)),
        ratio_low=low,
        ratio_high=high,
        reference_ms=float(np.median(anchor) * 1000),
        reference=sha256,
        rounds=len(times),
        threads=threads,
        xnnpack=xnnpack,
    )


def median_interval(samples: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Returns an interval of the median, whatever the distribution of independent samples.

    Example:
        >>> median_interval(np.arange(1, 31))
        (10.0, 21.0)

    Args:
        samples: One value a round.
        confidence: Probability that the interval holds the median; with few samples the
            whole range is returned.

    References:
        Conover, "Practical Nonparametric Statistics", 3rd ed., section 3.2: ranks from
        the binomial distribution with p = 1/2.
    """
    ordered = np.sort(samples)
    n = len(ordered)
    tail, rank = 0.0, 0
    while rank < n // 2:
        tail += math.comb(n, rank) / 2**n
        if tail > (1 - confidence) / 2:
            break
        rank += 1
    lower = max(rank - 1, 0)
    return float(ordered[lower]), float(ordered[n - 1 - lower])


def as_artifacts(files: Any, name: str = "artifacts") -> list[Artifact]:
    """Returns files as artifacts, those that are paths loaded.

    Args:
        files: An artifact or the path of a file, or several of them.
        name: Of the argument, for the message.

    Raises:
        ValueError: There is none, or one is something else.
    """
    several = isinstance(files, Iterable) and not isinstance(files, FILES)
    listed = list(files) if several else [files]
    if not listed:
        raise ValueError(f"{name} must hold at least one file, got none")
    for file in listed:
        if not isinstance(file, FILES):
            raise ValueError(
                f"{name} must be a file or a list of files, each a tfnas.Artifact or a path, "
                f"got {type(file).__name__}"
            )
    return [as_artifact(file) for file in listed]


def _cpu_name() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        fields: Mapping[str, str] = dict(
            line.split("\t:")[:2] if "\t:" in line else (line, "")  # type: ignore[misc]
            for line in info.read_text().splitlines()
        )
        if "model name" in {key.strip() for key in fields}:
            return next(v.strip() for k, v in fields.items() if k.strip() == "model name")
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
