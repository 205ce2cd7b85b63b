"""Finds the Keras layers that the tensor names of a `.tflite` file refer to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tfnas.graph.functional import walk
from tfnas.keras_private import all_layers


class LayerNames:
    """Finds the layers of a Keras model in the tensor names of its file.

    Args:
        model: A built Keras 3 model.
    """

    def __init__(self, model: Any) -> None:
        self.outputs: tuple[str, ...] = ()
        try:
            flow = walk(model)
        except ValueError:  # a subclassed model has layers, but no known connections
            layers = all_layers(model, include_self=False)
            found = [(layer.name, layer) for layer in layers]
        else:
            found = [(call.name, call.operation) for call in flow.calls]
            makers = [flow.producers.get(value) for value in flow.outputs]
            self.outputs = tuple("" if maker is None else maker.name for maker in makers)
        self.with_kernel = {name for name, layer in found if _has_kernel(layer)}
        self._paths = {tuple(name.split("/")) for name, _ in found}
        self._prefixes = {path[:n] for path in self._paths for n in range(1, len(path) + 1)}
        ends = defaultdict(set)
        for path in self._paths:
            ends[path[-1]].add(path)
        self._by_end = {end: paths.pop() for end, paths in ends.items() if len(paths) == 1}

    def mentioned(self, tensor_name: str) -> tuple[str, ...]:
        """Returns the layers in a tensor's name, each once, in their order in the name.

        Example:
            >>> import keras
            >>> relu = keras.layers.ReLU(name="re_lu")
            >>> names = LayerNames(keras.Sequential([keras.Input((2,)), relu]))
            >>> names.mentioned("sequential_1/re_lu_1/Relu")
            ('re_lu',)
        """
        scopes = (part.split("/")[:-1] for part in tensor_name.split(";"))
        paths = (self._path(scope) for scope in scopes)
        return tuple(dict.fromkeys("/".join(path) for path in paths if path))

    def _path(self, scope: list[str]) -> tuple[str, ...]:
        """The path of a scope's layer; most scopes begin with the model's own name."""
        for start in (1, 0, *range(2, len(scope))):
            found = self._longest(scope[start:])
            if found:
                return found
        ends = (end for part in reversed(scope) for end in _variants(part))
        return next((self._by_end[end] for end in ends if end in self._by_end), ())

    def _longest(self, scope: list[str]) -> tuple[str, ...]:
        prefix: tuple[str, ...] = ()
        longest: tuple[str, ...] = ()
        for part in scope:
            candidates = ((*prefix, end) for end in _variants(part))
            prefix = next((path for path in candidates if path in self._prefixes), ())
            if not prefix:
                break
            longest = prefix if prefix in self._paths else longest
        return longest


def _has_kernel(layer: Any) -> bool:
    return any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ()))


def _variants(part: str) -> Iterator[str]:
    """Possible layer names of a part of a scope, the likeliest first.

    A scope is the layer's name with a counter: "dense_1" is the layer "dense". A
    quantization-aware model adds "quantized_", "_range", "_depthwise" or an activation.
    """
    name = re.sub(r"_\d+$", "", part)
    yield name
    yield part
    name = re.sub(r"_range(_\d+)?$", "", name.removeprefix("quantized_"))
    while name:
        yield name
        name = name.rpartition("_")[0]
