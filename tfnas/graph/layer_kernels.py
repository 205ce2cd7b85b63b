"""The kernels of a model: where they are and what they are called.

A kernel is a layer's own variable named "kernel" or "..._kernel" of at least two dimensions,
and where it is asked for a table of embeddings; layers are looked for inside nested, wrapped
and subclassed models too.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from tfnas.graph.functional import Skipped

FIRST, LAST, DEPTHWISE = "first", "last", "depthwise"


@dataclasses.dataclass(frozen=True, eq=False)
class ModelKernel:
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
    def depthwise(self) -> bool:
        """Whether each input channel has filters of its own."""
        from keras import layers

        own = isinstance(self.layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D)
        return own or self.variable.name == "depthwise_kernel"

    def numpy(self) -> np.ndarray:
        """Returns the weights."""
        import keras

        return np.asarray(keras.ops.convert_to_numpy(self.variable))


AnyKernel = TypeVar("AnyKernel", bound=ModelKernel)


def model_kernels(model: Any, embeddings: bool = False) -> tuple[list[ModelKernel], list[Skipped]]:
    """Returns the kernels of a model, and the layers with weights that have none, and why.

    Args:
        model: A built Keras 3 model or layer.
        embeddings: Whether tables of embeddings are among them.

    Raises:
        ValueError: The model is no Keras model, or is not built.
    """
    check_built(model)
    kernels: list[ModelKernel] = []
    skipped: list[Skipped] = []
    seen: set[int] = set()
    taken: Counter[str] = Counter()
    for path, layer in layers_with_paths(model):
        own = [v for v in own_weights(layer) if id(v) not in seen]
        seen.update(id(v) for v in own)
        found = [v for v in own if _is_kernel(v, embeddings)]
        reason = _hindrance(layer, own) if own else None
        if reason is not None or (own and not found):
            names = ", ".join(v.name for v in own)
            skipped.append(Skipped(path, type(layer).__name__, reason or f"no kernel: {names}"))
            continue
        for variable in found:
            name = path if len(found) == 1 else f"{path}/{variable.name}"
            taken[name] += 1
            if taken[name] > 1:  # layers of one name, as in a subclassed model
                name = f"{name}#{taken[name]}"
            kernels.append(ModelKernel(name, path, layer, variable))
    return kernels, skipped


def named(kernels: Sequence[AnyKernel], wanted: Any, argument: str) -> dict[int, str]:
    """Returns id of each kernel that is meant -> the entry that meant it first.

    Args:
        kernels: All kernels.
        wanted: A name, path or pattern ("block_*"), a layer or a layer's class, or a list of
            these; also "first", "last" and "depthwise" where no layer has that name. A path
            stands for all below it.
        argument: Name of the argument, for the error message.

    Raises:
        ValueError: An entry names no layer with a kernel.
    """
    single = isinstance(wanted, str | type) or not isinstance(wanted, Iterable)
    found: dict[int, str] = {}
    for entry in [wanted] if single else wanted:
        meant = _meant(kernels, entry)
        if not meant:
            known = ", ".join(kernel.name for kernel in kernels[:8])
            raise ValueError(
                f"{argument} must name layers with a kernel, got {_shown(entry)}, which matches "
                f"none of {known}{', ...' if len(kernels) > 8 else ''}"
            )
        for kernel in meant:
            found.setdefault(id(kernel), _shown(entry))
    return found


def match(kernel: ModelKernel, pattern: str) -> bool:
    """Whether a name, a path or a pattern means a kernel or something above it."""
    found: set[str] = {kernel.name}
    for name in (kernel.name, kernel.path):
        parts = name.split("/")
        found.update(parts, ("/".join(parts[: i + 1]) for i in range(len(parts))))
    return pattern in found or any(fnmatch.fnmatchcase(text, pattern) for text in found)


def layers_with_paths(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields (path, layer) of a model and all layers inside it, each once, in their order."""
    seen: set[int] = set()

    def below(layer: Any, path: str) -> Iterator[tuple[str, Any]]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        yield path, layer
        for inner in layer._layers:
            yield from below(inner, f"{path}/{inner.name}" if path else inner.name)

    for path, layer in below(model, ""):
        yield path or model.name, layer


def own_weights(layer: Any) -> list[Any]:
    """The variables of a layer itself, without those of layers inside it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def check_built(model: Any) -> None:
    """Raises ValueError unless a model is a built Keras 3 model or layer."""
    import keras

    if not isinstance(model, keras.layers.Layer):
        raise ValueError(f"model must be a Keras 3 model, got {type(model).__name__}")
    if not model.built:
        raise ValueError(
            f"model must be built, got {model.name!r}: begin it with keras.Input, or call it once"
        )


def _is_kernel(variable: Any, embeddings: bool) -> bool:
    kernel = variable.name == "kernel" or variable.name.endswith("_kernel")
    table = embeddings and variable.name == "embeddings"
    return (kernel or table) and len(variable.shape) >= 2


def _hindrance(layer: Any, own: list[Any]) -> str | None:
    if getattr(layer, "lora_enabled", False):
        return "LoRA adds to its kernel: merge it first"
    if getattr(layer, "quantization_mode", None):
        return f"quantized already ({layer.quantization_mode})"
    whole = [v.name for v in own if _is_kernel(v, True) and "float" not in str(v.dtype)]
    return f"{whole[0]} holds whole numbers" if whole else None


def _meant(kernels: Sequence[AnyKernel], entry: Any) -> list[AnyKernel]:
    if isinstance(entry, type):
        return [kernel for kernel in kernels if isinstance(kernel.layer, entry)]
    if not isinstance(entry, str):
        inside = {id(layer) for _, layer in layers_with_paths(entry)} if _is_layer(entry) else ()
        return [kernel for kernel in kernels if id(kernel.layer) in inside]
    found = [kernel for kernel in kernels if match(kernel, entry)]
    if found or not kernels:
        return found
    if entry == DEPTHWISE:
        return [kernel for kernel in kernels if kernel.depthwise]
    ends = {FIRST: kernels[0].layer, LAST: kernels[-1].layer}
    return [kernel for kernel in kernels if kernel.layer is ends.get(entry)]


def _is_layer(entry: Any) -> bool:
    import keras

    return isinstance(entry, keras.layers.Layer)


def _shown(entry: Any) -> str:
    return entry.__name__ if isinstance(entry, type) else repr(getattr(entry, "name", entry))
