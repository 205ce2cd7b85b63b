"""Losses on intermediate activations: a pair of layers, a way to compare them, a weight.

Layers are given by name ("block3_add") or, in nested models, also by path
("backbone/block3_add"). Each loss adds `weight` times its mean over the batch to the
distiller's loss.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import tensorflow as tf

from tfnas.distillation import feature_distances
from tfnas.distillation.attention_taps import ActivationTap
from tfnas.distillation.output_checks import check_number

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import Tensor

Shape = tuple[int | None, ...]
_SIZES = "have as many queries and keys in both models"


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Base class: compares a layer of the student with one of the teacher.

    Args:
        student: Name or path of the student's layer.
        teacher: Name or path of the teacher's layer.
        weight: Factor of the distance, above 0.
        of: Index of the teacher where there are several, from 0.
    """

    student: str
    teacher: str
    weight: float = 1.0
    of: int = 0
    reads_maps: ClassVar[bool] = False  # the probabilities of attention, not a layer's output

    @property
    def student_tap(self) -> ActivationTap:
        """Where the student is read."""
        return ActivationTap(self.student, self.reads_maps)

    @property
    def teacher_tap(self) -> ActivationTap:
        """Where the teacher is read."""
        return ActivationTap(self.teacher, self.reads_maps)

    def __post_init__(self) -> None:
        for name in ("student", "teacher"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be the name of a layer, got {getattr(self, name)!r}")
        check_number("weight", self.weight, low=0.0, excluded={0.0})
        if not isinstance(self.of, int) or isinstance(self.of, bool) or self.of < 0:
            raise ValueError(f"of must be the index of a teacher, from 0, got {self.of!r}")

    def check(self, student: Shape, teacher: Shape) -> None:
        """Raises ValueError where activations of these shapes can't be compared."""

    def projection(self, student: Shape, teacher: Shape) -> keras.layers.Layer | None:
        """Returns a trainable layer that is applied to the student's activations first, or None."""
        return None

    def distance(self, student: Tensor, teacher: Tensor) -> Any:
        """Returns the distance of each example, (n,)."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Transfer:
        """Returns an object with these arguments."""
        return cls(**config)

    def _refuse(self, student: Shape, teacher: Shape, rule: str) -> None:
        raise ValueError(self._message(student, teacher, rule))

    def _message(self, student: Shape, teacher: Shape, rule: str) -> str:
        return (
            f"features must compare layers that {rule}, got {self.student!r} with {student} and "
            f"{self.teacher!r} with {teacher}"
        )


@keras.saving.register_keras_serializable("tfnas")
@dataclasses.dataclass(frozen=True)
class FeatureHint(Transfer):
    """Trains the student's activations, linearly projected, to equal the teacher's.

    The projection is a linear map of the channels; it is trained with the student and discarded
    afterwards. A student derived from the teacher, as by :func:`tfnas.prune_channels`, that
    still has all channels in this layer needs none.

    Example:
        >>> import keras, tfnas
        >>> def model(units):
        ...     middle = keras.layers.Dense(units, "relu", name="middle")
        ...     return keras.Sequential([keras.Input((8,)), middle, keras.layers.Dense(3)])
        >>> hint = tfnas.FeatureHint("middle", "middle", weight=0.1)
        >>> distiller = tfnas.Distiller(model(16), model(4), features=[hint])

    Args:
        student: Name or path of the student's layer, (n, ..., channels).
        teacher: Name or path of the teacher's layer, of the same rank; feature maps
            (n, height, width, channels) may differ in size.
        weight: Factor of the mean squared difference, above 0.
        of: Index of the teacher where there are several, from 0.
        project: Whether to project. If False, both layers must have the same number of channels.

    Raises:
        ValueError: An argument is invalid.

    References:
        Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015.
    """

    project: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.project, bool):
            raise ValueError(f"project must be True or False, got {self.project!r}")

    def check(self, student: Shape, teacher: Shape) -> None:
        """Checks that activations of these shapes can be compared.

        Example:
            >>> import numpy as np, tfnas
            >>> transfer = tfnas.FeatureHint("a", "b")
            >>> transfer.check((None, 4, 8), (None, 4, 16))

        Args:
            student: Shape of the student's activations, (None, ..., channels).
            teacher: Shape of the teacher's activations, (None, ..., channels).

        Raises:
            ValueError: They can't be compared.
        """
        if len(student) < 2 or student[-1] is None or teacher[-1] is None:
            self._refuse(student, teacher, "have a known number of channels on the last axis")
        if not self.project and student[-1] != teacher[-1]:
            self._refuse(
                student, teacher, "have the same number of channels where project is False"
            )
        _check_positions(self, student, teacher)

    def projection(self, student: Shape, teacher: Shape) -> keras.layers.Layer | None:
        """Returns the built projection, or None where `project` is False.

        Example:
            >>> import tfnas
            >>> tfnas.FeatureHint("a", "b").projection((None, 8), (None, 16)).units
            16

        Args:
            student: Shape of the student's activations, (None, ..., channels).
            teacher: Shape of the teacher's activations, (None, ..., channels).

        Returns:
            A layer from the student's channels to the teacher's, or None.
        """
        if not self.project:
            return None
        layer = Projection(teacher[-1] or 0, dtype="float32")
        layer.build(student)
        return layer

    def distance(self, student: Tensor, teacher: Tensor) -> Any:
        """Returns the distance of each example, (batch,).

        Example:
            >>> import numpy as np, tfnas
            >>> transfer = tfnas.FeatureHint("a", "b")
            >>> a, b = np.ones((2, 8), "float32"), np.ones((2, 8), "float32")
            >>> tuple(transfer.distance(a, b).shape)
            (2,)

        Args:
            student: The student's activations, (batch, ..., channels), projected where there is a
                projection.
            teacher: The teacher's activations, (batch, ..., channels).

        Returns:
            A float32 tensor (batch,).
        """
        return feature_distances.hint_distance(student, teacher)


@keras.saving.register_keras_serializable("tfnas")
@dataclasses.dataclass(frozen=True)
class AttentionTransfer(Transfer):
    """Trains the student's spatial attention maps to equal the teacher's.

    Example:
        >>> import keras, tfnas
        >>> def model(filters):
        ...     maps = [keras.layers.Conv2D(filters, 3, name="maps"), keras.layers.Flatten()]
        ...     return keras.Sequential([keras.Input((8, 8, 1)), *maps, keras.layers.Dense(3)])
        >>> attention = tfnas.AttentionTransfer("maps", "maps", weight=10)
        >>> distiller = tfnas.Distiller(model(16), model(4), features=[attention])

    Args:
        student: Name or path of the student's layer, (n, ..., channels) with at least one
            spatial or time axis, such as the feature maps of a convolution.
        teacher: Name or path of the teacher's layer, of the same rank; feature maps
            (n, height, width, channels) may differ in size.
        weight: Factor of the squared distance, which is in [0, 2]; above 0.
        of: Index of the teacher where there are several, from 0.

    Raises:
        ValueError: An argument is invalid.

    References:
        Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017.
    """

    def check(self, student: Shape, teacher: Shape) -> None:
        """Checks that activations of these shapes can be compared.

        Example:
            >>> import numpy as np, tfnas
            >>> transfer = tfnas.AttentionTransfer("a", "b")
            >>> transfer.check((None, 4, 4, 8), (None, 4, 4, 16))

        Args:
            student: Shape of the student's activations, (None, ..., channels).
            teacher: Shape of the teacher's activations, (None, ..., channels).

        Raises:
            ValueError: They can't be compared.
        """
        if len(student) < 3:
            self._refuse(
                student, teacher, "give feature maps (n, positions, channels) for attention"
            )
        _check_positions(self, student, teacher)

    def distance(self, student: Tensor, teacher: Tensor) -> Any:
        """Returns the distance of each example, (batch,).

        Example:
            >>> import numpy as np, tfnas
            >>> transfer = tfnas.AttentionTransfer("a", "b")
            >>> a, b = np.ones((2, 4, 4, 8), "float32"), np.ones((2, 4, 4, 16), "float32")
            >>> tuple(transfer.distance(a, b).shape)
            (2,)

        Args:
            student: The student's activations, (batch, ..., channels), projected where there is a
                projection.
            teacher: The teacher's activations, (batch, ..., channels).

        Returns:
            A float32 tensor (batch,).
        """
        return feature_distances.attention_distance(student, teacher)


@keras.saving.register_keras_serializable("tfnas")
@dataclasses.dataclass(frozen=True)
class AttentionMapTransfer(Transfer):
    """Trains the student's attention to look where the teacher's looks.

    It compares the probabilities of attention layers, by the divergence of the student's from the
    teacher's. Scores before the softmax say the same but for a number for each query, which the
    softmax takes out, and for places that a mask leaves out. :func:`tfnas.attention_map_transfers`
    makes one for each attention layer of a student. Keys that the student can't see don't count.

    Example:
        >>> import keras, tfnas
        >>> def model(heads):
        ...     x = inputs = keras.Input((6, 8))
        ...     x = keras.layers.MultiHeadAttention(heads, 4, name="look")(x, x)
        ...     return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
        >>> maps = tfnas.AttentionMapTransfer("look", "look", weight=0.1)
        >>> distiller = tfnas.Distiller(model(4), model(2), features=[maps])

    Args:
        student: Name or path of the student's MultiHeadAttention, GroupQueryAttention, Attention or
            AdditiveAttention, over one axis.
        teacher: Name or path of the teacher's, of as many queries and keys. Heads are compared one
            by one where both have as many, else their means.
        weight: Factor of the divergence, above 0.
        of: Index of the teacher where there are several, from 0.

    Raises:
        ValueError: An argument is invalid.

    References:
        Sun et al., "MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices",
        ACL 2020.
        Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", EMNLP 2020.
    """

    reads_maps: ClassVar[bool] = True

    def check(self, student: Shape, teacher: Shape) -> None:
        """Checks that attention of these shapes can be compared.

        Example:
            >>> import tfnas
            >>> transfer = tfnas.AttentionMapTransfer("a", "b")
            >>> transfer.check((None, 2, 6, 6), (None, 4, 6, 6))

        Args:
            student: Shape of the student's probabilities, (None, heads, queries, keys).
            teacher: Shape of the teacher's, (None, heads, queries, keys).

        Raises:
            ValueError: They can't be compared.
        """
        sizes = zip(student[2:], teacher[2:], strict=True)
        if any(None not in pair and pair[0] != pair[1] for pair in sizes):
            self._refuse(student, teacher, _SIZES)

    def distance(self, student: Tensor, teacher: Tensor) -> Any:
        """Returns the divergence of each example, (batch,).

        Example:
            >>> import numpy as np, tfnas
            >>> transfer = tfnas.AttentionMapTransfer("a", "b")
            >>> a, b = (np.full((5, heads, 6, 6), 1 / 6, "float32") for heads in (2, 4))
            >>> transfer.distance(a, b).numpy().tolist()
            [0.0, 0.0, 0.0, 0.0, 0.0]

        Args:
            student: The student's probabilities, (batch, heads, queries, keys).
            teacher: The teacher's, (batch, heads, queries, keys).

        Returns:
            A float32 tensor (batch,).

        Raises:
            ValueError: They differ in their queries or keys. Where only the batch tells how many
                there are, in a graph, it is a `tf.errors.InvalidArgumentError`.
        """
        ours, theirs = tuple(student.shape), tuple(teacher.shape)
        self.check(ours, theirs)
        if None in (*ours[2:], *theirs[2:]):
            same = tf.debugging.assert_equal(
                tf.shape(student)[2:],
                tf.shape(teacher)[2:],
                self._message(ours, theirs, _SIZES),
            )
            with tf.control_dependencies([] if same is None else [same]):
                student = tf.identity(student)
        return feature_distances.map_divergence(student, teacher)


@keras.saving.register_keras_serializable("tfnas")
@dataclasses.dataclass(frozen=True)
class RelationalTransfer(Transfer):
    """Trains distances and angles between the student's features to equal the teacher's.

    Examples are compared within a batch, on each replica, so the shapes of the two layers may
    differ in everything but the batch.

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
        weight: Factor of both parts together, above 0.
        of: Index of the teacher where there are several, from 0.
        distances: Weight of the distances, at least 0.
        angles: Weight of the angles, at least 0. Their memory grows with the cube of the batch
            size; 0 leaves them out.

    Raises:
        ValueError: An argument is invalid.

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

    def distance(self, student: Tensor, teacher: Tensor) -> Any:
        """Returns the distance of each example, (batch,).

        Example:
            >>> import numpy as np, tfnas
            >>> transfer = tfnas.RelationalTransfer("a", "b")
            >>> a, b = np.ones((2, 8), "float32"), np.ones((2, 16), "float32")
            >>> tuple(transfer.distance(a, b).shape)
            (2,)

        Args:
            student: The student's activations, (batch, ..., channels), projected where there is a
                projection.
            teacher: The teacher's activations, (batch, ..., channels).

        Returns:
            A float32 tensor (batch,).
        """
        total: Any = 0.0
        if self.distances:
            total += self.distances * feature_distances.distance_relations(student, teacher)
        if self.angles:
            total += self.angles * feature_distances.angle_relations(student, teacher)
        return total


@keras.saving.register_keras_serializable("tfnas")
class Projection(keras.layers.Layer):
    """A linear map of channels.

    Its weight is not named "kernel", so that it is neither pruned nor clustered: it is not part
    of the student.

    Args:
        units: Number of output channels.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Shape) -> None:
        """Creates the weights."""
        self.projection = self.add_weight((input_shape[-1], self.units), name="projection")
        self.offset = self.add_weight((self.units,), "zeros", name="offset")

    def call(self, inputs: Tensor) -> Any:
        """Returns the projected inputs, (..., units)."""
        return keras.ops.matmul(inputs, self.projection) + self.offset

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "units": self.units}


def _check_positions(transfer: Transfer, student: Shape, teacher: Shape) -> None:
    if len(student) != len(teacher):
        transfer._refuse(student, teacher, "have the same rank")
    differ = student[1:-1] != teacher[1:-1]
    if differ and (len(student) != 4 or None in (*student[1:-1], *teacher[1:-1])):
        transfer._refuse(student, teacher, "differ only in their channels, or are 2-D feature maps")
