"""The effect of an error of each weight on the layer's output.

An error e of a weight changes the output by e x, where x is the weight's input. The mean squared
change is e^2 E[x^2]: the diagonal of the Hessian of the layer's squared output error (with
uncorrelated inputs, the entire Hessian). k-means with squared errors weighted by E[x^2] changes
the output less for the same number of values.

References:
    LeCun, Denker and Solla, "Optimal Brain Damage", 1989, equation (3); Choi, El-Khamy and Lee,
    "Toward the Limit of Network Quantization", ICLR 2017, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.clustering.clusterable_kernels import SINGLE_KERNEL_LAYERS, ClusterableKernel
from tfnas.graph.batchnorm import input_batches
from tfnas.graph.traversal import visit

EXAMPLES = 256
_LEAST = 1e-3  # of the mean; an input that is 0 in these examples may be nonzero in others


def mean_squares(
    model: Any, kernels: Sequence[ClusterableKernel], data: Any
) -> dict[int, np.ndarray]:
    """Returns E[x^2] of the input of each weight, of the kernel's shape, by the kernel's id.

    For Dense layers and convolutions with data format channels_last; others are left out.

    Args:
        model: The model of the kernels.
        kernels: Some of its kernels.
        data: Typical inputs; see :func:`tfnas.graph.batchnorm.input_batches`.

    Raises:
        ValueError: The data holds no example or does not match the model.
    """
    selected = {
        k.layer: k for k in kernels if k.kind in SINGLE_KERNEL_LAYERS and _channels_last(k.layer)
    }
    found = {}
    for stop in visit(model, input_batches(data, limit=EXAMPLES), list(selected)):
        kernel = selected[stop.layer]
        arrays = [np.asarray(x, np.float32) for x in stop.inputs]
        rows = [a.reshape(-1, a.shape[-1]) for a in arrays]
        sums = sum(np.square(a).sum(axis=0, dtype=np.float64) for a in rows)
        found[id(kernel)] = _per_weight(sums / sum(map(len, rows)), kernel)
    return found


def _per_weight(squares: np.ndarray, kernel: ClusterableKernel) -> np.ndarray:
    """Broadcasts a number per input channel to the kernel's shape."""
    squares = np.maximum(squares, _LEAST * squares.mean())
    if not squares.any():
        squares = np.ones_like(squares)
    shape = kernel.shape
    if kernel.kind.endswith("Transpose"):  # (*k, out, in)
        return np.broadcast_to(squares, shape)
    inputs, outputs = shape[-2:]
    if inputs == len(squares):
        return np.broadcast_to(squares[:, None], shape)
    groups = len(squares) // inputs  # a grouped convolution: each group has its own inputs
    table = np.repeat(squares.reshape(groups, inputs).T, outputs // groups, axis=1)
    return np.broadcast_to(table, shape)


def _channels_last(layer: Any) -> bool:
    return getattr(layer, "data_format", "channels_last") in (None, "channels_last")
