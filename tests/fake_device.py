"""A device that times files without running them, for tests of what measures on devices."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from tfnas.measure.elsewhere.timing_device import DeviceTimes, TimingDevice


@dataclasses.dataclass(frozen=True)
class FakeDevice(TimingDevice):
    """The time of a file is its place in the call, and errors come first, one in each call."""

    errors: list[Any] = dataclasses.field(default_factory=list)
    calls: list[Any] = dataclasses.field(default_factory=list, compare=False)

    kind: ClassVar[str] = "fake"

    def __str__(self):
        return "fake:1"

    def check(self):
        return "a fake device"

    def times(self, files, plan):
        self.calls.append((files, plan))
        if self.errors:
            raise self.errors.pop(0)
        seconds = np.arange(1, len(files) + 1) / 1000
        return DeviceTimes(np.tile(seconds, (plan.rounds, 1)), "a fake device")
