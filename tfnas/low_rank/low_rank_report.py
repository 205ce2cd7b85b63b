"""What became of a model's layers: a record that prints as a table."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfnas.graph.functional import Skipped
from tfnas.search_space.architecture import check_keys
from tfnas.table import table


@dataclasses.dataclass(frozen=True)
class FactoredLayer:
    """A layer that is factors now.

    Args:
        name: Its path.
        kind: Its class.
        method: "svd", "spatial" or "tucker".
        ranks: The channels between the factors; Tucker's two.
        macs: Multiply-accumulates an example over all uses, (before, after).
        parameters: Number of weights, (before, after).
        error: Share of the squared output that is lost on the data, about its mean where a bias or
            BatchNormalization takes the mean up; without data of the squared kernel: the
            discarded squared singular values.
    """

    name: str
    kind: str
    method: str
    ranks: tuple[int, ...]
    macs: tuple[int, int]
    parameters: tuple[int, int]
    error: float


@dataclasses.dataclass(frozen=True)
class FactorizationReport:
    """What factorization did. Prints as a table, layer by layer.

    Args:
        layers: The layers that became factors, in the order of the network.
        left: Those that multiply and stay, with the reason.
        macs: Multiply-accumulates an example, (before, after).
        parameters: Number of weights, (before, after).
        weighted: Whether errors are those of the output on data.
        notes: What is only approximately so.
    """

    HEADERS = ("layer", "method", "ranks", "MACs", "after", "error")

    layers: tuple[FactoredLayer, ...]
    left: tuple[Skipped, ...]
    macs: tuple[int, int]
    parameters: tuple[int, int]
    weighted: bool
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns the record as values that JSON knows; see :meth:`of`."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> FactorizationReport:
        """Returns the record that :meth:`as_dict` wrote.

        Raises:
            ValueError: A key is unknown or missing; it is named.
        """
        check_keys(cls, fields)
        layers = tuple(
            FactoredLayer(**{**f, **{n: tuple(f[n]) for n in ("ranks", "macs", "parameters")}})
            for f in fields["layers"]
        )
        left = tuple(Skipped(**f) for f in fields["left"])
        rest = {name: tuple(fields[name]) for name in ("macs", "parameters", "notes")}
        return cls(**{**fields, "layers": layers, "left": left, **rest})

    def rows(self) -> list[list[str]]:
        """Returns a row a layer that became factors; see `HEADERS`."""
        return [
            [
                layer.name,
                layer.method,
                ", ".join(str(rank) for rank in layer.ranks),
                *(f"{macs:,}" for macs in layer.macs),
                f"{layer.error:.2%}",
            ]
            for layer in self.layers
        ]

    def left_rows(self) -> list[list[str]]:
        """Returns (layer, class, reason) of each that stays."""
        return [[skipped.name, skipped.kind, skipped.reason] for skipped in self.left]

    def __str__(self) -> str:
        lines = [table(list(self.HEADERS), self.rows(), right=2)] if self.layers else []
        lines += [f"{s.name} ({s.kind}) stays: {s.reason}" for s in self.left]
        for what, (before, after) in (("MACs", self.macs), ("parameters", self.parameters)):
            share = f", {after / before:.1%}" if before else ""
            lines.append(f"{what}: {before:,} to {after:,}{share}")
        return "\n".join([*lines, *self.notes])
