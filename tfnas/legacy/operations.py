"""Converts operator nodes: `x + y` and `keras.ops` in Keras 3, TFOpLambda layers in tf_keras.

Where a layer computes the same, the layer is used (Add for `x + y` of two tensors, ReLU for
`keras.ops.relu`), since tfmot and other tools know layers. For other operations one table serves
both directions.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np

from tfnas.legacy import activations, tensorflow_function, tf_keras_private
from tfnas.legacy.environment import tf_keras

MERGES = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
# Class of the Keras operation -> name of the activation function.
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
    """One operation under its names in Keras 3 and in TensorFlow.

    Args:
        kind: Class of the Keras operation.
        function: Name of the function in `keras.ops`.
        symbol: Public name of the function in TensorFlow, without "tf.".
        parameters: TensorFlow's parameter names, in the order of the `keras.ops` function.
        settings: Parameters of the `keras.ops` function that the operation stores as attributes;
            they come last.
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
    """Applies the counterpart of a Keras 3 operation to tf_keras tensors.

    Args:
        operation: The Keras 3 operation.
        args: Positional arguments, with tf_keras tensors.
        kwargs: Keyword arguments, with tf_keras tensors.
        name: Name of the new layer.
        for_tfmot: Whether to use a layer of tfnas instead of TFOpLambda, which tfmot misreads.

    Returns:
        The outputs.

    Raises:
        ValueError: The other library has no counterpart.
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
        arguments = {"tensor": args[0], "slice_spec": _index_config(args[1])}
        return _apply(GETITEM, arguments, name, for_tfmot)
    row = next((row for row in TABLE if row.kind == kind), None)
    if row is None or kwargs:
        raise _error(operation, "tf_keras", f"keras.ops operation {kind}")
    values = [*args, *(getattr(operation, setting) for setting in row.settings)]
    arguments = dict(zip(row.parameters, map(_as_numpy, values), strict=True))
    return _apply(row.symbol, arguments, name, for_tfmot)


def _apply(symbol: str, arguments: dict[str, Any], name: str, for_tfmot: bool) -> Any:
    if for_tfmot:
        return tensorflow_function.apply(symbol, arguments, name)
    layers = tf_keras_private.operation_layers()
    kind = layers.SlicingOpLambda if symbol == GETITEM else layers.TFOpLambda
    first, *_ = arguments.values()
    rest = dict(list(arguments.items())[1:])
    return kind(tensorflow_function.function(symbol), name=name)(first, **rest)


def from_tf_keras(layer: Any, args: Any, kwargs: Any, name: str) -> Any:
    """Applies the counterpart of a TFOpLambda layer to Keras 3 tensors.

    Args:
        layer: The TFOpLambda layer.
        args: Positional arguments, with Keras 3 tensors.
        kwargs: Keyword arguments, with Keras 3 tensors.
        name: Name of the new operation.

    Returns:
        The outputs.

    Raises:
        ValueError: The other library has no counterpart.
    """
    import keras

    symbol = layer.symbol
    if symbol == GETITEM:
        arguments = _bound_arguments(layer, args, kwargs)
        index = tensorflow_function.slices(arguments["slice_spec"])
        return _with_name(arguments["tensor"][index], name)
    row = next((row for row in TABLE if row.symbol == symbol), None)
    if row is None:
        raise _error(layer, "Keras 3", f"tf.{symbol}")
    arguments = _bound_arguments(layer, args, kwargs)
    if unknown := sorted(set(arguments) - set(row.parameters)):
        raise _error(layer, "Keras 3", f"tf.{symbol} with {', '.join(unknown)}")
    if row.kind in MERGES and _same_rank(tuple(arguments.values())):
        return getattr(keras.layers, row.kind)(name=name)(list(arguments.values()))
    function = getattr(keras.ops, row.function)
    names = list(inspect.signature(function).parameters)
    order = dict(zip(row.parameters, names, strict=False))
    keywords = {order[key]: _as_numpy(value) for key, value in arguments.items()}
    return _with_name(function(**keywords), name)


def _bound_arguments(layer: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    bound = inspect.signature(layer.function).bind(*args, **kwargs).arguments
    return {key: value for key, value in bound.items() if value is not None and key != "name"}


def is_operation_layer(layer: object) -> bool:
    """Returns whether a tf_keras layer is a TFOpLambda, which calls a TensorFlow function.

    Args:
        layer: The layer.
    """
    return isinstance(layer, tf_keras_private.operation_layers().TFOpLambda)


def _with_name(outputs: Any, name: str) -> Any:
    """Names the operation; Keras' automatic name could be that of a layer of the model."""
    first = outputs[0] if isinstance(outputs, list | tuple) else outputs
    tf_keras_private.producer(first).name = name
    return outputs


def _activation(function: str, name: str) -> Any:
    import keras

    layers = tf_keras().layers
    if function in ("relu", "relu6"):
        return layers.ReLU(6.0 if function == "relu6" else None, name=name)
    converted = activations.to_tf_keras(getattr(keras.activations, function))
    return layers.Activation(converted, name=name)


def _same_rank(args: Any) -> bool:
    """Whether these are two tensors of one rank, which a merging layer treats as the operator."""
    ranks = [len(arg.shape) for arg in args if tf_keras_private.is_symbolic(arg)]
    return len(args) == 2 and len(ranks) == 2 and ranks[0] == ranks[1]


def _index_config(index: Any) -> Any:
    """Turns the slices of an index into dicts for a config, as tf_keras does."""
    if isinstance(index, list | tuple):
        return tuple(_index_config(part) for part in index)
    if isinstance(index, slice):
        return {"start": index.start, "stop": index.stop, "step": index.step}
    return index


def _as_numpy(value: Any) -> Any:
    """Turns a constant tensor into a NumPy array; other values are returned unchanged."""
    is_constant = hasattr(value, "numpy") and not tf_keras_private.is_symbolic(value)
    return np.asarray(value.numpy()) if is_constant else value


def _error(layer: Any, side: str, what: str) -> ValueError:
    return ValueError(
        f"layer {layer.name!r} ({type(layer).__name__}) can't be converted: {what} has no "
        f"counterpart in {side} that tfnas knows"
    )
