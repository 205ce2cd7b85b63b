"""Equal weights that stay equal, whatever the optimizer does.

A kernel of few distinct values compresses well; training would make all of them differ. As
with :mod:`tfnas.pruning.constraint`, a constraint on the variable, which Keras applies inside the
compiled step right after each update, ties them: all weights that were equal are moved to the
mean of where the optimizer put them. So a value moves as the mean of its weights, and there
are never more values than at the start.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

MOST = 256  # values that a kernel may have to count as clustered


class TiedValues(keras.constraints.Constraint):
    """Moves the weights of each cluster to their mean, after the variable's own constraint.

    Args:
        places: Integer Keras variable of the kernel's shape: the cluster of each weight.
        firsts: One weight of each cluster, by its place in the flat kernel.
        counts: Number of weights of each cluster.
        zero: The cluster of exact zeros, which stay; None where there is none.
        inner: The variable's own constraint, or None.
    """

    def __init__(
        self,
        places: keras.Variable,
        firsts: np.ndarray,
        counts: np.ndarray,
        zero: int | None = None,
        inner: Any = None,
    ) -> None:
        self.places, self.firsts, self.counts = places, firsts, counts
        self.zero, self.inner = zero, inner

    def __call__(self, w: Any) -> Any:
        """Returns the weights with one value a cluster."""
        value = keras.ops.convert_to_tensor(w if self.inner is None else self.inner(w))
        flat = keras.ops.reshape(value, -1)
        places = keras.ops.cast(keras.ops.reshape(self.places, -1), "int32")
        # The mean of what differs from one of them: a sum of many equal numbers is not exact.
        own = keras.ops.take(flat, self.firsts)
        apart = flat - keras.ops.take(own, places)
        sums = keras.ops.segment_sum(apart, places, num_segments=len(self.counts))
        values = own + sums / keras.ops.cast(self.counts, sums.dtype)
        if self.zero is not None:
            zeros = np.arange(len(self.counts)) == self.zero
            values = keras.ops.where(zeros, keras.ops.zeros_like(values), values)
        return keras.ops.reshape(keras.ops.take(values, places), value.shape)


def keep_clusters(model: Any) -> dict[str, int]:
    """Makes equal weights of a model's clustered kernels stay equal in further training.

    A kernel is clustered if it holds 2 to 256 distinct values, and at most half as many as
    weights; others are left free. Exact zeros stay zeros. Call it after loading or
    :func:`tfnas.quantize_aware` and before `fit`; it holds for as long as this object lives.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d")])
        >>> _ = model.layers[0].kernel.assign(np.eye(4, 3))
        >>> tfnas.keep_clusters(model)
        {'d': 2}

    Args:
        model: A built Keras 3 model; changed in place.

    Returns:
        Layer of each clustered kernel -> the number of its values; "layer#2" is another of
        that name.

    Raises:
        ValueError: The model is not built, or no kernel is clustered.
        RuntimeError: Keras runs on another backend than TensorFlow.
    """
    if not isinstance(model, keras.Model) or not model.built:
        what = "not built" if isinstance(model, keras.Model) else type(model).__name__
        raise ValueError(f"model must be a built Keras 3 model, got {what}")
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Keras must run on the TensorFlow backend to keep clusters in training, got "
            f"{keras.backend.backend()!r}"
        )
    found = {
        name: (variable, values)
        for name, variable in _kernels(model).items()
        if (values := _values(variable)) is not None
    }
    if not found:
        raise ValueError(
            f"model must hold kernels of 2 to {MOST} distinct values, got none in {model.name!r}"
        )
    for variable, _ in found.values():
        _tie(model, variable)
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)
    return {name: len(values) for name, (_, values) in found.items()}


def _kernels(model: Any) -> dict[str, Any]:
    """The kernels of a model, each once, by the names of their layers."""
    found: dict[str, Any] = {}
    for layer in model._flatten_layers():
        for variable in layer._trainable_variables:
            known = any(variable is other for other in found.values())
            if known or not variable.name.endswith("kernel") or len(variable.shape) < 2:
                continue
            name = layer.name if variable.name == "kernel" else f"{layer.name}/{variable.name}"
            alike = sum(other.split("#")[0] == name for other in found)
            found[f"{name}#{alike + 1}" if alike else name] = variable
    return found


def _values(variable: Any) -> np.ndarray | None:
    """The distinct values of a kernel, None where they are too many."""
    flat = np.asarray(keras.ops.convert_to_numpy(variable)).reshape(-1)
    values = np.unique(flat)
    return values if 1 < len(values) <= min(MOST, flat.size // 2) else None


def _tie(model: Any, variable: Any) -> None:
    flat = np.asarray(keras.ops.convert_to_numpy(variable)).reshape(-1)
    values, firsts, places, counts = np.unique(
        flat, return_index=True, return_inverse=True, return_counts=True
    )
    zeros = np.flatnonzero(values == 0.0)
    places = places.reshape(variable.shape).astype(np.uint8)
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is None:
        held = _places_variable(places)
    else:
        with strategy.scope():  # a mirrored variable needs mirrored places
            held = _places_variable(places)
    inner = variable.constraint
    if isinstance(inner, TiedValues):  # tied before, to other places
        inner = inner.inner
    zero = int(zeros[0]) if len(zeros) else None
    variable.constraint = TiedValues(held, firsts.astype(np.int32), counts, zero, inner)


def _places_variable(places: np.ndarray) -> keras.Variable:
    return keras.Variable(places, dtype="uint8", trainable=False, name="cluster_places")
