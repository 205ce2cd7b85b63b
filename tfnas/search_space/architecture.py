"""Descriptions of networks of the MobileNetV2 family.

An :class:`Architecture` holds all that is needed to build a network: the shape of the raw input, a
stem, a sequence of stages (:class:`BlockSpec`) and a head. It is frozen, hashable, and checked when
it is created. This module imports no TensorFlow, so that architectures are cheap to search, store
and compare.

Architectures with equal fields are equal and have the same :attr:`Architecture.key`, in every
process and in every version of tfnas.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from tfnas.search_space.block_spec import FUSED_INVERTED_RESIDUAL, IDENTITY, BlockSpec
from tfnas.search_space.compression import Compression
from tfnas.search_space.field_checks import set_float, set_int, set_shape
from tfnas.search_space.input_sizes import fitted_strides, image_shape
from tfnas.search_space.json_records import check_keys, parse_json_object


def scale_filters(filters: int, multiplier: float, divisor: int = 8) -> int:
    """Scales a number of filters and rounds it to a multiple of `divisor`.

    Example:
        >>> scale_filters(24, 0.35)
        8

    Args:
        filters: Number of filters at width 1.0.
        multiplier: Width multiplier.
        divisor: Divisor of the result.

    Returns:
        The nearest multiple of `divisor`, at least `divisor`, and never more than
        10% below `filters * multiplier`.

    References:
        Sandler et al., "MobileNetV2", CVPR 2018, and its reference implementation.
    """
    exact = filters * multiplier
    rounded = max(divisor, int(exact + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * exact else rounded


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The complete description of a network of the MobileNetV2 family.

    Example:
        >>> arch = Architecture((32, 32, 3), 10, stages=(BlockSpec(filters=16),))
        >>> Architecture.from_json(arch.to_json()) == arch
        True

    Args:
        input_shape: (height, width, channels) of an image, or (steps, channels) of a series. A
            series is an image of height 1, see :attr:`image_shape`.
        num_classes: Number of outputs.
        stages: The stages between stem and head, at least one.
        resolution: (height, width) in pixels that the network works at; the model resizes its
            input if it differs. None: that of `input_shape`, and for a series.
        width_multiplier: Scales the filters of stem and stages.
        stem_filters: Filters of the first 3x3 convolution at width 1.0.
        stem_stride: Stride of the first convolution, 1 or 2.
        head_filters: Filters of the last 1x1 convolution; scaled by a
            `width_multiplier` above 1, but never reduced, as in the paper.
        dropout: Rate of the dropout before the classifier, in [0, 1).
        compression: How the network is compressed before its conversion; None: unspecified.
        include_rescaling: Whether the network scales pixels from 0 to 255 to [-1, 1] itself; False:
            values go in as they are. None: True for an image, False for a series.

    Raises:
        ValueError: A field is outside its rule; the message names the field.

    References:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
        CVPR 2018, table 2.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    stages: tuple[BlockSpec, ...]
    resolution: tuple[int, int] | None = None
    width_multiplier: float = 1.0
    stem_filters: int = 32
    stem_stride: int = 2
    head_filters: int = 1280
    dropout: float = 0.0
    compression: Compression | None = None
    include_rescaling: bool | None = None

    def __post_init__(self) -> None:
        set_shape(self, "input_shape", 2, 3)
        self._set_resolution()
        if self.include_rescaling is None:
            object.__setattr__(self, "include_rescaling", not self.is_series)
        if not isinstance(self.include_rescaling, bool):
            raise ValueError(
                f"include_rescaling must be True, False or None, got {self.include_rescaling!r}"
            )
        set_int(self, "num_classes", minimum=1)
        set_int(self, "stem_filters", minimum=1)
        set_int(self, "head_filters", minimum=1)
        set_int(self, "stem_stride", minimum=1, maximum=2)
        set_float(self, "width_multiplier", above=0.0)
        set_float(self, "dropout", at_least=0.0, below=1.0)
        if isinstance(self.stages, BlockSpec) or not isinstance(self.stages, Iterable):
            raise ValueError(f"stages must be a sequence of BlockSpec, got {self.stages!r}")
        object.__setattr__(self, "stages", tuple(self.stages))
        for index, stage in enumerate(self.stages):
            if not isinstance(stage, BlockSpec):
                raise ValueError(f"stages[{index}] must be a BlockSpec, got {stage!r}")
        if all(stage.kind == IDENTITY for stage in self.stages):
            raise ValueError(f"stages must hold at least one block, got {self.stages!r}")
        if self.compression is not None and not isinstance(self.compression, Compression):
            raise ValueError(f"compression must be a Compression, got {self.compression!r}")

    def _set_resolution(self) -> None:
        """Makes the resolution that of the input if it is None, and checks it."""
        if self.is_series:
            if self.resolution is not None:
                raise ValueError(f"resolution must be None for a series, got {self.resolution!r}")
            return
        if self.resolution is None:
            object.__setattr__(self, "resolution", self.image_shape[:2])
        set_shape(self, "resolution", 2)

    @property
    def is_series(self) -> bool:
        """Whether the input is a series, (steps, channels), and no image.

        Example:
            >>> mobilenet_v2((128, 9), 6).is_series
            True
        """
        return len(self.input_shape) == 2

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Returns (height, width, channels) of the input; of a series (1, steps, channels).

        Example:
            >>> mobilenet_v2((128, 9), 6).image_shape
            (1, 128, 9)
        """
        return image_shape(self.input_shape)

    @property
    def working_resolution(self) -> tuple[int, int]:
        """Returns (height, width) that the network works at, in pixels or steps; never None.

        Example:
            >>> mobilenet_v2((96, 64, 3), 10).working_resolution
            (96, 64)
        """
        return self.resolution or self.image_shape[:2]

    @property
    def key(self) -> str:
        """Returns a hash of 16 hexadecimal digits, equal for equal architectures.

        Example:
            >>> mobilenet_v2((32, 32, 3), 10).key
            '93eff45111ed14bc'

        Fields with their default value are left out of the hash, so that fields that are added in
        a later version do not change the keys of older architectures.
        """
        fields = _without_defaults(self)
        if self.include_rescaling is not self.is_series:  # the default of its kind of input
            del fields["include_rescaling"]
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def network(self) -> tuple[Any, ...]:
        """Returns the actual layer sizes, equal for architectures that build the same network.

        Example:
            >>> one = Architecture((8, 8, 1), 10, (BlockSpec(filters=16),), width_multiplier=0.25)
            >>> other = Architecture((8, 8, 1), 10, (BlockSpec(filters=24),), width_multiplier=0.25)
            >>> one == other, one.network == other.network
            (False, True)

        Several architectures can build one network, as filters are rounded to multiples of 8: at
        width 0.25 both 16 and 24 filters become 8.
        """
        width = self.width_multiplier
        stages = tuple(
            dataclasses.replace(stage, filters=scale_filters(stage.filters, width))
            for stage in self.stages
            if stage.kind != IDENTITY
        )
        stem, head = (
            scale_filters(self.stem_filters, width),
            scale_filters(self.head_filters, max(1.0, width)),
        )
        size = self.input_shape, self.working_resolution, self.num_classes, self.dropout
        network = (*size, self.include_rescaling, stem, self.stem_stride, stages, head)
        return network if self.compression is None else (*network, _without_gaps(self.compression))

    def to_dict(self) -> dict[str, Any]:
        """Returns the architecture as plain lists, dictionaries, strings and numbers.

        Example:
            >>> mobilenet_v2((32, 32, 3), 10).to_dict()["stages"][0]["filters"]
            16
        """
        return _to_plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Architecture:
        """Returns the architecture that :meth:`to_dict` described.

        Example:
            >>> arch = mobilenet_v2((32, 32, 3), 10)
            >>> Architecture.from_dict(arch.to_dict()) == arch
            True

        Args:
            fields: The dictionary.

        Raises:
            ValueError: A key is unknown or missing, or a value is wrong; the message names it.
        """
        check_keys(cls, fields)
        stages = fields["stages"]
        if not isinstance(stages, list | tuple):
            raise ValueError(f"stages must be a list, got {stages!r}")
        for stage in stages:
            check_keys(BlockSpec, stage)
        arguments = {**fields, "stages": tuple(BlockSpec(**stage) for stage in stages)}
        if arguments.get("compression") is not None:
            arguments["compression"] = Compression.from_dict(arguments["compression"])
        return cls(**arguments)

    def to_json(self, indent: int | None = None) -> str:
        """Returns the architecture as JSON text.

        Example:
            >>> mobilenet_v2((32, 32, 3), 10).to_json()[:28]
            '{"input_shape": [32, 32, 3],'

        Args:
            indent: Spaces a level; None: one line.
        """
        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Returns the architecture that :meth:`to_json` wrote.

        Example:
            >>> text = mobilenet_v2((32, 32, 3), 10).to_json()
            >>> Architecture.from_json(text).num_classes
            10

        Args:
            text: The text.

        Raises:
            ValueError: The text is no JSON object, a key is unknown or missing, or a value is
                wrong; the message names it.
        """
        return cls.from_dict(parse_json_object(text, "architecture"))

    def __str__(self) -> str:
        height, width = self.working_resolution
        size = f"{width} steps" if self.is_series else f"{height}x{width}"
        stages = " ".join(_stage_text(stage) for stage in self.stages)
        return (
            f"{size} x{self.width_multiplier:g} stem{self.stem_filters}s"
            f"{self.stem_stride} {stages} head{self.head_filters}"
            f"{'' if self.compression is None else f' ({self.compression})'}"
        )


def mobilenet_v2(
    input_shape: tuple[int, ...],
    num_classes: int,
    width_multiplier: float = 1.0,
    *,
    dropout: float = 0.1,
    include_rescaling: bool | None = None,
) -> Architecture:
    """Returns the architecture of MobileNetV2, with smaller strides for small images.

    At 224x224 it is table 2 of the paper. Below 64 pixels the stem has stride 1, and a stage has
    stride 2 only if its input has more than 4 pixels a side; so with the steps of a series. A side
    of an image that has no more than 4 does not count beside a longer one.

    Example:
        >>> mobilenet_v2((224, 224, 3), 1000).stages[1].stride
        2

    Args:
        input_shape: (height, width, channels) of an image, or (steps, channels) of a series.
        num_classes: Number of outputs.
        width_multiplier: Scales the filters of stem and stages.
        dropout: Rate of the dropout before the classifier.
        include_rescaling: As of :class:`Architecture`.

    References:
        Sandler et al., "MobileNetV2", CVPR 2018, table 2.
    """
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
    table += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    stem, strides = fitted_strides(tuple(input_shape)[:-1], [stride for *_, stride in table])
    stages = tuple(
        BlockSpec(filters=filters, repeats=repeats, stride=stride, expansion=expansion)
        for (expansion, filters, repeats, _), stride in zip(table, strides, strict=True)
    )
    return Architecture(
        tuple(input_shape),
        num_classes,
        stages,
        width_multiplier=width_multiplier,
        stem_stride=stem,
        dropout=dropout,
        include_rescaling=include_rescaling,
    )


def _without_gaps(compression: Compression) -> Compression:
    """A compression without the empty entries of identity stages."""
    kept = tuple(weights for weights in compression.stage_weights if weights)
    return dataclasses.replace(compression, stage_weights=kept)


def _stage_text(stage: BlockSpec) -> str:
    if stage.kind == IDENTITY:
        return "-"
    kind = "f" if stage.kind == FUSED_INVERTED_RESIDUAL else "i"
    stride = "s2" if stage.stride == 2 else ""
    return f"{stage.repeats}x{kind}{stage.filters}k{stage.kernel}e{stage.expansion}{stride}"


def _without_defaults(record: Any) -> Any:
    if isinstance(record, tuple):
        return [_without_defaults(item) for item in record]
    if not dataclasses.is_dataclass(record):
        return record
    return {
        field.name: _without_defaults(getattr(record, field.name))
        for field in dataclasses.fields(record)
        if getattr(record, field.name) != field.default
    }


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    return value
