"""Repairing a pruned model without labels: each layer is fitted to what the original gave.

The model is walked front to back (:func:`tfnas.graph.traversal.visit`), the original beside it.
At each kernel the inputs in the model as repaired so far, x', and in the original, x, give
the second moments of a least-squares problem

    min over W'  of  mean |W' x' - W x|^2 ,   W' zero where pruned,

solved in closed form by :mod:`tfnas.pruning.optimal_brain_surgeon`, which also chooses the zeros if
asked to. Moments are central where a bias or a BatchNormalization follows, which then takes up the
difference of the means. At each BatchNormalization mean and variance move as those of its
inputs did between the two models: the difference of two measurements on the same examples is
less noisy than a new measurement. A layer whose output is added to a shortcut is also asked for
what the shortcut lacks by then, so that errors do not pile up along it.

A convolution is a matrix product over patches; patches are sampled at the same random
positions in both models. What is no such product (transposed convolutions, recurrent cells,
EinsumDense, embeddings) is left as it was, and the reason told.

References:
    Frantar, Singh and Alistarh, "Optimal Brain Compression", NeurIPS 2022 (layer-wise problem,
    inputs of the compressed model, corrected statistics).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.graph.batchnorm import channel_statistics, input_batches, layers_of, move_statistics
from tfnas.graph.traversal import Visit, visit
from tfnas.pruning.input_moments import (
    InputMoments,
    Wish,
    hindrance,
    measure,
    measure_wish,
    to_kernel,
    to_rows,
)
from tfnas.pruning.optimal_brain_surgeon import obs_prune, refit, shrink


def reconstruct(
    model: Any,
    original: Any,
    kernels: Sequence[Any],
    data: Any,
    *,
    zeros: Mapping[str, int] | None = None,
    keep: Mapping[str, np.ndarray] | None = None,
    shrinkage: float = 0.3,
    rounds: int = 4,
    rows: int = 60_000,
    batch_size: int = 32,
) -> dict[str, tuple[float, float] | str]:
    """Fits the kernels of a pruned model to the outputs of the original's layers.

    Args:
        model: A copy of `original`, changed in place.
        original: The model before pruning, of the same structure.
        kernels: Records of :func:`tfnas.pruning.prunable_kernels.find_kernels` of `model`; of these
            those named in `zeros` or `keep` are fitted.
        data: Unlabeled inputs, as for :func:`tfnas.data.batches`; a few hundred examples.
        zeros: Kernel's name -> number of weights to remove, chosen here by what the output
            loses (0 only fits the kernel to the changed inputs).
        keep: Kernel's name -> boolean array of the kernel's shape, False where it is zero.
        shrinkage: How far the moments are drawn to their diagonal, in [0, 1]; layers that
            see few examples for their inputs, as a Dense one does, are drawn further.
        rounds: Rounds of removing and fitting, for `zeros`.
        rows: About how many patches are read of each layer.
        batch_size: Examples a forward pass.

    Returns:
        Kernel's name -> error of the layer's output relative to the original output's
        variance, (with the given weights masked, fitted); or why it was left as it was.

    Raises:
        ValueError: A name is not among the kernels, a kernel is in both `zeros` and `keep`,
            or the data does not fit.
    """
    import keras

    zeros, keep = dict(zeros or {}), dict(keep or {})
    _check_names(kernels, zeros, keep)
    wanted = [k for k in kernels if k.name in zeros or k.name in keep]
    told: dict[str, tuple[float, float] | str] = {
        kernel.name: hindrance(kernel) or "its layer is not used" for kernel in wanted
    }
    fitted = {id(k.layer): k for k in wanted if not hindrance(k)}
    partners = {id(a): b for a, b in _pairs(model, original)}
    norms = layers_of(model, keras.layers.BatchNormalization)
    places = [*(k.layer for k in fitted.values()), *norms]
    batches = input_batches(data, batch_size)
    before = visit(original, batches, [partners[id(layer)] for layer in places])
    for here, there in zip(visit(model, batches, places), before, strict=True):
        kernel = fitted.get(id(here.layer))
        if kernel is None:
            measured = channel_statistics(here.layer, here.inputs)
            before_it = channel_statistics(there.layer, there.inputs)
            move_statistics(here.layer, measured, there.layer, before_it)
            continue
        problem = _problem(kernel, here, there, rows, shrinkage)
        told[kernel.name] = problem.solve(
            here, there, zeros.get(kernel.name), keep.get(kernel.name), rounds
        )
    return told


@dataclasses.dataclass(frozen=True, eq=False)
class _Problem:
    """The least-squares problem of one kernel.

    Args:
        kernel: The kernel.
        moments: Of its inputs in both models.
        weights: The original's, (rows, inputs).
        wish: What is wanted of the output besides the original's, or None.
        amount: How far the moments are drawn to their diagonal.
    """

    kernel: Any
    moments: InputMoments
    weights: np.ndarray
    wish: Wish | None
    amount: float

    def solve(
        self,
        here: Visit,
        there: Visit,
        zeros: int | None,
        keep: np.ndarray | None,
        rounds: int,
    ) -> tuple[float, float]:
        """Sets the kernel and its bias; returns the relative errors before and after."""
        moments, weights, scale = self.moments, self.weights, output_scale(there)
        cross = moments.cross(weights) + (0.0 if self.wish is None else self.wish.cross)
        hessian, drawn = shrink(weights, moments.hessian, cross, self.amount)
        if zeros is None:
            kept = to_rows(here.layer, keep).astype(bool)
            solved = refit(weights, kept, hessian, drawn)
        else:
            pruned = obs_prune(weights, hessian, zeros, drawn, scale, rounds)
            kept, solved = pruned.keep, pruned.weights
        self.kernel.variable.assign(to_kernel(here.layer, solved))
        if _has_bias(here.layer) and moments.central:
            shift = moments.mean_output(weights, original=True) - moments.mean_output(solved)
            here.layer.bias.assign(np.asarray(there.layer.bias) + shift.astype(np.float32))
        before, after = (
            moments.error(w, weights, scale, self.wish) for w in (weights * kept, solved)
        )
        return before, after


def _problem(kernel: Any, here: Visit, there: Visit, rows: int, shrinkage: float) -> _Problem:
    moments = measure(kernel, here.inputs, there.inputs, rows, takes_mean(here))
    weights = to_rows(there.layer, there.layer.kernel)
    wish = None
    if here.beside and there.beside and not kernel.depthwise and moments.central:
        gaps = _gaps(here, there)
        wish = measure_wish(kernel, here.inputs, there.inputs, gaps, weights, rows)
    return _Problem(kernel, moments, weights, wish, moments.shrinkage(shrinkage))


def _gaps(here: Visit, there: Visit) -> list[np.ndarray]:
    """What the other summand lacks, batch by batch: this layer's output can make up for it."""
    gain = _gain(there).astype(np.float32)
    return [
        (np.asarray(wanted) - np.asarray(given)) / gain
        for given, wanted in zip(here.beside, there.beside, strict=True)
    ]


