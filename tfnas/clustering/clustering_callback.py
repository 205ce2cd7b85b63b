"""Clustering while training: a callback for the `fit` that is already there.

When it acts: at the beginning of the first epoch it clusters every kernel and ties its
weights (see :mod:`tfnas.clustering.shared_values`). From then on, after every step of the
optimizer, a kernel holds no more values than it may. What trains is the values:

| renew | a shared value moves                               | a weight's cluster              |
|-------|----------------------------------------------------|---------------------------------|
| None  | as the optimizer moves a variable whose gradient is | stays                           |
|       | the sum of its weights' gradients (Han et al.)     |                                 |
| n     | as the mean of its weights, each of which also has | is that of the nearest value,   |
|       | a place of its own that its own updates move       | by k-means, every n epochs or steps |

With `renew` the gradient at the shared value is taken for that at the weight's own place
(a straight-through estimator), as quantization-aware training does. Weights then go over at
once that have come apart since the last renewal: let that be a few steps, or take a tenth of
the learning rate. It reaches more with few values; with many there is little to move.

Clusters without renewal follow from the weights alone, so training that is restored
(`BackupAndRestore`) goes on as it was. Renewed ones go on from the shared values: where each
weight was by itself is not saved.

Every epoch's weights are clustered, so `EarlyStopping(restore_best_weights=True)` gives back
clustered ones. Put this callback behind it in the list: then it also ends with the clusters of
those. Averaged weights (`use_ema`) are clustered once more at the end.

A training loop of one's own calls `set_model(model)`, `on_train_begin()` and, in each epoch,
`on_epoch_begin(epoch)`, before the step is traced; `model.optimizer` must be the one that it
steps with.
"""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

import keras
import numpy as np

from tfnas.clustering.cluster_plan import ClusterPlan, Task
from tfnas.clustering.clusterable_kernels import ClusterableKernel, find_kernels
from tfnas.clustering.clustering_report import ClusteringReport, record_of, report_of
from tfnas.clustering.shared_values import (
    GRADIENTS,
    TiedValues,
    attach,
    check_backend,
    clustered_kernels,
    retrace,
    tie_gradients,
)
from tfnas.graph.compatibility import TRAINED_WITH, check_apart, check_float, leave_fit, same_fit
from tfnas.graph.functional import Skipped
from tfnas.graph.layer_kernels import named

_UNITS = ("epoch", "step")


@dataclasses.dataclass(frozen=True, eq=False)
class _Trained:
    """A kernel in training: what is asked of it, its ties, and its weights before."""

    task: Task
    plan: ClusterPlan
    tie: TiedValues
    before: np.ndarray

    def cluster(self, values: np.ndarray, around: np.ndarray | None = None) -> None:
        """Clusters given places of the weights, and moves the weights there."""
        shared, labels = self.plan.labels(self.task, values, around=around)
        self.tie.assign(labels, values)
        self.task.kernel.variable.assign(shared)


