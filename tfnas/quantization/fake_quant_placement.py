"""Placement of fake quantization: rebuilds each call of a model with the rounding of its file.

The model is in normal form (:mod:`tfnas.quantization.normal_form`). An output is rounded where the
converter puts it into a tensor of the file, so once after a fused convolution, BatchNormalization
and ReLU.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from typing import Any

import keras
import numpy as np

from tfnas.graph.functional import Call, LayerCopies, Walk
from tfnas.graph.kernel_state import channels_share_values
from tfnas.graph.preprocessing import calls_in_front
from tfnas.graph.registered_layers import registered_form, weight_of
from tfnas.quantization.activation_forms import PReluForm
from tfnas.quantization.attention_forms import ScoresRange
from tfnas.quantization.call_forms import (
    EQUAL_MASKED,
    is_equal_scores,
    is_zeroed,
    masked_scores,
    meets_constants,
    number_behind,
    number_compared,
    product_equation,
    repeats_places,
)
from tfnas.quantization.einsum_forms import IntegerEinsum, IntegerRepeat
from tfnas.quantization.embedding_forms import QuantizedTable, table_bits
from tfnas.quantization.fake_quant import MIN_RANGE_16, FakeQuant
from tfnas.quantization.fused_lstm import QuantizedFusedLstm
from tfnas.quantization.inner_ranges import BITS as INNER_BITS
from tfnas.quantization.integer_layers import (
    ChannelAffine,
    FloatConcatenate,
    FloatInput,
    SixteenBitForm,
    needs_16_bit_form,
)
from tfnas.quantization.layer_registry import WITH_WEIGHTS
from tfnas.quantization.layer_roles import (
    ONE_SCALE,
    Role,
    activation_name,
    fixed_range,
    fuses_relu,
    is_channel_norm,
    kernel_bits,
    relu_limit,
    role,
)
from tfnas.quantization.mask_forms import compared
from tfnas.quantization.normal_form import Origins, identity_of
from tfnas.quantization.normalization_forms import NormalizationForm
from tfnas.quantization.quantized_kernel import QuantizedKernel, QuantizedWeights
from tfnas.quantization.recurrent_cells import (
    fits_fused_lstm,
    has_mask,
    initial_states,
    output_ranges,
)
from tfnas.quantization.recurrent_forms import QuantizedRecurrent
from tfnas.quantization.residual_sums import ResidualSums
from tfnas.quantization.spec import QuantSpec

_MOVES = (Role.SAME,)


class FakeQuantBuilder:
    """Rebuilds the calls of a model in normal form, with fake quantization.

    Args:
        flow: The model's calls.
        spec: The number formats.
        origins: See :func:`tfnas.quantization.normal_form.normal_form`.
        fixed: Whether the grids of kernels can be fixed, see :class:`QuantizedKernel`.
    """

    def __init__(self, flow: Walk, spec: QuantSpec, origins: Origins, fixed: bool = False) -> None:
        self.flow, self.spec, self.origins, self.fixed = flow, spec, origins, fixed
        self.least = MIN_RANGE_16 if spec.activation_bits > 8 else 0.0
        self.copies = LayerCopies()
        self.producers = {value: call for call in flow.calls for value in call.outputs}
        consumers = [(value, call) for call in flow.calls for value in call.inputs]
        self.consumers = dict(consumers)
        self.uses = Counter([*(value for value, _ in consumers), *flow.outputs])
        # Preprocessing is not in the file, whose inputs are the values that it makes.
        front = calls_in_front(flow)
        self.front = {id(call) for call in front}
        inside = {
            value for call in flow.calls if id(call) not in self.front for value in call.inputs
        }
        # Preprocessing reads numbers that are not rounded: bins of rounded ones would be others.
        self.raw = {value for call in front for value in call.inputs}
        # What others read of its numbers is rounded where they do, once.
        self.entries = (self.raw | {v for call in front for v in call.outputs}) & inside
        self.entered: dict[Any, Any] = {}
        # Their constants are of 8 bits, see layer_roles.
        self.met = meets_constants(flow) if spec.activation_bits > 8 else set()
        self.wrappers: dict[int, Any] = {}
        self.names: Counter[str] = Counter()
        self.calls: Counter[int] = Counter()
        # By the id of a tensor of the new model: the tensor, and the layer that rounded it.
        self.rounded: dict[int, tuple[Any, FakeQuant]] = {}
        self.rows: list[Any] = []  # rows of rounded tables, which have the scale of the table
        # By the values that calls have read: the tensors of the new model.
        self.made: dict[Any, Any] = {}
        self.sums = ResidualSums(flow, spec, functools.partial(_own_role, self), self.copies)

    def on_input(self, tensor: Any) -> Any:
        """Returns a model input with fake quantization; integer inputs stay as they are."""
        return self._fake_quant("input", tensor) if "float" in str(tensor.dtype) else tensor

    def apply(self, call: Call, tensors: list[Any]) -> list[Any]:
        """Returns the outputs of a call, rounded where the file rounds them."""
        self.made.update(zip(call.inputs, tensors, strict=True))
        if id(call) in self.front:
            return self.copies.call(call, tensors)
        tensors = [self._entering(v, t) for v, t in zip(call.inputs, tensors, strict=True)]
        tensors = self.sums.inputs(call, tensors, self._fake_quant)
        call_role = self._role(call)
        if self.sums.has(call):
            (output,) = self._outputs(call, tensors, call_role)
            return [self.sums.rounded(call.name, output)]
        if call_role is Role.RELU:
            producer = self.producers.get(call.inputs[0])
            after_float = producer is not None and self._stays_float(producer)
            limit = relu_limit(call)
            if self._takes_the_range_of_a_merge(call, call.outputs[0]):
                maximum = None if limit == math.inf else limit
                return [keras.layers.ReLU(maximum, name=self.copies.unique(call.name))(tensors[0])]
            return [self._fake_quant(call.name, tensors[0], relu=limit, after_float=after_float)]
        if self._stays_float(call):
            tensors = [self._as_float(call, tensor) for tensor in tensors]
        tensors, joint = _merged_from_loops(self, call, tensors)
        if call_role is Role.TABLE:
            outputs = [self._from_table(call, tensors[0])]
        else:
            outputs = self._outputs(call, tensors, call_role)
        if call_role is Role.SAME:
            return [
                self._moved(value, tensors[0], tensor)
                for value, tensor in zip(call.outputs, outputs, strict=True)
            ]
        if masked_scores(call) is not None and call_role is not Role.FLOAT:
            return outputs
        if is_zeroed(call) and id(tensors[-1]) in self.rounded:
            return [self._rounded_as(self.rounded[id(tensors[-1])][1], outputs[0])]
        if _has_scale_of_table(self, call):
            self.rows += outputs
            return outputs
        if joint is not None:
            return [_rounded_by(self, joint, outputs[0])]
        if same := self._range_of_all(call, tensors):
            return [self._rounded_as(same, tensor) for tensor in outputs]
        after_float = self._stays_float(call)
        ranges = self._fixed_ranges(call, call_role)
        return [
            tensor
            if self._rounded_later(call, value) or self._takes_the_range_of_a_merge(call, value)
            else self._fake_quant(call.name, tensor, fixed=fixed, after_float=after_float)
            for value, tensor, fixed in zip(call.outputs, outputs, ranges, strict=True)
        ]

    def _entering(self, value: Any, tensor: Any) -> Any:
        """A number of the preprocessing, or beside it, as the file takes it; others as they are."""
        if value not in self.entries:
            return tensor
        if value not in self.entered:
            self.entered[value] = self.on_input(tensor)
        return self.entered[value]

    def _outputs(self, call: Call, tensors: list[Any], call_role: Role) -> list[Any]:
        """Returns the outputs of a call before they are rounded."""
        bits = self._kernel_bits(call)
        if call_role is Role.KERNEL and bits is not None:
            bits = kernel_bits(call.kind, bits, self.spec.activation_bits)
            shared = _channels_share_values(call)
            settings = {
                "bits": bits,
                "least": self.least,
                "one_scale": shared,
                "as_convolution": _becomes_a_convolution(self, call, bits, shared),
                "fixed": self.fixed,
                "factor": _factor(self, call) or 1.0,
            }
            return [self._wrapped(call, QuantizedKernel, **settings)(tensors[0], **self._use(call))]
        if call_role is Role.WEIGHTS and bits is not None:
            return _registered(self, call, tensors)
        if call_role is Role.LOOP and bits is not None:
            return _recurrent(self, call, tensors)
        if call_role is Role.ROWS and bits is not None:
            settings = {"bits": table_bits(call.operation, bits), "least": self.least}
            return [self._wrapped(call, QuantizedTable, **settings)(tensors[0], **self._use(call))]
        placed = None if call_role is Role.FLOAT else _integer_form(self, call, tensors)
        if placed is not None:
            return [placed]
        standalone = call_role is Role.NORM and not self._folds(call) and is_channel_norm(call)
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
        if self.spec.activation_bits > 8 and needs_16_bit_form(call):
            inputs = tensors if len(tensors) > 1 else tensors[0]
            return [self._wrapped(call, SixteenBitForm)(inputs)]
        if call.kind == "Concatenate" and self._stays_float(call):
            name = self.copies.unique(f"float_{call.operation.name}")
            layer = keras.layers.Concatenate(axis=call.operation.axis, name=call.operation.name)
            return [FloatConcatenate(layer, name=name)(tensors)]
        return self.copies.call(call, tensors)

    def _fixed_ranges(self, call: Call, call_role: Role) -> list[tuple[float, float] | None]:
        """The ranges of the outputs that need no data; None for others."""
        bits = self.spec.activation_bits
        if call_role is Role.LOOP and not self._stays_float(call):
            return output_ranges(call.operation, bits, _starts(self, call))
        found = fixed_range(call, bits) if call_role is Role.FIXED else None
        found = (EQUAL_MASKED, 0.0) if is_equal_scores(call) else found
        return [found] * len(call.outputs)

    def _use(self, call: Call) -> dict[str, int]:
        """The argument that tells the calls of a shared layer apart; none for its first one."""
        use = self.calls[id(call.operation)]
        self.calls[id(call.operation)] += 1
        return {"use": use} if use else {}

    def _kernel_bits(self, call: Call) -> int | None:
        """Bits of a kernel, by the name of its layer or of the layer that it was split off."""
        own = call.name, call.kind
        return self.spec.weight_bits(*own, *self.origins.get(id(call.operation), own))

    def _stays_float(self, call: Call) -> bool:
        """Whether a call is float in the file, by its kind or by the specification."""
        if id(call) in self.front:
            return False
        call_role = self._role(call)
        if call_role is Role.NORM and self._folds(call):
            return self._stays_float(self.producers[call.inputs[0]])
        if call_role is Role.NORM:
            return not is_channel_norm(call)
        if call.kind == "Concatenate" and self.spec.activation_bits == 8:
            return any(self._comes_from_float(value) for value in call.inputs)
        return call_role is Role.FLOAT or (
            call_role in WITH_WEIGHTS and self._kernel_bits(call) is None
        )

    def _comes_from_float(self, value: Any) -> bool:
        """Whether a value is the output of a float layer, perhaps clipped or moved since.

        An integer concatenation has one scale for all inputs, which the converter can't give to
        the output of a float operator.
        """
        producer = self.producers.get(self._source(value, (Role.RELU, Role.SAME)))
        return producer is not None and self._stays_float(producer)

    def _source(self, value: Any, roles: tuple[Role, ...]) -> Any:
        """The value that a value comes from by any number of calls of these roles."""
        producer = self.producers.get(value)
        while producer is not None and self._role(producer) in roles:
            value = producer.inputs[0]
            producer = self.producers.get(value)
        return value

    def _folds(self, norm: Call) -> bool:
        """Whether a BatchNormalization is folded into the kernel before it."""
        producer = self.producers.get(norm.inputs[0])
        if not is_channel_norm(norm):
            return False
        if (
            producer is None
            or self._role(producer) is not Role.KERNEL
            or self.uses[norm.inputs[0]] != 1
        ):
            return False
        # A kernel with one scale can't take up a factor per channel.
        return producer.kind not in ONE_SCALE

    def _rounded_later(self, call: Call, value: Any) -> bool:
        """Whether an output needs no rounding here: the next call is fused, or it is an integer."""
        consumer = self.consumers.get(value)
        if consumer is None or self.uses[value] != 1 or "float" not in value.dtype:
            return "float" not in value.dtype  # "bfloat16" holds "float" too
        if self._role(consumer) is Role.RELU:
            return fuses_relu(call)
        if masked_scores(consumer) is not None:
            return role(call) is Role.COMPUTE  # its ranges are those of the places that count
        if _is_taken_up(self, consumer):
            return True
        return self._role(consumer) is Role.NORM and self._folds(consumer)

    def _takes_the_range_of_a_merge(self, call: Call, value: Any) -> bool:
        """Whether the file gives a value the range of the Concatenate or Maximum that it goes into.

        The converter does so where a value is used nowhere else and its operator can round to any
        range; it is rounded after the merge then. Any other value has its own range, and the file
        rounds it a second time, to the joint one.
        """
        consumer = self.consumers.get(value)
        if consumer is None or self.uses[value] != 1 or not self._has_one_range(consumer):
            return False
        if self._rounded_later(consumer, consumer.outputs[0]):
            return False  # a ReLU is between the merge and its range
        if self._role(call) is Role.RELU:
            producer = self.producers.get(call.inputs[0])
            return (
                producer is not None
                and relu_limit(call) in (6.0, math.inf)  # others are operators of their own
                and self.uses[call.inputs[0]] == 1
                and fuses_relu(producer)
                and self._takes_any_range(producer)
            )
        return self._takes_any_range(call)

    def _has_one_range(self, call: Call) -> bool:
        """Whether a call's inputs and output have one range in the file."""
        joins = call.kind == "Concatenate" and self.spec.activation_bits == 8
        merges = call.kind in ("Maximum", "Minimum") and self._role(call) is Role.COMPUTE
        return (joins or merges) and not self._stays_float(call)

    def _takes_any_range(self, call: Call) -> bool:
        roles = (Role.KERNEL, Role.NORM, Role.AFFINE, Role.COMPUTE, Role.LOOP)
        return (
            self._role(call) in roles
            and not self._has_one_range(call)
            and not self._stays_float(call)
        )

    def _moved(self, value: Any, tensor: Any, output: Any) -> Any:
        """The output of a call that moves values; rounded again beside the values themselves.

        Where a Concatenate joins a tensor and, say, its Permute, the converter finds no range for
        the second by itself. Rounding to the same range changes no value.
        """
        if id(tensor) not in self.rounded or "float" not in value.dtype:
            return output
        layer = self.rounded[id(tensor)][1]
        source = self._source(value, _MOVES)
        joins = [user for user in self.flow.calls if value in user.inputs]
        if any(
            self._has_one_range(user)
            and any(v is not value and self._source(v, _MOVES) is source for v in user.inputs)
            for user in joins
        ):
            return self._rounded_as(layer, output)
        self.rounded[id(output)] = output, layer
        return output

    def _range_of_all(self, call: Call, tensors: list[Any]) -> FakeQuant | None:
        """The range that all inputs of a Concatenate or Maximum have, where it is one.

        A range of its own would differ by the rounding of its ends, and the converter fails on
        scales that are nearly equal; and on fixed ranges that are equal, as of an LSTM's two
        directions, where the file fixes the batch.
        """
        if not self._has_one_range(call) or self._rounded_later(call, call.outputs[0]):
            return None
        layers = {id(t): self.rounded[id(t)][1] for t in tensors if id(t) in self.rounded}
        one = len({layer.fixed or id(layer) for layer in layers.values()}) == 1
        return (
            next(iter(layers.values())) if one and all(id(t) in layers for t in tensors) else None
        )

    def _rounded_as(self, layer: FakeQuant, tensor: Any) -> Any:
        """A tensor of values that are on the grid of a range, rounded to it again.

        They are not observed again: their ends are rounded, and would widen the range.
        """
        output = layer(tensor, training=False, ahead=True)
        self.rounded[id(output)] = output, layer
        return output

    def _as_float(self, call: Call, tensor: Any) -> Any:
        """A rounded tensor as an operator with kernels takes it that stays float."""
        is_rounded = id(tensor) in self.rounded or any(tensor is rows for rows in self.rows)
        if not is_rounded or call.kind == "Concatenate":
            return tensor
        weights = getattr(call.operation, "weights", ())
        if not self._is_island(call) and all(len(weight.shape) < 2 for weight in weights):
            return tensor
        name = self.copies.unique(f"float_{call.operation.name}_input")
        return FloatInput(self.spec.activation_bits, name=name)(tensor)

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

    def _role(self, call: Call) -> Role:
        """The role of a call; FLOAT where the specification leaves a layer without kernel float."""
        found = role(call, self.spec.activation_bits)
        return Role.FLOAT if self._is_island(call) or id(call) in self.met else found

    def _is_island(self, call: Call) -> bool:
        """Whether the specification leaves a layer float that has no kernel."""
        if role(call) in WITH_WEIGHTS or id(call) in self.front:
            return False
        own = identity_of(call, self.origins)
        names = self.origins.get(id(call.operation), own)
        if names is not own and role(call) is Role.RELU:
            return (
                False  # the activation of a layer with a kernel, clipped as its output is rounded
            )
        return self.spec.leaves_float(*own, *names, activation_name(call))

    def _wrapped(self, call: Call, wrapper: type, **settings: Any) -> Any:
        key = id(call.operation)
        if key not in self.wrappers:
            layer = self.copies.of(call.operation)
            self.wrappers[key] = wrapper(layer, name=f"quantized_{layer.name}", **settings)
        return self.wrappers[key]

    def _fake_quant(self, after: str, tensor: Any, **settings: Any) -> Any:
        return _rounded_by(self, _new_range(self, after, **settings), tensor)


