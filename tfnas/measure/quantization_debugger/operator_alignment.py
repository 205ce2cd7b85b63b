"""Pairs the operators of two `.tflite` files of one model that compute the same values.

The graphs of a float file and a quantized file differ: quantizers insert QUANTIZE, DEQUANTIZE
and casts, the converter appends counters to names, quantization-aware models have other layer
names, and fusion may differ. Operators are paired in this order: same kind, same inputs and
same name or layer; same kind and inputs if that is unique; same kind and name or layer, whatever
the inputs. Operators that are left have no counterpart and are reported with the reason.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator

from tfnas.measure.quantization_debugger.activation_error import sorted_inputs
from tfnas.measure.quantization_debugger.error_report import Unaligned
from tfnas.measure.quantization_debugger.layer_names import LayerNames
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.flatbuffer import OperatorInfo, TensorInfo

MOVES = frozenset(
    {
        *("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "REVERSE_V2", "SLICE", "STRIDED_SLICE"),
        *("SPLIT", "SPLIT_V", "UNPACK", "GATHER", "GATHER_ND", "TILE", "BROADCAST_TO"),
        *("SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"),
    }
)
"""Operators that give numbers of their input as they are, in other places."""


@dataclasses.dataclass(frozen=True, eq=False)
class AlignedOperators:
    """An operator of the float file and its counterpart in the quantized one."""

    layer: str
    reference: OperatorInfo
    operator: OperatorInfo


def carries_numbers(tensor: TensorInfo) -> bool:
    """Whether a tensor holds float or quantized values, not shapes or indices."""
    return tensor.dtype.startswith("float") or bool(tensor.zero_points)


class Flow:
    """The data flow of a file without the operators that only change the number format.

    The output of QUANTIZE, DEQUANTIZE and float casts counts as the same value as their input.

    Args:
        artifact: The file.
        names: The layer names of its model.
    """

    def __init__(self, artifact: Artifact, names: LayerNames) -> None:
        self.graph = artifact.graph
        self.operators = [op for op in self.graph.operators if not _is_helper(op)]
        self.producers = {t.index: op for op in self.graph.operators for t in op.outputs}
        self._consumers: dict[int, list[OperatorInfo]] = defaultdict(list)
        for op in self.graph.operators:
            for tensor in op.inputs:
                self._consumers[tensor.index].append(op)
        self.inputs = {tensor.index for tensor in self.graph.inputs}
        self._ends = {tensor.index for tensor in artifact.outputs}
        self._names = names
        layers = dict(zip((t.index for t in artifact.outputs), names.outputs, strict=False))
        self.layers = {id(op): self._mentioned(op, layers) for op in self.operators}

    def _mentioned(self, op: OperatorInfo, ends: dict[int, str]) -> tuple[str, ...]:
        """The layers in the output's name; a model's output is named after the output itself."""
        found = self._names.mentioned(op.outputs[0].name)
        last = ends.get(self.settled(op.outputs[0]).index) or ends.get(op.outputs[0].index)
        return found or ((last,) if last else ())

    def owner(self, op: OperatorInfo) -> str:
        """Returns the layer of an operator, the one with a kernel if several are fused."""
        constants = (self.graph.constant_behind(tensor) for tensor in op.inputs[1:])
        named = [n for c in constants if c for n in self._names.mentioned(c.name)]
        known = [*named, *self.layers[id(op)]]
        kernels = [name for name in known if name in self._names.with_kernel]
        return (kernels or [*self.layers[id(op)][-1:], op.layer])[0]

    def source(self, tensor: TensorInfo) -> TensorInfo:
        """Returns the tensor before all changes of format: an operator's output or an input."""
        producer = self.producers.get(tensor.index)
        while producer is not None and _is_helper(producer):
            tensor = producer.inputs[0]
            producer = self.producers.get(tensor.index)
        return tensor

    def computing(self, op: OperatorInfo) -> OperatorInfo | None:
        """Returns the operator that has computed what an operator moves; None: an input is moved.

        Args:
            op: One of `MOVES`; another one has computed its output itself.
        """
        found: OperatorInfo | None = op
        while found is not None and (found.name in MOVES or _is_helper(found)):
            # A SPLIT has its axis first, which is a constant.
            moved = next((t for t in found.inputs if t.constant is None), found.inputs[0])
            found = self.producers.get(moved.index)
        return found

    def settled(self, tensor: TensorInfo) -> TensorInfo:
        """Returns the tensor in the format that its consumers read, if that is the same for all."""
        found = tensor
        consumers = self._consumers[tensor.index]
        while len(consumers) == 1 and _is_helper(consumers[0]) and tensor.index not in self._ends:
            tensor = consumers[0].outputs[0]
            found = tensor if consumers[0].name == "QUANTIZE" else found
            consumers = self._consumers[tensor.index]
        return found

    def inputs_of(self, op: OperatorInfo) -> tuple[int, ...]:
        """Returns the indices of an operator's inputs without constants and shapes."""
        sources = (self.source(tensor) for tensor in op.inputs)
        return tuple(
            tensor.index
            for tensor in sources
            if tensor.index in self.inputs or (tensor.constant is None and carries_numbers(tensor))
        )

    def next_layers(self, op: OperatorInfo) -> set[str]:
        """Returns the layers of the operators that consume an operator's outputs."""
        pending, found = list(op.outputs), set[str]()
        while pending:
            for consumer in self._consumers[pending.pop().index]:
                if _is_helper(consumer):
                    pending += consumer.outputs
                else:
                    found.update(self.layers[id(consumer)])
        return found


