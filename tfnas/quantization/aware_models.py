"""Questions about a quantization-aware model: its ranges, its formats, what stays float."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tfnas.graph.batchnorm import layers_of
from tfnas.graph.functional import Call, Skipped, Value, Walk, walk
from tfnas.graph.output_names import name_outputs
from tfnas.graph.preprocessing import calls_in_front
from tfnas.keras_private import all_layers, followed_graph
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.legacy.tfmot_qat import is_quantized
from tfnas.quantization.activation_forms import PReluForm
from tfnas.quantization.call_forms import meets_constants
from tfnas.quantization.einsum_forms import IntegerEinsum, IntegerRepeat
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.file_plan import JOINS
from tfnas.quantization.float_islands import BY_SPECIFICATION, JOINS_FLOATS, KEPT_OUT
from tfnas.quantization.inner_ranges import InnerRange
from tfnas.quantization.integer_layers import (
    ChannelAffine,
    FloatConcatenate,
    FloatInput,
    OneHotCategories,
    SixteenBitForm,
)
from tfnas.quantization.layer_registry import WITH_WEIGHTS
from tfnas.quantization.layer_roles import (
    Role,
    is_channel_norm,
    reason_for_float,
    role,
)
from tfnas.quantization.normalization_forms import NormalizationForm
from tfnas.quantization.quantized_kernel import QuantizedKernel
from tfnas.quantization.recurrent_forms import step_layers
from tfnas.quantization.spec import QuantSpec
from tfnas.quantization.trained_layers import has_form_of_layers, trained_parts, without_record

# Layers that compute with rounded numbers.
ROUNDED_LAYERS = (
    QuantizedKernel,
    ChannelAffine,
    NormalizationForm,
    PReluForm,
    SixteenBitForm,
    OneHotCategories,
    FloatConcatenate,
)


def fake_quants(model: keras.Model) -> list[FakeQuant]:
    """Returns the FakeQuant layers of a model; an empty list if it is not quantization-aware."""
    return layers_of(model, FakeQuant)


def ranges_between_layers(model: keras.Model) -> list[FakeQuant]:
    """Returns the FakeQuant layers that have the bits of activations.

    Recurrent steps and normalizations count in bits of their own.
    """
    inside = {id(range_) for layer in step_layers(model) for range_ in layer.fake_quants}
    return [
        each
        for each in fake_quants(model)
        if id(each) not in inside and not isinstance(each, InnerRange)
    ]


def float_output_names(model: keras.Model) -> list[str]:
    """Returns the names of the layers that gave the outputs before a model became aware.

    Example:
        >>> inputs = keras.Input((4,))
        >>> model = keras.Model(inputs, keras.layers.Dense(2, "softmax", name="head")(inputs))
        >>> import tfnas
        >>> aware = tfnas.quantize_aware(model)
        >>> aware.layers[-1].name, float_output_names(aware)
        ('head_softmax_range', ['head'])

    Args:
        model: A quantization-aware model.
    """
    flow = walk(model)
    return [_float_name(value, flow) for value in flow.outputs]


def functions_of_outputs(model: keras.Model, flow: Walk) -> dict[int, keras.layers.Activation]:
    """Returns the functions that were parts of the layers that give several outputs.

    Keras saves no names of outputs, so the float model needs layers of these names at its ends.

    Args:
        model: A quantization-aware model.
        flow: Its calls.

    Returns:
        The layer of a function, by the id of the layer with a kernel that it was a part of.
    """
    found = {}
    names = _names_by_layers(model)
    for value, name in zip(flow.outputs, names, strict=False) if len(names) > 1 else ():
        function = _unrounded(flow.producers.get(value), flow)
        if function is None or not isinstance(function.operation, keras.layers.Activation):
            continue
        before = _unrounded(flow.producers.get(function.inputs[0]), flow)
        if before is None or not isinstance(before.operation, QuantizedKernel):
            continue
        if before.operation.factor != 1.0:  # it stands between the layer and its function
            continue
        kernel, activation = before.operation, function.operation
        is_part = activation.name == f"{name}_{activation.activation.__name__}"
        is_alone = len(flow.calls_of(kernel)) == 1 and len(flow.readers[before.outputs[0]]) == 1
        if kernel.layer.name == name and is_part and is_alone and _reads_alone(function, flow):
            found[id(kernel)] = activation
    return found


def _reads_alone(call: Call, flow: Walk) -> bool:
    """Whether a layer is called once, and nothing else reads what it reads."""
    return len(flow.calls_of(call.operation)) == len(flow.readers[call.inputs[0]]) == 1


def _unrounded(call: Call | None, flow: Walk) -> Call | None:
    """The call whose output is rounded, by a range that is no ReLU; a call that rounds nothing."""
    while call and isinstance(call.operation, FakeQuant) and call.operation.relu is None:
        call = flow.producers.get(call.inputs[0])
    return call


def keep_output_names(model: keras.Model) -> None:
    """Keeps the names of a quantization-aware model's outputs, which Keras does not save.

    Args:
        model: The model, whose outputs have the names of the float model; changed in place.
    """
    for layer, name in zip(_last_ranges(model), _names_by_layers(model), strict=False):
        if layer is not None and layer.name != name:
            layer.output_name = name


def restore_output_names(model: keras.Model) -> None:
    """Gives the outputs of a loaded model the names that :func:`keep_output_names` has kept.

    Args:
        model: Any model, such as a distiller of quantization-aware ones; changed in place.
    """
    if not fake_quants(model):
        return
    for each in all_layers(model):
        if isinstance(each, keras.Model) and (names := _names_by_layers(each)):
            kept = [getattr(layer, "output_name", None) for layer in _last_ranges(each)]
            pairs = zip(kept, names, strict=True)
            name_outputs(each, [name or own for name, own in pairs])


def _names_by_layers(model: keras.Model) -> list[str]:
    """The names of outputs that are those of layers; none where the model has other names."""
    by_key = isinstance(getattr(model, "output", None), dict)
    return [] if by_key or followed_graph(model) is None else getattr(model, "output_names", [])


def _last_ranges(model: keras.Model) -> list[FakeQuant | None]:
    """The range of each output; None where another layer, or a model inside, gives it."""
    flow = walk(model)
    calls = [flow.producers.get(value) for value in flow.outputs]
    layers = [call.operation for call in calls if call and call.name == call.operation.name]
    own = {layer.name: layer for layer in layers if isinstance(layer, FakeQuant)}
    return [own.get(call.name) if call else None for call in calls]


def _float_name(value: Value, flow: Walk) -> str:
    """Name of the float layer whose output a tensor is."""
    call = flow.producers.get(value)
    if call is None:
        return f"input_{flow.inputs.index(value)}"
    layer = call.operation
    if isinstance(layer, FakeQuant):
        return _float_name(call.inputs[0], flow)
    if isinstance(layer, QuantizedKernel | ChannelAffine):
        return str(layer.layer.name)
    if isinstance(layer, keras.layers.Activation) and len(call.inputs) == 1:
        before = _float_name(call.inputs[0], flow)  # a function that was part of a layer
        return before if layer.name == f"{before}_{layer.activation.__name__}" else call.name
    return call.name


def check_not_quantized(model: keras.Model) -> None:
    """Raises ValueError where a model is quantization-aware already."""
    if fake_quants(model):
        raise ValueError(f"model must not be quantized yet, got {model.name!r}, which is")


def has_4_bit_kernel(model: keras.Model) -> bool:
    """Returns whether a quantization-aware model rounds some kernel to 4 bits."""
    return any(kernel.bits == 4 for kernel in layers_of(model, QuantizedKernel))


def has_channel_scales(model: keras.Model) -> bool:
    """Returns whether a quantization-aware model has Dense layers with a scale per channel."""
    dense = keras.layers.Dense | keras.layers.EinsumDense
    kernels = [k for k in layers_of(model, QuantizedKernel) if isinstance(k.layer, dense)]
    # With 4 bits they have them anyway.
    return any(k.as_convolution for k in [k for k in kernels if k.bits > 4] or kernels)


def trained_formats(model: keras.Model) -> QuantSpec | None:
    """Returns the number formats of a quantization-aware model; None for any other model.

    What single layers have beside them (floats, wider sums, scales of channels) is in the model.

    Args:
        model: A Keras 3 model, or a tf_keras model, which tfmot may have quantized.
    """
    if is_tf_keras(model):
        return QuantSpec.of("int8") if is_quantized(model) else None
    if not isinstance(model, keras.Model) or not fake_quants(model):
        return None
    if max((layer.bits for layer in ranges_between_layers(model)), default=8) > 8:
        return QuantSpec.of("int16x8")
    return QuantSpec.of("int8x4" if has_4_bit_kernel(model) else "int8")


def unquantized_layers(model: keras.Model) -> list[Skipped]:
    """Returns the layers of a quantization-aware model that stay float, with reasons.

    Example:
        >>> import keras, tfnas
        >>> layers = [keras.Input((4, 8)), keras.layers.UnitNormalization(axis=1)]
        >>> spec = tfnas.QuantSpec("int8", layers={"UnitNormalization": "float32"})
        >>> aware = tfnas.quantize_aware(keras.Sequential(layers), spec)
        >>> tfnas.unquantized_layers(aware)[0].reason
        'no integer form of UnitNormalization over other axes than the last ones'

    Args:
        model: A model returned by :func:`tfnas.quantize_aware`.

    Returns:
        A record for each layer or operation: its name, kind and reason.
    """
    skipped = []
    flow = walk(model)
    front = {id(call) for call in calls_in_front(flow)}
    bits = max((layer.bits for layer in ranges_between_layers(model)), default=8)
    floats = {
        value: call.operation.bits
        for call in flow.calls
        if isinstance(call.operation, FloatInput)
        for value in call.outputs
    }
    met = meets_constants(flow) if bits > 8 else set()
    parts = trained_parts(model, flow)
    whole = {part.path + name for part in parts for name in part.layers.whole}
    bare = {id(call) for call in without_record(flow, parts)}
    for call in flow.calls:
        if id(call) in front:
            skipped.append(Skipped(call.name, call.kind, KEPT_OUT))
            continue
        if isinstance(call.operation, FloatConcatenate):
            reason = JOINS_FLOATS if _joins_floats(flow, call) else BY_SPECIFICATION
            skipped.append(Skipped(call.operation.layer.name, "Concatenate", reason))
        if isinstance(
            call.operation, (FakeQuant, FloatInput, IntegerEinsum, IntegerRepeat, *ROUNDED_LAYERS)
        ):
            continue
        call_role = role(call, bits)
        if id(call) in met and call_role is not Role.FLOAT:
            reason = f"no 16-bit form of {call.kind} with rows at constant places"
            skipped.append(Skipped(call.name, call.kind, reason))
            continue
        if call_role is Role.NORM and not is_channel_norm(call):
            reason = "normalizes another axis than the last, or more than 4 dimensions"
            skipped.append(Skipped(call.name, call.kind, reason))
        elif call_role in WITH_WEIGHTS or _is_left_float(call, call_role, floats):
            joins = call.kind in JOINS and _joins_floats(flow, call)
            reason = JOINS_FLOATS if joins else BY_SPECIFICATION
            skipped.append(Skipped(call.name, call.kind, reason))
        elif call_role is Role.FLOAT:
            by_choice = has_form_of_layers(call, bits) if id(call) in bare else call.name in whole
            reason = BY_SPECIFICATION if by_choice else reason_for_float(call)
            skipped.append(Skipped(call.name, call.kind, reason))
    return skipped


def _joins_floats(flow: Walk, call: Call) -> bool:
    """Whether an input of a call is the output of a float layer, perhaps moved since."""
    for value in call.inputs:
        producer = flow.producers.get(value)
        while producer is not None and _passes(producer):
            producer = flow.producers.get(producer.inputs[0])
        rounding = getattr(producer, "operation", None)
        if isinstance(rounding, FakeQuant) and rounding.after_float:
            return True
    return False


def _passes(call: Call) -> bool:
    return isinstance(call.operation, FloatInput) or role(call) is Role.SAME


def _is_left_float(call: Call, call_role: Role, floats: Mapping[Any, int]) -> bool:
    """Whether a call without a kernel is float though it has an integer form.

    A function that becomes a table has a :class:`FloatInput` of more bits before it.
    """
    if call_role is Role.FORM:
        return True
    bits = [floats[value] for value in call.inputs if value in floats]
    return (
        bool(bits)
        and call_role is not Role.FLOAT
        and (call_role is not Role.TABLE or max(bits) <= 8)
    )
