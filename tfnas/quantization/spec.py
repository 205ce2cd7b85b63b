"""Number formats of a model, in one record for training and for export.

The name of a mode is short for a :class:`QuantSpec`; every function that takes a mode takes a
specification too.

| mode     | weights | activations | calibration data |
|----------|---------|-------------|------------------|
| float32  | float32 | float32     | no               |
| float16  | float16 | float32     | no               |
| dynamic  | int8    | float32     | no               |
| int4     | int4    | float32     | no               |
| weights8 | int8    | float32     | no               |
| weights4 | int4    | float32     | no               |
| int8     | int8    | int8        | yes              |
| int8x4   | int4    | int8        | yes              |
| int16x8  | int8    | int16       | yes              |

With float activations, an operator with integer weights either quantizes its inputs at run time
("dynamic", "int4"), or its weights are dequantized to floats before use ("weights8", "weights4",
`weight_only`). Where TFLite has no 4-bit kernel, as for depthwise convolutions with float
activations, weights have 8 bits instead.

A quantization-aware model (:func:`tfnas.quantize_aware`) contains its ranges and needs no
calibration data.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfnas.runtime.argument_rules import near

_MODES = {
    "float32": ("float32", "float32", False),
    "float16": ("float16", "float32", False),
    "dynamic": ("int8", "float32", False),
    "int4": ("int4", "float32", False),
    "weights8": ("int8", "float32", True),
    "weights4": ("int4", "float32", True),
    "int8": ("int8", "int8", False),
    "int8x4": ("int4", "int8", False),
    "int16x8": ("int8", "int16", False),
}
MODES = tuple(_MODES)
_BITS = {"int4": 4, "int8": 8, "int16": 16}
RANGES = ("moving_average", "percentile", "mse", "learned")
ROUNDINGS = ("nearest", "second_order")
RECURRENT = ("loop", "fused")
DENSE_SCALES = ("per_tensor", "per_channel")
FLOAT = "float32"
_ALL = "*"


@dataclasses.dataclass(frozen=True)
class QuantSpec:
    """Number formats of weights and activations, and how the ranges are found.

    Example:
        >>> QuantSpec.of("int8").needs_calibration
        True
        >>> QuantSpec(layers={"block_*": "int4"}).weight_bits("block_1", "Conv2D")
        4

    Args:
        weights: "float32", "float16", "int8" or "int4".
        activations: "float32", "int16" or "int8"; also the format of the file's inputs
            and outputs.
        layers: Formats of single layers: a dictionary from a layer's name, a name pattern or a
            layer class to "int8", "int4" (of its weights) or "float32": the layer stays float.
            The first match counts: `{"Dense": "int8", "*": "float32"}` quantizes Dense layers
            only. With integer activations a layer without a kernel can stay float too, also by
            the name of its activation function: `{"LayerNormalization": "float32", "gelu":
            "float32"}`; "*" alone stands for the layers with kernels.
        ranges: How the ranges of activations are found. By calibration data: "moving_average"
            takes the least and the largest number, "percentile" leaves `100 - percentile` of the
            numbers out at either end (the end is at most 0.4% further out than that of the sorted
            numbers), "mse" takes the range of least squared error. In training the first two are
            moving averages over batches, "mse" holds the range, and "learned" ranges follow the
            gradient; without calibration data the last two begin with the first batch's extremes.
        momentum: Momentum of the moving average, in [0, 1).
        percentile: In (50, 100); for "percentile".
        correct: Whether post-training conversion to integer activations applies
            :func:`tfnas.correct_bias`. Training ignores it.
        rounding: How post-training conversion rounds weights: "nearest", each to the nearest
            step of its grid; "second_order", so that the layer's output on the calibration data
            changes least, with the scales and biases that go with it (some hundred unlabeled
            examples, no training). It needs integer activations. Training ignores it.
        eight_bit_share: Where weights of 4 bits are rounded otherwise than to nearest: the
            largest share of them, in [0, 1], that keeps 8 bits. Depthwise convolutions, the first
            and the last layer come first, then those that 4 bits hurt most per weight. 0.08 adds
            8% to the weights in the file, 1 gives all of them 8 bits.
        state_bits: Bits of the numbers inside of a recurrent layer's steps, 16 or 8, where
            activations have 8. With 16 far fewer answers change; with 8 the steps are faster
            in LiteRT, whose kernels of 16 bits are slow. 8 goes with `recurrent="loop"` alone.
        recurrent: The form of recurrent layers with 8-bit activations: "loop", operators of one
            step that are run for each; "fused", TFLite's operator for an LSTM of Keras' standard
            activations without a mask. It makes files smaller, and faster in TFLite Micro, but
            slower in LiteRT on x86. It keeps a state: the file takes a batch of 1 where the model
            leaves it open, and an application resets the state before each sequence, as tfnas does.
            Other recurrent layers stay loops.
        residual_bits: Bits of the sums of residual branches that a normalization reads, 16 or 8,
            where activations have 8. 16 is for transformers, with
            `tfnas.smooth_activations(model, data, residual=True)` before it: a few channels of
            their sums are far larger than the others. It costs some bytes and time a sum. A
            quantization-aware model that was made with 16 keeps them in any int8 file.
        dense_scales: Scales of the kernels of Dense and EinsumDense layers, those inside of
            attention too: "per_tensor", one for the kernel; "per_channel", one for each output
            channel, as convolutions have: these layers become convolutions of size 1. It is for
            kernels whose channels differ in size, as in transformers, and costs some bytes a
            channel. A quantization-aware model keeps the scales that it was made with.
        weight_only: With float activations, whether operators dequantize their weights and
            compute in floats: as accurate as the weights allow, no faster than floats.

    Raises:
        ValueError: An argument is invalid, or no mode has this combination of formats.
    """

    weights: str = "int8"
    activations: str = "int8"
    layers: Mapping[Any, str] | Sequence[tuple[Any, str]] = ()
    ranges: str = "moving_average"
    momentum: float = 0.99
    percentile: float = 99.99
    weight_only: bool = False
    correct: bool = False
    rounding: str = "nearest"
    eight_bit_share: float = 0.08
    state_bits: int = 16
    recurrent: str = "loop"
    residual_bits: int = 8
    dense_scales: str = "per_tensor"

    def __post_init__(self) -> None:
        formats = self.weights, self.activations, self.weight_only
        if not all(isinstance(f, str | int) for f in formats) or formats not in _MODES.values():
            pairs = ", ".join(dict.fromkeys(f"{w}/{a}" for w, a, _ in _MODES.values()))
            raise ValueError(
                f"weights/activations must be one of {pairs} (weight_only with integer weights "
                f"and float activations alone), got {self.weights}/{self.activations}, "
                f"weight_only={self.weight_only}"
            )
        if not isinstance(self.correct, bool):
            raise ValueError(f"correct must be True or False, got {self.correct!r}")
        if self.correct and self.activations == FLOAT:
            raise ValueError(f"correct goes with integer activations, got {self.activations!r}")
        if self.rounding not in ROUNDINGS:
            raise ValueError(
                f"rounding must be one of {', '.join(ROUNDINGS)}, got {self.rounding!r}"
            )
        if self.rounds and self.activations == FLOAT:
            raise ValueError(
                f"rounding {self.rounding!r} goes with integer activations, got "
                f"{self.activations!r}"
            )
        if not (_is_number(self.eight_bit_share) and 0.0 <= self.eight_bit_share <= 1.0):
            raise ValueError(f"eight_bit_share must be in [0, 1], got {self.eight_bit_share!r}")
        if self.residual_bits not in (8, 16) or isinstance(self.residual_bits, float):
            raise ValueError(f"residual_bits must be 8 or 16, got {self.residual_bits!r}")
        if self.residual_bits > 8 and self.activations == FLOAT:
            raise ValueError(
                f"residual_bits 16 goes with integer activations, got {self.activations!r}"
            )
        if self.dense_scales not in DENSE_SCALES:
            raise ValueError(
                f"dense_scales must be one of {', '.join(DENSE_SCALES)}, got {self.dense_scales!r}"
            )
        if self.has_channel_scales and self.activations == FLOAT:
            raise ValueError(
                f"dense_scales 'per_channel' goes with integer activations, got "
                f"{self.activations!r}"
            )
        self._check_recurrent()
        object.__setattr__(self, "layers", _pairs(self.layers))
        if not isinstance(self.ranges, str) or self.ranges not in RANGES:
            raise ValueError(f"ranges must be one of {', '.join(RANGES)}, got {self.ranges!r}")
        if not (_is_number(self.momentum) and 0.0 <= self.momentum < 1.0):
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum!r}")
        if not (_is_number(self.percentile) and 50.0 < self.percentile < 100.0):
            raise ValueError(f"percentile must be in (50, 100), got {self.percentile!r}")

    def _check_recurrent(self) -> None:
        if self.state_bits not in (8, 16) or isinstance(self.state_bits, float):
            raise ValueError(f"state_bits must be 8 or 16, got {self.state_bits!r}")
        if self.recurrent not in RECURRENT:
            raise ValueError(
                f"recurrent must be one of {', '.join(RECURRENT)}, got {self.recurrent!r}"
            )
        if self.recurrent == "fused" and self.activations != "int8":
            raise ValueError(
                f"recurrent 'fused' goes with int8 activations, got {self.activations!r}"
            )
        if self.recurrent == "fused" and self.state_bits != 16:
            raise ValueError(
                "state_bits must be 16 with recurrent 'fused', whose operator chooses its own "
                f"bits, got state_bits={self.state_bits}, recurrent={self.recurrent!r}"
            )

    @classmethod
    def of(cls, mode: str | QuantSpec) -> QuantSpec:
        """Returns the specification of a mode; a specification is returned unchanged.

        Example:
            >>> QuantSpec.of("int8x4").weights
            'int4'

        Args:
            mode: Name of a mode, or a specification.

        Returns:
            The specification.

        Raises:
            ValueError: The mode is unknown.
        """
        if isinstance(mode, QuantSpec):
            return mode
        if not isinstance(mode, str) or mode not in _MODES:
            raise ValueError(f"mode must be one of {', '.join(_MODES)}, got {mode!r}")
        weights, activations, weight_only = _MODES[mode]
        return cls(weights, activations, weight_only=weight_only)

    @property
    def mode(self) -> str:
        """The mode's name.

        Example:
            >>> QuantSpec("int4", "int8").mode
            'int8x4'

        Returns:
            A name of the module's table.
        """
        formats = self.weights, self.activations, self.weight_only
        return next(mode for mode, known in _MODES.items() if known == formats)

    @property
    def rounds(self) -> bool:
        """Whether weights are rounded otherwise than to nearest.

        Example:
            >>> QuantSpec(rounding="second_order").rounds
            True

        Returns:
            False for "nearest".
        """
        return self.rounding != "nearest"

    @property
    def widens_sums(self) -> bool:
        """Whether sums of residual branches have more bits than other activations.

        Example:
            >>> QuantSpec(residual_bits=16).widens_sums
            True

        Returns:
            False for 16-bit activations, whose sums have 16 bits anyway.
        """
        return self.residual_bits > self.activation_bits

    @property
    def has_channel_scales(self) -> bool:
        """Whether kernels of Dense layers have a scale for each output channel.

        Example:
            >>> QuantSpec(dense_scales="per_channel").has_channel_scales
            True

        Returns:
            False for one scale.
        """
        return self.dense_scales == "per_channel"

    @property
    def needs_calibration(self) -> bool:
        """Whether post-training conversion needs calibration data.

        Example:
            >>> QuantSpec.of("dynamic").needs_calibration
            False

        Returns:
            True for integer activations.
        """
        return self.activations != "float32"

    @property
    def activation_bits(self) -> int:
        """Bits of an activation; 32 for float activations.

        Example:
            >>> QuantSpec.of("int16x8").activation_bits
            16

        Returns:
            8, 16 or 32.
        """
        return _BITS.get(self.activations, 32)

    def weight_bits(
        self, name: str, kind: str, path: str | None = None, origin: str | None = None
    ) -> int | None:
        """Returns the bits of a layer's weights, None where it stays float.

        Example:
            >>> spec = QuantSpec(layers={"head": "float32"})
            >>> spec.weight_bits("conv", "Conv2D"), spec.weight_bits("head", "Dense")
            (8, None)

        Args:
            name: The layer's name.
            kind: Name of its class.
            path: Name in the original model, such as "outer/conv" in a nested one. None: `name`.
            origin: Class in the original model, such as "SeparableConv2D" for its depthwise
                part. None: `kind`.

        Returns:
            4, 8 or None.
        """
        entry = self.entry_of((name, kind), (path or name, origin or kind))
        return _BITS.get(self.weights if entry is None else entry[1])

    def entry_of(self, *identities: tuple[str, str]) -> tuple[Any, str] | None:
        """Returns the entry of `layers` that counts for a layer; None where none matches.

        Args:
            *identities: The layer's names, each with the name of its class.
        """
        for pattern, value in self.layers:
            if any(_matches(pattern, *identity) for identity in identities):
                return pattern, value
        return None

    def leaves_float(self, *names: str | None) -> bool:
        """Returns whether a layer without a kernel stays float.

        Example:
            >>> spec = QuantSpec(layers={"LayerNormalization": "float32"})
            >>> spec.leaves_float("norm_1", "LayerNormalization")
            True

        Args:
            *names: The layer's name, its class, and other names that it goes by: its path in a
                nested model, the name of its activation function.

        Returns:
            Whether the first item of `layers` that matches one of them says "float32". "*" alone
            stands for the layers with kernels.
        """
        known = [name for name in names if name]
        for pattern, value in self.layers:
            if pattern != _ALL and any(_matches(pattern, name, name) for name in known):
                return value == FLOAT
        return False

    def check_patterns(
        self,
        layers: Iterable[tuple[str, str]],
        others: Iterable[tuple[str | None, ...]] = (),
        opened: Iterable[str] = (),
    ) -> None:
        """Checks that each item of `layers` matches one of these layers.

        Example:
            >>> QuantSpec(layers={"conv*": "int4"}).check_patterns([("conv_1", "Conv2D")])

        Args:
            layers: Pairs (name, class name) of the layers with kernels.
            others: Names of the others, as for :meth:`leaves_float`.
            opened: Names of layers that became several of these; errors suggest them.

        Raises:
            ValueError: An item matches none of them, or gives integers to a layer without a
                kernel.
        """
        known, beside = list(layers), [name for names in others for name in names if name]
        for pattern, value in self.layers:
            if value == FLOAT and any(_matches(pattern, name, name) for name in beside):
                continue
            if not any(_matches(pattern, name, kind) for name, kind in known):
                kernels = [name for name, _ in known]
                allowed = list(dict.fromkeys(kernels + beside if value == FLOAT else kernels))
                raise ValueError(
                    f"layers must name layers{'' if value == FLOAT else ' with a kernel'}, got "
                    f"{pattern!r}, which matches none of {', '.join(allowed[:20])}"
                    f"{', ...' if len(allowed) > 20 else ''}{near(pattern, [*allowed, *opened])}"
                )


def _pairs(layers: Any) -> tuple[tuple[str, str], ...]:
    are_pairs = isinstance(layers, tuple | list) and all(
        isinstance(item, tuple | list) and len(item) == 2 for item in layers
    )
    if not isinstance(layers, Mapping) and not are_pairs:
        raise ValueError(f"layers must be a dictionary name -> format, got {layers!r}")
    items = layers.items() if isinstance(layers, Mapping) else layers
    pairs = tuple(
        (pattern.__name__ if isinstance(pattern, type) else str(pattern), str(value))
        for pattern, value in items
    )
    for pattern, value in pairs:
        if value not in ("int4", "int8", FLOAT):
            raise ValueError(
                f"layers must map to int8, int4 or float32, got {pattern!r}: {value!r}"
            )
    return pairs


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _matches(pattern: str, name: str, kind: str) -> bool:
    parts = (name, *name.split("/"))
    return pattern == kind or any(fnmatch.fnmatchcase(part, pattern) for part in parts)
