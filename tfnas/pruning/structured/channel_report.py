"""What became of a model's channels: a record that prints as a table."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfnas.table import table


@dataclasses.dataclass(frozen=True)
class GroupChange:
    """One group of channels that depend on each other.

    Args:
        name: The layers that make them: the first one's path, and how many more.
        makers: Paths of all of them.
        before: Channels before.
        after: Channels after.
        reason: Why some or all had to stay; empty where any could have gone.
    """

    name: str
    makers: tuple[str, ...]
    before: int
    after: int
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class ChannelPruningReport:
    """What structured pruning did. Prints as a table, group by group.

    Args:
        groups: The groups, in the order of the network.
        macs: Multiply-accumulates an example, (before, after).
        parameters: Number of weights, (before, after).
        notes: What is only approximately so.
    """

    HEADERS = ("group", "channels", "after", "why the rest stays")

    groups: tuple[GroupChange, ...]
    macs: tuple[int, int]
    parameters: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def locked(self) -> tuple[GroupChange, ...]:
        """Groups that stay whole, where some or all channels had to."""
        return tuple(g for g in self.groups if g.reason and g.before == g.after)

    def as_dict(self) -> dict[str, Any]:
        """Returns the record as values that JSON knows; see :meth:`of`."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> ChannelPruningReport:
        """Returns the record that :meth:`as_dict` wrote."""
        groups = tuple(GroupChange(**{**g, "makers": tuple(g["makers"])}) for g in fields["groups"])
        pairs = {name: tuple(fields[name]) for name in ("macs", "parameters", "notes")}
        return cls(groups=groups, **pairs)

    def rows(self) -> list[list[str]]:
        """Returns a row a group; see `HEADERS`."""
        return [[g.name, str(g.before), str(g.after), g.reason] for g in self.groups]

    def __str__(self) -> str:
        lines = [table(list(self.HEADERS), self.rows(), right=2)] if self.groups else []
        for what, (before, after) in (("MACs", self.macs), ("parameters", self.parameters)):
            share = f", {after / before:.1%}" if before else ""
            lines.append(f"{what}: {before:,} to {after:,}{share}")
        return "\n".join([*lines, *self.notes])
