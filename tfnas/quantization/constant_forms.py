"""Sums, products and the like of a tensor and a constant array, as a table of positions is added.

In a normal form the array is the output of a :class:`tfnas.graph.constant_calls.Constant`, so that
it has a range of its own, as any other input of the operation.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfnas.graph.constant_calls import Constant
from tfnas.graph.functional import Call, LayerCopies
from tfnas.quantization.call_forms import VERY_LOW
from tfnas.quantization.layer_roles import BINARY

_DIVISIONS = ("Divide", "TrueDivide")
_KINDS = {*BINARY, *_DIVISIONS} - {"Matmul"}


def with_constant_input(call: Call, tensors: list[Any], copies: LayerCopies) -> Any:
    """Returns the output of a call of one tensor and a constant array; None for other calls.

    None also for arrays with numbers of 10,000 and more, such as masks of attention. A division by
    an array is the product with its reciprocals.

    Args:
        call: The call.
        tensors: The inputs of the new model's call.
        copies: Names of the new model.
    """
    if call.kind not in _KINDS or len(tensors) != 1 or "float" not in call.inputs[0].dtype:
        return None
    args, kwargs = call.arguments(tensors)
    pair = [*args, *kwargs.values()]
    places = [place for place, each in enumerate(pair) if _is_array(each)]
    if len(pair) != 2 or len(places) != 1:
        return None
    (place,) = places
    array = keras.ops.convert_to_numpy(pair[place]).astype(np.float64)
    if np.abs(array).max(initial=0.0) >= -VERY_LOW:
        return None  # a mask that is added to scores would leave them no step of the joint range
    if call.kind in _DIVISIONS:
        if place == 0 or not np.all(array):
            return None
        array = 1.0 / array
    name = call.name.split("/")[-1]
    # Beside float16 a constant of float32 stays one, and so does their sum.
    constant = Constant(array, call.outputs[0].dtype, name=copies.unique(f"{name}_constant"))
    pair[place] = constant(tensors[0])
    if call.kind in _DIVISIONS:
        return keras.ops.multiply(*pair)
    return type(call.operation)(name=copies.unique(name))(*pair)


def filled_with_zeros(call: Call, tensors: list[Any], copies: LayerCopies) -> Any:
    """Returns the output of a ZerosLike of floats by a fill; None for other calls.

    The converter rounds fills, and leaves its ZEROS_LIKE float.

    Args:
        call: The call.
        tensors: The inputs of the new model's call.
        copies: Not used.
    """
    del copies
    if call.kind != "ZerosLike" or "float" not in call.outputs[0].dtype:
        return None
    return keras.ops.full_like(tensors[0], 0.0, dtype=call.outputs[0].dtype)


def _is_array(argument: Any) -> bool:
    """Whether an argument is a finite array, not a tensor of the graph."""
    if isinstance(argument, keras.KerasTensor | keras.Variable) or not hasattr(argument, "shape"):
        return False
    return bool(np.all(np.isfinite(keras.ops.convert_to_numpy(argument))))