def _own_role(builder: FakeQuantBuilder, call: Call) -> Role:
    """The role of a call that has operators of its own in the file; FLOAT for any other."""
    alone = id(call) not in builder.front and not _is_taken_up(builder, call)
    return builder._role(call) if alone and not builder._stays_float(call) else Role.FLOAT


def _new_range(builder: FakeQuantBuilder, after: str, **settings: Any) -> FakeQuant:
    base = f"{after.replace('/', '_')}_range"
    builder.names[base] += 1
    count = builder.names[base]
    name = base if count == 1 else f"{base}_{count}"
    return FakeQuant(name=name, **_range_settings(builder), **settings)


def _rounded_by(builder: FakeQuantBuilder, layer: FakeQuant, tensor: Any) -> Any:
    output = layer(tensor)
    builder.rounded[id(output)] = output, layer
    return output


def _merged_from_loops(
    builder: FakeQuantBuilder, call: Call, tensors: list[Any]
) -> tuple[list[Any], FakeQuant | None]:
    """Rounds outputs of loops to the range of the Concatenate or Maximum that they go into.

    The converter sees a float operator for a loop, whose output can't get the joint range by
    itself. Where the output is moved on its way (dropped out, sliced), it is rounded before: a
    slice has one range in the file.

    Returns:
        The inputs of the call, and the layer of its range; None where there is no loop.
    """
    loops = [_is_from_a_loop(builder, value) for value in call.inputs]
    merges = any(loops) and builder._has_one_range(call)
    if not merges or builder._rounded_later(call, call.outputs[0]):
        return tensors, None
    if builder._range_of_all(call, tensors) is not None:
        return tensors, None
    joint = _new_range(builder, call.name)
    pairs = zip(call.inputs, tensors, loops, strict=True)
    return [_rounded_ahead(builder, v, joint) if loop else t for v, t, loop in pairs], joint


