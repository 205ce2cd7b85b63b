"""Ranges that TensorFlow's converter makes too narrow after training.

A concatenation has one scale for its inputs and its output. The converter carries that scale back
through averages and poolings, to the tensor that they read: the means of a convolution's output,
joined with others, lie in a small part of its range, and the output is clipped to that part before
the means are taken.
"""

from __future__ import annotations

from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo, TensorInfo

_AVERAGES = {"MEAN", "AVERAGE_POOL_2D"}
_LARGEST = {"REDUCE_MAX", "MAX_POOL_2D"}
_MOVES = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE"}
_LEAST_INTEGERS = (-128,)  # the zero point of a range from 0 in int8


def has_narrowed_range(graph: FileGraph) -> bool:
    """Returns whether a tensor has the scale of a concatenation that joins only parts of its range.

    Args:
        graph: A graph of an integer file.
    """
    return any(
        _narrows(graph, op) for op in graph.operators if op.name == "CONCATENATION" and _scale(op)
    )


def _scale(op: OperatorInfo) -> tuple[float, ...]:
    return tuple(op.outputs[0].scales)


def _narrows(graph: FileGraph, joined: OperatorInfo) -> bool:
    whole: set[int] = set()
    narrowed: set[int] = set()
    for tensor in joined.inputs:
        source, through = _source(graph, tensor, _scale(joined))
        is_part = _clips(graph, source, through)
        (narrowed if is_part else whole).add(source.index)
    return bool(narrowed - whole)


def _source(
    graph: FileGraph, tensor: TensorInfo, scale: tuple[float, ...]
) -> tuple[TensorInfo, set[str]]:
    """The first tensor of this scale that an input comes from, and the operators between."""
    through: set[str] = set()
    while (maker := graph.producer_of(tensor)) is not None:
        moves = maker.name in _MOVES | _AVERAGES | _LARGEST
        if not moves or tuple(maker.inputs[0].scales) != scale:
            break
        through.add(maker.name)
        tensor = maker.inputs[0]
    return tensor, through


def _clips(graph: FileGraph, source: TensorInfo, through: set[str]) -> bool:
    """Whether what goes through these operators has a smaller range than what they read."""
    if through & _AVERAGES:
        return True
    from_zero = bool(source.zero_points) and int(source.zero_points[0]) in _LEAST_INTEGERS
    if not through & _LARGEST or from_zero:
        return False
    # The largest numbers are right whatever is clipped at the low end; other readers' are not.
    readers = [op for op in graph.operators if any(t.index == source.index for t in op.inputs)]
    return any(op.name not in _LARGEST | _MOVES for op in readers)
