"""Caches a teacher's outputs, so that the teacher does not run in every training step.

This is valid where every epoch uses the same inputs (no random augmentation).

The cache is one `.npz` file that holds the outputs and a fingerprint of the teacher's weights and
of the data; in one file the two can't get out of step if the process is killed. It is used again
only if the fingerprint matches and if the teacher still gives the same outputs for 64 examples
spread over the data. The second check notices a changed preprocessing function or activation,
unless it changes none of these 64.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.data.examples import leaves
from tfnas.data.reading import batches, check_data, sliced
from tfnas.distillation.compatibility_checks import check_multi_label
from tfnas.distillation.forward import own_structure
from tfnas.distillation.output_inference import teacher_kinds
from tfnas.distillation.output_losses import OutputLoss
from tfnas.distillation.output_structure import subclassed_structure
from tfnas.distillation.teachers import Teachers
from tfnas.runtime.array_files import write_arrays

if TYPE_CHECKING:
    from tfnas.data.data_types import ExampleData
    from tfnas.distillation.tensor_types import LossesLike

_PROBES = 64
_TOLERANCE = 1e-3  # of the largest output: other hardware rounds differently
_OUTPUTS = "outputs"  # name of the array in the file


def teacher_outputs(
    teacher: keras.Model | Sequence[keras.Model],
    x: ExampleData,
    file: str | os.PathLike[str] | None = None,
    *,
    preprocess: Callable[[Any], Any] | Sequence[Callable[[Any], Any] | None] | None = None,
    weights: Sequence[float] | None = None,
    gives: str | None = None,
    multi_label: bool | None = None,
    outputs: LossesLike | None = None,
) -> Any:
    """Computes a teacher's outputs for fixed inputs, to train a student without running it.

    Give them to :class:`tfnas.Distiller` with `teacher=None`, as the second part of the targets.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> def model(units):
        ...     return keras.Sequential(
        ...         [keras.Input((8,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(3)]
        ...     )
        >>> x, y = np.random.default_rng(0).normal(size=(64, 8)), np.zeros(64, int)
        >>> teacher_logits = tfnas.teacher_outputs(model(64), x)
        >>> distiller = tfnas.Distiller(None, model(4))
        >>> distiller.compile("adam")
        >>> history = distiller.fit(x, (y, teacher_logits), verbose=0)

    Args:
        teacher: A built Keras 3 model, or a list of them, whose outputs are averaged.
        x: Inputs: arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset` that yields the
            same examples in the same order every time; targets are ignored.
        file: An `.npz` file that caches the outputs; None: no cache.
        preprocess: As for :class:`tfnas.Distiller`.
        weights: One number above 0 per teacher, for the average; None: equal weights.
        gives: Whether the teacher's outputs are "logits" or "probabilities"; None: inferred
            from its last activation.
        multi_label: Whether probabilities come from a sigmoid (one yes or no per class)
            rather than a softmax; None: inferred from the last activation.
        outputs: What the teacher's output is, as for :class:`tfnas.Distiller`; give both the
            same. None: inferred from the teacher's loss and last activation.

    Returns:
        Float32 logits (examples, ..., classes) at temperature 1; probabilities are turned into
        logits whose softmax or sigmoid they are. Numbers of a regression, and outputs that are
        compared by a loss, are returned as they are. A dictionary or list of arrays where the
        teacher has several outputs.

    Raises:
        ValueError: An argument is invalid, `file` exists and is not such a cache, or the outputs
            of several teachers may be logits or a regression.
    """
    check_data(x, "x")
    check_multi_label(multi_label)
    first = teacher[0] if isinstance(teacher, (list, tuple)) and teacher else teacher
    structure = own_structure(first, "teacher") or subclassed_structure(outputs)
    teachers = Teachers(teacher, weights, preprocess, gives, structure=structure)
    if not len(teachers):
        raise ValueError("teacher must be a built Keras 3 model or a list of them, got none")
    kinds = teacher_kinds(teachers, outputs, multi_label)
    path = None if file is None else _checked_path(file)
    found = None
    if path is not None and path.exists():
        cached, fingerprint = _load(path)
        same_data = fingerprint == _Fingerprint(teachers).of(x)
        if same_data and _is_still_valid(teachers, x, kinds, cached):
            found = cached
    if found is None:
        found, fingerprint = _compute(teachers, x, kinds)
        if path is not None:
            _save(path, found, fingerprint)
    return teachers.forward_passes[0].structure.packed(found)


class _Fingerprint:
    """A hash of the teachers' weights and of the inputs, updated batch by batch."""

    def __init__(self, teachers: Teachers) -> None:
        self._hash = hashlib.sha256(repr((teachers.weights, teachers.gives)).encode())
        for value in teachers.get_weights():
            self._add(value)

    def add(self, inputs: Any) -> None:
        """Adds a batch of inputs."""
        for leaf in leaves(inputs):
            self._add(leaf)

    def of(self, x: Any) -> str:
        """Returns the hash with all inputs of a data set added."""
        for inputs, _ in batches(x, "x"):
            self.add(inputs)
        return self.text()

    def text(self) -> str:
        """Returns the hash of everything added so far."""
        return self._hash.hexdigest()

    def _add(self, array: np.ndarray) -> None:
        self._hash.update(repr((array.dtype, array.shape)).encode())
        self._hash.update(np.ascontiguousarray(array).data if array.size else b"")


def _compute(
    teachers: Teachers, x: Any, kinds: Sequence[OutputLoss]
) -> tuple[list[np.ndarray], str]:
    parts, fingerprint = [], _Fingerprint(teachers)
    for inputs, _ in batches(x, "x"):
        fingerprint.add(inputs)
        parts.append(_teacher_outputs(teachers, inputs, kinds))
    if not parts:
        raise ValueError("x must hold at least one example, got none")
    return [np.concatenate(column) for column in zip(*parts, strict=True)], fingerprint.text()


def _teacher_outputs(
    teachers: Teachers, inputs: Any, kinds: Sequence[OutputLoss]
) -> list[np.ndarray]:
    """The averaged outputs of a batch, one (batch, ...) for each output."""
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    outputs, _ = teachers.outputs_and_features(tensors, kinds)
    return [np.asarray(keras.ops.convert_to_numpy(output)) for output in outputs]


def _is_still_valid(
    teachers: Teachers, x: Any, kinds: Sequence[OutputLoss], cached: Sequence[np.ndarray]
) -> bool:
    """Whether the teachers still give the cached outputs for a sample of the examples."""
    if len(cached) != len(kinds):
        return False
    indices = np.unique(np.linspace(0, len(cached[0]) - 1, _PROBES).astype(int))
    parts, begin = [], 0
    for inputs, _ in batches(x, "x"):
        end = begin + len(leaves(inputs)[0])
        rows = indices[(indices >= begin) & (indices < end)] - begin
        if len(rows):
            parts.append(_teacher_outputs(teachers, sliced(inputs, rows), kinds))
        begin = end
    found = [np.concatenate(column) for column in zip(*parts, strict=True)]
    pairs = zip(found, (array[indices] for array in cached), strict=True)
    return all(_close(*pair) for pair in pairs)


def _close(outputs: np.ndarray, expected: np.ndarray) -> bool:
    tolerance = _TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0.0)))
    return outputs.shape == expected.shape and np.allclose(outputs, expected, 0.0, tolerance)


def _checked_path(file: str | os.PathLike[str]) -> pathlib.Path:
    if not isinstance(file, (str, os.PathLike)) or pathlib.Path(file).suffix != ".npz":
        raise ValueError(f"file must be a path that ends in .npz, got {file!r}")
    return pathlib.Path(file)


def _save(path: pathlib.Path, outputs: Sequence[np.ndarray], fingerprint: str) -> None:
    names = [_OUTPUTS] if len(outputs) == 1 else [f"{_OUTPUTS}_{n}" for n in range(len(outputs))]
    arrays = dict(zip(names, outputs, strict=True))
    write_arrays(path, {"fingerprint": np.array(fingerprint), **arrays})


def _load(path: pathlib.Path) -> tuple[list[np.ndarray], str]:
    try:
        with np.load(path, allow_pickle=False) as file:
            count = sum(name.startswith(f"{_OUTPUTS}_") for name in file.files)
            names = [f"{_OUTPUTS}_{number}" for number in range(count)] or [_OUTPUTS]
            return [file[name] for name in names], str(file["fingerprint"])
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"file must not exist yet, or hold a teacher's outputs, got {str(path)!r}, which can't "
            f"be read as such: {error}"
        ) from error
