"""Limits of a compressed model's costs, and by how much a candidate exceeds them."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class CandidateCosts:
    """Costs of a file, compared with the original's float32 file.

    Args:
        drop: How much worse it is by the task's metric, in the metric's unit: for an accuracy
            points, (accuracy of the original - its own) x 100.
        bytes: Size of the file.
        gzip_bytes: Size of the file after gzip.
        latency: Latency, as a ratio to the original's float32 file.
        macs: Multiply-accumulates, as a fraction of the original's.
        memory: Most bytes of activations alive at once.
        device: Metric of :mod:`tfnas.targets.device` -> its value, of limited metrics only;
            infinite where the device can't run the file.
        refused: Why the device can't run the file; empty where it can or has no limits.
    """

    drop: float
    bytes: int
    gzip_bytes: int
    latency: float
    macs: float
    memory: int
    device: Mapping[str, float] = dataclasses.field(default_factory=dict)
    refused: str = ""

    def value(self, name: str) -> float:
        """Returns a cost by its name.

        Args:
            name: Name of a field, or of a metric of the device.
        """
        return self.device[name] if name in self.device else getattr(self, name)

    def device_texts(self) -> dict[str, str]:
        """Returns the costs on the device as texts, by metric."""
        if self.refused:
            return dict.fromkeys(self.device, "can't run")
        digits = {name: 4 if name.endswith("_ms") else 0 for name in self.device}
        return {name: f"{value:,.{digits[name]}f}" for name, value in self.device.items()}


STORED = (
    "bytes",
    "gzip_bytes",
    "flash_bytes",
    "vela_flash_bytes",
)  # costs that fall with each weight
_FROM_ZERO = (
    "max_drop",
    "max_vela_cpu_operators",
)  # limits that may be 0: no fraction of them exists


def cost_of_limit(limit: str) -> str:
    """Returns the name of the cost that a limit is on.

    Example:
        >>> cost_of_limit("max_bytes"), cost_of_limit("max_latency_ratio")
        ('bytes', 'latency')

    Args:
        limit: Name of a field of :class:`Budget`.
    """
    return limit.removeprefix("max_").removesuffix("_ratio")


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits that :func:`tfnas.compress` keeps a model's quality, size and speed within.

    A limit that is None does not count; at least one must be set.

    Example:
        >>> import tfnas
        >>> budget = tfnas.Budget(max_drop=1.0, max_bytes=100_000)
        >>> print(budget)
        max_drop 1.0, max_bytes 100,000
        >>> budget.limits
        {'max_drop': 1.0, 'max_bytes': 100000}
        >>> print(tfnas.Budget.of({"max_macs": 0.5}))  # half of the multiply-accumulates
        max_macs 0.5

    Args:
        max_drop: Most that may be lost, in the unit of the task's metric: points for an accuracy;
            from 90% to 89% is 1 point.
        max_bytes: Most bytes of the file.
        max_gzip_bytes: Most bytes of the file after gzip.
        max_latency_ratio: Highest latency on this machine, as a ratio to the original's float32
            file.
        max_macs: Most multiply-accumulates, as a fraction of the original's, up to 1.
        max_memory: Most bytes of activations alive at once.
        max_flash_bytes: Most bytes of a microcontroller's flash, file and firmware.
        max_ram_bytes: Most bytes of its RAM, for TFLite Micro's planned arena and the firmware.
        max_vela_ms: Most ms of an accelerator's part of an inference, as its compiler estimates.
        max_vela_cycles: Most clock cycles of that part.
        max_vela_sram_bytes: Most bytes of SRAM of that part.
        max_vela_flash_bytes: Most bytes of flash of that part, with encoded weights.
        max_vela_cpu_operators: Most operators that the accelerator leaves to the processor.

    Raises:
        ValueError: A limit is no number above 0 (max_drop and max_vela_cpu_operators: from 0
            on), or no limit is set.
    """

    max_drop: float | None = None
    max_bytes: int | None = None
    max_gzip_bytes: int | None = None
    max_latency_ratio: float | None = None
    max_macs: float | None = None
    max_memory: int | None = None
    max_flash_bytes: int | None = None
    max_ram_bytes: int | None = None
    max_vela_ms: float | None = None
    max_vela_cycles: float | None = None
    max_vela_sram_bytes: int | None = None
    max_vela_flash_bytes: int | None = None
    max_vela_cpu_operators: int | None = None

    def __post_init__(self) -> None:
        if not self.limits:
            names = ", ".join(field.name for field in dataclasses.fields(self))
            raise ValueError(f"budget must hold at least one of {names}, got none")
        for name, value in self.limits.items():
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            zero = name in _FROM_ZERO
            if not (number and value < math.inf and (value > 0 or (zero and value == 0))):
                rule = "a finite number >= 0" if zero else "a finite number above 0"
                raise ValueError(f"{name} must be {rule}, got {value!r}")
        if self.max_macs is not None and self.max_macs > 1:
            raise ValueError(f"max_macs must be a fraction up to 1, got {self.max_macs!r}")

    @classmethod
    def of(cls, budget: Budget | Mapping[str, Any]) -> Budget:
        """Returns a budget from a dictionary of limits; a budget is returned as it is.

        Example:
            >>> Budget.of({"max_drop": 1.0, "max_bytes": 100_000}).max_bytes
            100000

        Args:
            budget: A budget, or limit -> value.

        Returns:
            The budget.

        Raises:
            ValueError: A key is unknown, or a limit is outside its rule.
        """
        if isinstance(budget, Budget):
            return budget
        if not isinstance(budget, Mapping):
            raise ValueError(f"budget must be a Budget or a dictionary, got {budget!r}")
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := [key for key in budget if key not in known]:
            raise ValueError(
                f"budget must hold limits of {', '.join(known)}, got {', '.join(map(str, unknown))}"
            )
        return cls(**budget)

    @property
    def limits(self) -> dict[str, float]:
        """Limit -> value, of the limits that are set.

        Example:
            >>> Budget(max_drop=1.0).limits
            {'max_drop': 1.0}
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None}

    def excesses(self, costs: CandidateCosts) -> dict[str, float]:
        """Returns each exceeded limit, and by which fraction of it.

        Excesses of max_drop and max_vela_cpu_operators are in the metric's unit and in operators,
        since these limits may be 0.

        Example:
            >>> costs = CandidateCosts(0.5, 200, 100, 0.5, 1.0, 10)
            >>> Budget(max_drop=1.0, max_bytes=100).excesses(costs)
            {'max_bytes': 1.0}

        Args:
            costs: The costs of a candidate.

        Returns:
            Limit -> excess; empty where the budget is kept.
        """
        found: dict[str, float] = {}
        for name, limit in self.limits.items():
            value = costs.value(cost_of_limit(name))
            if math.isnan(value):
                found[name] = math.inf
            elif value > limit:
                found[name] = value - limit if name in _FROM_ZERO else value / limit - 1
        return found

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:,}" for name, value in self.limits.items())