def _rounded_ahead(builder: FakeQuantBuilder, value: Any, joint: FakeQuant) -> Any:
    """The output of a loop in a joint range, moved as `value` is.

    What a slice reads has the range of its output; other moves are not called again, since a
    Dropout in training would drop other numbers for another reader.
    """
    if not _is_sliced(builder, value):
        return joint(builder.made[value], ahead=True)
    move = builder.producers[value]
    before = _rounded_ahead(builder, move.inputs[0], joint)
    beside = [builder.made[each] for each in move.inputs[1:]]
    outputs = builder.copies.call(move, [before, *beside])
    return outputs[move.outputs.index(value)]


def _is_sliced(builder: FakeQuantBuilder, value: Any) -> bool:
    """Whether a value is a slice of a loop's output, perhaps moved since."""
    source = builder._source(value, _MOVES)
    while value is not source:
        move = builder.producers[value]
        if move.kind == "GetItem":
            return True
        value = move.inputs[0]
    return False


def _is_from_a_loop(builder: FakeQuantBuilder, value: Any) -> bool:
    """Whether a value is the output of a loop, perhaps moved since."""
    producer = builder.producers.get(builder._source(value, _MOVES))
    if producer is None or builder._role(producer) is not Role.LOOP:
        return False
    return not builder._stays_float(producer)


