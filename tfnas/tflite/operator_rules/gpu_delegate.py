"""What TFLite's GPU delegate takes, operator by operator, judged from the file alone.

The rules are those by which the delegate itself decides which operators it takes. They are of its
source as of 2026; a phone's driver may refuse more when the delegate compiles its shaders, and
newer accelerators of LiteRT have rules of their own.

References:
    TensorFlow's `tensorflow/lite/tools/versioning/gpu_compatibility.cc`
    (`CheckGpuDelegateCompatibility`), and for shapes
    `tensorflow/lite/delegates/gpu/common/model_builder_helper.cc`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo, TensorInfo

MOST_DIMENSIONS = 4
_FLOATS = ("float16", "float32")
_WEIGHT_FORMATS = ("DEQUANTIZE", "DENSIFY")
_ONE_INPUT = """
    ABS CEIL COS ELU EXP FLOOR GELU HARD_SWISH LOG LOGISTIC NEG RSQRT SIGN SIN SQRT SQUARE TANH
    QUANTIZE DEQUANTIZE RESHAPE TILE TRANSPOSE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR
    AVERAGE_POOL_2D MAX_POOL_2D DEPTH_TO_SPACE SPACE_TO_DEPTH REDUCE_MAX REDUCE_MIN REDUCE_PROD SUM
    MEAN PAD PADV2 MIRROR_PAD CAST
"""
_ONE_OR_TWO_INPUTS = """
    ATAN2 DIV EQUAL FLOOR_DIV FLOOR_MOD GREATER GREATER_EQUAL LOGICAL_AND LESS LESS_EQUAL MAXIMUM
    MINIMUM NOT_EQUAL POW SQUARED_DIFFERENCE SUB GATHER CONV_2D DEPTHWISE_CONV_2D TRANSPOSE_CONV
    FULLY_CONNECTED
"""
_ANY_INPUTS = """
    ADD ADD_N BATCH_MATMUL CONCATENATION CUMSUM EMBEDDING_LOOKUP LEAKY_RELU LSTM MUL ONE_HOT PACK
    PRELU RELU RELU6 RELU_N1_TO_1 SELECT SELECT_V2 SLICE SOFTMAX SPLIT SPLIT_V STRIDED_SLICE
