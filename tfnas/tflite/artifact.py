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
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfnas.runtime.files import write_atomically
from tfnas.runtime.foreign_files import read_regular
from tfnas.tflite import c_source, file_interpreter, flatbuffer, minify
from tfnas.tflite.file_runs import FileRuns, State, state_of
from tfnas.tflite.file_signatures import check_one_signature, content_of_signature
from tfnas.tflite.file_validation import check_file
from tfnas.tflite.metadata import Labels, Metadata, make_metadata, read_metadata, write_metadata
from tfnas.tflite.tensor_details import TensorDetails

if TYPE_CHECKING:
    from tfnas.data.data_types import InputData

FILE = "file"  # the mode of a file that no conversion of this process has made


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A `.tflite` file in memory.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> artifact = tfnas.to_tflite(model)
        >>> artifact.predict(np.zeros((3, 4))).shape
        (3, 2)
        >>> print(artifact)  # doctest: +ELLIPSIS
        float32 .tflite file, ... bytes, 1 operators
          input ...: float32 (any, 4)
          output ...: float32 (any, 2)

    Args:
        content: The file's bytes.
        mode: Mode of its conversion, such as "int8"; "file" for a loaded file.
        origin: Record of the conversion: model, versions, calibration and so on.

    Raises:
        ValueError: The content is not a valid `.tflite` file, or one of several signatures.

    References:
        LiteRT's file format, `tflite/converter/schema/schema.fbs`.
    """

    content: bytes = dataclasses.field(repr=False)
    mode: str = FILE
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        check_file(self.content)
        check_one_signature(self.content)

    def __str__(self) -> str:
        kind = ".tflite file" if self.mode == FILE else f"{self.mode} .tflite file"
        count = sum(len(graph.operators) for graph in self.graphs)
        lines = [f"{kind}, {self.size:,} bytes, {count} operators"]
        lines += [f"  input {tensor}" for tensor in self.inputs]
        return "\n".join([*lines, *(f"  output {tensor}" for tensor in self.outputs)])

    @classmethod
    def load(cls, path: str | os.PathLike[str], signature: str | None = None) -> Artifact:
        """Reads a `.tflite` file, of tfnas or of any other origin.

        Of a file of several signatures (functions) one is read, without the weights of the others:
        sizes, costs and runs are its own.

        Example:
            >>> import tempfile, tfnas
            >>> from tfnas.measure.latency import reference_artifact
            >>> path = reference_artifact().save(f"{tempfile.mkdtemp()}/net.tflite")
            >>> tfnas.Artifact.load(path).mode
            'file'

        Args:
            path: Path of the file.
            signature: Name of the signature, such as "serving_default". None: the only one.

        Returns:
            The artifact, of mode "file".

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not a valid `.tflite` file, it has several signatures and none is
                named, or it has no signature of this name.
        """
        name = os.fspath(path)
        try:
            content = read_regular(path)
            check_file(content)
        except ValueError as error:
            raise ValueError(f"path {name!r} must be a .tflite file: {error}") from error
        content = content_of_signature(content, signature, name)
        return cls(content, origin={"file": name} | ({"signature": signature} if signature else {}))

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Writes the file to disk, atomically.

        Example:
            >>> import tempfile
            >>> from tfnas.measure.latency import reference_artifact
            >>> reference_artifact().save(f"{tempfile.mkdtemp()}/folder/net.tflite").name
            'net.tflite'

        Args:
            path: Path of the file; missing folders are created, an existing file is replaced.

        Returns:
            The path.
        """
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
        labels: Labels = (),
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
            labels: Name of each class, in the order of the output's last dimension. Of a file of
                several outputs a dictionary from the name of an output (:attr:`outputs`) to them.
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

        Returns:
            A new artifact.

        Raises:
            ValueError: The file has buffers after its flatbuffer.
        """
        return dataclasses.replace(self, content=minify.minify(self.content))

    @property
    def size(self) -> int:
        """Returns the size of the file, in bytes.

        Example:
            >>> from tfnas.measure.latency import reference_artifact
            >>> file = reference_artifact()
            >>> file.size == len(file.content)
            True
        """
        return len(self.content)

    @functools.cached_property
    def gzip_size(self) -> int:
        """Returns the size of the file after gzip at its best level, in bytes.

        Example:
            >>> from tfnas.measure.latency import reference_artifact
            >>> file = reference_artifact()
            >>> file.gzip_size < file.size
            True
        """
        return len(gzip.compress(self.content, compresslevel=9, mtime=0))

    @functools.cached_property
    def sha256(self) -> str:
        """Returns the SHA-256 hash of the file, in hexadecimal.

        Example:
            >>> from tfnas.measure.latency import reference_artifact
            >>> len(reference_artifact().sha256)
            64
        """
        return hashlib.sha256(self.content).hexdigest()

    @functools.cached_property
    def graph(self) -> flatbuffer.FileGraph:
        """Returns the operators and tensors of the file, of its first graph.

        Example:
            >>> from tfnas.measure.latency import reference_artifact
            >>> [op.name for op in reference_artifact().graph.operators][-3:]
            ['MEAN', 'FULLY_CONNECTED', 'SOFTMAX']
        """
        return self.graphs[0]

    @functools.cached_property
    def graphs(self) -> list[flatbuffer.FileGraph]:
        """Returns all graphs of the file: :attr:`graph`, then the bodies of loops and branches.

        Example:
            >>> from tfnas.measure.latency import reference_artifact
            >>> len(reference_artifact().graphs)
            1

        Returns:
            The graphs.
        """
        return flatbuffer.graphs_of(self.content)

    @functools.cached_property
    def state(self) -> State:
        """Returns what state the file leaves from one run to the next.

        Example:
            >>> from tfnas.measure.latency import reference_artifact
            >>> reference_artifact().state
            'none'

        Returns:
            "none", "tensors" (as of a fused LSTM) or "variables".
        """
        return state_of(self.graphs)

    @functools.cached_property
    def metadata(self) -> Metadata | None:
        """Returns the file's TFLite Metadata, None if it has none.

        Example:
            >>> from tfnas.measure.latency import reference_artifact
            >>> file = reference_artifact().with_metadata(author="A. Author")
            >>> file.metadata.author
            'A. Author'
        """
        return read_metadata(self.content)

    @functools.cached_property
    def inputs(self) -> tuple[TensorDetails, ...]:
        """Returns the file's inputs: name, shape `(batch, ...)`, element type and quantization.

        Example:
            >>> from tfnas.measure.latency import reference_artifact
            >>> [tensor.shape for tensor in reference_artifact().inputs]
            [(-1, 48, 48, 3)]
        """
        return self._details[0]

    @functools.cached_property
    def outputs(self) -> tuple[TensorDetails, ...]:
        """Returns the file's outputs, in the order of the Keras model's outputs.

        Shapes are `(batch, ...)`.

        Example:
            >>> from tfnas.measure.latency import reference_artifact
            >>> [tensor.shape for tensor in reference_artifact().outputs]
            [(-1, 10)]
        """
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

        Example:
            >>> from tfnas.measure.latency import reference_artifact
            >>> interpreter = reference_artifact().interpreter(shapes=[(5, 48, 48, 3)])
            >>> interpreter.get_input_details()[0]["shape"].tolist()
            [5, 48, 48, 3]

        Args:
            threads: Number of threads.
            xnnpack: Whether the XNNPACK delegate runs the operators that it supports.
            shapes: Shape of each input in the file's order, such as
                `(batch, height, width, channels)`. None: the shapes in the file.
            keep_all: Whether all tensors can be read after a run, not only the outputs; needs
                memory for all of them.
            reference: Whether LiteRT's reference kernels compute, without a delegate. They are
                slow, and except for a few operators they round as TFLite Micro's kernels do; see
                :func:`tfnas.run_micro`.

        Returns:
            An `ai_edge_litert.interpreter.Interpreter`, its tensors allocated.

        Raises:
            ValueError: `threads` is below 1, or LiteRT does not support an operator.
            RuntimeError: The interpreter refuses the file.

        References:
            LiteRT's `Interpreter`: https://ai.google.dev/edge/api/tflite/python/tf/lite/Interpreter
        """
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self._run_apart(xnnpack, reference)
        resized = None
        if shapes is not None:
            resized = dict(zip((tensor.index for tensor in self.inputs), shapes, strict=True))
        return file_interpreter.new_interpreter(
            self.content, threads, xnnpack, resized, keep_all=keep_all, reference=reference
        )

    def predict(
        self,
        x: InputData,
        *,
        batch_size: int = 64,
        threads: int = 1,
        reference: bool = False,
        stateful: bool = False,
    ) -> Any:
        """Runs the file on real numbers and returns real numbers.

        Inputs are quantized and outputs dequantized with the file's scales. A file of a fixed
        batch size is fed as it is. TensorFlow and Keras are not imported if `x` consists of
        arrays.

        Example:
            >>> import numpy as np
            >>> from tfnas.measure.latency import reference_artifact
            >>> reference_artifact().predict(np.zeros((3, 48, 48, 3), np.float32)).shape
            (3, 10)

        Args:
            x: An array of shape (examples, ...), a `tf.data.Dataset` or a
                `keras.utils.PyDataset`. With several inputs: a dictionary by input name, or a
                list in the model's order if tfnas converted the file in this process.
            batch_size: Examples per invocation, if the file does not fix the batch size.
            threads: Threads of the interpreter.
            reference: Whether LiteRT's reference kernels compute, as in :meth:`interpreter`.
            stateful: Whether `x` is a stream: a state of the file, such as that of a fused LSTM,
                is left from one example to the next. Otherwise it is reset before each batch.

        Returns:
            An array of shape (examples, ...), or a list of them with several outputs.

        Raises:
            ValueError: The number or a shape of the inputs is wrong, `batch_size` is below 1, or
                the file does not have one output per example.
            RuntimeError: The interpreter refuses the file.
        """
        return self.predictor(
            batch_size=batch_size, threads=threads, reference=reference, stateful=stateful
        )(x)

    def predictor(
        self,
        *,
        batch_size: int = 64,
        threads: int = 1,
        reference: bool = False,
        stateful: bool = False,
    ) -> Callable[[InputData], Any]:
        """Returns :meth:`predict` as a function that keeps its interpreter from call to call.

        Example:
            >>> import numpy as np
            >>> from tfnas.measure.latency import reference_artifact
            >>> predict = reference_artifact().predictor(batch_size=2)
            >>> predict(np.zeros((3, 48, 48, 3), np.float32)).shape
            (3, 10)

        Args:
            batch_size: As for :meth:`predict`.
            threads: As for :meth:`predict`.
            reference: As for :meth:`predict`.
            stateful: Whether examples are a stream: a state is left from one example to the next,
                and from one call to the next.

        Returns:
            A function of the inputs.

        Raises:
            ValueError: `batch_size` is below 1.
        """
        from tfnas.data.reading import arrays

        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")

        def new(shapes: list[tuple[int, ...]] | None) -> Interpreter:
            return self.interpreter(threads, shapes=shapes, reference=reference)

        runs = FileRuns(new, self.inputs, self.outputs, self.state, batch_size, stateful)

        def predict(x: InputData) -> Any:
            outputs = runs(self._columns(arrays(x, what="x")[0]))
            values = [t.dequantize(o) for t, o in zip(self.outputs, outputs, strict=True)]
            return values[0] if len(values) == 1 else values

        return predict

    def _columns(self, x: Any) -> list[np.ndarray]:
        """Checks the inputs and returns one array for each, in the file's order."""
        return file_interpreter.input_columns(x, self.inputs, self.origin.get("inputs", ()))

    @functools.cached_property
    def _details(self) -> tuple[tuple[TensorDetails, ...], tuple[TensorDetails, ...]]:
        self._run_apart()
        return file_interpreter.read_ends(self.content)

    def _run_apart(self, xnnpack: bool = True, reference: bool = False) -> None:
        """Runs a file that tfnas did not convert apart first, inside of `tfnas.isolated`."""
        if self.mode == FILE:
            file_interpreter.run_apart(self.content, self.sha256, xnnpack, reference)


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
