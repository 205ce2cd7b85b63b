"""Costs of candidates on a device, such as flash and RAM, where a budget limits them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

from tfnas.compression.budget import Budget, CandidateCosts, cost_of_limit
from tfnas.measure.elsewhere.timing_device import TimingDevice
from tfnas.runtime.files import write_atomically
from tfnas.runtime.store import damage_named, read_json_object
from tfnas.targets.device import ON_DEVICE, Device, NotOnDevice, worst
from tfnas.targets.ethos_u import VelaError
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.delegation import delegation
from tfnas.tflite.gpu_forms.gpu_form import GpuFit, check_fit_for, fitted_for
from tfnas.tflite.operator_rules.gpu_delegate import gpu_faults


@dataclasses.dataclass(frozen=True)
class Target:
    """A device and its metrics that a budget limits.

    Args:
        device: The device.
        metrics: Names of the limited metrics; see :mod:`tfnas.targets.device`.
        fit_for: What files are rewritten for, as in :func:`tfnas.to_tflite`.
        measure_on: The device that latencies are measured on; None: this machine.
    """

    device: Device = dataclasses.field(default_factory=Device)
    metrics: tuple[str, ...] = ()
    fit_for: str | None = None
    measure_on: TimingDevice | None = None

    @classmethod
    def of(
        cls,
        budget: Budget,
        device: Device,
        fit_for: str | None = None,
        measure_on: TimingDevice | None = None,
    ) -> Target:
        """Returns a device with the metrics that a budget limits.

        Args:
            budget: The limits.
            device: The device.
            fit_for: What files are rewritten for.
            measure_on: The device that latencies are measured on; None: this machine.

        Raises:
            ValueError: The firmware alone exceeds a limit, the accelerator has no such metric, or
                files can't be rewritten for `fit_for`.
            ImportError: A limit needs a package that is not installed.
        """
        bounds = {cost_of_limit(limit): bound for limit, bound in budget.limits.items()}
        device.check_room(bounds, "max_")
        if fit_for is not None:
            check_fit_for(fit_for)
        metrics = tuple(name for name in ON_DEVICE if name in bounds)
        target = cls(device, metrics, fit_for, measure_on)
        device.check(set(target.metrics))
        return target

    def fitted(self, file: Artifact, report: Callable[[str], None]) -> Artifact:
        """Returns a file in the operators that the device takes, minified.

        Args:
            file: The file.
            report: Receives what was rewritten.
        """
        file = fitted_for(file, self.fit_for).minified()
        if self.fit_for is not None:
            report(f"  for the GPU delegate: {file.origin['fit_for']['summary']}")
        return file

    def costs(self, costs: CandidateCosts, file: Artifact, folder: pathlib.Path) -> CandidateCosts:
        """Returns a file's costs with those on the device.

        Where the device can't run the file these are infinite, and `refused` has the reason.

        Args:
            costs: The other costs.
            file: The file.
            folder: Folder of `device.json`, which keeps the costs of this file on this device.
        """
        if not self.metrics:
            return costs
        path = folder / "device.json"
        key = {
            "device": dataclasses.asdict(self.device),
            "wanted": list(self.metrics),
            "sha256": file.sha256,
        }
        found = read_json_object(path, "cost on a device") if path.exists() else {}
        complete = {"values", "refused"} <= set(found)
        if not complete or any(found.get(name) != value for name, value in key.items()):
            found = self._measure(file)
            if not found.pop("failed"):
                write_atomically(path, json.dumps(key | found, indent=1))
        with damage_named(path, "cost on a device"):
            values, refused = found["values"], str(found["refused"])
            device = {n: worst(n) if refused else float(values[n]) for n in self.metrics}
        return dataclasses.replace(costs, device=device, refused=refused)

    def _measure(self, file: Artifact) -> dict[str, Any]:
        """Returns the metrics of a file, or why the device can't run it.

        A failure of the compiler is not kept on disk: it may succeed another time.
        """
        try:
            values = self.device.metrics(file, set(self.metrics))
        except (NotOnDevice, VelaError) as error:
            reason = " ".join(str(error).split())
            return {"values": {}, "refused": reason, "failed": isinstance(error, VelaError)}
        return {"values": values, "refused": "", "failed": False}


def target_notes(target: Target, file: Artifact) -> tuple[str, ...]:
    """Returns what a report says of the chosen file on an accelerator that files are rewritten for.

    Args:
        target: The device.
        file: The chosen file.
    """
    if target.fit_for is None:
        return ()
    taken = delegation(file, gpu_faults)
    return (f"the chosen file on the GPU delegate, as predicted: {GpuFit(taken, taken)}",)
