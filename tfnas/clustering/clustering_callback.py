"""Clustering during training: a callback for `fit`.

At the beginning of the first epoch it clusters every kernel and ties the weights of each cluster
(see :mod:`tfnas.clustering.shared_values`). From then on the number of distinct values of a
kernel stays within the limit after every optimizer step. Training moves the shared values:

| renew | a shared value                                 | the cluster of a weight             |
|-------|------------------------------------------------|-------------------------------------|
| None  | is updated like a variable whose gradient is   | is constant                         |
|       | the sum of its weights' gradients (Han et al.) |                                     |
| n     | is the mean of the latent values of its        | is found again by k-means on latent |
|       | weights, which their own updates move          | values, every n epochs or steps     |

With `renew`, the gradient at the shared value is used for the latent value (a straight-through
estimator), as in quantization-aware training. Many weights may change their cluster at once if
their latent values have moved far since the last renewal: use a small `renew` in steps, or a
tenth of the learning rate. Renewal helps most with few clusters.

Without renewal the clusters depend on the weights alone, so restored training
(`BackupAndRestore`) continues unchanged. With renewal it continues from the shared values, since
latent values are not saved.

The weights are clustered in every epoch, so `EarlyStopping(restore_best_weights=True)` restores
clustered weights. Place this callback after EarlyStopping in the list; it then ends with the
clusters of the restored weights. Averaged weights (`use_ema`) are clustered once more at the end.

In a custom training loop use :class:`tfnas.CustomLoop`.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from tfnas.clustering.cluster_plan import ClusterPlan, ClusterTask
from tfnas.clustering.clusterable_kernels import ClusterableKernel, find_kernels
from tfnas.clustering.clustering_report import ClusteringReport, most_values, record_of, report_of
from tfnas.clustering.shared_values import (
    GRADIENTS,
    TiedValues,
    attach,
    check_backend,
    clustered_kernels,
    retrace,
    tie_gradients,
)
from tfnas.graph.compatibility import (
    TRAINED_WITH,
    check_disjoint,
    check_float,
    register_callback,
    unregister_callback,
)
from tfnas.graph.functional import Skipped
from tfnas.graph.layer_kernels import LayerSelection, named

_UNITS = ("epoch", "step")


@dataclasses.dataclass(frozen=True, eq=False)
class _Trained:
    """A kernel in training: its task and settings, its constraint, and its weights before."""

    task: ClusterTask
    plan: ClusterPlan
    tie: TiedValues
    before: np.ndarray

    def cluster(self, values: np.ndarray, around: np.ndarray | None = None) -> None:
        """Clusters values (weights or latent values), and sets the weights to the shared values."""
        shared, labels = self.plan.labels(self.task, values, around=around)
        self.tie.assign(labels, values)
        self.task.kernel.variable.assign(shared)


class ClusteringCallback(keras.callbacks.Callback):
    """Clusters the kernels of a model, and trains their shared values.

    BatchNormalization is not folded. The converter multiplies it into the kernel before it, which
    keeps the number of distinct values per channel, but not per kernel. To keep it per kernel,
    start from the model of :func:`tfnas.cluster`, which folds BatchNormalization.

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
        clusters: Largest number of distinct values of a kernel, or a dictionary, as for
            :func:`tfnas.cluster`. None: the present clusters of the model, as after loading,
            `tfnas.cluster` or :func:`tfnas.quantize_aware`; see :func:`tfnas.keep_clusters`.
        renew: Number of epochs or steps between two renewals of the clusters; None: the
            cluster of each weight is constant.
        by: Unit of `renew`, "epoch" or "step". Steps are batches, counted from the first
            epoch; with `steps_per_execution` renewals happen between executions.
        granularity: "layer", or "channel": each output channel has its own values.
        initialization: "kmeans++", "linear", "density" or "quantile".
        zeros: Whether exact zeros stay zero: True, False, or "auto": in a pruned model.
        gradients: "sum", the gradient of a shared value; or "mean", which has the magnitude of
            a single weight's gradient, so that SGD needs no smaller learning rate. With Adam
            and similar optimizers, which divide by the magnitude, both are equal.
        exclude: Layers to leave unchanged; see :func:`tfnas.cluster`.
        embeddings: Whether the tables of Embedding layers are clustered too.
        seed: Seed of the initialization.

    Raises:
        ValueError: An argument is out of range. Errors that depend on the model are raised
            before the first step.

    References:
        Han, Mao and Dally, "Deep Compression", ICLR 2016, section 3.3; Bengio et al.,
        "Estimating or Propagating Gradients Through Stochastic Neurons", 2013, for `renew`.
    """

    def __init__(
        self,
        clusters: int | Mapping[str, int | None] | None = 16,
        renew: int | None = None,
        by: str = "epoch",
        *,
        granularity: str = "layer",
        initialization: str = "kmeans++",
        zeros: bool | Literal["auto"] = "auto",
        gradients: str = "sum",
        exclude: LayerSelection = (),
        embeddings: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        limit = 16 if clusters is None else clusters
        self.plan = ClusterPlan(
            limit, granularity, initialization, zeros, exclude, embeddings, seed
        )
        is_whole = isinstance(renew, numbers.Integral) and not isinstance(renew, bool)
        if renew is not None and not (is_whole and renew >= 1):
            raise ValueError(f"renew must be None or a whole number >= 1, got {renew!r}")
        if renew is not None and clusters is None:
            raise ValueError(f"renew must be None if clusters is None, got {renew!r}")
        for name, value, allowed in (("by", by, _UNITS), ("gradients", gradients, GRADIENTS)):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        self.clusters, self.renew, self.by, self.gradients = clusters, renew, by, gradients
        # The clustered kernels, after training has started.
        self.kernels: tuple[ClusterableKernel, ...] = ()
        self._pruning: Any = None  # a PruningCallback before this one in the same fit
        self._trained: list[_Trained] = []
        self._skipped: list[Skipped] = []
        self._renewals = 0
        self._epoch = self._batches = self._length = 0

    @property
    def report(self) -> ClusteringReport:
        """Returns the present values of the kernels, and the skipped layers with the reason.

        Example:
            >>> import keras, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
            >>> clustering = tfnas.ClusteringCallback(clusters=4)
            >>> callbacks = keras.callbacks.CallbackList([clustering], model=model)
            >>> callbacks.on_train_begin()
            >>> callbacks.on_epoch_begin(0)
            >>> [(kernel.name, kernel.after) for kernel in clustering.report.kernels]
            [('head', 4)]

        Raises:
            RuntimeError: Training has not started.
        """
        if not self._trained:
            raise RuntimeError("report is available after training has started")
        rows = [
            record_of(t.task.kernel, t.task.clusters, t.plan.granularity, t.before)
            for t in self._trained
        ]
        return report_of(rows, self._skipped)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks the arguments against the model; Keras calls it before training.

        Example:
            >>> import keras, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
            >>> clustering = tfnas.ClusteringCallback(clusters=4)
            >>> callbacks = keras.callbacks.CallbackList([clustering], model=model)
            >>> callbacks.on_train_begin()
            >>> [kernel.name for kernel in clustering.kernels]
            ['head']

        Args:
            logs: Not used.

        Raises:
            ValueError: An argument does not fit the model or the number of devices.
            RuntimeError: Keras runs on another backend than TensorFlow.
        """
        check_backend()
        self._trained, self._epoch, self._batches, self._length = [], 0, 0, 0
        self.kernels = ()
        self._pruning = register_callback(self.model, "cluster", self).get("prune")
        strategy = getattr(self.model, "distribute_strategy", None)
        replicas = getattr(strategy, "num_replicas_in_sync", 1)
        if self.renew is not None and replicas > 1:
            raise ValueError(f"renew must be None on several devices, got {self.renew!r}")
        if self.model.built:
            self._find()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Clusters the weights at the first epoch, and later renews the clusters if that is due.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> clustering = tfnas.ClusteringCallback(clusters=4)
            >>> callbacks = keras.callbacks.CallbackList([clustering], model=model)
            >>> callbacks.on_train_begin()
            >>> callbacks.on_epoch_begin(0)
            >>> len(np.unique(model.layers[0].kernel))
            4

        Args:
            epoch: Number of the epoch, from 0.
            logs: Not used.
        """
        self._length = (self.params or {}).get("steps") or self._batches  # if fit knows it
        self._epoch, self._batches = epoch, 0
        if not self._trained:
            if self.model.built:
                self._begin()
        else:
            self._renew()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Renews the clusters if `renew` counts steps; Keras calls it before each batch.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> model.compile("sgd", "mse")
            >>> clustering = tfnas.ClusteringCallback(clusters=4, renew=2, by="step")
            >>> data = np.ones((64, 8)), np.ones((64, 4))
            >>> history = model.fit(*data, batch_size=16, verbose=0, callbacks=[clustering])
            >>> len(np.unique(model.layers[0].kernel)) <= 4
            True

        Args:
            batch: Number of the batch in the epoch, from 0.
            logs: Not used.
        """
        self._batches = batch
        if self._trained and self.by == "step":
            self._renew()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Clusters the weights after the first batch if that batch built the model.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.layers.Dense(4)])
            >>> clustering = tfnas.ClusteringCallback(clusters=4)
            >>> callbacks = keras.callbacks.CallbackList([clustering], model=model)
            >>> callbacks.on_train_begin()
            >>> outputs = model(np.ones((2, 8)))
            >>> callbacks.on_train_batch_end(0)
            >>> len(np.unique(model.layers[0].kernel))
            4

        Args:
            batch: Number of the batch in the epoch, from 0.
            logs: Not used.
        """
        self._batches = batch + 1
        if not self._trained:
            self._begin()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes `logs["clusters"]`, which callbacks after this one read; Keras calls it.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> model.compile("sgd", "mse")
            >>> data = np.zeros((64, 8)), np.zeros((64, 4))
            >>> clustering = tfnas.ClusteringCallback(clusters=4)
            >>> model.fit(*data, epochs=2, verbose=0, callbacks=[clustering]).history["clusters"]
            [4.0, 4.0]

        Args:
            epoch: Number of the epoch, from 0.
            logs: Gets the number of distinct values of a kernel, as the mean of all kernels; with
                the granularity "channel" the largest number of a channel.
        """
        if logs is not None and self._trained:
            kernels = [(each.task.kernel, each.plan.granularity) for each in self._trained]
            counts = [most_values(kernel.groups(kernel.numpy(), by)) for kernel, by in kernels]
            logs["clusters"] = float(np.mean(counts))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Clusters the final weights, which may have been averaged or restored.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> clustering = tfnas.ClusteringCallback(clusters=4)
            >>> callbacks = keras.callbacks.CallbackList([clustering], model=model)
            >>> callbacks.on_train_begin()
            >>> callbacks.on_epoch_begin(0)
            >>> callbacks.on_train_end()
            >>> len(np.unique(model.layers[0].kernel))
            4

        Args:
            logs: Not used.
        """
        for trained in self._trained:
            values = trained.task.kernel.numpy()
            trained.cluster(values, around=np.asarray(trained.tie(values)))
            trained.tie.latent = None  # the clusters are final
        if self.renew is not None:
            retrace(self.model)
        unregister_callback(self.model, "cluster")

    def training_state(self) -> list[np.ndarray]:
        """Returns what a training that is continued needs beside the model.

        The number of renewals; then for each kernel its weights before clustering and now, the
        clusters of its weights and, where these are renewed, latent values.
        """
        states = [np.array(self._renewals)]
        for each in self._trained:
            states += [each.before, each.task.kernel.numpy(), *each.tie.state()]
        return states

    def restore_training_state(self, state: Sequence[np.ndarray]) -> None:
        """Continues a training, with the result of :meth:`training_state`.

        Args:
            state: The state of a callback with the same arguments, for the same model.
        """
        continues = bool(self._trained)  # else all epochs are over
        if not continues:
            self._begin()
        (renewals, *states), restored = state, []
        for trained in self._trained:
            restored.append(dataclasses.replace(trained, before=states[0]))
            trained.task.kernel.variable.assign(states[1])
            count = len(trained.tie.state())
            trained.tie.restore(states[2 : 2 + count])
            del states[: 2 + count]
        self._trained = restored
        if continues:
            self._renewals = int(renewals)
            self._renew()

    def _find(self) -> list[tuple[ClusterTask, ClusterPlan]]:
        """The kernels to cluster with their settings; sets the skipped layers."""
        found = self._clustered() if self.clusters is None else self._to_cluster()
        self.kernels = tuple(task.kernel for task, _ in found)
        if self._pruning is not None:
            self._check_pruning()
        return found

    def _check_pruning(self) -> None:
        """Raises ValueError unless the zeros of the PruningCallback stay zero in this fit."""
        if not self._pruning.has_constant_sparsity():
            pair = "a PruningCallback with a changing sparsity beside a ClusteringCallback"
        elif self.plan.zeros is False:
            pair = "a PruningCallback beside a ClusteringCallback with zeros=False"
        else:
            return
        check_disjoint(self._pruning.kernels, self.kernels, pair)

    def _to_cluster(self) -> list[tuple[ClusterTask, ClusterPlan]]:
        """The kernels to cluster by the argument `clusters`."""
        check_float(self.model, "ClusteringCallback", TRAINED_WITH)
        kernels, none = find_kernels(self.model, self.plan.embeddings)
        tasks, skipped = self.plan.admit(kernels)
        frozen = [t.kernel for t in tasks if not t.kernel.variable.trainable]
        if len(frozen) == len(tasks):
            raise ValueError("model must have a trainable kernel, got all kernels frozen")
        not_trained = [Skipped(k.name, k.kind, "not trainable: use tfnas.cluster") for k in frozen]
        self._skipped = [*skipped, *not_trained, *none]
        return [(task, self.plan) for task in tasks if task.kernel.variable.trainable]

    def _clustered(self) -> list[tuple[ClusterTask, ClusterPlan]]:
        """The kernels that are clustered already, with their present number of values."""
        kernels, self._skipped = find_kernels(self.model, self.plan.embeddings)
        excluded = named(kernels, self.plan.exclude, "exclude")
        self._skipped += [
            Skipped(k.name, k.kind, f"excluded by {excluded[id(k)]}")
            for k in kernels
            if id(k) in excluded
        ]
        skipped = {s.name for s in self._skipped}
        found = []
        for kernel, granularity in clustered_kernels(self.model, self.plan.embeddings):
            if kernel.name in skipped:
                continue
            groups = kernel.groups(kernel.numpy(), granularity)
            zeros = bool((groups == 0).any())
            # Cluster 0 is reserved for zeros, also in channels without zeros.
            most = max(len(np.unique(g)) + (zeros and not (g == 0).any()) for g in groups)
            plan = dataclasses.replace(self.plan, granularity=granularity)
            found.append((ClusterTask(kernel, most, zeros), plan))
        known = skipped | {task.kernel.name for task, _ in found}
        others = [k for k in kernels if k.name not in known]
        self._skipped += [Skipped(k.name, k.kind, "has too many values") for k in others]
        return found

    def _begin(self) -> None:
        self._trained = []
        for task, plan in self._find():
            before, latent = task.kernel.numpy(), self.renew is not None
            gradients = None if latent else self.gradients
            tie = attach(
                self.model,
                task.kernel,
                plan.granularity,
                task.clusters,
                task.zeros,
                gradients,
                latent,
            )
            trained = _Trained(task, plan, tie, before)
            trained.cluster(before)
            self._trained.append(trained)
        if self.renew is None and getattr(self.model, "optimizer", None) is not None:
            tie_gradients(self.model.optimizer)
        retrace(self.model)
        self._renewals = self._due()

    def _due(self) -> int:
        """The number of renewals that are due so far."""
        if self.renew is None:
            return 0
        steps = self._epoch * self._length + self._batches
        return (self._epoch if self.by == "epoch" else steps) // self.renew

    def _renew(self) -> None:
        if self._due() == self._renewals:
            return
        for trained in self._trained:
            latent = np.asarray(keras.ops.convert_to_numpy(trained.tie.latent))
            trained.cluster(latent, around=trained.task.kernel.numpy())
        self._renewals = self._due()
