"""Finds the kernels of a model and selects them by layer name, path, pattern or class.

A kernel is a layer's own variable named "kernel" or "..._kernel" with at least two dimensions, or
one that :func:`tfnas.register_layer` names; on request, embedding tables are included. Layers
inside nested, wrapped and subclassed models are found too.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from tfnas.graph.functional import Skipped
from tfnas.graph.registered_layers import is_custom, registered_kernels, registered_layer
from tfnas.keras_private import child_layers, own_variables

if TYPE_CHECKING:
    import keras

FIRST, LAST, DEPTHWISE = "first", "last", "depthwise"
# A name, path or pattern, a layer or a layer's class; see :func:`named`.
LayerSelector: TypeAlias = "str | keras.layers.Layer | type[keras.layers.Layer]"
LayerSelection: TypeAlias = "LayerSelector | Iterable[LayerSelector]"


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
        """Name of the layer's class."""
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
    def registered_axis(self) -> int | None:
        """The axis of the outputs that a user's layer is registered with; None for any other."""
        record = registered_layer(self.layer)
        for name, axis in (record.kernels if record else {}).items():
            if getattr(self.layer, name, None) is self.variable:
                return axis % len(self.shape)
        return None

    @property
    def depthwise(self) -> bool:
        """Whether it is a depthwise kernel: filters per input channel."""
        from keras import layers

        is_depthwise = isinstance(self.layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D)
        return is_depthwise or self.variable.name == "depthwise_kernel"

    def numpy(self) -> np.ndarray:
        """Returns the weights."""
        import keras

        return np.asarray(keras.ops.convert_to_numpy(self.variable))


AnyKernel = TypeVar("AnyKernel", bound=ModelKernel)


def model_kernels(
    model: keras.layers.Layer, embeddings: bool = False
) -> tuple[list[ModelKernel], list[Skipped]]:
    """Returns the kernels of a model, and the layers that have weights but no usable kernel.

    Args:
        model: A built Keras 3 model or layer.
        embeddings: Whether to include embedding tables.

    Raises:
        ValueError: The model is not a built Keras model.
    """
    check_built(model)
    kernels: list[ModelKernel] = []
    skipped: list[Skipped] = []
    seen: set[int] = set()
    names: Counter[str] = Counter()
    for path, layer in layers_with_paths(model):
        weights = [v for v in own_variables(layer) if id(v) not in seen]
        seen.update(id(v) for v in weights)
        registered = registered_kernels(layer)
        found = [v for v in weights if _is_kernel(v, embeddings)]
        if registered:
            named_ids = {id(variable) for variable in registered.values()}
            found = [v for v in weights if id(v) in named_ids]
        reason = _obstacle(layer, weights) if weights else None
        if reason is not None or (weights and not found):
            reason = reason or _without_kernel(layer, weights)
            skipped.append(Skipped(path, type(layer).__name__, reason))
            continue
        for variable in found:
            name = path if len(found) == 1 else f"{path}/{variable.name}"
            names[name] += 1
            if names[name] > 1:  # several layers of one name, as in a subclassed model
                name = f"{name}#{names[name]}"
            kernels.append(ModelKernel(name, path, layer, variable))
    return kernels, skipped


def check_any_kernel(kernels: Sequence[Any], skipped: Sequence[Skipped], rule: str) -> None:
    """Raises ValueError where a model has no kernel, with what its layers have instead.

    Args:
        kernels: Its kernels.
        skipped: Its layers with weights but no usable kernel.
        rule: What was asked for, the beginning of the message.
    """
    if not kernels:
        reasons = [f"{each.kind} {each.name!r}: {each.reason}" for each in skipped[:3]]
        raise ValueError(f"{rule}, got none of 0: {'; '.join(reasons) or 'no layer has weights'}")


