"""Latency as a ratio to a fixed reference model, measured side by side.

On a shared machine absolute times drift by 20% within an hour; ratios of times measured at the
same moment do not. So all files and a fixed reference model are measured in interleaved rounds,
in a new random order each round, and the result is the median over the rounds of
(time / time of the reference in the same round).
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
        artifacts: An artifact or the path of a file, or a sequence of them.
        *more: Not allowed; pass several files as one sequence.
        rounds: Number of interleaved rounds, at least 6 (fewer samples give no 95% interval of
            the median).
        threads: Threads of each interpreter.
        xnnpack: Whether the XNNPACK delegate may run.
        warmup: Untimed inferences of each file before the first round.
        sample_ms: A sample repeats the inference until it lasts this long, in ms.
        reference: The reference file. Default: the one that tfnas ships, so that ratios of
            different runs can be compared.
        seed: Seed of the order within a round.

    Returns:
        One :class:`~tfnas.measure.measurement.Latency` per file, in the order of `artifacts`,
        with the 95% interval of the median over the rounds (order statistics).

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
        # The addresses that an interpreter's buffers happen to get shift its time by up to 2%
        # for its lifetime. New interpreters, created in a new order, average that out. The old
        # ones are still alive then, so that the new ones get other addresses.
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
    """Raises ValueError if there are too few rounds for a 95% interval of the median."""
    if not isinstance(rounds, int) or rounds < 6:
        raise ValueError(f"rounds must be a whole number >= 6, got {rounds!r}")


@functools.cache
def reference_artifact() -> Artifact:
    """Returns the reference file that tfnas ships; it never changes.

    It is a float32 network like MobileNetV2 for 48x48 images with random weights, about 0.2 ms
    on a desktop core, written by `benchmarks/make_reference.py`.
    """
    file = importlib.resources.files("tfnas.measure").joinpath("reference.tflite")
    return Artifact(file.read_bytes(), origin={"file": "tfnas reference"})


def provenance(**more: Any) -> dict[str, Any]:
    """Returns the machine and the versions that a measurement is made with.

    Args:
        **more: Further items, such as the data set.

    Returns:
        CPU, number of cores, system, Python and package versions, and the items of `more`.
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
    """Times one file; a sample repeats the inference until it lasts `sample_ms`."""

    def __init__(self, file: Artifact, threads: int, xnnpack: bool, warmup: int, sample_ms: float):
        self.interpreter = file.interpreter(threads, xnnpack)
        self.has_state = file.state == "tensors"
        rng = np.random.default_rng(0)
        for tensor in self.interpreter.get_input_details():
            noise = rng.uniform(0, 100, tensor["shape"]).astype(tensor["dtype"])
            if noise.dtype.kind in "iu" and not tensor["quantization"][0]:
                noise[...] = 0  # may be an index, and 0 is valid in any vocabulary
            self.interpreter.set_tensor(tensor["index"], noise)
        for _ in range(warmup + 1):
            self.interpreter.invoke()
        once = min(self._run(1) for _ in range(3))
        self.repeats = max(1, math.ceil(sample_ms / 1000 / max(once, 1e-7)))

    def sample(self) -> float:
        """Seconds per inference, after an untimed one that warms the caches."""
        self.interpreter.invoke()
        return self._run(self.repeats) / self.repeats

    def _run(self, repeats: int) -> float:
        if self.has_state:  # a state that grows might end in numbers that are slow to compute
            self.interpreter.reset_all_variables()
        invoke = self.interpreter.invoke
        start = time.perf_counter()
        for _ in range(repeats):
            invoke()
        return time.perf_counter() - start


def _interleaved(timers: Sequence[_Timer], rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Seconds per inference, (rounds, files).

    The reference, file 0, is measured at both ends of a round, and its two times are averaged.
    """
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
    """Returns a distribution-free confidence interval of the median of independent samples.

    Example:
        >>> median_interval(np.arange(1, 31))
        (10.0, 21.0)

    Args:
        samples: One value per round, (rounds,).
        confidence: Probability that the interval contains the median. With too few samples for
            it, the full range is returned.

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
    """Returns artifacts and paths of files as a list of artifacts.

    Args:
        files: An artifact or the path of a file, or a sequence of them.
        name: Name of the argument, for the error message.

    Raises:
        ValueError: There is no file, or one is neither an artifact nor a path.
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
