"""Placement of fake quantization: rebuilds each call of a model with the rounding of its file.

The model is in normal form (:mod:`tfnas.quantization.normal_form`). An output is rounded where the
converter puts it into a tensor of the file, so once after a fused convolution, BatchNormalization
and ReLU; :mod:`tfnas.quantization.range_plan` says where that is.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import keras

from tfnas.graph.functional import Call, LayerCopies, Value
from tfnas.graph.registered_layers import registered_form, weight_of
from tfnas.quantization.activation_forms import PReluForm
from tfnas.quantization.attention_forms import ScoresRange
from tfnas.quantization.call_forms import (
    is_zeroed,
    masked_scores,
    multiplies_by_table,
    number_compared,
    product_equation,
    repeats_places,
)
from tfnas.quantization.einsum_forms import IntegerEinsum, IntegerRepeat
from tfnas.quantization.embedding_forms import QuantizedTable
from tfnas.quantization.fake_quant import MIN_RANGE_16, FakeQuant
from tfnas.quantization.file_plan import JOINS, FilePlan
from tfnas.quantization.fused_lstm import QuantizedFusedLstm
from tfnas.quantization.inner_ranges import BITS as INNER_BITS
from tfnas.quantization.integer_layers import (
    ChannelAffine,
    FloatConcatenate,
    FloatInput,
    SixteenBitForm,
    needs_16_bit_form,
)
from tfnas.quantization.layer_roles import Role, is_channel_norm, relu_limit
from tfnas.quantization.mask_forms import compared
from tfnas.quantization.normalization_forms import NormalizationForm
from tfnas.quantization.placed_ranges import PlacedRanges
from tfnas.quantization.quantized_kernel import QuantizedKernel, QuantizedWeights
from tfnas.quantization.range_plan import RangePlan
from tfnas.quantization.recurrent_cells import fits_fused_lstm, has_mask, initial_states
from tfnas.quantization.recurrent_forms import QuantizedRecurrent
from tfnas.quantization.residual_sums import ResidualSums


class FakeQuantBuilder:
    """Rebuilds the calls of a model in normal form, with fake quantization.

    Args:
        plan: What the file does with each call.
    """

    def __init__(self, plan: FilePlan) -> None:
        self.plan, self.spec, self.flow = plan, plan.spec, plan.flow
        self.places = RangePlan(plan)
        self.least = MIN_RANGE_16 if self.spec.activation_bits > 8 else 0.0
        self.copies = LayerCopies(kept_names=[call.operation.name for call in plan.flow.calls])
        self.ranges = PlacedRanges(self.spec)
        self.sums = ResidualSums(self.flow, self.spec, plan.own_role, self.copies)
        self._entered: dict[Value, Any] = {}
        self._wrappers: dict[int, Any] = {}
        self._calls: Counter[int] = Counter()
        # On grids without a range of their own: rows of rounded tables, and masked scores.
        self._on_grids: list[Any] = []
        self._read: dict[Value, Any] = {}  # the new tensors of the values that calls have read

    def on_input(self, tensor: Any) -> Any:
        """Returns a model input with fake quantization; integer inputs stay as they are."""
        return self.ranges.rounded("input", tensor) if "float" in str(tensor.dtype) else tensor

    def apply(self, call: Call, tensors: list[Any]) -> list[Any]:
        """Returns the outputs of a call, rounded where the file rounds them."""
        self._read.update(zip(call.inputs, tensors, strict=True))
        if self.plan.is_in_front(call):
            return self.copies.call(call, tensors)
        tensors = [self._entering(v, t) for v, t in zip(call.inputs, tensors, strict=True)]
        tensors = self.sums.inputs(call, tensors, self.ranges.rounded)
        call_role = self.plan.role(call)
        if self.sums.has(call):
            (output,) = self._outputs(call, tensors, call_role)
            return [self.sums.rounded(call.name, output)]
        if call_role is Role.RELU:
            return [self._clipped(call, tensors[0])]
        if self.plan.stays_float(call):
            tensors = [self._as_float(call, tensor) for tensor in tensors]
        tensors, joint = self._merged_from_floats(call, tensors)
        if call_role is Role.TABLE:
            outputs = [self._from_table(call, tensors[0])]
        else:
            outputs = self._outputs(call, tensors, call_role)
        if call_role is Role.SAME:
            return [
                self._moved(value, tensors[0], tensor)
                for value, tensor in zip(call.outputs, outputs, strict=True)
            ]
        masked = masked_scores(call) is not None and call_role is not Role.FLOAT
        if masked or self.plan.has_scale_of_table(call):
            self._on_grids += outputs
            return outputs
        return self._rounded(call, tensors, outputs, joint)

    def _entering(self, value: Value, tensor: Any) -> Any:
        """A number of the preprocessing, or beside it, as the file takes it; others as they are."""
        if value not in self.plan.entries:
            return tensor
        if value not in self._entered:
            self._entered[value] = self.on_input(tensor)
        return self._entered[value]

    def _clipped(self, call: Call, tensor: Any) -> Any:
        """The output of a ReLU, which its range clips."""
        producer = self.flow.producers.get(call.inputs[0])
        after_float = producer is not None and self.plan.stays_float(producer)
        limit = relu_limit(call)
        if self.places.takes_the_range_of_a_merge(call, call.outputs[0]):
            maximum = None if limit == math.inf else limit
            return keras.layers.ReLU(maximum, name=self.copies.unique(call.name))(tensor)
        return self.ranges.rounded(call.name, tensor, relu=limit, after_float=after_float)

    def _rounded(
        self, call: Call, tensors: list[Any], outputs: list[Any], joint: FakeQuant | None
    ) -> list[Any]:
        """The outputs of a call that computes, each rounded to the range that the file gives it."""
        same = self.ranges.of(tensors[-1]) if is_zeroed(call) else None
        if same is not None:
            return [self.ranges.rounded_again(same, outputs[0])]
        if joint is not None:
            return [self.ranges.rounded_to(joint, outputs[0])]
        if (same := self._range_of_all(call, tensors)) is not None:
            return [self.ranges.rounded_again(same, tensor) for tensor in outputs]
        after_float = self.plan.stays_float(call)
        fixed_ranges = self.places.fixed_ranges(call)
        return [
            tensor
            if self.places.is_rounded_later(call, value)
            or self.places.takes_the_range_of_a_merge(call, value)
            else self.ranges.rounded(call.name, tensor, fixed=fixed, after_float=after_float)
            for value, tensor, fixed in zip(call.outputs, outputs, fixed_ranges, strict=True)
        ]

    def _moved(self, value: Value, tensor: Any, output: Any) -> Any:
        """The output of a call that moves values; rounded again beside the values themselves.

        Where a Concatenate joins a tensor and, say, its Permute, the converter finds no range for
        the second by itself. Rounding to the same range changes no value.
        """
        layer = self.ranges.of(tensor)
        if layer is None or "float" not in value.dtype:
            return output
        if self.places.joins_its_source(value):
            return self.ranges.rounded_again(layer, output)
        return self.ranges.note(layer, output)

    def _range_of_all(self, call: Call, tensors: list[Any]) -> FakeQuant | None:
        """The range that all inputs of a Concatenate or Maximum have, where it is one.

        A range of its own would differ by the rounding of its ends, and the converter fails on
        scales that are nearly equal; and on fixed ranges that are equal, as of an LSTM's two
        directions, where the file fixes the batch.
        """
        if not self.places.rounds_to_one_range(call):
            return None
        known = [layer for layer in map(self.ranges.of, tensors) if layer is not None]
        one = len({layer.fixed or id(layer) for layer in known}) == 1
        return known[0] if one and len(known) == len(tensors) else None

    def _merged_from_floats(
        self, call: Call, tensors: list[Any]
    ) -> tuple[list[Any], FakeQuant | None]:
        """Rounds outputs of loops and tables to the range of the Concatenate or Maximum behind.

        The converter sees a float operator for them, whose output can't get the joint range by
        itself. Where the output is moved on its way (sliced, reshaped), it is rounded before: what
        moves numbers has one range in the file.

        Returns:
            The inputs of the call, and the layer of its range; None where there are none of them.
        """
        floats = [self.places.is_float_to_the_converter(value) for value in call.inputs]
        if not any(floats) or not self.places.rounds_to_one_range(call):
            return tensors, None
        if self._range_of_all(call, tensors) is not None:
            return tensors, None
        joint = self.ranges.new(call.name)
        pairs = zip(call.inputs, tensors, floats, strict=True)
        return [self._rounded_ahead(v, joint) if ahead else t for v, t, ahead in pairs], joint

    def _rounded_ahead(self, value: Value, joint: FakeQuant) -> Any:
        """The output of a loop or table in a joint range, moved as `value` is.

        What a slice reads has the range of its output. A Dropout is no operator of the file, and is
        not called again: in training it would drop other numbers for another reader.
        """
        if not self.places.is_moved(value):
            return joint(self._read[value], ahead=True)
        move = self.flow.producers[value]
        before = self._rounded_ahead(move.inputs[0], joint)
        beside = [self._read[each] for each in move.inputs[1:]]
        outputs = self.copies.call(move, [before, *beside])
        return outputs[move.outputs.index(value)]

    # Outputs before they are rounded.

    def _outputs(self, call: Call, tensors: list[Any], call_role: Role) -> list[Any]:
        """Returns the outputs of a call before they are rounded."""
        bits = self.plan.weight_bits(call)
        if bits is not None:
            makers = {
                Role.KERNEL: self._with_kernel,
                Role.WEIGHTS: self._registered,
                Role.LOOP: self._recurrent,
                Role.ROWS: self._rows_of_table,
            }
            if call_role in makers:
                return makers[call_role](call, tensors, bits)
        placed = None if call_role is Role.FLOAT else self._integer_form(call, tensors)
        if placed is not None:
            return [placed]
        standalone = call_role is Role.NORM and not self.plan.folds(call) and is_channel_norm(call)
        if call_role is Role.AFFINE or standalone:
            options = {k: v for k, v in call.arguments(tensors)[1].items() if k == "training"}
            bits = INNER_BITS if self.sums.has(call) else self.spec.activation_bits
            return [self._wrapped(call, ChannelAffine, bits=bits)(tensors[0], **options)]
        if call_role is Role.FORM:
            options = {"bits": self.spec.activation_bits, "momentum": self.spec.momentum}
            form = PReluForm if call.kind == "PReLU" else NormalizationForm
            if self.sums.are_read(call):
                options["input_bits"] = INNER_BITS
            return [self._wrapped(call, form, **options)(tensors[0])]
        few = self.spec.activation_bits <= 8 or call_role is Role.FLOAT
        if not few and needs_16_bit_form(call):
            inputs = tensors if len(tensors) > 1 else tensors[0]
            return [self._wrapped(call, SixteenBitForm)(inputs)]
        if call.kind == "Concatenate" and self.plan.stays_float(call):
            name = self.copies.unique(f"float_{call.operation.name}")
            layer = keras.layers.Concatenate(axis=call.operation.axis, name=call.operation.name)
            return [FloatConcatenate(layer, name=name)(tensors)]
        return self.copies.call(call, tensors)

    def _with_kernel(self, call: Call, tensors: list[Any], bits: int) -> list[Any]:
        settings = {"least": self.least, **self.plan.kernel_settings(call, bits)}
        return [self._wrapped(call, QuantizedKernel, **settings)(tensors[0], **self._use(call))]

    def _rows_of_table(self, call: Call, tensors: list[Any], bits: int) -> list[Any]:
        settings = {"bits": self.plan.table_bits(call, bits), "least": self.least}
        options = {"reverse": True} if multiplies_by_table(call) else {}
        table = self._wrapped(call, QuantizedTable, **settings)
        return [table(tensors[0], **options, **self._use(call))]

    def _registered(self, call: Call, tensors: list[Any], bits: int) -> list[Any]:
        """A registered layer, whose kernels have 8 bits: those that any operator takes."""
        args, kwargs = call.arguments(tensors)
        axes: Any = registered_form(call.operation)
        for name in axes:
            weight_of(call.operation, name, "integer_form")
        layer = self._wrapped(call, QuantizedWeights, axes=axes, least=self.least)
        layer.build_from_config({"layer": call.operation.get_build_config()})
        return list(keras.tree.flatten(layer(*args, **kwargs, **self._use(call))))

    def _recurrent(self, call: Call, tensors: list[Any], bits: int) -> list[Any]:
        """A recurrent layer, whose kernels have 8 bits and one scale each."""
        spec, calls = self.spec, self.flow.calls_of(call.operation)
        settings = {
            "state_bits": max(spec.state_bits, spec.activation_bits),
            "ranges": spec.ranges,
            "momentum": spec.momentum,
            "least": self.least,
            "starts": self.plan.starts(call),
        }
        fused = spec.recurrent == "fused" and all(map(fits_fused_lstm, calls))
        wrapper = QuantizedFusedLstm if fused else QuantizedRecurrent
        given: dict[str, Any] = {"mask": tensors[-1]} if has_mask(call) else {}
        if states := initial_states(call, tensors):
            given["initial_state"] = states
        outputs = self._wrapped(call, wrapper, **settings)(tensors[0], **given)
        return list(keras.tree.flatten(outputs))

    def _integer_form(self, call: Call, tensors: list[Any]) -> Any:
        """The output of a call that another layer computes in an integer file; None for others."""
        if self.plan.is_taken_up(call):
            return tensors[0]
        equation = product_equation(call)
        if equation is not None:
            name = self._name_of(call, "product", f"integer_{call.operation.name}")
            return IntegerEinsum(equation, name=name)(*tensors)
        number = number_compared(call)
        known = None if number is None else self.ranges.of(tensors[0])
        if number is not None and known is not None:
            return compared(number, tensors[0], known, self.copies)
        if repeats_places(call):
            name = self._name_of(call, "repeat", f"integer_{call.operation.name}")
            settings = call.operation.repeats, call.operation.axis
            return IntegerRepeat(*settings, name=name)(tensors[0])
        if masked_scores(call) is None:
            return None
        args, kwargs = call.arguments(tensors)
        mask, scores = (*args, *kwargs.values())[:2]
        name = self._name_of(call, "scores", call.name.replace("/", "_"))
        name = f"{name}_range"
        return ScoresRange(name=name, **self.ranges.settings())(scores, mask)

    def _name_of(self, call: Call, part: str, other: str) -> str:
        """A free name: of a part of attention that of its layer and the part."""
        inside = self.plan.origins.name_inside(call, part)
        return self.copies.unique(other) if inside is None else self.copies.unique_part(inside)

    def _as_float(self, call: Call, tensor: Any) -> Any:
        """A rounded tensor as an operator with kernels takes it that stays float."""
        masked = self.plan.reads_masked_floats(call)  # beyond the numbers of 16 bits
        on_grid = masked or any(tensor is each for each in self._on_grids)
        if (self.ranges.of(tensor) is None and not on_grid) or call.kind == "Concatenate":
            return tensor
        weights = getattr(call.operation, "weights", ())
        kernels = any(len(weight.shape) > 1 for weight in weights)
        if not (self.plan.is_island(call) or kernels or call.kind in JOINS):
            return tensor
        name = self.copies.unique(f"float_{call.operation.name}_input")
        return FloatInput(INNER_BITS if masked else self.spec.activation_bits, name=name)(tensor)

    def _from_table(self, call: Call, tensor: Any) -> Any:
        """A function of single numbers, which the file holds as a table of its values.

        It is float between two casts; :mod:`tfnas.tflite.activation_tables` makes the table.
        """
        before, after = (
            FloatInput(INNER_BITS, name=self.copies.unique(f"float_{call.operation.name}_{end}"))
            for end in ("input", "output")
        )
        (output,) = self.copies.call(call, [before(tensor)])
        return after(output)

    def _use(self, call: Call) -> dict[str, int]:
        """The argument that tells the calls of a shared layer apart; none for its first one."""
        use = self._calls[id(call.operation)]
        self._calls[id(call.operation)] += 1
        return {"use": use} if use else {}

    def _wrapped(self, call: Call, wrapper: type, **settings: Any) -> Any:
        key = id(call.operation)
        if key not in self._wrappers:
            layer = self.copies.of(call.operation)
            settings = {"name": f"quantized_{layer.name}", **settings}
            self._wrappers[key] = wrapper(layer, dtype=layer.dtype_policy, **settings)
        return self._wrappers[key]
