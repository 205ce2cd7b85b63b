"""What is clustered and how: the settings that all ways of clustering share, checked."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.clustering.centroids import INITIALIZATIONS, MOST, share
from tfnas.clustering.clusterable_kernels import CHANNEL, GRANULARITIES, ClusterableKernel
from tfnas.graph.functional import Skipped
from tfnas.graph.layer_kernels import named

_PRUNED_FROM = 0.01  # share of exact zeros: trained weights hit 0.0 by pruning alone


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A kernel to be clustered.

    Args:
        kernel: The kernel.
        clusters: Most values, of a channel where each has its own.
        zeros: Whether its exact zeros are a cluster of their own.
    """

    kernel: ClusterableKernel
    clusters: int
    zeros: bool


@dataclasses.dataclass(frozen=True, eq=False)
class ClusterPlan:
    """Settings of a clustering; see :func:`tfnas.cluster` for what they mean.

    Raises:
        ValueError: One is outside its rule.
    """

    clusters: Any = 16
    granularity: str = "layer"
    initialization: str = "kmeans++"
    zeros: Any = "auto"
    exclude: Any = ()
    embeddings: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        given = self.clusters
        by_name = dict(given) if isinstance(given, Mapping) else {"": given}
        for name, count in by_name.items():
            if not isinstance(name, str):
                raise ValueError(f"clusters must name layers by text, got {name!r}")
            if not (count is None and name) and not _is_whole(count, 2, MOST):
                where = f" for {name!r}" if name else ""
                raise ValueError(
                    f"clusters must be a whole number from 2 to {MOST}{where}, got {count!r}"
                )
        if not by_name:
            raise ValueError("clusters must name a layer, got {}")
        for name, allowed in (
            ("granularity", GRANULARITIES),
            ("initialization", INITIALIZATIONS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        if not (self.zeros == "auto" or isinstance(self.zeros, bool)):
            raise ValueError(f"zeros must be 'auto', True or False, got {self.zeros!r}")
        if not _is_whole(self.seed, 0):
            raise ValueError(f"seed must be a whole number >= 0, got {self.seed!r}")

    def admit(self, kernels: Sequence[ClusterableKernel]) -> tuple[list[Task], list[Skipped]]:
        """Returns what is to be clustered, and the other kernels with the reason.

        Raises:
            ValueError: An entry of `clusters` or `exclude` names no layer with a kernel, a kernel
                holds NaN or inf, or nothing is left.
        """
        excluded = named(kernels, self.exclude, "exclude")
        counts = self._counts(kernels)
        fits: list[tuple[ClusterableKernel, int]] = []
        skipped = []
        for kernel in kernels:
            count = counts.get(id(kernel))
            if id(kernel) in excluded:
                reason = f"excluded by {excluded[id(kernel)]}"
            else:
                reason = self._hindrance(kernel, count) or ""
            if reason:
                skipped.append(Skipped(kernel.name, kernel.kind, reason))
            elif count is not None:
                fits.append((kernel, count))
        if not fits:
            raise ValueError(
                f"clusters and exclude must leave a kernel to cluster, got none of {len(kernels)}"
            )
        pruned = self._keeps_zeros([kernel for kernel, _ in fits])
        return [Task(k, count, pruned and bool((k.numpy() == 0).any())) for k, count in fits], (
            skipped
        )

    def labels(
        self,
        task: Task,
        values: np.ndarray,
        weights: np.ndarray | None = None,
        around: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shared values and the clusters of a kernel's weights, in its shape.

        Args:
            task: The kernel.
            values: Its weights.
            weights: What each one's squared error counts; None: all the same.
            around: Values that they share now, to begin with.
        """

        def rows(array: np.ndarray | None) -> Any:
            return None if array is None else task.kernel.groups(array, self.granularity)

        grouped, counted, present = rows(values), rows(weights), rows(around)
        shared, labels = np.empty(grouped.shape), np.empty(grouped.shape, np.int64)
        for i, group in enumerate(grouped):
            centroids, labels[i] = share(
                group,
                task.clusters,
                self.initialization,
                np.random.default_rng([self.seed, i]),
                weights=None if counted is None else counted[i],
                zeros=task.zeros,
                around=None if present is None else np.unique(present[i]),
            )
            shared[i] = centroids[labels[i]]
        back = task.kernel.from_groups
        return back(shared, self.granularity), back(labels, self.granularity)

    def _counts(self, kernels: Sequence[ClusterableKernel]) -> dict[int, int | None]:
        """Clusters by kernel id; a dictionary's first entry that fits counts."""
        if not isinstance(self.clusters, Mapping):
            return {id(kernel): int(self.clusters) for kernel in kernels}
        counts: dict[int, int | None] = {}
        for name, count in self.clusters.items():
            for key in named(kernels, [name], "clusters"):
                counts.setdefault(key, count)
        return counts

    def _hindrance(self, kernel: ClusterableKernel, count: int | None) -> str | None:
        if count is None:
            return "not among clusters"
        grouped = kernel.groups(kernel.numpy(), self.granularity)
        if not np.isfinite(grouped).all():
            raise ValueError(f"model must hold finite weights, got NaN or inf in {kernel.name!r}")
        if grouped.shape[1] <= count:
            each = " a channel" if self.granularity == CHANNEL else ""
            return f"holds {grouped.shape[1]} weights{each}, no more than clusters"
        return "holds one value" if (grouped == grouped.flat[0]).all() else None

    def _keeps_zeros(self, kernels: Sequence[ClusterableKernel]) -> bool:
        if isinstance(self.zeros, bool):
            return self.zeros
        zeros = sum(int(np.count_nonzero(kernel.numpy() == 0)) for kernel in kernels)
        return zeros >= _PRUNED_FROM * sum(kernel.size for kernel in kernels)


def _is_whole(value: Any, least: int, most: int | None = None) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and value >= least and (most is None or value <= most)
