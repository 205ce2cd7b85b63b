"""Which operators of two `.tflite` files of one model compute the same numbers.

A float file and a quantized one of the same model differ in more than their numbers:
quantizers put QUANTIZE, DEQUANTIZE and casts between operators, the converter appends
counters to names, quantization-aware models have layers with other names, and what is
fused may differ. So operators are paired by what they take first (an operator of the same
kind that takes the same values is the same), names and layers tell those apart that this
leaves open, and by names or layers alone go those whose inputs are not known to be the same.
What is left has no counterpart, and is told with the reason.
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


@dataclasses.dataclass(frozen=True, eq=False)
class AlignedOperators:
    """An operator of the float file and its counterpart in the quantized one."""

    layer: str
    reference: OperatorInfo
    operator: OperatorInfo


def carries_numbers(tensor: TensorInfo) -> bool:
    """Whether a tensor holds real numbers, as floats or quantized: no shapes, no indices."""
    return tensor.dtype.startswith("float") or bool(tensor.zero_points)


class Flow:
    """The operators of a file that compute, and the values that they hand on.

    Operators that only change a number's format are none: what they give is the value that
    they take.

    Args:
        artifact: The file.
        names: The layers of its model.
    """

    def __init__(self, artifact: Artifact, names: LayerNames) -> None:
        self.graph = artifact.graph
        self.operators = [op for op in self.graph.operators if not _is_helper(op)]
        self.makers = {t.index: op for op in self.graph.operators for t in op.outputs}
        self._users: dict[int, list[OperatorInfo]] = defaultdict(list)
        for op in self.graph.operators:
            for tensor in op.inputs:
                self._users[tensor.index].append(op)
        self.inputs = {tensor.index for tensor in self.graph.inputs}
        self._ends = {tensor.index for tensor in artifact.outputs}
        self._names = names
        layers = dict(zip((t.index for t in artifact.outputs), names.outputs, strict=False))
        self.layers = {id(op): self._mentioned(op, layers) for op in self.operators}

    def _mentioned(self, op: OperatorInfo, ends: dict[int, str]) -> tuple[str, ...]:
        """A layer that ends the model has lost its name to the output's."""
        found = self._names.mentioned(op.outputs[0].name)
        last = ends.get(self.settled(op.outputs[0]).index) or ends.get(op.outputs[0].index)
        return found or ((last,) if last else ())

    def owner(self, op: OperatorInfo) -> str:
        """Returns the layer that an operator is of: the one with the kernel, where one has."""
        constants = (self.graph.constant_behind(tensor) for tensor in op.inputs[1:])
        named = [n for c in constants if c for n in self._names.mentioned(c.name)]
        known = [*named, *self.layers[id(op)]]
        kernels = [name for name in known if name in self._names.with_kernel]
        return (kernels or [*self.layers[id(op)][-1:], op.layer])[0]

    def source(self, tensor: TensorInfo) -> TensorInfo:
        """Returns the tensor that an operator gave, or an input, before changes of format."""
        maker = self.makers.get(tensor.index)
        while maker is not None and _is_helper(maker):
            tensor = maker.inputs[0]
            maker = self.makers.get(tensor.index)
        return tensor

    def settled(self, tensor: TensorInfo) -> TensorInfo:
        """Returns the tensor in the format that all its users read, where it has one."""
        found = tensor
        users = self._users[tensor.index]
        while len(users) == 1 and _is_helper(users[0]) and tensor.index not in self._ends:
            tensor = users[0].outputs[0]
            found = tensor if users[0].name == "QUANTIZE" else found
            users = self._users[tensor.index]
        return found

    def taken(self, op: OperatorInfo) -> tuple[int, ...]:
        """Returns the values that an operator takes: no constants, no shapes."""
        sources = (self.source(tensor) for tensor in op.inputs)
        return tuple(
            tensor.index
            for tensor in sources
            if tensor.index in self.inputs or (tensor.constant is None and carries_numbers(tensor))
        )

    def next_layers(self, op: OperatorInfo) -> set[str]:
        """Returns the layers of the operators that take what an operator gives."""
        pending, found = list(op.outputs), set[str]()
        while pending:
            for user in self._users[pending.pop().index]:
                if _is_helper(user):
                    pending += user.outputs
                else:
                    found.update(self.layers[id(user)])
        return found


def _is_helper(op: OperatorInfo) -> bool:
    """Whether an operator only changes the format of numbers."""
    cast = op.name == "CAST" and all(
        tensor.dtype.startswith("float") for tensor in (op.inputs[0], op.outputs[0])
    )
    return cast or op.name in ("QUANTIZE", "DEQUANTIZE", "DENSIFY")


Key = Callable[[Flow, OperatorInfo, tuple[int | None, ...]], Hashable]


def _form(op: OperatorInfo) -> tuple[Hashable, ...]:
    return op.name, op.outputs[0].shape


def _name(op: OperatorInfo) -> str:
    """The output's name without the model's and without the converter's counters."""
    parts = (part.split("/", 1)[-1] for part in op.outputs[0].name.split(";"))
    return ";".join(re.sub(r"(?<=[a-zA-Z])\d+$", "", part) for part in parts)


