"""Operator nodes: `x + y` and `keras.ops` in Keras 3, TFOpLambda layers in tf_keras.

Where a layer does the same it is taken (Add for `x + y` of two tensors, ReLU for
`keras.ops.relu`), since that is what tfmot and other tools know. For the rest one table
serves both directions.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np

from tfnas.legacy import activations, tensorflow_function
from tfnas.legacy.environment import tf_keras

MERGES = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
# Class of the Keras operation -> the activation function it is.
ACTIVATIONS = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Silu": "silu",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "HardTanh": "hard_tanh",
    "LogSigmoid": "log_sigmoid",
    "Selu": "selu",
    "Tanh": "tanh",
}


@dataclasses.dataclass(frozen=True)
class OperationRow:
    """One operation under its three names.

    Args:
        kind: Class of the Keras operation.
        function: Its function in `keras.ops`.
        symbol: Its public name in TensorFlow.
        parameters: TensorFlow's parameters in the order of the function's.
        settings: Those of the function's parameters that the operation holds as
            attributes; they come last.
    """

    kind: str
    function: str
    symbol: str
    parameters: tuple[str, ...]
    settings: tuple[str, ...] = ()


def _rows(names: str, *parameters: str, settings: tuple[str, ...] = ()) -> list[OperationRow]:
    rows = []
    for kind, function, symbol in (name.split(":") for name in names.split()):
        rows.append(OperationRow(kind, function, symbol, parameters, settings))
    return rows


TABLE = [
    *_rows(
        "Exp:exp:math.exp Log:log:math.log Sqrt:sqrt:math.sqrt Rsqrt:rsqrt:math.rsqrt "
        "Square:square:math.square Absolute:absolute:math.abs Abs:abs:math.abs "
        "Negative:negative:math.negative Sigmoid:sigmoid:math.sigmoid "
        "Tanh:tanh:math.tanh Floor:floor:math.floor Erf:erf:math.erf Sin:sin:math.sin "
        "Cos:cos:math.cos Reciprocal:reciprocal:math.reciprocal",
        "x",
    ),
    *_rows(
        "Relu:relu:nn.relu Relu6:relu6:nn.relu6 Selu:selu:nn.selu Silu:silu:nn.silu "
        "Elu:elu:nn.elu Softplus:softplus:math.softplus Softsign:softsign:nn.softsign",
        "features",
    ),
    *_rows(
        "Add:add:math.add Add:add:__operators__.add Subtract:subtract:math.subtract "
        "Multiply:multiply:math.multiply Maximum:maximum:math.maximum "
        "Minimum:minimum:math.minimum Power:power:math.pow Divide:divide:math.divide "
        "TrueDivide:true_divide:math.truediv",
        "x",
        "y",
    ),
    *_rows("Matmul:matmul:linalg.matmul", "a", "b"),
    *_rows(
        "Mean:mean:math.reduce_mean Sum:sum:math.reduce_sum Max:max:math.reduce_max "
        "Min:min:math.reduce_min Prod:prod:math.reduce_prod",
        "input_tensor",
        "axis",
        "keepdims",
        settings=("axis", "keepdims"),
    ),
    *_rows("Reshape:reshape:reshape", "tensor", "shape", settings=("newshape",)),
    *_rows("Transpose:transpose:transpose", "a", "perm", settings=("axes",)),
    *_rows("Squeeze:squeeze:squeeze", "input", "axis", settings=("axis",)),
    *_rows("ExpandDims:expand_dims:expand_dims", "input", "axis", settings=("axis",)),
    *_rows("Concatenate:concatenate:concat", "values", "axis", settings=("axis",)),
    *_rows("Stack:stack:stack", "values", "axis", settings=("axis",)),
    *_rows(
        "Clip:clip:clip_by_value",
        "t",
        "clip_value_min",
        "clip_value_max",
        settings=("x_min", "x_max"),
    ),
    *_rows("Cast:cast:cast", "x", "dtype", settings=("dtype",)),
    *_rows(
        "Split:split:split",
        "value",
        "num_or_size_splits",
        "axis",
        settings=("indices_or_sections", "axis"),
    ),
    *_rows("Softmax:softmax:nn.softmax", "logits", "axis", settings=("axis",)),
    *_rows("LogSoftmax:log_softmax:nn.log_softmax", "logits", "axis", settings=("axis",)),
    *_rows(
        "LeakyRelu:leaky_relu:nn.leaky_relu",
        "features",
        "alpha",
        settings=("negative_slope",),
    ),
    *_rows("Gelu:gelu:nn.gelu", "features", "approximate", settings=("approximate",)),
]
GETITEM = "__operators__.getitem"
SYMBOLS = frozenset({row.symbol for row in TABLE} | {GETITEM})


def to_tf_keras(
    operation: Any, args: Any, kwargs: Any, name: str, *, for_tfmot: bool = False
) -> Any:
    """Applies to tf_keras tensors what a Keras 3 operation does.

    Args:
        operation: The operation.
        args: Its arguments, with tf_keras tensors.
        kwargs: The same by name.
        name: The new layer's name.
        for_tfmot: Whether our own layer takes the place of TFOpLambda.

    Returns:
        The outputs.

    Raises:
        ValueError: There is no counterpart.
    """
    kind = type(operation).__name__
    layers = tf_keras().layers
    if kind in MERGES and _same_rank(args):
        return getattr(layers, kind)(name=name)(list(args))
    if kind in ACTIVATIONS and len(args) == 1 and not kwargs:
        return _activation(ACTIVATIONS[kind], name)(*args)
    if kind == "Concatenate":
        return layers.Concatenate(axis=operation.axis, name=name)(*args)
    if kind == "GetItem":
        named = {"tensor": args[0], "slice_spec": _key(args[1])}
        return _apply(GETITEM, named, name, for_tfmot)
    row = next((row for row in TABLE if row.kind == kind), None)
    if row is None or kwargs:
        raise _refusal(operation, "tf_keras", f"keras.ops operation {kind}")
    values = [*args, *(getattr(operation, setting) for setting in row.settings)]
    named = dict(zip(row.parameters, map(_plain, values), strict=True))
    return _apply(row.symbol, named, name, for_tfmot)


def _apply(symbol: str, named: dict[str, Any], name: str, for_tfmot: bool) -> Any:
    if for_tfmot:
        return tensorflow_function.apply(symbol, named, name)
    layers = _op_layers()
    kind = layers.SlicingOpLambda if symbol == GETITEM else layers.TFOpLambda
    first, *others = named.values()
    rest = dict(zip(list(named)[1:], others, strict=True))
    return kind(tensorflow_function.function(symbol), name=name)(first, **rest)


def from_tf_keras(layer: Any, args: Any, kwargs: Any, name: str) -> Any:
    """Applies to Keras 3 tensors what a TFOpLambda does.

    Args:
        layer: The TFOpLambda.
        args: Its arguments, with Keras 3 tensors.
        kwargs: The same by name.
        name: The new operation's name.

    Returns:
        The outputs.

    Raises:
        ValueError: There is no counterpart.
    """
    import keras

    symbol = layer.symbol
    if symbol == GETITEM:
        return _named(
            _bound(layer, args, kwargs)["tensor"][
                tensorflow_function.slices(_bound(layer, args, kwargs)["slice_spec"])
            ],
            name,
        )
    row = next((row for row in TABLE if row.symbol == symbol), None)
    if row is None:
        raise _refusal(layer, "Keras 3", f"tf.{symbol}")
    given = _bound(layer, args, kwargs)
    if unknown := sorted(set(given) - set(row.parameters)):
        raise _refusal(layer, "Keras 3", f"tf.{symbol} with {', '.join(unknown)}")
    if row.kind in MERGES and _same_rank(tuple(given.values())):
        return getattr(keras.layers, row.kind)(name=name)(list(given.values()))
    function = getattr(keras.ops, row.function)
    names = list(inspect.signature(function).parameters)
    order = dict(zip(row.parameters, names, strict=False))
    return _named(function(**{order[key]: _plain(value) for key, value in given.items()}), name)


def _bound(layer: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    bound = inspect.signature(layer.function).bind(*args, **kwargs).arguments
    return {key: value for key, value in bound.items() if value is not None and key != "name"}


def is_operation_layer(layer: Any) -> bool:
    """Whether a tf_keras layer stands for a TensorFlow function.

    Args:
        layer: The layer.
    """
    return isinstance(layer, _op_layers().TFOpLambda)


def _named(outputs: Any, name: str) -> Any:
    """Keras' own names count through the process and could meet a layer's of the model."""
    first = outputs[0] if isinstance(outputs, list | tuple) else outputs
    first._keras_history.operation.name = name
    return outputs


def _activation(function: str, name: str) -> Any:
    import keras

    layers = tf_keras().layers
    if function in ("relu", "relu6"):
        return layers.ReLU(6.0 if function == "relu6" else None, name=name)
    made = activations.to_tf_keras(getattr(keras.activations, function))
    return layers.Activation(made, name=name)


def _same_rank(args: Any) -> bool:
    """Whether these are two tensors that a merging layer takes as the operator does."""
    ranks = [len(arg.shape) for arg in args if hasattr(arg, "_keras_history")]
    return len(args) == 2 and len(ranks) == 2 and ranks[0] == ranks[1]


def _key(key: Any) -> Any:
    """What can be written to a config: tf_keras makes slices of such dicts again."""
    if isinstance(key, list | tuple):
        return tuple(_key(part) for part in key)
    if isinstance(key, slice):
        return {"start": key.start, "stop": key.stop, "step": key.step}
    return key


def _plain(value: Any) -> Any:
    """Constants as NumPy arrays: each Keras keeps them in a config of its own."""
    is_constant = hasattr(value, "numpy") and not hasattr(value, "_keras_history")
    return np.asarray(value.numpy()) if is_constant else value


def _op_layers() -> Any:
    tf_keras()
    from tf_keras.src.layers.core import tf_op_layer  # the classes are not exported

    return tf_op_layer


def _refusal(layer: Any, side: str, what: str) -> ValueError:
    return ValueError(
        f"layer {layer.name!r} ({type(layer).__name__}) can't be brought over: {what} has no "
        f"counterpart in {side} that tfnas knows"
    )
