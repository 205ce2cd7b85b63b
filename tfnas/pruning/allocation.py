"""How much to prune of each layer, chosen with unlabeled examples only.

Layers differ by orders of magnitude in what their errors cost: a block with a shortcut
around it forgives what the last convolutions do not. :func:`measure_curves` measures for
each kernel

    effect(ratio) = slope * error(ratio),

where error is the layer's relative output error after optimal-brain-surgeon pruning to that
ratio, fitted on one half of the examples and measured on the other, so that layers with more
inputs than the examples can determine show their real error; and slope is what one unit of
error does to the model's outputs, measured by running the model with that layer damaged.

:func:`distribute` then minimizes the sum of effects for a given number of zeros: with a price
per zero each layer chooses its own best ratio (:mod:`tfnas.pruning.budget_spread`). It takes no
time, so that one measurement serves any number of sparsities.

References:
    Frantar and Alistarh, "SPDY", ICML 2022 (allocation by measured layer errors).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfnas.graph.batchnorm import input_batches, layers_of
from tfnas.graph.divergence import divergence
from tfnas.graph.traversal import Visit, visit
from tfnas.pruning.budget_spread import spread
from tfnas.pruning.input_moments import (
    InputMoments,
    hindrance,
    measure,
    quadratic,
    to_kernel,
    to_rows,
)
from tfnas.pruning.optimal_brain_surgeon import Start, cheapest, shrink
from tfnas.pruning.reconstruct import output_scale, takes_mean

LEVELS = (0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9)
_GRID = np.linspace(0.0, 0.95, 96)


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """What pruning one kernel costs.

    Args:
        name: The kernel's name.
        size: Number of weights.
        levels: Ratios of zeros, ascending, in (0, 1).
        errors: Relative output error of the layer at each level, on held-out examples.
        slope: Change of the model's outputs that one unit of error brings: the divergence of
            class probabilities (nats an example), or the relative squared change.
    """

    name: str
    size: int
    levels: tuple[float, ...]
    errors: tuple[float, ...]
    slope: float

    def effects(self, ratios: np.ndarray) -> np.ndarray:
        """Returns the effect at each ratio: log-linear between levels, 0 at 0."""
        errors = np.log(np.maximum(np.maximum.accumulate(self.errors), 1e-9))
        levels = np.array([0.0, *self.levels])
        first = errors[0] - 4.0  # below the first level errors fall to nothing quickly
        effect = self.slope * np.exp(np.interp(ratios, levels, [first, *errors]))
        return np.where(ratios > 0, effect, 0.0)


def distribute(curves: Sequence[Curve], sparsity: float, total: int | None = None) -> Any:
    """Returns the ratio of zeros of each kernel that changes the outputs least.

    Example:
        >>> kinds = [Curve("a", 100, (0.5, 0.9), (0.1, 0.5), slope) for slope in (1.0, 0.01)]
        >>> kinds[1] = dataclasses.replace(kinds[1], name="b")
        >>> ratios = distribute(kinds, 0.4)
        >>> bool(ratios["b"] > ratios["a"]), round(sum(ratios.values()) / 2, 4)
        (True, 0.4)

    Args:
        curves: Curves of the kernels, of :func:`measure_curves`.
        sparsity: Share of zeros wanted, of all weights together.
        total: Number of weights that the share is of. None: those of `curves`.

    Returns:
        Kernel's name -> ratio.

    Raises:
        ValueError: So many zeros can't be had: no kernel loses more than 95%.
    """
    sizes = np.array([curve.size for curve in curves], np.float64)
    wanted = sparsity * (total or sizes.sum())
    if not 0 <= wanted <= _GRID[-1] * sizes.sum():
        raise ValueError(
            f"sparsity must leave 5% of the {int(sizes.sum())} weights that can be pruned, "
            f"got {sparsity!r} of {total or int(sizes.sum())}"
        )
    effects = np.stack([curve.effects(_GRID) for curve in curves])
    ratios = spread(
        [curve.size for curve in curves], _GRID[1:], effects[:, 1:], wanted / sizes.sum()
    )
    return {curve.name: ratio for curve, ratio in zip(curves, ratios, strict=True)}


def measure_curves(
    model: Any,
    kernels: Sequence[Any],
    data: Any,
    *,
    shrinkage: float = 0.3,
    rows: int = 30_000,
    batch_size: int = 32,
) -> list[Curve]:
    """Measures what pruning each kernel costs; the model is the same afterwards.

    Args:
        model: A built Keras 3 model, before pruning.
        kernels: Records of :func:`tfnas.pruning.prunable_kernels.find_kernels`; those that can't be
            fitted are left out.
        data: Unlabeled inputs, as for :func:`tfnas.data.batches`; at least 2 batches.
        shrinkage: As for :func:`tfnas.pruning.reconstruct.reconstruct`.
        rows: About how many patches are read of each layer.
        batch_size: Examples a forward pass.

    Raises:
        ValueError: The data holds fewer than two batches, or does not fit the model.
    """
    import keras

    batches = input_batches(data, batch_size)
    if len(batches) < 2:
        raise ValueError(f"data must hold at least 2 batches of {batch_size}, got {len(batches)}")
    known = {id(k.layer): k for k in kernels if hindrance(k) is None}
    norms = layers_of(model, keras.layers.BatchNormalization)
    probes: list[_Probe] = []
    for place in visit(model, batches, [*(k.layer for k in known.values()), *norms]):
        if id(place.layer) in known:
            probes.append(_probe(known[id(place.layer)], place, shrinkage, rows))
    held_out = batches[1::2]
    expected = _outputs(model, held_out)
    return [probe.curve(model, held_out, expected) for probe in probes]


@dataclasses.dataclass(frozen=True, eq=False)
class _Probe:
    """A kernel with its errors, and a damage whose effect on the model is to be measured."""

    kernel: Any
    place: Visit
    errors: tuple[float, ...]
    damaged: np.ndarray
    damage: float
    shift: np.ndarray

    def curve(self, model: Any, batches: Sequence[Any], expected: list[np.ndarray]) -> Curve:
        slope = 0.0
        if self.damage > 0:
            with _changed(self):
                slope = divergence(expected, _outputs(model, batches)) / self.damage
        return Curve(self.kernel.name, self.kernel.size, LEVELS, self.errors, slope)


def _probe(kernel: Any, place: Visit, shrinkage: float, rows: int) -> _Probe:
    uses = len(place.inputs)
    central = takes_mean(place)
    fitting, testing = (
        measure(kernel, half, half, rows, central)
        for half in (place.inputs[0:uses:2], place.inputs[1:uses:2])
    )
    weights = to_rows(place.layer, place.layer.kernel)
    scale = output_scale(place)
    amount = fitting.shrinkage(shrinkage)
    errors = tuple(_errors(weights, fitting, testing, scale, amount))
    power = np.diagonal(fitting.hessian, axis1=-2, axis2=-1)
    keep = cheapest(scale[:, None] * weights**2 * power, weights.size // 2)
    damaged = weights * keep
    shift = fitting.mean_output(damaged - weights)
    place = dataclasses.replace(place, inputs=())  # they are large
    return _Probe(kernel, place, errors, damaged, testing.error(damaged, weights, scale), shift)


def _errors(
    weights: np.ndarray,
    fitting: InputMoments,
    testing: InputMoments,
    scale: np.ndarray,
    amount: float,
) -> Iterator[float]:
    """The error at each level, of some rows that stand for all."""
    rows, inputs = weights.shape
    some = np.random.default_rng(0).permutation(rows)[: max(16, int(2e7 / inputs**2))]
    part = weights[some]
    own = fitting.hessian if fitting.hessian.ndim == 2 else fitting.hessian[some]
    cross = fitting.cross(weights)[some]
    start = Start(*shrink(part, own, cross, amount))
    cost = scale[some, None] * start.weights**2 / start.spread
    held = testing.hessian if testing.hessian.ndim == 2 else testing.hessian[some]
    power = float(scale[some] @ quadratic(part, held))
    for level in LEVELS:
        solved, _ = start.without(cheapest(cost, int(level * cost.size)))
        wrong = float(scale[some] @ quadratic(solved - part, held))
        yield wrong / power if power > 0 else 0.0


class _changed:
    """A model with one kernel damaged, the shift of its outputs' means undone."""

    def __init__(self, probe: _Probe) -> None:
        layer, norm = probe.place.layer, probe.place.successor
        self._new = [(layer.kernel, to_kernel(layer, probe.damaged))]
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


def _outputs(model: Any, batches: Sequence[Any]) -> list[np.ndarray]:
    import keras

    given = [keras.tree.flatten(model(batch, training=False)) for batch in batches]
    arrays = ([np.asarray(keras.ops.convert_to_numpy(t)) for t in batch] for batch in given)
    return [np.concatenate(parts).astype(np.float64) for parts in zip(*arrays, strict=True)]
