"""Shared weights of all networks of a :class:`tfnas.MobileNetV2Space`.

A member of the space uses the center of each kernel, its first channels, and the first blocks of
each stage. Inverted residuals and fused ones have weights of their own. What a member does not use
is not computed: channels are slices of dynamic size, blocks and kinds of blocks are branches of the
graph.

References:
    Cai et al., "Once-for-All", ICLR 2020 (centers of kernels, first channels and blocks); Yu et
    al., "BigNAS", ECCV 2020 (one training for all).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from tfnas.search_space.architecture import Architecture, scale_filters
from tfnas.search_space.block_spec import (
    FUSED_INVERTED_RESIDUAL,
    IDENTITY,
    INVERTED_RESIDUAL,
)
from tfnas.search_space.elastic import Statistics
from tfnas.search_space.elastic_convolution import ElasticConvolution
from tfnas.search_space.fixed_layers import FixedLayers
from tfnas.search_space.graph_branch import GraphBranch
from tfnas.search_space.input_sizes import image_shape
from tfnas.search_space.stage_choices import StageChoices

_KINDS = (INVERTED_RESIDUAL, FUSED_INVERTED_RESIDUAL, IDENTITY)  # their numbers in a vector
_NETWORK = ("height", "width", "stem", "head")  # the first numbers of a vector
_STAGE = ("kind", "repeats", "kernel", "expansion", "filters")  # then these of each stage


class SpaceOfStages(Protocol):
    """What an elastic network needs to know of a :class:`tfnas.MobileNetV2Space`."""

    input_shape: tuple[int, ...]
    include_rescaling: bool
    num_classes: int
    fixed: FixedLayers
    stages: tuple[StageChoices, ...]

    def choices_of(self, name: str) -> tuple[Any, ...]: ...


@dataclasses.dataclass(frozen=True)
class _StageChoice:
    """The choice of a member for a stage, as scalar tensors."""

    kind: Any
    repeats: Any
    kernel: Any
    expansion: Any
    filters: Any


class _ElasticBlock:
    """A block of one kind with the weights of its largest member."""

    def __init__(
        self,
        name: str,
        kind: str,
        stage: StageChoices,
        inputs: int,
        filters: int,
        *,
        first: bool,
        flat: bool,
    ) -> None:
        self.fused = kind == FUSED_INVERTED_RESIDUAL
        stride = stage.stride if first else 1
        hidden = inputs * max(stage.expansions)
        self.convolutions: dict[str, ElasticConvolution] = {}

        def add(part: str, *sizes: Any, **options: Any) -> None:
            path = f"{kind}_{name}_{part}"
            self.convolutions[part] = ElasticConvolution(path, *sizes, flat=flat, **options)

        if self.fused:
            add("fused", inputs, hidden, stage.kernels, stride=stride)
        else:
            if max(stage.expansions) > 1:
                add("expand", inputs, hidden)
            add("depthwise", hidden, None, stage.kernels, stride=stride)
        add("project", hidden, filters, activation=False)
        self.may_not_expand = min(stage.expansions) == 1 and "expand" in self.convolutions
        self.residual = "never" if stride > 1 else "sometimes" if first else "always"

    def __call__(
        self,
        x: Any,
        channels: Any,
        choice: _StageChoice,
        statistics: Statistics,
        branch: GraphBranch,
    ) -> Any:
        """Returns the block's output, inside of the branch."""
        inputs, parts = x, self.convolutions
        hidden = channels * choice.expansion
        if self.fused:
            x = parts["fused"](x, (channels, hidden, choice.kernel), statistics, branch)
        else:
            x = self._expanded(x, channels, choice, statistics, branch)
            x = parts["depthwise"](x, (hidden, hidden, choice.kernel), statistics, branch)
        x = parts["project"](x, (hidden, choice.filters, 1), statistics, branch)
        if self.residual == "always":
            return x + inputs
        if self.residual == "never":
            return x
        equal = branch.inner(tf.equal(channels, choice.filters))
        return equal.leave(equal.enter(x) + equal.enter(inputs), x)

    def _expanded(
        self,
        x: Any,
        channels: Any,
        choice: _StageChoice,
        statistics: Statistics,
        branch: GraphBranch,
    ) -> Any:
        expand = self.convolutions.get("expand")
        if expand is None:
            return x
        sizes = (channels, channels * choice.expansion, 1)
        if not self.may_not_expand:
            return expand(x, sizes, statistics, branch)
        expands = branch.inner(choice.expansion > 1)
        return expands.leave(expand(expands.enter(x), sizes, statistics, expands), x)

    def cut(self, channels: int, kernel: int, expansion: int, filters: int) -> Iterable[Any]:
        """Yields (name of the part, its weights) of a member's block."""
        hidden = channels * expansion
        sizes = {
            "fused": (channels, hidden, kernel),
            "expand": (channels, hidden, 1),
            "depthwise": (hidden, None, kernel),
            "project": (hidden, filters, 1),
        }
        for part, convolution in self.convolutions.items():
            if part != "expand" or expansion > 1:
                yield part, convolution.cut(*sizes[part])


