"""LiteRT's interpreter for the bytes of a `.tflite` file; :mod:`tfnas.tflite.file_runs` runs it.

:class:`tfnas.tflite.artifact.Artifact` is the way to use these functions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfnas.runtime.helper_process import HelperDied, call, is_isolated
from tfnas.runtime.native_messages import native_messages_hidden
from tfnas.tflite.tensor_details import TensorDetails, tensor_details

STATE = "state_"  # start of the names of states, inputs of files of one frame
FIRST_RUN_SECONDS = 600.0
# What `run_apart` has run -> how the process ended, empty where it did not.
_KNOWN: dict[tuple[str, bool, bool], str] = {}
_OPEN_SIZES = (32, 128, 512)
_ANNOUNCED: list[bool] = []  # not empty once LiteRT has written that it uses XNNPACK
Ends = tuple[tuple[TensorDetails, ...], tuple[TensorDetails, ...]]  # inputs, outputs


def new_interpreter(
    content: bytes,
    threads: int = 1,
    xnnpack: bool = True,
    shapes: Mapping[int, Sequence[int]] | None = None,
    *,
    keep_all: bool = False,
    reference: bool = False,
) -> Interpreter:
    """Returns an interpreter of a file, its tensors allocated.

    Args:
        content: The file's bytes.
        threads: As for :meth:`tfnas.Artifact.interpreter`, like the others.
        xnnpack: Whether the XNNPACK delegate runs the operators that it supports.
        shapes: Index of an input -> the shape that it gets, batch dimension first. None: those in
            the file; larger ones where it leaves sizes open, and 1 for each is too small.
        keep_all: Whether all tensors can be read after a run.
        reference: Whether LiteRT's reference kernels compute, without a delegate.

    Returns:
        The interpreter.

    Raises:
        ValueError: LiteRT can't read the file, or does not support an operator.
        RuntimeError: The interpreter refuses the file, or there is not enough memory.
    """
    if reference:
        resolver = OpResolverType.BUILTIN_REF
    elif xnnpack:
        resolver = OpResolverType.AUTO
    else:
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    options = {
        "model_content": content,
        "num_threads": threads,
        "experimental_op_resolver_type": resolver,
        "experimental_preserve_all_tensors": keep_all,
    }
    with _delegate_unannounced():
        try:
            return _allocated(options, shapes or {})
        except RuntimeError as error:
            if shapes:
                given = ", ".join(str(tuple(shape)) for shape in shapes.values())
                raise RuntimeError(
                    f"file must get sizes that its operators can take, got {given}; an operator "
                    f"may need more places than it gets there: {error}"
                ) from error
            larger = _at_larger_sizes(options)
            if larger is None:
                raise
            return larger


def _interpreter(options: Mapping[str, Any]) -> Interpreter:
    try:
        return Interpreter(**options)
    except (ValueError, MemoryError) as error:
        raise ValueError(f"content must be a file that LiteRT can run: {error}") from error


def _allocated(options: Mapping[str, Any], shapes: Mapping[int, Sequence[int]]) -> Interpreter:
    interpreter = _interpreter(options)
    for index, shape in shapes.items():
        interpreter.resize_tensor_input(index, list(shape))
    try:
        interpreter.allocate_tensors()
    except MemoryError as error:
        raise RuntimeError("file must need less memory than there is, got none left") from error
    return interpreter


def _at_larger_sizes(options: Mapping[str, Any]) -> Interpreter | None:
    """An interpreter of a file whose open sizes are larger than the 1 that it stores for each.

    A window that is wider than 1, as that of a convolution without padding, does not fit there.

    Returns:
        The interpreter; None where no size is open, or none of some sizes will do.
    """
    inputs = _interpreter(options).get_input_details()
    if not any(-1 in tensor["shape_signature"][1:] for tensor in inputs):
        return None
    for size in _OPEN_SIZES:
        shapes = {}
        for tensor in inputs:
            shape, signature = tensor["shape"].tolist(), tensor["shape_signature"].tolist()
            pairs = zip(shape[1:], signature[1:], strict=True)
            sizes = [size if known == -1 else stored for stored, known in pairs]
            shapes[tensor["index"]] = [*shape[:1], *sizes]
        with contextlib.suppress(RuntimeError):
            return _allocated(options, shapes)
    return None


@contextlib.contextmanager
def _delegate_unannounced() -> Iterator[None]:
    """Hides what LiteRT writes once, when it first uses XNNPACK."""
    if _ANNOUNCED:
        yield
        return
    with native_messages_hidden():
        yield
    _ANNOUNCED.append(True)


def run_apart(content: bytes, sha256: str, xnnpack: bool = True, reference: bool = False) -> None:
    """Runs a file of unknown origin once in the helper process, where its crash costs nothing.

    Inside of :func:`tfnas.isolated`; else, and where this process has done it before, nothing is
    run. An error that LiteRT raises is left for the caller's own interpreter.

    Args:
        content: The file's bytes.
        sha256: Their hash.
        xnnpack: As for :func:`new_interpreter`, like `reference`.
        reference: Which kernels compute.

    Raises:
        RuntimeError: The file ended the process, or took longer than 10 minutes.
    """
    key = (sha256, xnnpack, reference)
    if is_isolated() and key not in _KNOWN:
        try:
            refusal = call(first_run, content, xnnpack, reference, timeout=FIRST_RUN_SECONDS)
            # What LiteRT refuses there may crash here: a damaged file is read by chance.
            _KNOWN[key] = f"was refused: {refusal}" if refusal else ""
        except HelperDied as error:
            _KNOWN[key] = str(error)
    if _KNOWN.get(key):
        raise RuntimeError(
            f"file must run in LiteRT's interpreter, got one whose first run {_KNOWN[key]}"
        )


def first_run(content: bytes, xnnpack: bool, reference: bool) -> str:
    """Runs a file on zeros, for :func:`run_apart`.

    Args:
        content: The file's bytes.
        xnnpack: As for :func:`new_interpreter`, like `reference`.
        reference: Which kernels compute.

    Returns:
        Why the interpreter does not take the file; empty where it does. An error of the run itself
        may be due to the zeros.
    """
    try:
        interpreter = new_interpreter(content, xnnpack=xnnpack, reference=reference)
    except (ValueError, RuntimeError) as error:
        return str(error)
    with contextlib.suppress(ValueError, RuntimeError):
        for tensor in interpreter.get_input_details():
            shape, text = tensor["shape"], np.dtype(tensor["dtype"]).kind in "OSU"
            zeros = np.full(shape, b"") if text else np.zeros(shape, tensor["dtype"])
            interpreter.set_tensor(tensor["index"], zeros)
        interpreter.invoke()
        for tensor in interpreter.get_output_details():
            interpreter.get_tensor(tensor["index"])
    return ""


def read_ends(content: bytes) -> Ends:
    """Returns the inputs and the outputs of a file, the outputs in the order of their numbers.

    Args:
        content: The file's bytes.

    Returns:
        Inputs and outputs, by the names of the file's signature where it has one.

    Raises:
        ValueError: LiteRT can't read the file, or does not support an operator.
        RuntimeError: The interpreter refuses the file.
    """
    interpreter = new_interpreter(content)
    if len(interpreter.get_signature_list()) == 1:
        runner = interpreter.get_signature_runner()
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
    else:
        inputs = {d["name"]: d for d in interpreter.get_input_details()}
        outputs = {d["name"]: d for d in interpreter.get_output_details()}
    outputs = dict(sorted(outputs.items(), key=lambda item: _split_number(item[0])))
    return tuple(tuple(map(tensor_details, d, d.values())) for d in (inputs, outputs))  # type: ignore[return-value]


def input_columns(
    x: Any, tensors: Sequence[TensorDetails], model_inputs: Iterable[str]
) -> list[np.ndarray]:
    """Checks the inputs of a file and returns one array for each, in the file's order.

    Args:
        x: An array of shape (examples, ...), a list of them in the order of the model's inputs, or
            a dictionary of them by input name.
        tensors: The file's inputs.
        model_inputs: Names of the model's inputs in their order; empty if it is not known.

    Returns:
        Arrays of shape (examples, ...).

    Raises:
        ValueError: The number, a name or a shape of the inputs is wrong, or they hold NaN.
    """
    names = [tensor.name for tensor in tensors]
    if isinstance(x, dict):
        if set(x) != set(names):
            raise ValueError(
                f"x must hold the inputs {names}, got {sorted(x)}{_with_states(names)}"
            )
        columns = [x[name] for name in names]
    else:
        columns = list(x) if isinstance(x, list | tuple) else [x]
        order = [name for name in model_inputs if name in names]
        if len(columns) == len(names) > 1:
            if len(order) != len(names):
                raise ValueError(
                    f"x must be a dictionary of {names}, since the file does not hold the "
                    "order of the model's inputs"
                )
            columns = [columns[order.index(name)] for name in names]
    if len(columns) != len(names):
        raise ValueError(
            f"x must hold {len(names)} inputs {names}, got {len(columns)}{_with_states(names)}"
        )
    for tensor, column in zip(tensors, columns, strict=True):
        fits = column.ndim == len(tensor.shape) and all(
            size in (-1, got) for size, got in zip(tensor.shape[1:], column.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"x must have the shape (examples, {_shape_text(tensor.shape[1:])}) for input "
                f"{tensor.name!r}, got {column.shape}"
            )
        if np.isnan(column).any():
            raise ValueError(f"x must hold no NaN for input {tensor.name!r}")
    return columns


def _with_states(names: Sequence[str]) -> str:
    """What to use for a file that takes its state, as a hint of an error; else empty."""
    if not any(name.startswith(STATE) for name in names):
        return ""
    return (
        ": the file takes one frame and the state after the frames before; tfnas.FileStream(file) "
        "keeps the state and takes frames, tfnas.evaluate takes sequences"
    )


def _split_number(name: str) -> tuple[str, int]:
    """("output_", 10) of "output_10", which sorts after "output_9"."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def _shape_text(shape: Sequence[int]) -> str:
    return ", ".join("any" if size == -1 else str(size) for size in shape)
