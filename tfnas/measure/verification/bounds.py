"""How far a file's outputs may be from those of its Keras model."""

from __future__ import annotations

import dataclasses
import math
from typing import TypedDict

from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_weights import read_kernels


class OutputErrors(TypedDict):
    """The errors of an output, as in an `OutputCheck`."""

    relative: float
    largest: float
    absolute: float
    changed: float | None


@dataclasses.dataclass(frozen=True)
class Bound:
    """The largest errors of an output that a verification accepts.

    Example:
        >>> Bound(relative=0.01).excesses({"relative": 0.02, "largest": 0.02, "changed": 0.0})
        ('relative',)

    Args:
        relative: Root mean square of the difference, as a fraction of the root mean square of
            Keras' outputs.
        largest: Largest difference of a number, as a fraction of Keras' largest output.
        changed: Fraction of the examples whose class (argmax) is another one; of outputs of shape
            (examples, classes).
        extreme: `relative` and `largest` of extreme inputs, which lie outside of what integers
            were calibrated with.

    Raises:
        ValueError: A bound is not a number of at least 0.
    """

    relative: float = math.inf
    largest: float = math.inf
    changed: float = 1.0
    extreme: float = math.inf

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not value >= 0:
                raise ValueError(f"{field.name} must be a number of at least 0, got {value!r}")

    def __str__(self) -> str:
        named = {"relative": self.relative, "largest": self.largest, "changed": self.changed}
        shown = [f"{name} {value:g}" for name, value in named.items() if value < math.inf]
        if self.extreme < math.inf:
            shown.append(f"{self.extreme:g} at the ends of ranges")
        return ", ".join(shown)

    def limits(self, extreme: bool = False) -> dict[str, float]:
        """Returns the bounds by the names of the errors.

        Args:
            extreme: Whether they are those of extreme inputs.
        """
        if extreme:
            return {"relative": self.extreme, "largest": self.extreme}
        return {"relative": self.relative, "largest": self.largest, "changed": self.changed}

    def excesses(self, errors: OutputErrors, extreme: bool = False) -> tuple[str, ...]:
        """Returns the names of the errors that are above their bounds.

        Args:
            errors: The errors.
            extreme: Whether the inputs were extreme.
        """
        found = {name: errors[name] for name in ("relative", "largest", "changed")}
        return tuple(
            name
            for name, limit in self.limits(extreme).items()
            if (error := found[name]) is not None and not error <= limit  # NaN is above every bound
        )


# By the format of the file. Floats round at the 7th digit, and a network adds that up; integers are
# off by what a step of 1 in 255 (or 15, or 65,535) is, which no conversion can avoid. At the ends
# of ranges integers clip what was not calibrated, by as much with any number of bits.
DEFAULT_BOUNDS = {
    "float32": Bound(1e-4, 1e-4, 0.001, 1e-4),
    "float16": Bound(5e-3, 1e-2, 0.01, 2e-2),
    "dynamic": Bound(0.05, 0.1, 0.02, 0.2),
    "weights8": Bound(0.05, 0.1, 0.02, 0.2),
    "int4": Bound(0.3, 0.5, 0.1, 1.0),
    "weights4": Bound(0.3, 0.5, 0.1, 1.0),
    "int8": Bound(0.1, 0.25, 0.03, 1.0),
    "int8x4": Bound(0.3, 0.5, 0.1, 1.0),
    "int16x8": Bound(0.05, 0.1, 0.02, 1.0),
}


def format_of(artifact: Artifact) -> str:
    """Returns the mode of :class:`tfnas.QuantSpec` that a file's tensors have.

    A file that begins or ends in 8 bits is one of 8 bits: normalizations and recurrent layers have
    16 inside it.

    Example:
        >>> from tfnas.measure.latency import reference_artifact
        >>> format_of(reference_artifact())
        'int8'

    Args:
        artifact: A file of any origin.
    """
    graph = artifact.graph
    outputs = [tensor for op in graph.operators for tensor in op.outputs if tensor.zero_points]
    activations = {tensor.dtype for tensor in outputs if tensor.constant is None}
    weights = {kernel.tensor.dtype for kernel in read_kernels(artifact)}
    four_bits = bool(weights & {"int4", "int2"})
    eight_bits = {"int8", "uint8"}
    ends = {tensor.dtype for tensor in (*artifact.inputs, *artifact.outputs)}
    if "int16" in activations and not ends & eight_bits:
        return "int16x8"
    if activations & eight_bits:
        return "int8x4" if four_bits else "int8"
    if four_bits:
        return "int4"
    if weights & {"int8", "uint8"}:
        return "dynamic"
    return "float16" if "float16" in weights else "float32"
