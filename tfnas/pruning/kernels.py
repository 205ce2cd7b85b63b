"""The kernels of a model: what can be pruned, and how each lies in a `.tflite` file.

A kernel is a layer's own variable named "kernel" or "..._kernel" of at least two
dimensions; layers are looked for inside nested, wrapped and subclassed models too.
Granularities such as 1x4 blocks and 2:4 only help where a runtime finds them, so they
are laid along the axes of the converted file: a :class:`Kernel` turns its array into
(rows, positions, columns), where columns are innermost in the file, and back.

| layer                     | Keras            | rows    | positions | columns      |
|---------------------------|------------------|---------|-----------|--------------|
| Dense                     | (in, out)        | out     |           | in           |
| Conv1D, Conv2D            | (*k, in, out)    | out     | k         | in           |
| Conv3D                    | (*k, in, out)    | in      | k         | out          |
| Conv1D to 3D, transposed  | (*k, out, in)    | out     | k         | in           |
| DepthwiseConv1D, 2D       | (*k, in, mult)   |         | k         | in x mult    |
| EinsumDense               | by its equation  | the rest|           | contracted   |
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tfnas.rewrite import Skipped

FIRST, LAST, DEPTHWISE = "first", "last", "depthwise"


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel of a model.

    Args:
        name: Path of its layer, such as "backbone/stem"; with the variable's name where
            a layer has several kernels.
        path: Path of its layer.
        layer: The Keras layer that owns it.
        variable: The Keras variable.
        rows: Axes that are outermost in the file: the outputs.
        positions: Axes between.
        columns: Axes that are innermost in the file.
        filters: Which of (rows, positions, columns) counts whole filters, 0 or 2; None
            where the kernel has none, as in a recurrent cell.
    """

    name: str
    path: str
    layer: Any
    variable: Any
    rows: tuple[int, ...]
    positions: tuple[int, ...]
    columns: tuple[int, ...]
    filters: int | None

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
        return not self.rows

    def numpy(self) -> np.ndarray:
        """Returns the weights."""
        import keras

        return np.asarray(keras.ops.convert_to_numpy(self.variable))

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """Returns an array of the variable's shape as (rows, positions, columns)."""
        groups = self.rows, self.positions, self.columns
        sizes = [math.prod(array.shape[axis] for axis in axes) for axes in groups]
        return array.transpose(self._order).reshape(sizes)

    def from_file(self, array: np.ndarray) -> np.ndarray:
        """Returns an array of (rows, positions, columns) in the variable's shape."""
        turned = array.reshape([self.shape[axis] for axis in self._order])
        return turned.transpose(np.argsort(self._order))

    @property
    def _order(self) -> tuple[int, ...]:
        return (*self.rows, *self.positions, *self.columns)


def find_kernels(model: Any) -> tuple[list[Kernel], list[Skipped]]:
    """Returns the kernels of a model, and the layers with weights that have none, and why.

    Args:
        model: A built Keras 3 model or layer.

    Raises:
        ValueError: The model is no Keras model, or is not built.
    """
    _check_built(model)
    kernels: list[Kernel] = []
    skipped: list[Skipped] = []
    seen: set[int] = set()
    taken: Counter[str] = Counter()
    for path, layer in layers_with_paths(model):
        own = [v for v in own_weights(layer) if id(v) not in seen]
        seen.update(id(v) for v in own)
        found = [v for v in own if _is_kernel(v)]
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
            kernels.append(Kernel(name, path, layer, variable, *_layout(layer, variable)))
    return kernels, skipped


def select(
    kernels: Sequence[Kernel], layers: Any = None, exclude: Any = ()
) -> tuple[list[Kernel], list[Skipped]]:
    """Returns the kernels that are asked for, and the others with the reason.

    Args:
        kernels: All kernels.
        layers: What to keep; None: everything. A name, path or pattern ("block_*"), a
            layer or a layer's class, or a list of these. A path stands for all below it.
        exclude: What to leave out, in the same terms; also "first", "last" and "depthwise"
            where no layer has that name.

    Raises:
        ValueError: An entry names no layer with a kernel, or nothing is left.
    """
    wanted = None if layers is None else _matched(kernels, layers, "layers")
    unwanted = _matched(kernels, exclude, "exclude")
    kept, skipped = [], []
    for kernel in kernels:
        kind = type(kernel.layer).__name__
        if id(kernel) in unwanted:
            skipped.append(Skipped(kernel.name, kind, f"excluded by {unwanted[id(kernel)]}"))
        elif wanted is not None and id(kernel) not in wanted:
            skipped.append(Skipped(kernel.name, kind, "not among layers"))
        else:
            kept.append(kernel)
    if not kept:
        raise ValueError(f"layers and exclude must leave a kernel, got none of {len(kernels)}")
    return kept, skipped


