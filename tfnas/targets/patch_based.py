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
import functools
import os
from collections.abc import Iterator, Sequence

from tfnas.table import Tabular, TextTable
from tfnas.targets.tflite_micro.interpreter import planned_arena
from tfnas.tflite.artifact import Artifact, as_artifact
from tfnas.tflite.flatbuffer import FileGraph
from tfnas.tflite.patches.patch_cost import macs_of, peak_bytes, plan_macs, record_bytes
from tfnas.tflite.patches.patch_plan import PatchPlan, plan, stages
from tfnas.tflite.patches.patch_writer import write_patches
from tfnas.tflite.patches.windows import NotLocal

_GRIDS = ((2, 1), (3, 1), (4, 1), (6, 1), (8, 1), (2, 2), (3, 2), (3, 3), (4, 4), (5, 5), (6, 6))


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

    def tables(self) -> list[TextTable]:
        """Returns memory, multiply-accumulates and bytes before and after."""
        pairs = {
            "arena of activations, bytes": (self.arena_before, self.arena_after),
            "MACs": (self.macs_before, self.macs_after),
            "file, bytes": (self.bytes_before, self.bytes_after),
        }
        rows = [
            [name, f"{before:,}", f"{after:,}", f"{after / max(before, 1):.3f}"]
            for name, (before, after) in pairs.items()
        ]
        title = (
            f"{self.patch_rows}x{self.patch_columns} patches of {self.layer}, of the first "
            f"{self.operators} operators"
        )
        return [TextTable(["", "before", "after", "ratio"], rows, title=title)]


def patch_based(
    file: Artifact | str | os.PathLike[str],
    max_ram_bytes: int | None = None,
    *,
    max_macs_ratio: float = 1.5,
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
    artifact = as_artifact(file)
    graph = artifact.graph
    macs, before = macs_of(graph), planned_arena(artifact)
    found = [_Candidate(artifact, each) for each in _plans(artifact, graph)]
    allowed = [each for each in found if each.macs <= max_macs_ratio * macs]
    if max_ram_bytes is None:
        chosen = _least_memory(allowed, before)
    else:
        chosen = _fewest_macs(allowed, before, max_ram_bytes, max_macs_ratio)
    report = PatchReport(
        graph.operators[chosen.plan.last].layer,
        chosen.plan.last + 1,
        chosen.plan.rows,
        chosen.plan.columns,
        before,
        chosen.arena,
        macs,
        chosen.macs,
        artifact.size,
        chosen.file.size,
    )
    return chosen.file, report


class _Candidate:
    """A plan with its costs; the file and its arena are made when they are asked for."""

    def __init__(self, artifact: Artifact, plan: PatchPlan) -> None:
        self._artifact, self.plan = artifact, plan
        graph = artifact.graph
        self.macs = plan_macs(graph, plan)
        self.peak, self.records = peak_bytes(graph, plan), record_bytes(graph, plan)

    @functools.cached_property
    def file(self) -> Artifact:
        """The file, minified: parts of one tensor have equal scales, which it holds once."""
        content = write_patches(self._artifact.content, self.plan)
        return dataclasses.replace(self._artifact, content=content).minified()

    @functools.cached_property
    def arena(self) -> int:
        """Bytes of activations and scratch buffers, as TFLite Micro plans them."""
        return planned_arena(self.file)


def _least_memory(allowed: Sequence[_Candidate], before: int) -> _Candidate:
    """The plan of least memory. Peaks bound arenas from below: few files must be written."""
    best: _Candidate | None = None
    for each in sorted(allowed, key=lambda each: each.peak + each.records):
        if best is not None and each.peak + each.records >= best.arena + best.records:
            break
        if best is None or each.arena + each.records < best.arena + best.records:
            best = each
    if best is None or best.arena >= before:
        raise ValueError(
            f"file must need less than {before:,} bytes of activations in patches, got none that "
            "does within max_macs_ratio"
        )
    return best


def _fewest_macs(
    allowed: Sequence[_Candidate], before: int, max_ram_bytes: int, max_macs_ratio: float
) -> _Candidate:
    """The plan of fewest multiply-accumulates that keeps the limit."""
    for each in sorted(allowed, key=lambda each: (each.macs, each.records)):
        if each.peak <= max_ram_bytes and each.arena <= max_ram_bytes:
            return each
    nearest = sorted(allowed, key=lambda each: each.peak)[:4]
    least = min((each.arena for each in nearest), default=before)
    raise ValueError(
        f"max_ram_bytes must be at least {min(least, before):,}, the least found at "
        f"max_macs_ratio {max_macs_ratio:g}, got {max_ram_bytes:,} (without patches {before:,})"
    )


def _plans(artifact: Artifact, graph: FileGraph) -> Iterator[PatchPlan]:
    if len(artifact.inputs) != 1 or len(artifact.graphs) != 1:
        raise ValueError(
            f"file must have one input and one graph, got {len(artifact.inputs)} and "
            f"{len(artifact.graphs)}"
        )
    try:
        ends = stages(graph)
    except NotLocal as error:
        raise ValueError(
            f"file must begin with operators of windows, got one that is not: {error}"
        ) from error
    for last in ends:
        for rows, columns in _GRIDS:
            try:
                yield plan(graph, last, rows, columns)
            except NotLocal:  # more patches than rows
                continue


def check_bounds(max_ram_bytes: int | None, max_macs_ratio: float) -> None:
    """Checks the limits of :func:`patch_based`.

    Args:
        max_ram_bytes: As there.
        max_macs_ratio: As there.

    Raises:
        ValueError: One is out of range.
    """
    whole = isinstance(max_ram_bytes, int) and not isinstance(max_ram_bytes, bool)
    if max_ram_bytes is not None and (not whole or max_ram_bytes < 1):
        raise ValueError(
            f"max_ram_bytes must be a whole number of at least 1, got {max_ram_bytes!r}"
        )
    if not isinstance(max_macs_ratio, int | float) or not max_macs_ratio >= 1:
        raise ValueError(f"max_macs_ratio must be a number of at least 1, got {max_macs_ratio!r}")
