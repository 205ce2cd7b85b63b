"""The layers of a search space that are the same in all of its networks."""

from __future__ import annotations

import dataclasses
import numbers

from tfnas.search_space.field_checks import set_float, set_int


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedLayers:
    """The layers of a :class:`tfnas.MobileNetV2Space` that are not searched.

    Example:
        >>> import tfnas
        >>> fixed = tfnas.FixedLayers(stem_filters=8, head_filters=32)
        >>> space = tfnas.MobileNetV2Space((28, 28, 1), 10, fixed=fixed)
        >>> space.fixed.head_filters
        32

    Args:
        stem_filters: Filters of the first convolution at width 1.0; None: those of the preset.
        stem_stride: Stride of the first convolution, 1 or 2; None: 2 for images of at least 64
            pixels a side and series of at least 64 steps, else 1.
        head_filters: Filters of the last convolution; None: those of the preset.
        dropout: Rate of the dropout before the classifier, in [0, 1).
        batchnorm_momentum: Momentum of all BatchNormalization layers, in [0, 1). With the default
            the statistics settle within 50 steps, also in a short training.

    Raises:
        ValueError: A field is outside its rule; the message names it.
    """

    stem_filters: int | None = None
    stem_stride: int | None = None
    head_filters: int | None = None
    dropout: float = 0.1
    batchnorm_momentum: float = 0.9

    def __post_init__(self) -> None:
        for name, maximum in (("stem_filters", None), ("stem_stride", 2), ("head_filters", None)):
            if getattr(self, name) is not None:
                set_int(self, name, minimum=1, maximum=maximum)
        set_float(self, "dropout", at_least=0.0, below=1.0)
        momentum = self.batchnorm_momentum
        is_number = isinstance(momentum, numbers.Real) and not isinstance(momentum, bool)
        if not is_number or not 0.0 <= momentum < 1.0:
            raise ValueError(f"batchnorm_momentum must be in [0, 1), got {momentum!r}")
