"""What pruning one kernel does to a layer and to the outputs of its model, on unlabeled examples.

:func:`probes` runs a model once, and measures the moments of each kernel's inputs on two halves of
the examples. :func:`slopes_of` then runs it once for each kernel, with half of this kernel pruned,
for the change of the model's outputs per unit of the layer's error. The spread of zeros
(:mod:`tfnas.pruning.allocation`) and the importance of channels
(:mod:`tfnas.pruning.structured.surgeon_importance`) are made of these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.batchnorm import layers_of
from tfnas.graph.divergence import divergence, outputs_of
from tfnas.graph.traversal import Visit, visit
from tfnas.pruning.input_moments import (
    InputMoments,
    measure,
    quadratic,
    sample_of_rows,
    to_kernel,
    to_rows,
    unsupported_reason,
)
from tfnas.pruning.optimal_brain_surgeon import Start, cheapest, shrink
from tfnas.pruning.prunable_kernels import PrunableKernel
from tfnas.pruning.reconstruct import output_scale, takes_mean

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """A kernel with its errors, and pruned weights whose effect on the outputs is measured.

    Args:
        kernel: The kernel.
        place: Its layer, without inputs.
        levels: Sparsities.
        errors: Relative output error of the layer at each level, on held-out examples.
        pruned: Weights of which half is pruned, (rows, inputs).
        error: Relative output error with these, on held-out examples.
        shift: Change of the mean outputs with these, (rows,).
    """

    kernel: Any
    place: Visit
    levels: tuple[float, ...]
    errors: tuple[float, ...]
    pruned: np.ndarray
    error: float
    shift: np.ndarray


def probes(
    model: keras.Model,
    kernels: Sequence[PrunableKernel],
    batches: Sequence[Any],
    levels: tuple[float, ...] = (),
    shrinkage: float = 0.3,
    rows: int = 30_000,
) -> Iterator[tuple[Probe, InputMoments]]:
    """Yields each kernel that can be fitted, and the moments of its inputs, in one run of a model.

    Args:
        model: A built Keras 3 model.
        kernels: Its kernels.
        batches: Inputs, of :func:`tfnas.graph.batchnorm.input_batches`; at least 2 batches.
        levels: Sparsities at which the layers' errors are measured; none: only what
            :func:`slopes_of` needs.
        shrinkage: Least shrinkage of the moments to their diagonal, in [0, 1].
        rows: Approximate number of patches that are read of each layer, in each half of the
            examples.

    Yields:
        The probe, and the moments over all examples.

    Raises:
        ValueError: There are fewer than two batches, or they do not match the model.
    """
    import keras

    if len(batches) < 2:
        raise ValueError(f"data must hold at least 2 batches, got {len(batches)}")
    fitted = {id(k.layer): k for k in kernels if unsupported_reason(k) is None}
    norms = layers_of(model, keras.layers.BatchNormalization)
    for place in visit(model, batches, [*(k.layer for k in fitted.values()), *norms]):
        if id(place.layer) in fitted:
            yield _probed(fitted[id(place.layer)], place, shrinkage, rows, levels)


def slopes_of(model: keras.Model, found: Sequence[Probe], batches: Sequence[Any]) -> list[float]:
    """Returns the change of a model's outputs per unit of each kernel's error.

    Args:
        model: The model of the probes.
        found: The probes, of :func:`probes`.
        batches: The batches that they were measured on.
    """
    held_out = batches[1::2]
    expected = outputs_of(model, held_out)
    slopes = []
    for probe in found:
        slope = 0.0
        if probe.error > 0:
            with _pruned(probe):
                slope = divergence(expected, outputs_of(model, held_out)) / probe.error
        slopes.append(slope)
    return slopes


def _probed(
    kernel: Any, place: Visit, shrinkage: float, rows: int, levels: tuple[float, ...]
) -> tuple[Probe, InputMoments]:
    central = takes_mean(place)
    fitting, testing = (
        measure(kernel, half.inputs, half.inputs, rows, central)
        for half in (place.half(0), place.half(1))
    )
    weights = to_rows(place.layer, place.layer.kernel)
    scale = output_scale(place)
    amount = fitting.shrinkage(shrinkage)
    errors = tuple(_errors(weights, fitting, testing, scale, amount, levels)) if levels else ()
    power = np.diagonal(fitting.hessian, axis1=-2, axis2=-1)
    keep = cheapest(scale[:, None] * weights**2 * power, weights.size // 2)
    pruned = weights * keep
    shift = fitting.mean_output(pruned - weights)
    error = testing.error(pruned, weights, scale)
    place = dataclasses.replace(place, inputs=(), beside=())  # frees the memory of the inputs
    probe = Probe(kernel, place, levels, errors, pruned, error, shift)
    return probe, fitting.together(testing)


def _errors(
    weights: np.ndarray,
    fitting: InputMoments,
    testing: InputMoments,
    scale: np.ndarray,
    amount: float,
    levels: Sequence[float],
) -> Iterator[float]:
    """The error at each level, estimated from a sample of the rows."""
    sample = sample_of_rows(weights.shape)
    part = weights[sample]
    cross = fitting.cross(weights)[sample]
    start = Start(*shrink(part, fitting.of_rows(sample).hessian, cross, amount))
    cost = scale[sample, None] * start.weights**2 / start.spread
    held_out = testing.of_rows(sample).hessian
    power = float(scale[sample] @ quadratic(part, held_out))
    for level in levels:
        solved, _ = start.without(cheapest(cost, int(level * cost.size)))
        error = float(scale[sample] @ quadratic(solved - part, held_out))
        yield error / power if power > 0 else 0.0


class _pruned:
    """Context in which one kernel is pruned, and the shift of its outputs' means corrected."""

    def __init__(self, probe: Probe) -> None:
        layer, norm = probe.place.layer, probe.place.successor
        self._new = [(layer.kernel, to_kernel(layer, probe.pruned))]
        if getattr(layer, "use_bias", False):
            self._new.append((layer.bias, np.asarray(layer.bias) - probe.shift))
        elif takes_mean(probe.place):
            self._new.append((norm.moving_mean, np.asarray(norm.moving_mean) + probe.shift))
        self._old = [(variable, np.array(variable)) for variable, _ in self._new]

    def __enter__(self) -> None:
        for variable, value in self._new:
            variable.assign(value.astype(np.float32))

    def __exit__(self, *error: Any) -> None:
        for variable, value in self._old:
            variable.assign(value)
