"""What an output of a model means, and what says so.

| kind | the student's output | loss on labels | loss on the teacher's output |
| --- | --- | --- | --- |
| softmax | probabilities of one class | cross-entropy | T^2 KL(teacher / T, student / T) |
| logits | logits of one class | the same | the same |
| sigmoid | a probability for each class | binary cross-entropy | T^2 KL for each class |
| sigmoid_logits | a logit for each class | the same | the same |
| regression | numbers | MSE, or the loss it was compiled with | the same |

The kind is taken from, in this order: the argument `outputs`; `student_gives` and
`multi_label`; the loss of the student (`student_loss`, or the one that it was compiled with);
the loss that the teacher was compiled with; the last activation. A linear output without a loss
may be logits or a regression. Then targets decide: class indices and one-hot rows are classes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.distillation.output_structure import OutputStructure
from tfnas.runtime.argument_rules import near

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import LossesLike, LossLike

CLASSES = "classes"  # one of several classes: softmax
INDEPENDENT = "independent"  # a yes or no for each class: sigmoid
VALUES = "values"  # numbers: regression
KINDS = {
    "softmax": CLASSES,
    "logits": CLASSES,
    "sigmoid": INDEPENDENT,
    "sigmoid_logits": INDEPENDENT,
    "regression": VALUES,
}
PROBABILITIES = ("softmax", "sigmoid")
CROSSENTROPY = ("crossentropy", "ce")  # Keras chooses one by the shapes

_FAMILIES = {
    "mean_squared_error": VALUES,
    "mean_absolute_error": VALUES,
    "mean_absolute_percentage_error": VALUES,
    "mean_squared_logarithmic_error": VALUES,
    "huber": VALUES,
    "log_cosh": VALUES,
    "cosine_similarity": VALUES,
    "poisson": VALUES,
    "categorical_crossentropy": CLASSES,
    "sparse_categorical_crossentropy": CLASSES,
    "categorical_focal_crossentropy": CLASSES,
    "binary_crossentropy": INDEPENDENT,
    "binary_focal_crossentropy": INDEPENDENT,
}
# Cross-entropies that tfnas computes itself, from logits.
_PLAIN = {
    "categorical_crossentropy": CLASSES,
    "sparse_categorical_crossentropy": CLASSES,
    "binary_crossentropy": INDEPENDENT,
}
_TOLERANCE = 1e-3  # of the sum of a one-hot or soft row


@dataclasses.dataclass(frozen=True)
class LossFacts:
    """What a Keras loss says about the output that it is for.

    Args:
        family: CLASSES, INDEPENDENT or VALUES; None: unknown.
        from_logits: Whether it takes logits; None: unknown, or it does not matter.
        plain_family: The family of a cross-entropy without further options; None: another loss.
        label_smoothing: Fraction of the label that is spread over all classes.
    """

    family: str | None = None
    from_logits: bool | None = None
    plain_family: str | None = None
    label_smoothing: float = 0.0


def family_of(kind: str | None) -> str | None:
    """Returns CLASSES, INDEPENDENT or VALUES; None for an unknown kind."""
    return None if kind is None else KINDS[kind]


def loss_facts(loss: LossLike | None, units: int | None = None) -> LossFacts:
    """Returns what a loss says about its output.

    Example:
        >>> loss_facts("mse").family, loss_facts("binary_crossentropy").from_logits
        ('values', False)

    Args:
        loss: A Keras loss, its name, a function, or None.
        units: Size of the output's last axis; None: unknown.
    """
    if isinstance(loss, str) and loss.lower() in CROSSENTROPY:
        loss = "binary_crossentropy" if units == 1 else "categorical_crossentropy"
    if loss is None or not (isinstance(loss, str) or callable(loss)):
        return LossFacts()
    loss = keras.losses.get(loss)
    name = _keras_name(loss)
    family = _FAMILIES.get(name)
    if family in (None, VALUES):
        return LossFacts(family)
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    usual = {"axis": -1, "ignore_class": None, "reduction": "sum_over_batch_size"}
    plain = all(config.get(key, value) == value for key, value in usual.items())
    own = isinstance(loss, keras.losses.Loss) and not _is_of_keras(type(loss))
    return LossFacts(
        family,
        bool(config.get("from_logits", False)),
        _PLAIN.get(name) if plain and not own else None,
        float(config.get("label_smoothing", 0.0)),
    )


def losses_by_output(loss: LossesLike | None, structure: OutputStructure) -> list[Any]:
    """Returns the loss of each output; None where there is none.

    Args:
        loss: As in `keras.Model.compile`: one loss for all outputs, a list or a dictionary.
        structure: The model's outputs.
    """
    if isinstance(loss, Mapping) and not ("class_name" in loss and "config" in loss):
        return [loss.get(name) for name in structure.names]
    if isinstance(loss, (list, tuple)):
        fits = len(loss) == len(structure)
        return list(loss) if fits else [None] * len(structure)
    return [loss] * len(structure)


def compiled_losses(model: keras.Model, structure: OutputStructure) -> list[Any]:
    """Returns the loss of each output that a model was compiled with; None where there is none."""
    compiled = getattr(model, "compiled", False)
    return losses_by_output(getattr(model, "loss", None) if compiled else None, structure)


def check_kind(kind: str) -> None:
    """Raises ValueError for a word that is neither a kind nor the name of a Keras loss."""
    if kind in KINDS:
        return
    try:
        keras.losses.get(kind)
    except ValueError:
        raise ValueError(
            f"outputs must be one of {', '.join(KINDS)}, or a loss of teacher's and student's "
            f"outputs, got {kind!r}{near(kind, KINDS)}"
        ) from None


def kind_name(family: str, probabilities: bool) -> str:
    """Returns the kind of a family.

    Args:
        family: CLASSES, INDEPENDENT or VALUES.
        probabilities: Whether the output holds probabilities rather than logits.
    """
    names = {CLASSES: ("logits", "softmax"), INDEPENDENT: ("sigmoid_logits", "sigmoid")}
    return "regression" if family == VALUES else names[family][probabilities]


def family_by_evidence(
    losses: Iterable[LossFacts], activations: Sequence[str | None]
) -> str | None:
    """Returns the family that losses and last activations say; None: they say nothing.

    Of classes, the activation decides which kind they are: it is how the numbers were made.

    Args:
        losses: Of the student, then of the teachers.
        activations: "softmax", "sigmoid" or None, in the same order.
    """
    known = next((facts.family for facts in losses if facts.family), None)
    if known == VALUES:
        return VALUES
    last = next((name for name in activations if name), None)
    if last:
        return INDEPENDENT if last == "sigmoid" else CLASSES
    return known


def kind_by_targets(targets: Any, shape: Sequence[int | None] | None) -> str | None:
    """Returns the kind of a linear output by its targets: logits, or None for no certainty.

    Args:
        targets: An array, a tensor or a `tf.TensorSpec`, (batch, ...).
        shape: The output's shape, (batch, ..., classes).

    Returns:
        "logits" for class indices and for rows that sum up to 1; "sigmoid_logits" for one unit
        with targets 0 and 1; "logits" also where the shapes do not fit, which later checks refuse.
    """
    if targets is None or shape is None or getattr(targets, "shape", None) is None:
        return None
    if getattr(targets.shape, "rank", 0) is None or shape[-1] is None:
        return None
    rank, last = len(targets.shape), targets.shape[-1] if len(targets.shape) else None
    values = as_values(targets)
    if shape[-1] == 1:
        binary = values is not None and bool(np.isin(values, (0, 1)).all())
        return "sigmoid_logits" if binary else None
    if rank == len(shape) and last == shape[-1]:
        return "logits" if values is not None and _sums_to_one(values) else None
    return "logits"


def as_values(targets: Any) -> np.ndarray | None:
    """Returns numbers as an array; None for a symbolic tensor, a specification or other things."""
    if not hasattr(targets, "__array__") or isinstance(targets, keras.KerasTensor):
        return None
    try:
        values = np.asarray(targets)
    except (NotImplementedError, TypeError, ValueError):  # a tensor of a graph
        return None
    return values if values.dtype.kind in "biuf" else None


def _sums_to_one(rows: np.ndarray) -> bool:
    if rows.size == 0 or not np.isfinite(rows).all() or rows.min() < 0:
        return False
    return bool(np.abs(rows.sum(-1, dtype=np.float64) - 1).max() < _TOLERANCE)


def _keras_name(loss: Any) -> str:
    """The function name of one of Keras' own losses, or of a subclass; "" for other ones."""
    if hasattr(loss, "function"):  # of our own LossOfFunction
        return _keras_name(loss.function)
    if isinstance(loss, keras.losses.Loss):
        own = next((c for c in type(loss).__mro__ if _is_of_keras(c)), type(loss))
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", own.__name__).lower()
    return getattr(loss, "__name__", "") if _is_of_keras(loss) else ""


def _is_of_keras(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).split(".")[0] == "keras"
