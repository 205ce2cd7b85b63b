"""The settings of clustering, checked, and the kernels that they select."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tfnas.clustering.centroids import INITIALIZATIONS, MOST, cluster_values
from tfnas.clustering.clusterable_kernels import CHANNEL, GRANULARITIES, ClusterableKernel
from tfnas.graph.functional import Skipped
from tfnas.graph.layer_kernels import named

_PRUNED_FROM = 0.01  # fraction of exact zeros; without pruning trained weights are hardly ever 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class ClusterTask:
    """A kernel to cluster.

    Args:
        kernel: The kernel.
        clusters: Largest number of distinct values, per channel with granularity "channel".
        zeros: Whether the exact zeros are a cluster of their own.
    """

    kernel: ClusterableKernel
    clusters: int
    zeros: bool


@dataclasses.dataclass(frozen=True, eq=False)
class ClusterPlan:
    """The settings of clustering, named as the arguments of :func:`tfnas.cluster`.

    Raises:
        ValueError: A setting is out of range.
    """

    clusters: int | Mapping[str, int | None] = 16
    granularity: str = "layer"
    initialization: str = "kmeans++"
    zeros: bool | Literal["auto"] = "auto"
    exclude: Any = ()
    embeddings: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        clusters = self.clusters
        by_name = dict(clusters) if isinstance(clusters, Mapping) else {"": clusters}
        for name, count in by_name.items():
            if not isinstance(name, str):
                raise ValueError(f"clusters must name layers by strings, got {name!r}")
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

    def admit(
        self, kernels: Sequence[ClusterableKernel]
    ) -> tuple[list[ClusterTask], list[Skipped]]:
        """Returns the kernels to cluster, and the other kernels with the reason.

        Args:
            kernels: The kernels of a model.

        Raises:
            ValueError: A name in `clusters` or `exclude` matches no layer with a kernel, a kernel
                holds NaN or inf, or no kernel is left.
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
                reason = self._obstacle(kernel, count) or ""
            if reason:
                skipped.append(Skipped(kernel.name, kernel.kind, reason))
            elif count is not None:
                fits.append((kernel, count))
        if not fits:
            raise ValueError(
                f"clusters and exclude must leave a kernel to cluster, got none of {len(kernels)}"
            )
        pruned = self._keeps_zeros([kernel for kernel, _ in fits])
        return [
            ClusterTask(k, count, pruned and bool((k.numpy() == 0).any())) for k, count in fits
        ], (skipped)

    def labels(
        self,
        task: ClusterTask,
        values: np.ndarray,
        weights: np.ndarray | None = None,
        around: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Clusters the weights of a kernel.

        Args:
            task: The kernel.
            values: Its weights.
            weights: Weight of the squared error of each, of the kernel's shape; None: 1.
            around: The present shared values of the weights, as initial centroids; None: use
                the initialization.

        Returns:
            The shared value and the cluster of each weight, both of the kernel's shape.
        """

        def rows(array: np.ndarray | None) -> Any:
            return None if array is None else task.kernel.groups(array, self.granularity)

        grouped, importance, present = rows(values), rows(weights), rows(around)
        shared, labels = np.empty(grouped.shape), np.empty(grouped.shape, np.int64)
        for i, group in enumerate(grouped):
            centroids, labels[i] = cluster_values(
                group,
                task.clusters,
                self.initialization,
                np.random.default_rng([self.seed, i]),
                weights=None if importance is None else importance[i],
                zeros=task.zeros,
                around=None if present is None else np.unique(present[i]),
            )
            shared[i] = centroids[labels[i]]
        from_groups = task.kernel.from_groups
        return from_groups(shared, self.granularity), from_groups(labels, self.granularity)

    def _counts(self, kernels: Sequence[ClusterableKernel]) -> dict[int, int | None]:
        """Number of clusters by kernel id; the first matching item of a dictionary counts."""
        if not isinstance(self.clusters, Mapping):
            return {id(kernel): int(self.clusters) for kernel in kernels}
        counts: dict[int, int | None] = {}
        for name, count in self.clusters.items():
            for key in named(kernels, [name], "clusters"):
                counts.setdefault(key, count)
        return counts

    def _obstacle(self, kernel: ClusterableKernel, count: int | None) -> str | None:
        if count is None:
            return "not among clusters"
        grouped = kernel.groups(kernel.numpy(), self.granularity)
        if not np.isfinite(grouped).all():
            raise ValueError(f"model must hold finite weights, got NaN or inf in {kernel.name!r}")
        if grouped.shape[1] <= count:
            each = " per channel" if self.granularity == CHANNEL else ""
            return f"has {grouped.shape[1]} weights{each}, not more than clusters"
        return "has one distinct value" if (grouped == grouped.flat[0]).all() else None

    def _keeps_zeros(self, kernels: Sequence[ClusterableKernel]) -> bool:
        if isinstance(self.zeros, bool):
            return self.zeros
        zeros = sum(int(np.count_nonzero(kernel.numpy() == 0)) for kernel in kernels)
        return zeros >= _PRUNED_FROM * sum(kernel.size for kernel in kernels)


def _is_whole(value: Any, least: int, most: int | None = None) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and value >= least and (most is None or value <= most)
