"""The ranges that are placed in a model, and the tensors that are on their grids."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.spec import QuantSpec


class PlacedRanges:
    """Rounds tensors of the new model, and remembers how each was rounded.

    Args:
        spec: The number formats.
    """

    def __init__(self, spec: QuantSpec) -> None:
        self.spec = spec
        self._names: Counter[str] = Counter()
        # By the id of a tensor: the tensor, which has to live as long, and what rounded it.
        self._rounded: dict[int, tuple[Any, FakeQuant]] = {}

    def settings(self) -> dict[str, Any]:
        """How ranges of activations follow the data."""
        names = ("ranges", "momentum", "percentile")
        return {
            "bits": self.spec.activation_bits,
            **{name: getattr(self.spec, name) for name in names},
        }

    def new(self, after: str, **settings: Any) -> FakeQuant:
        """Returns a range with a name of its own.

        Args:
            after: Name of the call whose output it rounds.
            settings: Further arguments of :class:`FakeQuant`.
        """
        base = f"{after.replace('/', '_')}_range"
        self._names[base] += 1
        count = self._names[base]
        name = base if count == 1 else f"{base}_{count}"
        return FakeQuant(name=name, **self.settings(), **settings)

    def of(self, tensor: Any) -> FakeQuant | None:
        """The range whose grid a tensor is on."""
        found = self._rounded.get(id(tensor))
        return None if found is None else found[1]

    def note(self, layer: FakeQuant, tensor: Any) -> Any:
        """Returns a tensor, of which it is known now that it is on the grid of a range."""
        self._rounded[id(tensor)] = tensor, layer
        return tensor

    def rounded(self, after: str, tensor: Any, **settings: Any) -> Any:
        """A tensor rounded to a range of its own."""
        return self.rounded_to(self.new(after, **settings), tensor)

    def rounded_to(self, layer: FakeQuant, tensor: Any) -> Any:
        """A tensor rounded to a range, which observes it."""
        return self.note(layer, layer(tensor))

    def rounded_again(self, layer: FakeQuant, tensor: Any) -> Any:
        """A tensor of values that are on the grid of a range, rounded to it again.

        They are not observed again: their ends are rounded, and would widen the range.
        """
        return self.note(layer, layer(tensor, training=False, ahead=True))
