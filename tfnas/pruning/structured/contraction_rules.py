"""Rules of products of tensors: matmul, einsum, Dot and EinsumDense.

An axis that is summed over is one of channels where all operands have channels there: a channel
of zeros adds nothing, so it can be removed from all of them.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import numpy as np

from tfnas.graph.call_arguments import named_arguments
from tfnas.graph.functional import Call, Value
from tfnas.pruning.structured.activation_rules import own_activation
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import ChannelTrace, ChannelWeight, Kept, Rule, Use


def product(
    trace: ChannelTrace, call: Call, terms: Sequence[str], result: str, values: Sequence[Value]
) -> Channels:
    """Returns the channels of an einsum of tensors, and records its multiply-accumulates.

    Args:
        trace: The state of the trace.
        call: The call.
        terms: The labels of each operand, one letter for each axis.
        result: The labels of the result.
        values: The operands.
    """
    rows: dict[str, list[np.ndarray | None]] = {}
    sizes: dict[str, list[int | None]] = {}
    for labels, value in zip(terms, values, strict=True):
        for axis, label in enumerate(labels):
            rows.setdefault(label, []).append(trace.known(value).axes.get(axis))
            sizes.setdefault(label, []).append(value.shape[axis])
    found = {
        label: trace.meet(rows[label], sizes[label], f"{call.kind} {call.name!r}") for label in rows
    }
    ids = {label: row for label, row in found.items() if row is not None}
    own, _ = trace.layer(call)
    own.products.append(_use(ids, sizes, without=result[0]))
    return Channels({axis: ids[label] for axis, label in enumerate(result) if label in ids})


def _use(
    ids: Mapping[str, np.ndarray], sizes: Mapping[str, Sequence[int | None]], without: str
) -> Use:
    count = 1
    for label, each in sizes.items():
        if label not in ids and label != without:
            count *= max(int(size or 1) for size in each)
    return Use(count, tuple(row for label, row in ids.items() if label != without))


def _matmul(trace: ChannelTrace, call: Call) -> list[Channels]:
    ranks = [len(value.shape) for value in call.inputs]
    if len(call.inputs) != 2 or min(ranks) < 2 or max(ranks) > 12:
        return trace.opaque(call, f"{call.kind} {call.name!r} has a constant")
    batch = string.ascii_lowercase[: max(ranks) - 2]
    left = batch[len(batch) - ranks[0] + 2 :] + "xy"
    right = batch[len(batch) - ranks[1] + 2 :] + "yz"
    return [product(trace, call, [left, right], batch + "xz", call.inputs)]


def _einsum(trace: ChannelTrace, call: Call) -> list[Channels]:
    equation = str(call.operation.subscripts).replace(" ", "")
    terms, _, result = equation.partition("->")
    operands = terms.split(",")
    repeated = any(len(set(labels)) < len(labels) for labels in operands)
    if "." in equation or not result or repeated or len(operands) != len(call.inputs):
        return trace.opaque(call, f"{call.kind} {call.name!r} of {equation!r} is not supported")
    if any(labels[0] != result[0] for labels in operands):
        return trace.opaque(call, f"{call.kind} {call.name!r} moves the batch axis")
    return [product(trace, call, operands, result, call.inputs)]


def _dot(trace: ChannelTrace, call: Call) -> list[Channels]:
    """The layer Dot; the operation of this name multiplies matrices otherwise."""
    axes = getattr(call.operation, "axes", None)
    if axes is None or len(call.inputs) != 2:
        return trace.opaque(call, f"{call.kind} {call.name!r} is not supported")
    pair = [axes, axes] if isinstance(axes, int) else list(axes)
    ranks = [len(value.shape) for value in call.inputs]
    left = list("b" + string.ascii_uppercase[: ranks[0] - 1])
    right = list("b" + string.ascii_uppercase[12 : 12 + ranks[1] - 1])
    if 0 in (pair[0] % ranks[0], pair[1] % ranks[1]):
        return trace.opaque(call, f"{call.kind} {call.name!r} multiplies along the batch axis")
    left[pair[0] % ranks[0]] = right[pair[1] % ranks[1]] = "y"
    result = "".join(x for x in left if x != "y") + "".join(x for x in right[1:] if x != "y")
    if len(result) != len(call.outputs[0].shape):
        result = "b"
    return [product(trace, call, ["".join(left), "".join(right)], result, call.inputs)]


def _einsum_dense(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer, value = call.operation, call.inputs[0]
    labels, kernel, result = _labels(str(layer.equation), len(value.shape))
    if not labels or labels[0] != result[0] or len(set(labels)) < len(labels):
        return trace.opaque(call, f"{call.kind} {call.name!r} of {layer.equation!r}")
    own, first = trace.layer(call)
    known = trace.known(value).axes
    ids = {}
    for axis, label in enumerate(labels[1:], start=1):
        if label in kernel:
            ids[label] = trace.along(value, axis, f"{call.kind} {call.name!r} takes places")
        elif axis in known:
            if label not in result:
                trace.ids.lock(known[axis], f"{call.kind} {call.name!r} adds it up")
            ids[label] = known[axis]
    if first:
        new = [label for label in kernel if label not in labels]
        for label in new:
            name = call.name if len(new) == 1 else f"{call.name} ({label})"
            ids[label] = trace.ids.new(int(layer.kernel.shape[kernel.index(label)]), name)
        axes = {axis: ids[label] for axis, label in enumerate(kernel)}
        outgoing = kernel.index(new[0]) if new else None
        own.weights.append(ChannelWeight(layer.kernel, axes, "kernel", outgoing))
        if layer.bias is not None:
            bias_labels = result[len(result) - len(layer.bias.shape) :]
            of_bias = {a: ids[x] for a, x in enumerate(bias_labels) if x in ids}
            sized = {a: x for a, x in of_bias.items() if layer.bias.shape[a] > 1 or len(x) == 1}
            own.weights.append(ChannelWeight(layer.bias, sized))
        _output_shape(trace, call, ids, result)
    else:
        for axis, label in enumerate(kernel):
            before = own.weights[0].axes[axis]
            if label in ids:
                trace.ids.join(ids[label], before)
            ids[label] = before
    no_positions = [axis for axis, label in enumerate(labels) if label in kernel]
    own.weights[0].uses.append(trace.places(value.shape, trace.known(value), no_positions))
    outputs = {axis: ids[label] for axis, label in enumerate(result) if label in ids}
    return own_activation(trace, call, [Channels(outputs)])


def _labels(equation: str, rank: int) -> tuple[str, str, str]:
    """The labels of the input, the kernel and the result, without an ellipsis."""
    plain = equation.replace(" ", "")
    terms, _, result = plain.partition("->")
    left, _, kernel = terms.partition(",")
    leading = string.ascii_uppercase[: rank - len(left.replace("...", ""))]
    if "..." not in plain:
        return left, kernel, result
    if "..." in kernel:
        kernel = kernel.replace("...", "")
    return left.replace("...", leading), kernel, result.replace("...", leading)


def _output_shape(
    trace: ChannelTrace, call: Call, ids: Mapping[str, np.ndarray], result: str
) -> None:
    """The configuration of an EinsumDense layer names all sizes of its output."""
    layer = call.operation
    own, _ = trace.layer(call)
    whole = list(layer.partial_output_shape)
    labels = result[len(result) - len(whole) :]

    def output_shape(kept: Kept) -> list[int | None]:
        return [
            int(kept(ids[label]).sum()) if label in ids and size is not None else size
            for label, size in zip(labels, whole, strict=True)
        ]

    own.settings["output_shape"] = output_shape


def _attention(trace: ChannelTrace, call: Call) -> list[Channels]:
    """The layer Attention: softmax(query key^T) value, without projections."""
    layer = call.operation
    tensors = named_arguments(call).get("inputs")
    if not isinstance(tensors, list | tuple) or len(call.inputs) != len(tensors):
        return trace.opaque(call, f"{call.kind} {call.name!r} has masks")
    query, value = call.inputs[0], call.inputs[1]
    key = call.inputs[2] if len(call.inputs) > 2 else value
    last = len(query.shape) - 1
    if last != 2:
        return trace.opaque(call, f"{call.kind} {call.name!r} has several axes of places")
    for each in (query, key, value):
        trace.only(each, 2, f"{call.kind} {call.name!r} attends over it")
    own, first = trace.layer(call)
    scores = product(trace, call, ["bqd", "bkd"], "bqk", [query, key])
    scale = getattr(layer, "scale", None)
    additive = call.kind == "AdditiveAttention" or layer.score_mode == "concat"
    if additive and (scale is None or call.kind == "Attention"):
        own.products.pop()  # a sum alone is no product
    if call.kind == "AdditiveAttention" and scale is not None:
        ids = trace.along(query, 2)
        if first:
            own.weights.append(ChannelWeight(scale, {0: ids}))
        else:
            trace.ids.join(ids, own.weights[0].axes[0])
    assert not scores.axes
    out = {2: trace.along(value, 2)}
    places = int(query.shape[1] or 1) * int(key.shape[1] or 1)
    own.products.append(Use(places, tuple(out.values())))
    return [Channels(out), *([Channels()] if len(call.outputs) > 1 else [])]


CONTRACTION_RULES: dict[str, Rule] = {
    "Matmul": _matmul,
    "Einsum": _einsum,
    "Dot": _dot,
    "EinsumDense": _einsum_dense,
    "Attention": _attention,
    "AdditiveAttention": _attention,
}