def _integer_form(builder: FakeQuantBuilder, call: Call, tensors: list[Any]) -> Any:
    """The output of a call that another layer computes in an integer file; None for others."""
    if _is_taken_up(builder, call):
        return tensors[0]
    equation = product_equation(call)
    if equation is not None:
        name = builder.copies.unique(f"integer_{call.operation.name}")
        return IntegerEinsum(equation, name=name)(*tensors)
    number = number_compared(call)
    if number is not None and id(tensors[0]) in builder.rounded:
        return compared(number, tensors[0], builder.rounded[id(tensors[0])][1], builder.copies)
    if repeats_places(call):
        name = builder.copies.unique(f"integer_{call.operation.name}")
        settings = call.operation.repeats, call.operation.axis
        return IntegerRepeat(*settings, name=name)(tensors[0])
    if masked_scores(call) is None:
        return None
    args, kwargs = call.arguments(tensors)
    mask, scores = (*args, *kwargs.values())[:2]
    name = builder.copies.unique(f"{call.name.replace('/', '_')}_range")
    return ScoresRange(name=name, **_range_settings(builder))(scores, mask)


def _factor(builder: FakeQuantBuilder, call: Call) -> float | None:
    """The number that an EinsumDense takes up from the Rescaling behind each of its calls."""
    if call.kind != "EinsumDense":
        return None
    found = []
    for each in builder.flow.calls:
        if each.operation is call.operation:
            (value,) = each.outputs
            consumer = builder.consumers.get(value)
            if consumer is None or builder.uses[value] != 1:
                return None
            found.append(number_behind(consumer))
    return found[0] if len(set(found)) == 1 else None


