"""Caches a teacher's logits, so that the teacher does not run in every training step.

This is valid where every epoch uses the same inputs (no random augmentation).

The cache is one `.npz` file that holds the logits and a fingerprint of the teacher's weights and
of the data; in one file the two can't get out of step if the process is killed. It is used again
only if the fingerprint matches and if the teacher still gives the same logits for 64 examples
spread over the data. The second check notices a changed preprocessing function or activation,
unless it changes none of these 64.
"""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.data.examples import leaves
from tfnas.data.reading import batches, check_data, sliced
from tfnas.distillation.compatibility_checks import resolved_multi_label
from tfnas.distillation.teachers import Teachers
from tfnas.runtime.files import write_atomically

if TYPE_CHECKING:
    from tfnas.data.data_types import ExampleData

_PROBES = 64
_TOLERANCE = 1e-3  # of the largest logit: other hardware rounds differently


def teacher_outputs(
    teacher: keras.Model | Sequence[keras.Model],
    x: ExampleData,
    file: str | os.PathLike[str] | None = None,
    *,
    preprocess: Callable[[Any], Any] | Sequence[Callable[[Any], Any] | None] | None = None,
    weights: Sequence[float] | None = None,
    gives: str | None = None,
    multi_label: bool | None = None,
) -> np.ndarray:
    """Computes a teacher's logits for fixed inputs, to train a student without running it.

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
        teacher: A built Keras 3 model with one output, or a list of them.
        x: Inputs: arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset` that yields the
            same examples in the same order every time; targets are ignored.
        file: An `.npz` file that caches the logits; None: no cache.
        preprocess: As for :class:`tfnas.Distiller`.
        weights: One number above 0 per teacher, for the average; None: equal weights.
        gives: Whether the teacher's outputs are "logits" or "probabilities"; None: inferred
            from its last activation.
        multi_label: Whether probabilities come from a sigmoid (one yes or no per class)
            rather than a softmax; None: inferred from the last activation.

    Returns:
        Float32 logits (n, ..., classes) at temperature 1. Probabilities are turned into logits
        whose softmax or sigmoid they are.

    Raises:
        ValueError: An argument is invalid, or `file` exists and is not such a cache.
    """
    check_data(x, "x")
    teachers = Teachers(teacher, weights, preprocess, gives)
    if not len(teachers):
        raise ValueError("teacher must be a built Keras 3 model or a list of them, got none")
    multi_label = resolved_multi_label(multi_label, teachers.forward_passes)
    path = None if file is None else _checked_path(file)
    if path is None:
        return _compute(teachers, x, multi_label)[0]
    if path.exists():
        cached, fingerprint = _load(path)
        same_data = fingerprint == _Fingerprint(teachers).of(x)
        if same_data and _is_still_valid(teachers, x, multi_label, cached):
            return cached
    logits, fingerprint = _compute(teachers, x, multi_label)
    _save(path, logits, fingerprint)
    return logits


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


def _compute(teachers: Teachers, x: Any, multi_label: bool) -> tuple[np.ndarray, str]:
    parts, fingerprint = [], _Fingerprint(teachers)
    for inputs, _ in batches(x, "x"):
        fingerprint.add(inputs)
        parts.append(_teacher_logits(teachers, inputs, multi_label))
    if not parts:
        raise ValueError("x must hold at least one example, got none")
    return np.concatenate(parts), fingerprint.text()


def _teacher_logits(teachers: Teachers, inputs: Any, multi_label: bool) -> np.ndarray:
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    logits, _ = teachers.logits_and_features(tensors, multi_label)
    return np.asarray(keras.ops.convert_to_numpy(logits))


def _is_still_valid(teachers: Teachers, x: Any, multi_label: bool, cached: np.ndarray) -> bool:
    """Whether the teachers still give the cached logits for a sample of the examples."""
    indices = np.unique(np.linspace(0, len(cached) - 1, _PROBES).astype(int))
    parts, begin = [], 0
    for inputs, _ in batches(x, "x"):
        end = begin + len(leaves(inputs)[0])
        rows = indices[(indices >= begin) & (indices < end)] - begin
        if len(rows):
            parts.append(_teacher_logits(teachers, sliced(inputs, rows), multi_label))
        begin = end
    logits, expected = np.concatenate(parts), cached[indices]
    tolerance = _TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0.0)))
    return logits.shape == expected.shape and np.allclose(logits, expected, 0.0, tolerance)


def _checked_path(file: str | os.PathLike[str]) -> pathlib.Path:
    if not isinstance(file, (str, os.PathLike)) or pathlib.Path(file).suffix != ".npz":
        raise ValueError(f"file must be a path that ends in .npz, got {file!r}")
    return pathlib.Path(file)


def _save(path: pathlib.Path, logits: np.ndarray, fingerprint: str) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, outputs=logits, fingerprint=np.array(fingerprint))
    write_atomically(path, buffer.getvalue())


def _load(path: pathlib.Path) -> tuple[np.ndarray, str]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["outputs"], str(file["fingerprint"])
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"file must not exist yet, or hold a teacher's outputs, got {str(path)!r}, which can't "
            f"be read as such: {error}"
        ) from error
