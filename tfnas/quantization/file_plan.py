"""What an integer file does with each call of a model: its role and its bits.

The model is in normal form (:mod:`tfnas.quantization.normal_form`). Nothing is built here; the
answers say what the converter does, and :mod:`tfnas.quantization.fake_quant_placement` follows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfnas.graph.functional import Call, Value, Walk
from tfnas.graph.kernel_state import channels_share_values
from tfnas.graph.preprocessing import calls_in_front
from tfnas.quantization.call_forms import (
    masked_scores,
    meets_constants,
    multiplies_by_table,
    number_behind,
)
from tfnas.quantization.embedding_forms import table_bits
from tfnas.quantization.layer_registry import WITH_WEIGHTS
from tfnas.quantization.layer_roles import (
    ONE_SCALE,
    Role,
    activation_name,
    is_channel_norm,
    kernel_bits,
    role,
)
from tfnas.quantization.normal_form import Origins
from tfnas.quantization.recurrent_cells import initial_states
from tfnas.quantization.spec import QuantSpec

_MOVES = (Role.SAME,)
JOINS = ("Concatenate", "Maximum", "Minimum")  # their inputs and their output have one scale


class FilePlan:
    """Answers about the calls of a model in normal form.

    Args:
        flow: The model's calls.
        spec: The number formats.
        origins: See :func:`tfnas.quantization.normal_form.normal_form`.
        fixed: Whether the grids of kernels can be fixed, see
            :class:`~tfnas.quantization.quantized_kernel.QuantizedKernel`.
    """

    def __init__(self, flow: Walk, spec: QuantSpec, origins: Origins, fixed: bool = False) -> None:
        self.flow, self.spec, self.origins, self.fixed = flow, spec, origins, fixed
        # Preprocessing is not in the file, whose inputs are the values that it makes.
        front = calls_in_front(flow)
        self._front = {id(call) for call in front}
        inside = {v for call in flow.calls if not self.is_in_front(call) for v in call.inputs}
        # Preprocessing reads numbers that are not rounded: bins of rounded ones would be others.
        self.raw = {value for call in front for value in call.inputs}
        # What others read of its numbers is rounded where they do, once.
        self.entries = (self.raw | {v for call in front for v in call.outputs}) & inside
        # Their constants are of 8 bits, see layer_roles.
        self._met = meets_constants(flow) if spec.activation_bits > 8 else set()

    def is_in_front(self, call: Call) -> bool:
        """Whether a call is preprocessing, which is not in the file."""
        return id(call) in self._front

    def role(self, call: Call) -> Role:
        """The role of a call; FLOAT where the specification leaves a layer without kernel float."""
        found = role(call, self.spec.activation_bits)
        return Role.FLOAT if self.is_island(call) or id(call) in self._met else found

    def own_role(self, call: Call) -> Role:
        """The role of a call that has operators of its own in the file; FLOAT for any other."""
        alone = not self.is_in_front(call) and not self.is_taken_up(call)
        return self.role(call) if alone and not self.stays_float(call) else Role.FLOAT

    def is_island(self, call: Call) -> bool:
        """Whether the specification leaves a layer float that has no kernel."""
        if role(call) in WITH_WEIGHTS or self.is_in_front(call) or self.origins.is_part(call):
            return False
        own, names = self.origins.identity(call), self.origins.of_kernel(call)
        if names is not None and role(call) is Role.RELU:
            return False  # the activation of a layer with a kernel, clipped as its output is
        if self.reads_masked_floats(call):
            return True
        return self.spec.leaves_float(*own, *(names or own), activation_name(call))

    def reads_masked_floats(self, call: Call) -> bool:
        """Whether a call is the softmax of scores whose masked places are floats, as low as -1e9.

        Integers with a range that reaches there would have one step for all other scores.
        """
        if activation_name(call) != "softmax":
            return False
        producer = self.flow.producers.get(call.inputs[0])
        return producer is not None and self.has_masked_floats(producer)

    def has_masked_floats(self, call: Call) -> bool:
        """Whether a call gives masked places a very low number, and is left float."""
        return masked_scores(call) is not None and self.is_island(call)

    def stays_float(self, call: Call) -> bool:
        """Whether a call is float in the file, by its kind or by the specification."""
        if self.is_in_front(call):
            return False
        call_role = self.role(call)
        if call_role is Role.NORM and self.folds(call):
            return self.stays_float(self.flow.producers[call.inputs[0]])
        if call_role is Role.NORM:
            return not is_channel_norm(call)
        if call.kind in JOINS and self.spec.activation_bits == 8:
            joins_floats = any(self._comes_from_float(value) for value in call.inputs)
            return joins_floats or self.is_island(call)
        return call_role is Role.FLOAT or (
            call_role in WITH_WEIGHTS and self.weight_bits(call) is None
        )

    def _comes_from_float(self, value: Value) -> bool:
        """Whether a value is the output of a float layer, perhaps clipped or moved since.

        An integer concatenation or maximum has one scale for all inputs, which the converter can't
        give to the output of a float operator.
        """
        producer = self.flow.producers.get(self._traced_back(value, (Role.RELU, Role.SAME)))
        return producer is not None and self.stays_float(producer)

    def source(self, value: Value) -> Value:
        """The value that a value comes from by any number of calls that move values."""
        return self._traced_back(value, _MOVES)

    def _traced_back(self, value: Value, roles: tuple[Role, ...]) -> Value:
        producer = self.flow.producers.get(value)
        while producer is not None and self.role(producer) in roles:
            value = producer.inputs[0]
            producer = self.flow.producers.get(value)
        return value

    def only_reader(self, value: Value) -> Call | None:
        """The call that reads a value, where that is its only use."""
        readers = self.flow.readers[value]
        return readers[0] if readers and self.flow.uses[value] == 1 else None

    # Weights.

    def weight_bits(self, call: Call) -> int | None:
        """Bits of a kernel, by the name of its layer or of the layer that it was split off."""
        own = call.name, call.kind
        return self.spec.weight_bits(*own, *(self.origins.of_kernel(call) or own))

    def kernel_settings(self, call: Call, bits: int) -> dict[str, Any]:
        """How a kernel is quantized whose layer has these bits.

        A Dense layer with a scale for each channel, or with fixed grids of 4 bits, is a convolution
        in the file.
        """
        bits = kernel_bits(call.kind, bits, self.spec.activation_bits)
        shared = _channels_share_values(call)
        if self.spec.has_channel_scales and not shared:
            as_convolution = call.kind in ("Dense", "EinsumDense")
        else:
            four = self.fixed and bits == 4 and call.kind == "Dense"
            as_convolution = four and len(call.inputs[0].shape) <= 4
        return {
            "bits": bits,
            "one_scale": shared,
            "as_convolution": as_convolution,
            "fixed": self.fixed,
            "factor": self._factor(call) or 1.0,
        }

    def has_scale_of_table(self, call: Call) -> bool:
        """Whether a call's output is on the grid of its table, and needs no range of its own."""
        is_lookup = role(call) is Role.ROWS and not multiplies_by_table(call)
        bits = self.weight_bits(call) if is_lookup and self.spec.activation_bits == 8 else None
        return bits is not None and self.table_bits(call, bits) == 8

    def table_bits(self, call: Call, bits: int) -> int:
        """Returns the bits of the table of a call whose layer has these."""
        calls = self.flow.calls_of(call.operation)
        return table_bits(call.operation, bits, any(map(multiplies_by_table, calls)))

    def starts(self, call: Call) -> bool:
        """Whether some call of a recurrent layer gives it the states before the first step."""
        return any(map(initial_states, self.flow.calls_of(call.operation)))

    # What is computed by the operator before it.

    def folds(self, norm: Call) -> bool:
        """Whether a BatchNormalization is folded into the kernel before it."""
        producer = self.flow.producers.get(norm.inputs[0])
        if producer is None or not is_channel_norm(norm):
            return False
        if self.role(producer) is not Role.KERNEL or self.flow.uses[norm.inputs[0]] != 1:
            return False
        # A kernel with one scale can't take up a factor per channel.
        return producer.kind not in ONE_SCALE

    def is_taken_up(self, call: Call) -> bool:
        """Whether a call is a Rescaling that the kernel before it takes up."""
        producer = self.flow.producers.get(call.inputs[0]) if call.kind == "Rescaling" else None
        if producer is None or role(producer) is not Role.KERNEL or self.stays_float(producer):
            return False
        return self._factor(producer) is not None

    def _factor(self, call: Call) -> float | None:
        """The number that an EinsumDense takes up from the Rescaling behind each of its calls."""
        if call.kind != "EinsumDense":
            return None
        readers = [self.only_reader(c.outputs[0]) for c in self.flow.calls_of(call.operation)]
        found = {
            None if reader is None or self.is_island(reader) else number_behind(reader)
            for reader in readers
        }
        return found.pop() if len(found) == 1 else None


def _channels_share_values(call: Call) -> bool:
    kernel = np.asarray(call.operation.kernel)
    if "Depthwise" in call.kind:
        kernel = kernel.reshape(*kernel.shape[:-2], -1)
    return channels_share_values(kernel)