def _is_taken_up(builder: FakeQuantBuilder, call: Call) -> bool:
    """Whether a call is a Rescaling that the kernel before it takes up."""
    producer = builder.producers.get(call.inputs[0]) if call.kind == "Rescaling" else None
    if producer is None or role(producer) is not Role.KERNEL or builder._stays_float(producer):
        return False
    return _factor(builder, producer) is not None


def _has_scale_of_table(builder: FakeQuantBuilder, call: Call) -> bool:
    """Whether a call's output is on the grid of its table, and so needs no range of its own."""
    is_table = role(call) is Role.ROWS and builder.spec.activation_bits == 8
    bits = builder._kernel_bits(call) if is_table else None
    return bits is not None and table_bits(call.operation, bits) == 8


def _recurrent(builder: FakeQuantBuilder, call: Call, tensors: list[Any]) -> list[Any]:
    """A recurrent layer, whose kernels have 8 bits and one scale each."""
    spec = builder.spec
    settings = {
        "state_bits": max(spec.state_bits, spec.activation_bits),
        "ranges": spec.ranges,
        "momentum": spec.momentum,
        "least": builder.least,
        "starts": _starts(builder, call),
    }
    fused = spec.recurrent == "fused" and all(map(fits_fused_lstm, _calls_of_layer(builder, call)))
    wrapper = QuantizedFusedLstm if fused else QuantizedRecurrent
    given = {"mask": tensors[-1]} if has_mask(call) else {}
    if states := initial_states(call, tensors):
        given["initial_state"] = states
    return list(
        keras.tree.flatten(builder._wrapped(call, wrapper, **settings)(tensors[0], **given))
    )


