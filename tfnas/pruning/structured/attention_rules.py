"""Rules of MultiHeadAttention and GroupedQueryAttention: heads, keys and values are channels.

Inside, a head is removed with its queries, keys, values and rows of the output kernel. A key
dimension is removed from all heads at once; the scores are divided by the root of their number, so
that the query kernel is multiplied by the root of the fraction that stays. The model is then
exactly the one with zeros there.
"""

from __future__ import annotations

import numpy as np

from tfnas.graph.call_arguments import named_arguments
from tfnas.graph.functional import Call, Value
from tfnas.keras_private import attention_projections
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import (
    ChannelLayer,
    ChannelTrace,
    ChannelWeight,
    Rule,
    Use,
)


def _inputs(call: Call) -> tuple[Value, Value, Value] | None:
    """The query, key and value of a call; None where they are no tensors of the model."""
    named = named_arguments(call)
    query, value, key = (
        each if isinstance(each := named.get(name), Value) else None
        for name in ("query", "value", "key")
    )
    if query is None or value is None:
        return None
    return query, key or value, value


def _multi_head(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer, inputs = call.operation, _inputs(call)
    shape = layer.get_config()["output_shape"]
    if inputs is None or any(len(each.shape) != 3 for each in inputs):
        return trace.opaque(call, f"{call.kind} {call.name!r} has several axes of places")
    if shape is not None and len(shape) > 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} has an output of several axes")
    own, first = trace.layer(call)
    if first:
        ids = trace.ids
        heads = ids.new(layer.num_heads, f"{call.name} (heads)")
        keys = ids.new(layer.key_dim, f"{call.name} (key_dim)")
        values = ids.new(layer.value_dim, f"{call.name} (value_dim)")
        own.sizes.update(num_heads=heads, key_dim=keys, value_dim=values)
        output = ids.new(int(layer.output_dense.kernel.shape[-1]), call.name)
        own.settings["output_shape"] = lambda kept: [int(kept(output).sum())]
        _weights(trace, own, call, inputs, (heads, heads, keys, values, output))
    return _attended(trace, own, call, inputs, first)


def _grouped_query(trace: ChannelTrace, call: Call) -> list[Channels]:
    """Each head of keys and values is removed with the heads of queries that it serves."""
    layer, inputs = call.operation, _inputs(call)
    if inputs is None:
        return trace.opaque(call, f"{call.kind} {call.name!r} has constant inputs")
    own, first = trace.layer(call)
    if first:
        shared = trace.ids.new(layer.num_key_value_heads, f"{call.name} (key_value_heads)")
        heads = np.repeat(shared, layer.num_query_heads // layer.num_key_value_heads)
        dims = trace.ids.new(layer.head_dim, f"{call.name} (head_dim)")
        own.sizes.update(num_query_heads=heads, num_key_value_heads=shared, head_dim=dims)
        output = trace.ids.new(int(inputs[0].shape[-1] or 0), call.name)
        # The layer's output is as wide as its query.
        trace.ids.join(output, trace.along(inputs[0]))
        _weights(trace, own, call, inputs, (heads, shared, dims, dims, output))
    return _attended(trace, own, call, inputs, first)


def _weights(
    trace: ChannelTrace,
    own: ChannelLayer,
    call: Call,
    inputs: tuple[Value, Value, Value],
    ids: tuple[np.ndarray, ...],
) -> None:
    """The kernels (channels, heads, dimensions) and biases of the four projections."""
    heads, shared, keys, values, output = ids
    query, key, value = (trace.along(each) for each in inputs)
    rows = {
        "query": (query, heads, keys),
        "key": (key, shared, keys),
        "value": (value, shared, values),
        "gate": (query, heads, values),
        "output": (heads, values, output),
    }
    for name, dense in attention_projections(call.operation).items():
        if dense is None:
            continue
        axes = dict(enumerate(rows[name]))
        rescaled = (keys, 0.5) if name == "query" else None
        outgoing = 2 if name == "output" else 1
        own.weights.append(ChannelWeight(dense.kernel, axes, "kernel", outgoing, rescaled=rescaled))
        if dense.bias is not None:
            kept = rows[name][-len(dense.bias.shape) :]
            bias = ChannelWeight(dense.bias, dict(enumerate(kept)), rescaled=rescaled)
            own.weights.append(bias)


def _attended(
    trace: ChannelTrace,
    own: ChannelLayer,
    call: Call,
    inputs: tuple[Value, Value, Value],
    first: bool,
) -> list[Channels]:
    """Counts the uses of a call's kernels; couples its inputs with those of the first call."""
    query, key, value = inputs
    for each in dict.fromkeys(inputs):
        trace.only(each, 2, f"{call.kind} {call.name!r} attends over it")
    extra = [v for v in call.inputs if v not in inputs]
    for each in extra:  # masks
        trace.lock(each, f"{call.kind} {call.name!r} takes it as a mask")
    named = [name for name, dense in attention_projections(call.operation).items() if dense]
    kernels = dict(zip(named, (w for w in own.weights if w.role == "kernel"), strict=True))
    entering = {"query": query, "key": key, "value": value, "gate": query}
    places = [int(v.shape[1] or 1) for v in inputs]
    for name, kernel in kernels.items():
        if name in entering and not first:
            trace.ids.join(trace.along(entering[name]), kernel.axes[0])
        at = places[1] if name in ("key", "value") else places[0]
        kernel.uses.append(Use(at))
    output, heads = kernels["output"].axes, kernels["query"].axes[1]
    pairs = places[0] * places[1]
    own.products.append(Use(pairs, (heads, kernels["query"].axes[2])))
    own.products.append(Use(pairs, (heads, output[1])))
    found = [Channels({2: output[2]})]
    return found + [Channels({1: heads})] * (len(call.outputs) - 1)


ATTENTION_RULES: dict[str, Rule] = {
    "MultiHeadAttention": _multi_head,
    "GroupedQueryAttention": _grouped_query,
}