def _gain(place: Visit) -> np.ndarray:
    """What the BatchNormalization behind a layer multiplies its outputs by, never 0."""
    norm = _norm(place)
    if norm is None:
        return np.ones(1)
    gamma = np.asarray(norm.gamma, np.float64) if norm.scale else 1.0
    gain = gamma / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    floor = 0.03 * float(np.sqrt((gain**2).mean()))  # a channel that is shut can't make up
    return np.where(np.abs(gain) < floor, np.inf, gain)


def output_scale(place: Visit) -> np.ndarray:
    """What a squared error of each output counts: by the BatchNormalization behind it."""
    rows = to_rows(place.layer, place.layer.kernel).shape[0]
    gain = _gain(place)
    scale = np.where(np.isinf(gain), 0.0, gain) ** 2 * np.ones(rows)
    return np.maximum(scale, 1e-3 * max(float(scale.mean()), 1e-30))  # no row is lost


def _has_bias(layer: Any) -> bool:
    return bool(getattr(layer, "use_bias", False))


def takes_mean(place: Visit) -> bool:
    """Whether something behind the kernel takes up a difference of the means."""
    return _has_bias(place.layer) or _norm(place) is not None


def _norm(place: Visit) -> Any:
    """The BatchNormalization right behind a layer that has no activation, or None."""
    import keras

    behind = place.successor
    linear = getattr(place.layer, "activation", None) is keras.activations.linear
    if not linear or not isinstance(behind, keras.layers.BatchNormalization):
        return None
    return behind if behind.axis in (-1, behind.input_spec.ndim - 1) else None


def _pairs(model: Any, original: Any) -> list[tuple[Any, Any]]:
    ours, theirs = list(model._flatten_layers()), list(original._flatten_layers())
    if [type(layer) for layer in ours] != [type(layer) for layer in theirs]:
        raise ValueError(
            f"original must have the same layers as model, got {len(theirs)} and {len(ours)}"
        )
    return list(zip(ours, theirs, strict=True))


def _check_names(
    kernels: Sequence[Any], zeros: Mapping[str, int], keep: Mapping[str, np.ndarray]
) -> None:
    names = {kernel.name for kernel in kernels}
    for what, given in (("zeros", zeros), ("keep", keep)):
        unknown = sorted(set(given) - names)
        if unknown:
            raise ValueError(f"{what} must name kernels, got {', '.join(unknown)}")
    both = sorted(set(zeros) & set(keep))
    if both:
        raise ValueError(f"a kernel must be in zeros or in keep, got {', '.join(both)} in both")
