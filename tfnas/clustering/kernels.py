"""The kernels of a model that can be clustered, and the channels of each.

A kernel is a layer's own variable named "kernel" or "..._kernel" of at least two
dimensions; layers are looked for inside nested, wrapped and subclassed models too. A table of
embeddings is one where it is asked for. Channels are those that an integer file gives scales
of their own: output channels; a depthwise kernel's are its last two axes.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfnas.rewrite import Skipped

LAYER, CHANNEL = "layer", "channel"
GRANULARITIES = (LAYER, CHANNEL)
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel of a model.

    Args:
        name: Path of its layer, such as "backbone/stem"; with the variable's name where
            a layer has several kernels.
        path: Path of its layer.
        layer: The Keras layer that owns it.
        variable: The Keras variable.
    """

    name: str
    path: str
    layer: Any
    variable: Any

    @property
    def kind(self) -> str:
        """The layer's class."""
        return type(self.layer).__name__

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the variable."""
        return tuple(int(n) for n in self.variable.shape)

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def channel_axes(self) -> tuple[int, ...]:
        """The axes that count channels."""
        last = len(self.shape) - 1
        if self.kind.startswith("Depthwise") or self.variable.name == "depthwise_kernel":
            return last - 1, last
        return (last - 1,) if self.kind in _TRANSPOSED else (last,)

    def numpy(self) -> np.ndarray:
        """Returns the weights."""
        return np.asarray(keras.ops.convert_to_numpy(self.variable))

    def axes(self, granularity: str) -> tuple[int, ...]:
        """The axes along which each index has clusters of its own."""
        return self.channel_axes if granularity == CHANNEL else ()

    def groups(self, array: np.ndarray, granularity: str) -> np.ndarray:
        """Returns an array of the kernel's shape as (groups, n): a row shares its values."""
        axes = self.axes(granularity)
        count = math.prod(self.shape[axis] for axis in axes)
        return np.moveaxis(array, axes, range(len(axes))).reshape(count, -1)

    def from_groups(self, array: np.ndarray, granularity: str) -> np.ndarray:
        """Returns an array of (groups, n) in the kernel's shape."""
        axes = self.axes(granularity)
        rest = [n for axis, n in enumerate(self.shape) if axis not in axes]
        turned = array.reshape([*(self.shape[axis] for axis in axes), *rest])
        return np.ascontiguousarray(np.moveaxis(turned, range(len(axes)), axes))


def find_kernels(model: Any, embeddings: bool = False) -> tuple[list[Kernel], list[Skipped]]:
    """Returns the kernels of a model, and the layers with weights that have none, and why.

    Args:
        model: A built Keras 3 model.
        embeddings: Whether tables of embeddings are among them.

    Raises:
        ValueError: The model is no Keras model, or is not built.
    """
    check_built(model)
    kernels: list[Kernel] = []
    skipped: list[Skipped] = []
    seen: set[int] = set()
    taken: Counter[str] = Counter()
    for path, layer in _layers_with_paths(model):
        weights = [*layer._trainable_variables, *layer._non_trainable_variables]
        own = [v for v in weights if id(v) not in seen]
        seen.update(id(v) for v in own)
        found = [v for v in own if _is_kernel(v, embeddings)]
        reason = _hindrance(layer, own) if own else None
        if reason is not None or (own and not found):
            names = ", ".join(v.name for v in own)
            skipped.append(Skipped(path, type(layer).__name__, reason or f"no kernel: {names}"))
            continue
        for variable in found:
            name = path if variable.name == "kernel" else f"{path}/{variable.name}"
            taken[name] += 1
            if taken[name] > 1:  # layers of one name, as in a subclassed model
                name = f"{name}#{taken[name]}"
            kernels.append(Kernel(name, path, layer, variable))
    return kernels, skipped


def named(kernels: Sequence[Kernel], wanted: Any, argument: str) -> dict[int, str]:
    """Returns id of each kernel that is meant -> the entry that meant it first.

    Args:
        kernels: All kernels.
        wanted: A name, path or pattern ("block_*"), a layer or a layer's class, "first",
            "last" or "depthwise", or a list of these. A path stands for all below it.
        argument: Name of the argument, for the error message.

    Raises:
        ValueError: An entry names no layer with a kernel.
    """
    single = isinstance(wanted, str | type) or not isinstance(wanted, Iterable)
    found: dict[int, str] = {}
    for entry in [wanted] if single else wanted:
        shown = entry.__name__ if isinstance(entry, type) else getattr(entry, "name", entry)
        meant = _meant(kernels, entry)
        if not meant:
            known = ", ".join(kernel.name for kernel in kernels[:8])
            raise ValueError(
                f"{argument} must name layers with a kernel, got {shown!r}, which matches none "
                f"of {known}{', ...' if len(kernels) > 8 else ''}"
            )
        for kernel in meant:
            found.setdefault(id(kernel), str(shown))
    return found


def check_built(model: Any) -> None:
    """Raises ValueError unless a model is a built Keras 3 model."""
    if not isinstance(model, keras.Model) or not model.built:
        what = "not built" if isinstance(model, keras.Model) else type(model).__name__
        raise ValueError(f"model must be a built Keras 3 model, got {what}")


def _meant(kernels: Sequence[Kernel], entry: Any) -> list[Kernel]:
    if isinstance(entry, type):
        return [kernel for kernel in kernels if isinstance(kernel.layer, entry)]
    if not isinstance(entry, str):
        inside = getattr(entry, "_flatten_layers", lambda: ())()
        return [k for k in kernels if any(k.layer is layer for layer in inside)]
    found = [kernel for kernel in kernels if _matches(kernel, entry)]
    if found or not kernels:
        return found
    if entry == "depthwise":
        return [kernel for kernel in kernels if len(kernel.channel_axes) == 2]
    ends = {"first": kernels[0].layer, "last": kernels[-1].layer}
    return [kernel for kernel in kernels if kernel.layer is ends.get(entry)]


def _matches(kernel: Kernel, pattern: str) -> bool:
    texts = {kernel.name}
    for name in (kernel.name, kernel.path):
        parts = name.split("/")
        texts.update(parts, ("/".join(parts[: i + 1]) for i in range(len(parts))))
    return any(fnmatch.fnmatchcase(text, pattern) for text in texts)


def _layers_with_paths(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields (path, layer) of a model and all layers inside it, each once."""
    seen: set[int] = set()

    def below(layer: Any, path: str) -> Iterator[tuple[str, Any]]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        yield path or layer.name, layer
        for inner in layer._layers:
            yield from below(inner, f"{path}/{inner.name}" if path else inner.name)

    yield from below(model, "")


def _is_kernel(variable: Any, embeddings: bool) -> bool:
    kernel = variable.name == "kernel" or variable.name.endswith("_kernel")
    table = embeddings and variable.name == "embeddings"
    return (kernel or table) and len(variable.shape) >= 2


def _hindrance(layer: Any, own: list[Any]) -> str | None:
    if getattr(layer, "lora_enabled", False):
        return "LoRA adds to its kernel: merge it first"
    if getattr(layer, "quantization_mode", None):
        return f"quantised already ({layer.quantization_mode})"
    whole = [v.name for v in own if _is_kernel(v, True) and "float" not in str(v.dtype)]
    return f"{whole[0]} holds whole numbers" if whole else None
