"""The deployable result: a `.tflite` file in memory, with a record of its origin.

Everything that tfnas reports about a compressed model is measured on an :class:`Artifact`, never
on the Keras model that it was converted from.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfnas.runtime.files import write_atomically
from tfnas.tflite import c_source, flatbuffer, minify
from tfnas.tflite.file_validation import check_file
from tfnas.tflite.metadata import Metadata, make_metadata, read_metadata, write_metadata


@dataclasses.dataclass(frozen=True)
class TensorDetails:
    """An input or output of an artifact.

    Args:
        name: Name of the Keras input, or "output_0" and so on.
        index: Index of the tensor in the file.
        shape: Shape with the batch dimension first; -1 for an open dimension.
        dtype: Element type, such as "int8".
        scale: Quantization scale, 0.0 for floats: value = (q - zero_point) * scale.
        zero_point: The quantized integer that stands for 0.0.
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Returns real numbers in this tensor's element type, rounded and clipped."""
        if not self.scale:
            return np.asarray(x).astype(self.dtype)
        limits = np.iinfo(self.dtype)
        q = np.round(np.asarray(x, np.float32) / np.float32(self.scale)) + self.zero_point
        return np.clip(q, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """Returns the real numbers that this tensor's elements stand for."""
        if not self.scale:
            return q
        return (q.astype(np.float32) - self.zero_point) * np.float32(self.scale)


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A `.tflite` file in memory.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> artifact = tfnas.to_tflite(model)
        >>> artifact.predict(np.zeros((3, 4))).shape
        (3, 2)

    Args:
        content: The file's bytes.
        mode: Mode of its conversion, such as "int8"; "file" for a loaded file.
        origin: Record of the conversion: model, versions, calibration and so on.

    Raises:
        ValueError: The content is not a valid `.tflite` file.
    """

    content: bytes = dataclasses.field(repr=False)
    mode: str = "file"
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        check_file(self.content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Artifact:
        """Reads a `.tflite` file, of tfnas or of any other origin.

        Args:
            path: Path of the file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not a valid `.tflite` file.
        """
        try:
            return cls(pathlib.Path(path).read_bytes(), origin={"file": os.fspath(path)})
        except ValueError as error:
            raise ValueError(f"path {os.fspath(path)!r} must be a .tflite file: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Writes the file atomically, creates missing folders, and returns the path."""
        return write_atomically(path, self.content)

    def save_c(
        self, path: str | os.PathLike[str], name: str = "model"
    ) -> tuple[pathlib.Path, pathlib.Path]:
        """Writes the file as a C array, for devices without a file system.

        Example:
            >>> import keras, tempfile, tfnas
            >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
            >>> folder = tempfile.mkdtemp()
            >>> source, header = tfnas.to_tflite(model).save_c(f"{folder}/net.cc", "net")
            >>> source.name, header.name
            ('net.cc', 'net.h')

        Args:
            path: Path of the `.c` or `.cc` source file; missing folders are created.
            name: Name of the array, which is aligned to 16 bytes; `NAME_len` is its length.

        Returns:
            The path of the source file, and of the header beside it.

        Raises:
            ValueError: `path` has another suffix, or `name` is not a C and C++ identifier.
        """
        return c_source.save_c(self.content, path, name)

    def with_metadata(
        self,
        *,
        description: str = "",
        labels: Sequence[str] = (),
        mean: float | Sequence[float] = (),
        std: float | Sequence[float] = (),
        author: str = "",
        version: str = "",
    ) -> Artifact:
        """Returns the file with TFLite Metadata, which Android and iOS libraries read.

        Existing metadata is replaced. The computation does not change.

        Example:
            >>> import keras, tfnas
            >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
            >>> file = tfnas.to_tflite(model).with_metadata(labels=["cat", "dog"])
            >>> file.metadata.labels
            ('cat', 'dog')

        Args:
            description: What the model does.
            labels: Name of each class, in the order of the output's last dimension.
            mean: Mean that the application must subtract from inputs, one number or one for each
                channel. It is only recorded: the file does not normalize its inputs.
            std: Standard deviation that inputs must then be divided by, likewise.
            author: Author of the model.
            version: The model's version.

        Returns:
            A new artifact.

        Raises:
            ValueError: An argument is invalid, or does not fit the file or the others.

        References:
            TensorFlow Lite Support, metadata_schema.fbs, version 1.1.0.
        """
        metadata = make_metadata(description, labels, mean, std, author, version)
        return dataclasses.replace(self, content=write_metadata(self.content, metadata))

    def minified(self) -> Artifact:
        """Returns a smaller file that computes the same, for devices with little memory.

        Equal vectors (zero points, scales, shapes) are stored once, names of inner tensors are
        shortened to their layers, and the converter's notes are removed. Operators, weights,
        outputs and the names of inputs and outputs stay the same.

        Example:
            >>> import keras, tfnas
            >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
            >>> file = tfnas.to_tflite(model)
            >>> file.minified().size < file.size
            True

        Raises:
            ValueError: The file has buffers after its flatbuffer.
        """
        return dataclasses.replace(self, content=minify.minify(self.content))

    @property
    def size(self) -> int:
        """Size of the file, in bytes."""
        return len(self.content)

    @functools.cached_property
    def gzip_size(self) -> int:
        """Size of the file after gzip at its best level, in bytes."""
        return len(gzip.compress(self.content, compresslevel=9, mtime=0))

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 hash of the file, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    @functools.cached_property
    def graph(self) -> flatbuffer.FileGraph:
        """Operators and tensors of the file."""
        return flatbuffer.read_graph(self.content)

    @functools.cached_property
    def metadata(self) -> Metadata | None:
        """The file's TFLite Metadata, None if it has none."""
        return read_metadata(self.content)

    @functools.cached_property
    def inputs(self) -> tuple[TensorDetails, ...]:
        """The file's inputs."""
        return self._details[0]

    @functools.cached_property
    def outputs(self) -> tuple[TensorDetails, ...]:
        """The file's outputs, in the order of the Keras model's outputs."""
        return self._details[1]

    def interpreter(
        self,
        threads: int = 1,
        xnnpack: bool = True,
        shapes: Sequence[Sequence[int]] | None = None,
        keep_all: bool = False,
        reference: bool = False,
    ) -> Interpreter:
        """Returns a LiteRT interpreter of the file, ready to be invoked.

        Args:
            threads: Number of threads.
            xnnpack: Whether the XNNPACK delegate runs the operators that it supports.
            shapes: Shape of each input, batch dimension first. None: the shapes in the file.
            keep_all: Whether all tensors can be read after a run, not only the outputs; needs
                memory for all of them.
            reference: Whether LiteRT's reference kernels compute, without a delegate. They are
                slow, and except for a few operators they round as TFLite Micro's kernels do; see
                :func:`tfnas.run_micro`.

        Raises:
            ValueError: `threads` is below 1, or LiteRT does not support an operator.
            RuntimeError: The interpreter refuses the file.
        """
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        if reference:
            resolver = OpResolverType.BUILTIN_REF
        elif xnnpack:
            resolver = OpResolverType.AUTO
        else:
            resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = self._new_interpreter(
            num_threads=threads,
            experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=keep_all,
        )
        if shapes is not None:
            for tensor, shape in zip(self.inputs, shapes, strict=True):
                interpreter.resize_tensor_input(tensor.index, list(shape))
        _allocate(interpreter)
        return interpreter

    def predict(
        self, x: Any, *, batch_size: int = 64, threads: int = 1, reference: bool = False
    ) -> Any:
        """Runs the file on real numbers and returns real numbers.

        Inputs are quantized and outputs dequantized with the file's scales. TensorFlow and Keras
        are not imported if `x` consists of arrays.

        Args:
            x: An array of shape (examples, ...), a `tf.data.Dataset` or a
                `keras.utils.PyDataset`. With several inputs: a dictionary by input name, or a
                list in the model's order if tfnas converted the file in this process.
            batch_size: Examples per invocation, if the file does not fix the batch size.
            threads: Threads of the interpreter.
            reference: Whether LiteRT's reference kernels compute. They are slow, and except for
                a few operators they round as TFLite Micro's kernels do; see
                :func:`tfnas.run_micro`.

        Returns:
            An array of shape (examples, ...), or a list of them with several outputs.

        Raises:
            ValueError: The number or a shape of the inputs is wrong, `batch_size` is below 1, or
                the file does not have one output per example.
            RuntimeError: The interpreter refuses the file.
        """
        from tfnas.data.reading import arrays

        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        columns = self._columns(arrays(x, what="x")[0])
        examples = len(columns[0])
        try:
            outputs = self._run(columns, min(batch_size, examples), threads, reference)
        except (RuntimeError, _BatchRefused):  # an operator fixes the batch size: one at a time
            try:
                outputs = self._run(columns, 1, threads, reference)
            except _BatchRefused as error:
                raise ValueError(f"file must have an output per example, but {error}") from error
        values = [t.dequantize(o) for t, o in zip(self.outputs, outputs, strict=True)]
        return values[0] if len(values) == 1 else values

    def _run(
        self, columns: list[np.ndarray], batch: int, threads: int, reference: bool
    ) -> list[np.ndarray]:
        examples = len(columns[0])
        shapes = [(batch, *column.shape[1:]) for column in columns]
        interpreter = self.interpreter(threads, shapes=shapes, reference=reference)
        parts: list[list[np.ndarray]] = [[] for _ in self.outputs]
        for start in range(0, examples, batch):
            stop = min(start + batch, examples)
            for tensor, column in zip(self.inputs, columns, strict=True):
                block = tensor.quantize(column[start:stop])
                if stop - start < batch:  # pad the last batch; the outputs are cut below
                    block = np.concatenate([block, np.repeat(block[-1:], batch - len(block), 0)])
                interpreter.set_tensor(tensor.index, block)
            interpreter.invoke()
            for tensor, part in zip(self.outputs, parts, strict=True):
                out = interpreter.get_tensor(tensor.index)
                if out.ndim == 0 or len(out) != batch:
                    raise _BatchRefused(f"{tensor.name} is {out.shape} for a batch of {batch}")
                part.append(out[: stop - start])
        return [np.concatenate(part) for part in parts]

    def _columns(self, x: Any) -> list[np.ndarray]:
        """Checks the inputs and returns one array for each, in the file's order."""
        names = [tensor.name for tensor in self.inputs]
        if isinstance(x, dict):
            if set(x) != set(names):
                raise ValueError(f"x must hold the inputs {names}, got {sorted(x)}")
            columns = [x[name] for name in names]
        else:
            columns = list(x) if isinstance(x, list | tuple) else [x]
            order = [name for name in self.origin.get("inputs", ()) if name in names]
            if len(columns) == len(names) > 1:
                if len(order) != len(names):
                    raise ValueError(
                        f"x must be a dictionary of {names}, since the file does not hold the "
                        "order of the model's inputs"
                    )
                columns = [columns[order.index(name)] for name in names]
        if len(columns) != len(names):
            raise ValueError(f"x must hold {len(names)} inputs {names}, got {len(columns)}")
        for tensor, column in zip(self.inputs, columns, strict=True):
            fits = column.ndim == len(tensor.shape) and all(
                size in (-1, got)
                for size, got in zip(tensor.shape[1:], column.shape[1:], strict=True)
            )
            if not fits:
                raise ValueError(
                    f"x must have the shape (examples, {_shape_text(tensor.shape[1:])}) for input "
                    f"{tensor.name!r}, got {column.shape}"
                )
            if np.isnan(column).any():
                raise ValueError(f"x must hold no NaN for input {tensor.name!r}")
        return columns

    def _new_interpreter(self, **options: Any) -> Interpreter:
        try:
            return Interpreter(model_content=self.content, **options)
        except (ValueError, MemoryError) as error:
            raise ValueError(f"content must be a file that LiteRT can run: {error}") from error

    @functools.cached_property
    def _details(self) -> tuple[tuple[TensorDetails, ...], tuple[TensorDetails, ...]]:
        interpreter = self._new_interpreter()
        _allocate(interpreter)
        if len(interpreter.get_signature_list()) == 1:
            runner = interpreter.get_signature_runner()
            inputs, outputs = runner.get_input_details(), runner.get_output_details()
        else:
            inputs = {d["name"]: d for d in interpreter.get_input_details()}
            outputs = {d["name"]: d for d in interpreter.get_output_details()}
        outputs = dict(sorted(outputs.items(), key=lambda item: _split_number(item[0])))
        return tuple(tuple(map(_tensor_details, d, d.values())) for d in (inputs, outputs))  # type: ignore[return-value]


class _BatchRefused(Exception):
    """The file does not return one output per example for this batch size."""


FILES = Artifact | str | os.PathLike


def as_artifact(file: Artifact | str | os.PathLike[str], name: str = "file") -> Artifact:
    """Returns an artifact; a path is loaded.

    Args:
        file: An artifact or the path of a file.
        name: Name of the argument, for the error message.

    Raises:
        ValueError: It is neither.
    """
    if not isinstance(file, FILES):
        raise ValueError(f"{name} must be a tfnas.Artifact or a path, got {type(file).__name__}")
    return file if isinstance(file, Artifact) else Artifact.load(file)


def _allocate(interpreter: Interpreter) -> None:
    try:
        interpreter.allocate_tensors()
    except MemoryError as error:
        raise RuntimeError("file must need less memory than there is, got none left") from error


def _split_number(name: str) -> tuple[str, int]:
    """("output_", 10) of "output_10", which sorts after "output_9"."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def _shape_text(shape: Sequence[int]) -> str:
    return ", ".join("any" if size == -1 else str(size) for size in shape)


def _tensor_details(name: str, details: Mapping[str, Any]) -> TensorDetails:
    signature = details.get("shape_signature")
    shape = signature if signature is not None and len(signature) else details["shape"]
    scale, zero_point = details["quantization"]
    return TensorDetails(
        name,
        int(details["index"]),
        tuple(int(n) for n in shape),
        np.dtype(details["dtype"]).name,
        float(scale),
        int(zero_point),
    )
