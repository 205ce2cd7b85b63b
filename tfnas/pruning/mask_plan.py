"""What is pruned by which rule: one plan, for training and for a finished model alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.graph.functional import Skipped
from tfnas.graph.layer_kernels import match
from tfnas.pruning.criteria import Criterion, scores
from tfnas.pruning.masks import Granularity, Units, granularity
from tfnas.pruning.prunable_kernels import PrunableKernel
from tfnas.pruning.scope import SCOPES, erdos_renyi_kernel, keep_by_ratio, keep_globally
from tfnas.schedules import check_ratio

Scope = str | Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class MaskPlan:
    """Criterion, granularity and scope together.

    Args:
        criterion: See :mod:`tfnas.pruning.criteria`.
        granularity: See :mod:`tfnas.pruning.masks`.
        scope: See :mod:`tfnas.pruning.scope`.
        seed: Seed of all draws.

    Raises:
        ValueError: The scope is unknown or holds a ratio outside [0, 1).
    """

    criterion: Criterion
    granularity: Granularity
    scope: Scope
    seed: int = 0

    @classmethod
    def of(cls, criterion: Criterion, unit: Any, scope: Scope, seed: int = 0) -> MaskPlan:
        """Returns a plan with the granularity given by its name."""
        return cls(criterion, granularity(unit), scope, seed)

    def __post_init__(self) -> None:
        if isinstance(self.scope, Mapping):
            if not self.scope:
                raise ValueError("scope must name a layer, got an empty dictionary")
            for name, value in self.scope.items():
                check_ratio(value, f"for {name!r}", "scope")
        elif self.scope not in SCOPES:
            raise ValueError(
                f"scope must be one of {', '.join(SCOPES)} or a dictionary of ratios by layer, "
                f"got {self.scope!r}"
            )

    def admit(
        self, kernels: Sequence[PrunableKernel]
    ) -> tuple[list[PrunableKernel], list[Skipped]]:
        """Returns the kernels that can be cut this way, and the others with the reason.

        Raises:
            ValueError: N:M does not divide a kernel, or the scope names no kernel.
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

    def ratios(
        self, kernels: Sequence[PrunableKernel], ratio: float, pace: float = 1.0
    ) -> list[float]:
        """Returns the ratio of each kernel; of a global scope, the common one.

        Args:
            kernels: The kernels.
            ratio: The common ratio.
            pace: How far a schedule has come, 1 at its highest ratio: what a dictionary of
                ratios is multiplied by.
        """
        if isinstance(self.scope, Mapping):
            return [self._own(kernel, ratio, pace) for kernel in kernels]
        if self.scope == "erk" and ratio:
            return erdos_renyi_kernel([kernel.shape for kernel in kernels], ratio)
        return [ratio] * len(kernels)

    def check_reachable(self, ratios: Sequence[float]) -> None:
        """Raises ValueError where the granularity can't reach one of the ratios."""
        highest = self.granularity.highest_ratio
        if max(ratios, default=0.0) > highest + 1e-9:
            raise ValueError(
                f"ratio must be at most {highest:g} with granularity "
                f"{self.granularity.text!r}, got {max(ratios):g}"
            )

    def masks(
        self,
        kernels: Sequence[PrunableKernel],
        weights: Sequence[np.ndarray],
        gradients: Sequence[np.ndarray] | None,
        ratio: float,
        pace: float = 1.0,
    ) -> list[np.ndarray]:
        """Returns which weights stay, a kernel, in the variables' shapes.

        Args:
            kernels: The kernels.
            weights: Their values.
            gradients: Mean absolute gradients, where the criterion needs them.
            ratio: Share of weights that goes, in [0, 1).
            pace: See :meth:`ratios`.

        Raises:
            ValueError: The ratio is above what the granularity can reach, or scores are NaN.
        """
        ratios = self.ratios(kernels, ratio, pace)
        self.check_reachable(ratios)
        parts = self._scores(kernels, weights, gradients)
        units = self._units(kernels, parts)
        sizes = [kernel.size for kernel in kernels]
        spare = self.granularity.highest_ratio == 1.0  # N:M empties no kernel anyway
        if self.scope == "global":
            kept = keep_globally(units, sizes, ratio, self.seed, spare)
        else:
            kept = keep_by_ratio(units, sizes, ratios, self.seed, spare)
        return self._spread(kernels, parts, kept)

    def masks_above(
        self,
        kernels: Sequence[PrunableKernel],
        weights: Sequence[np.ndarray],
        gradients: Sequence[np.ndarray] | None,
        threshold: float,
    ) -> list[np.ndarray]:
        """Returns which weights stay when units with a score below `threshold` go."""
        parts = self._scores(kernels, weights, gradients)
        # In the weights' own precision: a threshold of 0.7 keeps a float32 weight of 0.7.
        kept = [
            units.scores.astype(values.dtype) >= values.dtype.type(threshold)
            for units, values in zip(self._units(kernels, parts), weights, strict=True)
        ]
        return self._spread(kernels, parts, kept)

    def _own(self, kernel: PrunableKernel, ratio: float, pace: float) -> float:
        assert isinstance(self.scope, Mapping)
        if kernel.name in self.scope:  # a name goes before patterns
            return float(self.scope[kernel.name]) * pace
        for pattern, value in self.scope.items():
            if match(kernel, pattern):
                return float(value) * pace
        return ratio

    def _scores(
        self,
        kernels: Sequence[PrunableKernel],
        weights: Sequence[np.ndarray],
        gradients: Sequence[np.ndarray] | None,
    ) -> list[np.ndarray]:
        slopes = gradients if gradients is not None else [None] * len(kernels)
        return [
            kernel.to_file(scores(self.criterion, values, slope, self.seed, kernel.name))
            for kernel, values, slope in zip(kernels, weights, slopes, strict=True)
        ]

    def _units(self, kernels: Sequence[PrunableKernel], parts: Sequence[np.ndarray]) -> list[Units]:
        return [
            self.granularity.units(part, kernel.filters)
            for kernel, part in zip(kernels, parts, strict=True)
        ]

    def _spread(
        self,
        kernels: Sequence[PrunableKernel],
        parts: Sequence[np.ndarray],
        kept: Sequence[np.ndarray],
    ) -> list[np.ndarray]:
        return [
            kernel.from_file(self.granularity.mask(keep, part, kernel.filters))
            for kernel, part, keep in zip(kernels, parts, kept, strict=True)
        ]


def file_shape(kernel: PrunableKernel) -> tuple[int, int, int]:
    """(rows, positions, columns) of a kernel."""
    return kernel.to_file(np.empty(kernel.shape, bool)).shape
