"""Equal weights that stay equal, whatever the optimizer does.

A kernel of few distinct values compresses well; training would make all of them differ. A
constraint on the variable, which Keras applies inside the compiled step right after each
update, ties them: all weights of a cluster are moved to the mean of where the optimizer put
them. So there are never more values than at the start, under any optimizer, weight decay or
averaging.

That makes them equal; which way they go is another question. The gradient of a shared value
is the sum of its weights' gradients (Han et al., section 3.3). SGD is linear: the mean of its
steps is a step along that gradient. Adam divides each weight's gradient by its own size
first, and the mean of what comes out may even point uphill: three weights of gradient -1 and
one of +10 move by +3 - 1 steps of Adam, against the sum of +7. So in `fit`
:class:`tfnas.ClusteringCallback` gives the optimizer the sum in place of each weight's own
gradient (:class:`TiedStep`); then every optimizer steps as if it had the shared values alone.
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

GRADIENTS = ("sum", "mean")


class TiedValues(keras.constraints.Constraint):
    """Moves the weights of each cluster to their mean, after the variable's own constraint.

    Args:
        kernel: Whose weights.
        granularity: "layer" or "channel": whether each channel has clusters of its own.
        clusters: Most clusters of a group.
        zeros: Whether cluster 0 of each group is exact zeros, which stay.
        inner: The variable's own constraint, or None.
        gradients: What :class:`TiedStep` gives a cluster: the "sum" or the "mean" of its
            weights' gradients; None: to each weight its own.
        free: Whether each weight also keeps a place of its own, moved by its own updates, so
            that it may go over to another cluster. Its cluster's value is the mean of those.
    """

    def __init__(
        self,
        kernel: ClusterableKernel,
        granularity: str,
        clusters: int,
        zeros: bool,
        inner: Any = None,
        gradients: str | None = None,
        free: bool = False,
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
        self.places = _held(np.zeros(kernel.shape), "uint8", "cluster_places")
        self.members = _held(np.zeros(slots), "int32", "cluster_members")
        self.counts = _held(np.ones(slots), "float32", "cluster_counts")
        self.free: Any = None
        if free:
            self.free = _held(np.zeros(kernel.shape), "float32", "free_weights")
            self.values = _held(np.zeros(slots), "float32", "cluster_values")

    def __call__(self, w: Any) -> Any:
        """Returns the weights with one value a cluster."""
        value = keras.ops.convert_to_tensor(w if self.inner is None else self.inner(w))
        slots = self._slots()
        if self.free is None:
            return self._spread(self._means(value, slots), slots, value)
        # What the step moved each weight by, added to where it would be without its cluster.
        before = self._spread(self.values, slots, self.free)
        free = self.free + (keras.ops.cast(value, "float32") - before)
        if self.zeros:  # a zero has no place of its own to leave for
            free = keras.ops.where(keras.ops.equal(self.places, 0), 0.0, free)
        means = self._means(free, slots)
        self.free.assign(free)
        self.values.assign(means)
        return self._spread(means, slots, value)

    def gradient(self, gradient: Any) -> Any:
        """Returns the gradient that each weight of a cluster is to have; see `gradients`."""
        if self.gradients is None:
            return gradient
        slots, gradient = self._slots(), keras.ops.convert_to_tensor(gradient)
        flat = keras.ops.reshape(gradient, (-1,))
        sums = keras.ops.segment_sum(flat, slots, num_segments=len(self._zero))
        if self.gradients == "mean":
            sums = sums / keras.ops.cast(self.counts, sums.dtype)
        return self._spread(self._without_zeros(sums), slots, gradient)

    def assign(self, labels: np.ndarray, values: np.ndarray | None = None) -> None:
        """Sets which cluster each weight is in.

        Args:
            labels: Whole numbers from 0, of the kernel's shape.
            values: Where each weight would be by itself, of the same shape, where that is kept.
        """
        slots = (self._offsets + labels).reshape(-1)
        members = np.zeros(len(self._zero), np.int32)
        members[slots] = np.arange(slots.size)
        counts = np.bincount(slots, minlength=len(self._zero))
        self.places.assign(labels)
        self.members.assign(members)
        self.counts.assign(np.maximum(counts, 1))
        if self.free is not None:
            assert values is not None
            self.free.assign(np.where(labels == 0, 0.0, values) if self.zeros else values)
            self.values.assign(self._means(self.free, self._slots()))

    def labels(self) -> np.ndarray:
        """Returns the cluster of each weight within its group, of the kernel's shape."""
        return np.asarray(keras.ops.convert_to_numpy(self.places)).astype(np.int64)

    def _slots(self) -> Any:
        return keras.ops.reshape(keras.ops.cast(self.places, "int32") + self._offsets, (-1,))

    def _means(self, value: Any, slots: Any) -> Any:
        flat = keras.ops.reshape(value, (-1,))
        # The mean of what differs from one of them: a sum of many equal numbers is not exact.
        own = keras.ops.take(flat, self.members)
        apart = flat - keras.ops.take(own, slots)
        sums = keras.ops.segment_sum(apart, slots, num_segments=len(self._zero))
        return self._without_zeros(own + sums / keras.ops.cast(self.counts, sums.dtype))

    @property
    def _zero(self) -> np.ndarray:
        """Which slots are clusters of zeros, (slots,)."""
        zero = np.zeros(len(self._first) * self.clusters, bool)
        zero[self._first] = self.zeros
        return zero

    def _without_zeros(self, values: Any) -> Any:
        if not self.zeros:
            return values
        return keras.ops.where(self._zero, keras.ops.zeros_like(values), values)

    @staticmethod
    def _spread(values: Any, slots: Any, like: Any) -> Any:
        """Each weight its cluster's number, in a tensor of another's shape and type."""
        return keras.ops.cast(
            keras.ops.reshape(keras.ops.take(values, slots), like.shape), like.dtype
        )


