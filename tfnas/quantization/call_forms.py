"""Operations whose arguments decide about their form in an integer file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfnas.graph.call_arguments import named_arguments
from tfnas.graph.functional import Call, Value, Walk
from tfnas.graph.registered_layers import is_of_keras
from tfnas.quantization.einsum_axes import LETTERS, product

ATTENTION = (
    "MultiHeadAttention",
    "GroupedQueryAttention",
    "Attention",
    "AdditiveAttention",
    "DotProductAttention",
)
MASKED = -1e9  # score of a masked place in float models
# Beside scores of 0 that is nothing, in steps of 8 bits that are exact.
EQUAL_MASKED = -32.0
VERY_LOW = -1e4  # of scores, by which a mask is recognized


def computes_integers(call: Call) -> bool:
    """Whether a call has integers or truth values in and out, as for masks: a file has these too.

    Args:
        call: The call.
    """
    reads_none = call.kind == "Constant" or fills(call)
    read = () if reads_none else call.inputs
    values = (*read, *call.outputs)
    return bool(call.inputs) and all("float" not in value.dtype for value in values)


def fills(call: Call) -> bool:
    """Whether a call fills a tensor with constants, and reads of its input the sizes alone.

    Args:
        call: The call.
    """
    if not is_of_keras(type(call.operation)):
        return False
    named = named_arguments(call) if call.kind == "FullLike" else {}
    is_constant = not isinstance(named.get("fill_value"), Value) and len(call.inputs) == 1
    return call.kind in ("OnesLike", "ZerosLike") or (call.kind == "FullLike" and is_constant)


def looks_rows_up(call: Call) -> bool:
    """Whether a call of a ReversibleEmbedding is a lookup, not the product with its table.

    Args:
        call: The call.
    """
    return call.kind == "ReversibleEmbedding" and not named_arguments(call).get("reverse", False)


def multiplies_by_table(call: Call) -> bool:
    """Whether a call of a ReversibleEmbedding is the product with its table, not a lookup.

    Args:
        call: The call.
    """
    return call.kind == "ReversibleEmbedding" and not looks_rows_up(call)


def product_equation(call: Call) -> str | None:
    """Returns the equation of an einsum or a Dot of two tensors; None for any other call."""
    if len(call.inputs) != 2 or any("float" not in value.dtype for value in call.inputs):
        return None
    ranks = [len(value.shape) for value in call.inputs]
    if call.kind == "Einsum":
        equation = call.operation.subscripts
        return equation if product(equation, ranks) is not None else None
    if call.kind != "Dot" or call.operation.normalize:
        return None
    summed = summed_axes(call.operation, ranks)
    first = list(LETTERS[: ranks[0]])
    second = [first[0], *LETTERS[ranks[0] : ranks[0] + ranks[1] - 1]]
    first[summed[0]] = second[summed[1]] = "z"
    output = [*(a for a in first if a != "z"), *(a for a in second[1:] if a != "z")]
    return f"{''.join(first)},{''.join(second)}->{''.join(output)}" if 0 not in summed else None


def summed_axes(layer: Any, ranks: Sequence[int]) -> list[int]:
    """Returns the axis of each tensor that a Dot layer sums over, from 0 on.

    Args:
        layer: The layer.
        ranks: Number of axes of each tensor.
    """
    axes = layer.axes
    pair = (axes, axes) if isinstance(axes, int) else tuple(axes)
    return [axis % rank for axis, rank in zip(pair, ranks, strict=True)]


def repeats_places(call: Call) -> bool:
    """Whether a call repeats each place of an axis of known size as often.

    Args:
        call: The call.
    """
    if call.kind != "Repeat" or len(call.inputs) != 1:
        return False
    repeats, axis = call.operation.repeats, call.operation.axis
    if not isinstance(repeats, int) or not isinstance(axis, int):
        return False
    return call.inputs[0].shape[axis] is not None


def masked_scores(call: Call) -> tuple[Any, Any] | None:
    """Returns the mask and the scores of a call that gives masked places a very low number.

    Args:
        call: The call.

    Returns:
        The mask, a :class:`Value` or an array, and the scores; None for any other call.
    """
    if call.kind != "Where":
        return None
    named = named_arguments(call)
    mask, scores, low = (named.get(name) for name in ("condition", "x1", "x2"))
    is_low = isinstance(low, int | float) and low <= VERY_LOW
    return (mask, scores) if is_low and isinstance(scores, Value) else None


def is_equal_scores(call: Call) -> bool:
    """Whether a call gives each place the score 0, or a low one where a mask leaves it out.

    Args:
        call: The call.
    """
    if call.kind != "Where":
        return False
    named = named_arguments(call)
    return (named.get("x1"), named.get("x2")) == (0.0, EQUAL_MASKED)


def is_zeroed(call: Call) -> bool:
    """Whether a call gives 0 to the numbers of a tensor that a mask leaves out.

    Args:
        call: The call.
    """
    if call.kind != "Where":
        return False
    named = named_arguments(call)
    zero, kept = named.get("x2"), named.get("x1")
    number = isinstance(zero, int | float) and zero == 0.0
    return number and isinstance(kept, Value) and "float" in kept.dtype


def number_behind(call: Call) -> float | None:
    """Returns the number that a Rescaling multiplies by, where it adds none; None for other calls.

    Args:
        call: The call.
    """
    if call.kind != "Rescaling":
        return None
    scale, offset = call.operation.scale, call.operation.offset
    plain = isinstance(scale, int | float) and isinstance(offset, int | float) and not offset
    return float(scale) if plain and scale else None


def number_compared(call: Call) -> float | None:
    """Returns the number that a call compares a tensor of floats with; None for other calls.

    Args:
        call: The call.
    """
    if call.kind != "NotEqual" or len(call.inputs) != 1 or "float" not in call.inputs[0].dtype:
        return None
    others = [each for each in named_arguments(call).values() if not isinstance(each, Value)]
    is_number = len(others) == 1 and isinstance(others[0], int | float)
    return float(others[0]) if is_number else None


def meets_constants(flow: Walk) -> set[int]:
    """Returns the ids of the calls that join rows at constant places with other numbers.

    Args:
        flow: The calls of a model.
    """
    constants: set[Value] = set()
    found = set()
    for call in flow.calls:
        known = [value in constants for value in call.inputs]
        if call.kind == "Constant" or (known and all(known)):
            constants.update(call.outputs)
        elif any(known):
            found.add(id(call))
    return found
