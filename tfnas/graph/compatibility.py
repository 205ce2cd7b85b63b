"""Which technique may not follow which, read from the model itself.

The order that keeps what each step achieved: channels and low rank first, which change the
layers; then zeros; then shared values, of which zero may be one; then quantization-aware
training, whose ranges belong to the weights they were measured with. Distillation goes with
any training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tfnas.graph.layer_kernels import model_kernels

FEW = 64  # a kernel of fewer weights says nothing
ZEROS = 0.1  # share of exact zeros from which on a kernel is pruned; training leaves some too
MOST = 256  # values that weights can share: more are no fewer integers
_BY_CHANCE = 3 * MOST  # see `_repeats`
TRAINED_WITH = "changes kernels, and roundings and ranges belong to those that they came with"


def check_float(
    model: Any,
    technique: str,
    why: str = "changes layers, and the ranges that were measured are of those as they are",
) -> None:
    """Refuses a quantization-aware model where layers or kernels are to be replaced.

    Example:
        >>> import keras
        >>> check_float(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), "factorize")

    Args:
        model: A Keras model.
        technique: The caller's name.
        why: What it does that does not go with such a model.

    Raises:
        ValueError: The model is a quantization-aware one.
    """
    for layer in getattr(model, "_flatten_layers", lambda: ())():
        if type(layer).__module__.startswith("tfnas.quantization."):
            raise ValueError(
                f"model must not be quantization-aware yet, got {model.name!r} with "
                f"{layer.name!r}: {technique} {why}. Give it the float model, or "
                "tfnas.strip_quantization(model), and call tfnas.quantize_aware afterwards"
            )


def check_dense(name: str, kernel: np.ndarray, technique: str, exclude: str = "") -> None:
    """Refuses a kernel whose zeros or shared values would be lost.

    Example:
        >>> check_dense("d", np.random.default_rng(0).normal(size=(8, 8)), "factorize")

    Args:
        name: The layer's name.
        kernel: Its weights, output channels last.
        technique: The caller's name.
        exclude: What else the caller could do.

    Raises:
        ValueError: The kernel is pruned or clustered.
    """
    held = achieved(kernel)
    if not held:
        return
    values = f"{len(np.unique(kernel))} shared values"
    state = values if held == "clusters" else f"{(kernel == 0).mean():.0%} zeros"
    raise ValueError(
        f"model must not be pruned or clustered before {technique}, got {state} in the kernel of "
        f"{name!r}, which would be lost: {technique} comes first{exclude}"
    )


def check_unshared(name: str, kernel: np.ndarray) -> None:
    """Refuses to prune a kernel of shared values.

    Example:
        >>> check_unshared("d", np.random.default_rng(0).normal(size=(8, 8)))

    Args:
        name: The kernel's name.
        kernel: Its weights, output channels last.

    Raises:
        ValueError: The kernel is clustered.
    """
    if achieved(kernel) == "clusters":
        raise ValueError(
            f"model must be pruned before it is clustered, got {len(np.unique(kernel))} shared "
            f"values in {name!r}: equal weights have one magnitude, so which of them went would "
            "be chance. tfnas.cluster keeps the zeros of a pruned model"
        )


def same_fit(model: Any, technique: str, callback: Any) -> dict[str, Any]:
    """Notes a callback at the beginning of a `fit`; returns those noted there before it.

    Args:
        model: The model that is trained.
        technique: What the callback does.
        callback: The callback.

    Returns:
        Technique -> callback; nothing in a training loop of one's own, which has no `fit`.
    """
    history = getattr(model, "history", None)  # Keras makes one for each `fit`
    if history is None:
        return {}
    met: dict[str, Any] = vars(history).setdefault("_tfnas_met", {})
    before = {name: other for name, other in met.items() if other is not callback}
    met[technique] = callback
    return before


def leave_fit(model: Any, technique: str) -> None:
    """Forgets a callback at the end of its `fit`."""
    getattr(getattr(model, "history", None), "_tfnas_met", {}).pop(technique, None)


def check_apart(pruned: Iterable[Any], clustered: Iterable[Any], got: str) -> None:
    """Refuses to prune and to cluster the same kernels in one training.

    Args:
        pruned: The kernels that a PruningCallback prunes.
        clustered: Those that a ClusteringCallback clusters.
        got: What does not go together.

    Raises:
        ValueError: A kernel is among both.
    """
    both = {id(kernel.variable) for kernel in pruned}
    shared = next((kernel for kernel in clustered if id(kernel.variable) in both), None)
    if shared is not None:
        raise ValueError(
            f"callbacks must not prune and cluster the same kernels, got {got} for "
            f"{shared.name!r}: weights that share a value can't become zero one by one. Prune "
            "first, in a fit of its own or with tfnas.prune, then cluster: the zeros stay"
        )


def carry_zeros(model: Any, changed: Any) -> None:
    """Keeps in a model made of another one's layers the zeros that stay zero in that one.

    Kernels are found by their values: what is made anew may order and name them otherwise.

    Args:
        model: The original.
        changed: A model with the same weights; changed in place.
    """
    holders = [(k, in_chain(k.variable.constraint, _carries)) for k in model_kernels(model)[0]]
    held = [(kernel.numpy(), holder) for kernel, holder in holders if holder is not None]
    for twin in model_kernels(changed)[0] if held else ():
        own = twin.numpy()
        holder = next((h for values, h in held if np.array_equal(values, own)), None)
        if holder is not None:
            holder.carry(changed, twin)


def in_chain(constraint: Any, wanted: Callable[[Any], bool]) -> Any:
    """Returns the first in a chain of constraints that is wanted, None where there is none.

    Args:
        constraint: A constraint, of which `inner` is the next one, or None.
        wanted: Whether it is the one.
    """
    while constraint is not None and not wanted(constraint):
        constraint = getattr(constraint, "inner", None)
    return constraint


def _carries(constraint: Any) -> bool:
    """Whether a constraint holds zeros (:mod:`tfnas.pruning.mask_constraint`)."""
    return hasattr(constraint, "carry")


def shares_values(kernel: np.ndarray) -> bool:
    """Whether weights other than zero have few distinct values, by layer or by channel.

    Few are at most 256, each the value of two weights on average: as many as
    :func:`tfnas.keep_clusters` takes for shared.

    Example:
        >>> shares_values(np.tile([0.1, 0.2], (40, 1)))
        True
    """
    others = kernel[kernel != 0]
    values = len(np.unique(others))
    if others.size < FEW or not 1 < values <= others.size // 2:
        return False
    if values <= MOST:
        return True
    # Channels are the last axis, of transposed and depthwise kernels the one before.
    axes = range(max(0, kernel.ndim - 2), kernel.ndim) if kernel.ndim > 1 else ()
    return any(_channels_have_few(kernel, axis) for axis in axes)


def achieved(kernel: np.ndarray) -> str:
    """What a kernel holds that training may undo: "clusters", "zeros" or "".

    Example:
        >>> achieved(np.tile([0.1, 0.2], (40, 1))), achieved(np.ones((8, 8)))
        ('clusters', '')
    """
    if kernel.dtype.itemsize < 4:
        return ""  # half precision has few values, zero among them
    return "clusters" if shares_values(kernel) else "zeros" if is_pruned(kernel) else ""


def model_achieved(model: Any) -> set[str]:
    """What the kernels of a model hold that training may undo; see `achieved`."""
    return {achieved(kernel.numpy()) for kernel in model_kernels(model)[0]} - {""}


def channels_share_values(kernel: np.ndarray) -> bool:
    """Whether the channels of a kernel have the same few values.

    Counted are the distinct values of each channel. Where each has its own, as after clustering
    by channel or none, hardly any is another channel's too, however few weights there are.

    Example:
        >>> channels_share_values(np.tile([0.1, 0.2], (40, 1)))
        False
        >>> channels_share_values(np.tile([[0.1, 0.2], [0.2, 0.1]], (20, 1)))
        True
    """
    values = len(np.unique(kernel[kernel != 0]))
    if not 1 < values <= MOST:
        return False
    own = sum(len(np.unique(channel[channel != 0])) for channel in _channels(kernel, -1))
    return own - values > _repeats(own)


def _repeats(size: int) -> float:
    """How many of so many free weights may equal another one, with half of it to spare.

    None of float32. Of those that were rounded to bfloat16 one pair in 1,500 is equal; a third
    of all is more than that leaves where there are at most `MOST` values.
    """
    return size * min(size, MOST) / _BY_CHANCE


def _channels_have_few(kernel: np.ndarray, axis: int) -> bool:
    """Whether each channel has few values of its own."""
    counts = [len(np.unique(channel[channel != 0])) for channel in _channels(kernel, axis)]
    return bool(max(counts) <= MOST and 1 < sum(counts) <= np.count_nonzero(kernel) // 2)


def _channels(kernel: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)


def is_pruned(kernel: np.ndarray) -> bool:
    """Whether single weights are zero; rows and columns that are zero as a whole don't count.

    Example:
        >>> is_pruned(np.eye(8)), is_pruned(np.diag([1.0] * 4 + [0.0] * 4)[:, :4] + 1)
        (True, False)
    """
    matrix = kernel.reshape(-1, kernel.shape[-1]) if kernel.ndim > 1 else kernel[:, None]
    zeros = matrix == 0
    used = ~zeros.all(axis=1)[:, None] & ~zeros.all(axis=0)[None, :]
    return bool(kernel.size >= FEW and zeros[used].sum() > ZEROS * max(1, used.sum()))
