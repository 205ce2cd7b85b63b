"""Metrics of a file on a device: flash, RAM, and what an accelerator makes of it.

| metric               | meaning                                                 | before training |
|----------------------|---------------------------------------------------------|-----------------|
| `flash_bytes`        | the file plus `runtime_flash`                           | yes             |
| `ram_bytes`          | the planned arena of TFLite Micro plus `runtime_ram`    | yes             |
| `vela_sram_bytes`    | SRAM of the accelerator's part                          | yes             |
| `vela_cpu_operators` | number of operators that stay on the CPU                | yes             |
| `delegated_macs`     | share of MACs that a phone's GPU is predicted to take   | yes             |
| `vela_flash_bytes`   | weights as the compiler encodes them, in all flash      | no              |
| `vela_cycles`        | clock cycles of the accelerator's part                  | no              |
| `vela_ms`            | time of the accelerator's part, in ms                   | no              |

The arena is planned from the file alone (:func:`tfnas.planned_arena`). The memory of the
firmware (program, interpreter and its data structures) depends on device and compiler: pass it
as `runtime_flash` and `runtime_ram`. The `vela_` metrics are the compiler's estimates
(:func:`tfnas.vela`), `delegated_macs` is by the rules of TFLite's GPU delegate
(:func:`tfnas.readiness`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Set

from tfnas.runtime.failed_work import FailedWork
from tfnas.targets.ethos_u import ACCELERATORS, check_package, vela
from tfnas.targets.tflite_micro.interpreter import planned_arena
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.delegation import delegation
from tfnas.tflite.operator_rules.gpu_delegate import gpu_faults
from tfnas.tflite.operator_rules.tflite_micro import check_micro

MICRO = ("flash_bytes", "ram_bytes")
VELA = (
    "vela_ms",
    "vela_cycles",
    "vela_sram_bytes",
    "vela_flash_bytes",
    "vela_cpu_operators",
)
DELEGATED = "delegated_macs"
ON_DEVICE = (*MICRO, *VELA, DELEGATED)
_WEIGHTS_IN_DRAM = ("ethos-u65", "ethos-u85")  # in the compiler's default memory mode
UNTRAINED = frozenset({*MICRO, DELEGATED, "vela_sram_bytes", "vela_cpu_operators"})


class NotOnDevice(FailedWork):
    """The device can't run a file, whatever its weights are; the message says why."""


def worst(name: str) -> float:
    """Returns a metric's value of a file that the device can't run.

    Example:
        >>> worst("ram_bytes"), worst("delegated_macs")
        (inf, -inf)

    Args:
        name: Name of the metric.
    """
    return -math.inf if name == DELEGATED else math.inf


@dataclasses.dataclass(frozen=True)
class Device:
    """The device that a search measures files for.

    Example:
        >>> import tfnas
        >>> tfnas.Device(runtime_ram=20_000)
        Device(accelerator='ethos-u55-128', runtime_flash=0, runtime_ram=20000)

    Args:
        accelerator: The NPU of the `vela_` metrics, such as "ethos-u55-128".
        runtime_flash: Flash of the firmware without the file, in bytes.
        runtime_ram: RAM of the firmware without the activations, in bytes.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    accelerator: str = "ethos-u55-128"
    runtime_flash: int = 0
    runtime_ram: int = 0

    def __post_init__(self) -> None:
        if self.accelerator not in ACCELERATORS:
            raise ValueError(
                f"accelerator must be one of {', '.join(ACCELERATORS)}, got {self.accelerator!r}"
            )
        for name in ("runtime_flash", "runtime_ram"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name} must be a whole number of bytes >= 0, got {value!r}")

    def check(self, names: Set[str]) -> None:
        """Raises if a requested metric can't be measured.

        Example:
            >>> Device().check({"ram_bytes"})

        Args:
            names: Names of the requested metrics.

        Raises:
            ImportError: A metric needs a package that is not installed.
            ValueError: The accelerator does not have this metric.
        """
        if names & set(VELA):
            check_package()
        if "vela_flash_bytes" in names and self.accelerator.startswith(_WEIGHTS_IN_DRAM):
            raise ValueError(
                "vela_flash_bytes must be requested for an accelerator whose weights are in flash "
                f"(an ethos-u55), got {self.accelerator}, whose weights are in DRAM"
            )

    def check_room(self, limits: Mapping[str, float], prefix: str = "") -> None:
        """Raises if the firmware alone reaches a limit.

        Example:
            >>> Device(runtime_ram=20_000).check_room({"ram_bytes": 16_384})
            Traceback (most recent call last):
            ValueError: ram_bytes must be above runtime_ram, 20,000 bytes, got 16,384

        Args:
            limits: Upper bounds by metric.
            prefix: Prefix of the metric's name in the error message, such as `max_`.

        Raises:
            ValueError: The firmware alone takes as many bytes as a limit allows.
        """
        for metric, name in (("flash_bytes", "runtime_flash"), ("ram_bytes", "runtime_ram")):
            used, limit = getattr(self, name), limits.get(metric)
            if limit is not None and limit <= used:
                raise ValueError(
                    f"{prefix}{metric} must be above {name}, {used:,} bytes, got {limit:,g}"
                )

    def metrics(self, file: Artifact, names: Set[str]) -> dict[str, float]:
        """Measures the requested metrics of a file on this device.

        Example:
            >>> import keras, tfnas
            >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
            >>> file = tfnas.to_tflite(net)
            >>> found = Device(runtime_flash=1000).metrics(file, {"flash_bytes"})
            >>> found["flash_bytes"] - file.size
            1000.0

        Args:
            file: The file.
            names: Names of metrics; those that are none of a device are ignored.

        Returns:
            Value by name, in the unit that the name ends with.

        Raises:
            NotOnDevice: TFLite Micro has no kernel for an operator or can't plan its memory, the
                accelerator runs no operator of the file, or its multiply-accumulates can't be
                counted.
            VelaError: The accelerator's compiler failed.
        """
        found: dict[str, float] = {}
        if names & set(MICRO):
            found |= self._micro(file)
        if names & set(VELA):
            found |= self._vela(file)
        if DELEGATED in names:
            found[DELEGATED] = _delegated_share(file)
        return {name: value for name, value in found.items() if name in names}

    def _micro(self, file: Artifact) -> dict[str, float]:
        try:
            check_micro(file)
            arena = planned_arena(file)
        except ValueError as error:
            raise NotOnDevice(str(error)) from error
        return {
            "flash_bytes": float(file.size + self.runtime_flash),
            "ram_bytes": float(arena + self.runtime_ram),
        }

    def _vela(self, file: Artifact) -> dict[str, float]:
        try:
            report = vela(file, self.accelerator)
        except ValueError as error:  # the compiler can't take the file
            raise NotOnDevice(str(error)) from error
        if not report.npu_operators:
            raise NotOnDevice(
                f"{self.accelerator} runs none of the file's {len(report.cpu_operators)} operators"
            )
        memory = report.memory
        return {
            "vela_ms": report.inference_ms,
            "vela_cycles": float(report.cycles.total),
            "vela_sram_bytes": float(memory.sram),
            "vela_flash_bytes": float(memory.on_chip_flash + memory.off_chip_flash),
            "vela_cpu_operators": float(len(report.cpu_operators)),
        }


def _delegated_share(file: Artifact) -> float:
    share = delegation(file, gpu_faults).largest_share  # the delegate takes one part
    if share is None:
        raise NotOnDevice("the multiply-accumulates of the file can't be counted")
    return share