def trainable(kernels: Sequence[Kernel]) -> tuple[list[Kernel], list[Skipped]]:
    """Returns the kernels that training changes, and the others with the reason.

    Raises:
        ValueError: None is left.
    """
    kept = [kernel for kernel in kernels if kernel.variable.trainable]
    if not kept:
        raise ValueError("model must hold a kernel that is trained, got all of them frozen")
    reason = "not trained; name it in layers to prune it"
    frozen = [kernel for kernel in kernels if not kernel.variable.trainable]
    return kept, [Skipped(k.name, type(k.layer).__name__, reason) for k in frozen]


def match(kernel: Kernel, pattern: str) -> bool:
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


def _check_built(model: Any) -> None:
    import keras

    if not isinstance(model, keras.layers.Layer):
        raise ValueError(f"model must be a Keras 3 model, got {type(model).__name__}")
    if not model.built:
        raise ValueError(
            f"model must be built, got {model.name!r}: begin it with keras.Input, or call it once"
        )


def _is_kernel(variable: Any) -> bool:
    named = variable.name == "kernel" or variable.name.endswith("_kernel")
    return named and len(variable.shape) >= 2


def _hindrance(layer: Any, own: list[Any]) -> str | None:
    if getattr(layer, "lora_enabled", False):
        return "LoRA adds to its kernel: merge it first"
    if getattr(layer, "quantization_mode", None):
        return f"quantised already ({layer.quantization_mode})"
    whole = [v.name for v in own if _is_kernel(v) and "float" not in str(v.dtype)]
    return f"{whole[0]} holds whole numbers" if whole else None


def _layout(layer: Any, variable: Any) -> tuple[Any, Any, Any, int | None]:
    """(rows, positions, columns, filters) of a kernel; see the module's table."""
    from keras import layers

    last = len(variable.shape) - 1
    spatial = tuple(range(last - 1))
    depthwise = isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D)
    transposed = layers.Conv1DTranspose | layers.Conv2DTranspose | layers.Conv3DTranspose
    if depthwise or variable.name == "depthwise_kernel":
        return (), spatial, (last - 1, last), 2
    if isinstance(layer, transposed):
        return (last - 1,), spatial, (last,), 0
    if isinstance(layer, layers.Conv3D):
        return (last - 1,), spatial, (last,), 2
    if isinstance(layer, layers.EinsumDense):
        return _einsum_layout(layer.equation, last + 1)
    recurrent = hasattr(layer, "state_size")
    return (last,), spatial, (last - 1,), None if recurrent else 0


def _einsum_layout(equation: str, dimensions: int) -> tuple[Any, Any, Any, int | None]:
    terms, result = equation.replace(" ", "").split("->")
    given, letters = (term.replace(".", "") for term in terms.split(","))
    # The file lays contracted axes in the order of the input's.
    contracted = [i for i in range(dimensions) if letters[i] not in result]
    contracted.sort(key=lambda i: given.index(letters[i]))
    rest = [i for i in range(dimensions) if letters[i] in result]
    batch = [i for i in rest if letters[i] in given]
    if not batch:
        return tuple(rest), (), tuple(contracted), 0
    # A kernel an entry of the input's axis: a matrix product with the outputs innermost.
    return tuple(batch), tuple(contracted), tuple(i for i in rest if i not in batch), 2


def _matched(kernels: Sequence[Kernel], wanted: Any, name: str) -> dict[int, str]:
    """id of each kernel that is meant -> the entry that meant it."""
    single = isinstance(wanted, str | type) or not isinstance(wanted, Iterable)
    found: dict[int, str] = {}
    for entry in [wanted] if single else wanted:
        meant = _meant(kernels, entry)
        if not meant:
            raise ValueError(
                f"{name} must name layers with a kernel, got {_shown(entry)}, which matches none "
                f"of {', '.join(kernel.name for kernel in kernels[:8])}"
                f"{', ...' if len(kernels) > 8 else ''}"
            )
        found.update({id(kernel): _shown(entry) for kernel in meant if id(kernel) not in found})
    return found


def _meant(kernels: Sequence[Kernel], entry: Any) -> list[Kernel]:
    if isinstance(entry, type):
        return [kernel for kernel in kernels if isinstance(kernel.layer, entry)]
    if not isinstance(entry, str):
        inside = {id(layer) for _, layer in layers_with_paths(entry)} if _is_layer(entry) else ()
        return [kernel for kernel in kernels if id(kernel.layer) in inside]
    named = [kernel for kernel in kernels if match(kernel, entry)]
    if named:
        return named
    if entry == DEPTHWISE:
        return [kernel for kernel in kernels if kernel.depthwise]
    ends = {FIRST: kernels[0].layer, LAST: kernels[-1].layer}
    return [kernel for kernel in kernels if kernel.layer is ends.get(entry)]


def _is_layer(entry: Any) -> bool:
    import keras

    return isinstance(entry, keras.layers.Layer)


def _shown(entry: Any) -> str:
    if isinstance(entry, type):
        return entry.__name__
    return repr(getattr(entry, "name", entry))
