"""Sparsity of a file: the share of its weights that are zero, counted in the `.tflite` file.

The zeros of a pruned Keras model pass through quantization, folding and the converter. So each
kernel is read back from the file in whatever form it has there (float, integer, two 4-bit numbers
per byte, or TFLite's sparse encoding, which omits zeros), and the elements that stand for 0.0 are
counted. Kernels are the weights that convolutions, dense and recurrent layers multiply by; biases,
shape tensors and embeddings don't count.

Sparsity does not imply speed. XNNPACK considers sparse kernels only for a file in sparse encoding
whose graph is eligible (:mod:`tfnas.tflite.sparse_eligibility`); this module measures no time. Nor
is the sparse encoding always the smallest download: gzip compresses the zeros of a dense file
nearly as well, and a gzipped dense int8 file is smaller than a sparse one. Compare `gzip_size`
first.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfnas.graph.zero_counts import ZeroCounts
from tfnas.table import Tabular, TextTable
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_weights import read_kernels
from tfnas.tflite.sparse_eligibility import SparseVerdict, sparse_eligibility
from tfnas.tflite.tensor_details import TensorDetails

STORED_FROM = 0.3  # fraction of zeros from which the converter stores a kernel sparsely
ROUNDING = 0.01  # of the outputs' range; wrong files of the converter gave NaN or more than 1

# Operators whose sparse files compute right, measured with ai-edge-litert 2.3. XNNPACK's sparse
# float16 TRANSPOSE_CONV reads uninitialized memory: sometimes NaN, sometimes small numbers.
_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_SOUND = {
    "float32": (*_PRODUCTS, "TRANSPOSE_CONV"),
    "float16": _PRODUCTS,
    "int8": (*_PRODUCTS, "TRANSPOSE_CONV"),
}


@dataclasses.dataclass(frozen=True)
class KernelSparsity:
    """Sparsity of one kernel of a file.

    Args:
        layer: The Keras layer, by the tensor names in the file.
        operator: The operator that uses the kernel, such as "CONV_2D".
        dtype: Element type in the file.
        shape: Shape in the file: output channels first for convolutions and dense layers, last
            for depthwise convolutions.
        weights: Number of weights.
        zeros: Number of weights that are exactly 0.0.
        sparse: Whether the kernel is in sparse encoding, without its zeros.
    """

    layer: str
    operator: str
    dtype: str
    shape: tuple[int, ...]
    weights: int
    zeros: int
    sparse: bool

    @property
    def sparsity(self) -> float:
        """Fraction of zeros, from 0 to 1."""
        return self.zeros / self.weights if self.weights else 0.0


@dataclasses.dataclass(frozen=True, repr=False)
class FileSparsity(ZeroCounts, Tabular):
    """Sparsity of a file's kernels, and the file's size.

    Args:
        kernels: One record for each kernel, in the order of execution.
        size: Size of the file, in bytes.
        gzip_size: Size of the file after gzip, in bytes.
        verdict: Whether the file's graph is eligible for sparse kernels.
    """

    kernels: tuple[KernelSparsity, ...]
    size: int
    gzip_size: int
    verdict: SparseVerdict

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return ["layer", "operator", "dtype", "shape", "stored", "weights", "zeros", "share"]

    def rows(self) -> list[list[object]]:
        """Returns one row per kernel, in the order of execution, and one of the total."""
        rows: list[list[object]] = [
            [
                k.layer,
                k.operator,
                k.dtype,
                "x".join(map(str, k.shape)),
                "sparse" if k.sparse else "dense",
                *_counts(k),
            ]
            for k in self.kernels
        ]
        rows.append(["total", "", "", "", "", *_counts(self)])
        return rows

    def tables(self) -> list[TextTable]:
        """Returns the table of the kernels."""
        return [TextTable(self.headers(), self.rows(), right=5)]

    def notes(self) -> list[str]:
        """Returns the size of the file and whether it admits sparse kernels."""
        return [f"file: {self.size} bytes, {self.gzip_size} gzipped", str(self.verdict)]


def file_sparsity(artifact: Artifact) -> FileSparsity:
    """Counts the zeros among a file's weights.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> from tfnas.tflite.file_sparsity import file_sparsity
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.set_weights([np.array([[0, 1], [0, 2], [0, 3], [4, 5]]), np.zeros(2)])
        >>> found = file_sparsity(tfnas.to_tflite(model))
        >>> found.zeros, found.weights
        (3, 8)

    Args:
        artifact: The file.

    Returns:
        The counts for each kernel and in total; `print` shows them as a table.

    Raises:
        ValueError: A kernel has an unknown element type or encoding.
    """
    kernels = tuple(
        KernelSparsity(
            kernel.layer,
            kernel.operator,
            kernel.tensor.dtype,
            kernel.tensor.shape,
            kernel.values.size,
            int(np.count_nonzero(kernel.zeros)),
            kernel.tensor.sparsity is not None,
        )
        for kernel in read_kernels(artifact)
    )
    return FileSparsity(kernels, artifact.size, artifact.gzip_size, sparse_eligibility(artifact))


def sparse_fault(artifact: Artifact, dense: Artifact) -> str | None:
    """Checks a sparse file against the dense file of the same model.

    The interpreter accepts some sparse files of the converter but computes wrong outputs, so both
    files are run on the same random inputs.

    Args:
        artifact: The file in sparse encoding.
        dense: The file of the same model without sparse encoding.

    Returns:
        The fault in one line, None if there is none.
    """
    kernels = file_sparsity(artifact).kernels
    if not any(kernel.sparse for kernel in kernels):
        best = max(kernels, key=lambda kernel: kernel.sparsity, default=None)
        most = f"{best.sparsity:.1%} in layer {best.layer!r} ({best.operator})" if best else "none"
        return (
            f"no kernel was stored sparsely: it must hold {STORED_FROM:.0%} zeros and be one of "
            f"{', '.join(_SOUND['float32'])}, got {most} at most"
        )
    if artifact.size >= dense.size:
        return (
            f"the sparse file must be smaller than the dense one, got {artifact.size} bytes "
            f"against {dense.size}"
        )
    return _misread(artifact) or _difference(artifact, dense)


def _misread(artifact: Artifact) -> str | None:
    """Reports an operator that may read a sparse tensor as a dense one."""
    operators = [op for graph in artifact.graphs for op in graph.operators]
    for op in operators:
        sparse = [tensor for tensor in op.inputs if tensor.sparsity is not None]
        if sparse and op.name not in ("DENSIFY", "FULLY_CONNECTED"):
            return (
                f"{op.name} would read the sparse {sparse[0].dtype} tensor {sparse[0].name!r} "
                "as a dense one (an error of the converter for dense layers in 1x4 blocks; "
                "float32 does not have it)"
            )
    for kernel in read_kernels(artifact):
        dtype = kernel.tensor.dtype
        if kernel.tensor.sparsity is not None and kernel.operator not in _SOUND.get(dtype, ()):
            return (
                f"{kernel.operator} is not known to read sparse {dtype} kernels right: leave "
                f"layer {kernel.layer!r} unpruned"
            )
    return None


def _difference(artifact: Artifact, dense: Artifact) -> str | None:
    """Reports the difference of two files' outputs, if it is more than rounding."""
    if any(-1 in tensor.shape[1:] for tensor in dense.inputs):
        return None  # an open dimension: no size is known to work
    rng = np.random.default_rng(0)
    x = {tensor.name: _random_input(tensor, rng) for tensor in dense.inputs}
    expected, found = (_as_list(file.predict(x)) for file in (dense, artifact))
    for tensor, *pair in zip(dense.outputs, expected, found, strict=True):
        want, got = (np.asarray(values, np.float64) for values in pair)
        limit = ROUNDING * np.ptp(want) + 1e-5 * np.abs(want).max(initial=0) + 2 * tensor.scale
        if not np.allclose(got, want, rtol=0, atol=limit, equal_nan=True):
            return (
                f"outputs must be those of the dense file, got a difference of "
                f"{np.abs(got - want).max():.3g} in {tensor.name!r}"
            )
    return None


def _as_list(outputs: np.ndarray | list[np.ndarray]) -> list[np.ndarray]:
    return outputs if isinstance(outputs, list) else [outputs]


def _random_input(tensor: TensorDetails, rng: np.random.Generator) -> np.ndarray:
    shape = (4, *tensor.shape[1:]) if tensor.shape[:1] == (-1,) else tensor.shape
    if tensor.scale:  # the entire range that the file was calibrated for
        limits = np.iinfo(tensor.dtype)
        return tensor.dequantize(rng.integers(limits.min, limits.max, shape, endpoint=True))
    if tensor.dtype.startswith("float"):
        return rng.normal(size=shape).astype(tensor.dtype)
    return np.zeros(shape, tensor.dtype)  # an index that every embedding has


def _counts(record: KernelSparsity | FileSparsity) -> tuple[int, int, str]:
    return record.weights, record.zeros, f"{record.sparsity:.1%}"
