"""Features of operators that their latency is linear in; a network's features are their sum.

XNNPACK computes in tiles of 16 or 32 output channels, about 7 positions and, for 8 bits, 4 input
channels. So work is counted with sizes rounded up to tiles, beside the elements that are read
and written and a constant per operator. Some kernel sizes have microkernels of their own and
others do not, so each kernel size and stride has its own features.

Processors with AMX multiply integers in tiles of 64 output channels, 16 positions and 64 input
channels. Both kinds of tiles are counted: a fit gives those that its processor lacks no cost.
Large depthwise kernels, which XNNPACK has not for 8 bits, run on kernels that skip what lies
outside the input. On small maps that is most of a kernel, so the products inside count apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection

from tfnas.tflite.network_operators import Operator, Operators

Features = dict[str, float]
ALWAYS = "inference"
_TILE, _WIDE_TILE, _ROWS, _INPUTS = 16, 32, 7, 4
_AMX, _AMX_ROWS = 64, 16


def network_features(network: Operators, mode: str) -> Features:
    """Returns the sum of the features of a network's operators.

    Args:
        network: The operators.
        mode: "float32", "int8" or another mode; integers are read four at a time.
    """
    total: Counter[str] = Counter({ALWAYS: 1})
    for operator in network.operators:
        total.update(operator_features(operator, mode))
    return dict(total)


def operator_features(operator: Operator, mode: str) -> Features:
    """Returns the features of one operator.

    Args:
        operator: The operator.
        mode: As for :func:`network_features`.
    """
    return _FEATURES.get(operator.kind, _by_size)(operator, mode)


def known_operators(names: Collection[str]) -> str:
    """Returns the operators that features belong to, with their kernel sizes, as text.

    Example:
        >>> known_operators(["add", "add size", "depthwise 3x3 stride 1x1", "inference"])
        'add, depthwise 3x3'

    Args:
        names: Names of the features.
    """
    sizes: dict[str, set[str]] = {}
    for name in names:
        kind, *more = name.split(" ")
        sizes.setdefault(kind, set()).update(more[:1] if "stride" in more else ())
    sizes.pop(ALWAYS, None)
    return ", ".join(" ".join([kind, *sorted(found)]) for kind, found in sorted(sizes.items()))


def macs(network: Operators) -> int:
    """Returns the multiply-accumulates of one inference."""
    return sum(_macs(operator) for operator in network.operators)


def macs_features(count: int) -> Features:
    """Returns the features of the baseline model that uses multiply-accumulates alone."""
    return {ALWAYS: 1.0, "macs": float(count)}


def _macs(operator: Operator) -> int:
    if operator.kind == "dense":
        return math.prod(operator.inputs[0]) * operator.output[-1]
    window = math.prod(operator.kernel) * math.prod(operator.output)
    if operator.kind == "depthwise":
        return window
    return window * operator.inputs[0][-1] if operator.kind == "convolution" else 0


def _convolution(operator: Operator, mode: str) -> Features:
    height, width, channels = operator.output
    positions, taps = height * width, math.prod(operator.kernel)
    input_channels = operator.inputs[0][-1]
    read = _round_up(input_channels, _INPUTS if mode.startswith("int") else 1) * taps
    name = "pointwise" if taps == 1 and operator.strides == (1, 1) else _window(operator)
    features: Features = {
        name: 1,
        f"{name} macs": positions * channels * input_channels * taps,
        f"{name} tiles": _round_up(positions, _ROWS) * _round_up(channels, _TILE) * read,
        f"{name} wide tiles": positions * _round_up(channels, _WIDE_TILE) * read,
        f"{name} input": math.prod(operator.inputs[0]) * math.ceil(channels / _WIDE_TILE),
        f"{name} output": positions * channels,
        f"{name} weights": channels * input_channels * taps,
    }
    if mode.startswith("int"):
        outputs, depth = _round_up(channels, _AMX), _round_up(input_channels, _AMX)
        features |= {
            f"{name} matrix tiles": _round_up(positions, _AMX_ROWS) * outputs * depth * taps,
            f"{name} matrix output": positions * outputs,
            f"{name} matrix weights": outputs * read,
        }
    if name != "pointwise":
        features[f"{name} gathered"] = positions * taps
    return features


def _depthwise(operator: Operator, mode: str) -> Features:
    height, width, channels = operator.output
    name, inside = _window(operator), _taps_inside(operator)
    return {
        name: 1,
        f"{name} output": height * width * _round_up(channels, _TILE),
        f"{name} input": math.prod(operator.inputs[0]),
        f"{name} gathered": height * width * operator.kernel[1],
        f"{name} weights": math.prod(operator.kernel) * channels,
        f"{name} inside": inside * channels,
        f"{name} inside taps": inside,
    }


def _taps_inside(operator: Operator) -> int:
    """How many taps of the kernel lie inside the input, over all positions of the output."""
    inside = [
        sum(
            min(start + size, length) - max(start, 0)
            for start in (position * stride - before for position in range(positions))
        )
        for size, stride, length, positions, before in zip(
            operator.kernel,
            operator.strides,
            operator.inputs[0],
            operator.output,
            _padding(operator),
            strict=False,  # the channels have no taps
        )
    ]
    return math.prod(inside)


def _padding(operator: Operator) -> list[int]:
    """The rows above and the columns left of the input that the first position reads."""
    if not operator.same:
        return [0, 0]
    return [
        max((positions - 1) * stride + size - length, 0) // 2
        for size, stride, length, positions in zip(
            operator.kernel, operator.strides, operator.inputs[0], operator.output, strict=False
        )
    ]


def _dense(operator: Operator, mode: str) -> Features:
    return {"dense": 1, "dense macs": math.prod(operator.inputs[0]) * operator.output[-1]}


def _pool(operator: Operator, mode: str) -> Features:
    window = math.prod(operator.kernel) * math.prod(operator.output)
    return {operator.kind: 1, f"{operator.kind} window": window}


def _by_size(operator: Operator, mode: str) -> Features:
    size = max(math.prod(operator.output), *(math.prod(shape) for shape in operator.inputs))
    return {operator.kind: 1, f"{operator.kind} size": size}


def _layer(operator: Operator, mode: str) -> Features:
    return {operator.layer: 1}


_FEATURES: dict[str, Callable[[Operator, str], Features]] = {
    "convolution": _convolution,
    "depthwise": _depthwise,
    "dense": _dense,
    "max_pool": _pool,
    "average_pool": _pool,
    "layer": _layer,
}


def _window(operator: Operator) -> str:
    """The operator's kind, kernel size and strides, such as "depthwise 3x3 stride 2x2"."""
    size, strides = ("x".join(map(str, pair)) for pair in (operator.kernel, operator.strides))
    return f"{operator.kind} {size} stride {strides}"


def _round_up(size: int, multiple: int) -> int:
    return math.ceil(size / multiple) * multiple
