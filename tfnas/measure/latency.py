"""Latency as a ratio to a fixed reference model, measured side by side.

On a shared machine absolute times drift by 20% within an hour; ratios of times measured at the
same moment do not. So all files and a fixed reference model are measured in interleaved rounds,
in a new random order each round, and the result is the median over the rounds of
(time / time of the reference in the same round).
"""

from __future__ import annotations

import functools
import importlib.resources
import math
import os
import pathlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from tfnas.measure.elsewhere.named_device import timing_device
from tfnas.measure.elsewhere.timing_device import TimingDevice, TimingPlan, times_with_retries
from tfnas.measure.elsewhere.timing_script import Timer, timed
from tfnas.measure.measurement import Latency
from tfnas.tflite.artifact import FILES, Artifact, as_artifact

DEFAULT_ROUNDS = 50


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
    measure_on: TimingDevice | str | None = None,
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
        measure_on: The device that measures, the reference too: a :class:`tfnas.SshDevice`, a
            :class:`tfnas.AdbDevice`, a :class:`tfnas.BrowserDevice`, or the text of one, such as
            "ssh:pi@raspberrypi". None: this machine.

    Returns:
        One :class:`~tfnas.measure.measurement.Latency` per file, in the order of `artifacts`,
        with the 95% interval of the median over the rounds (order statistics).

    Raises:
        ValueError: An argument is outside its rule, or the device can't run a file; the message
            names it.
        ConnectionError: The device can't be reached, or was lost and did not come back.
        FileNotFoundError: A program or a file that reaches the device is missing.
        RuntimeError: The device lacks what it needs, such as LiteRT.
        TimeoutError: The device takes longer than its `timeout`.
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
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if not sample_ms > 0:
        raise ValueError(f"sample_ms must be above 0, got {sample_ms!r}")
    anchor = reference or reference_artifact()
    options = {"threads": threads, "xnnpack": xnnpack, "warmup": warmup, "sample_ms": sample_ms}
    plan = TimingPlan.of(len(files), rounds, seed, **options)
    device = timing_device(measure_on)
    if device is None:
        times, machine = _timed_here([anchor, *files], plan), ""
    else:
        found = times_with_retries(device, [anchor, *files], plan)
        times, machine = found.seconds, f"{device}: {found.machine}"
    return [
        _summary(times[:, i], times[:, 0], anchor.sha256, plan, machine)
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


def _timed_here(files: Sequence[Artifact], plan: TimingPlan) -> np.ndarray:
    """Seconds per inference on this machine, (rounds, files)."""

    return timed(lambda i: _timer(files[i], plan), plan.blocks)


def _timer(file: Artifact, plan: TimingPlan) -> Timer:
    interpreter = file.interpreter(plan.threads, plan.xnnpack)
    return Timer(interpreter, file.state == "tensors", plan.warmup, plan.sample_ms)


def _summary(
    times: np.ndarray, anchor: np.ndarray, sha256: str, plan: TimingPlan, device: str = ""
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
        threads=plan.threads,
        xnnpack=plan.xnnpack,
        device=device,
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
