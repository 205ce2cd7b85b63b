"""What of a teacher's inside a student learns: two layers, a way to compare them, a weight.

Layers go by name ("block3_add") or, in nested models, also by path ("backbone/block3_add").
Each kind adds `weight` times its mean over the batch to the distiller's loss.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from tfnas.distillation import feature_distances
from tfnas.distillation.output_checks import check_number

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Two layers that are compared; see its kinds below.

    Args:
        student: Name or path of the student's layer.
        teacher: Name or path of the teacher's layer.
        weight: What the distance is multiplied by, above 0.
        of: Number of the teacher where there are several, from 0.
    """

    student: str
    teacher: str
    weight: float = 1.0
    of: int = 0

    def __post_init__(self) -> None:
        for what in ("student", "teacher"):
            if not isinstance(getattr(self, what), str):
                raise ValueError(f"{what} must be the name of a layer, got {getattr(self, what)!r}")
        check_number("weight", self.weight, low=0.0, outside={0.0})
        if not isinstance(self.of, int) or isinstance(self.of, bool) or self.of < 0:
            raise ValueError(f"of must be the number of a teacher, from 0, got {self.of!r}")

    def check(self, student: Shape, teacher: Shape) -> None:
        """Raises ValueError where activations of these shapes can't be compared."""

    def projection(self, student: Shape, teacher: Shape) -> Any:
        """Returns a layer for the student's activations that is trained too, or None."""
        return None

    def distance(self, student: Any, teacher: Any) -> Any:
        """Returns one value an example, (n,)."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Transfer:
        """Returns one with these arguments."""
        return cls(**config)

    def _refuse(self, student: Shape, teacher: Shape, rule: str) -> None:
        raise ValueError(
            f"features must compare layers that {rule}, got {self.student!r} with {student} and "
            f"{self.teacher!r} with {teacher}"
        )


@keras.saving.register_keras_serializable("tfnas")
@dataclasses.dataclass(frozen=True)
class FeatureHint(Transfer):
    """The student's activations, projected, shall equal the teacher's.

    The projection is a linear map of channels that is trained along and then thrown away. A
    student that was made from the teacher, as by :func:`tfnas.prune_channels`, and still has
    all channels there needs none.

    Example:
        >>> import keras, tfnas
        >>> def model(units):
        ...     middle = keras.layers.Dense(units, "relu", name="middle")
        ...     return keras.Sequential([keras.Input((8,)), middle, keras.layers.Dense(3)])
        >>> hint = tfnas.FeatureHint("middle", "middle", weight=0.1)
        >>> distiller = tfnas.Distiller(model(16), model(4), features=[hint])

    Args:
        student: Name or path of the student's layer, (n, ..., channels).
        teacher: Name or path of the teacher's layer, of the same rank; maps (n, height, width,
            channels) may differ in size.
        weight: What the mean squared difference is multiplied by, above 0.
        of: Number of the teacher where there are several, from 0.
        project: Whether there is a projection. Without, the channels must be as many.

    Raises:
        ValueError: An argument is outside its rule.

    References:
        Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015.
    """

    project: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.project, bool):
            raise ValueError(f"project must be True or False, got {self.project!r}")

    def check(self, student: Shape, teacher: Shape) -> None:
        """Raises ValueError where activations of these shapes can't be compared."""
        if len(student) < 2 or student[-1] is None or teacher[-1] is None:
            self._refuse(student, teacher, "have channels of a known number on the last axis")
        if not self.project and student[-1] != teacher[-1]:
            self._refuse(student, teacher, "have as many channels where project is False")
        _check_places(self, student, teacher)

    def projection(self, student: Shape, teacher: Shape) -> Any:
        """Returns the linear map of channels, built, or None."""
        if not self.project:
            return None
        layer = Projection(teacher[-1] or 0, dtype="float32")
        layer.build(student)
        return layer

    def distance(self, student: Any, teacher: Any) -> Any:
        """Returns one value an example, (n,)."""
        return feature_distances.hint_distance(student, teacher)


