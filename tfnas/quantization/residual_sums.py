"""Sums of residual branches with 16 bits, in files whose other activations have 8.

Each block of a transformer adds its output to a stream that a normalization reads. A few channels
of the stream are tens of times as large as the others, and what one block adds is small beside the
sum, so that one scale of 8 bits for the sum costs more than all other roundings together. With 16
bits the integers are

    a, b    of 8 bits, from kernels and normalizations
    sum     QUANTIZE of each to 16 bits, a DEPTHWISE_CONV_2D where a Rescaling is on the way, ADD

and a normalization, whose steps have 16 bits anyway, reads the sum as it is, also behind a Dropout.
So does a further sum: that of three tensors is one of a sum and a tensor. Everything else that
reads a sum gets it with 8 bits.

References:
    Bondarenko et al., "Understanding and Overcoming the Challenges of Efficient Transformer
    Quantization", EMNLP 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfnas.graph.batchnorm import layers_of
from tfnas.graph.functional import Call, LayerCopies, Value, Walk
from tfnas.graph.idle_layers import IDLE
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.inner_ranges import BITS, InnerRange
from tfnas.quantization.integer_layers import FloatInput
from tfnas.quantization.layer_roles import Role
from tfnas.quantization.normalization_forms import NormalizationForm
from tfnas.quantization.normalization_rules import NORMALIZATIONS
from tfnas.quantization.spec import QuantSpec

if TYPE_CHECKING:
    import keras


def has_wide_sums(model: keras.Model) -> bool:
    """Whether a normalization of a quantization-aware model reads sums of more bits than 8."""
    return any(each.input_bits > each.bits for each in layers_of(model, NormalizationForm))


def _readers_of(
    call: Call, flow: Walk, hands_on: Callable[[Call], bool]
) -> tuple[list[Call], list[Call]]:
    """The calls that read a call's outputs, and those between that hand them on as they are."""
    readers, moves = list[Call](), [call]
    for move in moves:
        for user in (user for value in move.outputs for user in flow.readers[value]):
            (moves if hands_on(user) else readers).append(user)
    return readers, moves[1:]


class ResidualSums:
    """The calls of a model that have 16 bits, and the tensors between them and the others.

    Args:
        flow: The model's calls, in normal form.
        spec: The number formats.
        role_of: Returns the role of a call, FLOAT for one that stays float.
        copies: Gives names to new layers.
    """

    def __init__(
        self, flow: Walk, spec: QuantSpec, role_of: Callable[[Call], Role], copies: LayerCopies
    ) -> None:
        self.spec, self.copies = spec, copies
        self.values: set[Value] = set()  # of 16 bits
        self._calls: set[int] = set()  # of sums, and of what scales their inputs
        self._moves: set[int] = set()  # of what hands a sum on, as Dropout
        self._readers: set[int] = set()  # of normalizations that read 16 bits
        self._others: dict[Value, Any] = {}  # tensors with the other number of bits
        if spec.widens_sums:
            self._find(flow, role_of)

    def _find(self, flow: Walk, role_of: Callable[[Call], Role]) -> None:
        def is_called_once(call: Call) -> bool:
            return len(flow.calls_of(call.operation)) == 1

        def normalizes(call: Call) -> bool:
            known = call.kind in NORMALIZATIONS and is_called_once(call)
            return known and role_of(call) is Role.FORM

        def stays_inside(call: Call) -> bool:
            shown = any(value in flow.outputs for value in call.outputs)
            return not shown and is_called_once(call)

        def hands_on(call: Call) -> bool:
            return call.kind in IDLE and role_of(call) is Role.SAME and stays_inside(call)

        for call in reversed(flow.calls):
            if not stays_inside(call):
                continue
            readers, moves = _readers_of(call, flow, hands_on)
            ours = bool(readers) and all(id(user) in self._calls for user in readers)
            if call.kind == "Add" and role_of(call) is Role.COMPUTE:
                found = len(call.inputs) == 2 and (ours or any(map(normalizes, readers)))
            else:
                found = role_of(call) is Role.AFFINE and ours
            if found:
                self._calls.add(id(call))
                self._moves.update(map(id, moves))
                self.values.update(value for each in (call, *moves) for value in each.outputs)
                self._readers.update(id(user) for user in readers if normalizes(user))

    def has(self, call: Call) -> bool:
        """Whether a call computes with 16 bits between activations of 8."""
        return id(call) in self._calls

    def are_read(self, call: Call) -> bool:
        """Whether a call is a normalization that reads a sum as it is."""
        return id(call) in self._readers

    def inputs(
        self, call: Call, tensors: list[Any], narrow: Callable[[str, Any], Any]
    ) -> list[Any]:
        """Returns a call's tensors with the bits that it takes.

        Args:
            call: The call.
            tensors: A tensor for each of its inputs.
            narrow: Rounds a tensor to the bits of activations; its first argument is a name.
        """
        if not self._calls or self.are_read(call) or id(call) in self._moves:
            return tensors
        wide = self.has(call)
        return [
            tensor
            if (value in self.values) is wide or "float" not in value.dtype
            else self._converted(call.name, value, tensor, self.rounded if wide else narrow)
            for value, tensor in zip(call.inputs, tensors, strict=True)
        ]

    def _converted(
        self, reader: str, value: Value, tensor: Any, rounded: Callable[[str, Any], Any]
    ) -> Any:
        """A tensor with the other number of bits; one for all its readers."""
        if value not in self._others:
            name = f"{reader.replace('/', '_')}_input"
            detour = FloatInput(BITS, name=self.copies.unique(f"float_{name}"))
            self._others[value] = rounded(name, detour(tensor))
        return self._others[value]

    def rounded(self, name: str, tensor: Any) -> Any:
        """Returns a tensor rounded to 16 bits.

        Args:
            name: Name of what made it.
            tensor: The tensor.
        """
        name = self.copies.unique(f"{name.replace('/', '_')}_range")
        layer: FakeQuant = InnerRange(momentum=self.spec.momentum, name=name)
        return layer(tensor)
