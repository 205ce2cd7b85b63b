"""A teacher's outputs, computed once.

Where the inputs of a training are the same in every epoch, so are the teacher's outputs:
computing them beforehand takes the teacher out of every step.

On disk they lie in one `.npz` file with a fingerprint of the teacher's weights and of the data,
one file so that a kill can't part them. They are used again only where the fingerprint is the
same and the teacher still gives them for 64 of the examples, all over the data, which also
notices another preprocessing function or activation unless none of those tells.
"""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfnas.data.datasets import batches, check_data, leaves, sliced
from tfnas.distillation.compatibility_checks import resolved_multi_label
from tfnas.distillation.teachers import Teachers
from tfnas.runtime.files import write_atomically

_PROBES = 64
_CLOSE = 1e-3  # of the largest logit: those of other hardware differ more than another run's


def teacher_outputs(
    teacher: Any,
    x: Any,
    file: str | os.PathLike[str] | None = None,
    *,
    preprocess: Any = None,
    weights: Sequence[float] | None = None,
    gives: str | None = None,
    multi_label: bool | None = None,
) -> np.ndarray:
    """Returns what a teacher says of fixed inputs, for :class:`tfnas.Distiller` without one.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> def model(units):
        ...     return keras.Sequential(
        ...         [keras.Input((8,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(3)]
        ...     )
        >>> x, y = np.random.default_rng(0).normal(size=(64, 8)), np.zeros(64, int)
        >>> told = tfnas.teacher_outputs(model(64), x)
        >>> distiller = tfnas.Distiller(None, model(4))
        >>> distiller.compile("adam")
        >>> history = distiller.fit(x, (y, told), verbose=0)

    Args:
        teacher: A built Keras 3 model with one output, or a list of them.
        x: Inputs, as arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset` that give the
            same in the same order every time; targets are ignored.
        file: An `.npz` file where the outputs are kept and looked for; None: nowhere.
        preprocess: As for :class:`tfnas.Distiller`.
        weights: One number above 0 a teacher, for the average; None: all count alike.
        gives: "logits" or "probabilities"; None: by the teacher's last activation.
        multi_label: Whether probabilities are a sigmoid's; None: by the last activation.

    Returns:
        Float32 logits (n, ..., classes), at temperature 1: where the teacher gives
        probabilities, what they are the softmax or sigmoid of.

    Raises:
        ValueError: An argument is outside its rule, or the file is something else.
    """
    check_data(x, "x")
    teachers = Teachers(teacher, weights, preprocess, gives)
    if not len(teachers):
        raise ValueError("teacher must be a built Keras 3 model or a list of them, got none")
    kind = resolved_multi_label(multi_label, teachers.readers)
    target = None if file is None else _checked_path(file)
    if target is None:
        return _computed(teachers, x, kind)[0]
    if target.exists():
        kept, known = _load(target)
        if known == _Fingerprint(teachers).of(x) and _still_true(teachers, x, kind, kept):
            return kept
    outputs, fingerprint = _computed(teachers, x, kind)
    _save(target, outputs, fingerprint)
    return outputs


class _Fingerprint:
    """A hash over weights and, batch by batch, inputs."""

    def __init__(self, teachers: Teachers) -> None:
        self._hash = hashlib.sha256(repr((teachers.weights, teachers.gives)).encode())
        for value in teachers.get_weights():
            self._add(value)

    def add(self, inputs: Any) -> None:
        """Takes a batch of inputs in."""
        for leaf in leaves(inputs):
            self._add(leaf)

    def of(self, x: Any) -> str:
        """The hash over all of the inputs."""
        for inputs, _ in batches(x, "x"):
            self.add(inputs)
        return self.text()

    def text(self) -> str:
        """The hash over what was taken in."""
        return self._hash.hexdigest()

    def _add(self, array: np.ndarray) -> None:
        self._hash.update(repr((array.dtype, array.shape)).encode())
        self._hash.update(np.ascontiguousarray(array).data if array.size else b"")


def _computed(teachers: Teachers, x: Any, multi_label: bool) -> tuple[np.ndarray, str]:
    parts, fingerprint = [], _Fingerprint(teachers)
    for inputs, _ in batches(x, "x"):
        fingerprint.add(inputs)
        parts.append(_told(teachers, inputs, multi_label))
    if not parts:
        raise ValueError("x must hold at least one example, got none")
    return np.concatenate(parts), fingerprint.text()


def _told(teachers: Teachers, inputs: Any, multi_label: bool) -> np.ndarray:
    given = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    return np.asarray(keras.ops.convert_to_numpy(teachers.told(given, multi_label)[0]))


def _still_true(teachers: Teachers, x: Any, multi_label: bool, kept: np.ndarray) -> bool:
    places = np.unique(np.linspace(0, len(kept) - 1, _PROBES).astype(int))
    parts, begin = [], 0
    for inputs, _ in batches(x, "x"):
        end = begin + len(leaves(inputs)[0])
        rows = places[(places >= begin) & (places < end)] - begin
        parts += [_told(teachers, sliced(inputs, rows), multi_label)] if len(rows) else []
        begin = end
    told, known = np.concatenate(parts), kept[places]
    near = _CLOSE * max(1.0, float(np.abs(known).max(initial=0.0)))
    return told.shape == known.shape and np.allclose(told, known, 0.0, near)


def _checked_path(file: str | os.PathLike[str]) -> pathlib.Path:
    if not isinstance(file, (str, os.PathLike)) or pathlib.Path(file).suffix != ".npz":
        raise ValueError(f"file must be a path that ends in .npz, got {file!r}")
    return pathlib.Path(file)


def _save(path: pathlib.Path, outputs: np.ndarray, fingerprint: str) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, outputs=outputs, fingerprint=np.array(fingerprint))
    write_atomically(path, buffer.getvalue())


def _load(path: pathlib.Path) -> tuple[np.ndarray, str]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["outputs"], str(file["fingerprint"])
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"file must be free, or hold a teacher's outputs, got {str(path)!r}, which can't be "
            f"read as such: {error}"
        ) from error
