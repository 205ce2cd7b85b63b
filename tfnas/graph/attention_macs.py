"""Multiply-accumulates of attention layers: projections, scores, and sums of values."""

from __future__ import annotations

from tfnas.graph.call_arguments import named_arguments, shape_of, shapes_of
from tfnas.graph.functional import Call
from tfnas.graph.known_sizes import Shape, product, times, total
from tfnas.keras_private import attention_projections


def multi_head(call: Call) -> int | None:
    """MultiHeadAttention: four projections, and two products for each head."""
    config = call.operation.get_config()
    axes = config["attention_axes"]
    width = config["num_heads"] * (config["key_dim"] + (config["value_dim"] or config["key_dim"]))
    query, value, key = _sequences(call)
    axes = range(1, len(query) - 1) if axes is None else [axis % len(query) for axis in axes]
    beside = product([query[axis] for axis in range(1, len(query) - 1) if axis not in axes])
    pairs = times(*(product([shape[axis] for axis in axes]) for shape in (query, key)))
    return total([times(beside, pairs, width), _projections(call, query, value, key)])


def grouped_query(call: Call) -> int | None:
    """GroupedQueryAttention: keys and values have fewer heads, but each query head uses them."""
    config = call.operation.get_config()
    query, value, key = _sequences(call)
    width = config["num_query_heads"] * config["head_dim"]
    products = times(query[1], key[1], 2 * width)
    return total([products, _projections(call, query, value, key)])


def dot_product(call: Call) -> int | None:
    """Attention: products of queries and keys, and of scores and values."""
    query, value, key = _listed(call)
    scores = times(query[1], key[1], query[2]) if call.operation.score_mode == "dot" else 0
    return total([scores, times(query[1], value[1], value[2])])


def additive(call: Call) -> int | None:
    """AdditiveAttention: a weighted sum over the features of each pair, and sums of values."""
    query, value, key = _listed(call)
    scores = times(query[1], key[1], query[2]) if call.operation.use_scale else 0
    return total([scores, times(query[1], value[1], value[2])])


def operation(call: Call) -> int | None:
    """`keras.ops.dot_product_attention`: (batch, places, heads, features)."""
    query, key, value = shapes_of(call, "query", "key", "value")
    if query is None or key is None or value is None:
        return None
    width = total([query[3], value[3]])
    return times(query[1], key[1], query[2], width)


def _sequences(call: Call) -> tuple[Shape, Shape, Shape]:
    """Shapes of query, value and key."""
    query, value, key = shapes_of(call, "query", "value", "key")
    assert query is not None
    assert value is not None
    return query, value, key or value


def _listed(call: Call) -> tuple[Shape, Shape, Shape]:
    """Shapes of query, value and key of a layer that takes them as a list."""
    inputs = named_arguments(call)["inputs"]
    query, value, key = (*(shape_of(each) for each in inputs[:3]), None)[:3]
    assert query is not None
    assert value is not None
    return query, value, key or value


def _projections(call: Call, query: Shape, value: Shape, key: Shape) -> int | None:
    places = {"query": query, "gate": query, "output": query, "value": value, "key": key}
    return total(
        [
            times(product(dense.kernel.shape), product(places[name][1:-1]))
            for name, dense in attention_projections(call.operation).items()
            if dense is not None
        ]
    )
