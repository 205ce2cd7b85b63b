"""What typical data tells about a model: its inputs, checked, and BatchNormalization's moments.

Compressing a layer moves the mean and variance of its outputs away from those that the next
BatchNormalization remembers; often most of the accuracy lost comes back by measuring them
anew: :func:`recalibrate_batchnorm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.data.datasets import arrays, leaves, sliced, spread
from tfnas.data.representative_dataset import is_representative_dataset, representative_arrays
from tfnas.graph.traversal import visit


def recalibrate_batchnorm(model: Any, data: Any, batch_size: int = 64) -> Any:
    """Measures the moving mean and variance of all BatchNormalization layers anew.

    They become those of all examples together, not a moving average, and each layer is
    measured with those before it recalibrated already. Nothing else changes: no weight, no
    flag, and Dropout stays off.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
        >>> x = np.random.default_rng(0).normal(3.0, 1.0, (500, 4)).astype("float32")
        >>> model = recalibrate_batchnorm(model, x)
        >>> bool(np.allclose(model.layers[0].moving_mean, x.mean(axis=0), atol=1e-5))
        True

    Args:
        model: A built Keras 3 model with BatchNormalization layers, also inside nested and
            subclassed models.
        data: Inputs, labels are ignored: arrays, a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. A few hundred typical examples, prepared as for training.
        batch_size: Examples a forward pass.

    Returns:
        The same model, changed in place.

    Raises:
        ValueError: The model has no BatchNormalization that is used, the data holds no
            example, does not fit the model, or leads to values that are not finite; the
            model is then as it was.

    References:
        Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv 2105.07576, 2021.
    """
    import keras

    found = layers_of(model, keras.layers.BatchNormalization)
    if not found:
        raise ValueError(f"model must hold a BatchNormalization layer, got none in {model.name!r}")
    before = [(v, np.array(v)) for bn in found for v in (bn.moving_mean, bn.moving_variance)]
    measured = 0
    try:
        for visit_ in visit(model, input_batches(data, batch_size), found):
            set_statistics(visit_.layer, *channel_statistics(visit_.layer, visit_.inputs))
            measured += 1
    except BaseException:
        for variable, value in before:
            variable.assign(value)
        raise
    if not measured:
        raise ValueError(f"model must use a BatchNormalization layer, got none in {model.name!r}")
    return model


def channel_statistics(layer: Any, inputs: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and variance of each channel of a BatchNormalization's inputs, float64.

    Args:
        layer: The layer; its axis is the channels'.
        inputs: Tensors of any number of examples.

    Raises:
        ValueError: They are not finite.
    """
    import keras

    count, mean, square = 0, np.zeros(1), np.zeros(1)
    for tensor in inputs:
        array = np.moveaxis(np.asarray(keras.ops.convert_to_numpy(tensor)), layer.axis, -1)
        array = array.reshape(-1, array.shape[-1]).astype(np.float32, copy=False)
        here = array.mean(axis=0, dtype=np.float64)
        apart = ((array - here.astype(np.float32)) ** 2).sum(axis=0, dtype=np.float64)
        moved, total = here - mean, count + len(array)
        square = square + apart + moved**2 * (count * len(array) / total)  # Chan's update
        mean = mean + moved * (len(array) / total)
        count = total
    if not (np.isfinite(mean).all() and np.isfinite(square).all()):
        raise ValueError(f"data must lead to finite values, got others before layer {layer.name!r}")
    return mean, square / count


def set_statistics(layer: Any, mean: np.ndarray, variance: np.ndarray) -> None:
    """Gives a BatchNormalization the mean and variance that it normalizes by."""
    layer.moving_mean.assign(mean.astype(np.float32))
    layer.moving_variance.assign(variance.astype(np.float32))


def move_statistics(
    layer: Any,
    measured: tuple[np.ndarray, np.ndarray],
    old: Any,
    old_measured: tuple[np.ndarray, np.ndarray],
) -> None:
    """Moves a BatchNormalization's statistics as those of its inputs have moved.

    Args:
        layer: The layer; changed in place.
        measured: Mean and variance of its inputs now.
        old: The layer as it was, with its own statistics.
        old_measured: Mean and variance of its inputs then, on the same examples.
    """
    (mean, variance), (old_mean, old_variance) = measured, old_measured
    ratio = (variance + old.epsilon) / (old_variance + old.epsilon)
    moved = (np.asarray(old.moving_variance, np.float64) + old.epsilon) * ratio - old.epsilon
    shifted = np.asarray(old.moving_mean, np.float64) + mean - old_mean
    set_statistics(layer, shifted, np.maximum(moved, 0.0))


def layers_of(model: Any, kinds: Any) -> list[Any]:
    """Returns the layers of a kind, each once, also those inside models and other layers."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]


def input_batches(data: Any, batch_size: int = 64, limit: int | None = None) -> list[Any]:
    """Returns a model's inputs as a list of batches, without targets.

    Args:
        data: As for :func:`tfnas.data.batches`.
        batch_size: Examples a batch.
        limit: Number of examples after which reading stops. None: all.

    Raises:
        ValueError: The batch size is below 1, or the data holds no example or has no end.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    inputs, _ = arrays(data, limit)
    if not all(np.isfinite(leaf).all() for leaf in leaves(inputs) if leaf.dtype.kind == "f"):
        raise ValueError("data must hold finite numbers, got NaN or inf")
    length = len(leaves(inputs)[0])
    return [sliced(inputs, slice(i, i + batch_size)) for i in range(0, length, batch_size)]


def fitting_columns(
    model: Any, data: Any, limit: int | None = None, what: str = "data"
) -> list[np.ndarray]:
    """Returns data as one array an input of a model, in its order, checked.

    Args:
        model: A built model with known inputs.
        data: As for :func:`tfnas.data.batches`, or a TFLite representative dataset; targets
            are ignored.
        limit: Number of examples at most, from all over arrays. None: all.
        what: Name of the argument, for the error message.

    Raises:
        ValueError: It holds other inputs, another shape, or NaN.
    """
    given: Any
    if is_representative_dataset(data):
        given = representative_arrays(data, limit, what)
    else:
        given = arrays(data, what=what)[0] if limit is None else spread(data, limit, what)
    names = [tensor.name for tensor in model.inputs]
    if isinstance(given, dict):
        if set(given) != set(names):
            raise ValueError(f"{what} must hold the inputs {names}, got {sorted(given)}")
        given = [given[name] for name in names]
    columns = list(given) if isinstance(given, list | tuple) else [given]
    if len(columns) != len(names):
        raise ValueError(f"{what} must hold {len(names)} inputs, got {len(columns)}")
    for tensor, column in zip(model.inputs, columns, strict=True):
        expected = tuple(tensor.shape[1:])
        fits = column.ndim == len(expected) + 1 and all(
            want in (None, got) for want, got in zip(expected, column.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"{what} must have the shape (examples, {', '.join(map(str, expected))}) for "
                f"input {tensor.name!r}, got {column.shape}"
            )
        if not np.isfinite(column).all():
            raise ValueError(f"{what} must be finite for input {tensor.name!r}, got NaN or inf")
    dtypes = [np.dtype(getattr(tensor.dtype, "name", tensor.dtype)) for tensor in model.inputs]
    return [column.astype(dtype) for column, dtype in zip(columns, dtypes, strict=True)]
