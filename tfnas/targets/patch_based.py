"""Patch-based inference: a file that needs less memory, and computes the same.

In most convolutional networks the first operators need most of the memory, since images are
largest there. Their output is small again. So that output is computed in patches: only one patch
of the large images is in memory at a time. Neighboring patches overlap, and what overlaps is
computed twice: memory is paid for in multiply-accumulates.

The file stays an ordinary `.tflite` file of standard operators: no special engine is needed. Each
number is computed from the same numbers as before, with the same scales, so outputs are equal.

References:
    Lin et al., "MCUNetV2: Memory-Efficient Patch-based Inference for Tiny Deep Learning",
    NeurIPS 2021.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os

from tfnas.table import Tabular, TextTable
from tfnas.targets.patch_candidates import (
    NoPatches,
    PatchCandidate,
    PatchLimits,
    fewest_macs,
    least_memory,
    limit_error,
)
from tfnas.targets.tflite_micro.interpreter import planned_arena
from tfnas.tflite.artifact import Artifact, as_artifact
from tfnas.tflite.patches.patch_cost import operators_macs

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, repr=False)
class PatchReport(Tabular):
    """What patches changed. Prints as a table.

    Example:
        >>> import keras, tfnas
        >>> layers = [keras.Input(batch_shape=(1, 32, 32, 3)), keras.layers.Conv2D(16, 3),
        ...     keras.layers.Conv2D(4, 3, strides=4)]
        >>> _, report = tfnas.patch_based(tfnas.to_tflite(keras.Sequential(layers)))
        >>> report.arena_after < report.arena_before
        True

    Args:
        layer: The layer whose output is computed in patches, with all before it.
        operators: Number of the operators that patches compute.
        patch_rows: Patches one below the other.
        patch_columns: Patches side by side.
        arena_before: Bytes of activations as TFLite Micro plans them, without patches; see
            :func:`tfnas.planned_arena`.
        arena_after: The same with patches.
        macs_before: Multiply-accumulates of an example without patches.
        macs_after: The same with patches.
        bytes_before: Size of the file without patches.
        bytes_after: Size of the file with patches.
        records_before: About how many bytes TFLite Micro keeps on these operators, on a processor
            of 32 bits, without patches.
        records_after: The same with patches.
    """

    layer: str
    operators: int
    patch_rows: int
    patch_columns: int
    arena_before: int
    arena_after: int
    macs_before: int
    macs_after: int
    bytes_before: int
    bytes_after: int
    records_before: int
    records_after: int

    def tables(self) -> list[TextTable]:
        """Returns memory, multiply-accumulates and bytes before and after."""
        pairs = {
            "arena of activations, bytes": (self.arena_before, self.arena_after),
            "records of operators, bytes": (self.records_before, self.records_after),
            "both, bytes": (self.ram_before, self.ram_after),
            "MACs": (self.macs_before, self.macs_after),
            "file, bytes": (self.bytes_before, self.bytes_after),
        }
        rows = [
            [name, f"{before:,}", f"{after:,}", f"{after / max(before, 1):.3f}"]
            for name, (before, after) in pairs.items()
        ]
        title = f"{self.where}, of the first {self.operators} operators"
        return [TextTable(["", "before", "after", "ratio"], rows, title=title)]

    @property
    def ram_before(self) -> int:
        """Bytes of activations and of records without patches."""
        return self.arena_before + self.records_before

    @property
    def ram_after(self) -> int:
        """The same with patches."""
        return self.arena_after + self.records_after

    @property
    def where(self) -> str:
        """The patches in words: "3x3 patches of stem"."""
        return f"{self.patch_rows}x{self.patch_columns} patches of {self.layer}"


def patch_based(
    file: Artifact | str | os.PathLike[str],
    max_ram_bytes: int | None = None,
    *,
    max_macs_ratio: float = 1.5,
    count_records: bool = False,
) -> tuple[Artifact, PatchReport]:
    """Returns a file whose first operators compute in patches, for less memory.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> conv = keras.layers.Conv2D
        >>> model = keras.Sequential([keras.Input(batch_shape=(1, 32, 32, 3)), conv(16, 3),
        ...     conv(16, 3, strides=2), conv(8, 3, strides=2), keras.layers.Flatten()])
        >>> file = tfnas.to_tflite(model)
        >>> smaller, report = tfnas.patch_based(file)
        >>> report.arena_after < 0.6 * report.arena_before
        True
        >>> x = np.ones((1, 32, 32, 3), "float32")
        >>> bool(np.allclose(smaller.predict(x), file.predict(x), atol=1e-5))
        True

    Args:
        file: An artifact or the path of a file whose input is an image (batch, height, width,
            channels).
        max_ram_bytes: Most bytes of activations, as TFLite Micro plans them for a batch of 1
            (:func:`tfnas.planned_arena`). Of all plans that keep it, the one with the fewest
            multiply-accumulates is taken. None: the plan with the least memory, where the records
            that TFLite Micro has of each operator count too: more patches are more operators.
        max_macs_ratio: Most multiply-accumulates, as a multiple of the file's.
        count_records: Whether the records that patches add (`records_after` - `records_before` of
            the report) count for `max_ram_bytes`, as in a search.

    Returns:
        The new file, and what changed. Outputs are equal on the same kernels; kernels of floats
        may add in another order.

    Raises:
        ValueError: An argument is out of range, the file's first operators are not local, or no
            plan keeps the limits; the message names the nearest.

    References:
        Lin et al., "MCUNetV2", NeurIPS 2021.
    """
    check_bounds(max_ram_bytes, max_macs_ratio)
    if not isinstance(count_records, bool):
        raise ValueError(f"count_records must be True or False, got {count_records!r}")
    artifact = as_artifact(file)
    before = planned_arena(artifact)
    if max_ram_bytes is None:
        least = least_memory(artifact, PatchLimits(max_macs_ratio), before)
        made, report = _reported(artifact, least, before)
        if report.ram_after >= report.ram_before:
            raise NoPatches(
                f"file must take less memory in patches, got {report.ram_after:,} bytes of "
                "activations and of the records of the operators that patches add at least, and "
                f"{report.ram_before:,} without patches"
            )
        return made, report
    if before <= max_ram_bytes:
        raise NoPatches(
            f"max_ram_bytes must be below the {before:,} bytes that the file's activations take "
            f"without patches, got {max_ram_bytes:,}, which it keeps already"
        )
    limits = PatchLimits(max_macs_ratio, max_ram_bytes, count_records)
    chosen = fewest_macs(artifact, limits)
    if chosen is None:
        raise limit_error(artifact, before, limits)
    made, report = _reported(artifact, chosen, before)
    if report.ram_after >= report.ram_before:
        _LOG.warning(
            "%s: activations and records of operators take %s bytes, %s without patches; "
            "count_records=True counts the records that patches add for max_ram_bytes",
            *(report.where, f"{report.ram_after:,}", f"{report.ram_before:,}"),
        )
    return made, report


def within_ram(
    file: Artifact, max_ram_bytes: int, max_macs_ratio: float
) -> tuple[Artifact, PatchReport | None]:
    """Returns a file in patches if it needs them to keep a limit, and what they changed.

    A file that keeps the limit, or that no patches bring below it, is returned as it is, with None.
    The records that patches add count: the memory of the firmware, which the limit leaves out, is
    known of a file without patches.

    Example:
        >>> import keras, tfnas
        >>> layers = [keras.Input(batch_shape=(1, 32, 32, 3)), keras.layers.Conv2D(16, 3),
        ...     keras.layers.Conv2D(4, 3, strides=4)]
        >>> file = tfnas.to_tflite(keras.Sequential(layers))
        >>> within_ram(file, 100_000, 1.5)[1] is None
        True
        >>> within_ram(file, 40_000, 1.5)[1].arena_after <= 40_000
        True

    Args:
        file: The file.
        max_ram_bytes: As in :func:`patch_based`.
        max_macs_ratio: As in :func:`patch_based`.

    Raises:
        ValueError: A tensor of the file has an open shape or an element type of unknown size.
    """
    before = planned_arena(file)
    if before <= max_ram_bytes:
        return file, None
    try:
        chosen = fewest_macs(file, PatchLimits(max_macs_ratio, max_ram_bytes, count_records=True))
    except NoPatches:
        return file, None
    return (file, None) if chosen is None else _reported(file, chosen, before)


def _reported(
    artifact: Artifact, chosen: PatchCandidate, before: int
) -> tuple[Artifact, PatchReport]:
    """The file of a plan, and what it changed."""
    graph, plan = artifact.graph, chosen.plan
    report = PatchReport(
        graph.operators[plan.last].layer,
        plan.last + 1,
        plan.rows,
        plan.columns,
        before,
        chosen.arena,
        sum(operators_macs(graph)),
        chosen.macs,
        artifact.size,
        chosen.file.size,
        *chosen.records,
    )
    return chosen.file, report


def check_bounds(
    max_ram_bytes: int | None, max_macs_ratio: float, name: str = "max_macs_ratio"
) -> None:
    """Checks the limits of :func:`patch_based`.

    Args:
        max_ram_bytes: As there.
        max_macs_ratio: As there.
        name: How the ratio is called in an error.

    Raises:
        ValueError: One is out of range.
    """
    whole = isinstance(max_ram_bytes, int) and not isinstance(max_ram_bytes, bool)
    if max_ram_bytes is not None and (not whole or max_ram_bytes < 1):
        raise ValueError(
            f"max_ram_bytes must be a whole number of at least 1, got {max_ram_bytes!r}"
        )
    number = isinstance(max_macs_ratio, int | float) and not isinstance(max_macs_ratio, bool)
    if not number or not 1 <= max_macs_ratio < math.inf:
        raise ValueError(f"{name} must be a number of at least 1, got {max_macs_ratio!r}")
