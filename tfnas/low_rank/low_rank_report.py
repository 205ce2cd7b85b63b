"""The report of a factorization, which prints as a table."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfnas.graph.functional import Skipped
from tfnas.search_space.architecture import check_keys
from tfnas.table import Printable, TextTable


@dataclasses.dataclass(frozen=True)
class FactoredLayer:
    """A layer that was replaced by factors.

    Args:
        name: Path of the layer.
        kind: Name of its class.
        method: "svd", "spatial" or "tucker".
        ranks: Number of channels between the factors; two for "tucker".
        macs: Multiply-accumulates per example over all uses, (before, after).
        parameters: Number of weights, (before, after).
        error: Fraction of the squared output that is lost on the data (of its variance, where a
            bias or BatchNormalization compensates the mean); without data, the fraction of the
            squared kernel.
    """

    name: str
    kind: str
    method: str
    ranks: tuple[int, ...]
    macs: tuple[int, int]
    parameters: tuple[int, int]
    error: float


@dataclasses.dataclass(frozen=True, repr=False)
class FactorizationReport(Printable):
    """The result of a factorization. Prints as a table, layer by layer.

    Args:
        layers: The layers that were replaced by factors, in the order of execution.
        left: The layers that multiply but were not replaced, with the reason.
        macs: Multiply-accumulates of the model per example, (before, after).
        parameters: Number of weights of the model, (before, after).
        weighted: Whether errors are those of outputs on data.
        notes: Remarks, such as layers whose MACs are unknown.

    Example:
        >>> d = FactoredLayer("d", "Dense", "svd", (10,), (2048, 960), (2080, 992), error=0.125)
        >>> print(FactorizationReport((d,), (), (2048, 960), (2080, 992), weighted=False))
        layer  method  ranks   MACs  after   error
        -----  ------  -----  -----  -----  ------
        d      svd        10  2,048    960  12.50%
        MACs: 2,048 to 960, 46.9%
        parameters: 2,080 to 992, 47.7%
    """

    layers: tuple[FactoredLayer, ...]
    left: tuple[Skipped, ...]
    macs: tuple[int, int]
    parameters: tuple[int, int]
    weighted: bool
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as values for JSON; see :meth:`of`."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> FactorizationReport:
        """Returns the report that :meth:`as_dict` wrote.

        Args:
            fields: The dictionary.

        Raises:
            ValueError: A key is unknown or missing; the message names it.
        """
        check_keys(cls, fields)
        layers = tuple(
            FactoredLayer(**{**f, **{n: tuple(f[n]) for n in ("ranks", "macs", "parameters")}})
            for f in fields["layers"]
        )
        left = tuple(Skipped(**f) for f in fields["left"])
        rest = {name: tuple(fields[name]) for name in ("macs", "parameters", "notes")}
        return cls(**{**fields, "layers": layers, "left": left, **rest})

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return ["layer", "method", "ranks", "MACs", "after", "error"]

    def rows(self) -> list[list[str]]:
        """Returns one row per replaced layer, in the order of execution."""
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
        """Returns (layer, class, reason) of each layer that was not replaced."""
        return [[skipped.name, skipped.kind, skipped.reason] for skipped in self.left]

    def tables(self) -> list[TextTable]:
        """Returns the table of the replaced layers."""
        return [TextTable(self.headers(), self.rows(), right=2)] if self.layers else []

    def footer(self) -> list[str]:
        """Returns the layers that stay, the MACs and parameters before and after, and the notes."""
        lines = [f"{s.name} ({s.kind}) stays: {s.reason}" for s in self.left]
        for name, (before, after) in (("MACs", self.macs), ("parameters", self.parameters)):
            fraction = f", {after / before:.1%}" if before else ""
            lines.append(f"{name}: {before:,} to {after:,}{fraction}")
        return [*lines, *self.notes]
