"""The operators that a file needs on a microcontroller, and whether TFLite Micro supports them.

TFLite Micro links only the kernels that a program registers, and has fewer of them than LiteRT:
none for float16, for float activations with integer kernels ("dynamic"), for sparse tensors, and
none that computes a shape at run time. The file itself has all that is needed to check this before
anything is compiled. The tables are those of TFLite Micro's reference kernels in 2026; the library
of a vendor may have more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from tfnas.tflite.artifact import Artifact, as_artifact
from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo, TensorInfo

# Methods of MicroMutableOpResolver that are not the operator's name in camel case.
_OTHER_METHODS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
_CAMEL_CASE_METHODS = """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_TO_SPACE_ND
    BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS DEPTH_TO_SPACE
    DEPTHWISE_CONV_2D DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP
    EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER
    GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
    LOG_SOFTMAX LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAX_POOL_2D MAXIMUM MEAN MINIMUM
    MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX
    REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND
    RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V
    SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE
    TRANSPOSE_CONV UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
COMPILED = "ethos-u"  # the operator of a part that Vela compiled for an accelerator
# The operators of its signal library, by the name in a file without "Signal", which is that of the
# method too.
_SIGNAL = """
    Delay Energy FftAutoScale FilterBank FilterBankLog FilterBankSpectralSubtraction
    FilterBankSquareRoot Framer Irfft OverlapAdd PCAN Rfft Stacker Window
"""
_CUSTOM = {
    "CIRCULAR_BUFFER": "CircularBuffer",
    "TFLite_Detection_PostProcess": "DetectionPostprocess",
    COMPILED: "EthosU",
    **{f"Signal{name}": name for name in _SIGNAL.split()},
}


def _camel(name: str) -> str:
    """Conv2D for CONV_2D: a letter after a digit is upper case too."""
    return "".join(part.capitalize() if part[0].isalpha() else part for part in name.split("_"))


_METHODS = {name: _camel(name) for name in _CAMEL_CASE_METHODS.split()} | _OTHER_METHODS

_DTYPES = {
    "float32",
    "int8",
    "int16",
    "int32",
    "int64",
    "bool",
    "uint8",
    "uint32",
    "int4",
    "resource",  # handle of a variable
}
# Operator -> indices of the inputs that it multiplies: activations, kernel.
_PRODUCTS = {
    "CONV_2D": (0, 1),
    "DEPTHWISE_CONV_2D": (0, 1),
    "FULLY_CONNECTED": (0, 1),
    "TRANSPOSE_CONV": (2, 1),
    "BATCH_MATMUL": (0, 1),
    "SVDF": (0, 1),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (0, 1),
}
# Operator -> types of its first input that its kernel refuses, measured with the package of 2026.
_INTEGERS = ("int8", "int16")
_UNSUPPORTED_INPUTS = {
    **dict.fromkeys(("EXP", "LOG", "SQRT"), _INTEGERS),
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN", "RESIZE_BILINEAR"), ("int16",)),
    "MIRROR_PAD": ("int16",),
    **dict.fromkeys(("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"), ("int16",)),
    **dict.fromkeys(("GATHER", "SQUARED_DIFFERENCE"), ("int16",)),
}
TAKES_INT4 = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# Operator -> indices of inputs that hold a shape or an axis, and so must be constants.
_CONSTANTS = {
    "BROADCAST_TO": (1,),
    "EXPAND_DIMS": (1,),
    "FILL": (0,),
    "PAD": (1,),
    "PADV2": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "SPLIT": (0,),
    "SPLIT_V": (2,),
    "STRIDED_SLICE": (1, 2, 3),
    "TRANSPOSE": (1,),
}


def micro_operators(file: Artifact | str | os.PathLike[str]) -> list[str]:
    """Lists the operators that a file needs, as TFLite names them.

    Example:
        >>> import keras, tfnas
        >>> layers = [keras.Input((4,)), keras.layers.Dense(2, activation="softmax")]
        >>> tfnas.micro_operators(tfnas.to_tflite(keras.Sequential(layers)))
        ['FULLY_CONNECTED', 'SOFTMAX']

    Args:
        file: An artifact or the path of a file; the bodies of loops and branches count too.

    Returns:
        Each name once, in the order of first use; a custom operator by its own name.

    Raises:
        ValueError: `file` is not a valid `.tflite` file.
    """
    return [name for name, _ in _needed(as_artifact(file))]


