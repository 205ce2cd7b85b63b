"""The compression of a network, as a value that a search can choose.

It imports no TensorFlow. :mod:`tfnas.compression.trial_compression` applies it.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

MODES = (
    "float32",
    "float16",
    "dynamic",
    "int4",
    "weights8",
    "weights4",
    "int8",
    "int8x4",
    "int16x8",
)
TRAINED_MODES = ("int8", "int8x4", "int16x8")  # modes with quantization-aware training
STAGED_MODES = ("dynamic", "weights8", "int8")  # modes that allow other weights in single layers
WEIGHTS = ("int8", "int4")


@dataclasses.dataclass(frozen=True)
class Compression:
    """The compression of a network before and during its conversion; by default there is none.

    Example:
        >>> print(Compression("int8", aware=True, sparsity=0.5, clusters=16))
        int8 trained, 50% zeros, 16 values
        >>> Compression("int8", sparsity=0.5).steps
        ('sparsity',)

    Args:
        mode: Number format of the file; see :func:`tfnas.to_tflite`.
        aware: Whether quantization-aware training is used; only with integer activations.
        stage_weights: Format of the weights of each stage, "int8" or "int4", "" for stages without
            weights; empty: that of the mode.
        sparsity: Fraction of the weights that are set to zero, in [0, 1).
        clusters: Largest number of distinct values of a kernel, at least 2; 0: no clustering.
        low_rank: Fraction of the multiply-accumulates that is left after low-rank factorization, in
            (0, 1]; 1: no factorization.
        distill: Whether a teacher's outputs are learned beside the labels.
        more: (name, amount) of further techniques; see
            :mod:`tfnas.compression.techniques.registry`.

    Raises:
        ValueError: A field is outside its rule; the message names it.
    """

    mode: str = "float32"
    aware: bool = False
    stage_weights: tuple[str, ...] = ()
    sparsity: float = 0.0
    clusters: int = 0
    low_rank: float = 1.0
    distill: bool = False
    more: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        for name in ("aware", "distill"):
            object.__setattr__(self, name, check_choice(name, getattr(self, name)))
        for name in ("sparsity", "clusters", "low_rank"):
            object.__setattr__(self, name, check_choice(name, getattr(self, name)))
        object.__setattr__(self, "stage_weights", tuple(self.stage_weights))
        object.__setattr__(self, "more", tuple((str(n), float(a)) for n, a in self.more))
        unknown = [w for w in self.stage_weights if w not in ("", *WEIGHTS)]
        if unknown:
            raise ValueError(f"stage_weights must hold int8, int4 or '', got {unknown[0]!r}")
        if self.aware and self.mode not in TRAINED_MODES:
            raise ValueError(
                f"aware needs one of the modes {', '.join(TRAINED_MODES)}, got {self.mode!r}"
            )
        if any(self.stage_weights) and self.mode not in STAGED_MODES:
            raise ValueError(
                f"stage_weights need one of the modes {', '.join(STAGED_MODES)}, got {self.mode!r}"
            )

    @property
    def steps(self) -> tuple[str, ...]:
        """Returns the fields that are applied after the training, in order.

        Each is followed by further training.

        Example:
            >>> Compression("int8", aware=True, low_rank=0.5).steps
            ('low_rank', 'aware')
        """
        active = {
            "low_rank": self.low_rank < 1,
            "sparsity": self.sparsity > 0,
            "clusters": self.clusters > 0,
            **dict.fromkeys(dict(self.more), True),
            "aware": self.aware,
        }
        return tuple(name for name, is_active in active.items() if is_active)

    @property
    def layer_weights(self) -> dict[str, str]:
        """Returns pattern of layer names -> format of their weights, where it is not the mode's.

        Example:
            >>> Compression("int8", stage_weights=("int8", "int4")).layer_weights
            {'stage2_*': 'int4'}
        """
        return {f"stage{i}_*": "int4" for i, w in enumerate(self.stage_weights, 1) if w == "int4"}

    def __str__(self) -> str:
        int4_stages = [str(i) for i, w in enumerate(self.stage_weights, 1) if w == "int4"]
        parts = [
            self.mode + " trained" * self.aware,
            f"4-bit weights in stage {' '.join(int4_stages)}" if int4_stages else "",
            f"low rank {self.low_rank:g}" if self.low_rank < 1 else "",
            f"{self.sparsity:.0%} zeros" if self.sparsity else "",
            f"{self.clusters} values" if self.clusters else "",
            *(f"{name} {amount:g}" for name, amount in self.more),
            "distilled" if self.distill else "",
        ]
        return ", ".join(filter(None, parts))

    def to_dict(self) -> dict[str, Any]:
        """Returns the compression as plain lists, strings and numbers.

        Example:
            >>> Compression("int8", sparsity=0.5).to_dict()["sparsity"]
            0.5
        """
        fields = {**dataclasses.asdict(self), "stage_weights": list(self.stage_weights)}
        more = [list(each) for each in fields.pop("more")]
        return {**fields, "more": more} if more else fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Compression:
        """Returns the compression that :meth:`to_dict` described.

        Example:
            >>> Compression.from_dict({"mode": "int8", "clusters": 16}).steps
            ('clusters',)

        Args:
            fields: The dictionary.

        Raises:
            ValueError: A key is unknown, or a value is wrong; the message names it.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, Mapping):
            raise ValueError(f"Compression must be a JSON object, got {fields!r}")
        if unknown := sorted(str(key) for key in set(fields) - known):
            raise ValueError(f"unknown key in Compression: {', '.join(unknown)}")
        return cls(**fields)


_DEFAULTS: dict[str, Any] = {"sparsity": 0.0, "clusters": 0, "low_rank": 1.0}
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "sparsity": (lambda value: 0 <= value < 1, "a number in [0, 1) or None"),
    "clusters": (
        lambda value: value == int(value) and (value == 0 or value >= 2),
        "a whole number >= 2, or 0 or None",
    ),
    "low_rank": (lambda value: 0 < value <= 1, "a number in (0, 1] or None"),
}


def check_choice(name: str, value: Any) -> Any:
    """Returns a value of a field of :class:`Compression` in the type of the field.

    Example:
        >>> check_choice("clusters", None), check_choice("sparsity", 0)
        (0, 0.0)

    Args:
        name: "aware", "sparsity", "clusters", "low_rank" or "distill".
        value: The value; None: the default, which doesn't compress.

    Raises:
        ValueError: The value is outside the rule of the field.
    """
    if name in ("aware", "distill"):
        if value not in (True, False):
            raise ValueError(f"{name} must be True or False, got {value!r}")
        return bool(value)
    value = _DEFAULTS[name] if value is None else value
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    holds, rule = _RULES[name]
    if not (real and math.isfinite(value) and holds(value)):
        raise ValueError(f"{name} must be {rule}, got {value!r}")
    return int(value) if name == "clusters" else float(value)
