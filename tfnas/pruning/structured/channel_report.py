"""Report of structured pruning: the channels of each group before and after, as a table."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.kernel_state import model_compression
from tfnas.search_space.json_records import check_items, check_keys, check_types
from tfnas.table import Printable, TextTable

if TYPE_CHECKING:
    from tfnas.pruning.structured.channel_groups import Dependencies, Group
    from tfnas.pruning.structured.remaining_cost import RemainingCosts


@dataclasses.dataclass(frozen=True)
class GroupChange:
    """Number of channels of one group of dependent channels, before and after.

    Args:
        name: Path of the first layer whose output channels these are, and the number of the
            others.
        makers: Paths of all layers whose output channels these are.
        before: Number of channels before.
        after: Number of channels after.
        reason: Why some or all channels had to stay; empty if each could be removed.
        removed: Numbers of the removed channels in the group, from 0.
    """

    name: str
    makers: tuple[str, ...]
    before: int
    after: int
    reason: str = ""
    removed: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, repr=False)
class ChannelPruningReport(Printable):
    """The result of structured pruning. Prints as a table with one row per group.

    Args:
        groups: The groups, in the order of the network.
        macs: MACs (multiply-accumulates) per example, (before, after).
        parameters: Number of weights, (before, after).
        notes: Limits of the result, such as approximations.

    Example:
        >>> stem = GroupChange("stem", ("stem",), before=16, after=8)
        >>> head = GroupChange("head", ("head",), before=10, after=10)
        >>> print(ChannelPruningReport((stem, head), (4000, 1000), parameters=(500, 200)))
        group  channels  after  why the others stay
        -----  --------  -----  -------------------
        stem   16            8
        head   10           10
        MACs: 4,000 to 1,000, 25.0%
        parameters: 500 to 200, 40.0%
    """

    groups: tuple[GroupChange, ...]
    macs: tuple[int, int]
    parameters: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def locked(self) -> tuple[GroupChange, ...]:
        """Returns the groups that lost no channel and have channels that had to stay."""
        return tuple(g for g in self.groups if g.reason and g.before == g.after)

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as a dictionary that JSON can hold; :meth:`of` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> ChannelPruningReport:
        """Returns the report that :meth:`as_dict` wrote.

        Args:
            fields: The dictionary.

        Raises:
            ValueError: A key is unknown or missing, or a value is of another type; the message
                names it.
        """
        check_keys(cls, fields)
        check_types(cls, fields)
        for name in ("macs", "parameters"):
            check_items(f"{cls.__name__}.{name}", fields[name], int, count=2)
        notes = fields.get("notes", ())
        check_items(f"{cls.__name__}.notes", notes, str)
        groups = tuple(_group(group) for group in fields["groups"])
        pairs = {name: tuple(fields[name]) for name in ("macs", "parameters")}
        return cls(groups=groups, notes=tuple(notes), **pairs)

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return ["group", "channels", "after", "why the others stay"]

    def rows(self) -> list[list[str]]:
        """Returns one row per group, in the order of the network."""
        return [[g.name, str(g.before), str(g.after), g.reason] for g in self.groups]

    def tables(self) -> list[TextTable]:
        """Returns the table of the groups."""
        return [TextTable(self.headers(), self.rows(), right=2)] if self.groups else []

    def footer(self) -> list[str]:
        """Returns the MACs and parameters before and after, and the notes."""
        lines = []
        for name, (before, after) in (("MACs", self.macs), ("parameters", self.parameters)):
            fraction = f", {after / before:.1%}" if before else ""
            lines.append(f"{name}: {before:,} to {after:,}{fraction}")
        return [*lines, *self.notes]


def _group(fields: Any) -> GroupChange:
    check_keys(GroupChange, fields)
    check_types(GroupChange, fields)
    check_items("GroupChange.makers", fields["makers"], str)
    check_items("GroupChange.removed", fields.get("removed", ()), int)
    lists = {name: tuple(fields.get(name, ())) for name in ("makers", "removed")}
    return GroupChange(**{**fields, **lists})


def report_of(
    model: Any, dependencies: Dependencies, costs: RemainingCosts, removed: np.ndarray
) -> ChannelPruningReport:
    """Returns the report on a removal.

    Args:
        model: The model before.
        dependencies: Its channels.
        costs: Its costs.
        removed: Whether each root is removed, boolean, (channel ids,).
    """
    groups = tuple(_change(group, removed) for group in dependencies.groups)
    norms = sorted(
        layer.path
        for layer in dependencies.layers.values()
        if type(layer.layer).__name__ == "LayerNormalization"
        and any(
            removed[dependencies.roots[ids]].any() for w in layer.weights for ids in w.axes.values()
        )
    )
    notes = [
        f"{note}: {', '.join(names)}"
        for note, names in (
            ("statistics are over fewer channels now, an approximation", norms),
            ("MACs are at least these: those of some layers are unknown", costs.uncounted),
        )
        if names
    ]
    named = {reason for group in dependencies.groups for reason in group.locked.values()}
    notes += [f"left whole: {why}" for why in dependencies.whole.values() if why not in named]
    notes += _zeros_and_clusters(model)
    return ChannelPruningReport(
        groups,
        (costs.macs(costs.nothing), costs.macs(removed)),
        (costs.parameters(costs.nothing), costs.parameters(removed)),
        tuple(notes),
    )


def _zeros_and_clusters(model: Any) -> list[str]:
    """Notes about zeros and shared values, which training would change."""
    found = model_compression(model)
    notes = {
        "clusters": "weights share values: train with tfnas.ClusteringCallback(None) to keep them",
        "zeros": "weights are zero: call tfnas.keep_zeros(smaller) before training to keep them",
    }
    return [text for name, text in notes.items() if name in found]


def _change(group: Group, removed: np.ndarray) -> GroupChange:
    gone = np.flatnonzero(removed[group.roots])
    reason = "; ".join(dict.fromkeys(group.locked.values()))
    after = group.size - len(gone)
    return GroupChange(group.name, group.makers, group.size, after, reason, tuple(gone.tolist()))
