"""The state of a trace of channels through a model: channel ids, values and weights.

The rules of :mod:`tfnas.pruning.structured.layer_rules` read and write it, call by call.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.functional import Call, Value, Walk
from tfnas.pruning.structured.channel_ids import ChannelIds, Channels

if TYPE_CHECKING:
    import keras


# Takes channel ids and returns True for those that stay.
Kept = Callable[[np.ndarray], np.ndarray]
# Takes the new tensors for the inputs of a call, and a `Kept`; returns its new outputs.
Rewrite = Callable[[Sequence[Any], Kept], Sequence[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Use:
    """A use of a kernel, or a product of two tensors: multiply-accumulates that depend on channels.

    Args:
        positions: Number of positions, without those along channel axes.
        ids: Channel ids along further axes: the number of positions is multiplied by the number
            of those that are kept.
    """

    positions: int
    ids: tuple[np.ndarray, ...] = ()


@dataclasses.dataclass(eq=False)
class ChannelWeight:
    """A weight with the channel ids along its axes.

    Args:
        variable: The weight.
        axes: Maps an axis to its channel ids, (size of the axis,).
        role: "kernel" for a kernel, "scale" for the gamma of a normalization, "other" for
            all others.
        output_axis: The axis of the output channels that the layer creates; None: it creates
            none, as a depthwise kernel.
        uses: For a kernel: the positions that it is applied at, in all calls of the layer.
        rescaled: (channel ids, power): where channels are removed, the values are multiplied by
            the fraction of these ids that is kept to this power. So a layer that divides by
            a number of channels computes the same as with channels of zeros.
    """

    variable: keras.Variable
    axes: dict[int, np.ndarray]
    role: str = "other"
    output_axis: int | None = None
    uses: list[Use] = dataclasses.field(default_factory=list)
    rescaled: tuple[np.ndarray, float] | None = None

    @property
    def name(self) -> str:
        """Returns the variable's path."""
        return str(self.variable.path)

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the variable's shape."""
        return tuple(self.variable.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelLayer:
    """A layer or operation with the weights and arguments that depend on channels.

    Args:
        path: The layer's path.
        layer: The layer or operation.
        weights: Its weights that depend on channels.
        sizes: Maps an argument of the layer's configuration, such as "filters", to the
            channel ids that it counts; of a layer inside, "layer.config.units".
        settings: Maps further arguments to functions of a :data:`Kept` that return their values.
        products: Products of two tensors.
    """

    path: str
    layer: keras.Operation
    weights: list[ChannelWeight]
    sizes: dict[str, np.ndarray]
    settings: dict[str, Callable[[Kept], Any]] = dataclasses.field(default_factory=dict)
    products: list[Use] = dataclasses.field(default_factory=list)


class ChannelTrace:
    """What is known of the channels so far, while the calls of a model are traced.

    Args:
        flow: The model's calls.
        choices: Maps a call that can keep one of several axes of channels to the axis; see
            :meth:`choose`.
        approximate: Whether channels may be removed from what LayerNormalization normalizes.
    """

    def __init__(
        self, flow: Walk, choices: Mapping[Call, int] | None = None, approximate: bool = False
    ) -> None:
        self.flow = flow
        self.approximate = approximate
        self.ids = ChannelIds()
        self.values: dict[Value, Channels] = {}
        self.layers: dict[int, ChannelLayer] = {}
        self.rewrites: dict[Call, Rewrite] = {}
        self.options: dict[Call, list[int]] = {}
        self.whole: dict[str, str] = {}  # path of a layer with weights -> why no channel goes
        self.holds_shared = _holding_shared_layers(flow)
        self._choices = choices or {}

    def known(self, value: Value) -> Channels:
        """Returns the channels of a value.

        Args:
            value: The value.
        """
        return self.values.get(value, Channels())

    def along(self, value: Value, axis: int = -1, reason: str = "") -> np.ndarray:
        """Returns the channel ids of a value along an axis; new locked ones if it has none.

        Args:
            value: The value.
            axis: The axis, counted with the batch.
            reason: Why they have to stay, if it has none.
        """
        requested = axis % len(value.shape)
        ids = self.known(value).axes.get(requested)
        return self.fixed(value, requested, reason or "it counts places") if ids is None else ids

    def only(self, value: Value, axis: int, reason: str) -> np.ndarray:
        """Returns the channel ids of a value along an axis, and locks those along the others.

        Args:
            value: The value.
            axis: The axis, counted with the batch.
            reason: Why the others have to stay.
        """
        requested = axis % len(value.shape)
        self.lock(value, reason, self.beside(value, requested))
        return self.along(value, requested, reason)

    def beside(self, value: Value, axis: int) -> dict[int, np.ndarray]:
        """Returns the channel ids of a value along all axes but one.

        Args:
            value: The value.
            axis: The other axis, counted with the batch.
        """
        requested = axis % len(value.shape)
        return {a: ids for a, ids in self.known(value).axes.items() if a != requested}

    def meet(
        self, rows: Sequence[np.ndarray | None], sizes: Sequence[int | None], reason: str
    ) -> np.ndarray | None:
        """Couples the ids of axes that an operation combines; returns the ids of the result.

        Args:
            rows: The channel ids of each axis; None where it is of places.
            sizes: The size of each axis. One of size 1 is repeated along the others.
            reason: Why the ids have to stay where another axis has none, or is repeated.

        Returns:
            The channel ids, None if all are places.
        """
        widest = max((size or 2) for size in sizes)
        for row, size in zip(rows, sizes, strict=True):
            if row is not None and size == 1 < widest:
                self.ids.lock(row, f"{reason} repeats it")
        wide = [
            row for row, size in zip(rows, sizes, strict=True) if (size or 2) > 1 or widest == 1
        ]
        found = [row for row in wide if row is not None]
        if not found:
            return None
        for row in found[1:]:
            self.ids.join(found[0], row)
        if len(found) < len(wide):
            self.ids.lock(found[0], f"{reason} combines it with places")
        return found[0]

    def choose(self, call: Call, options: Sequence[int]) -> int:
        """Returns the axis whose channels a call keeps apart; the trace tries the others later.

        Args:
            call: The call.
            options: The axes, the best first.
        """
        self.options[call] = list(options)
        return self._choices.get(call, options[0])

    def lock(self, value: Value, reason: str, axes: Collection[int] | None = None) -> None:
        """Locks the known channels of a value: they are not pruned.

        Args:
            value: The value.
            reason: Why they have to stay.
            axes: The axes to lock, those without channels too; None: all.
        """
        for axis, ids in self.known(value).axes.items():
            if axes is None or axis in axes:
                self.ids.lock(ids, reason)

    def opaque(self, call: Call, reason: str) -> list[Channels]:
        """Locks the channels of a call's inputs, and returns new locked channels for its outputs.

        Args:
            call: The call.
            reason: Why the channels have to stay.

        Returns:
            The channels of each output.
        """
        for value in call.inputs:
            self.lock(value, reason)
        if getattr(call.operation, "weights", None):
            self.whole[call.name] = reason
        return [self._fixed(value, reason) for value in call.outputs]

    def fixed_input(self, value: Value) -> None:
        """Gives an input of the model new channels, which are locked.

        Args:
            value: The input, (batch, ..., channels).
        """
        self.values[value] = self._fixed(value, "it is the model's input")

    def layer(self, call: Call) -> tuple[ChannelLayer, bool]:
        """Returns the record of a call's layer, and whether this is the layer's first call.

        Args:
            call: The call.
        """
        key = id(call.operation)
        first = key not in self.layers
        if first:
            self.layers[key] = ChannelLayer(call.name, call.operation, [], {})
        return self.layers[key], first

    def places(self, shape: Sequence[int | None], known: Channels, without: Iterable[int]) -> Use:
        """Returns the positions of a tensor as a use.

        Args:
            shape: Its shape, with the batch.
            known: Its channels.
            without: The axes that are no positions, beside the batch.
        """
        left = set(range(1, len(shape))) - {axis % len(shape) for axis in without}
        ids = {axis: row for axis, row in known.axes.items() if axis in left}
        count = math.prod(int(shape[axis] or 1) for axis in left if axis not in ids)
        return Use(count, tuple(ids.values()))

    def fixed(self, value: Value, axis: int, reason: str) -> np.ndarray:
        """Returns new locked channel ids for an axis of a value.

        Args:
            value: The value.
            axis: The axis.
            reason: Why they have to stay.

        Raises:
            ValueError: The size of the axis is unknown.
        """
        size = value.shape[axis]
        if size is None:
            raise ValueError(f"model must have channel axes of known size, got {value.shape}")
        ids = self.ids.new(size, "")
        self.ids.lock(ids, reason)
        return ids

    def _fixed(self, value: Value, reason: str) -> Channels:
        last = len(value.shape) - 1
        if last < 1 or value.shape[last] is None:
            return Channels()
        return Channels({last: self.fixed(value, last, reason)})


def _holding_shared_layers(flow: Walk) -> set[int]:
    """The ids of operations that are, or wrap, a layer that other operations call too.

    Cut by two wrappers, such a layer would become two, whose weights are no longer the same.
    """
    users: dict[int, set[int]] = {}
    for call in flow.calls:
        for layer in (call.operation, getattr(call.operation, "layer", None)):
            if layer is not None:
                users.setdefault(id(layer), set()).add(id(call.operation))
    return set().union(*(found for found in users.values() if len(found) > 1))


Rule = Callable[[ChannelTrace, Call], list[Channels]]


def channel_axis(call: Call, rank: int) -> int:
    """Returns the channel axis of a layer's tensors, counted with the batch.

    Args:
        call: A call of the layer.
        rank: Number of axes of the tensor, with the batch.
    """
    first = getattr(call.operation, "data_format", "channels_last") == "channels_first"
    return 1 if first else rank - 1


def axes_of(axis: int | Iterable[int] | None, rank: int) -> set[int]:
    """Returns the axes that an argument names, counted from the front; all for None.

    Args:
        axis: One axis or several, from the front or the back.
        rank: Number of axes of the tensor, with the batch.
    """
    if axis is None:
        return set(range(rank))
    return {int(each) % rank for each in (axis if isinstance(axis, Iterable) else [axis])}
