"""Reconstruction of a pruned model without labels: fits each layer to the original's output.

The model and the original are traversed front to back (:func:`tfnas.graph.traversal.visit`). At
each kernel the inputs x' in the model, with all earlier layers reconstructed, and the inputs x
in the original give the second moments of a least-squares problem

    min over W'  of  mean |W' x' - W x|^2 ,   W' zero where pruned,

solved in closed form by :mod:`tfnas.pruning.optimal_brain_surgeon`, which can also select the
zeros. If the layer has a bias or is followed by a BatchNormalization, means are subtracted from
the moments, and the bias or the moving mean corrects their difference. The moving mean and
variance of each BatchNormalization change by as much as those of its inputs differ between the
two models: the difference of two measurements on the same examples is less noisy than a new
measurement. A layer whose output is added to a shortcut also corrects the error of the shortcut,
so that errors do not accumulate along it.

A convolution is a matrix product over patches, which are sampled at the same random positions
in both models. Other layers (transposed convolutions, recurrent cells, EinsumDense, embeddings)
are not changed, and the result has the reason.

References:
    Frantar, Singh and Alistarh, "Optimal Brain Compression", NeurIPS 2022 (layer-wise problem,
    inputs of the compressed model, corrected statistics).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.batchnorm import adapt_statistics, input_batches, layers_of
from tfnas.graph.traversal import Visit, visit_both
from tfnas.keras_private import all_layers
from tfnas.pruning.input_moments import (
    GapMoments,
    InputMoments,
    measure,
    measure_gap,
    sample_of_rows,
    to_kernel,
    to_rows,
    unsupported_reason,
)
from tfnas.pruning.optimal_brain_surgeon import obs_prune, refit, shrink
from tfnas.pruning.prunable_kernels import PrunableKernel

if TYPE_CHECKING:
    import keras


def reconstruct(
    model: keras.Model,
    original: keras.Model,
    kernels: Sequence[PrunableKernel],
    data: Any,
    *,
    zeros: Mapping[str, int] | None = None,
    keep: Mapping[str, np.ndarray] | None = None,
    shrinkage: float = 0.3,
    rounds: int = 4,
    rows: int = 60_000,
    batch_size: int = 32,
) -> dict[str, tuple[float, float] | str]:
    """Fits the kernels of a pruned model to the outputs of the original layers.

    Args:
        model: A copy of `original`, changed in place.
        original: The model before pruning, of the same structure.
        kernels: Kernels of `model`, of :func:`tfnas.pruning.prunable_kernels.find_kernels`;
            those named in `zeros` or `keep` are fitted.
        data: Unlabeled inputs, as for :func:`tfnas.data.batches`; a few hundred examples.
        zeros: Maps the name of a kernel to the number of weights to remove, selected by the
            change of the output (0 only fits the kernel to the changed inputs).
        keep: Maps the name of a kernel to a mask of its shape, boolean, False for zeros.
        shrinkage: Least shrinkage of the moments to their diagonal, in [0, 1]; layers with few
            patches for their number of inputs, as Dense layers, get more.
        rounds: Number of rounds of removing and fitting, for `zeros`.
        rows: Approximate number of patches that are read of each layer.
        batch_size: Number of examples per forward pass.

    Returns:
        Maps the name of each kernel to the error of its layer's output relative to the variance
        of the original output, (masked only, fitted); or to the reason why it was not fitted.

    Raises:
        ValueError: A name matches no kernel, a kernel is in both `zeros` and `keep`, or the
            data does not match the model.
    """
    import keras

    zeros, keep = dict(zeros or {}), dict(keep or {})
    _check_names(kernels, zeros, keep)
    results: dict[str, tuple[float, float] | str] = {}
    fitted = {}
    for kernel in (k for k in kernels if k.name in zeros or k.name in keep):
        reason = unsupported_reason(kernel)
        results[kernel.name] = reason or "its layer is not used"
        if reason is None:
            fitted[id(kernel.layer)] = kernel
    partners = {id(a): b for a, b in _pairs(model, original)}
    norms = layers_of(model, keras.layers.BatchNormalization)
    stops = [*(k.layer for k in fitted.values()), *norms]
    batches = input_batches(data, batch_size)
    theirs = [partners[id(layer)] for layer in stops]
    for pruned, unpruned in visit_both((model, stops), (original, theirs), batches):
        if (found := fitted.get(id(pruned.layer))) is None:
            adapt_statistics(pruned, unpruned)
            continue
        problem = layer_problem(found, pruned, unpruned, rows, shrinkage)
        results[found.name] = problem.solve(
            pruned, unpruned, zeros.get(found.name), keep.get(found.name), rounds
        )
    return results


_AMOUNTS = (0.05, 0.2, 0.5, 0.8, 0.95, 1.0)  # of shrinkage, from a free fit to none


@dataclasses.dataclass(frozen=True, eq=False)
class LayerProblem:
    """The least-squares problem of one kernel.

    Args:
        kernel: The kernel.
        moments: Moments of its inputs in both models.
        weights: Weights of the original, (rows, inputs).
        gap: Moments of the shortcut's error, which the layer corrects too; None: no shortcut.
        amount: Shrinkage of the moments to their diagonal, in [0, 1].
        halves: The problems of either half of the examples; empty where they were not asked for,
            or there is one batch.
    """

    kernel: Any
    moments: InputMoments
    weights: np.ndarray
    gap: GapMoments | None
    amount: float
    halves: tuple[LayerProblem, ...] = ()

    def shrunk(self, amount: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the Hessian, and the moments of inputs and target, both shrunk.

        Args:
            amount: Of shrinkage, in [0, 1]; None: that of the problem.
        """
        cross = self.moments.cross(self.weights) + (0.0 if self.gap is None else self.gap.cross)
        amount = self.amount if amount is None else amount
        return shrink(self.weights, self.moments.hessian, cross, amount)

    def target(self, keep: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Returns the weights of least error, as near to the original's as other examples ask for.

        The errors that a layer can correct are small beside what some hundred examples leave open,
        where only activations are rounded: a free fit to half of the examples may be worse than
        the original weights on the other half. So the shrinkage is chosen that is best there.

        Args:
            keep: (rows, inputs), True for weights that may be nonzero.
            scale: Weight of each row's error, (rows,).
        """
        amount = 0.0
        if self.halves:
            sample = sample_of_rows(self.weights.shape)
            halves = [half.of_rows(sample) for half in self.halves]
            own = keep[sample], scale[sample]
            amount = min(_AMOUNTS, key=lambda each: _held_out_error(halves, each, *own))
        return refit(self.weights, keep, *self.shrunk(max(amount, self.amount)))

    def of_rows(self, rows: np.ndarray) -> LayerProblem:
        """Returns the problem of some of the rows.

        Args:
            rows: Their numbers.
        """
        gap = None if self.gap is None else self.gap.of_rows(rows)
        moments, weights = self.moments.of_rows(rows), self.weights[rows]
        return dataclasses.replace(self, moments=moments, weights=weights, gap=gap)

    def solve(
        self,
        pruned: Visit,
        unpruned: Visit,
        zeros: int | None,
        keep: np.ndarray | None,
        rounds: int,
    ) -> tuple[float, float]:
        """Sets the kernel and its bias; returns the relative errors (masked only, fitted)."""
        weights, scale = self.weights, output_scale(unpruned)
        hessian, cross = self.shrunk()
        if zeros is None:
            kept = to_rows(pruned.layer, keep).astype(bool)
            solved = refit(weights, kept, hessian, cross)
        else:
            result = obs_prune(weights, hessian, zeros, cross, scale, rounds)
            kept, solved = result.keep, result.weights
        self.assign(pruned, unpruned, solved)
        return self.error(weights * kept, scale), self.error(solved, scale)

    def assign(self, pruned: Visit, unpruned: Visit, solved: np.ndarray) -> None:
        """Sets the kernel, and the bias so that the mean of the output stays.

        Args:
            pruned: The layer in the compressed model.
            unpruned: The layer in the original.
            solved: The weights, (rows, inputs).
        """
        moments = self.moments
        self.kernel.variable.assign(to_kernel(pruned.layer, solved))
        if _has_bias(pruned.layer) and moments.central:
            shift = moments.mean_output(self.weights, original=True) - moments.mean_output(solved)
            pruned.layer.bias.assign(np.asarray(unpruned.layer.bias) + shift.astype(np.float32))

    def error(self, solved: np.ndarray, scale: np.ndarray) -> float:
        """Returns the squared output error relative to the mean square of the original output.

        Args:
            solved: Weights, (rows, inputs).
            scale: Weight of each row's error, (rows,).
        """
        return self.moments.error(solved, self.weights, scale, self.gap)


def _held_out_error(
    halves: Sequence[LayerProblem], amount: float, keep: np.ndarray, scale: np.ndarray
) -> float:
    """Error of a fit to one half of the examples on the other, both ways round."""
    error = 0.0
    for one, other in itertools.permutations(halves):
        shrunk = one.shrunk(max(amount, one.amount))
        error += other.error(refit(one.weights, keep, *shrunk), scale)
    return error


def layer_problem(
    kernel: Any, pruned: Visit, unpruned: Visit, rows: int, shrinkage: float, halves: bool = False
) -> LayerProblem:
    """Returns the problem of one kernel.

    Args:
        kernel: Has the `layer`, its `variable` and a `name`, and says whether it is `depthwise`.
        pruned: The layer in the compressed model.
        unpruned: The layer in the original.
        rows: Approximate number of patches to read.
        shrinkage: Least shrinkage of the moments.
        halves: Whether the problems of either half of the batches are kept too.
    """
    if halves and pruned.batches > 1:
        parts = ((pruned.half(i), unpruned.half(i)) for i in range(2))
        one, other = (layer_problem(kernel, *part, rows // 2, shrinkage) for part in parts)
        return _joined(one, other, shrinkage)
    moments = measure(kernel, pruned.inputs, unpruned.inputs, rows, takes_mean(pruned))
    weights = to_rows(unpruned.layer, unpruned.layer.kernel)
    gap = None
    if pruned.beside and unpruned.beside and not kernel.depthwise and moments.central:
        gaps = _gaps(pruned, unpruned)
        gap = measure_gap(kernel, pruned.inputs, unpruned.inputs, gaps, weights, rows)
    return LayerProblem(kernel, moments, weights, gap, moments.shrinkage(shrinkage))


def _joined(one: LayerProblem, other: LayerProblem, shrinkage: float) -> LayerProblem:
    """The problem of all examples, by those of its halves."""
    moments = one.moments.together(other.moments)
    gap = None
    if one.gap is not None and other.gap is not None:
        gap = one.gap.together(other.gap, one.moments.count / moments.count)
    amount, halves = moments.shrinkage(shrinkage), (one, other)
    return LayerProblem(one.kernel, moments, one.weights, gap, amount, halves)


def _gaps(pruned: Visit, unpruned: Visit) -> Iterator[np.ndarray]:
    """The error of the shortcut, one array per batch, in units of this layer's output."""
    gain = _gain(unpruned).astype(np.float32)
    for present, original in zip(pruned.beside, unpruned.beside, strict=True):
        yield (np.asarray(original) - np.asarray(present)) / gain


def _gain(place: Visit) -> np.ndarray:
    """The factor per channel of the BatchNormalization after a layer; inf where it is near 0."""
    norm = _norm(place)
    if norm is None:
        return np.ones(1)
    gamma = np.asarray(norm.gamma, np.float64) if norm.scale else 1.0
    gain = gamma / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    floor = 0.03 * float(np.sqrt((gain**2).mean()))
    return np.where(np.abs(gain) < floor, np.inf, gain)


def output_scale(place: Visit) -> np.ndarray:
    """Returns the weight of each output's squared error, by the BatchNormalization after it.

    Args:
        place: A layer with its inputs and the calls after it.
    """
    rows = to_rows(place.layer, place.layer.kernel).shape[0]
    gain = _gain(place)
    scale = np.where(np.isinf(gain), 0.0, gain) ** 2 * np.ones(rows)
    return np.maximum(scale, 1e-3 * max(float(scale.mean()), 1e-30))  # no row has weight 0


def _has_bias(layer: Any) -> bool:
    return bool(getattr(layer, "use_bias", False))


def takes_mean(place: Visit) -> bool:
    """Returns whether a bias or a BatchNormalization can correct a difference of the means.

    Args:
        place: A layer with its inputs and the calls after it.
    """
    return _has_bias(place.layer) or _norm(place) is not None


def _norm(place: Visit) -> Any:
    """The BatchNormalization directly after a layer without activation, or None."""
    import keras

    successor = place.successor
    linear = getattr(place.layer, "activation", None) is keras.activations.linear
    if not linear or not isinstance(successor, keras.layers.BatchNormalization):
        return None
    return successor if successor.axis in (-1, successor.input_spec.ndim - 1) else None


def _pairs(model: Any, original: Any) -> list[tuple[Any, Any]]:
    ours, theirs = all_layers(model), all_layers(original)
    if [type(layer) for layer in ours] != [type(layer) for layer in theirs]:
        raise ValueError(
            f"original must have the same layers as model, got {len(theirs)} and {len(ours)}"
        )
    return list(zip(ours, theirs, strict=True))


def _check_names(
    kernels: Sequence[Any], zeros: Mapping[str, int], keep: Mapping[str, np.ndarray]
) -> None:
    names = {kernel.name for kernel in kernels}
    for argument, by_name in (("zeros", zeros), ("keep", keep)):
        unknown = sorted(set(by_name) - names)
        if unknown:
            raise ValueError(f"{argument} must name kernels, got {', '.join(unknown)}")
    both = sorted(set(zeros) & set(keep))
    if both:
        raise ValueError(f"a kernel must be in zeros or in keep, got {', '.join(both)} in both")
