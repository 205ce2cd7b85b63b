"""The files of a search in patches, where they need them to keep the limit of its memory.

Patches change no output of a file. So which patches a network has is no decision that a sampler
draws: for each network the plan of fewest multiply-accumulates that keeps the limit is the best
one, and it is found without training (decision 78). It depends on the file's operators alone, so
the file of a network that is trained again has the same patches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from tfnas.measure.measurement import Measurement
from tfnas.nas.metric_directions import Limit
from tfnas.targets.device import Device, NotOnDevice
from tfnas.targets.patch_based import PatchReport, within_ram
from tfnas.tflite.artifact import Artifact

RAM = "ram_bytes"
PATCHES = "patches"
"""Metric of a trial: the number of patches of its file; 1: it has none."""


@dataclasses.dataclass(frozen=True)
class TrialPatches:
    """What decides on the patches of a search's files.

    Example:
        >>> TrialPatches.of(1.5, [Limit("ram_bytes", 65_536, "min")], Device(runtime_ram=20_000))
        TrialPatches(max_ram_bytes=45536, max_macs_ratio=1.5)
        >>> TrialPatches.of(None, [], Device()).used
        False

    Args:
        max_ram_bytes: Most bytes of activations.
        max_macs_ratio: Most multiply-accumulates, as a multiple of those without patches; None:
            files have no patches.
    """

    max_ram_bytes: int = 0
    max_macs_ratio: float | None = None

    @classmethod
    def of(
        cls, max_macs_ratio: float | None, limits: Iterable[Limit], device: Device
    ) -> TrialPatches:
        """Returns what decides on the patches of a search.

        Args:
            max_macs_ratio: The setting of the search; None: files have no patches.
            limits: The limits of the search.
            device: Its device, whose firmware takes a part of the memory.

        Raises:
            ValueError: The search has patches, but no limit that they could keep.
        """
        if max_macs_ratio is None:
            return cls()
        bounds = {limit.name: limit.bound for limit in limits}
        check_ram_limit(max_macs_ratio, bounds)
        return cls(int(bounds[RAM]) - device.runtime_ram, max_macs_ratio)

    @property
    def used(self) -> bool:
        """Whether files may have patches."""
        return self.max_macs_ratio is not None

    def apply(self, file: Artifact) -> tuple[Artifact, PatchReport | None]:
        """Returns a file, in patches where it needs them, and what they changed.

        Args:
            file: The file; it is returned as it is if it keeps the limit, or if no patches do.

        Raises:
            NotOnDevice: The memory of the file can't be planned.
        """
        if self.max_macs_ratio is None:
            return file, None
        try:
            return within_ram(file, self.max_ram_bytes, self.max_macs_ratio)
        except ValueError as error:
            raise NotOnDevice(str(error)) from error

    def metrics(self, report: PatchReport | None) -> dict[str, float]:
        """Returns the metric "patches" of a file; nothing where files have none.

        Args:
            report: What patches changed; None: the file has none.
        """
        count = 1 if report is None else report.patch_rows * report.patch_columns
        return {PATCHES: float(count)} if self.used else {}


def check_ram_limit(patch_macs_ratio: float | None, limits: Iterable[str]) -> None:
    """Checks that a search with patches has a limit that they keep.

    Args:
        patch_macs_ratio: The setting of the search; None: files have no patches.
        limits: Names of metrics with a limit.

    Raises:
        ValueError: It has none.
    """
    if patch_macs_ratio is not None and RAM not in limits:
        raise ValueError(
            f"patch_macs_ratio needs a limit of {RAM}, which patches are for, "
            f"got {patch_macs_ratio!r} without one"
        )


def with_costs(metrics: Mapping[str, float], report: PatchReport | None) -> dict[str, float]:
    """Returns the metrics of a file with what patches add to those of its network.

    Args:
        metrics: "macs" of the network, "ram_bytes" of the file's activations, and any others.
        report: What patches changed; None: the file has none.
    """
    added = {}
    if report is not None:
        records = report.records_after - report.records_before
        added = {"macs": _added_macs(report), RAM: records}
    return {name: value + added.get(name, 0) for name, value in metrics.items()}


def with_patches(measurement: Measurement, report: PatchReport) -> Measurement:
    """Returns the measurement of a file in patches: with their multiply-accumulates, and where.

    Args:
        measurement: The measurement, with the costs of the network.
        report: What patches changed.
    """
    macs = measurement.macs
    return dataclasses.replace(
        measurement,
        macs=None if macs is None else macs + _added_macs(report),
        provenance={**measurement.provenance, PATCHES: report.where},
    )


def _added_macs(report: PatchReport) -> int:
    return report.macs_after - report.macs_before
