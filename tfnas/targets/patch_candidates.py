"""The plans of patches of a file, and the choice among them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator

from tfnas.runtime.failed_work import FailedWork
from tfnas.targets.tflite_micro.interpreter import planned_arena
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.patches.patch_cost import (
    least_records,
    operators_macs,
    peak_bytes,
    plan_macs,
    record_bytes,
    stage_bounds,
)
from tfnas.tflite.patches.patch_plan import PatchPlan, plan, stages
from tfnas.tflite.patches.patch_writer import write_patches
from tfnas.tflite.patches.windows import NotLocal

_GRIDS = ((2, 1), (3, 1), (4, 1), (6, 1), (8, 1), (2, 2), (3, 2), (3, 3), (4, 4), (5, 5), (6, 6))


class NoPatches(FailedWork):
    """A file can't be computed in patches within the limits; the message says why."""


@dataclasses.dataclass(frozen=True)
class PatchLimits:
    """What patches may cost.

    Args:
        max_macs_ratio: Most multiply-accumulates, as a multiple of the file's.
        max_ram_bytes: Most bytes of activations; None: as few as possible.
        count_records: Whether the records that patches add count for it.
    """

    max_macs_ratio: float
    max_ram_bytes: int | None = None
    count_records: bool = False


class PatchCandidate:
    """A plan with its costs; the file and its arena are made when they are asked for.

    Args:
        artifact: The file.
        plan: The plan.
        macs: The plan's multiply-accumulates.
        counts: Whether the records that it adds count for the limit.
    """

    def __init__(self, artifact: Artifact, plan: PatchPlan, macs: int, counts: bool) -> None:
        self._artifact, self.plan, self.macs = artifact, plan, macs
        graph = artifact.graph
        self.records = before, after = record_bytes(graph, plan)
        self._counted = after - before if counts else 0
        self.peak = peak_bytes(graph, plan)

    @property
    def least_ram(self) -> int:
        """What bounds `ram` from below, before the file is written."""
        return self.peak + self._counted

    @property
    def ram(self) -> int:
        """Bytes that count for a limit."""
        return self.arena + self._counted

    @functools.cached_property
    def file(self) -> Artifact:
        """The file, minified: parts of one tensor have equal scales, which it holds once."""
        content = write_patches(self._artifact.content, self.plan)
        return dataclasses.replace(self._artifact, content=content).minified()

    @functools.cached_property
    def arena(self) -> int:
        """Bytes of activations and scratch buffers, as TFLite Micro plans them."""
        return planned_arena(self.file)


def least_memory(artifact: Artifact, limits: PatchLimits, before: int) -> PatchCandidate:
    """Returns the plan of least memory.

    Args:
        artifact: The file.
        limits: The limits.
        before: Bytes of activations of the file.

    Raises:
        NoPatches: None needs less memory than the file; the message says whether more
            multiply-accumulates would help.
    """
    best = _least(candidates(artifact, limits))
    if best is None or best.arena >= before:
        more = _least(candidates(artifact, dataclasses.replace(limits, max_macs_ratio=math.inf)))
        if more is None or more.arena >= before:
            why = "whatever max_macs_ratio is: its operators of windows do not take the most memory"
        else:
            ratio = more.macs / sum(operators_macs(artifact.graph))
            why = (
                f"within max_macs_ratio {limits.max_macs_ratio:g}; one needs {more.arena:,} bytes "
                f"with {ratio:.2f} times the multiply-accumulates"
            )
        raise NoPatches(
            f"file must need less than {before:,} bytes of activations in patches, got none that "
            f"does {why}"
        )
    return best


def _least(allowed: Iterable[PatchCandidate]) -> PatchCandidate | None:
    """The plan of least memory; None: there is none."""
    # Peaks bound arenas from below: few files must be written.
    best: PatchCandidate | None = None
    for each in sorted(allowed, key=lambda each: each.peak + each.records[1]):
        if best is not None and each.peak + each.records[1] >= best.arena + best.records[1]:
            break
        if best is None or each.arena + each.records[1] < best.arena + best.records[1]:
            best = each
    return best


def fewest_macs(artifact: Artifact, limits: PatchLimits) -> PatchCandidate | None:
    """Returns the plan of fewest multiply-accumulates that keeps a limit; None: there is none.

    Args:
        artifact: The file.
        limits: The limits, with one of memory.

    Raises:
        NoPatches: The file has no plan at all.
    """
    assert limits.max_ram_bytes is not None
    found = candidates(artifact, limits)
    for each in sorted(found, key=lambda each: (each.macs, each.records[1])):
        if each.least_ram <= limits.max_ram_bytes and each.ram <= limits.max_ram_bytes:
            return each
    return None


def limit_error(artifact: Artifact, before: int, limits: PatchLimits) -> NoPatches:
    """Returns the error of a limit that no plan keeps, with the nearest.

    Args:
        artifact: The file.
        before: Its bytes of activations.
        limits: The limits.
    """
    of_memory = dataclasses.replace(limits, max_ram_bytes=None)
    least = _nearest(artifact, of_memory, before)
    more = _nearest(artifact, dataclasses.replace(of_memory, max_macs_ratio=math.inf), before)
    where = "of all patches"
    if more < least:
        where = f"at max_macs_ratio {limits.max_macs_ratio:g} (at any, {more:,})"
    return NoPatches(
        f"max_ram_bytes must be at least {least:,}, the least found {where}, got "
        f"{limits.max_ram_bytes:,} (without patches {before:,})"
    )


def _nearest(artifact: Artifact, limits: PatchLimits, before: int) -> int:
    """The least bytes of memory that plans need, by the four that promise most."""
    nearest = sorted(candidates(artifact, limits), key=lambda each: each.least_ram)[:4]
    return min([before, *(each.ram for each in nearest)])


def candidates(artifact: Artifact, limits: PatchLimits) -> Iterator[PatchCandidate]:
    """Returns the plans within a ratio of multiply-accumulates, of stages that may keep a limit.

    Args:
        artifact: The file.
        limits: The limits.

    Raises:
        NoPatches: The file has several inputs, or its first operators are not local.
    """
    if len(artifact.inputs) != 1 or len(artifact.graphs) != 1:
        raise NoPatches(
            f"file must have one input and one graph, got {len(artifact.inputs)} and "
            f"{len(artifact.graphs)}"
        )
    graph = artifact.graph
    try:
        ends = stages(graph)
    except NotLocal as error:
        raise NoPatches(
            f"file must begin with operators of windows, got one that is not: {error}"
        ) from error
    each, bounds = operators_macs(graph), stage_bounds(graph, ends)
    for last in ends:
        for rows, columns in _GRIDS:
            added = least_records(graph, last, rows * columns) if limits.count_records else 0
            if limits.max_ram_bytes is not None and bounds[last] + added > limits.max_ram_bytes:
                continue
            try:
                made = plan(graph, last, rows, columns)
            except NotLocal:  # more patches than rows
                continue
            macs = plan_macs(graph, made, each)
            if macs <= limits.max_macs_ratio * sum(each):
                yield PatchCandidate(artifact, made, macs, limits.count_records)