def _starts(builder: FakeQuantBuilder, call: Call) -> bool:
    """Whether some call of a recurrent layer gives it the states before the first step."""
    return any(map(initial_states, _calls_of_layer(builder, call)))


def _calls_of_layer(builder: FakeQuantBuilder, call: Call) -> list[Call]:
    return [each for each in builder.flow.calls if each.operation is call.operation]


def _registered(builder: FakeQuantBuilder, call: Call, tensors: list[Any]) -> list[Any]:
    """A registered layer, whose kernels have 8 bits: those that any operator takes."""
    args, kwargs = call.arguments(tensors)
    axes: Any = registered_form(call.operation)
    for name in axes:
        weight_of(call.operation, name, "integer_form")
    layer = builder._wrapped(call, QuantizedWeights, axes=axes, least=builder.least)
    layer.build_from_config({"layer": call.operation.get_build_config()})
    return list(keras.tree.flatten(layer(*args, **kwargs, **builder._use(call))))


def _range_settings(builder: FakeQuantBuilder) -> dict[str, Any]:
    spec = builder.spec
    settings = {name: getattr(spec, name) for name in ("ranges", "momentum", "percentile")}
    return {"bits": spec.activation_bits, **settings}


def _becomes_a_convolution(builder: FakeQuantBuilder, call: Call, bits: int, shared: bool) -> bool:
    """Whether a call of a kernel is a Dense layer with a scale for each channel.

    Args:
        builder: What rebuilds it.
        call: The call.
        bits: Bits of the kernel.
        shared: Whether its channels share their values, and so have one scale.
    """
    if builder.spec.has_channel_scales and not shared:
        return call.kind in ("Dense", "EinsumDense")
    return builder.fixed and bits == 4 and call.kind == "Dense" and len(call.inputs[0].shape) <= 4


def _channels_share_values(call: Call) -> bool:
    kernel = np.asarray(call.operation.kernel)
    if "Depthwise" in call.kind:
        kernel = kernel.reshape(*kernel.shape[:-2], -1)
    return channels_share_values(kernel)
