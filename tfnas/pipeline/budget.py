"""What a compressed model may cost, and how far a candidate is from it."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

from tfnas.architecture import check_keys


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a file costs, beside the original's float32 file.

    Args:
        drop: Points of accuracy lost, (accuracy of the original - its own) x 100.
        bytes: Size of the file.
        gzip_bytes: Size of the file after gzip.
        latency: Time of an inference, as a ratio to the original's float32 file.
        macs: Multiply-accumulates, as a share of the original's.
        memory: Most bytes of activations alive at once.
    """

    drop: float
    bytes: int
    gzip_bytes: int
    latency: float
    macs: float
    memory: int


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits that a compressed model shall keep; None: no limit.

    Example:
        >>> Budget.of({"max_drop": 1.0, "max_bytes": 100_000}).max_bytes
        100000

    Args:
        max_drop: Most points of accuracy that may be lost.
        max_bytes: Most bytes of the file.
        max_gzip_bytes: Most bytes of the file after gzip.
        max_latency: Most time, as a ratio to the original's float32 file on this machine.
        max_macs: Most multiply-accumulates, as a share of the original's, up to 1.
        max_memory: Most bytes of activations alive at once.

    Raises:
        ValueError: A limit is no number above 0 (max_drop: from 0 on), or none is given.
    """

    max_drop: float | None = None
    max_bytes: int | None = None
    max_gzip_bytes: int | None = None
    max_latency: float | None = None
    max_macs: float | None = None
    max_memory: int | None = None

    def __post_init__(self) -> None:
        if not self.limits:
            names = ", ".join(field.name for field in dataclasses.fields(self))
            raise ValueError(f"budget must hold at least one of {names}, got none")
        for name, value in self.limits.items():
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            least = name == "max_drop" and number and value == 0
            if not (number and value < math.inf and (value > 0 or least)):
                raise ValueError(f"{name} must be a number above 0, got {value!r}")
        if self.max_macs is not None and self.max_macs > 1:
            raise ValueError(f"max_macs must be a share up to 1, got {self.max_macs!r}")

    @classmethod
    def of(cls, given: Budget | Mapping[str, Any]) -> Budget:
        """Returns the budget that a dictionary describes; a budget as it is.

        Raises:
            ValueError: A key is unknown, or a limit is outside its rule.
        """
        if isinstance(given, Budget):
            return given
        if not isinstance(given, Mapping):
            raise ValueError(f"budget must be a Budget or a dictionary, got {given!r}")
        check_keys(cls, given)
        return cls(**given)

    @property
    def limits(self) -> dict[str, Any]:
        """Limit -> value, those that are given."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None}

    def excesses(self, costs: Costs) -> dict[str, float]:
        """Returns each limit that is not kept, and by how much as a share of it.

        The drop's excess is in points, since its limit may be 0.

        Example:
            >>> costs = Costs(0.5, 200, 100, 0.5, 1.0, 10)
            >>> Budget(max_drop=1.0, max_bytes=100).excesses(costs)
            {'max_bytes': 1.0}
        """
        found = {}
        for name, limit in self.limits.items():
            value = getattr(costs, name.removeprefix("max_"))
            if value > limit:
                found[name] = value - limit if name == "max_drop" else value / limit - 1
        return found

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:,}" for name, value in self.limits.items())