@keras.saving.register_keras_serializable("tfnas")
@dataclasses.dataclass(frozen=True)
class AttentionTransfer(Transfer):
    """The student shall look where the teacher looks.

    Example:
        >>> import keras, tfnas
        >>> def model(filters):
        ...     maps = [keras.layers.Conv2D(filters, 3, name="maps"), keras.layers.Flatten()]
        ...     return keras.Sequential([keras.Input((8, 8, 1)), *maps, keras.layers.Dense(3)])
        >>> attention = tfnas.AttentionTransfer("maps", "maps", weight=10)
        >>> distiller = tfnas.Distiller(model(16), model(4), features=[attention])

    Args:
        student: Name or path of the student's layer, (n, ..., channels) with at least one
            axis of places, such as the maps of a convolution.
        teacher: Name or path of the teacher's layer, of the same rank; maps (n, height, width,
            channels) may differ in size.
        weight: What the squared distance, in [0, 2], is multiplied by, above 0.
        of: Number of the teacher where there are several, from 0.

    Raises:
        ValueError: An argument is outside its rule.

    References:
        Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017.
    """

    def check(self, student: Shape, teacher: Shape) -> None:
        """Raises ValueError where activations of these shapes can't be compared."""
        if len(student) < 3:
            self._refuse(student, teacher, "give maps (n, places, channels) for attention")
        _check_places(self, student, teacher)

    def distance(self, student: Any, teacher: Any) -> Any:
        """Returns one value an example, (n,)."""
        return feature_distances.attention_distance(student, teacher)


@keras.saving.register_keras_serializable("tfnas")
@dataclasses.dataclass(frozen=True)
class RelationalTransfer(Transfer):
    """Examples shall lie to each other as they do in the teacher: distances and angles.

    The layers need nothing in common. Examples are compared within a batch, on each replica.

    Example:
        >>> import keras, tfnas
        >>> def model(units):
        ...     middle = keras.layers.Dense(units, "relu", name="middle")
        ...     return keras.Sequential([keras.Input((8,)), middle, keras.layers.Dense(3)])
        >>> relations = tfnas.RelationalTransfer("middle", "middle", angles=0)
        >>> distiller = tfnas.Distiller(model(16), model(4), features=[relations])

    Args:
        student: Name or path of the student's layer, (n, ...).
        teacher: Name or path of the teacher's layer, (n, ...).
        weight: What both parts together are multiplied by, above 0.
        of: Number of the teacher where there are several, from 0.
        distances: Weight of the distances, from 0 on.
        angles: Weight of the angles, from 0 on; their memory grows with the cube of the
            batch, and 0 leaves them out.

    Raises:
        ValueError: An argument is outside its rule.

    References:
        Park et al., "Relational Knowledge Distillation", CVPR 2019.
    """

    distances: float = 1.0
    angles: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("distances", self.distances, low=0.0)
        check_number("angles", self.angles, low=0.0)
        if not self.distances and not self.angles:
            raise ValueError("distances or angles must be above 0, got 0 for both")

    def distance(self, student: Any, teacher: Any) -> Any:
        """Returns one value an example, (n,)."""
        total: Any = 0.0
        if self.distances:
            total += self.distances * feature_distances.distance_relations(student, teacher)
        if self.angles:
            total += self.angles * feature_distances.angle_relations(student, teacher)
        return total


@keras.saving.register_keras_serializable("tfnas")
class Projection(keras.layers.Layer):
    """A linear map of channels.

    Its weight is not named "kernel": to prune or cluster it would be for nothing, as it is
    no part of the student.

    Args:
        units: Number of channels that it gives.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Shape) -> None:
        """Makes the weights."""
        self.projection = self.add_weight((input_shape[-1], self.units), name="projection")
        self.offset = self.add_weight((self.units,), "zeros", name="offset")

    def call(self, inputs: Any) -> Any:
        """Returns the inputs with `units` channels."""
        return keras.ops.matmul(inputs, self.projection) + self.offset

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "units": self.units}


def _check_places(transfer: Transfer, student: Shape, teacher: Shape) -> None:
    if len(student) != len(teacher):
        transfer._refuse(student, teacher, "have the same rank")
    differ = student[1:-1] != teacher[1:-1]
    if differ and (len(student) != 4 or None in (*student[1:-1], *teacher[1:-1])):
        transfer._refuse(student, teacher, "agree in all but their channels, or are 2-D maps")