class TiedStep:
    """An optimizer's step with the gradients of tied weights tied.

    It stands between clipping, averaging over steps and loss scales, which see each weight's own
    gradient as in any training, and the update itself.

    Args:
        step: The optimizer's own `_backend_update_step`.
    """

    def __init__(self, step: Any) -> None:
        self.step = step

    def __call__(self, grads: Sequence[Any], trainable_variables: Any, learning_rate: Any) -> Any:
        """Makes the step."""
        ties = [tied_values(getattr(v, "constraint", None)) for v in trainable_variables]
        grads = [
            gradient if tie is None or gradient is None else tie.gradient(gradient)
            for gradient, tie in zip(grads, ties, strict=True)
        ]
        return self.step(grads, trainable_variables, learning_rate)


def tie_gradients(optimizer: Any) -> None:
    """Makes an optimizer give tied weights their tied gradients."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    if not isinstance(optimizer._backend_update_step, TiedStep):
        optimizer._backend_update_step = TiedStep(optimizer._backend_update_step)


def keep_clusters(model: Any, embeddings: bool = False) -> dict[str, int]:
    """Makes equal weights of a model's clustered kernels stay equal in further training.

    A kernel is clustered if it holds 2 to 256 distinct values, and at most half as many as
    weights; or if that is so in each of its channels, zeros not counted. Others are left free.
    Exact zeros stay zeros. Call it after loading or :func:`tfnas.quantize_aware` and before
    `fit`; it holds for as long as this object lives.

    A shared value moves to the mean of where the optimizer puts its weights. With Adam and its
    kin give `fit` a `tfnas.ClusteringCallback(None)` instead: it keeps the same clusters, and
    moves them by the sum of their gradients.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d")])
        >>> _ = model.layers[0].kernel.assign(np.eye(4, 3))
        >>> tfnas.keep_clusters(model)
        {'d': 2}

    Args:
        model: A built Keras 3 model; changed in place.
        embeddings: Whether tables of embeddings are kept too.

    Returns:
        Layer of each clustered kernel -> the number of its values, of the channel that has
        most where each has its own; "layer#2" is another of that name.

    Raises:
        ValueError: The model is not built, or no kernel is clustered.
        RuntimeError: Keras runs on another backend than TensorFlow.
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


