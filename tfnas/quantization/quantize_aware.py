"""Quantization-aware training for Keras 3, and the way back.

:func:`quantize_aware` rebuilds a model call by call. Every activation that the integer file
will hold goes through a :class:`~tfnas.quantization.fake_quant.FakeQuant`, every kernel
through a :class:`~tfnas.quantization.quantized_kernel.QuantizedKernel`, placed where the converter
folds: one rounding after the last of convolution, BatchNormalization and ReLU. What a
layer becomes is in :mod:`tfnas.quantization.layer_roles`.

References:
    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018.
"""

from __future__ import annotations

from typing import Any

import keras

from tfnas.graph.batchnorm import fitting_columns
from tfnas.graph.compatibility import carry_zeros
from tfnas.graph.functional import Call, LayerCopies, Skipped, rebuild, walk
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.fake_quant_placement import Builder
from tfnas.quantization.integer_layers import ChannelAffine, FloatConcatenate, SixteenBitForm
from tfnas.quantization.layer_roles import Role, is_channel_norm, reason_for_float, role
from tfnas.quantization.normal_form import normal_form
from tfnas.quantization.quantized_kernel import QuantizedKernel
from tfnas.quantization.spec import QuantSpec


def quantize_aware(
    model: Any, spec: str | QuantSpec = "int8", data: Any = None, engine: str = "tfnas"
) -> Any:
    """Returns a model with the same weights that trains as its integer file will compute.

    It is compiled, trained, saved and loaded (:func:`tfnas.load_model`) like any Keras
    model; :func:`tfnas.to_tflite` needs no calibration data for it;
    :func:`tfnas.strip_quantization` gives back a plain float model. The model itself stays as it
    is. Zeros that stay in its training, as
    those of :func:`tfnas.prune`, stay in that of the new one; those of a model that was loaded do
    with :func:`tfnas.keep_zeros`, equal weights, zeros among them, with
    :func:`tfnas.keep_clusters`.

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
        spec: "int8", "int8x4" (4-bit weights), "int16x8" (16-bit activations), or a
            :class:`tfnas.QuantSpec`. Where TFLite has no 4-bit kernel, as for transposed
            convolutions, weights of 4 bits become 8.
        data: Typical inputs, to set the ranges of activations before any training. None:
            the first batches of training do.
        engine: "tfnas"; or "tfmot" for tensorflow-model-optimization's own, which returns a
            tf_keras model.

    Returns:
        The model. :func:`tfnas.unquantized_layers` tells what stays float, and why.

    Raises:
        ValueError: An argument is outside its rule: a model that was never built or is
            quantized already, a specification that names no layer.
    """
    spec = QuantSpec.of(spec)
    _check_asked(spec, engine)
    _check_model(model)
    if engine == "tfmot":
        from tfnas.legacy import quantize_aware_tfmot

        return quantize_aware_tfmot(model)[0]
    plain, origins = normal_form(model, spec.activation_bits)
    flow = walk(plain)
    names = [(c.name, c.kind) for c in flow.calls if role(c) is Role.KERNEL]
    spec.check_patterns([*names, *origins.values()])
    builder = Builder(flow, spec, origins)
    trainable = rebuild(plain, builder.apply, flow=flow, on_input=builder.on_input)
    builder.copies.carry_weights()
    carry_zeros(model, trainable)
    if data is not None:
        calibrate(trainable, data)
    return trainable


def calibrate(model: Any, data: Any) -> Any:
    """Sets the ranges of a quantization-aware model's activations from typical inputs.

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
            quantization-aware.
    """
    found = fake_quants(model)
    if not found:
        raise ValueError(f"model must be quantization-aware, got {model.name!r}")
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


def strip_quantization(model: Any) -> Any:
    """Returns a plain float model with the weights of a quantization-aware one.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="d")])
        >>> plain = tfnas.strip_quantization(tfnas.quantize_aware(model))
        >>> plain.layers[-1].name
        'd'

    Args:
        model: A model of :func:`tfnas.quantize_aware`.

    Raises:
        ValueError: It is not quantization-aware.
    """
    if not fake_quants(model):
        raise ValueError(f"model must be quantization-aware, got {model.name!r}")
    copies = LayerCopies()

    def apply(call: Call, tensors: list[Any]) -> Any:
        layer = call.operation
        if isinstance(layer, FakeQuant):
            if layer.relu is None:
                return tensors
            limit = None if layer.relu == float("inf") else layer.relu
            return [keras.layers.ReLU(limit, name=f"{layer.name}_relu")(tensors[0])]
        if isinstance(layer, _WRAPPERS):
            return [copies.of(layer.layer)(tensors if len(tensors) > 1 else tensors[0])]
        return copies.call(call, tensors)

    plain = rebuild(model, apply)
    copies.carry_weights()
    return plain


def fake_quants(model: Any) -> list[FakeQuant]:
    """Returns the activation roundings of a model; none where it is not quantized."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, FakeQuant)]


def unquantized_layers(model: Any) -> list[Skipped]:
    """Returns the calls of a quantization-aware model that stay float, and why.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.LayerNormalization()])
        >>> tfnas.unquantized_layers(tfnas.quantize_aware(model))[0].reason
        'no integer form of LayerNormalization'

    Args:
        model: A model of :func:`tfnas.quantize_aware`.
    """
    found = []
    for call in walk(model).calls:
        if isinstance(call.operation, FloatConcatenate):
            reason = "joins numbers of a layer that stays float"
            found.append(Skipped(call.operation.layer.name, "Concatenate", reason))
        if isinstance(call.operation, (FakeQuant, *_WRAPPERS)):
            continue
        what = role(call)
        if what is Role.NORM and not is_channel_norm(call):
            reason = "normalizes another axis than the last, or more than 4 dimensions"
            found.append(Skipped(call.name, call.kind, reason))
        elif what is Role.KERNEL:
            found.append(Skipped(call.name, call.kind, "left float by the specification"))
        elif what is Role.FLOAT:
            found.append(Skipped(call.name, call.kind, reason_for_float(call)))
    return found


_BATCH = 64
_WRAPPERS = (QuantizedKernel, ChannelAffine, SixteenBitForm, FloatConcatenate)


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a Keras 3 model, got {type(model).__name__}")
    walk(model)  # raises where it is not built from known connections
    if fake_quants(model):
        raise ValueError(f"model must not be quantized yet, got {model.name!r}, which is")


def _check_asked(spec: QuantSpec, engine: str) -> None:
    if engine not in ("tfnas", "tfmot"):
        raise ValueError(f"engine must be 'tfnas' or 'tfmot', got {engine!r}")
    if spec.activations not in ("int8", "int16") or spec.weights not in ("int8", "int4"):
        raise ValueError(f"spec must have integer weights and activations, got {spec.mode!r}")
    if engine == "tfmot" and spec != QuantSpec():
        raise ValueError(f"spec must be 'int8', tfmot's only one, for engine 'tfmot', got {spec}")