"""
_LEAST_AND_MOST = {
    **dict.fromkeys(_ONE_INPUT.split(), (1, 1)),
    **dict.fromkeys(_ONE_OR_TWO_INPUTS.split(), (1, 2)),
    **dict.fromkeys(_ANY_INPUTS.split(), (0, 99)),
}
_CONSTANT_AXES = ("MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM")
# Types that an operator may turn into each other: from -> to.
_CASTS = {("bool", f) for f in _FLOATS} | {(f, "bool") for f in _FLOATS}
_CASTS |= {(a, b) for a in ("float32", "int32") for b in ("float32", "int32")}


def gpu_faults(op: OperatorInfo, graph: FileGraph) -> list[str]:
    """Returns why the GPU delegate leaves an operator to the CPU; empty where it takes it.

    Args:
        op: The operator.
        graph: The graph that it is in.
    """
    if op.name in _WEIGHT_FORMATS and graph.constant_behind(op.inputs[0]) is not None:
        return []  # weights, which the delegate unpacks once
    if op.custom:
        return ["a custom operator"]
    if op.name not in _LEAST_AND_MOST:
        return ["no kernel"]
    return [*_shape_faults(op), *_input_faults(op, graph), *_own_faults(op, graph)]


def _shape_faults(op: OperatorInfo) -> Iterator[str]:
    wide = [t for t in (*op.inputs, *op.outputs) if len(t.shape) > MOST_DIMENSIONS]
    if wide:
        yield f"a tensor of {len(wide[0].shape)} dimensions"
    if any(tensor.sparsity is not None for tensor in op.inputs):
        yield "a sparse tensor"


def _input_faults(op: OperatorInfo, graph: FileGraph) -> Iterator[str]:
    computed = [t for t in op.inputs if graph.constant_behind(t) is None]
    least, most = _LEAST_AND_MOST[op.name]
    if not least <= len(computed) <= most:
        expected = str(least) if least == most else f"{least} or {most}"
        yield f"{len(computed)} inputs that are computed, of which it takes {expected}"
    if op.name in _CONSTANT_AXES and len(op.inputs) > 1 and op.inputs[1].constant is None:
        yield "axes that are computed"


def _own_faults(op: OperatorInfo, graph: FileGraph) -> Iterator[str]:
    rule = _RULES.get(op.name)
    if rule is not None:
        yield from rule(op, graph)


def _pair(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    if len(op.inputs) != 2:
        yield f"{len(op.inputs)} inputs, of which it takes 2"
        return
    one, other = (tensor.shape for tensor in op.inputs)
    if op.name == "MUL" and len(one) == len(other):
        smaller = any(a < b for a, b in zip(one, other, strict=True))
        larger = any(a > b for a, b in zip(one, other, strict=True))
        if smaller and larger:
            yield f"shapes {_text(one)} and {_text(other)}, each smaller in one dimension"


def _cast(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    types = (op.inputs[0].dtype, op.outputs[0].dtype)
    if types not in _CASTS:
        yield f"a cast of {types[0]} to {types[1]}"


def _depthwise(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    channels, multiplier = op.inputs[0].shape[-1], getattr(op.options, "depthMultiplier", 1)
    if multiplier != 1 and channels != 1:
        yield f"a depth multiplier of {multiplier} with {channels} channels"


def _fully_connected(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    if getattr(op.options, "weightsFormat", 0):
        yield "shuffled weights"
    if op.inputs[0].constant is not None:
        yield "a constant input"
    keeps = getattr(op.options, "keepNumDims", False)
    if keeps and len(op.inputs[0].shape) != len(op.outputs[0].shape):
        yield "an output of other dimensions than its input, with keep_num_dims"


def _gather(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    values, places = op.inputs[:2]
    if values.dtype == "int32":
        yield "int32 values"
    if len(places.shape) != 1:
        yield f"places of {len(places.shape)} dimensions, of which it takes 1"
    if places.dtype != "int32":
        yield f"places as {places.dtype} numbers"


def _slice(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    if len(op.inputs[0].shape) not in (3, 4):
        yield f"an input of {len(op.inputs[0].shape)} dimensions, of which it takes 3 or 4"
    for mask in ("ellipsis", "newAxis", "shrinkAxis"):
        if getattr(op.options, f"{mask}Mask", 0):
            yield f"a {mask.replace('Axis', '_axis')} mask"


def _softmax(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    if getattr(op.options, "beta", 1.0) != 1.0:
        yield "beta other than 1"


def _pad(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    shape = op.inputs[1].shape if len(op.inputs) > 1 else ()
    if shape not in ((3, 2), (4, 2)):
        yield f"paddings of shape {_text(shape)}, of which it takes 3x2 and 4x2"
    if op.name == "MIRROR_PAD" and getattr(op.options, "mode", 0) != 0:
        yield "symmetric padding"


def _blocks(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    if getattr(op.options, "blockSize", 2) < 2:
        yield "blocks of 1"


def _cumsum(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    if op.inputs[0].dtype not in _FLOATS:
        yield f"{op.inputs[0].dtype} numbers"
    if op.inputs[1].constant is None:
        yield "an axis that is computed"


def _dequantize(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    if op.inputs[0].dtype == "int16":
        yield "int16 numbers"


def _embedding(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    ids, table = op.inputs[:2]
    if len(ids.shape) != 1:
        yield f"ids of {len(ids.shape)} dimensions, of which it takes 1"
    if table.dtype not in ("int8", "int4", "float32"):
        yield f"a table of {table.dtype} numbers"


def _one_hot(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    if op.inputs[0].dtype != "int32":
        yield f"{op.inputs[0].dtype} classes"
    if any(size != 1 for size in op.inputs[0].shape[1:-1]):
        yield f"classes of shape {_text(op.inputs[0].shape)}"
    if any(t.constant is None or t.dtype != "float32" for t in op.inputs[2:4]):
        yield "values of on and off that are no float32 constants"


def _select(op: OperatorInfo, _: FileGraph) -> Iterator[str]:
    condition, *choices = op.inputs
    if condition.dtype not in ("bool", *_FLOATS):
        yield f"a condition of {condition.dtype} numbers"
    for choice in choices:
        if choice.dtype not in _FLOATS:
            yield f"{choice.dtype} numbers"
        elif choice.shape != op.outputs[0].shape and not _is_scalar(choice):
            yield f"a choice of shape {_text(choice.shape)} for {_text(op.outputs[0].shape)}"


_RULES: dict[str, Callable[[OperatorInfo, FileGraph], Iterator[str]]] = {
    "ADD": _pair,
    "ADD_N": _pair,
    "MUL": _pair,
    "CAST": _cast,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "GATHER": _gather,
    "SLICE": _slice,
    "STRIDED_SLICE": _slice,
    "SOFTMAX": _softmax,
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _pad,
    "DEPTH_TO_SPACE": _blocks,
    "SPACE_TO_DEPTH": _blocks,
    "CUMSUM": _cumsum,
    "DEQUANTIZE": _dequantize,
    "EMBEDDING_LOOKUP": _embedding,
    "ONE_HOT": _one_hot,
    "SELECT": _select,
    "SELECT_V2": _select,
}


def _is_scalar(tensor: TensorInfo) -> bool:
    return tensor.shape in ((), (1,))


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"
