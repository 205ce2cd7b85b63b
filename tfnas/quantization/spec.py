"""Which numbers a model computes with: one record for training and for export.

A mode's name is short for a :class:`QuantSpec`; whatever takes a mode takes a
specification too.

| mode    | weights | activations | calibration data |
|---------|---------|-------------|------------------|
| float32 | float32 | float32     | no               |
| float16 | float16 | float32     | no               |
| dynamic | int8    | float32     | no               |
| int8    | int8    | int8        | yes              |
| int16x8 | int8    | int16       | yes              |
"""

from __future__ import annotations

import dataclasses

_MODES = {
    "float32": ("float32", "float32"),
    "float16": ("float16", "float32"),
    "dynamic": ("int8", "float32"),
    "int8": ("int8", "int8"),
    "int16x8": ("int8", "int16"),
}
MODES = tuple(_MODES)


@dataclasses.dataclass(frozen=True)
class QuantSpec:
    """Number formats of weights and activations.

    Example:
        >>> QuantSpec.of("int8").needs_calibration
        True

    Args:
        weights: "float32", "float16" or "int8".
        activations: "float32", "int16" or "int8"; also the format of the file's inputs
            and outputs.

    Raises:
        ValueError: No mode has this pair of formats.
    """

    weights: str = "int8"
    activations: str = "int8"

    def __post_init__(self) -> None:
        if (self.weights, self.activations) not in _MODES.values():
            pairs = ", ".join(f"{w}/{a}" for w, a in _MODES.values())
            raise ValueError(
                f"weights/activations must be one of {pairs}, got {self.weights}/{self.activations}"
            )

    @classmethod
    def of(cls, mode: str | QuantSpec) -> QuantSpec:
        """Returns the specification that a mode's name stands for; a record as it is.

        Raises:
            ValueError: The mode is unknown.
        """
        if isinstance(mode, QuantSpec):
            return mode
        if not isinstance(mode, str) or mode not in _MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        return cls(*_MODES[mode])

    @property
    def mode(self) -> str:
        """The mode's name."""
        formats = self.weights, self.activations
        return next(mode for mode, pair in _MODES.items() if pair == formats)

    @property
    def needs_calibration(self) -> bool:
        """Whether the ranges of activations must be known before conversion."""
        return self.activations != "float32"
