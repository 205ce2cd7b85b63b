"""Where a model's numbers are rounded: each call of its normal form with its roundings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np

from tfnas.graph.compatibility import channels_share_values
from tfnas.graph.functional import Call, LayerCopies, Walk
from tfnas.quantization.fake_quant import LEAST, FakeQuant
from tfnas.quantization.integer_layers import (
    ChannelAffine,
    FloatConcatenate,
    SixteenBitForm,
    needs_form,
)
from tfnas.quantization.layer_roles import (
    ONE_SCALE,
    Role,
    fixed_range,
    fuses_relu,
    is_channel_norm,
    kernel_bits,
    relu_limit,
    role,
)
from tfnas.quantization.normal_form import Origins
from tfnas.quantization.quantized_kernel import QuantizedKernel
from tfnas.quantization.spec import QuantSpec


class Builder:
    """Makes each call of a model in normal form anew, with its roundings."""

    def __init__(self, flow: Walk, spec: QuantSpec, origins: Origins) -> None:
        self.spec, self.origins = spec, origins
        self.copies = LayerCopies()
        self.makers = {value: call for call in flow.calls for value in call.outputs}
        users = [(value, call) for call in flow.calls for value in call.inputs]
        self.users = dict(users)
        self.uses = Counter([*(value for value, _ in users), *flow.outputs])
        self.wrappers: dict[int, Any] = {}
        self.names: Counter[str] = Counter()
        self.calls: Counter[int] = Counter()

    def on_input(self, tensor: Any) -> Any:
        """Returns what stands for an input: its rounding, where it is a float."""
        floats = "float" in str(tensor.dtype)
        return self._rounding("input", tensor) if floats else tensor

    def apply(self, call: Call, tensors: list[Any]) -> list[Any]:
        """Returns the outputs of a call, rounded where the file rounds them."""
        what = role(call)
        if what is Role.RELU:
            maker = self.makers.get(call.inputs[0])
            floats = maker is not None and self._stays_float(maker)
            limit = relu_limit(call)
            return [self._rounding(call.name, tensors[0], relu=limit, after_float=floats)]
        outputs = self._outputs(call, tensors, what)
        if what is Role.SAME:
            return outputs
        settings = {
            "fixed": fixed_range(call, self.spec.activation_bits) if what is Role.FIXED else None,
            "after_float": self._stays_float(call),
        }
        return [
            tensor
            if self._rounded_later(call, value)
            else self._rounding(call.name, tensor, **settings)
            for value, tensor in zip(call.outputs, outputs, strict=True)
        ]

    def _outputs(self, call: Call, tensors: list[Any], what: Role) -> list[Any]:
        """What a call gives, before it is rounded."""
        bits = self._bits(call)
        if what is Role.KERNEL and bits is not None:
            bits = kernel_bits(call.kind, bits, self.spec.activation_bits)
            use = self.calls[id(call.operation)]
            self.calls[id(call.operation)] += 1
            asked = {"use": use} if use else {}
            settings = {
                "bits": bits,
                "least": LEAST if self.spec.activation_bits > 8 else 0.0,
                "one_scale": _channels_share_values(call),
            }
            return [self._wrapped(call, QuantizedKernel, **settings)(tensors[0], **asked)]
        if what is Role.AFFINE or (what is Role.NORM and self._stands_alone(call)):
            asked = {k: v for k, v in call.arguments(tensors)[1].items() if k == "training"}
            bits = self.spec.activation_bits
            return [self._wrapped(call, ChannelAffine, bits=bits)(tensors[0], **asked)]
        if self.spec.activation_bits > 8 and needs_form(call):
            given = tensors if len(tensors) > 1 else tensors[0]
            return [self._wrapped(call, SixteenBitForm)(given)]
        if call.kind == "Concatenate" and self._stays_float(call):
            name = self.copies.unique(f"float_{call.operation.name}")
            join = keras.layers.Concatenate(axis=call.operation.axis, name=call.operation.name)
            return [FloatConcatenate(join, name=name)(tensors)]
        return self.copies.call(call, tensors)

    def _bits(self, call: Call) -> int | None:
        """Bits of a kernel, by the name of its own or of the layer that it comes from."""
        own = call.name, call.kind
        return self.spec.weight_bits(*own, *self.origins.get(id(call.operation), own))

    def _stands_alone(self, norm: Call) -> bool:
        return not self._folds(norm) and is_channel_norm(norm)

    def _stays_float(self, call: Call) -> bool:
        """Whether a call is float in the file, by its kind or by the specification."""
        what = role(call)
        if what is Role.NORM:
            folds = self._folds(call)
            return (
                self._stays_float(self.makers[call.inputs[0]])
                if folds
                else (not is_channel_norm(call))
            )
        if call.kind == "Concatenate" and self.spec.activation_bits == 8:
            return any(self._comes_from_float(value) for value in call.inputs)
        return what is Role.FLOAT or (what is Role.KERNEL and self._bits(call) is None)

    def _comes_from_float(self, value: Any) -> bool:
        """Whether the numbers of a value are those of a float layer.

        An integer concatenation has one scale for all, which the converter can't give to what
        it leaves float.
        """
        maker = self.makers.get(value)
        while maker is not None and role(maker) in (Role.RELU, Role.SAME):
            maker = self.makers.get(maker.inputs[0])
        return maker is not None and self._stays_float(maker)

    def _folds(self, norm: Call) -> bool:
        """Whether a BatchNormalization is folded into the kernel before it."""
        maker = self.makers.get(norm.inputs[0])
        if not is_channel_norm(norm):
            return False
        if maker is None or role(maker) is not Role.KERNEL or self.uses[norm.inputs[0]] != 1:
            return False
        # A kernel with one scale: a factor a channel can't be folded into it.
        return maker.kind not in ONE_SCALE

    def _rounded_later(self, call: Call, value: Any) -> bool:
        """Whether the converter fuses what comes next, so that it rounds once."""
        user = self.users.get(value)
        if user is None or self.uses[value] != 1 or "float" not in value.dtype:
            return "float" not in value.dtype  # bfloat16 is one too
        if role(user) is Role.RELU:
            return fuses_relu(call)
        return role(user) is Role.NORM and self._folds(user)

    def _wrapped(self, call: Call, wrapper: type, **settings: Any) -> Any:
        key = id(call.operation)
        if key not in self.wrappers:
            layer = self.copies.of(call.operation)
            self.wrappers[key] = wrapper(layer, name=f"quantized_{layer.name}", **settings)
        return self.wrappers[key]

    def _rounding(self, after: str, tensor: Any, **settings: Any) -> Any:
        base = f"{after.replace('/', '_')}_range"
        self.names[base] += 1
        count = self.names[base]
        layer = FakeQuant(
            bits=self.spec.activation_bits,
            ranges=self.spec.ranges,
            momentum=self.spec.momentum,
            percentile=self.spec.percentile,
            name=base if count == 1 else f"{base}_{count}",
            **settings,
        )
        return layer(tensor)


def _channels_share_values(call: Call) -> bool:
    kernel = np.asarray(call.operation.kernel)
    if "Depthwise" in call.kind:
        kernel = kernel.reshape(*kernel.shape[:-2], -1)
    return channels_share_values(kernel)
