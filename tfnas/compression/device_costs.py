"""What candidates take of the device that they are meant for, where limits ask for it."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from typing import Any

from tfnas.compression.budget import Budget, CandidateCosts
from tfnas.runtime.files import write_atomically
from tfnas.search_space.architecture import parse_json_object
from tfnas.targets.device import MICRO, VELA, Device, NotOnDevice
from tfnas.targets.ethos_u import VelaError
from tfnas.tflite.artifact import Artifact


@dataclasses.dataclass(frozen=True)
class Target:
    """A device, and what is asked of it.

    Args:
        device: The device.
        wanted: Its metrics that a budget limits; see :mod:`tfnas.targets.device`.
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
            ValueError: The firmware alone takes all that a limit gives, or the accelerator has no
                such number.
            ImportError: A limit needs a package that is not installed.
        """
        asked = {limit.removeprefix("max_"): bound for limit, bound in budget.limits.items()}
        device.check_room(asked, "max_")
        target = cls(device, tuple(name for name in (*MICRO, *VELA) if name in asked))
        device.check(set(target.wanted))
        return target

    def costs(self, costs: CandidateCosts, file: Artifact, folder: pathlib.Path) -> CandidateCosts:
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
        asked = {
            "device": dataclasses.asdict(self.device),
            "wanted": list(self.wanted),
            "sha256": file.sha256,
        }
        found = parse_json_object(path.read_text(), str(path)) if path.exists() else {}
        kept = {"values", "refused"} <= set(found)
        if not kept or any(found.get(name) != value for name, value in asked.items()):
            found = self._found(file)
            if not found.pop("failed"):
                write_atomically(path, json.dumps(asked | found, indent=1))
        values, refused = found["values"], found["refused"]
        device = {name: math.inf if refused else values[name] for name in self.wanted}
        return dataclasses.replace(costs, device=device, refused=refused)

    def _found(self, file: Artifact) -> dict[str, Any]:
        """What the file takes, or why it can't run; a compiler that failed may yet succeed."""
        try:
            values = self.device.metrics(file, set(self.wanted))
        except (NotOnDevice, VelaError) as error:
            told = " ".join(str(error).split())
            return {"values": {}, "refused": told, "failed": isinstance(error, VelaError)}
        return {"values": values, "refused": "", "failed": False}
