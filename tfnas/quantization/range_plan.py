"""Where an integer file rounds: which outputs have ranges of their own, and which share one."""

from __future__ import annotations

import math

from tfnas.graph.functional import Call, Value
from tfnas.graph.idle_layers import IDLE
from tfnas.quantization.call_forms import EQUAL_MASKED, is_equal_scores, masked_scores
from tfnas.quantization.file_plan import FilePlan
from tfnas.quantization.layer_roles import Role, fixed_range, fuses_relu, relu_limit, role
from tfnas.quantization.recurrent_cells import output_ranges

_FLOAT_TO_THE_CONVERTER = (Role.LOOP, Role.TABLE)


class RangePlan:
    """Answers about the ranges of the outputs of calls.

    Args:
        plan: What the file does with each call.
    """

    def __init__(self, plan: FilePlan) -> None:
        self.plan = plan

    def fixed_ranges(self, call: Call) -> list[tuple[float, float] | None]:
        """The ranges of the outputs that need no data; None for others."""
        bits, call_role = self.plan.spec.activation_bits, self.plan.role(call)
        if call_role is Role.LOOP and not self.plan.stays_float(call):
            return output_ranges(call.operation, bits, self.plan.starts(call))
        found = fixed_range(call, bits) if call_role is Role.FIXED else None
        found = (EQUAL_MASKED, 0.0) if is_equal_scores(call) else found
        return [found] * len(call.outputs)

    def is_rounded_later(self, call: Call, value: Value) -> bool:
        """Whether an output needs no rounding here: the next call is fused, or it is an integer."""
        if "float" not in value.dtype:  # "bfloat16" holds "float" too
            return True
        reader = self.plan.only_reader(value)
        if reader is None:
            return False
        if self.plan.role(reader) is Role.RELU:
            return fuses_relu(call)
        if self.plan.has_masked_floats(call) and self.plan.reads_masked_floats(reader):
            return True
        if masked_scores(reader) is not None and not self.plan.stays_float(reader):
            return role(call) is Role.COMPUTE  # its ranges are those of the places that count
        if self.plan.is_taken_up(reader):
            return True
        return self.plan.role(reader) is Role.NORM and self.plan.folds(reader)

    def has_one_range(self, call: Call) -> bool:
        """Whether a call's inputs and output have one range in the file."""
        joins = call.kind == "Concatenate" and self.plan.spec.activation_bits == 8
        merges = call.kind in ("Maximum", "Minimum") and self.plan.role(call) is Role.COMPUTE
        return (joins or merges) and not self.plan.stays_float(call)

    def rounds_to_one_range(self, call: Call) -> bool:
        """Whether a call with one range is where that range is placed, with no ReLU behind it."""
        return self.has_one_range(call) and not self.is_rounded_later(call, call.outputs[0])

    def takes_the_range_of_a_merge(self, call: Call, value: Value) -> bool:
        """Whether the file gives a value the range of the Concatenate or Maximum that it goes into.

        The converter does so where a value is used nowhere else and its operator can round to any
        range; it is rounded after the merge then. Any other value has its own range, and the file
        rounds it a second time, to the joint one.
        """
        reader = self.plan.only_reader(value)
        if reader is None or not self.rounds_to_one_range(reader):
            return False
        if self.plan.role(call) is Role.RELU:
            producer = self.plan.flow.producers.get(call.inputs[0])
            return (
                producer is not None
                and relu_limit(call) in (6.0, math.inf)  # others are operators of their own
                and self.plan.flow.uses[call.inputs[0]] == 1
                and fuses_relu(producer)
                and self._takes_any_range(producer)
            )
        return self._takes_any_range(call)

    def _takes_any_range(self, call: Call) -> bool:
        roles = (Role.KERNEL, Role.NORM, Role.AFFINE, Role.COMPUTE, *_FLOAT_TO_THE_CONVERTER)
        found = self.plan.role(call) in roles and not self.has_one_range(call)
        return found and not self.plan.stays_float(call)

    def joins_its_source(self, value: Value) -> bool:
        """Whether a call with one range reads a moved value beside what it was moved from."""
        source = self.plan.source(value)
        return any(
            self.has_one_range(reader)
            and any(v is not value and self.plan.source(v) is source for v in reader.inputs)
            for reader in self.plan.flow.readers[value]
        )

    def is_float_to_the_converter(self, value: Value) -> bool:
        """Whether a value is the output of a loop or of a table, perhaps moved since.

        The converter sees float operators for both, which become integers after it.
        """
        producer = self.plan.flow.producers.get(self.plan.source(value))
        if producer is None or self.plan.role(producer) not in _FLOAT_TO_THE_CONVERTER:
            return False
        return not self.plan.stays_float(producer)

    def is_moved(self, value: Value) -> bool:
        """Whether an operator of the file has moved a value, as a slice or a reshape."""
        source = self.plan.source(value)
        while value is not source:
            move = self.plan.flow.producers[value]
            if move.kind not in IDLE:
                return True
            value = move.inputs[0]
        return False