class ElasticMobileNet(keras.layers.Layer):
    """Shared weights of all networks of a space, see :mod:`tfnas.search_space.elastic`.

    Example:
        >>> import numpy as np, tensorflow as tf, tfnas
        >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
        >>> network = space.elastic_network()
        >>> @tf.function(autograph=False)
        ... def logits(images, member):
        ...     return network.logits(images, member, Statistics.BATCH)
        >>> member = tf.constant(network.member(space.sample(np.random.default_rng(0))))
        >>> tuple(logits(tf.zeros((4, 8, 8, 1)), member).shape)
        (4, 10)

    Args:
        space: The space.
        seed: Seed of the initial weights.
    """

    def __init__(self, space: SpaceOfStages, seed: int = 0) -> None:
        super().__init__(name="elastic_mobilenet", dtype="float32")
        self.fixed = space.fixed
        widths = space.choices_of("width_multiplier")
        self._image_shape = image_shape(space.input_shape)
        self._rescales, self._is_series = space.include_rescaling, len(space.input_shape) == 2
        self._resizes = not self._is_series and (
            space.choices_of("resolution") != space.input_shape[:1]
        )

        def largest(filters: int, least: float = 0.0) -> int:
            return max(scale_filters(filters, max(least, width)) for width in widths)

        assert self.fixed.stem_filters is not None
        assert self.fixed.stem_stride is not None
        assert self.fixed.head_filters is not None
        channels = largest(self.fixed.stem_filters)
        self.stem = ElasticConvolution(
            "stem",
            space.input_shape[-1],
            channels,
            (3,),
            stride=self.fixed.stem_stride,
            flat=self._is_series,
        )
        self.stages: list[dict[str, list[_ElasticBlock]]] = []
        for number, stage in enumerate(space.stages, 1):
            filters = max(largest(each) for each in stage.filters)
            name = f"stage{number}"
            blocks = _stage_blocks(name, stage, channels, filters, self._is_series)
            self.stages.append(blocks)
            channels = max(channels, filters) if IDENTITY in stage.kinds else filters
        self.head = ElasticConvolution("head", channels, largest(self.fixed.head_filters, 1.0))
        self._build(space.num_classes, seed)

    def _build(self, classes: int, seed: int) -> None:
        """Creates all weights; each has a seed of its own."""
        convolutions = list(self._convolutions())
        seeds = np.random.SeedSequence(seed).generate_state(len(convolutions) + 1).tolist()
        for convolution, own in zip(convolutions, seeds, strict=False):
            convolution.create(self, own)
        initializer = keras.initializers.GlorotUniform(seeds[-1])
        shape = (self.head.filters, classes)
        self.kernel = self.add_weight(name="logits_kernel", shape=shape, initializer=initializer)
        self.bias = self.add_weight(name="logits_bias", shape=(classes,), initializer="zeros")
        self.built = True

    def _convolutions(self) -> Iterable[ElasticConvolution]:
        yield self.stem
        for stage in self.stages:
            for blocks in stage.values():
                for block in blocks:
                    yield from block.convolutions.values()
        yield self.head

    # ---- members

    def member(self, arch: Architecture) -> np.ndarray:
        """Returns the vector of a member, as in :class:`ElasticNetwork`."""
        width = arch.width_multiplier
        numbers = [
            *arch.working_resolution,
            scale_filters(arch.stem_filters, width),
            scale_filters(arch.head_filters, max(1.0, width)),
        ]
        for stage in arch.stages:
            filters = 0 if stage.kind == IDENTITY else scale_filters(stage.filters, width)
            kind = _KINDS.index(stage.kind)
            numbers += [kind, stage.repeats, stage.kernel, stage.expansion, filters]
        return np.array(numbers, np.int32)

    def transfer(self, arch: Architecture, model: keras.Model) -> None:
        """Copies a member's weights into its plain model, as in :class:`ElasticNetwork`."""
        width = arch.width_multiplier
        weights: dict[str, list[Any]] = {}
        channels = scale_filters(arch.stem_filters, width)
        head = scale_filters(arch.head_filters, max(1.0, width))
        cut = {"stem": self.stem.cut(arch.input_shape[-1], channels, 3)}
        for number, (stage, own) in enumerate(zip(arch.stages, self.stages, strict=True), 1):
            if stage.kind == IDENTITY:
                continue
            filters = scale_filters(stage.filters, width)
            for index, block in enumerate(own[stage.kind][: stage.repeats], 1):
                parts = block.cut(channels, stage.kernel, stage.expansion, filters)
                cut |= {f"stage{number}_block{index}_{part}": found for part, found in parts}
                channels = filters
        cut["head"] = self.head.cut(channels, head, 1)
        for name, (kernel, *normalization) in cut.items():
            weights |= {name: [kernel], f"{name}_bn": normalization}
        weights["logits"] = [np.array(self.kernel)[:head], np.array(self.bias)]
        for name, values in weights.items():
            model.get_layer(name).set_weights(values)

    def forget_statistics(self) -> None:
        """Forgets what was measured, as in :class:`ElasticNetwork`."""
        for convolution in self._convolutions():
            convolution.forget_statistics()

    # ---- the graph

    def logits(
        self, images: Any, member: Any, statistics: Statistics, dropout_seed: Any = None
    ) -> Any:
        """Returns the logits of a member, as in :class:`ElasticNetwork`."""
        numbers = tf.unstack(tf.convert_to_tensor(member), self._length)
        own = dict(zip(_NETWORK, numbers, strict=False))
        x = tf.cast(images, tf.float32)
        if self._is_series:
            x = tf.reshape(x, (-1, *self._image_shape))
        if self._resizes:
            x = tf.image.resize(x, (own["height"], own["width"]))
        always = GraphBranch()
        colors = tf.shape(x)[-1]
        if self._rescales:
            x = x / 127.5 - 1.0
        x = self.stem(x, (colors, own["stem"], 3), statistics, always)
        channels = own["stem"]
        for index, blocks in enumerate(self.stages):
            start = len(_NETWORK) + index * len(_STAGE)
            choice = _StageChoice(*numbers[start : start + len(_STAGE)])
            for kind, row in blocks.items():
                x, channels = _row(x, channels, kind, row, choice, statistics)
        x = self.head(x, (channels, own["head"], 1), statistics, always)
        x = tf.reduce_mean(x, (1, 2))
        if dropout_seed is not None and self.fixed.dropout:
            kept = tf.random.stateless_uniform(tf.shape(x), dropout_seed) >= self.fixed.dropout
            x = tf.where(kept, x / (1.0 - self.fixed.dropout), 0.0)
        return tf.matmul(x, self.kernel[: own["head"]]) + self.bias

    @property
    def _length(self) -> int:
        return len(_NETWORK) + len(self.stages) * len(_STAGE)


def _stage_blocks(
    name: str, stage: StageChoices, inputs: int, filters: int, flat: bool
) -> dict[str, list[_ElasticBlock]]:
    """The blocks of each kind of a stage."""
    found: dict[str, list[_ElasticBlock]] = {}
    for kind in stage.kinds:
        if kind == IDENTITY:
            continue
        found[kind] = [
            _ElasticBlock(
                f"{name}_block{number}",
                kind,
                stage,
                inputs if number == 1 else filters,
                filters,
                first=number == 1,
                flat=flat,
            )
            for number in range(1, max(stage.repeats) + 1)
        ]
    return found


def _row(
    x: Any,
    channels: Any,
    kind: str,
    blocks: list[_ElasticBlock],
    choice: _StageChoice,
    statistics: Statistics,
) -> tuple[Any, Any]:
    """The output and channels after the blocks of a kind, which a member may not use."""
    own = tf.equal(choice.kind, _KINDS.index(kind))
    for number, block in enumerate(blocks):
        condition = tf.logical_and(own, choice.repeats > number)
        branch = GraphBranch(condition)
        inside = block(branch.enter(x), channels, choice, statistics, branch)
        x = branch.leave(inside, x)
        channels = tf.where(condition, choice.filters, channels)
    return x, channels
