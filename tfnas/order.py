"""Which technique may not follow which, read from the model itself.

The order that keeps what each step achieved: channels and low rank first, which change the
layers; then zeros; then shared values, of which zero may be one; then quantisation-aware
training, whose ranges belong to the weights they were measured with. Distillation goes with
any training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FEW = 64  # a kernel of fewer weights says nothing
ZEROS = 0.1  # share of exact zeros from which on a kernel is pruned; training leaves some too
SHARERS = 8  # weights a distinct value, on average, from which on values are shared


def check_float(model: Any, technique: str) -> None:
    """Refuses a quantisation-aware model where layers are to be replaced.

    Example:
        >>> import keras
        >>> check_float(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), "factorize")

    Args:
        model: A Keras model.
        technique: The caller's name.

    Raises:
        ValueError: The model is a quantisation-aware one.
    """
    for layer in getattr(model, "_flatten_layers", lambda: ())():
        if type(layer).__module__.startswith("tfnas.quantization."):
            raise ValueError(
                f"model must not be quantisation-aware yet, got {model.name!r} with "
                f"{layer.name!r}: {technique} changes layers, and the ranges that were measured "
                "are of those as they are. Give it the float model, or tfnas.strip(model), and "
                "call tfnas.quantize_aware afterwards"
            )


def check_dense(name: str, kernel: np.ndarray, technique: str, ignore: str = "") -> None:
    """Refuses a kernel whose zeros or shared values would be lost.

    Example:
        >>> check_dense("d", np.random.default_rng(0).normal(size=(8, 8)), "factorize")

    Args:
        name: The layer's name.
        kernel: Its weights, output channels last.
        technique: The caller's name.
        ignore: What else the caller could do.

    Raises:
        ValueError: The kernel is pruned or clustered.
    """
    if kernel.dtype.itemsize < 4:
        return  # half precision has few values, zero among them
    if shares_values(kernel):
        state = f"{len(np.unique(kernel))} shared values"
    elif is_pruned(kernel):
        state = f"{(kernel == 0).mean():.0%} zeros"
    else:
        return
    raise ValueError(
        f"model must not be pruned or clustered before {technique}, got {state} in the kernel of "
        f"{name!r}, which would be lost: {technique} comes first{ignore}"
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
    if kernel.dtype.itemsize >= 4 and shares_values(kernel):
        raise ValueError(
            f"model must be pruned before it is clustered, got {len(np.unique(kernel))} shared "
            f"values in {name!r}: equal weights have one magnitude, so which of them went would "
            "be chance. tfnas.cluster keeps the zeros of a pruned model"
        )


def shares_values(kernel: np.ndarray) -> bool:
    """Whether weights other than zero have few distinct values, by layer or by channel.

    Example:
        >>> shares_values(np.tile([0.1, 0.2], (40, 1)))
        True
    """
    others = kernel[kernel != 0]
    return others.size >= FEW and 1 < len(np.unique(others)) <= others.size // SHARERS


def achieved(kernel: np.ndarray) -> str:
    """What a kernel holds that training may undo: "clusters", "zeros" or "".

    Example:
        >>> achieved(np.tile([0.1, 0.2], (40, 1))), achieved(np.ones((8, 8)))
        ('clusters', '')
    """
    if kernel.dtype.itemsize < 4:
        return ""  # half precision has few values, zero among them
    return "clusters" if shares_values(kernel) else "zeros" if is_pruned(kernel) else ""


def channels_share_values(kernel: np.ndarray) -> bool:
    """Whether weights have few distinct values, and the channels the same ones.

    Example:
        >>> channels_share_values(np.tile([0.1, 0.2], (40, 1)))
        False
        >>> channels_share_values(np.tile([[0.1, 0.2], [0.2, 0.1]], (20, 1)))
        True
    """
    if not shares_values(kernel):
        return False
    channels = kernel.reshape(-1, kernel.shape[-1]).T
    own = [np.unique(channel[channel != 0]) for channel in channels]
    return 2 * len(np.unique(np.concatenate(own))) <= sum(map(len, own))


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
