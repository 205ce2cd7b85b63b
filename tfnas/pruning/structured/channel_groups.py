"""Groups of dependent channels, and the weights that depend on each channel.

:func:`trace` walks the calls of a functional model once. The rule of each call
(:mod:`tfnas.pruning.structured.layer_rules`) computes the channels of its outputs and records the
channels along each axis of its weights. Scoring, selection and slicing all use the result,
:class:`Dependencies`.

References:
    Fang et al., "DepGraph: Toward Any Structural Pruning", CVPR 2023. DepGraph traces
    dependencies between layers; here they are traced between single channels, so that
    concatenations, flattened feature maps and shared layers need no special cases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfnas.graph.functional import Call, Value, Walk, walk
from tfnas.pruning.structured.channel_ids import ONLY_CHANNEL, ChannelIds, Channels
from tfnas.pruning.structured.channel_trace import (
    ChannelLayer,
    ChannelTrace,
    ChannelWeight,
    Rewrite,
)
from tfnas.pruning.structured.layer_rules import apply_rule

if TYPE_CHECKING:
    import keras

MODEL_OUTPUT = "it is the model's output"
ALL_COUPLED = "its channels all depend on each other"
_MOST_TRIES = 4  # axes of one reshape


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Channels that are ranked against each other: the output channels of the same layers.

    Args:
        name: Path of the first of these layers, and the number of the others.
        makers: Paths of the layers whose output channels these are.
        removable: Roots of the channels that can be removed.
        locked: Maps the root of each other channel to the reason why it has to stay.
    """

    name: str
    makers: tuple[str, ...]
    removable: np.ndarray
    locked: dict[int, str]

    @property
    def size(self) -> int:
        """Returns the number of channels, removable or not."""
        return len(self.removable) + len(self.locked)

    @property
    def roots(self) -> np.ndarray:
        """Returns the roots of all channels, removable or not, in their order."""
        return np.sort(np.concatenate([self.removable, np.array(list(self.locked), int)]))


