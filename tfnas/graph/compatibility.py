"""Checks the order of compression techniques on the model itself.

The order in which no step destroys the result of another: first structured pruning and low rank,
which replace layers; then pruning of single weights; then clustering, which may keep zero as one
of the shared values; then quantization-aware training, whose ranges belong to the weights that
they were measured with. Distillation can be combined with any training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.layer_kernels import model_kernels
from tfnas.keras_private import all_layers, attach, attached

if TYPE_CHECKING:
    import keras

MIN_WEIGHTS = 64  # smaller kernels are not judged
MIN_ZEROS = 0.1  # fraction of zeros of a pruned kernel; training alone leaves some zeros too
MAX_VALUES = 256  # shared values of a clustered kernel: more do not fit into 8 bits
_GRID_ERROR = 2e-3  # largest distance from a multiple of the step, in steps
_MIN_STEPS = 32  # fewer values may be clusters
_BY_CHANCE = 3 * MAX_VALUES  # see `_expected_repeats`
TRAINED_WITH = "changes kernels, and roundings and ranges belong to those that they came with"


def check_float(
    model: keras.Model,
    technique: str,
    why: str = "changes layers, and the ranges that were measured are of those as they are",
) -> None:
    """Raises ValueError for a quantization-aware model whose layers are to be replaced.

    Example:
        >>> import keras
        >>> check_float(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), "factorize")

    Args:
        model: A Keras model.
        technique: Name of the calling function, for the message.
        why: Why it can't be applied to such a model.

    Raises:
        ValueError: The model is quantization-aware.
    """
    import keras

    for layer in all_layers(model) if isinstance(model, keras.layers.Layer) else ():
        if type(layer).__module__.startswith("tfnas.quantization."):
            raise ValueError(
                f"model must not be quantization-aware yet, got {model.name!r} with "
                f"{layer.name!r}: {technique} {why}. Pass the float model, or "
                "tfnas.strip_quantization(model), and call tfnas.quantize_aware afterwards"
            )


def check_not_quantized_by_keras(model: keras.Model) -> None:
    """Raises ValueError for a model of `keras.Model.quantize`.

    Example:
        >>> import keras
        >>> check_not_quantized_by_keras(keras.Sequential([keras.layers.Dense(3)]))

    Args:
        model: A Keras model.

    Raises:
        ValueError: Keras quantized a layer; the message names it.
    """
    for layer in all_layers(model):
        mode = getattr(layer, "quantization_mode", None)
        if mode:
            raise ValueError(
                f"model must have float kernels, got {layer.name!r} of {mode} kernels by Keras' "
                "quantize(), which have no form in a .tflite file: pass the model as it was before"
            )


def check_no_lora(model: keras.Model) -> None:
    """Raises ValueError for LoRA weights: a kernel that is a sum can't be rounded as one.

    Example:
        >>> import keras
        >>> check_no_lora(keras.Sequential([keras.layers.Dense(3)]))

    Args:
        model: A Keras model.

    Raises:
        ValueError: A layer has LoRA weights; the message names it.
    """
    for layer in all_layers(model):
        if getattr(layer, "lora_enabled", False):
            raise ValueError(
                f"model must have no LoRA weights, got those of {layer.name!r}: build the model "
                "without LoRA, and assign the sum, layer.kernel, to its kernel"
            )


def check_uncompressed(name: str, kernel: np.ndarray, technique: str, exclude: str = "") -> None:
    """Raises ValueError for a kernel whose zeros or shared values would be lost.

    Example:
        >>> check_uncompressed("d", np.random.default_rng(0).normal(size=(8, 8)), "factorize")

    Args:
        name: The layer's name.
        kernel: Its weights, output channels last.
        technique: Name of the calling function, for the message.
        exclude: End of the message: another way out.

    Raises:
        ValueError: The kernel is pruned or clustered.
    """
    state = kernel_compression(kernel)
    if not state:
        return
    values = f"{len(np.unique(kernel))} shared values"
    found = values if state == "clusters" else f"{(kernel == 0).mean():.0%} zeros"
    raise ValueError(
        f"model must not be pruned or clustered before {technique}, got {found} in the kernel of "
        f"{name!r}, which would be lost: {technique} comes first{exclude}"
    )


def check_unshared(name: str, kernel: np.ndarray) -> None:
    """Raises ValueError for a clustered kernel that is to be pruned.

    Example:
        >>> check_unshared("d", np.random.default_rng(0).normal(size=(8, 8)))

    Args:
        name: The kernel's name.
        kernel: Its weights, output channels last.

    Raises:
        ValueError: The kernel is clustered.
    """
    if kernel_compression(kernel) == "clusters":
        raise ValueError(
            f"model must be pruned before it is clustered, got {len(np.unique(kernel))} shared "
            f"values in {name!r}: equal weights have equal magnitudes, so the choice among them "
            "would be arbitrary. tfnas.cluster keeps the zeros of a pruned model"
        )


def register_callback(
    model: keras.Model, technique: str, callback: keras.callbacks.Callback
) -> dict[str, Any]:
    """Registers a callback at the beginning of a `fit`; returns those registered before it.

    Args:
        model: The model that is trained.
        technique: Name of the callback's technique.
        callback: The callback.

    Returns:
        Technique -> callback; empty in a custom training loop.
    """
    history = getattr(model, "history", None)  # Keras creates one in each `fit`
    if history is None:
        return {}
    if attached(history, "callbacks") is None:
        attach(history, "callbacks", {})
    registered: dict[str, Any] = attached(history, "callbacks")
    before = {name: other for name, other in registered.items() if other is not callback}
    registered[technique] = callback
    return before


def unregister_callback(model: keras.Model, technique: str) -> None:
    """Removes a callback from the register at the end of its `fit`."""
    registered = attached(getattr(model, "history", None), "callbacks") or {}
    registered.pop(technique, None)


def check_disjoint(pruned: Iterable[Any], clustered: Iterable[Any], got: str) -> None:
    """Raises ValueError if one training prunes and clusters the same kernel.

    Args:
        pruned: The kernels of a PruningCallback.
        clustered: The kernels of a ClusteringCallback.
        got: Description of the two callbacks, for the message.

    Raises:
        ValueError: A kernel is in both.
    """
    pruned_ids = {id(kernel.variable) for kernel in pruned}
    shared = next((kernel for kernel in clustered if id(kernel.variable) in pruned_ids), None)
    if shared is not None:
        raise ValueError(
            f"callbacks must not prune and cluster the same kernels, got {got} for "
            f"{shared.name!r}: weights that share a value can't become zero one by one. Prune "
            "first, in a fit of its own or with tfnas.prune, then cluster: the zeros stay"
        )


def carry_zeros(model: keras.Model, changed: keras.Model) -> None:
    """Copies the pruning constraints of a model to another one built from its layers.

    Kernels are matched by their values, since a rebuilt model may order and name them differently.

    Args:
        model: The original.
        changed: A model with the same weights; changed in place.
    """
    found = [(k, in_chain(k.variable.constraint, _keeps_zeros)) for k in model_kernels(model)[0]]
    masked = [(kernel.numpy(), mask) for kernel, mask in found if mask is not None]
    for kernel in model_kernels(changed)[0] if masked else ():
        weights = kernel.numpy()
        mask = next((m for values, m in masked if np.array_equal(values, weights)), None)
        if mask is not None:
            mask.carry(changed, kernel)


def in_chain(constraint: Any, predicate: Callable[[Any], bool]) -> Any:
    """Returns the first constraint in a chain that fulfills a predicate, or None.

    Args:
        constraint: A constraint, whose `inner` is the next one, or None.
        predicate: Constraint -> whether to return it.
    """
    while constraint is not None and not predicate(constraint):
        constraint = getattr(constraint, "inner", None)
    return constraint


def _keeps_zeros(constraint: Any) -> bool:
    """Whether it is the constraint of :mod:`tfnas.pruning.mask_constraint`."""
    return hasattr(constraint, "carry")


def shares_values(kernel: np.ndarray) -> bool:
    """Whether the nonzero weights have few distinct values, in the kernel or in each channel.

    Few means at most 256, each shared by at least two weights on average: the rule of
    :func:`tfnas.keep_clusters`.

    Example:
        >>> shares_values(np.tile([0.1, 0.2], (40, 1)))
        True
    """
    nonzero = kernel[kernel != 0]
    values = len(np.unique(nonzero))
    if nonzero.size < MIN_WEIGHTS or not 1 < values <= nonzero.size // 2:
        return False
    if values <= MAX_VALUES:
        return True
    # The channel axis is the last one, in transposed and depthwise kernels the one before.
    axes = range(max(0, kernel.ndim - 2), kernel.ndim) if kernel.ndim > 1 else ()
    return any(_channels_have_few(kernel, axis) for axis in axes)


def kernel_compression(kernel: np.ndarray) -> str:
    """Returns how a kernel is compressed, which training may undo: "clusters", "zeros" or "".

    Example:
        >>> kernel_compression(np.tile([0.1, 0.2], (40, 1))), kernel_compression(np.ones((8, 8)))
        ('clusters', '')
    """
    if kernel.dtype.itemsize < 4:
        return ""  # half precision has few distinct values anyway
    if holds_8_bit_numbers(kernel):
        return ""  # rounded for a file; nobody chose these values and zeros
    return "clusters" if shares_values(kernel) else "zeros" if is_pruned(kernel) else ""


def holds_8_bit_numbers(kernel: np.ndarray) -> bool:
    """Whether weights are multiples of a step, as those that were read from an 8-bit file.

    The step is that of the kernel or of each output channel. A kernel with more zeros than rounding
    leaves is pruned, too; it does not count.

    Example:
        >>> weights = np.random.default_rng(0).normal(size=(64, 8))
        >>> step = np.abs(weights).max(axis=0) / 127
        >>> holds_8_bit_numbers(weights), holds_8_bit_numbers(np.round(weights / step) * step)
        (False, True)

    Args:
        kernel: Weights, output channels last or, in transposed and depthwise kernels, last but one.
    """
    if kernel.size < MIN_WEIGHTS:
        return False
    groupings = [kernel.reshape(1, -1)]
    if kernel.ndim > 1:
        groupings += [_channels(kernel, axis) for axis in (-1, -2)]
        groupings.append(kernel.reshape(-1, kernel.shape[-1] * kernel.shape[-2]).T)
    return any(_are_multiples(np.asarray(groups, np.float64)) for groups in groupings)


def _are_multiples(groups: np.ndarray) -> bool:
    """Whether each row of (groups, weights) holds whole multiples of a step, of many values."""
    largest = np.abs(groups).max(axis=1, keepdims=True)
    scaled = np.divide(groups, largest, where=largest > 0, out=np.zeros_like(groups)) * 127
    whole = np.round(scaled)
    if np.abs(scaled - whole).max() > _GRID_ERROR or len(np.unique(whole)) <= _MIN_STEPS:
        return False
    zeros, beside = (whole == 0).sum(), (np.abs(whole) == 1).sum()
    # Rounding leaves about half as many zeros as weights of one step.
    return bool(zeros - groups[largest[:, 0] == 0].size <= beside + MIN_ZEROS * whole.size)


def model_compression(model: keras.Model) -> set[str]:
    """Returns how the kernels of a model are compressed; see :func:`kernel_compression`."""
    return {kernel_compression(kernel.numpy()) for kernel in model_kernels(model)[0]} - {""}


def channels_share_values(kernel: np.ndarray) -> bool:
    """Whether the channels of a kernel share the same few values.

    This compares the distinct values of the channels. After clustering by channel, or without
    clustering, hardly any value occurs in two channels, even in small kernels.

    Example:
        >>> channels_share_values(np.tile([0.1, 0.2], (40, 1)))
        False
        >>> channels_share_values(np.tile([[0.1, 0.2], [0.2, 0.1]], (20, 1)))
        True
    """
    values = len(np.unique(kernel[kernel != 0]))
    if not 1 < values <= MAX_VALUES:
        return False
    per_channel = sum(len(np.unique(channel[channel != 0])) for channel in _channels(kernel, -1))
    return per_channel - values > _expected_repeats(per_channel)


def _expected_repeats(size: int) -> float:
    """Upper bound of the number of unclustered weights that equal another one by chance.

    There are none in float32. Rounded to bfloat16, one pair in 1,500 is equal: with at most
    `MAX_VALUES` values less than a third of all, so that the bound has a margin.
    """
    return size * min(size, MAX_VALUES) / _BY_CHANCE


def _channels_have_few(kernel: np.ndarray, axis: int) -> bool:
    """Whether each channel has few distinct values."""
    counts = [len(np.unique(channel[channel != 0])) for channel in _channels(kernel, axis)]
    return bool(max(counts) <= MAX_VALUES and 1 < sum(counts) <= np.count_nonzero(kernel) // 2)


def _channels(kernel: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)


def is_pruned(kernel: np.ndarray) -> bool:
    """Whether single weights are zero; rows and columns of zeros alone do not count.

    Example:
        >>> is_pruned(np.eye(8)), is_pruned(np.diag([1.0] * 4 + [0.0] * 4)[:, :4] + 1)
        (True, False)
    """
    matrix = kernel.reshape(-1, kernel.shape[-1]) if kernel.ndim > 1 else kernel[:, None]
    zeros = matrix == 0
    used = ~zeros.all(axis=1)[:, None] & ~zeros.all(axis=0)[None, :]
    return bool(kernel.size >= MIN_WEIGHTS and zeros[used].sum() > MIN_ZEROS * max(1, used.sum()))