def named(kernels: Sequence[AnyKernel], selection: Any, argument: str) -> dict[int, str]:
    """Selects kernels; returns id of each selected kernel -> the first item that matched it.

    Args:
        kernels: All kernels.
        selection: A name, path or pattern ("block_*"), a layer or a layer's class, or a list of
            these; also "first", "last" and "depthwise" where no layer has that name. A path
            selects everything below it.
        argument: Name of the argument, for the error message.

    Raises:
        ValueError: An item matches no layer with a kernel.
    """
    single = isinstance(selection, str | type) or not isinstance(selection, Iterable)
    selected: dict[int, str] = {}
    for item in [selection] if single else selection:
        matched = _matching(kernels, item)
        if not matched:
            known = ", ".join(kernel.name for kernel in kernels[:8])
            raise ValueError(
                f"{argument} must name layers with a kernel, got {_label(item)}, which matches "
                f"none of {known}{', ...' if len(kernels) > 8 else ''}"
            )
        for kernel in matched:
            selected.setdefault(id(kernel), _label(item))
    return selected


def match(kernel: ModelKernel, pattern: str) -> bool:
    """Whether a name, path or pattern matches a kernel's layer or a model around it."""
    names: set[str] = {kernel.name}
    for name in (kernel.name, kernel.path):
        parts = name.split("/")
        names.update(parts, ("/".join(parts[: i + 1]) for i in range(len(parts))))
    return pattern in names or any(fnmatch.fnmatchcase(text, pattern) for text in names)


def layers_with_paths(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields (path, layer) for a model and all layers inside it, each once, in order."""
    seen: set[int] = set()

    def below(layer: Any, path: str) -> Iterator[tuple[str, Any]]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        yield path, layer
        for inner in child_layers(layer):
            yield from below(inner, f"{path}/{inner.name}" if path else inner.name)

    for path, layer in below(model, ""):
        yield path or model.name, layer


def check_built(model: Any) -> None:
    """Raises ValueError unless a model is a built Keras 3 model or layer."""
    import keras

    if not isinstance(model, keras.layers.Layer):
        raise ValueError(f"model must be a Keras 3 model, got {type(model).__name__}")
    if not model.built:
        raise ValueError(
            f"model must be built, got {model.name!r}: start it with keras.Input, or call it once"
        )


def _is_kernel(variable: Any, embeddings: bool) -> bool:
    kernel = variable.name == "kernel" or variable.name.endswith("_kernel")
    table = embeddings and variable.name == "embeddings"
    return (kernel or table) and len(variable.shape) >= 2


def _without_kernel(layer: Any, weights: list[Any]) -> str:
    unknown = registered_layer(layer) is None and is_custom(layer)
    hint = " (tfnas.register_layer can name kernels)" if unknown else ""
    return f"no kernel: {', '.join(v.name for v in weights)}{hint}"


def _obstacle(layer: Any, weights: list[Any]) -> str | None:
    """Why the kernels of a layer can't be used; None where they can."""
    if getattr(layer, "lora_enabled", False):
        return "LoRA adds to its kernel: merge it first"
    if getattr(layer, "quantization_mode", None):
        return f"quantized already ({layer.quantization_mode})"
    integers = [v.name for v in weights if _is_kernel(v, True) and "float" not in str(v.dtype)]
    return f"{integers[0]} holds integers" if integers else None


def _matching(kernels: Sequence[AnyKernel], item: Any) -> list[AnyKernel]:
    if isinstance(item, type):
        return [kernel for kernel in kernels if isinstance(kernel.layer, item)]
    if not isinstance(item, str):
        inside = {id(layer) for _, layer in layers_with_paths(item)} if _is_layer(item) else ()
        return [kernel for kernel in kernels if id(kernel.layer) in inside]
    found = [kernel for kernel in kernels if match(kernel, item)]
    if found or not kernels:
        return found
    if item == DEPTHWISE:
        return [kernel for kernel in kernels if kernel.depthwise]
    ends = {FIRST: kernels[0].layer, LAST: kernels[-1].layer}
    return [kernel for kernel in kernels if kernel.layer is ends.get(item)]


def _is_layer(item: Any) -> bool:
    import keras

    return isinstance(item, keras.layers.Layer)


def _label(item: Any) -> str:
    return item.__name__ if isinstance(item, type) else repr(getattr(item, "name", item))
