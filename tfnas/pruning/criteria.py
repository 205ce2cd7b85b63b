"""Importance scores of weights; the lowest are pruned first.

| criterion   | score                        | needs data | reference                      |
|-------------|------------------------------|------------|--------------------------------|
| "magnitude" | abs(w)                       | no         | Han et al. 2015                |
| "gradient"  | mean over batches abs(dL/dw) | yes        | the gradient of the loss       |
| "taylor"    | mean over batches abs(w dL/dw)| yes       | Molchanov et al. 2019          |
| "random"    | uniform in [0, 1)            | no         | a random baseline              |

A criterion may also be a function that takes the weights and returns scores of their shape.

References:
    Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015.
    Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019: the
    first-order change of the loss when a weight is removed; here its absolute value.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

Criterion = str | Callable[[np.ndarray], np.ndarray]
CRITERIA = ("magnitude", "gradient", "taylor", "random")
WITH_DATA = ("gradient", "taylor")


def check_criterion(criterion: Criterion, data: object, more: tuple[str, ...] = ()) -> None:
    """Checks that the criterion is known, and that it has the data that it needs.

    Args:
        criterion: A name or a function of the weights.
        data: The data argument, None if missing.
        more: Further names of criteria, all of which need data.

    Raises:
        ValueError: The criterion is unknown, or its data is missing.
    """
    known = (*CRITERIA, *more)
    if not callable(criterion) and criterion not in known:
        raise ValueError(
            f"criterion must be one of {', '.join(known)} or a function of the weights, "
            f"got {criterion!r}"
        )
    if criterion in (*WITH_DATA, *more) and data is None:
        raise ValueError(f"data must be given for criterion {criterion!r}, got None")


def scores(
    criterion: Criterion,
    weights: np.ndarray,
    gradients: np.ndarray | None = None,
    seed: int = 0,
    name: str = "",
) -> np.ndarray:
    """Returns the score of each weight; the lowest are pruned first.

    Example:
        >>> scores("taylor", np.array([1.0, -2.0]), np.array([3.0, 0.5]))
        array([3., 1.])

    Args:
        criterion: A name of the module's table, or a function of the weights.
        weights: The weights of a kernel.
        gradients: For "gradient" and "taylor": mean over batches of the absolute gradient of
            the loss, of the shape of the weights.
        seed: Seed of "random".
        name: Name of the kernel, part of the random seed, so that kernels of one shape get
            different scores.

    Raises:
        ValueError: The scores hold NaN or have another shape, or gradients are missing.
    """
    if callable(criterion):
        found = np.asarray(criterion(weights))
    elif criterion == "magnitude":
        found = np.abs(weights)
    elif criterion == "random":
        found = np.random.default_rng([seed, zlib.crc32(name.encode())]).random(weights.shape)
    else:
        if gradients is None:
            raise ValueError(f"gradients must be given for criterion {criterion!r}, got None")
        found = gradients if criterion == "gradient" else np.abs(weights) * gradients
    if found.shape != weights.shape:
        raise ValueError(
            f"criterion must return scores of shape {weights.shape} for {name!r}, got {found.shape}"
        )
    if np.isnan(found).any():
        raise ValueError(f"scores of {name!r} must be numbers, got NaN by criterion {criterion!r}")
    return found