def _is_helper(op: OperatorInfo) -> bool:
    """Whether an operator only changes the number format."""
    cast = op.name == "CAST" and all(
        tensor.dtype.startswith("float") for tensor in (op.inputs[0], op.outputs[0])
    )
    return cast or op.name in ("QUANTIZE", "DEQUANTIZE", "DENSIFY")


Key = Callable[[Flow, OperatorInfo, tuple[int | None, ...]], Hashable]


def _form(op: OperatorInfo) -> tuple[Hashable, ...]:
    return op.name, op.outputs[0].shape


def _name(op: OperatorInfo) -> str:
    """The output's name without the model's name and the converter's counters."""
    parts = (part.split("/", 1)[-1] for part in op.outputs[0].name.split(";"))
    return ";".join(re.sub(r"(?<=[a-zA-Z])\d+$", "", part) for part in parts)


def _by(identity: Callable[[Flow, OperatorInfo], Hashable], inputs: bool) -> Key:
    """A key of kind, shape and identity; with the inputs, None if one of them is not paired."""

    def key(flow: Flow, op: OperatorInfo, inputs_of: tuple[int | None, ...]) -> Hashable:
        value = identity(flow, op)
        if value is None or (inputs and None in inputs_of):
            return None
        return (*_form(op), value, inputs_of if inputs else None)

    return key


_IDENTITIES = [
    lambda flow, op: _name(op),
    lambda flow, op: flow.layers[id(op)] or None,
    lambda flow, op: frozenset(flow.layers[id(op)]) or None,
    lambda flow, op: flow.owner(op),
]
# What must be equal in a pair, the most reliable first.
_KEYS = [
    *(_by(identity, inputs=True) for identity in _IDENTITIES),
    _by(lambda flow, op: "any", inputs=True),
    *(_by(identity, inputs=False) for identity in _IDENTITIES),
]
_INPUTS_ONLY = _KEYS[len(_IDENTITIES)]