def clustered_kernels(model: Any, embeddings: bool = False) -> list[tuple[ClusterableKernel, str]]:
    """Returns the kernels of few values, and whether each channel has its own.

    Args:
        model: A built Keras 3 model.
        embeddings: Whether tables of embeddings are among them.

    Raises:
        ValueError: There is none.
    """
    found = []
    for kernel in find_kernels(model, embeddings)[0]:
        granularity = _granularity(kernel.numpy(), kernel)
        if granularity is not None:
            found.append((kernel, granularity))
    if not found:
        raise ValueError(
            f"model must hold kernels of 2 to {MOST} distinct values, got none in {model.name!r}"
        )
    return found


def keep(
    model: Any, kernel: ClusterableKernel, granularity: str, gradients: str | None = None
) -> None:
    """Ties the weights of a kernel that are equal now."""
    groups = kernel.groups(kernel.numpy(), granularity)
    zeros = bool((groups == 0).any())
    labels = np.stack([_places(group, zeros) for group in groups])
    tie = attach(model, kernel, granularity, int(labels.max()) + 1, zeros, gradients)
    tie.assign(kernel.from_groups(labels, granularity))


def attach(
    model: Any,
    kernel: ClusterableKernel,
    granularity: str,
    clusters: int,
    zeros: bool,
    gradients: str | None = None,
    free: bool = False,
) -> TiedValues:
    """Hangs a :class:`TiedValues` on a kernel, in place of one that it had."""
    inner = _without_ties(kernel.variable.constraint)
    strategy = getattr(model, "distribute_strategy", None)
    # A mirrored variable needs mirrored places.
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        tie = TiedValues(kernel, granularity, clusters, zeros, inner, gradients, free)
    kernel.variable.constraint = tie
    return tie


def tied_values(constraint: Any) -> TiedValues | None:
    """Returns the TiedValues in a chain of constraints, None where there is none."""
    return in_chain(constraint, lambda one: isinstance(one, TiedValues))


def retrace(model: Any) -> None:
    """Makes the compiled step of training anew: it was traced with the constraints of then."""
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)


def check_backend() -> None:
    """Raises RuntimeError unless Keras runs on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Keras must run on the TensorFlow backend to keep clusters in training, got "
            f"{keras.backend.backend()!r}"
        )


def _granularity(array: np.ndarray, kernel: ClusterableKernel) -> str | None:
    """How a kernel's weights are shared as they are, None where they are not."""
    values = len(np.unique(array))
    if 1 < values <= min(MOST, array.size // 2):
        return LAYER
    groups = kernel.groups(array, CHANNEL)
    counts = [len(np.unique(group)) for group in groups]
    # Pruned weights are equal as well: what is shared must be others than zero.
    others = sum(len(np.unique(group[group != 0])) for group in groups)
    shared = max(counts) < MOST and 0 < others <= np.count_nonzero(array) // 2
    return CHANNEL if shared and values > 1 else None


def _places(group: np.ndarray, zeros: bool) -> np.ndarray:
    """Which of its distinct values each weight has; with `zeros` place 0 is theirs alone."""
    values = np.unique(group)
    if zeros:
        values = np.concatenate([[0.0], values[values != 0]])
        return np.where(group == 0, 0, 1 + np.searchsorted(values[1:], group))
    return np.searchsorted(values, group)


def _without_ties(constraint: Any) -> Any:
    """A chain of constraints without TiedValues of before."""
    if isinstance(constraint, TiedValues):
        return _without_ties(constraint.inner)
    if tied_values(constraint) is not None:
        constraint.inner = _without_ties(constraint.inner)
    return constraint


def _short_names(kernels: Sequence[ClusterableKernel]) -> list[str]:
    """The kernels' names without the models around them."""
    names: list[str] = []
    for kernel in kernels:
        own = kernel.variable.name
        name = kernel.layer.name if own == "kernel" else f"{kernel.layer.name}/{own}"
        alike = sum(other.split("#")[0] == name for other in names)
        names.append(f"{name}#{alike + 1}" if alike else name)
    return names


def _held(array: np.ndarray, dtype: str, name: str) -> keras.Variable:
    return keras.Variable(array.astype(dtype), dtype=dtype, trainable=False, name=name)
