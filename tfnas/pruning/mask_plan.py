"""The masks of all kernels by criterion, granularity and scope; for `prune` and the callback."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfnas.graph.functional import Skipped
from tfnas.graph.layer_kernels import match
from tfnas.pruning.criteria import Criterion, scores
from tfnas.pruning.masks import Granularity, Units, granularity
from tfnas.pruning.prunable_kernels import PrunableKernel
from tfnas.pruning.scope import SCOPES, erdos_renyi_kernel, keep_by_sparsity, keep_globally
from tfnas.schedules import check_ratio

Scope = str | Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class MaskPlan:
    """The settings that determine the masks of a model's kernels.

    Args:
        criterion: See :mod:`tfnas.pruning.criteria`.
        granularity: See :mod:`tfnas.pruning.masks`.
        scope: See :mod:`tfnas.pruning.scope`.
        seed: Seed of the order of equal scores, and of criterion "random".

    Raises:
        ValueError: The scope is unknown or holds a sparsity outside [0, 1).
    """

    criterion: Criterion
    granularity: Granularity
    scope: Scope
    seed: int = 0

    @classmethod
    def of(
        cls,
        criterion: Criterion,
        unit: str | tuple[int, int] | Granularity,
        scope: Scope,
        seed: int = 0,
    ) -> MaskPlan:
        """Returns a plan from the arguments of :func:`tfnas.prune`.

        Args:
            criterion: Importance of weights: a name, or a function of the weights.
            unit: The granularity, or its name, such as "1x4".
            scope: "layer", "global", "erk", or a dictionary of sparsities by layer.
            seed: Seed of the order of equal scores.
        """
        return cls(criterion, granularity(unit), scope, seed)

    def __post_init__(self) -> None:
        if isinstance(self.scope, Mapping):
            if not self.scope:
                raise ValueError("scope must name a layer, got an empty dictionary")
            for name, value in self.scope.items():
                check_ratio(value, f"for {name!r}", "scope")
        elif self.scope not in SCOPES:
            raise ValueError(
                f"scope must be one of {', '.join(SCOPES)} or a dictionary of sparsities by layer, "
                f"got {self.scope!r}"
            )

    def admit(
        self, kernels: Sequence[PrunableKernel]
    ) -> tuple[list[PrunableKernel], list[Skipped]]:
        """Returns the kernels that the granularity fits, and the others with the reason.

        Args:
            kernels: The selected kernels of a model.

        Raises:
            ValueError: N:M does not divide a kernel, the granularity fits no kernel, or a name
                of the scope matches no kernel.
        """
        fits, skipped = [], []
        for kernel in kernels:
            try:
                reason = self.granularity.check(file_shape(kernel), kernel.filters)
            except ValueError as error:
                raise ValueError(f"{error} (layer {kernel.name!r}; exclude it)") from error
            if reason is None:
                fits.append(kernel)
            else:
                skipped.append(Skipped(kernel.name, kernel.kind, reason))
        if not fits:
            raise ValueError(
                f"granularity {self.granularity.text!r} must fit a kernel, got none of "
                f"{', '.join(kernel.name for kernel in kernels[:8])}"
            )
        if isinstance(self.scope, Mapping):
            for pattern in self.scope:
                if not any(match(kernel, pattern) for kernel in fits):
                    raise ValueError(f"scope must name layers with a kernel, got {pattern!r}")
        return fits, skipped

    def sparsities(
        self, kernels: Sequence[PrunableKernel], sparsity: float, progress: float = 1.0
    ) -> list[float]:
        """Returns the target sparsity of each kernel; with a global scope, the common one.

        Args:
            kernels: The kernels.
            sparsity: The common sparsity, in [0, 1).
            progress: Sparsity of the schedule relative to its peak, in [0, 1]. The sparsities
                of a dictionary are multiplied by it.
        """
        if isinstance(self.scope, Mapping):
            return [self._own(kernel, sparsity, progress) for kernel in kernels]
        if self.scope == "erk" and sparsity:
            return erdos_renyi_kernel([kernel.shape for kernel in kernels], sparsity)
        return [sparsity] * len(kernels)

    def check_reachable(self, sparsities: Sequence[float]) -> None:
        """Checks that the granularity allows the sparsities.

        Args:
            sparsities: Sparsities of kernels, in [0, 1).

        Raises:
            ValueError: One of them is above what the granularity allows.
        """
        highest = self.granularity.max_sparsity
        if max(sparsities, default=0.0) > highest + 1e-9:
            raise ValueError(
                f"sparsity must be at most {highest:g} with granularity "
                f"{self.granularity.text!r}, got {max(sparsities):g}"
            )

    def masks(
        self,
        kernels: Sequence[PrunableKernel],
        weights: Sequence[np.ndarray],
        gradients: Sequence[np.ndarray] | None,
        sparsity: float,
        progress: float = 1.0,
    ) -> list[np.ndarray]:
        """Returns the mask of each kernel, boolean, of the kernel's shape; False is pruned.

        Args:
            kernels: The kernels.
            weights: Their values.
            gradients: Mean absolute gradients, where the criterion needs them.
            sparsity: Fraction of weights to prune, in [0, 1).
            progress: As for :meth:`sparsities`.

        Raises:
            ValueError: The sparsity is above what the granularity allows, or scores are NaN.
        """
        sparsities = self.sparsities(kernels, sparsity, progress)
        self.check_reachable(sparsities)
        all_scores = self._scores(kernels, weights, gradients)
        units = self._units(kernels, all_scores)
        sizes = [kernel.size for kernel in kernels]
        keep_best = self.granularity.max_sparsity == 1.0  # N:M never empties a kernel
        if self.scope == "global":
            kept = keep_globally(units, sizes, sparsity, self.seed, keep_best)
        else:
            kept = keep_by_sparsity(units, sizes, sparsities, self.seed, keep_best)
        return self._unit_masks(kernels, all_scores, kept)

    def present_masks(
        self,
        kernels: Sequence[PrunableKernel],
        weights: Sequence[np.ndarray],
        sparsity: float,
        progress: float,
    ) -> list[np.ndarray] | None:
        """Returns the present zeros as masks, None if they are no masks of this plan.

        Args:
            kernels: The kernels.
            weights: Their values.
            sparsity: Sparsity of the plan, in (0, 1).
            progress: As for :meth:`sparsities`.
        """
        # Magnitude prunes zeros first, so if the present zeros are masks of this plan, then
        # pruning by magnitude selects exactly them.
        by_magnitude = dataclasses.replace(self, criterion="magnitude")
        found = by_magnitude.masks(kernels, weights, None, sparsity, progress)
        present = [values != 0 for values in weights]
        return present if all(map(np.array_equal, found, present)) else None

    def masks_above(
        self,
        kernels: Sequence[PrunableKernel],
        weights: Sequence[np.ndarray],
        gradients: Sequence[np.ndarray] | None,
        threshold: float,
    ) -> list[np.ndarray]:
        """Returns masks that prune the units with a score below `threshold`.

        Args:
            kernels: The kernels.
            weights: Their values.
            gradients: Mean absolute gradients, where the criterion needs them.
            threshold: Lowest score of a unit that is kept.
        """
        all_scores = self._scores(kernels, weights, gradients)
        # In the precision of the weights, so that a threshold of 0.7 keeps a float32 weight of 0.7.
        kept = [
            units.scores.astype(values.dtype) >= values.dtype.type(threshold)
            for units, values in zip(self._units(kernels, all_scores), weights, strict=True)
        ]
        return self._unit_masks(kernels, all_scores, kept)

    def _own(self, kernel: PrunableKernel, sparsity: float, progress: float) -> float:
        assert isinstance(self.scope, Mapping)
        if kernel.name in self.scope:  # names take precedence over patterns
            return float(self.scope[kernel.name]) * progress
        for pattern, value in self.scope.items():
            if match(kernel, pattern):
                return float(value) * progress
        return sparsity

    def _scores(
        self,
        kernels: Sequence[PrunableKernel],
        weights: Sequence[np.ndarray],
        gradients: Sequence[np.ndarray] | None,
    ) -> list[np.ndarray]:
        by_kernel = gradients if gradients is not None else [None] * len(kernels)
        return [
            kernel.to_file(scores(self.criterion, values, gradient, self.seed, kernel.name))
            for kernel, values, gradient in zip(kernels, weights, by_kernel, strict=True)
        ]

    def _units(
        self, kernels: Sequence[PrunableKernel], all_scores: Sequence[np.ndarray]
    ) -> list[Units]:
        return [
            self.granularity.units(kernel_scores, kernel.filters)
            for kernel, kernel_scores in zip(kernels, all_scores, strict=True)
        ]

    def _unit_masks(
        self,
        kernels: Sequence[PrunableKernel],
        all_scores: Sequence[np.ndarray],
        kept: Sequence[np.ndarray],
    ) -> list[np.ndarray]:
        return [
            kernel.from_file(self.granularity.mask(keep, kernel_scores, kernel.filters))
            for kernel, kernel_scores, keep in zip(kernels, all_scores, kept, strict=True)
        ]


def file_shape(kernel: PrunableKernel) -> tuple[int, int, int]:
    """Returns the shape of a kernel in the file: (rows, positions, columns).

    Args:
        kernel: The kernel.
    """
    return kernel.to_file(np.empty(kernel.shape, bool)).shape