class Alignment:
    """The pairs of operators of two files of one model.

    Args:
        names: The layer names of the model.
        reference: The float file.
        artifact: The quantized file.
    """

    def __init__(self, names: LayerNames, reference: Artifact, artifact: Artifact) -> None:
        self.left, self.right = Flow(reference, names), Flow(artifact, names)
        self.values: dict[int, int] = {}  # tensor of the quantized file -> of the float file
        ends = sorted_inputs(reference), sorted_inputs(artifact)
        for one, other in zip(*ends, strict=True):
            self.values[other.index] = one.index
        self._partners: dict[int, OperatorInfo] = {}
        self._left_inputs = {id(op): self.left.inputs_of(op) for op in self.left.operators}
        self._right_inputs = {id(op): self.right.inputs_of(op) for op in self.right.operators}
        while any(self._match(key) for key in _KEYS) or self._match_ends():
            pass
        self._part_what_moves_other_numbers()
        self.pairs = tuple(
            AlignedOperators(self.left.owner(partner), partner, op)
            for op in self.right.operators
            if (partner := self._partners.get(id(op))) is not None
        )

    def _part_what_moves_other_numbers(self) -> None:
        """Undoes pairs that move numbers of operators which have other counterparts."""
        moving = [op for op in self.right.operators if op.name in MOVES]
        for op in moving:
            partner = self._partners.get(id(op))
            if partner is None or partner.name not in MOVES:
                continue
            before, behind = self.left.computing(partner), self.right.computing(op)
            one, other = self._partners.get(id(before)), self._partners.get(id(behind))
            if (one is not None and one is not behind) or (
                other is not None and other is not before
            ):
                del self._partners[id(op)], self._partners[id(partner)]

    def _match(self, key: Key) -> bool:
        """Pairs operators with equal keys if both files have the same number of them."""
        groups: dict[Hashable, tuple[list[OperatorInfo], list[OperatorInfo]]] = {}
        for op in self._unpaired(self.left):
            groups.setdefault(key(self.left, op, self._left_inputs[id(op)]), ([], []))[0].append(op)
        for op in self._unpaired(self.right):
            inputs = tuple(self.values.get(index) for index in self._right_inputs[id(op)])
            groups.setdefault(key(self.right, op, inputs), ([], []))[1].append(op)
        groups.pop(None, None)
        found = False
        for ones, others in groups.values():
            if len(ones) == len(others) and (key is not _INPUTS_ONLY or len(ones) == 1):
                for one, other in zip(ones, others, strict=True):
                    found |= self._pair(one, other)
        return found

    def _match_ends(self) -> bool:
        """Pairs the last operators of layers that the files compute with different operators."""
        lasts = [
            {layer: op for op in flow.operators for layer in flow.layers[id(op)]}
            for flow in (self.left, self.right)
        ]
        left, right = ({id(op) for op in self._unpaired(f)} for f in (self.left, self.right))
        found = False
        for layer in sorted(lasts[0].keys() & lasts[1].keys()):
            one, other = lasts[0][layer], lasts[1][layer]
            unpaired = id(one) in left and id(other) in right
            if unpaired and one.outputs[0].shape == other.outputs[0].shape:
                found |= self._pair(one, other)
        return found

    def _pair(self, one: OperatorInfo, other: OperatorInfo) -> bool:
        if self._ends_elsewhere(one, other) or len(one.outputs) != len(other.outputs):
            return False
        self._partners[id(one)], self._partners[id(other)] = other, one
        for left, right in zip(one.outputs, other.outputs, strict=True):
            self.values[right.index] = left.index
        return True

    def _ends_elsewhere(self, one: OperatorInfo, other: OperatorInfo) -> bool:
        """Whether a layer is fused into one of the operators and comes after the other."""
        mentioned = set(self.left.layers[id(one)]), set(self.right.layers[id(other)])
        later = self.left.next_layers(one), self.right.next_layers(other)
        ahead = (mentioned[0] - mentioned[1]) & (later[1] - later[0])
        return bool(ahead or (mentioned[1] - mentioned[0]) & (later[0] - later[1]))

    def unpaired_producers(self, flow: Flow, op: OperatorInfo) -> Iterator[OperatorInfo]:
        """Yields the operators before an operator that only its own file has, nearest first.

        Args:
            flow: The flow of the operator's file, `left` or `right`.
            op: The operator.
        """
        while inputs := flow.inputs_of(op):
            producer = flow.producers.get(inputs[0])
            if producer is None or id(producer) in self._partners:
                return
            yield producer
            op = producer

    def _unpaired(self, flow: Flow) -> list[OperatorInfo]:
        return [op for op in flow.operators if id(op) not in self._partners]

    def without_counterpart(self) -> dict[str, list[OperatorInfo]]:
        """Returns the quantized file's operators without a counterpart, by layer."""
        found: dict[str, list[OperatorInfo]] = {}
        for op in self._unpaired(self.right):
            found.setdefault(self.right.owner(op), []).append(op)
        return found

    def unaligned(self) -> Iterator[Unaligned]:
        """Yields the operators without a counterpart and why; those on shapes are left out."""
        sides = ("float", self.left, self.right), ("quantized", self.right, self.left)
        for side, flow, other in sides:
            for op in self._unpaired(flow):
                if carries_numbers(op.outputs[0]):
                    yield Unaligned(flow.owner(op), op.name, side, self._reason(op, other))

    def _reason(self, op: OperatorInfo, other: Flow) -> str:
        similar = sum(_form(one) == _form(op) for one in self._unpaired(other))
        if similar:
            return (
                f"neither inputs nor names show which of {similar} similar operators is its "
                "counterpart"
            )
        shape = "x".join(map(str, op.outputs[0].shape))
        return f"the other file computes no {op.name} of shape {shape} at this place"
