"""Shared values in training: weights of a cluster stay equal after every optimizer step.

A kernel with few distinct values compresses well, but an optimizer step makes all weights
different. A constraint of the variable, which Keras applies in the compiled step right after
each update, ties them: it sets all weights of a cluster to their mean. So the number of distinct
values does not grow with any optimizer, weight decay or averaging.

The direction of the step needs more. The gradient of a shared value is the sum of the gradients
of its weights (Han et al., section 3.3). SGD is linear: the mean of its steps is a step along
that gradient. Adam divides each gradient by its own magnitude first, and the mean of its steps
may even increase the loss: for three weights of gradient -1 and one of +10, the steps of Adam
have the signs 3 times + and once -, while the sum of the gradients is +7. Therefore
:class:`tfnas.ClusteringCallback` passes the sum to the optimizer in place of each weight's own
gradient (:class:`TiedStep`), and every optimizer steps as if the shared values were the variables.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfnas.clustering.centroids import MOST
from tfnas.clustering.clusterable_kernels import CHANNEL, LAYER, ClusterableKernel, find_kernels
from tfnas.graph.compatibility import in_chain
from tfnas.graph.layer_kernels import check_built
from tfnas.keras_private import renew_train_function, set_update_step, update_step

GRADIENTS = ("sum", "mean")


class TiedValues(keras.constraints.Constraint):
    """Sets the weights of each cluster to their mean, after the variable's own constraint.

    Args:
        kernel: The kernel.
        granularity: "layer", or "channel": each channel has its own clusters.
        clusters: Largest number of clusters of a group (the kernel, or a channel).
        zeros: Whether cluster 0 of each group holds exact zeros, which stay zero.
        inner: The variable's own constraint, or None.
        gradients: The gradient that :class:`TiedStep` gives the weights of a cluster: the "sum"
            or the "mean" of their gradients; None: each its own.
        latent: Whether each weight also has a latent value, which its own updates move and
            which may later be assigned to another cluster. The value of a cluster is the mean
            of the latent values.
    """

    def __init__(
        self,
        kernel: ClusterableKernel,
        granularity: str,
        clusters: int,
        zeros: bool,
        inner: Any = None,
        gradients: str | None = None,
        latent: bool = False,
    ) -> None:
        self.inner, self.zeros, self.gradients = inner, zeros, gradients
        self.kernel, self.granularity, self.clusters = kernel, granularity, clusters
        axes = kernel.axes(granularity)
        sizes = [n if axis in axes else 1 for axis, n in enumerate(kernel.shape)]
        slots = math.prod(sizes) * clusters
        self._first = np.arange(0, slots, clusters, dtype=np.int32)  # slot of a group's cluster 0
        self._offsets = kernel.from_groups(
            np.repeat(self._first[:, None], kernel.size // len(self._first), 1), granularity
        )
        self.cluster_labels = _state(np.zeros(kernel.shape), "uint8", "cluster_labels")
        self.members = _state(np.zeros(slots), "int32", "cluster_members")
        self.counts = _state(np.ones(slots), "float32", "cluster_counts")
        self.latent: Any = None
        if latent:
            self.latent = _state(np.zeros(kernel.shape), "float32", "latent_weights")
            self.values = _state(np.zeros(slots), "float32", "cluster_values")

    def __call__(self, w: Any) -> Any:
        """Returns the weights with one value per cluster.

        Args:
            w: The weights, of the kernel's shape.
        """
        value = keras.ops.convert_to_tensor(w if self.inner is None else self.inner(w))
        slots = self._slots()
        if self.latent is None:
            return self._gather(self._means(value, slots), slots, value.dtype)
        # The change of each weight by the step is added to its latent value.
        before = self._gather(self.values, slots, self.latent.dtype)
        latent = self.latent + (keras.ops.cast(value, "float32") - before)
        if self.zeros:  # zeros have no latent value
            latent = keras.ops.where(keras.ops.equal(self.cluster_labels, 0), 0.0, latent)
        means = self._means(latent, slots)
        self.latent.assign(latent)
        self.values.assign(means)
        return self._gather(means, slots, value.dtype)

    def gradient(self, gradient: Any) -> Any:
        """Returns the tied gradient of each weight, by the argument `gradients` of the class.

        Args:
            gradient: Gradient of each weight, of the kernel's shape.
        """
        if self.gradients is None:
            return gradient
        slots, gradient = self._slots(), keras.ops.convert_to_tensor(gradient)
        flat = keras.ops.reshape(gradient, (-1,))
        sums = keras.ops.segment_sum(flat, slots, num_segments=len(self._is_zero))
        if self.gradients == "mean":
            sums = sums / keras.ops.cast(self.counts, sums.dtype)
        return self._gather(self._without_zeros(sums), slots, gradient.dtype)

    def assign(self, labels: np.ndarray, values: np.ndarray | None = None) -> None:
        """Sets the cluster of each weight.

        Args:
            labels: Index of the cluster in its group, of the kernel's shape.
            values: Latent value of each weight, of the same shape; required if `latent`.
        """
        slots = (self._offsets + labels).reshape(-1)
        members = np.zeros(len(self._is_zero), np.int32)
        members[slots] = np.arange(slots.size)
        counts = np.bincount(slots, minlength=len(self._is_zero))
        self.cluster_labels.assign(labels)
        self.members.assign(members)
        self.counts.assign(np.maximum(counts, 1))
        if self.latent is not None:
            assert values is not None
            self.latent.assign(np.where(labels == 0, 0.0, values) if self.zeros else values)
            self.values.assign(self._means(self.latent, self._slots()))

    def state(self) -> list[np.ndarray]:
        """Returns the clusters of the weights, and their latent values and means if there are."""
        found = [self.cluster_labels]
        if self.latent is not None:
            found += [self.latent, self.values]
        return [np.asarray(keras.ops.convert_to_numpy(variable)) for variable in found]

    def restore(self, state: Sequence[np.ndarray]) -> None:
        """Takes up the result of :meth:`state`.

        Args:
            state: The state.
        """
        labels, *latent = state
        self.assign(labels.astype(np.int64), latent[0] if latent else None)
        if latent:
            self.values.assign(latent[1])  # to the bit as the step before had them

    def labels(self) -> np.ndarray:
        """Returns the cluster of each weight in its group, of the kernel's shape."""
        return np.asarray(keras.ops.convert_to_numpy(self.cluster_labels)).astype(np.int64)

    def _slots(self) -> Any:
        return keras.ops.reshape(
            keras.ops.cast(self.cluster_labels, "int32") + self._offsets, (-1,)
        )

    def _means(self, value: Any, slots: Any) -> Any:
        flat = keras.ops.reshape(value, (-1,))
        # The mean of the differences to one of the weights, since a sum of many equal numbers is
        # not exact.
        reference = keras.ops.take(flat, self.members)
        difference = flat - keras.ops.take(reference, slots)
        sums = keras.ops.segment_sum(difference, slots, num_segments=len(self._is_zero))
        return self._without_zeros(reference + sums / keras.ops.cast(self.counts, sums.dtype))

    @property
    def _is_zero(self) -> np.ndarray:
        """Whether each cluster holds zeros, (groups x clusters,)."""
        result = np.zeros(len(self._first) * self.clusters, bool)
        result[self._first] = self.zeros
        return result

    def _without_zeros(self, values: Any) -> Any:
        if not self.zeros:
            return values
        return keras.ops.where(self._is_zero, keras.ops.zeros_like(values), values)

    def _gather(self, values: Any, slots: Any, dtype: Any) -> Any:
        """The value of each weight's cluster, in the kernel's shape.

        Of the gradient of a Dense layer with inputs (batch, steps, features) TensorFlow does not
        know the shape where batches differ in size, so the shape is the kernel's.
        """
        return keras.ops.cast(
            keras.ops.reshape(keras.ops.take(values, slots), self.kernel.shape), dtype
        )


