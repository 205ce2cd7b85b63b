"""Drops the nodes of a TensorFlow graph that no output needs, and orders the others.

The converter writes operators in the order of the graph's nodes: the order here decides the one in
the file. Nodes stand as close before what reads them as they can, those without inputs first; it
is the order in which TensorFlow's own `prune` copies a graph.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any


def keep_needed(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> set[str]:
    """Keeps the nodes of a graph between its inputs and outputs, in the order of computation.

    Returns the names of the inputs that are needed.

    Args:
        graph: A `GraphDef` without cycles, changed in place.
        inputs: Names of the tensors that are fed ("x:0"); their nodes are dropped.
        outputs: Names of the tensors that are computed.
    """
    reads = {node.name: [_node_of(each) for each in node.input] for node in graph.node}
    fed, computed = {_node_of(each) for each in inputs}, [_node_of(each) for each in outputs]
    readers = _readers(reads, fed, computed)
    order = _ordered(reads, readers, fed, computed)
    place = {name: number for number, name in enumerate(order)}
    graph.node.sort(key=lambda node: place.get(node.name, -1))
    del graph.node[: len(reads) - len(place)]
    needed = {*readers, *computed}
    return {each for each in inputs if _node_of(each) in needed}


def _node_of(tensor: str) -> str:
    """The node of "node", "node:1", or of a control input "^node"."""
    return tensor.removeprefix("^").split(":")[0]


def _ordered(
    reads: dict[str, list[str]],
    readers: collections.defaultdict[str, set[str]],
    fed: set[str],
    computed: Sequence[str],
) -> list[str]:
    """Names of the nodes that the computed ones need, each after all that it reads."""
    backwards: dict[str, None] = {}  # a set that keeps the order
    pending = [name for name in computed if not readers[name]]
    while pending:
        name = pending.pop()
        if name in backwards:
            continue
        backwards[name] = None
        for read in reads[name]:
            if read not in fed and all(reader in backwards for reader in readers[read]):
                pending.append(read)
    last = sorted(backwards, key=lambda name: not reads[name])
    return [name for name in reversed(last) if name not in fed]


def _readers(
    reads: dict[str, list[str]], fed: set[str], computed: Sequence[str]
) -> collections.defaultdict[str, set[str]]:
    """Node -> the nodes that read it, among those that are needed."""
    readers: collections.defaultdict[str, set[str]] = collections.defaultdict(set)
    seen, pending = set(fed), list(computed)
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        for read in reads[name]:
            readers[read].add(name)
            pending.append(read)
    return readers
