"""The outputs of a model by name: one tensor, or a list or dictionary of them.

Targets, sample weights, losses and a teacher's outputs come in the same structure. Inside of
the package they are lists with one entry for each output, in the order of `names`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras

from tfnas.keras_private import functional_inside

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import LossesLike, Tensors


@dataclasses.dataclass(frozen=True)
class OutputStructure:
    """Names of a model's outputs, and what holds them.

    Example:
        >>> structure = OutputStructure(("a", "b"), dict)
        >>> structure.by_output({"b": 2, "a": 1}, "y")
        [1, 2]
        >>> structure.packed([1, 2])
        {'a': 1, 'b': 2}

    Args:
        names: Name of each output, in the order in which Keras flattens them.
        container: `dict`, `list` or `tuple`; None where the model returns one tensor.
    """

    names: tuple[str, ...]
    container: type | None = None

    def __len__(self) -> int:
        return len(self.names)

    def holds(self, nested: Any) -> bool:
        """Whether a value has one entry for each output."""
        if self.container is None:
            return not isinstance(nested, (list, tuple, Mapping))
        if isinstance(nested, Mapping):
            return set(nested) == set(self.names)
        return isinstance(nested, (list, tuple)) and len(nested) == len(self.names)

    def by_output(self, nested: Any, what: str) -> list[Any]:
        """Returns the entry of each output, in the order of `names`.

        Args:
            nested: One value where there is one output; else a dictionary by name, or, where the
                model returns a list, a list.
            what: Name of the argument, for the error message.

        Raises:
            ValueError: An entry is missing, or one belongs to no output.
        """
        if isinstance(nested, Mapping) and set(nested) == set(self.names):
            return [nested[name] for name in self.names]
        ordered = self.container in (list, tuple) or len(self.names) == 1
        if isinstance(nested, (list, tuple)) and ordered and len(nested) == len(self.names):
            return list(nested)
        if self.container is None and not isinstance(nested, (list, tuple, Mapping)):
            return [nested]
        names = ", ".join(self.names)
        raise ValueError(
            f"{what} must hold one entry for each output of the student, {names}, got "
            f"{described(nested)}{self._misfit(nested)}"
        )

    def _misfit(self, nested: Any) -> str:
        """Words on the first output that a dictionary leaves out, and on what to do about it."""
        if not isinstance(nested, Mapping):
            return ""
        missing = [name for name in self.names if name not in nested]
        if not missing:
            return f": {next(name for name in nested if name not in self.names)!r} is no output"
        return (
            f": nothing for {missing[0]!r}. Of some outputs alone, distil a student and a teacher "
            "that give these: keras.Model(model.input, {name: model.output[name]})"
        )

    def packed(self, values: Sequence[Any]) -> Any:
        """Returns one value for each output, in the structure of the model's outputs."""
        if self.container is None:
            return values[0]
        if self.container is dict:
            return dict(zip(self.names, values, strict=True))
        return self.container(values)


def structure_of(model: keras.Model, role: str) -> OutputStructure:
    """Returns the outputs of a functional or Sequential model.

    Args:
        model: A built model.
        role: "student" or "teacher", for messages.

    Raises:
        ValueError: Outputs are nested more deeply than a list or dictionary of tensors.
    """
    functional = functional_inside(model)
    outputs, names = functional.output, list(getattr(functional, "output_names", ()))
    if isinstance(outputs, (list, tuple)) and len(outputs) == 1:  # of a model from an .h5 file
        outputs = outputs[0]
    if isinstance(outputs, Mapping) and all(hasattr(part, "shape") for part in outputs.values()):
        return OutputStructure(tuple(keras.tree.flatten({key: key for key in outputs})), dict)
    if hasattr(outputs, "shape"):
        return OutputStructure((names[0] if names else "output",))
    if isinstance(outputs, (list, tuple)) and all(hasattr(part, "shape") for part in outputs):
        if len(set(names)) != len(outputs):  # a layer of two outputs
            names = [f"{name}_{number}" for number, name in enumerate(names)]
        return OutputStructure(tuple(names), list if isinstance(outputs, list) else tuple)
    raise ValueError(
        f"{role} must have one output tensor, or a list or dictionary of tensors, got "
        f"{described(outputs)} from {model.name!r}"
    )


