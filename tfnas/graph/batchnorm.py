"""Measures BatchNormalization statistics on data, and checks data against a model's inputs.

Compressing a layer changes the mean and variance of its outputs, while the next
BatchNormalization keeps its old moving statistics. Measuring them again often recovers most of
the accuracy that was lost: :func:`recalibrate_batchnorm`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.examples import leaves
from tfnas.data.model_inputs import fits
from tfnas.data.reading import arrays, sliced, spread
from tfnas.data.representative_dataset import is_representative_dataset, representative_arrays
from tfnas.graph.traversal import Visit, visit
from tfnas.keras_private import all_layers

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import ExampleData


_LOG = logging.getLogger(__name__)
# Largest shift of the mean in standard deviations, and ratio of variances: medians over channels.
_LIMITS = 3.0, 16.0
_IDENTITY_LIMITS = 0.5, 2.0
_SAME_VARIANCE = 1e-6  # statistics of data differ by more from channel to channel
_UNIT_VARIANCE = 0.01  # folding may leave 1 - epsilon


def recalibrate_batchnorm(
    model: keras.Model, data: ExampleData, batch_size: int = 64
) -> keras.Model:
    """Measures the moving mean and variance of all BatchNormalization layers again.

    They become the mean and variance over all examples, not a moving average. Each layer is
    measured after those before it have been updated. Nothing else changes: no other weight and
    no flag, and Dropout stays off. A warning is logged where the old statistics were not those of
    such data, as in a model whose normalization was folded: its outputs would be lost.

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
        data: Inputs: arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset`; labels are
            ignored. A few hundred typical examples, preprocessed as for training, suffice.
        batch_size: Examples per forward pass.

    Returns:
        The same model, changed in place.

    Raises:
        ValueError: The model uses no BatchNormalization, or the data holds no example, does not
            fit the model or leads to values that are not finite. The model is then unchanged.

    References:
        Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv 2105.07576, 2021.
    """
    import keras

    found = layers_of(model, keras.layers.BatchNormalization)
    if not found:
        raise ValueError(f"model must hold a BatchNormalization layer, got none in {model.name!r}")
    before = [(v, np.array(v)) for bn in found for v in (bn.moving_mean, bn.moving_variance)]
    measured, foreign = 0, []
    try:
        for visit_ in visit(model, input_batches(data, batch_size), found):
            statistics = channel_statistics(visit_.layer, visit_.inputs)
            why = foreign_statistics(visit_.layer, *statistics)
            foreign += [(visit_.layer.name, why)] if why else []
            set_statistics(visit_.layer, *statistics)
            measured += 1
    except BaseException:
        for variable, value in before:
            variable.assign(value)
        raise
    if not measured:
        raise ValueError(f"model must use a BatchNormalization layer, got none in {model.name!r}")
    if foreign:
        name, why = foreign[0]
        _LOG.warning(
            "the statistics of %d of %d BatchNormalization layers in %r did not belong to this "
            "data: %s %s. The model computes something else now: check that it is no model whose "
            "normalization was folded, and that the data is preprocessed as for training",
            *(len(foreign), measured, model.name, name, why),
        )
    return model


def layers_with_foreign_statistics(
    model: keras.Model, data: ExampleData, batch_size: int = 64
) -> dict[str, str]:
    """Returns the BatchNormalization layers whose statistics are not those of their inputs.

    Example:
        >>> import keras
        >>> norm = keras.layers.BatchNormalization(name="n")
        >>> model = keras.Sequential([keras.Input((4,)), norm])
        >>> x = np.random.default_rng(0).normal(size=(500, 4)).astype("float32")
        >>> [list(layers_with_foreign_statistics(model, each)) for each in (x, x + 9)]
        [[], ['n']]

    Args:
        model: A built model; it is not changed.
        data: Inputs, as for :func:`recalibrate_batchnorm`.
        batch_size: Examples per forward pass.

    Returns:
        Name of the layer -> why, as :func:`foreign_statistics` says it.

    Raises:
        ValueError: The data holds no example, or does not fit the model.
    """
    import keras

    found = layers_of(model, keras.layers.BatchNormalization)
    reasons = {
        each.layer.name: foreign_statistics(
            each.layer, *channel_statistics(each.layer, each.inputs)
        )
        for each in visit(model, input_batches(data, batch_size), found)
    }
    return {name: why for name, why in reasons.items() if why}


def foreign_statistics(layer: Any, mean: np.ndarray, variance: np.ndarray) -> str:
    """Returns why the statistics of a BatchNormalization are not those of its inputs; else "".

    Compression moves them, by less than this; folding sets them to 0 and 1, and data in another
    range is further away.

    Args:
        layer: The layer, with its own statistics.
        mean: Means that were measured, (channels,).
        variance: Variances that were measured, (channels,).
    """
    own_mean = np.asarray(layer.moving_mean, np.float64)
    own_variance = np.asarray(layer.moving_variance, np.float64)
    least = np.minimum(own_variance, variance) + layer.epsilon
    most = np.maximum(own_variance, variance) + layer.epsilon
    shift = float(np.median(np.abs(mean - own_mean) / np.sqrt(least)))
    ratio = float(np.median(most / least))
    identity = not own_mean.any() and float(np.ptp(own_variance)) < _SAME_VARIANCE
    identity = identity and abs(float(own_variance.mean()) - 1.0) <= _UNIT_VARIANCE
    limits = _IDENTITY_LIMITS if identity else _LIMITS
    if shift <= limits[0] and ratio <= limits[1]:
        return ""
    found = "mean 0 and variance 1 in all channels" if identity else "others"
    return (
        f"had {found}; the data's mean is {shift:.1f} standard deviations away, and the variances "
        f"differ by a factor of {ratio:.1f} (medians over the channels)"
    )


def channel_statistics(layer: Any, inputs: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and variance (channels,) of a BatchNormalization's inputs, in float64.

    Args:
        layer: The layer; its `axis` is the channel axis.
        inputs: Batches of its inputs, of any size.

    Raises:
        ValueError: An input is not finite.
    """
    import keras

    count, mean, square = 0, np.zeros(1), np.zeros(1)
    for tensor in inputs:
        array = np.moveaxis(np.asarray(keras.ops.convert_to_numpy(tensor)), layer.axis, -1)
        array = array.reshape(-1, array.shape[-1]).astype(np.float32, copy=False)
        batch_mean = array.mean(axis=0, dtype=np.float64)
        deviations = ((array - batch_mean.astype(np.float32)) ** 2).sum(axis=0, dtype=np.float64)
        delta, total = batch_mean - mean, count + len(array)
        # Chan's parallel update of a variance.
        square = square + deviations + delta**2 * (count * len(array) / total)
        mean = mean + delta * (len(array) / total)
        count = total
    if not (np.isfinite(mean).all() and np.isfinite(square).all()):
        raise ValueError(f"data must lead to finite values, got others before layer {layer.name!r}")
    return mean, square / count


def set_statistics(layer: Any, mean: np.ndarray, variance: np.ndarray) -> None:
    """Sets a BatchNormalization's moving mean and variance, (channels,) each."""
    layer.moving_mean.assign(mean.astype(np.float32))
    layer.moving_variance.assign(variance.astype(np.float32))


def move_statistics(
    layer: Any,
    measured: tuple[np.ndarray, np.ndarray],
    old: Any,
    old_measured: tuple[np.ndarray, np.ndarray],
) -> None:
    """Shifts a BatchNormalization's statistics by the change that was measured in its inputs.

    Args:
        layer: The layer; changed in place.
        measured: Mean and variance of its inputs now.
        old: The layer before compression, with its own statistics.
        old_measured: Mean and variance of its inputs before, on the same examples.
    """
    (mean, variance), (old_mean, old_variance) = measured, old_measured
    ratio = (variance + old.epsilon) / (old_variance + old.epsilon)
    moved = (np.asarray(old.moving_variance, np.float64) + old.epsilon) * ratio - old.epsilon
    shifted = np.asarray(old.moving_mean, np.float64) + mean - old_mean
    set_statistics(layer, shifted, np.maximum(moved, 0.0))


def adapt_statistics(changed: Visit, original: Visit) -> None:
    """Moves the statistics of a BatchNormalization by the change of its inputs.

    Args:
        changed: The layer in the compressed model; it is changed in place.
        original: The layer before compression, with its inputs on the same examples.
    """
    after = channel_statistics(changed.layer, changed.inputs)
    before = channel_statistics(original.layer, original.inputs)
    move_statistics(changed.layer, after, original.layer, before)


def layers_of(model: keras.layers.Layer, kinds: Any) -> list[Any]:
    """Returns the layers of a class, each once, also those inside models and other layers."""
    return [layer for layer in all_layers(model) if isinstance(layer, kinds)]


def input_batches(data: Any, batch_size: int = 64, limit: int | None = None) -> list[Any]:
    """Returns a model's inputs as a list of batches, without targets.

    Args:
        data: As for :func:`tfnas.data.batches`.
        batch_size: Examples per batch.
        limit: Number of examples after which reading stops; None: all.

    Raises:
        ValueError: The batch size is below 1, or the data holds no example or is infinite.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    inputs, _ = arrays(data, limit)
    if not all(np.isfinite(leaf).all() for leaf in leaves(inputs) if leaf.dtype.kind == "f"):
        raise ValueError("data must hold finite numbers, got NaN or inf")
    length = len(leaves(inputs)[0])
    return [sliced(inputs, slice(i, i + batch_size)) for i in range(0, length, batch_size)]


def fitting_columns(
    model: keras.Model, data: Any, limit: int | None = None, what: str = "data"
) -> list[np.ndarray]:
    """Returns data as one array per input of a model, in the model's order, after checking it.

    Args:
        model: A built model with known inputs.
        data: As for :func:`tfnas.data.batches`, or a TFLite representative dataset; targets
            are ignored.
        limit: Maximum number of examples, spread over arrays; None: all.
        what: Name of the argument, for the error message.

    Raises:
        ValueError: The data holds other inputs, has the wrong shape, or is not finite.
    """
    inputs: Any
    if is_representative_dataset(data):
        inputs = representative_arrays(data, limit, what)
    else:
        inputs = arrays(data, what=what)[0] if limit is None else spread(data, limit, what)
    names = [tensor.name for tensor in model.inputs]
    if isinstance(inputs, dict):
        if set(inputs) != set(names):
            raise ValueError(f"{what} must hold the inputs {names}, got {sorted(inputs)}")
        inputs = [inputs[name] for name in names]
    columns = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    if len(columns) != len(names):
        raise ValueError(f"{what} must hold {len(names)} inputs, got {len(columns)}")
    for tensor, column in zip(model.inputs, columns, strict=True):
        expected = tuple(tensor.shape[1:])
        if not (column.ndim and fits(column.shape[1:], expected)):
            raise ValueError(
                f"{what} must have the shape (examples, {', '.join(map(str, expected))}) for "
                f"input {tensor.name!r}, got {column.shape}"
            )
        if (column.dtype.kind in "OSU") != (_dtype(tensor).kind == "O"):
            kind = "strings" if _dtype(tensor).kind == "O" else "numbers"
            raise ValueError(
                f"{what} must hold {kind} for input {tensor.name!r}, got {column.dtype}"
            )
        if column.dtype.kind in "fc" and not np.isfinite(column).all():
            raise ValueError(f"{what} must be finite for input {tensor.name!r}, got NaN or inf")
    pairs = zip(columns, model.inputs, strict=True)
    return [column.astype(_dtype(tensor)) for column, tensor in pairs]


def _dtype(tensor: Any) -> np.dtype:
    """The type of an input's array; strings are objects."""
    name = getattr(tensor.dtype, "name", tensor.dtype)
    return np.dtype(object if name == "string" else name)
