"""Arguments of `fit`, checked before the training and turned into what Keras takes."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import keras

from tfnas.distillation import target_checks
from tfnas.distillation.output_kinds import as_values, kind_by_targets
from tfnas.distillation.training_objective import TrainingObjective


def fit_arguments(
    objective: TrainingObjective, x: Any, y: Any, args: Sequence[Any], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Returns the arguments of Keras' `fit` by name; the objective learns kinds from targets.

    Args:
        objective: The loss, whose open kinds are decided here.
        x: Argument of `fit`.
        y: Argument of `fit`.
        args: Its other arguments by position.
        kwargs: Its other arguments by name.

    Raises:
        ValueError: Nothing says what an output means, targets do not fit the outputs, or
            `class_weight` does not.
    """
    names = list(inspect.signature(keras.Model.fit).parameters)[3:]  # after self, x, y
    arguments = {**dict(zip(names, args, strict=False)), **kwargs}
    targets = _targets(x, y)
    labels, cached = objective.split(targets)
    _decide_kinds(objective, x, labels)
    _check(objective, labels, cached)
    validation = arguments.get("validation_data")
    if isinstance(validation, (tuple, list)) and len(validation) > 1:
        _check(objective, *objective.split(validation[1]))
    if arguments.get("class_weight") is not None:
        _take_class_weight(objective, labels, y, arguments)
    weights = arguments.get("sample_weight")
    if y is not None and objective.holds_pairs(y) and weights is not None:
        # Keras wants weights in the structure of targets, and repeats only those of examples.
        packed = objective.structure.packed(objective.weights_by_output(weights, y))
        y = tuple(objective.structure.packed(part) for part in (labels, cached))
        arguments["sample_weight"] = (packed, packed)
    return {"x": x, "y": y, **arguments}


def _targets(x: Any, y: Any) -> Any:
    """Targets: arrays, or the specification that a data set has of them; None: unknown."""
    if y is not None:
        return y
    spec = getattr(x, "element_spec", None)
    return spec[1] if isinstance(spec, tuple) and len(spec) > 1 else None


def _first_targets(x: Any) -> Any:
    """Targets of the first batch of a data set; None of a generator, which can't begin again."""
    if isinstance(x, keras.utils.PyDataset):
        batch = x[0]
    elif hasattr(x, "element_spec") and hasattr(x, "take"):
        batch = next(iter(x.take(1)), None)
    else:
        return None
    return batch[1] if isinstance(batch, (list, tuple)) and len(batch) > 1 else None


def _decide_kinds(objective: TrainingObjective, x: Any, labels: Sequence[Any]) -> None:
    """Takes the kinds of linear outputs without a loss from targets."""
    shapes, declared = objective.student.shapes, objective.declared
    columns = list(zip(declared, shapes, labels, strict=True))
    unclear = [
        output.name
        for output, shape, label in columns
        if not output.is_known and kind_by_targets(label, shape) is None
    ]
    if unclear and (first := _first_targets(x)) is not None:
        labels, _ = objective.split(first)
    # Targets that say nothing, as of a generator, leave the kinds of an earlier `fit`.
    before = [
        output if as_values(label) is not None else earlier
        for output, earlier, label in zip(declared, objective.outputs, labels, strict=True)
    ]
    objective.outputs = tuple(target_checks.resolved(before, shapes, labels))


def _check(objective: TrainingObjective, labels: Sequence[Any], cached: Sequence[Any]) -> None:
    columns = zip(objective.outputs, objective.student.shapes, labels, cached, strict=True)
    for output, shape, label, teacher in columns:
        target_checks.check_targets(output, label, shape)
        if not objective.teachers and objective.teachers.gives is None:
            target_checks.check_cached(output, teacher)


def _take_class_weight(
    objective: TrainingObjective, labels: Sequence[Any], y: Any, arguments: dict[str, Any]
) -> None:
    """Turns `class_weight` into sample weights, unless Keras does it right."""
    if len(labels) > 1:
        raise ValueError(
            "class_weight must be left out where the student has several outputs, "
            f"{', '.join(objective.structure.names)}, got one: use sample_weight, an array for each"
        )
    [output], [shape] = objective.outputs, objective.student.shapes
    positions = shape is not None and len(shape) > 2  # Keras knows one label for each example
    if y is None and objective.teachers and not positions and output.is_of_classes:
        return
    if arguments.get("sample_weight") is not None:
        raise ValueError("class_weight must come without sample_weight, got both")
    weight = arguments.pop("class_weight")
    arrays = None if y is None else labels[0]
    arguments["sample_weight"] = target_checks.class_weights(output, arrays, shape, weight)