class TiedStep:
    """The update step of an optimizer with tied gradients for tied weights.

    Gradient clipping, accumulation and loss scaling come before it and see each weight's own
    gradient.

    Args:
        step: The optimizer's own; see :func:`tfnas.keras_private.update_step`.
    """

    def __init__(self, step: Any) -> None:
        self.step = step

    def __call__(self, grads: Sequence[Any], trainable_variables: Any, learning_rate: Any) -> Any:
        """Returns the result of the optimizer step, with tied gradients.

        Args:
            grads: Gradient of each variable, None where there is none.
            trainable_variables: The variables, of the same number.
            learning_rate: The present learning rate.
        """
        ties = [tied_values(getattr(v, "constraint", None)) for v in trainable_variables]
        grads = [
            gradient if tie is None or gradient is None else tie.gradient(gradient)
            for gradient, tie in zip(grads, ties, strict=True)
        ]
        return self.step(grads, trainable_variables, learning_rate)


def tie_gradients(optimizer: Any) -> None:
    """Makes an optimizer use tied gradients for tied weights.

    Args:
        optimizer: A Keras optimizer; changed in place.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    if not isinstance(step := update_step(optimizer), TiedStep):
        set_update_step(optimizer, TiedStep(step))


def keep_clusters(model: keras.Model, embeddings: bool = True) -> dict[str, int]:
    """Keeps the shared values of a model's clustered kernels shared in further training.

    A kernel counts as clustered if it has 2 to 256 distinct values and at least twice as many
    weights; or if each of its channels does, not counting zeros. Other kernels are not changed.
    Exact zeros stay zero. Call it after loading or :func:`tfnas.quantize_aware` and before
    `fit`. It holds for this model object and is not saved with it.

    After each step a shared value is the mean of its weights. With Adam and similar optimizers
    use `tfnas.ClusteringCallback(None)` in `fit` instead: it keeps the same clusters, and
    updates the shared values by the sum of their gradients.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d")])
        >>> _ = model.layers[0].kernel.assign(np.eye(4, 3))
        >>> tfnas.keep_clusters(model)
        {'d': 2}

    Args:
        model: A built Keras 3 model; changed in place.
        embeddings: Whether the tables of Embedding layers are included.

    Returns:
        Maps the layer of each clustered kernel to its number of distinct values (the largest
        number of a channel if clusters are per channel); "layer#2" is the second of that name.

    Raises:
        ValueError: The model is not built, or no kernel is clustered.
        RuntimeError: Keras runs on another backend than TensorFlow.

    References:
        Han, Mao and Dally, "Deep Compression", ICLR 2016, section 3.3.
    """
    check_built(model)
    check_backend()
    found = clustered_kernels(model, embeddings)
    names = _short_names([kernel for kernel, _ in found])
    kept = {}
    for name, (kernel, granularity) in zip(names, found, strict=True):
        groups = kernel.groups(kernel.numpy(), granularity)
        kept[name] = max(len(np.unique(group)) for group in groups)
        keep(model, kernel, granularity)
    retrace(model)
    return kept


def clustered_kernels(model: Any, embeddings: bool = True) -> list[tuple[ClusterableKernel, str]]:
    """Returns the clustered kernels of a model, each with its granularity.

    Args:
        model: A built Keras 3 model.
        embeddings: Whether the tables of Embedding layers are included.

    Raises:
        ValueError: No kernel is clustered.
    """
    found = []
    for kernel in find_kernels(model, embeddings)[0]:
        granularity = _granularity(kernel.numpy(), kernel)
        if granularity is not None:
            found.append((kernel, granularity))
    if not found:
        raise ValueError(
            f"model must have kernels with 2 to {MOST} distinct values, got none in {model.name!r}"
        )
    return found


def keep(
    model: Any, kernel: ClusterableKernel, granularity: str, gradients: str | None = None
) -> None:
    """Ties the weights of a kernel that are equal.

    Args:
        model: The model of the kernel.
        kernel: The kernel.
        granularity: "layer" or "channel".
        gradients: As for :class:`TiedValues`.
    """
    groups = kernel.groups(kernel.numpy(), granularity)
    zeros = bool((groups == 0).any())
    labels = np.stack([_labels(group, zeros) for group in groups])
    tie = attach(model, kernel, granularity, int(labels.max()) + 1, zeros, gradients)
    tie.assign(kernel.from_groups(labels, granularity))


def attach(
    model: Any,
    kernel: ClusterableKernel,
    granularity: str,
    clusters: int,
    zeros: bool,
    gradients: str | None = None,
    latent: bool = False,
) -> TiedValues:
    """Attaches a new :class:`TiedValues` to a kernel of a model and returns it.

    An earlier one is removed; the kernel's other constraints stay. For the arguments see the
    class.
    """
    inner = _without_ties(kernel.variable.constraint)
    strategy = getattr(model, "distribute_strategy", None)
    # The state of a mirrored variable has to be mirrored too.
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        tie = TiedValues(kernel, granularity, clusters, zeros, inner, gradients, latent)
    kernel.variable.constraint = tie
    return tie


def tied_values(constraint: Any) -> TiedValues | None:
    """Returns the TiedValues in a chain of constraints, None if there is none.

    Args:
        constraint: The constraint of a variable, or None.
    """
    return in_chain(constraint, lambda one: isinstance(one, TiedValues))


def retrace(model: Any) -> None:
    """Builds the training function again, since it was traced with the old constraints.

    Args:
        model: A Keras model.
    """
    renew_train_function(model)


def check_backend() -> None:
    """Checks that Keras runs on TensorFlow.

    Raises:
        RuntimeError: It runs on another backend.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Keras must run on the TensorFlow backend to keep clusters in training, got "
            f"{keras.backend.backend()!r}"
        )