def same_outputs(student: OutputStructure, teacher: OutputStructure) -> list[int]:
    """Returns for each output of the student the position of the teacher's.

    Outputs in dictionaries are matched by name, those in lists by position.

    Args:
        student: The student's outputs.
        teacher: The teacher's.

    Raises:
        ValueError: They do not match.
    """
    by_position = dict not in (student.container, teacher.container) or len(student) == 1
    if by_position and len(student) == len(teacher):
        return list(range(len(student)))
    if set(student.names) == set(teacher.names):
        return [teacher.names.index(name) for name in student.names]
    raise ValueError(
        f"teacher must have the student's outputs, {', '.join(student.names)}, got "
        f"{', '.join(teacher.names)}"
    )


def subclassed_structure(outputs: LossesLike | None) -> OutputStructure:
    """Returns the outputs of a model whose graph is unknown, as the argument `outputs` says."""
    if isinstance(outputs, Mapping):
        return OutputStructure(tuple(keras.tree.flatten({key: key for key in outputs})), dict)
    if isinstance(outputs, (list, tuple)):
        names = tuple(f"output_{number}" for number in range(len(outputs)))
        return OutputStructure(names, type(outputs))
    return OutputStructure(("output",))


def given_by_output(value: Any, structure: OutputStructure, argument: str) -> list[Any]:
    """Returns an argument for each output: one for all, a list, or a dictionary of some of them.

    Args:
        value: The argument.
        structure: The student's outputs.
        argument: Its name, for the error message.

    Raises:
        ValueError: It names an output that does not exist, or has another length.
    """
    if isinstance(value, Mapping) and not ("class_name" in value and "config" in value):
        if unknown := [str(name) for name in value if name not in structure.names]:
            raise ValueError(
                f"{argument} must name outputs of the student, {', '.join(structure.names)}, got "
                f"{unknown[0]!r}"
            )
        return [value.get(name) for name in structure.names]
    if isinstance(value, (list, tuple)):
        if len(value) != len(structure):
            raise ValueError(
                f"{argument} must have one entry for each output of the student, "
                f"{', '.join(structure.names)}, got {described(value)}"
            )
        return list(value)
    return [value] * len(structure)


def flat(outputs: Tensors, structure: OutputStructure, model: keras.Model, role: str) -> list[Any]:
    """Returns the output tensors of a call of a model, in the order of `structure.names`.

    Args:
        outputs: What the model returned.
        structure: What its outputs should be.
        model: The model, for messages.
        role: "student" or "teacher", for messages.

    Raises:
        ValueError: They are not as in `structure`, which a subclassed model may do.
    """
    if structure.container is None:
        outputs = only(outputs)
    if structure.holds(outputs):
        return structure.by_output(outputs, "outputs")
    if structure.container is None:
        raise ValueError(
            f"{role} must have one output tensor, got {described(outputs)} from {model.name!r}: "
            "outputs must say what each one is where the class of the student is your own"
        )
    raise ValueError(
        f"{role} must return the outputs {', '.join(structure.names)}, as outputs says, got "
        f"{described(outputs)} from {model.name!r}"
    )


def only(outputs: Tensors) -> Any:
    """Unwraps a list of one output, which a model from an `.h5` file may return."""
    return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs


def described(nested: Any) -> str:
    """Returns a few words on a value, for messages."""
    if isinstance(nested, Mapping):
        return f"a dict of {len(nested)}: {', '.join(map(str, nested))}"
    if isinstance(nested, (list, tuple)):
        return f"a {type(nested).__name__} of {len(nested)}"
    shape = getattr(nested, "shape", None)
    return f"a {type(nested).__name__}" + (f" {tuple(shape)}" if shape is not None else "")