@dataclasses.dataclass(frozen=True, eq=False)
class Dependencies:
    """The channels of a model, and the layers and weights that depend on them.

    Args:
        flow: The model's calls.
        values: The channels of each value.
        layers: The layers and operations that depend on channels, by their Python id.
        rewrites: Calls that have to be made otherwise where channels are removed.
        groups: The groups of channels.
        roots: The root of each channel id, (channel ids,): coupled channels have one root.
        exclude: Paths of layers whose channels are not removed.
        approximate: Whether channels may be removed from what LayerNormalization normalizes.
        whole: Maps the path of each layer with weights that no rule covers to the reason.
    """

    flow: Walk
    values: dict[Value, Channels]
    layers: dict[int, ChannelLayer]
    rewrites: dict[Call, Rewrite]
    groups: tuple[Group, ...]
    roots: np.ndarray
    exclude: tuple[str, ...] = ()
    approximate: bool = False
    whole: dict[str, str] = dataclasses.field(default_factory=dict)

    def kept(self, ids: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """Returns True for the channel ids that stay.

        Args:
            ids: Channel ids.
            removed: Whether the channels of each root are removed, boolean, (channel ids,).
        """
        return ~removed[self.roots[ids]]

    def weights_of(self, layer: keras.Operation) -> dict[int, ChannelWeight]:
        """Returns the weights of a layer that depend on channels, by the Python id of the variable.

        Args:
            layer: A layer or operation of the model.
        """
        traced = self.layers.get(id(layer))
        return {id(weight.variable): weight for weight in traced.weights} if traced else {}


def trace(
    model: keras.Model, exclude: Sequence[str] = (), approximate: bool = False
) -> Dependencies:
    """Finds the groups of dependent channels of a functional or Sequential model.

    Args:
        model: A built functional or Sequential model.
        exclude: Paths of layers whose channels are not removed.
        approximate: Whether channels may be removed from what LayerNormalization normalizes.

    Returns:
        The channels of each tensor and weight, and the groups of coupled channels.

    Raises:
        ValueError: The connections of the model's layers are unknown.
    """
    flow = walk(model)
    chosen: dict[Call, int] = {}
    best, options = _traced(flow, exclude, approximate, chosen)
    for call, axes in options.items():
        if not _is_stuck(best, call):
            continue
        for axis in axes[1:_MOST_TRIES]:
            other, _ = _traced(flow, exclude, approximate, {**chosen, call: axis})
            if _removable(other) > _removable(best):
                best, chosen = other, {**chosen, call: axis}
    return best


def _traced(
    flow: Walk, exclude: Sequence[str], approximate: bool, choices: dict[Call, int]
) -> tuple[Dependencies, dict[Call, list[int]]]:
    """The dependencies for choices of axes, and the axes that each call could choose."""
    found = ChannelTrace(flow, choices, approximate)
    for value in flow.inputs:
        found.fixed_input(value)
    for call in flow.calls:
        outputs = apply_rule(found, call)
        found.values.update(zip(call.outputs, outputs, strict=True))
        if call.name in exclude:
            _exclude(found, call)
    for value in flow.outputs:
        found.lock(value, MODEL_OUTPUT)
    roots = found.ids.roots(np.arange(len(found.ids)))
    groups = _groups(found.ids, roots)
    traced = Dependencies(
        flow,
        found.values,
        found.layers,
        found.rewrites,
        groups,
        roots,
        tuple(exclude),
        approximate,
        found.whole,
    )
    return traced, found.options


def _exclude(found: ChannelTrace, call: Call) -> None:
    """Locks the output channels of a call, and those inside of its layer."""
    for value in call.outputs:
        found.lock(value, "it is excluded")
    makers = found.ids.makers()
    inside = [name == call.name or name.startswith(f"{call.name} (") for name in makers]
    found.ids.lock(np.flatnonzero(inside), "it is excluded")


def _is_stuck(dependencies: Dependencies, call: Call) -> bool:
    """Whether the channels of a call's output can't be removed."""
    removable = _removable_roots(dependencies)
    rows = [ids for value in call.outputs for ids in dependencies.values[value].axes.values()]
    return not any(np.isin(dependencies.roots[ids], removable).any() for ids in rows)


def _removable_roots(dependencies: Dependencies) -> np.ndarray:
    """The roots of the channels that can be removed."""
    found = [group.removable for group in dependencies.groups]
    return np.concatenate(found) if found else np.zeros(0, int)


def _removable(dependencies: Dependencies) -> int:
    """The number of the channels, coupled ones counted each, that can be removed."""
    return int(np.isin(dependencies.roots, _removable_roots(dependencies)).sum())


def _groups(ids: ChannelIds, roots: np.ndarray) -> tuple[Group, ...]:
    """Layers with coupled output channels form one group."""
    makers = ids.makers()
    names = list(dict.fromkeys(maker for maker in makers if maker))  # in the network's order
    index_of = {name: index for index, name in enumerate(names)}
    makers_of: dict[int, list[int]] = {}  # root -> indices of layers
    for number, maker in enumerate(makers):
        if maker:
            makers_of.setdefault(int(roots[number]), []).append(index_of[maker])
    coupled = ChannelIds()  # of layers
    every_layer = coupled.new(len(names), "")
    for indices in makers_of.values():
        coupled.join(np.full(len(indices), indices[0]), np.array(indices))
    group_of = coupled.roots(every_layer)
    members: dict[int, list[int]] = {}
    for root in sorted(makers_of):
        members.setdefault(int(group_of[makers_of[root][0]]), []).append(root)
    locked = ids.locked()
    groups = []
    for group, own in sorted(members.items()):
        paths = tuple(names[i] for i in np.flatnonzero(group_of == group))
        name = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        reasons = {root: locked[root] for root in own if root in locked}
        if len(own) == 1 and own[0] not in locked:
            reasons[own[0]] = ALL_COUPLED if len(makers_of[own[0]]) > 1 else ONLY_CHANNEL
        removable = np.array([root for root in own if root not in reasons], int)
        groups.append(Group(name, paths, removable, reasons))
    return tuple(groups)
