"""The description of a stage of a network: one or more equal blocks."""

from __future__ import annotations

import dataclasses

from tfnas.search_space.field_checks import set_int

INVERTED_RESIDUAL = "inverted_residual"
FUSED_INVERTED_RESIDUAL = "fused_inverted_residual"
IDENTITY = "identity"
BLOCK_KINDS = (INVERTED_RESIDUAL, FUSED_INVERTED_RESIDUAL, IDENTITY)


@dataclasses.dataclass(frozen=True)
class BlockSpec:
    """A stage: `repeats` equal blocks, of which only the first one may have a stride.

    Example:
        >>> BlockSpec(filters=24, repeats=2, stride=2).expansion
        6

    Args:
        kind: "inverted_residual" (1x1 expansion, k x k depthwise, 1x1 projection),
            "fused_inverted_residual" (k x k expansion, 1x1 projection) or "identity" (no layers;
            see :meth:`identity`).
        filters: Output channels at width 1.0.
        repeats: Number of blocks.
        stride: Stride of the first block, 1 or 2.
        kernel: Height and width of the spatial kernel, odd; of a series its steps.
        expansion: Ratio of the channels inside a block to those of its input.

    Raises:
        ValueError: A field is outside its rule; the message names the field.

    References:
        Sandler et al., "MobileNetV2", CVPR 2018, section 3 (inverted residuals); Tan and Le,
        "EfficientNetV2", ICML 2021 (the fused block).
    """

    kind: str = INVERTED_RESIDUAL
    filters: int = 0
    repeats: int = 1
    stride: int = 1
    kernel: int = 3
    expansion: int = 6

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in BLOCK_KINDS:
            raise ValueError(f"kind must be one of {', '.join(BLOCK_KINDS)}, got {self.kind!r}")
        if self.kind == IDENTITY:
            for name, neutral in _IDENTITY_FIELDS.items():
                value = getattr(self, name)
                # A float or bool would be another JSON text, and so another key.
                if isinstance(value, bool | float) or value != neutral:
                    raise ValueError(
                        f"{name} of an identity stage must be {neutral}, "
                        f"got {value!r}: use BlockSpec.identity()"
                    )
                set_int(self, name, minimum=neutral)
            return
        for name in ("filters", "repeats", "expansion"):
            set_int(self, name, minimum=1)
        set_int(self, "stride", minimum=1, maximum=2)
        set_int(self, "kernel", minimum=1)
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")

    @classmethod
    def identity(cls) -> BlockSpec:
        """Returns a stage without layers, whose output is its input.

        Example:
            >>> BlockSpec.identity().kind
            'identity'
        """
        return cls(kind=IDENTITY, **_IDENTITY_FIELDS)


_IDENTITY_FIELDS = {"filters": 0, "repeats": 0, "stride": 1, "kernel": 0, "expansion": 0}