class ClusteringCallback(keras.callbacks.Callback):
    """Clusters a model's kernels and trains the values that its weights share.

    BatchNormalization stays where it is. The converter multiplies it into the kernel before it,
    which leaves as many values a channel, not a kernel: for that begin with the model of
    :func:`tfnas.cluster`, which folds it.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile("adam", "mse")
        >>> clustering = tfnas.ClusteringCallback(clusters=4)
        >>> data = np.ones((64, 8)), np.ones((64, 4))
        >>> history = model.fit(*data, epochs=2, verbose=0, callbacks=[clustering])
        >>> len(np.unique(model.layers[0].kernel)), clustering.report.kernels[0].after
        (4, 4)

    Args:
        clusters: Most distinct values of a kernel, or a dictionary, as for
            :func:`tfnas.cluster`. None: the clusters that the model has, as after loading,
            `tfnas.cluster` or :func:`tfnas.quantize_aware`; see :func:`tfnas.keep_clusters`.
        renew: How many epochs or steps lie between two renewals of which weights share a
            value; None: they never change.
        by: "epoch" or "step": what `renew` counts. Steps are batches from the first epoch on;
            with `steps_per_execution` it acts between executions.
        granularity: "layer", or "channel": each output channel has values of its own.
        initialization: "kmeans++", "linear", "density" or "quantile".
        zeros: Whether exact zeros stay: True, False, or "auto": in a pruned model.
        gradients: "sum", the gradient of a shared value; or "mean", which is as large as a
            single weight's and keeps the learning rate of SGD usable. Adam and its kin divide
            by the size: there both are the same.
        exclude: What to leave alone; see :func:`tfnas.cluster`.
        embeddings: Whether tables of embeddings are clustered too.
        seed: Seed of draws.

    Raises:
        ValueError: An argument is outside its rule. What depends on the model is raised before
            the first step.

    References:
        Han, Mao and Dally, "Deep Compression", ICLR 2016, section 3.3; Bengio et al.,
        "Estimating or Propagating Gradients Through Stochastic Neurons", 2013, for `renew`.
    """

    def __init__(
        self,
        clusters: Any = 16,
        renew: int | None = None,
        by: str = "epoch",
        *,
        granularity: str = "layer",
        initialization: str = "kmeans++",
        zeros: Any = "auto",
        gradients: str = "sum",
        exclude: Any = (),
        embeddings: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        asked = 16 if clusters is None else clusters
        self.plan = ClusterPlan(
            asked, granularity, initialization, zeros, exclude, embeddings, seed
        )
        whole = isinstance(renew, numbers.Integral) and not isinstance(renew, bool)
        if renew is not None and not (whole and renew >= 1):
            raise ValueError(f"renew must be None or a whole number >= 1, got {renew!r}")
        if renew is not None and clusters is None:
            raise ValueError(f"renew must be None where clusters is None, got {renew!r}")
        for name, value, allowed in (("by", by, _UNITS), ("gradients", gradients, GRADIENTS)):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        self.clusters, self.renew, self.by, self.gradients = clusters, renew, by, gradients
        self.kernels: tuple[
            ClusterableKernel, ...
        ] = ()  # what is clustered, once training has begun
        self._pruning: Any = None  # a PruningCallback before this one in the same fit
        self._trained: list[_Trained] = []
        self._skipped: list[Skipped] = []
        self._renewed = 0
        self._epoch = self._batches = self._length = 0

    @property
    def report(self) -> ClusteringReport:
        """The values that the model holds now, and what was left alone, and why.

        Raises:
            RuntimeError: Training has not begun.
        """
        if not self._trained:
            raise RuntimeError("report is there once training has begun")
        rows = [
            record_of(t.task.kernel, t.task.clusters, t.plan.granularity, t.before)
            for t in self._trained
        ]
        return report_of(rows, self._skipped)

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks everything that can be checked."""
        check_backend()
        self._trained, self._epoch, self._batches, self._length = [], 0, 0, 0
        self.kernels, self._pruning = (), same_fit(self.model, "cluster", self).get("prune")
        strategy = getattr(self.model, "distribute_strategy", None)
        replicas = getattr(strategy, "num_replicas_in_sync", 1)
        if self.renew is not None and replicas > 1:
            raise ValueError(f"renew must be None on several devices, got {self.renew!r}")
        if self.model.built:
            self._found()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Clusters at the first epoch; renews the clusters where that is asked for."""
        self._length = (self.params or {}).get("steps") or self._batches  # if fit knows it
        self._epoch, self._batches = epoch, 0
        if not self._trained:
            if self.model.built:
                self._begin()
        else:
            self._renew()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Renews the clusters where steps are counted."""
        self._batches = batch
        if self._trained and self.by == "step":
            self._renew()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A model that its first batch builds is clustered from then on."""
        self._batches = batch + 1
        if not self._trained:
            self._begin()

    def on_train_end(self, logs: Any = None) -> None:
        """Clusters of the weights that are there now: averaged or restored ones come last."""
        for trained in self._trained:
            values = trained.task.kernel.numpy()
            trained.cluster(values, around=np.asarray(trained.tie(values)))
            trained.tie.free = None  # from here on the clusters hold
        if self.renew is not None:
            retrace(self.model)
        leave_fit(self.model, "cluster")

    def _found(self) -> list[tuple[Task, ClusterPlan]]:
        """The kernels to cluster, each with its settings; notes the others."""
        found = self._present() if self.clusters is None else self._asked()
        self.kernels = tuple(task.kernel for task, _ in found)
        if self._pruning is not None:
            self._check_pruning()
        return found

    def _check_pruning(self) -> None:
        """Zeros that come before the clusters, and stay as they are, go with them."""
        if not self._pruning.has_constant_sparsity():
            got = "a PruningCallback whose ratio changes beside a ClusteringCallback"
        elif self.plan.zeros is False:
            got = "a PruningCallback beside a ClusteringCallback with zeros=False"
        else:
            return
        check_apart(self._pruning.kernels, self.kernels, got)

    def _asked(self) -> list[tuple[Task, ClusterPlan]]:
        """The kernels that are to have as many values as `clusters` says."""
        check_float(self.model, "ClusteringCallback", TRAINED_WITH)
        kernels, none = find_kernels(self.model, self.plan.embeddings)
        tasks, left = self.plan.admit(kernels)
        frozen = [t.kernel for t in tasks if not t.kernel.variable.trainable]
        if len(frozen) == len(tasks):
            raise ValueError("model must hold a kernel that is trained, got all of them frozen")
        idle = [Skipped(k.name, k.kind, "not trained: tfnas.cluster does it") for k in frozen]
        self._skipped = [*left, *idle, *none]
        return [(task, self.plan) for task in tasks if task.kernel.variable.trainable]

    def _present(self) -> list[tuple[Task, ClusterPlan]]:
        """The kernels that are clustered already, in as many values as they have."""
        kernels, self._skipped = find_kernels(self.model, self.plan.embeddings)
        excluded = named(kernels, self.plan.exclude, "exclude")
        self._skipped += [
            Skipped(k.name, k.kind, f"excluded by {excluded[id(k)]}")
            for k in kernels
            if id(k) in excluded
        ]
        left = {s.name for s in self._skipped}
        found = []
        for kernel, granularity in clustered_kernels(self.model, self.plan.embeddings):
            if kernel.name in left:
                continue
            groups = kernel.groups(kernel.numpy(), granularity)
            zeros = bool((groups == 0).any())
            # A cluster may be no channel's: zeros have one of their own in all.
            most = max(len(np.unique(g)) + (zeros and not (g == 0).any()) for g in groups)
            plan = dataclasses.replace(self.plan, granularity=granularity)
            found.append((Task(kernel, most, zeros), plan))
        held = left | {task.kernel.name for task, _ in found}
        free = [k for k in kernels if k.name not in held]
        self._skipped += [Skipped(k.name, k.kind, "holds too many values") for k in free]
        return found

    def _begin(self) -> None:
        self._trained = []
        for task, plan in self._found():
            before, free = task.kernel.numpy(), self.renew is not None
            gradients = None if free else self.gradients
            tie = attach(
                self.model,
                task.kernel,
                plan.granularity,
                task.clusters,
                task.zeros,
                gradients,
                free,
            )
            trained = _Trained(task, plan, tie, before)
            trained.cluster(before)
            self._trained.append(trained)
        if self.renew is None and getattr(self.model, "optimizer", None) is not None:
            tie_gradients(self.model.optimizer)
        retrace(self.model)
        self._renewed = self._due()

    def _due(self) -> int:
        """How often the clusters were to be renewed by now."""
        if self.renew is None:
            return 0
        steps = self._epoch * self._length + self._batches
        return (self._epoch if self.by == "epoch" else steps) // self.renew

    def _renew(self) -> None:
        if self._due() == self._renewed:
            return
        for trained in self._trained:
            free = np.asarray(keras.ops.convert_to_numpy(trained.tie.free))
            trained.cluster(free, around=trained.task.kernel.numpy())
        self._renewed = self._due()