def _granularity(array: np.ndarray, kernel: ClusterableKernel) -> str | None:
    """The granularity of a kernel's present shared values, None if it is not clustered."""
    values = len(np.unique(array))
    if 1 < values <= min(MOST, array.size // 2):
        return LAYER
    groups = kernel.groups(array, CHANNEL)
    counts = [len(np.unique(group)) for group in groups]
    # Pruned weights are equal too, so only values other than zero count.
    nonzero = sum(len(np.unique(group[group != 0])) for group in groups)
    shared = max(counts) < MOST and 0 < nonzero <= np.count_nonzero(array) // 2
    return CHANNEL if shared and values > 1 else None


def _labels(group: np.ndarray, zeros: bool) -> np.ndarray:
    """The index of each weight's value; with `zeros` index 0 is reserved for zero."""
    values = np.unique(group)
    if zeros:
        values = np.concatenate([[0.0], values[values != 0]])
        return np.where(group == 0, 0, 1 + np.searchsorted(values[1:], group))
    return np.searchsorted(values, group)


def _without_ties(constraint: Any) -> Any:
    """A chain of constraints without TiedValues."""
    if isinstance(constraint, TiedValues):
        return _without_ties(constraint.inner)
    if tied_values(constraint) is not None:
        constraint.inner = _without_ties(constraint.inner)
    return constraint


def _short_names(kernels: Sequence[ClusterableKernel]) -> list[str]:
    """The names of kernels without the names of nested models."""
    names: list[str] = []
    for kernel in kernels:
        own = kernel.variable.name
        name = kernel.layer.name if own == "kernel" else f"{kernel.layer.name}/{own}"
        same = sum(other.split("#")[0] == name for other in names)
        names.append(f"{name}#{same + 1}" if same else name)
    return names


def _state(array: np.ndarray, dtype: str, name: str) -> keras.Variable:
    return keras.Variable(array.astype(dtype), dtype=dtype, trainable=False, name=name)