def _by(what: Callable[[Flow, OperatorInfo], Hashable], inputs: bool) -> Key:
    def key(flow: Flow, op: OperatorInfo, taken: tuple[int | None, ...]) -> Hashable:
        told = what(flow, op)
        if told is None or (inputs and None in taken):
            return None
        return (*_form(op), told, taken if inputs else None)

    return key


_LAYERS = [
    lambda flow, op: _name(op),
    lambda flow, op: flow.layers[id(op)] or None,
    lambda flow, op: frozenset(flow.layers[id(op)]) or None,
    lambda flow, op: flow.owner(op),
]
# What has to be equal, the surest first.
_KEYS = [
    *(_by(what, inputs=True) for what in _LAYERS),
    _by(lambda flow, op: "alone", inputs=True),
    *(_by(what, inputs=False) for what in _LAYERS),
]
_ALONE = _KEYS[len(_LAYERS)]


class Alignment:
    """The pairs of operators of two files of one model.

    Args:
        names: The layers of the model.
        reference: The float file.
        artifact: The quantized file.
    """

    def __init__(self, names: LayerNames, reference: Artifact, artifact: Artifact) -> None:
        self.left, self.right = Flow(reference, names), Flow(artifact, names)
        self.values: dict[int, int] = {}  # of the quantized file -> of the float file
        ends = sorted_inputs(reference), sorted_inputs(artifact)
        for one, other in zip(*ends, strict=True):
            self.values[other.index] = one.index
        self._partners: dict[int, OperatorInfo] = {}
        self._taken = {id(op): self.right.taken(op) for op in self.right.operators}
        self._own = {id(op): self.left.taken(op) for op in self.left.operators}
        while any(self._match(key) for key in _KEYS) or self._match_ends():
            pass
        self.pairs = tuple(
            AlignedOperators(self.left.owner(partner), partner, op)
            for op in self.right.operators
            if (partner := self._partners.get(id(op))) is not None
        )

    def _match(self, key: Key) -> bool:
        """Pairs operators whose keys are equal, as many in one file as in the other."""
        groups: dict[Hashable, tuple[list[OperatorInfo], list[OperatorInfo]]] = {}
        for op in self._open(self.left):
            groups.setdefault(key(self.left, op, self._own[id(op)]), ([], []))[0].append(op)
        for op in self._open(self.right):
            taken = tuple(self.values.get(index) for index in self._taken[id(op)])
            groups.setdefault(key(self.right, op, taken), ([], []))[1].append(op)
        groups.pop(None, None)
        found = False
        for ones, others in groups.values():
            if len(ones) == len(others) and (key is not _ALONE or len(ones) == 1):
                for one, other in zip(ones, others, strict=True):
                    found |= self._pair(one, other)
        return found

    def _match_ends(self) -> bool:
        """Pairs the last operators of a layer that the files compute in different ways."""
        lasts = [
            {layer: op for op in flow.operators for layer in flow.layers[id(op)]}
            for flow in (self.left, self.right)
        ]
        left, right = ({id(op) for op in self._open(f)} for f in (self.left, self.right))
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
        """Whether a layer is fused into one operator and comes after the other."""
        mentioned = set(self.left.layers[id(one)]), set(self.right.layers[id(other)])
        later = self.left.next_layers(one), self.right.next_layers(other)
        ahead = (mentioned[0] - mentioned[1]) & (later[1] - later[0])
        return bool(ahead or (mentioned[1] - mentioned[0]) & (later[0] - later[1]))

    def lone_makers(self, flow: Flow, op: OperatorInfo) -> Iterator[OperatorInfo]:
        """Yields what stands before an operator in its file alone, the nearest first.

        Args:
            flow: The left or the right one.
            op: An operator of it.
        """
        while taken := flow.taken(op):
            maker = flow.makers.get(taken[0])
            if maker is None or id(maker) in self._partners:
                return
            yield maker
            op = maker

    def _open(self, flow: Flow) -> list[OperatorInfo]:
        return [op for op in flow.operators if id(op) not in self._partners]

    def without_counterpart(self) -> dict[str, list[OperatorInfo]]:
        """Returns the operators of the quantized file that have none, by layer."""
        found: dict[str, list[OperatorInfo]] = {}
        for op in self._open(self.right):
            found.setdefault(self.right.owner(op), []).append(op)
        return found

    def unaligned(self) -> Iterator[Unaligned]:
        """Yields the operators on real numbers that have no counterpart, and why."""
        sides = ("float", self.left, self.right), ("quantized", self.right, self.left)
        for side, flow, other in sides:
            for op in self._open(flow):
                if carries_numbers(op.outputs[0]):
                    yield Unaligned(flow.owner(op), op.name, side, self._reason(op, other))

    def _reason(self, op: OperatorInfo, other: Flow) -> str:
        alike = sum(_form(one) == _form(op) for one in self._open(other))
        if alike:
            return f"neither inputs nor names tell which of {alike} like it is its counterpart"
        shape = "x".join(map(str, op.outputs[0].shape))
        return f"the other file computes no {op.name} of shape {shape} at this place"
