"""Latency on an Android phone, with TFLite's `benchmark_model` and the Android debug bridge (adb).

The tool, the file and the reference model that tfnas ships are pushed to a folder on the phone
that is removed afterwards. The reference runs before and after the file, and the result is the
file's time as a ratio to the mean of both; their difference shows whether the phone slowed down
as it got warm. Operators are profiled in the same run, so times are a little longer than without.
Interleaved rounds without a profile: :class:`tfnas.AdbDevice`.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from tfnas.measure.elsewhere.benchmark_tool import PhoneRun, parse_benchmark
from tfnas.measure.elsewhere.phone import Phone, check_binary
from tfnas.measure.latency import reference_artifact
from tfnas.runtime.external_programs import check_timeout, plain_record
from tfnas.table import Tabular, TextTable
from tfnas.tflite.artifact import Artifact, as_artifact

_MODEL, _REFERENCE = "model.tflite", "reference.tflite"


@dataclasses.dataclass(frozen=True, repr=False)
class PhoneLatency(Tabular, PhoneRun):
    """Time of one inference on a phone, in ms and as a ratio to a reference model.

    Args:
        device: The phone's model, such as "Pixel 6".
        abi: Its application binary interface, such as "arm64-v8a".
        threads: Threads of the interpreter.
        xnnpack: Whether the XNNPACK delegate was allowed.
        reference: sha256 of the reference file.
        reference_ms: Time of the reference before and after the file, in ms.
    """

    device: str
    abi: str
    threads: int
    xnnpack: bool
    reference: str
    reference_ms: tuple[float, float]

    @property
    def ratio(self) -> float:
        """Returns the file's time over the mean of the reference's two, no unit."""
        return self.ms / (sum(self.reference_ms) / 2)

    @property
    def ratio_low(self) -> float:
        """Returns the ratio to the slower one of the reference's two runs."""
        return self.ms / max(self.reference_ms)

    @property
    def ratio_high(self) -> float:
        """Returns the ratio to the faster one of the reference's two runs."""
        return self.ms / min(self.reference_ms)

    def to_dict(self) -> dict[str, Any]:
        """Returns the latency as plain dictionaries, lists, strings and numbers."""
        ratios = {name: getattr(self, name) for name in ("ratio", "ratio_low", "ratio_high")}
        return plain_record(self, **ratios)

    def tables(self) -> list[TextTable]:
        """Returns the times and the profile of the operators, slowest first."""
        milliseconds = {
            "median": self.median_ms,
            "mean": self.average_ms,
            "5th percentile": self.p5_ms,
            "95th percentile": self.p95_ms,
            "shortest": self.min_ms,
            "longest": self.max_ms,
            "first": self.first_ms,
            "initialization": self.init_ms,
            "reference before": self.reference_ms[0],
            "reference after": self.reference_ms[1],
        }
        times = [[name, f"{ms:.4g}"] for name, ms in milliseconds.items() if ms is not None]
        return [
            TextTable(["time", "ms"], times, title=f"{self._line()}, {self.abi}"),
            TextTable(["operator", "output", "ms"], self._profile_rows(), right=2),
        ]

    def _line(self) -> str:
        return (
            f"{self.ms:.4g} ms, {self.ratio:.3f}x reference "
            f"[{self.ratio_low:.3f}, {self.ratio_high:.3f}] on {self.device}"
        )

    def __str__(self) -> str:
        return self._line()


def benchmark_on_phone(
    file: Artifact | str | os.PathLike[str],
    binary: str | os.PathLike[str],
    *,
    serial: str | None = None,
    adb: str = "adb",
    threads: int = 1,
    runs: int = 50,
    warmup_runs: int = 1,
    use_xnnpack: bool = True,
    timeout: float = 300,
) -> PhoneLatency:
    """Measures the time of one inference (batch 1) on a connected Android phone.

    Example:
        >>> import tfnas
        >>> latency = tfnas.benchmark_on_phone(  # doctest: +SKIP
        ...     "model.tflite", "android_aarch64_benchmark_model"
        ... )
        >>> print(latency.ratio, latency.profile())  # doctest: +SKIP

    Args:
        file: An artifact or the path of a file.
        binary: Path of TFLite's `benchmark_model`, built for the phone's processor.
        serial: The phone's serial number as `adb devices` lists it; required if several phones
            are connected.
        adb: Name or path of the Android debug bridge.
        threads: Threads of the interpreter.
        runs: Least number of timed inferences; the tool runs for at least a second.
        warmup_runs: Least number of untimed inferences before; at least half a second.
        use_xnnpack: Whether the XNNPACK delegate may run.
        timeout: Time limit of each of the three runs, in seconds.

    Returns:
        The latency, with the profile of the operators.

    Raises:
        FileNotFoundError: There is no `adb`, no `binary` or no `file`.
        RuntimeError: No phone can be used, or the tool failed or its output can't be parsed.
        TimeoutError: The phone did not finish in time.
        ValueError: An argument is outside its rule; the message names it.

    References:
        TensorFlow, `tensorflow/lite/tools/benchmark/README.md`.
    """
    counts = (("threads", threads, 1), ("runs", runs, 1), ("warmup_runs", warmup_runs, 0))
    for name, value, least in counts:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    check_timeout(timeout)
    check_binary(binary)
    artifact = as_artifact(file)
    reference = reference_artifact()
    phone = Phone(adb, serial, timeout)
    flags = [f"--num_threads={threads}", f"--num_runs={runs}", f"--warmup_runs={warmup_runs}"]
    flags += [f"--use_xnnpack={str(use_xnnpack).lower()}", "--enable_op_profiling=true"]
    with phone.pushed(binary, {_MODEL: artifact, _REFERENCE: reference}):
        before, found, after = (
            parse_benchmark(phone.benchmark(graph, flags))
            for graph in (_REFERENCE, _MODEL, _REFERENCE)
        )
    return PhoneLatency(
        **{field.name: getattr(found, field.name) for field in dataclasses.fields(found)},
        device=phone.model,
        abi=phone.abi,
        threads=threads,
        xnnpack=use_xnnpack,
        reference=reference.sha256,
        reference_ms=(before.ms, after.ms),
    )
