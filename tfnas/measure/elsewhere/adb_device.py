"""Latency on an Android phone in interleaved rounds, by TFLite's `benchmark_model` over adb."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tfnas.measure.elsewhere.benchmark_tool import parse_benchmark
from tfnas.measure.elsewhere.phone import Phone, PhoneGone, check_binary
from tfnas.measure.elsewhere.timing_device import (
    DeviceLost,
    DeviceTimes,
    FileRefused,
    TimingDevice,
    TimingPlan,
)
from tfnas.runtime.external_programs import check_timeout
from tfnas.tflite.artifact import Artifact

_RUNS = 5  # least number of timed inferences of a sample, of which the tool reports the median


@dataclasses.dataclass(frozen=True)
class AdbDevice(TimingDevice):
    """An Android phone that times files, connected by adb.

    Each round runs TFLite's `benchmark_model` once for each file, and for the reference before and
    after them. A sample is the median of its inferences.

    Example:
        >>> import tfnas
        >>> device = tfnas.AdbDevice("4A1", binary="android_aarch64_benchmark_model")
        >>> print(device)
        adb:4A1
        >>> tfnas.benchmark("model.tflite", measure_on=device)  # doctest: +SKIP

    Args:
        serial: The phone's serial number as `adb devices` lists it; None: the only phone.
        binary: Path of TFLite's `benchmark_model`, built for the phone's processor.
        adb: Name or path of the Android debug bridge.
        timeout: Time limit of each run of the tool, in seconds.

    Raises:
        ValueError: `timeout` is no finite number above 0.

    References:
        TensorFlow, `tensorflow/lite/tools/benchmark/README.md`.
    """

    serial: str | None = None
    binary: str = "android_aarch64_benchmark_model"
    adb: str = "adb"
    timeout: float = 300.0

    kind: ClassVar[str] = "adb"
    address: ClassVar[str | None] = "serial"

    def __post_init__(self) -> None:
        check_timeout(self.timeout)

    def check(self) -> str:
        """Reaches the phone and returns what it is.

        Returns:
            The phone's model and application binary interface, in words.

        Raises:
            FileNotFoundError: There is no `adb` or no `binary`.
            DeviceLost: No phone can be used (a `ConnectionError`).
        """
        check_binary(self.binary)
        return _words(self._phone())

    def times(self, files: Sequence[Artifact], plan: TimingPlan) -> DeviceTimes:
        """Times files on the phone in the rounds of a plan.

        Args:
            files: The files, the reference first.
            plan: The rounds.

        Raises:
            DeviceLost: No phone can be used, or it was lost (a `ConnectionError`).
            FileRefused: The tool failed on a file, but not on the reference (a `ValueError`).
            RuntimeError: The tool failed on the reference.
            TimeoutError: A run of the tool did not end in `timeout`.
        """
        check_binary(self.binary)
        phone = self._phone()
        names = {f"file{i}.tflite": file for i, file in enumerate(files)}
        try:
            with phone.pushed(pathlib.Path(self.binary), names):
                return DeviceTimes(_rounds(phone, plan, len(files)), _words(phone))
        except PhoneGone as error:
            raise DeviceLost(str(error)) from error

    def _phone(self) -> Phone:
        try:
            return Phone(self.adb, self.serial, self.timeout)
        except PhoneGone as error:
            raise DeviceLost(str(error)) from error


def _rounds(phone: Phone, plan: TimingPlan, files: int) -> np.ndarray:
    """Seconds per inference, (rounds, files)."""
    flags = [f"--num_threads={plan.threads}", f"--num_runs={_RUNS}"]
    flags += [f"--min_secs={plan.sample_ms / 1000:g}", f"--warmup_runs={plan.warmup + 1}"]
    flags += ["--warmup_min_secs=0", f"--use_xnnpack={str(plan.xnnpack).lower()}"]

    def seconds(i: int) -> float:
        return parse_benchmark(phone.benchmark(f"file{i}.tflite", flags)).ms / 1000

    def seconds_of_file(i: int) -> float:
        try:
            return seconds(i)
        except PhoneGone:
            raise
        except RuntimeError as error:
            raise FileRefused(f"{phone.model} can't run file {i}: {error}") from error

    times = np.empty((plan.rounds, files))
    rounds = (order for _, orders in plan.blocks for order in orders)
    for row, order in zip(times, rounds, strict=True):
        before = seconds(0)
        for i in order:
            row[i] = seconds_of_file(i)
        row[0] = (before + seconds(0)) / 2
    return times


def _words(phone: Phone) -> str:
    return f"{phone.model}, {phone.abi}"
