"""Following channels through a model: groups of channels, and the weights that hang on them.

:func:`trace` walks the calls of a functional model once. Each call's rule
(:mod:`tfnas.pruning.structured.layer_rules`) tells which channels come out, and records which axes
of which weights run over which channels. The result, :class:`Dependencies`, is all that scoring,
choosing and shrinking need.

References:
    Fang et al., "DepGraph: Toward Any Structural Pruning", CVPR 2023. There dependencies are
    traced between layers; here between single channels, so that concatenations, flattened
    maps and shared layers need no cases of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.graph.functional import Call, Value, Walk, walk
from tfnas.pruning.structured.channel_ids import ChannelIds, Channels

OUTPUT = "it is the model's output"  # a reason


@dataclasses.dataclass(eq=False)
class Slices:
    """How a weight's axes run over channels.

    Args:
        variable: The weight.
        axes: Axis -> atoms of its positions.
        role: "kernel" where it mixes channels, "scale" for a normalization's factor,
            "other" for the rest.
        makes: The axis over which it makes channels, None where it makes none.
        positions: For a kernel: at how many places it is applied, over all calls.
    """

    variable: Any
    axes: dict[int, np.ndarray]
    role: str = "other"
    makes: int | None = None
    positions: int = 0

    @property
    def name(self) -> str:
        """The variable's path."""
        return str(self.variable.path)

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return tuple(self.variable.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelUnit:
    """A layer with the weights whose size follows from channels.

    Args:
        path: The layer's path.
        layer: The layer.
        slices: Its weights; those that are left out do not depend on channels.
        sizes: Argument of its configuration -> atoms whose number it tells.
    """

    path: str
    layer: Any
    slices: list[Slices]
    sizes: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Channels that are scored against each other: those that the same layers make.

    Args:
        name: The layers that make them, the first one's path and how many more.
        makers: Paths of all of them.
        classes: The classes that can go.
        kept: Class -> why it can't.
    """

    name: str
    makers: tuple[str, ...]
    classes: np.ndarray
    kept: dict[int, str]

    @property
    def size(self) -> int:
        """Number of channels, removable or not."""
        return len(self.classes) + len(self.kept)


@dataclasses.dataclass(frozen=True, eq=False)
class Dependencies:
    """What :func:`trace` finds.

    Args:
        flow: The model's calls.
        values: The channels of each value; None where they are not known.
        units: Layers by id.
        groups: The groups of channels.
        classes: The class of each atom.
    """

    flow: Walk
    values: dict[Value, Channels | None]
    units: dict[int, ChannelUnit]
    groups: tuple[Group, ...]
    classes: np.ndarray

    def kept(self, labels: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """Returns True for the positions that stay.

        Args:
            labels: Atoms.
            removed: A boolean a class (indexed by its number): whether it goes.
        """
        return ~removed[self.classes[labels]]


class Trace:
    """The state of a walk; rules talk to this.

    Args:
        flow: The calls.
    """

    def __init__(self, flow: Walk) -> None:
        self.flow = flow
        self.atoms = ChannelIds()
        self.values: dict[Value, Channels | None] = {}
        self.units: dict[int, ChannelUnit] = {}

    def channels(self, value: Value, axis: int | None = None, reason: str = "") -> Channels:
        """Returns a value's channels along an axis (the last by default).

        Where they are not known, or run along another axis, that is locked and new, locked
        ones stand for the axis.
        """
        wanted = (len(value.shape) - 1 if axis is None else axis) % len(value.shape)
        known = self.values.get(value)
        if known is not None and known.axis == wanted:
            return known
        why = reason or "its channels are not along the axis that the next layer takes"
        self.lock(value, why)
        return self._locked(value, wanted, why)

    def lock(self, value: Value, reason: str) -> None:
        """Locks what is known of a value's channels."""
        known = self.values.get(value)
        if known is not None:
            self.atoms.lock(known.labels, reason)

    def opaque(self, call: Call, reason: str) -> list[Channels | None]:
        """Locks all that enters a call; what comes out is new and locked."""
        for value in call.inputs:
            self.lock(value, reason)
        return [self._fixed(value, reason) for value in call.outputs]

    def fixed_input(self, value: Value) -> None:
        """Channels of a model's input, which never change."""
        self.values[value] = self._fixed(value, "it is the model's input")

    def unit(self, call: Call) -> tuple[ChannelUnit, bool]:
        """Returns the layer's unit, and whether this is its first call."""
        key = id(call.operation)
        first = key not in self.units
        if first:
            self.units[key] = ChannelUnit(call.name, call.operation, [], {})
        return self.units[key], first

    def _fixed(self, value: Value, reason: str) -> Channels | None:
        if len(value.shape) < 2 or value.shape[-1] is None:
            return None
        return self._locked(value, len(value.shape) - 1, reason)

    def _locked(self, value: Value, axis: int, reason: str) -> Channels:
        size = value.shape[axis]
        if size is None:
            raise ValueError(f"model must have channel axes of known size, got {value.shape}")
        labels = self.atoms.fresh(size, "")
        self.atoms.lock(labels, reason)
        return Channels(axis, labels)


def trace(model: Any, exclude: Sequence[str] = ()) -> Dependencies:
    """Finds the groups of channels of a functional or Sequential model.

    Args:
        model: A built model.
        exclude: Paths of layers whose channels stay.

    Raises:
        ValueError: The model has no known connections.
    """
    from tfnas.pruning.structured.layer_rules import rule

    flow = walk(model)
    found = Trace(flow)
    for value in flow.inputs:
        found.fixed_input(value)
    for call in flow.calls:
        outputs = rule(found, call)
        found.values.update(zip(call.outputs, outputs, strict=True))
        if call.name in exclude:
            for value in call.outputs:
                found.lock(value, "it is ignored")
    for value in flow.outputs:
        found.lock(value, OUTPUT)
    return _dependencies(found)


def _dependencies(found: Trace) -> Dependencies:
    classes = found.atoms.roots(np.arange(len(found.atoms)))
    return Dependencies(
        found.flow, found.values, found.units, _groups(found.atoms, classes), classes
    )


def _groups(atoms: ChannelIds, classes: np.ndarray) -> tuple[Group, ...]:
    """Makers that share a class are one group; classes without a maker are no one's."""
    makers = atoms.makers()
    names = list(dict.fromkeys(maker for maker in makers if maker))  # in the network's order
    number_of = {name: number for number, name in enumerate(names)}
    of_class: dict[int, list[int]] = {}
    for atom, maker in enumerate(makers):
        if maker:
            of_class.setdefault(int(classes[atom]), []).append(number_of[maker])
    related = ChannelIds()
    everyone = related.fresh(len(names), "")
    for numbers in of_class.values():
        related.join(np.full(len(numbers), numbers[0]), np.array(numbers))
    heads = related.roots(everyone)
    members: dict[int, list[int]] = {}
    for number in sorted(of_class):
        members.setdefault(int(heads[of_class[number][0]]), []).append(number)
    locked = atoms.locked()
    groups = []
    for head, numbers in sorted(members.items()):
        own = tuple(names[i] for i in np.flatnonzero(heads == head))
        name = own[0] if len(own) == 1 else f"{own[0]} and {len(own) - 1} more"
        free = np.array([n for n in numbers if n not in locked], int)
        groups.append(Group(name, own, free, {n: locked[n] for n in numbers if n in locked}))
    return tuple(groups)