def resolver_code(file: Artifact | str | os.PathLike[str], namespace: str = "tflite") -> str:
    """Returns C++ code that registers exactly the kernels that a file needs.

    Example:
        >>> import keras, tfnas
        >>> layers = [keras.Input((4,)), keras.layers.Dense(2, activation="softmax")]
        >>> print(tfnas.resolver_code(tfnas.to_tflite(keras.Sequential(layers))))
        tflite::MicroMutableOpResolver<2> resolver;
        resolver.AddFullyConnected();
        resolver.AddSoftmax();

    Args:
        file: An artifact or the path of a file.
        namespace: Namespace of the class in TFLite Micro's sources: "tflite::micro" in those
            of the package of October 2026, "tflite" in older ones.

    Returns:
        Statements for the body of a function; they need the header
        `tensorflow/lite/micro/micro_mutable_op_resolver.h`.

    Raises:
        ValueError: TFLite Micro has no kernel for some operators; the message names them.

    References:
        TFLite Micro, `tensorflow/lite/micro/micro_mutable_op_resolver.h`.
    """
    needed = _needed(as_artifact(file))
    _raise([_missing(name, custom) for name, custom in needed if not _method(name, custom)])
    lines = [f"{namespace}::MicroMutableOpResolver<{max(1, len(needed))}> resolver;"]
    lines += [f"resolver.Add{_method(name, custom)}();" for name, custom in needed]
    return "\n".join(lines)


def check_micro(file: Artifact | str | os.PathLike[str]) -> None:
    """Raises ValueError if TFLite Micro can't run a file.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> tfnas.check_micro(tfnas.to_tflite(model))
        >>> tfnas.check_micro(tfnas.to_tflite(model, "float16"))
        Traceback (most recent call last):
        ...
        ValueError: file must have kernels in TFLite Micro, got DEQUANTIZE: float16 numbers

    Args:
        file: An artifact or the path of a file.

    Raises:
        ValueError: TFLite Micro has no kernel for some operators; the message names them, with
            reasons.

    References:
        TFLite Micro, `tensorflow/lite/micro/kernels`.
    """
    file = as_artifact(file)
    graphs = file.graphs
    operators = [op for graph in graphs for op in graph.operators]
    faults = [fault for op in operators for fault in micro_faults(op)]
    _raise([*_open_inputs(graphs[0]), *faults])
    if not any(op.custom for op in operators):  # LiteRT may not be able to run them
        _raise(list(_wrong_shapes(file, graphs[0])))


def for_accelerator(file: Artifact) -> bool:
    """Returns whether a file was compiled for an Ethos-U accelerator, and so runs nowhere else.

    Args:
        file: The artifact.
    """
    return any(op.custom and op.name == COMPILED for op in file.graph.operators)


def _needed(file: Artifact) -> list[tuple[str, bool]]:
    """(name, whether it is a custom operator) of each operator, once."""
    operators = (op for graph in file.graphs for op in graph.operators)
    return list(dict.fromkeys((op.name, op.custom) for op in operators))


def _method(name: str, custom: bool) -> str | None:
    return (_CUSTOM if custom else _METHODS).get(name)


def _missing(name: str, custom: bool) -> str:
    return f"{name}: {'a custom operator' if custom else 'no kernel'}"


def _raise(faults: list[str]) -> None:
    if faults:
        text = "; ".join(dict.fromkeys(faults))
        raise ValueError(f"file must have kernels in TFLite Micro, got {text}")


def micro_faults(op: OperatorInfo) -> Iterator[str]:
    """Yields why TFLite Micro has no kernel for an operator; nothing where it has one.

    Args:
        op: The operator.
    """
    if not _method(op.name, op.custom):
        yield _missing(op.name, op.custom)
        return
    if op.custom:
        return  # its rules are unknown
    for tensor in (*op.inputs, *op.outputs):
        if tensor.dtype not in _DTYPES:
            yield f"{op.name}: {tensor.dtype} numbers"
        elif tensor.sparsity is not None:
            yield f"{op.name}: a sparse tensor"
        elif any(size < 0 for size in tensor.shape):
            yield f"{op.name}: an open shape {list(tensor.shape)}"
    if len(op.inputs) < _least_inputs(op.name) or (op.name == "RELU6" and not op.outputs):
        yield f"{op.name}: {len(op.inputs)} inputs and {len(op.outputs)} outputs"
        return  # a damaged file
    yield from _kernel_faults(op)
    for index in _CONSTANTS.get(op.name, ()):
        if index < len(op.inputs) and op.inputs[index].constant is None:
            yield (
                f"{op.name}: a shape that is computed (input {index} is no constant; batch_size=1 "
                "of to_tflite fixes the batch)"
            )


