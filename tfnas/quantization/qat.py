"""Quantisation-aware training for Keras 3, and the way back.

:func:`quantize_aware` rebuilds a model call by call. Every activation that the integer file
will hold goes through a :class:`~tfnas.quantization.fake_quant.FakeQuant`, every kernel
through a :class:`~tfnas.quantization.fake_quant.QuantizedKernel`, placed where the converter
folds: one rounding after the last of convolution, BatchNormalization and ReLU. What a
layer becomes is in :mod:`tfnas.quantization.rules`.

References:
    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras

from tfnas.calibration import fitting_columns
from tfnas.quantization.fake_quant import ChannelAffine, FakeQuant, QuantizedKernel
from tfnas.quantization.normal_form import LayerCopies, Origins, normal_form
from tfnas.quantization.rules import (
    LEAST_BITS,
    ONE_SCALE,
    Role,
    fixed_range,
    fuses_relu,
    is_channel_norm,
    reason_for_float,
    relu_limit,
    role,
)
from tfnas.quantization.spec import QuantSpec
from tfnas.rewrite import Call, Skipped, Walk, rebuild, walk


def quantize_aware(
    model: Any, spec: str | QuantSpec = "int8", data: Any = None, engine: str = "tfnas"
) -> Any:
    """Returns a model with the same weights that trains as its integer file will compute.

    It is compiled, trained, saved and loaded (:func:`tfnas.load_model`) like any Keras
    model; :func:`tfnas.to_tflite` needs no calibration data for it; :func:`tfnas.strip` gives
    back a plain float model. The model given stays as it is.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> trainable = tfnas.quantize_aware(model)
        >>> trainable.compile("adam", "mse")
        >>> x = np.random.default_rng(0).normal(size=(64, 8))
        >>> history = trainable.fit(x, x[:, :4], epochs=1, verbose=0)
        >>> tfnas.to_tflite(trainable, "int8").inputs[0].dtype
        'int8'

    Args:
        model: A built functional or Sequential Keras 3 model.
        spec: "int8", "int8x4" (4-bit weights), or a :class:`tfnas.QuantSpec`.
        data: Typical inputs, to set the ranges of activations before any training. None:
            the first batches of training do.
        engine: "tfnas"; or "tfmot" for tensorflow-model-optimization's own, which returns a
            tf_keras model.

    Returns:
        The model. :func:`tfnas.quantization_report` tells what stays float, and why.

    Raises:
        ValueError: An argument is outside its rule: a model that was never built or is
            quantised already, a specification that names no layer.
    """
    if engine not in ("tfnas", "tfmot"):
        raise ValueError(f"engine must be 'tfnas' or 'tfmot', got {engine!r}")
    spec = QuantSpec.of(spec)
    if spec.activations != "int8" or spec.weights not in ("int8", "int4"):
        raise ValueError(
            f"spec must have integer weights and 8-bit integer activations, got {spec.mode!r}"
        )
    _check_model(model)
    if engine == "tfmot":
        from tfnas.legacy import quantize_aware_tfmot

        return quantize_aware_tfmot(model)[0]
    plain, origins = normal_form(model)
    flow = walk(plain)
    names = [(c.name, c.kind) for c in flow.calls if role(c) is Role.KERNEL]
    spec.check_patterns([*names, *origins.values()])
    builder = _Builder(flow, spec, origins)
    trainable = rebuild(plain, builder.apply, flow=flow, on_input=builder.on_input)
    builder.copies.carry_weights()
    if data is not None:
        calibrate(trainable, data)
    return trainable


def calibrate(model: Any, data: Any) -> Any:
    """Sets the ranges of a quantisation-aware model's activations from typical inputs.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model = tfnas.quantize_aware(model)
        >>> tfnas.calibrate(model, np.random.default_rng(0).normal(size=(100, 8))) is model
        True

    Args:
        model: A model of :func:`quantize_aware`; changed in place.
        data: Inputs; targets are ignored.

    Returns:
        The model.

    Raises:
        ValueError: The data holds no example or does not fit, or the model is not
            quantisation-aware.
    """
    found = fake_quants(model)
    if not found:
        raise ValueError(f"model must be quantisation-aware, got {model.name!r}")
    columns = fitting_columns(model, data)
    for layer in found:
        layer.observing = True
    try:
        for start in range(0, len(columns[0]), _BATCH):
            part = [column[start : start + _BATCH] for column in columns]
            model(keras.tree.pack_sequence_as(model.input, part), training=False)
    finally:
        for layer in found:
            layer.observing = False
    return model


def strip(model: Any) -> Any:
    """Returns a plain float model with the weights of a quantisation-aware one.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="d")])
        >>> [layer.name for layer in tfnas.strip(tfnas.quantize_aware(model)).layers][-1]
        'd'

    Args:
        model: A model of :func:`tfnas.quantize_aware`.

    Raises:
        ValueError: It is not quantisation-aware.
    """
    if not fake_quants(model):
        raise ValueError(f"model must be quantisation-aware, got {model.name!r}")
    copies = LayerCopies()

    def apply(call: Call, tensors: list[Any]) -> Any:
        layer = call.operation
        if isinstance(layer, FakeQuant):
            if layer.relu is None:
                return tensors
            limit = None if layer.relu == float("inf") else layer.relu
            return [keras.layers.ReLU(limit, name=f"{layer.name}_relu")(tensors[0])]
        if isinstance(layer, QuantizedKernel | ChannelAffine):
            return [copies.of(layer.layer)(tensors[0])]
        return copies.call(call, tensors)

    plain = rebuild(model, apply)
    copies.carry_weights()
    return plain


def fake_quants(model: Any) -> list[FakeQuant]:
    """Returns the activation roundings of a model; none where it is not quantised."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, FakeQuant)]


