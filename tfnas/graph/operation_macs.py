"""Multiply-accumulates of `keras.ops`: products, convolutions and einsums of tensors.

The first axis of a tensor of the model is the batch, which costs are without.
"""

from __future__ import annotations

from tfnas.graph import attention_macs
from tfnas.graph.call_arguments import named_arguments, shape_of, shapes_of
from tfnas.graph.functional import Call, Value
from tfnas.graph.known_sizes import Shape, product, times, total

_LETTERS = "ABCDEFGHIJKLMNOP"  # of the axes that an ellipsis stands for


def einsum_macs(equation: str, shapes: list[Shape], batched: int = 0) -> int | None:
    """Returns the multiply-accumulates of an einsum of two tensors: the product of all its axes.

    Args:
        equation: Such as "abc,cd->abd"; may have an ellipsis.
        shapes: Shapes of the operands.
        batched: Index of an operand whose first axis is the batch.
    """
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    if len(terms) != len(shapes) or len(terms) > 2:
        return None  # the order of products, which decides the cost, is the backend's choice
    if len(terms) == 1:
        return 0
    terms = [_without_ellipsis(term, len(shape)) for term, shape in zip(terms, shapes, strict=True)]
    sizes: dict[str, int | None] = {}
    for term, shape in zip(terms, shapes, strict=True):
        if len(term) != len(shape):
            return None
        for letter, size in zip(term, shape, strict=True):
            known = sizes.get(letter)
            sizes[letter] = size if known is None else max(known, size or 0)
    return product([size for letter, size in sizes.items() if letter != terms[batched][0]])


def _without_ellipsis(term: str, rank: int) -> str:
    """Spells the axes of an ellipsis, counted from the last one, as broadcasting does."""
    if "..." not in term:
        return term
    count = rank - len(term.replace(".", ""))
    return term.replace("...", _LETTERS[len(_LETTERS) - count :] if count > 0 else "")


def _einsum(call: Call) -> int | None:
    operands = named_arguments(call).get("operands", ())
    shapes = [shape_of(operand) for operand in operands]
    known = [shape for shape in shapes if shape is not None]
    tensors = [isinstance(operand, Value) for operand in operands]
    if len(known) != len(shapes) or True not in tensors:
        return None
    first = tensors.index(True)
    return einsum_macs(call.operation.subscripts, known, first)


def _matmul(call: Call) -> int | None:
    """Each element of the result is a sum over the last axis of the left operand."""
    left, right = shapes_of(call, "x1", "x2")
    if left is None or right is None or not (_batch_is_left(call) or len(right) > 2):
        return None
    return times(product(call.outputs[0].shape[1:]), left[-1]) if left and right else 0


def _dot(call: Call) -> int | None:
    return _matmul(call) if _batch_is_left(call) else None


def _batch_is_left(call: Call) -> bool:
    return isinstance(named_arguments(call).get("x1"), Value)


def _tensordot(call: Call) -> int | None:
    left, right = shapes_of(call, "x1", "x2")
    axes = call.operation.axes
    if left is None or right is None or not _batch_is_left(call):
        return None
    count = axes if isinstance(axes, int) else None
    if count is None:
        first = axes[0] if isinstance(axes[0], list | tuple) else [axes[0]]
        summed = product([left[axis] for axis in first])
    else:
        summed = product(left[len(left) - count :])
    return times(product(call.outputs[0].shape[1:]), summed)


def _convolution(call: Call) -> int | None:
    [kernel] = shapes_of(call, "kernel")
    return None if kernel is None else times(product(kernel), places(call, call.outputs[0].shape))


def _transposed(call: Call) -> int | None:
    inputs, kernel = shapes_of(call, "inputs", "kernel")
    if inputs is None or kernel is None:
        return None
    return times(product(kernel), places(call, inputs))


def _separable(call: Call) -> int | None:
    kernels = shapes_of(call, "depthwise_kernel", "pointwise_kernel")
    sizes = total([None if kernel is None else product(kernel) for kernel in kernels])
    return times(sizes, places(call, call.outputs[0].shape))


def _grayscale(call: Call) -> int | None:
    return product(call.inputs[0].shape[1:])


def places(call: Call, shape: Shape) -> int | None:
    """Returns the number of positions at which a kernel is applied; None where it is unknown.

    Args:
        call: A call of a convolution, an operation or a layer.
        shape: Shape of the tensor with these positions, the batch first.
    """
    import keras

    data_format = getattr(call.operation, "data_format", "channels_last")
    data_format = data_format or keras.config.image_data_format()
    return product(shape[2:] if data_format == "channels_first" else shape[1:-1])


OPERATIONS = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "DepthwiseConv": _convolution,
    "Dot": _dot,
    "DotProductAttention": attention_macs.operation,
    "Einsum": _einsum,
    "Inner": _dot,
    "Matmul": _matmul,
    "RGBToGrayscale": _grayscale,
    "SeparableConv": _separable,
    "Tensordot": _tensordot,
}
# Decompositions, transforms, and operations that call a function of the user.
UNCOUNTED_OPERATIONS = frozenset(
    {
        "AssociativeScan",
        "CDist",
        "Cholesky",
        "CholeskyInverse",
        "Cond",
        "Corrcoef",
        "Correlate",
        "Det",
        "Eig",
        "Eigh",
        "ElasticTransform",
        "FFT",
        "FFT2",
        "ForiLoop",
        "GaussianBlur",
        "IFFT2",
        "IRFFT",
        "ISTFT",
        "Inv",
        "JVP",
        "Logdet",
        "Lstsq",
        "LuFactor",
        "Map",
        "MatrixRank",
        "Pinv",
        "Qr",
        "RFFT",
        "SSIM",
        "STFT",
        "SVD",
        "Scan",
        "Slogdet",
        "SobelEdges",
        "Solve",
        "SolveTriangular",
        "Switch",
        "Vdot",  # of all examples at once
        "VectorizedMap",
        "WhileLoop",
    }
)
