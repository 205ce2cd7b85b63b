"""How many of a file's weights are zero, counted in the file.

A pruned Keras model promises zeros; quantization, folding and the converter come between
it and the file. So each kernel is read back from the `.tflite` bytes, whatever form it has
there (float, integer, two 4-bit numbers a byte, or TFLite's sparse encoding, which leaves
zeros out), and the numbers that stand for 0.0 are counted. Kernels are what convolutions,
dense and recurrent layers multiply with; biases, tables of shapes and embeddings are not.

Zeros say nothing about speed. XNNPACK considers sparse kernels only for a file that is
stored sparsely and whose form admits them (:mod:`tfnas.tflite.sparse_eligibility`), and nothing
here measures them. Nor is the encoding always the best way to a small download: gzip finds most
of the zeros of a dense file as well, and makes a dense int8 file smaller than a sparse
one. So look at `gzip_size` before choosing it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfnas.table import Tabular, TextTable
from tfnas.tflite.artifact import Artifact, TensorDetails
from tfnas.tflite.file_weights import read_kernels
from tfnas.tflite.flatbuffer import read_graphs
from tfnas.tflite.sparse_eligibility import SparseVerdict, sparse_eligibility

STORED_FROM = 0.3  # share of zeros from which the converter stores a kernel sparsely
ROUNDING = 0.01  # of the outputs' range; faults of the converter were NaN or above 1

# Measured with ai-edge-litert 2.3. XNNPACK gives a float16 TRANSPOSE_CONV memory that
# nothing was written to: NaN one time, small numbers another.
_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_SOUND = {
    "float32": (*_PRODUCTS, "TRANSPOSE_CONV"),
    "float16": _PRODUCTS,
    "int8": (*_PRODUCTS, "TRANSPOSE_CONV"),
}


@dataclasses.dataclass(frozen=True)
class KernelSparsity:
    """The zeros of one kernel of a file.

    Args:
        layer: The Keras layer, as far as the names in the file tell.
        operator: The operator that takes the kernel, such as "CONV_2D".
        dtype: Its element type in the file.
        shape: Its shape in the file: output channels first for convolutions and dense
            layers, last for depthwise ones.
        weights: Number of weights.
        zeros: Number of weights that are exactly 0.0.
        sparse: Whether the file leaves its zeros out.
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
        """Share of zeros, from 0 to 1."""
        return self.zeros / self.weights if self.weights else 0.0


@dataclasses.dataclass(frozen=True, repr=False)
class FileSparsity(Tabular):
    """The zeros of a file's kernels, and what the file weighs.

    Args:
        kernels: One record a kernel, in the order of execution.
        size: Size of the file, in bytes.
        gzip_size: Size of the file after gzip, in bytes.
        verdict: Whether the file's form admits sparse kernels.
    """

    kernels: tuple[KernelSparsity, ...]
    size: int
    gzip_size: int
    verdict: SparseVerdict

    @property
    def weights(self) -> int:
        """Number of weights in all kernels."""
        return sum(kernel.weights for kernel in self.kernels)

    @property
    def zeros(self) -> int:
        """Number of weights that are exactly 0.0."""
        return sum(kernel.zeros for kernel in self.kernels)

    @property
    def sparsity(self) -> float:
        """Share of zeros in all kernels, from 0 to 1."""
        return self.zeros / self.weights if self.weights else 0.0

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return ["layer", "operator", "dtype", "shape", "stored", "weights", "zeros", "share"]

    def rows(self) -> list[list[object]]:
        """Returns one row per kernel, in the order of execution, and one of the total."""
        rows = [
            [
                k.layer,
                k.operator,
                k.dtype,
                "x".join(map(str, k.shape)),
                _form(k.sparse),
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
        The counts, a kernel and in total; `print` shows them as a table.

    Raises:
        ValueError: A kernel has an element type or an encoding that can't be read.
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
    """Says what is wrong with a sparse file, beside the dense file of the same model.

    The converter writes sparse files that the interpreter takes and computes nonsense
    with, so both files are run on the same random inputs.

    Args:
        artifact: The file that should be sparse.
        dense: The same model's file without the sparse encoding.

    Returns:
        One line, or None where nothing is wrong.
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
    """Names an operator that takes a sparse tensor for a dense one, or is not known not to."""
    operators = [op for graph in read_graphs(artifact.content) for op in graph.operators]
    for op in operators:
        raw = [tensor for tensor in op.inputs if tensor.sparsity is not None]
        if raw and op.name not in ("DENSIFY", "FULLY_CONNECTED"):
            return (
                f"{op.name} would read the sparse {raw[0].dtype} tensor {raw[0].name!r} "
                "as a dense one (the converter leaves dense layers' kernels in 1x4 blocks "
                "to it; float32 has no such fault)"
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
    """Says by how much the outputs of two files differ, where that is more than rounding."""
    if any(-1 in tensor.shape[1:] for tensor in dense.inputs):
        return None  # no size is known to be right for an open dimension
    rng = np.random.default_rng(0)
    x = {tensor.name: _random(tensor, rng) for tensor in dense.inputs}
    wanted, got = dense.predict(x), artifact.predict(x)
    pairs = zip(wanted, got, strict=True) if isinstance(wanted, list) else [(wanted, got)]
    for tensor, pair in zip(dense.outputs, pairs, strict=True):
        want, have = (np.asarray(values, np.float64) for values in pair)
        limit = ROUNDING * np.ptp(want) + 1e-5 * np.abs(want).max(initial=0) + 2 * tensor.scale
        if not np.allclose(have, want, rtol=0, atol=limit, equal_nan=True):
            return (
                f"outputs must be those of the dense file, got a difference of "
                f"{np.abs(have - want).max():.3g} in {tensor.name!r}"
            )
    return None


def _random(tensor: TensorDetails, rng: np.random.Generator) -> np.ndarray:
    shape = (4, *tensor.shape[1:]) if tensor.shape[:1] == (-1,) else tensor.shape
    if tensor.scale:  # all of the range that the file was calibrated for
        limits = np.iinfo(tensor.dtype)
        return tensor.dequantize(rng.integers(limits.min, limits.max, shape, endpoint=True))
    if tensor.dtype.startswith("float"):
        return rng.normal(size=shape).astype(tensor.dtype)
    return np.zeros(shape, tensor.dtype)  # an index that every table has


def _form(sparse: bool) -> str:
    return "sparse" if sparse else "dense"


def _counts(record: KernelSparsity | FileSparsity) -> tuple[int, int, str]:
    return record.weights, record.zeros, f"{record.sparsity:.1%}"