def left_float(model: Any) -> list[Skipped]:
    """Returns the calls of a quantisation-aware model that stay float, and why.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.LayerNormalization()])
        >>> tfnas.left_float(tfnas.quantize_aware(model))[0].reason
        'no integer form of LayerNormalization'

    Args:
        model: A model of :func:`tfnas.quantize_aware`.
    """
    found = []
    for call in walk(model).calls:
        if isinstance(call.operation, FakeQuant | QuantizedKernel | ChannelAffine):
            continue
        what = role(call)
        if what is Role.NORM and not is_channel_norm(call):
            reason = "normalises another axis than the last, or more than 4 dimensions"
            found.append(Skipped(call.name, call.kind, reason))
        elif what is Role.KERNEL:
            found.append(Skipped(call.name, call.kind, "left float by the specification"))
        elif what is Role.FLOAT:
            found.append(Skipped(call.name, call.kind, reason_for_float(call)))
    return found


_BATCH = 64


class _Builder:
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

    def on_input(self, tensor: Any) -> Any:
        floats = str(tensor.dtype).startswith("float")
        return self._rounding("input", tensor) if floats else tensor

    def apply(self, call: Call, tensors: list[Any]) -> list[Any]:
        what = role(call)
        bits = self._bits(call)
        if what is Role.KERNEL and bits is not None:
            bits = max(bits, LEAST_BITS.get(call.kind, bits))
            outputs = [self._wrapped(call, QuantizedKernel, bits=bits)(tensors[0])]
        elif what is Role.RELU:
            maker = self.makers.get(call.inputs[0])
            floats = maker is not None and self._stays_float(maker)
            limit = relu_limit(call)
            return [self._rounding(call.name, tensors[0], relu=limit, after_float=floats)]
        elif what is Role.AFFINE or (what is Role.NORM and self._stands_alone(call)):
            asked = {k: v for k, v in call.arguments(tensors)[1].items() if k == "training"}
            outputs = [self._wrapped(call, ChannelAffine)(tensors[0], **asked)]
        else:
            outputs = self.copies.call(call, tensors)
        if what is Role.SAME:
            return outputs
        settings = {
            "fixed": fixed_range(call) if what is Role.FIXED else None,
            "after_float": self._stays_float(call),
        }
        return [
            tensor
            if self._rounded_later(call, value)
            else self._rounding(call.name, tensor, **settings)
            for value, tensor in zip(call.outputs, outputs, strict=True)
        ]

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
        return what is Role.FLOAT or (what is Role.KERNEL and self._bits(call) is None)

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
        if user is None or self.uses[value] != 1 or not value.dtype.startswith("float"):
            return not value.dtype.startswith("float")
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


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a Keras 3 model, got {type(model).__name__}")
    walk(model)  # raises where it is not built from known connections
    if fake_quants(model):
        raise ValueError(f"model must not be quantised yet, got {model.name!r}, which is")
