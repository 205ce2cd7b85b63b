"""The prunable kernels of a model, and the layout of each in a `.tflite` file.

Granularities such as 1x4 blocks and 2:4 help only if a runtime can use them, so they follow the
axes of the converted file: a :class:`PrunableKernel` converts its array to (rows, positions,
columns), where columns are the innermost axis in the file, and back.

| layer                     | Keras            | rows    | positions | columns      |
|---------------------------|------------------|---------|-----------|--------------|
| Dense                     | (in, out)        | out     |           | in           |
| Conv1D, Conv2D            | (*k, in, out)    | out     | k         | in           |
| Conv3D                    | (*k, in, out)    | in      | k         | out          |
| Conv1D to 3D, transposed  | (*k, out, in)    | out     | k         | in           |
| DepthwiseConv1D, 2D       | (*k, in, mult)   |         | k         | in x mult    |
| EinsumDense               | by its equation  | the rest|           | contracted   |
| Embedding                 | (words, width)   | words   |           | width        |
| registered, your own      | (..., in, out)   | out     | the rest  | in           |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.functional import Skipped
from tfnas.graph.layer_kernels import ModelKernel, model_kernels, named

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True, eq=False)
class PrunableKernel(ModelKernel):
    """One kernel of a model with its layout in the file.

    Args:
        rows: Axes that are outermost in the file, the outputs.
        positions: Axes between rows and columns, the spatial ones.
        columns: Axes that are innermost in the file.
        filters: Index in (rows, positions, columns) of the filter axis, 0 or 2; None: the
            kernel has no filters, as in a recurrent cell or an embedding.
    """

    rows: tuple[int, ...]
    positions: tuple[int, ...]
    columns: tuple[int, ...]
    filters: int | None

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """Returns an array of the variable's shape as (rows, positions, columns).

        Args:
            array: An array of the variable's shape.
        """
        groups = self.rows, self.positions, self.columns
        sizes = [math.prod(array.shape[axis] for axis in axes) for axes in groups]
        return array.transpose(self._order).reshape(sizes)

    def from_file(self, array: np.ndarray) -> np.ndarray:
        """Returns an array of (rows, positions, columns) in the variable's shape.

        Args:
            array: An array of (rows, positions, columns).
        """
        turned = array.reshape([self.shape[axis] for axis in self._order])
        return turned.transpose(np.argsort(self._order))

    @property
    def _order(self) -> tuple[int, ...]:
        return (*self.rows, *self.positions, *self.columns)


def find_kernels(model: keras.Model) -> tuple[list[PrunableKernel], list[Skipped]]:
    """Returns the kernels of a model, and its layers with weights but no kernel.

    Args:
        model: A built Keras 3 model or layer.

    Raises:
        ValueError: The model is not a built Keras model.
    """
    found, skipped = model_kernels(model, embeddings=True)
    return [
        PrunableKernel(k.name, k.path, k.layer, k.variable, *_layout(k)) for k in found
    ], skipped


def select(
    kernels: Sequence[PrunableKernel], layers: Any = None, exclude: Any = ()
) -> tuple[list[PrunableKernel], list[Skipped]]:
    """Returns the kernels that `layers` and `exclude` select, and the others with the reason.

    Args:
        kernels: All kernels.
        layers: Layers to select; None: all. A name, path or pattern ("block_*"), a layer or a
            class of layers, or a list of these. A path includes all layers below it.
        exclude: Layers to leave out, likewise; also "first", "last" and "depthwise" if no
            layer has that name.

    Raises:
        ValueError: An item matches no layer with a kernel, or no kernel is left.
    """
    selected = None if layers is None else named(kernels, layers, "layers")
    excluded = named(kernels, exclude, "exclude")
    kept, skipped = [], []
    for kernel in kernels:
        if id(kernel) in excluded:
            skipped.append(Skipped(kernel.name, kernel.kind, f"excluded by {excluded[id(kernel)]}"))
        elif selected is not None and id(kernel) not in selected:
            skipped.append(Skipped(kernel.name, kernel.kind, "not among layers"))
        else:
            kept.append(kernel)
    if not kept:
        raise ValueError(f"layers and exclude must leave a kernel, got none of {len(kernels)}")
    return kept, skipped


def trainable(kernels: Sequence[PrunableKernel]) -> tuple[list[PrunableKernel], list[Skipped]]:
    """Returns the trainable kernels, and the frozen ones with the reason.

    Args:
        kernels: Kernels of a model.

    Raises:
        ValueError: All kernels are frozen.
    """
    kept = [kernel for kernel in kernels if kernel.variable.trainable]
    if not kept:
        raise ValueError("model must have a trainable kernel, got all kernels frozen")
    reason = "not trainable; name it in layers to prune it"
    frozen = [kernel for kernel in kernels if not kernel.variable.trainable]
    return kept, [Skipped(k.name, k.kind, reason) for k in frozen]


def _layout(kernel: ModelKernel) -> tuple[Any, Any, Any, int | None]:
    """(rows, positions, columns, filters) of a kernel, by the module's table."""
    from keras import layers

    layer, variable = kernel.layer, kernel.variable
    last = len(variable.shape) - 1
    outputs = kernel.registered_axis
    if outputs is not None:
        others = [axis for axis in range(last + 1) if axis != outputs]
        return (outputs,), tuple(others[:-1]), (others[-1],), 0
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
    if variable.name == "embeddings":
        return (0,), (), (1,), None
    recurrent = hasattr(layer, "state_size")
    return (last,), spatial, (last - 1,), None if recurrent else 0


def _einsum_layout(equation: str, dimensions: int) -> tuple[Any, Any, Any, int | None]:
    terms, result = equation.replace(" ", "").split("->")
    inputs, letters = (term.replace(".", "") for term in terms.split(","))
    # The file has the contracted axes in the order of the input.
    contracted = [i for i in range(dimensions) if letters[i] not in result]
    contracted.sort(key=lambda i: inputs.index(letters[i]))
    rest = [i for i in range(dimensions) if letters[i] in result]
    batch = [i for i in rest if letters[i] in inputs]
    if not batch:
        return tuple(rest), (), tuple(contracted), 0
    # A batched matrix product, with the outputs innermost.
    return tuple(batch), tuple(contracted), tuple(i for i in rest if i not in batch), 2
