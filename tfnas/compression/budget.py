"""Limits of a compressed model's costs, and by how much a candidate exceeds them."""

from __future__ import annotations

import dataclasses
import math
import numbers
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfnas.runtime.argument_rules import near

if TYPE_CHECKING:
    from tfnas.tasks.assessment import Metric


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
        relative_loss: How much worse it is by the metric, as a fraction of the original's value,
            such as 0.05 for an error that is 5% larger; NaN: not known.
        quality: The metric's value on the examples for choosing; NaN: not known.
        higher_is_better: The metric's direction, which `quality_limit` is compared in.
    """

    drop: float
    bytes: int
    gzip_bytes: int
    latency: float
    macs: float
    memory: int
    device: Mapping[str, float] = dataclasses.field(default_factory=dict)
    refused: str = ""
    relative_loss: float = math.nan
    quality: float = math.nan
    higher_is_better: bool = True

    def value(self, name: str) -> float:
        """Returns a cost by its name.

        Args:
            name: Name of a field, or of a metric of the device.
        """
        return self.device[name] if name in self.device else getattr(self, name)

    def device_losses(self) -> tuple[float, ...]:
        """Returns the costs on the device with the sign changed of those that should be high."""
        return tuple(-v if name in _HIGHER else v for name, v in self.device.items())

    def device_texts(self) -> dict[str, str]:
        """Returns the costs on the device as texts, by metric."""
        if self.refused:
            return dict.fromkeys(self.device, "can't run")
        digits = {name: 4 if name.endswith("_ms") else 0 for name in self.device}
        digits |= {name: 3 for name in self.device if name in _HIGHER}
        return {name: f"{value:,.{digits[name]}f}" for name, value in self.device.items()}


STORED = (
    "bytes",
    "gzip_bytes",
    "flash_bytes",
    "vela_flash_bytes",
)  # costs that fall with each weight
_HIGHER = ("delegated_macs",)  # costs on a device that are shares, the higher the better
QUALITY_LIMITS = ("max_drop", "max_relative_loss", "quality_limit")
_FROM_ZERO = (
    "max_drop",
    "max_vela_cpu_operators",
    "min_delegated_macs",
)  # limits that may be 0: no fraction of them exists
_ABOVE_ZERO = math.nextafter(0.0, 1.0)
_RULES = {  # limit -> the least value, and the rule in words
    "quality_limit": (-math.inf, "a finite number"),
    **dict.fromkeys(_FROM_ZERO, (0.0, "a finite number >= 0")),
}


def cost_of_limit(limit: str) -> str:
    """Returns the name of the cost that a limit is on.

    Example:
        >>> cost_of_limit("max_bytes"), cost_of_limit("max_latency_ratio")
        ('bytes', 'latency')
        >>> cost_of_limit("quality_limit")
        'quality'

    Args:
        limit: Name of a field of :class:`Budget`.
    """
    return (
        limit.removeprefix("max_")
        .removeprefix("min_")
        .removesuffix("_ratio")
        .removesuffix("_limit")
    )


def relative_loss(quality: float, baseline: float, higher_is_better: bool) -> float:
    """Returns how much worse a value is, as a fraction of the original's.

    Example:
        >>> round(relative_loss(0.21, 0.2, higher_is_better=False), 6)
        0.05

    Args:
        quality: The metric's value.
        baseline: That of the original. Of a baseline of 0 every loss is infinitely more.
        higher_is_better: The metric's direction.
    """
    worse = baseline - quality if higher_is_better else quality - baseline
    if baseline:
        return worse / abs(baseline)
    return math.copysign(math.inf, worse) if worse else 0.0


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
        max_drop: Most that may be lost, in points for shares such as an accuracy (90% to 89% is 1
            point), for other metrics in their unit.
        max_relative_loss: Most that may be lost, as a fraction of the original's value, for metrics
            that are no shares: 0.05 allows an error that is 5% larger, or 5% less of an R2.
        quality_limit: Worst value of the metric on the examples for choosing, the least where
            higher is better, else the most.
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
        min_delegated_macs: Least share of multiply-accumulates that TFLite's GPU delegate is
            predicted to take, up to 1; see :func:`tfnas.readiness`.

    Raises:
        ValueError: A limit is no number above 0 (max_drop, max_vela_cpu_operators and
            min_delegated_macs: from 0 on; quality_limit: any finite number), or no limit is set.
    """

    max_drop: float | None = None
    max_relative_loss: float | None = None
    quality_limit: float | None = None
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
    min_delegated_macs: float | None = None

    def __post_init__(self) -> None:
        if not self.limits:
            names = ", ".join(field.name for field in dataclasses.fields(self))
            raise ValueError(f"budget must hold at least one of {names}, got none")
        for name, value in self.limits.items():
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            least, rule = _RULES.get(name, (_ABOVE_ZERO, "a finite number above 0"))
            if not (number and abs(value) <= sys.float_info.max and value >= least):
                raise ValueError(f"{name} must be {rule}, got {value!r}")
        for name in ("max_macs", "min_delegated_macs"):
            if name in self.limits and self.limits[name] > 1:
                raise ValueError(f"{name} must be a fraction up to 1, got {self.limits[name]!r}")

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
                f"{near(str(unknown[0]), known)}"
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

        Those of max_drop, quality_limit, max_vela_cpu_operators and min_delegated_macs are in the
        metric's unit, as a value of the metric, in operators and as a share, since these limits may
        be 0.

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
            over = value - limit
            highest = name == "quality_limit" and costs.higher_is_better
            if highest or name.startswith("min_"):
                over = -over
            if math.isnan(value):
                found[name] = math.inf
            elif over > 0:
                found[name] = over if name in _RULES else value / limit - 1
        return found

    @property
    def limits_quality(self) -> bool:
        """Whether a limit on the quality is set."""
        return any(getattr(self, name) is not None for name in QUALITY_LIMITS)

    def allowed_drop(self, metric: Metric, baseline: float) -> float | None:
        """Returns the strictest of the limits on quality as a drop in the metric's unit.

        Example:
            >>> from tfnas.tasks.assessment import Metric
            >>> error = Metric("error", higher_is_better=False, unit="m")
            >>> Budget(max_relative_loss=0.5).allowed_drop(error, 4.0)
            2.0
            >>> Budget(max_drop=3.0, quality_limit=5.0).allowed_drop(error, 4.0)
            1.0

        Args:
            metric: The task's metric.
            baseline: Its value of the original on the examples for choosing, not scaled.

        Returns:
            The largest drop that is allowed, below 0 where the original itself is not good enough;
            None where no limit is on the quality.
        """
        allowed = []
        if self.max_drop is not None:
            allowed.append(float(self.max_drop))
        if self.max_relative_loss is not None:
            allowed.append(self.max_relative_loss * abs(baseline) * metric.scale)
        if self.quality_limit is not None:
            allowed.append(metric.drop(self.quality_limit - baseline))
        return min(allowed, default=None)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:,}" for name, value in self.limits.items())
