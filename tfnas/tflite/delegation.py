"""Which operators of a file a runtime takes, and their share of the multiply-accumulates."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from tfnas.tflite.artifact import Artifact
from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo
from tfnas.tflite.operator_macs import known_shapes, operator_macs

Faults = Callable[[OperatorInfo, FileGraph], list[str]]


@dataclasses.dataclass(frozen=True)
class Delegation:
    """What a runtime takes of a file.

    Args:
        reasons: For each operator why it is not taken; empty: it is.
        macs: The multiply-accumulates of each operator; None: unknown.
    """

    reasons: tuple[tuple[str, ...], ...]
    macs: tuple[int | None, ...]

    @property
    def left(self) -> int:
        """The number of operators that are not taken."""
        return sum(map(bool, self.reasons))

    @property
    def partitions(self) -> int:
        """The number of runs of operators that are taken, in the order of execution."""
        return len(self._parts())

    @property
    def largest_share(self) -> float | None:
        """Share of the multiply-accumulates in the part of most operators; None: unknown.

        The GPU delegate takes that part alone, unless it is created with more
        `max_delegated_partitions` than 1.
        """
        largest = max(self._parts(), key=len, default=range(0))
        return share_of(
            _total([self.macs[place] for place in largest]), self.total, complete=not self.left
        )

    def _parts(self) -> list[range]:
        """Runs of operators that are taken, by their places."""
        ends = [-1, *(place for place, each in enumerate(self.reasons) if each), len(self.reasons)]
        runs = [range(a + 1, b) for a, b in itertools.pairwise(ends)]
        return [run for run in runs if run]

    @property
    def total(self) -> int | None:
        """The file's multiply-accumulates; None: some can't be counted."""
        return _total(self.macs)

    @property
    def delegated(self) -> int | None:
        """The multiply-accumulates that are taken; None: some can't be counted."""
        pairs = zip(self.macs, self.reasons, strict=True)
        return _total([cost for cost, reasons in pairs if not reasons])

    @property
    def share(self) -> float | None:
        """Share of the multiply-accumulates that is taken, in [0, 1]; None: unknown."""
        return share_of(self.delegated, self.total, complete=not self.left)


def delegation(artifact: Artifact, faults: Faults) -> Delegation:
    """Judges the operators of a file by the rules of a runtime.

    Args:
        artifact: The file.
        faults: Returns why the runtime does not take an operator of a graph.
    """
    graph = artifact.graph
    reasons = tuple(tuple(faults(op, graph)) for op in graph.operators)
    return Delegation(reasons, macs_of_operators(artifact))


def macs_of_operators(artifact: Artifact) -> tuple[int | None, ...]:
    """Returns the multiply-accumulates of each operator of a file, for a batch of 1.

    Args:
        artifact: The file. Where it leaves sizes open beside the batch, they are unknown.
    """
    graph = artifact.graph
    if any(-1 in tensor.signature[1:] for tensor in graph.inputs):
        return (None,) * len(graph.operators)
    shapes = shapes_of_run(artifact, [tensor.shape for tensor in graph.inputs])
    return tuple(operator_macs(op, graph, shapes, artifact.graphs) for op in graph.operators)


def shapes_of_run(
    artifact: Artifact, inputs: Sequence[Sequence[int]]
) -> dict[int, tuple[int, ...]]:
    """Returns the shapes of a run on zeros by tensor; as far as the file has them if it can't run.

    Args:
        artifact: The file.
        inputs: The shape of each input.
    """
    graph = artifact.graph
    try:
        interpreter = artifact.interpreter(xnnpack=False, shapes=inputs)
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        interpreter.invoke()
    except (ValueError, RuntimeError):  # an operator that LiteRT lacks
        return known_shapes(graph)
    return {
        detail["index"]: tuple(int(n) for n in detail["shape"])
        for detail in interpreter.get_tensor_details()
        if detail["index"] < len(graph.tensors)
    }


def share_of(delegated: int | None, total: int | None, complete: bool) -> float | None:
    """Returns a share of multiply-accumulates, in [0, 1]; None: unknown.

    Args:
        delegated: Those that are taken; None: some can't be counted.
        total: All of the file.
        complete: Whether every operator is taken, which decides where there are none.
    """
    if total is None or delegated is None:
        return None
    if not total:
        return 1.0 if complete else 0.0
    return delegated / total


def _total(costs: Sequence[int | None]) -> int | None:
    return None if None in costs else sum(cost for cost in costs if cost is not None)