def _least_inputs(name: str) -> int:
    """The number of inputs that the rules below look at."""
    looked_at = (
        *_PRODUCTS.get(name, ()),
        *((1,) if name in ("FILL", "GATHER", "EMBEDDING_LOOKUP") else ()),
    )
    first = (0,) if name in ("DEQUANTIZE", "RELU6", *_UNSUPPORTED_INPUTS) else ()
    return 1 + max((*looked_at, *first), default=-1)


def _kernel_faults(op: OperatorInfo) -> Iterator[str]:
    int4 = [tensor for tensor in op.inputs if tensor.dtype == "int4"]
    if int4 and op.name not in TAKES_INT4:
        yield f"{op.name}: int4 numbers"
    if op.name == "DEQUANTIZE" and len(op.inputs[0].zero_points) > 1:
        # It runs, but its output is wrong: measured with the package of October 2026.
        yield f"{op.name}: a step a channel, of which it takes the first for all"
    if op.name == "EMBEDDING_LOOKUP" and len(op.inputs[1].zero_points) > 1:
        yield f"{op.name}: a step a row, of which it takes the first for all"
    if op.name == "RELU6" and _rescales(op):  # wrong outputs too
        yield f"{op.name}: another step for its output than for its input, which it ignores"
    if op.inputs and op.inputs[0].dtype in _UNSUPPORTED_INPUTS.get(op.name, ()):
        yield f"{op.name}: {op.inputs[0].dtype} numbers"
    if op.name == "STRIDED_SLICE" and op.inputs and len(op.inputs[0].shape) > 4:
        yield f"{op.name}: an input of {len(op.inputs[0].shape)} dimensions"
    if op.name == "SELECT_V2":
        others = [t.dtype for t in op.inputs[1:] if t.dtype not in ("float32", *_INTEGERS)]
        yield from (f"{op.name}: {dtype} numbers" for dtype in others[:1])
    if op.name == "FILL" and op.inputs[1].dtype in _INTEGERS:
        yield f"{op.name}: {op.inputs[1].dtype} numbers"
    if op.name == "GATHER" and op.inputs[1].dtype == "int64":
        yield f"{op.name}: places as int64 numbers"
    if op.name == "FULLY_CONNECTED" and int4 and len(op.inputs[0].shape) > 2:
        yield f"{op.name}: int4 numbers with an input of {len(op.inputs[0].shape)} dimensions"
    if op.name not in _PRODUCTS:
        return
    x, kernel = (op.inputs[index] for index in _PRODUCTS[op.name])
    if not _are_supported(x, kernel):
        hybrid = " (dynamic range)" if x.dtype == "float32" else ""
        yield f"{op.name}: {x.dtype} activations with {kernel.dtype} kernels{hybrid}"


def _wrong_shapes(file: Artifact, graph: FileGraph) -> Iterator[str]:
    """Outputs whose shape differs from the one in the file, which TFLite Micro relies on.

    The converter writes an open batch as 1, also after an operator that enlarges the batch, as
    in dilated convolutions. LiteRT computes the shape again; TFLite Micro writes past the buffer.
    """
    try:
        details = file.interpreter(xnnpack=False).get_tensor_details()
    except RuntimeError:  # LiteRT refuses the file: nothing to compare with
        return
    shapes = {detail["index"]: tuple(map(int, detail["shape"])) for detail in details}
    for op in graph.operators:
        for tensor in op.outputs:
            if (shape := shapes.get(tensor.index, tensor.shape)) != tensor.shape:
                yield (
                    f"{op.name}: the shape {list(tensor.shape)} in the file, where it computes "
                    f"{list(shape)} (a model with batch_shape=(1, ...) has fixed shapes)"
                )
                return


def _rescales(op: OperatorInfo) -> bool:
    x, y = op.inputs[0], op.outputs[0]
    return (x.scales, x.zero_points) != (y.scales, y.zero_points)


def _are_supported(x: TensorInfo, kernel: TensorInfo) -> bool:
    allowed = {"float32": ("float32",), "int8": ("int8", "int4"), "int16": ("int8", "int16")}
    return kernel.dtype in allowed.get(x.dtype, ())


def _open_inputs(graph: FileGraph) -> Iterator[str]:
    """Inputs with an open size other than the batch, which is 1 in TFLite Micro."""
    for tensor in graph.inputs:
        if any(size < 0 for size in tensor.signature[1:]):
            yield f"input {tensor.name!r}: an open shape {list(tensor.signature)}"
