"""What an error of each weight does to its layer's output.

An error e of a weight changes the output by e times the input that meets it, so by the mean
e^2 E[x^2]: the diagonal of the Hessian of the layer's squared output error (with inputs that
are not correlated, all of it). k-means that weighs squared errors by E[x^2] loses less of
the output with as many values.

References:
    LeCun, Denker and Solla, "Optimal Brain Damage", 1989, equation (3); Choi, El-Khamy and Lee,
    "Toward the Limit of Network Quantization", ICLR 2017, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.clustering.clusterable_kernels import ClusterableKernel
from tfnas.graph.batchnorm import input_batches
from tfnas.graph.traversal import visit

EXAMPLES = 256
_LEAST = 1e-3  # of the mean: an input that these examples leave at 0 may not stay there
_KINDS = (
    *("Dense", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D"),
    *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
)


def mean_squares(
    model: Any, kernels: Sequence[ClusterableKernel], data: Any
) -> dict[int, np.ndarray]:
    """Returns id of each kernel -> E[x^2] of the input that meets each weight, in its shape.

    Convolutions and Dense layers with the channels last; others are left out.

    Args:
        model: The model of the kernels.
        kernels: Some of its kernels.
        data: Typical inputs; see :func:`tfnas.graph.batchnorm.input_batches`.

    Raises:
        ValueError: The data holds no example or does not fit.
    """
    wanted = {k.layer: k for k in kernels if k.kind in _KINDS and _channels_last(k.layer)}
    found = {}
    for stop in visit(model, input_batches(data, limit=EXAMPLES), list(wanted)):
        kernel = wanted[stop.layer]
        arrays = [np.asarray(x, np.float32) for x in stop.inputs]
        rows = [a.reshape(-1, a.shape[-1]) for a in arrays]
        sums = sum(np.square(a).sum(axis=0, dtype=np.float64) for a in rows)
        found[id(kernel)] = _spread(sums / sum(map(len, rows)), kernel)
    return found


def _spread(squares: np.ndarray, kernel: ClusterableKernel) -> np.ndarray:
    """A number an input channel, as a number a weight."""
    squares = np.maximum(squares, _LEAST * squares.mean())
    if not squares.any():
        squares = np.ones_like(squares)
    shape = kernel.shape
    if kernel.kind.endswith("Transpose"):  # (*k, out, in)
        return np.broadcast_to(squares, shape)
    inputs, outputs = shape[-2:]
    if inputs == len(squares):
        return np.broadcast_to(squares[:, None], shape)
    groups = len(squares) // inputs  # a grouped convolution: each group has inputs of its own
    table = np.repeat(squares.reshape(groups, inputs).T, outputs // groups, axis=1)
    return np.broadcast_to(table, shape)


def _channels_last(layer: Any) -> bool:
    return getattr(layer, "data_format", "channels_last") in (None, "channels_last")
