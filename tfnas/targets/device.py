"""What a file takes of a device, as metrics: flash, RAM, an accelerator's numbers.

| metric               | what it is                                              | before training |
|----------------------|---------------------------------------------------------|-----------------|
| `flash_bytes`        | the file, and what the firmware takes beside it         | yes             |
| `ram_bytes`          | the arena as planned for TFLite Micro, and the firmware's | yes           |
| `vela_sram_bytes`    | SRAM of the accelerator's part                          | yes             |
| `vela_cpu_operators` | operators that the accelerator leaves to the processor  | yes             |
| `vela_flash_bytes`   | weights as the compiler encodes them, in either flash   | no              |
| `vela_cycles`        | clock cycles of the accelerator's part                  | no              |
| `vela_ms`            | the same in ms                                          | no              |

The plan of the arena follows from the file alone (:func:`tfnas.planned_arena`); what the
program, the interpreter and its records take depends on device and compiler: tell it once, as
`runtime_flash` and `runtime_ram`. Numbers of the accelerator are its compiler's estimates
(:func:`tfnas.vela`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from typing import Any

from tfnas.targets.ethos_u import ACCELERATORS, check_package, vela
from tfnas.targets.tflite_micro.interpreter import planned_arena
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.operator_rules.tflite_micro import check_micro

MICRO = ("flash_bytes", "ram_bytes")
VELA = (
    *("vela_ms", "vela_cycles", "vela_sram_bytes", "vela_flash_bytes"),
    "vela_cpu_operators",
)
_WEIGHTS_IN_DRAM = ("ethos-u65", "ethos-u85")  # in the compiler's own memory mode for them
UNTRAINED = frozenset({*MICRO, "vela_sram_bytes", "vela_cpu_operators"})


class NotOnDevice(ValueError):
    """A file that the device can't run, whatever it learns; the message says why."""


@dataclasses.dataclass(frozen=True)
class Device:
    """What files are meant for.

    Args:
        accelerator: The NPU of the `vela_` metrics, such as "ethos-u55-128".
        runtime_flash: Bytes of flash that the firmware takes beside the file.
        runtime_ram: Bytes of RAM that it takes beside the activations.

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

    def check(self, wanted: Set[str]) -> None:
        """Raises unless all of the wanted metrics can be told.

        Args:
            wanted: Names of metrics.

        Raises:
            ImportError: They need a package that is not installed.
            ValueError: The accelerator has no such number.
        """
        if wanted & set(VELA):
            check_package()
        if "vela_flash_bytes" in wanted and self.accelerator.startswith(_WEIGHTS_IN_DRAM):
            raise ValueError(
                "vela_flash_bytes must be asked of an accelerator whose weights lie in flash "
                f"(an ethos-u55), got {self.accelerator}, whose compiler has them in DRAM"
            )

    def check_room(self, limits: Mapping[str, float], prefix: str = "") -> None:
        """Raises unless each limit leaves room beside the firmware.

        Args:
            limits: Metric -> its bound.
            prefix: What limits are called before the metric's name, for the message.

        Raises:
            ValueError: The firmware alone takes all that a limit gives.
        """
        for metric, name in (("flash_bytes", "runtime_flash"), ("ram_bytes", "runtime_ram")):
            taken, most = getattr(self, name), limits.get(metric)
            if most is not None and most <= taken:
                raise ValueError(
                    f"{prefix}{metric} must be above {name}, {taken:,} bytes, got {most:,g}"
                )

    def metrics(self, file: Artifact, wanted: Set[str]) -> dict[str, float]:
        """Returns those of the wanted metrics that are a device's.

        Args:
            file: The file.
            wanted: Names of metrics; others than a device's are ignored.

        Raises:
            NotOnDevice: TFLite Micro has no kernel for an operator, or can't plan its memory;
                or the accelerator runs none of the file, so that its numbers are all 0.
            VelaError: The accelerator's compiler failed.
        """
        found: dict[str, float] = {}
        if wanted & set(MICRO):
            found |= self._micro(file)
        if wanted & set(VELA):
            found |= self._vela(file)
        return {name: value for name, value in found.items() if name in wanted}

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
            report: Any = vela(file, self.accelerator)
        except ValueError as error:  # no file for it
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
