"""What candidates take of the device that they are meant for, where limits ask for it."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from typing import Any

from tfnas.architecture import parse_json_object
from tfnas.bench.device import MICRO, VELA, Device, NotOnDevice
from tfnas.export.artifact import Artifact
from tfnas.files import write_atomically
from tfnas.pipeline.budget import Budget, Costs

_RUNTIMES = {"max_flash_bytes": "runtime_flash", "max_ram_bytes": "runtime_ram"}


@dataclasses.dataclass(frozen=True)
class Target:
    """A device, and what is asked of it.

    Args:
        device: The device.
        wanted: Its metrics that a budget limits; see :mod:`tfnas.bench.device`.
    """

    device: Device = dataclasses.field(default_factory=Device)
    wanted: tuple[str, ...] = ()

    @classmethod
    def of(cls, budget: Budget, device: Device) -> Target:
        """Returns what a budget asks of a device.

        Args:
            budget: The limits.
            device: The device.

        Raises:
            ValueError: The firmware alone takes all that a limit gives.
            ImportError: A limit needs a package that is not installed.
        """
        for limit, name in _RUNTIMES.items():
            most, taken = budget.limits.get(limit, math.inf), getattr(device, name)
            if most <= taken:
                raise ValueError(f"{limit} must be above {name}, {taken:,} bytes, got {most:,}")
        asked = {limit.removeprefix("max_") for limit in budget.limits}
        target = cls(device, tuple(name for name in (*MICRO, *VELA) if name in asked))
        device.check(set(target.wanted))
        return target

    def costs(self, costs: Costs, file: Artifact, folder: pathlib.Path) -> Costs:
        """Returns a file's costs with what it takes of the device.

        A file that the device can't run takes more than any limit, and the reason is told.

        Args:
            costs: The others.
            file: The file.
            folder: Where `device.json` keeps what was found, for the same question.
        """
        if not self.wanted:
            return costs
        path = folder / "device.json"
        asked = {"device": dataclasses.asdict(self.device), "wanted": list(self.wanted)}
        found = parse_json_object(path.read_text(), str(path)) if path.exists() else {}
        if any(found.get(name) != value for name, value in asked.items()):
            found = asked | self._found(file)
            write_atomically(path, json.dumps(found, indent=1))
        values, refused = found["values"], found["refused"]
        device = {name: math.inf if refused else values[name] for name in self.wanted}
        return dataclasses.replace(costs, device=device, refused=refused)

    def _found(self, file: Artifact) -> dict[str, Any]:
        try:
            return {"values": self.device.metrics(file, set(self.wanted)), "refused": ""}
        except (NotOnDevice, RuntimeError) as error:  # the compiler fails on some files
            return {"values": {}, "refused": " ".join(str(error).split())}
