"""Targets and weights of `fit`: read from any data, checked before training, split by output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.distillation import batch_checks
from tfnas.distillation.losses import is_sparse
from tfnas.distillation.output_kinds import CLASSES, INDEPENDENT, VALUES, as_values, kind_by_targets
from tfnas.distillation.output_losses import OutputLoss
from tfnas.distillation.output_structure import OutputStructure, described

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import Tensor, Tensors

Shape = tuple[int | None, ...]
_FEW = 100  # numbers that may all lie between 0 and 1 by chance


def split_targets(
    y: Tensors | None, structure: OutputStructure, with_teacher: bool
) -> tuple[list[Any], list[Any]]:
    """Splits targets into (labels, teacher's outputs), each with one entry for each output.

    Args:
        y: The targets.
        structure: The student's outputs.
        with_teacher: Whether they may hold cached outputs of a teacher.

    Returns:
        Lists with None for what is missing.

    Raises:
        ValueError: They are neither labels nor an allowed pair.
    """
    nothing: list[Any] = [None] * len(structure)
    if y is None:
        return nothing, nothing
    if with_teacher and is_pair(y, structure):
        labels, teacher = y
        named = "the teacher's outputs in y"
        return (
            nothing if labels is None else structure.by_output(labels, "y"),
            nothing if teacher is None else structure.by_output(teacher, named),
        )
    if structure.container is None:
        y = _only_array(y, structure, with_teacher)
    return structure.by_output(y, "y"), nothing


def is_pair(y: Tensors | None, structure: OutputStructure) -> bool:
    """Whether targets are (labels, teacher's outputs), for a student whose teacher is left out.

    Args:
        y: The targets.
        structure: The student's outputs. Where they are a list of two, two arrays are labels.
    """
    if not isinstance(y, (list, tuple)) or len(y) != 2:
        return False
    if structure.container in (list, tuple) and len(structure) == 2:
        return any(isinstance(part, (list, tuple, Mapping)) for part in y)
    return True


def weights_by_output(
    sample_weight: Tensors | None, structure: OutputStructure, pairs: bool
) -> list[Any]:
    """Returns the sample weights of each output; None where all are 1.

    Args:
        sample_weight: One array for all outputs, or one for each of them.
        structure: The student's outputs.
        pairs: Whether targets are (labels, teacher's outputs): Keras repeats weights for both.
    """
    if sample_weight is None:
        return [None] * len(structure)
    repeated = pairs or structure.container is None
    if repeated and isinstance(sample_weight, (list, tuple)) and len(sample_weight) == 2:
        first = sample_weight[0]
        if structure.container is None or not hasattr(first, "shape"):
            sample_weight = first
    if hasattr(sample_weight, "shape"):
        return [sample_weight] * len(structure)
    return structure.by_output(sample_weight, "sample_weight")


def shared_weight(weights: Sequence[Any]) -> Any:
    """Returns sample weights for losses that are of no output: the mean over the outputs.

    Args:
        weights: Those of each output, (batch, ...); None where all are 1.
    """
    if len(weights) == 1 or all(weight is None for weight in weights):
        return weights[0]
    flat = []
    for weight in weights:
        if weight is not None:
            weight = keras.ops.convert_to_tensor(weight, "float32")
            axes = tuple(range(1, len(weight.shape)))
            flat.append(keras.ops.mean(weight, axes) if axes else weight)
    return sum(flat[1:], flat[0]) / len(flat)


def unknown_kind(
    output: OutputLoss, targets: Tensor | None, shape: Sequence[int | None] | None
) -> str:
    """Returns the message of the refusal of an output whose kind nothing says.

    Args:
        output: The output.
        targets: Its targets.
        shape: Its shape.
    """
    seen = "there are no targets that could say"
    if targets is not None:
        dtype = getattr(targets, "dtype", None)
        name = getattr(dtype, "name", dtype)
        seen = f"targets of {name} {tuple(targets.shape)} may be either"
    return (
        f"outputs must say the kind of the output {output.name!r} of shape {shape}, got None: "
        f"without a softmax or sigmoid at its end, and without a loss that student or teacher was "
        f"compiled with, it may be logits of classes or a regression, and {seen}. Give outputs="
        f"'regression', 'logits' or 'sigmoid_logits', or student_loss=, or compile the student "
        f"with its loss before"
    )


def resolved(
    outputs: Sequence[OutputLoss], shapes: Sequence[Any], labels: Sequence[Any]
) -> list[OutputLoss]:
    """Returns outputs whose kinds are known, those of linear ones by their targets.

    Args:
        outputs: The outputs.
        shapes: Shape of each.
        labels: Targets of each; None where there are none.

    Raises:
        ValueError: The kind of one is still unknown.
    """
    found = []
    for output, shape, targets in zip(outputs, shapes, labels, strict=True):
        if output.is_known:
            found.append(output)
            continue
        kind = kind_by_targets(targets, shape)
        if kind is None:
            raise ValueError(unknown_kind(output, targets, shape))
        found.append(output.with_kind(kind))
    return found


def check_targets(output: OutputLoss, labels: Tensor | None, shape: Shape | None) -> None:
    """Checks targets of one output before training.

    Within a step TensorFlow's error would only name an operation of its graph.

    Args:
        output: The output; its kind is known.
        labels: Its targets; only the shape is checked of what is no array.
        shape: Its shape; None: unknown.

    Raises:
        ValueError: Targets do not fit the output, or hold numbers that it can't have.
    """
    if labels is None or getattr(labels, "shape", None) is None:
        return
    ranked = getattr(labels.shape, "rank", 0) is not None and len(labels.shape) > 0
    if shape is not None and ranked and output.student_loss is None and output.is_of_classes:
        batch_checks.check_labels(labels, keras.KerasTensor(shape), output.multi_label)
    elif shape is not None and ranked and output.family == VALUES:
        batch_checks.check_values(labels, keras.KerasTensor(shape), output.name)
    values = as_values(labels)
    if values is None or values.size == 0:
        return
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(
            f"y must hold finite numbers for the output {output.name!r}, got "
            f"{int((~np.isfinite(values)).sum())} that are NaN or infinite"
        )
    if output.student_loss is None:
        _check_range(output, values, shape)


def check_cached(output: OutputLoss, teacher: Tensor | None) -> None:
    """Checks a teacher's outputs that were computed before, where they should be logits.

    Args:
        output: The output; its kind is known.
        teacher: The teacher's outputs, (examples, ..., classes); only arrays are checked.

    Raises:
        ValueError: They are not finite, or look like probabilities.
    """
    values = as_values(teacher)
    if values is None or values.size == 0:
        return
    if not np.isfinite(values).all():
        raise ValueError("the teacher's outputs in y must be finite, got NaN or infinity")
    if not output.compares_logits or values.min() < 0 or values.max() > 1:
        return
    if output.multi_label:
        doubtful = values.size >= _FEW and bool(((values > 0) & (values < 1)).any())
    else:
        doubtful = np.abs(values.sum(-1, dtype=np.float64) - 1).max() < 1e-3
    if doubtful:
        raise ValueError(
            f"the teacher's outputs in y must be logits for the output {output.name!r} of kind "
            f"{output.kind!r}, as tfnas.teacher_outputs returns them, got numbers from "
            f"{values.min():g} to {values.max():g} like probabilities: give "
            "teacher_gives='probabilities', or 'logits' if they are, or outputs='regression'"
        )


def class_weights(
    output: OutputLoss, labels: Tensor | None, shape: Shape | None, weight: Mapping[int, float]
) -> np.ndarray:
    """Turns `class_weight` into one weight for each example, or for each position of a sequence.

    Args:
        output: The only output; its kind is known.
        labels: Its labels: class indices, one-hot rows, or 0 and 1 of one unit.
        shape: Its shape; None: unknown.
        weight: Class index -> weight; 1 for classes that are missing.

    Returns:
        (examples, ...) of float32.

    Raises:
        ValueError: The output has no classes of which one is true, or labels are no array.
    """
    values = as_values(labels)
    if values is None:
        raise ValueError(
            "class_weight must come with arrays of labels, or of (labels, outputs) where teacher "
            f"is None, got {described(labels)}: use sample_weight, one for each example"
        )
    one_unit = shape is not None and shape[-1] == 1
    if output.family != CLASSES and not (output.family == INDEPENDENT and one_unit):
        raise ValueError(
            f"class_weight must be left out unless one of several classes is true, got it for the "
            f"output {output.name!r} of kind {output.kind!r}: use sample_weight"
        )
    rank = values.ndim if shape is None else len(shape)
    if values.ndim == rank and values.shape[-1] == 1:
        values = values[..., 0]
    elif values.ndim == rank and values.ndim > 1:
        values = values.argmax(-1)
    weights = np.ones(values.shape, np.float32)
    for index, factor in weight.items():
        weights[np.round(values) == index] = factor
    return weights


def _only_array(y: Any, structure: OutputStructure, with_teacher: bool) -> Any:
    """Returns the targets of a student of one output, which may come in a dictionary of one."""
    if isinstance(y, Mapping) and set(y) == set(structure.names):
        return y[structure.names[0]]
    if isinstance(y, (list, tuple)) and len(y) == 1:
        y = y[0]
    if isinstance(y, (list, tuple)) and len(y) == 2 and all(hasattr(part, "shape") for part in y):
        raise ValueError(
            f"y must be one array of labels, got a {type(y).__name__} of two: (labels, teacher's "
            "outputs) is for a Distiller whose teacher is left out"
        )
    if not hasattr(y, "shape"):
        pair = " or (labels, teacher's outputs)" if with_teacher else ""
        raise ValueError(f"y must be one array of labels{pair}, got a {type(y).__name__}")
    return y


def _check_range(output: OutputLoss, values: np.ndarray, shape: Shape | None) -> None:
    low, high = values.min(), values.max()
    if output.multi_label and not 0 <= low <= high <= 1:
        raise ValueError(
            "y must hold numbers from 0 to 1 where classes are independent (one unit or a "
            f"sigmoid), got {low} to {high}"
        )
    if output.family != CLASSES or shape is None or shape[-1] is None:
        return
    sparse = is_sparse(values, np.empty((0,) * (len(shape) - 1) + (shape[-1],)))
    if sparse and not 0 <= low <= high < shape[-1]:
        raise ValueError(
            f"y must hold class indices from 0 to {shape[-1] - 1} for a student of {shape[-1]} "
            f"classes, got {low} to {high}"
        )
