"""Which layers keep 8 bits where the others have 4: those whose rounding changes the outputs most.

Each kernel is rounded alone, as :mod:`tfnas.quantization.second_order_rounding` does it, from one
half of some examples. What that does to the model's outputs on the other half is estimated for all
kernels at once (:mod:`tfnas.graph.output_effects`). Those that lose most together, within the limit
of weights, keep 8 bits. There the squared error is 1/300 of that with 4 bits, and counts as none.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.data.reading import spread
from tfnas.graph.batchnorm import input_batches, layers_of
from tfnas.graph.functional import walk
from tfnas.graph.output_effects import KernelChange, effects_on_outputs
from tfnas.graph.traversal import Visit, visit
from tfnas.pruning.input_moments import measure, to_kernel, to_rows, unsupported_reason
from tfnas.pruning.optimal_brain_surgeon import shrink
from tfnas.pruning.reconstruct import takes_mean
from tfnas.quantization.layer_roles import Role, kernel_bits, role
from tfnas.quantization.normal_form import normal_form
from tfnas.quantization.rounded_kernel import RoundedKernel
from tfnas.quantization.second_order_rounding import round_rows
from tfnas.quantization.symmetric_grid import (
    largest_integer,
    least_error_scales,
    nearest_values,
)

if TYPE_CHECKING:
    from tfnas.data.data_types import ExampleData
    from tfnas.quantization.spec import QuantSpec

EXAMPLES = 128  # most that are read
_BATCH = 16
_CELLS = 4096  # that the limit is divided into
_ROWS = 10_000  # patches of a layer
_SHRINKAGE = 0.05  # of the moments to their diagonal


def with_eight_bit_layers(model: keras.Model, spec: QuantSpec, data: ExampleData) -> QuantSpec:
    """Returns a specification in which the layers whose 4 bits change the outputs most have 8.

    Together they have at most `spec.eight_bit_share` of the weights. Layers that `spec.layers`
    names stay as it says.

    Example:
        >>> import keras, tfnas
        >>> layers = [keras.layers.Conv2D(4, 3, name="first"), keras.layers.Conv2D(90, 3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        >>> x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
        >>> with_eight_bit_layers(model, tfnas.QuantSpec("int4", "int8"), x).layers
        (('first', 'int8'),)

    Args:
        model: A built functional or Sequential model.
        spec: The formats; only those with 4-bit weights are changed.
        data: Inputs without labels.

    Returns:
        The specification.

    Raises:
        ValueError: The data does not match the model.
    """
    if spec.weights != "int4":
        return spec
    model = normal_form(model)[0]
    kernels = {
        call.name: call.operation
        for call in walk(model).calls
        if role(call) is Role.KERNEL and kernel_bits(call.kind, 4, spec.activation_bits) == 4
    }
    sizes = {name: math.prod(layer.kernel.shape) for name, layer in kernels.items()}
    limit = spec.eight_bit_share * sum(sizes.values())
    small = {name: layer for name, layer in kernels.items() if sizes[name] <= limit}
    if not small:
        return spec
    losses = dict(zip(small, _losses(model, list(small.values()), data), strict=True))
    names = list(small)
    kept = most_valuable([sizes[n] for n in names], [losses[n] for n in names], limit)
    chosen = [names[index] for index in kept]
    pairs = [*spec.layers, *((name, "int8") for name in chosen)]
    return dataclasses.replace(spec, layers=tuple(pairs))


def most_valuable(sizes: Sequence[int], values: Sequence[float], limit: float) -> list[int]:
    """Returns the items of the greatest sum of values within a limit of their sizes.

    Example:
        >>> most_valuable([6, 5, 5], [7.0, 5.0, 5.0], 10)
        [1, 2]

    Args:
        sizes: The size of each item.
        values: What each is worth, at least 0.
        limit: Of the sum of sizes; it is met to a thousandth for each item.

    Returns:
        The indices of the items, ascending.
    """
    if sum(sizes) <= limit:
        return list(range(len(sizes)))
    cells = np.ceil(np.asarray(sizes) * (_CELLS / max(limit, 1e-30)) - 1e-9).astype(int)
    best, taken = np.zeros(_CELLS + 1), []
    for size, value in zip(cells, values, strict=True):
        with_item = np.full(_CELLS + 1, -np.inf)
        with_item[size:] = best[: max(0, _CELLS + 1 - size)] + value
        taken.append(with_item > best)
        best = np.maximum(best, with_item)
    found, room = [], _CELLS
    for index in reversed(range(len(sizes))):
        if taken[index][room]:
            found.append(index)
            room -= cells[index]
    return found[::-1]


def _losses(model: Any, layers: Sequence[Any], data: ExampleData) -> np.ndarray:
    """The change of the outputs for each layer with 4 bits alone, in nats or relative."""
    batches = input_batches(spread(data, EXAMPLES), _BATCH)
    fitting, testing = batches[0::2], batches[1::2] or batches
    changes = {id(change.layer): change for change in _changes(model, layers, fitting)}
    effects = effects_on_outputs(model, list(changes.values()), testing)
    by_layer = dict(zip(changes, effects, strict=True))
    return np.array([by_layer[id(layer)] for layer in layers])


def _changes(model: Any, layers: Sequence[Any], batches: Sequence[Any]) -> Iterator[KernelChange]:
    """What rounding does to each kernel alone."""
    norms = layers_of(model, keras.layers.BatchNormalization)
    for place in visit(model, batches, [*layers, *norms]):
        if any(place.layer is layer for layer in layers):
            yield _change(place)


def _change(place: Visit) -> KernelChange:
    layer, largest = place.layer, largest_integer(4)
    kernel, weights = RoundedKernel(layer), to_rows(layer, layer.kernel)
    if unsupported_reason(kernel) is not None:
        scales = least_error_scales(weights, np.ones(weights.shape[1]), largest)
        rounded = nearest_values(weights, scales, largest)
        return KernelChange(layer, to_kernel(layer, rounded - weights), np.zeros(1))
    central = takes_mean(place)
    moments = measure(kernel, place.inputs, place.inputs, _ROWS, central)
    hessian, _ = shrink(weights, moments.hessian, None, moments.shrinkage(_SHRINKAGE))
    found = round_rows(weights, hessian, 4, keep=weights != 0)
    shift = moments.mean_output(found.weights - weights) if central else np.zeros(1)
    return KernelChange(layer, to_kernel(layer, found.weights - weights), shift)
