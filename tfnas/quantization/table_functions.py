"""Functions of single numbers, which an 8-bit file holds as tables.

With 8 bits a function of single numbers is a table of 256 integers, whatever the function is. With
16 bits there is no table; :mod:`tfnas.quantization.activation_forms` puts some together of the
operators that have 16-bit kernels.
"""

from __future__ import annotations

import numpy as np

from tfnas.graph.functional import Call

# Functions without a pole, by their names in `keras.activations`: each grid holds 0.
TABLES = (
    *("elu", "selu", "celu", "softplus", "softsign", "mish", "exponential", "squareplus"),
    *("hard_sigmoid", "hard_tanh", "tanh_shrink", "soft_shrink", "hard_shrink", "log_sigmoid"),
    *("sparse_plus", "sparse_sigmoid", "threshold"),
)
# The converter computes these in parts, with an exponential whose range has no step left for the
# numbers that count.
OF_EXPONENTIALS = ("celu", "mish", "selu", "softplus")
_OPERATIONS = {
    **{name.title().replace("_", ""): name for name in TABLES},
    **{"ELU": "elu", "Exp": "exponential", "SquarePlus": "squareplus"},
}
# Operations and layers of `keras` that are functions of single numbers too.
_SINGLE = {
    **{kind: kind.lower() for kind in ("Abs", "Absolute", "Clip", "Cos", "Power", "Sin", "Square")},
    "ReLU": "relu with a slope, a threshold or a maximum",
}
TABLE_FUNCTIONS = (*TABLES, *_SINGLE.values())


def table_function(call: Call) -> str | None:
    """Returns the name of the function of single numbers that a call is; None for other calls.

    Args:
        call: A call of a layer or operation that is not an Activation.
    """
    if call.kind in _OPERATIONS:
        return _OPERATIONS[call.kind]
    if call.kind not in _SINGLE or len(call.inputs) != 1:
        return None
    if call.kind in ("Clip", "Power") and not _has_numbers(call):
        return None
    return _SINGLE[call.kind]


def _has_numbers(call: Call) -> bool:
    """Whether all arguments beside the tensor are numbers; of a power a whole one above 0."""
    args, kwargs = call.node.arguments.args, call.node.arguments.kwargs
    others = [*args[1:], *kwargs.values()]
    numbers = [value for value in others if isinstance(value, int | float | np.number)]
    if len(numbers) < len(others):
        return False
    return call.kind == "Clip" or all(value == int(value) and value > 0 for value in numbers)
