"""Quantization-aware training for Keras 3.

:func:`quantize_aware` rebuilds a model call by call. Every activation that the integer file
will hold goes through a :class:`~tfnas.quantization.fake_quant.FakeQuant`, every kernel
through a :class:`~tfnas.quantization.quantized_kernel.QuantizedKernel`. Activations are rounded
where the converter fuses operators: once after convolution, BatchNormalization and ReLU.
:mod:`tfnas.quantization.layer_roles` lists what each layer becomes. :func:`strip_quantization`
is the way back to a float model.

References:
    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import keras

from tfnas.graph.batchnorm import fitting_columns
from tfnas.graph.compatibility import carry_zeros, check_no_lora, check_not_quantized_by_keras
from tfnas.graph.functional import Call, LayerCopies, rebuild, walk
from tfnas.graph.functional_form import as_functional
from tfnas.graph.model_class import plain
from tfnas.graph.traversal import flat_outputs
from tfnas.keras_private import all_layers, functional_inside
from tfnas.quantization.activation_forms import SixteenBitActivation
from tfnas.quantization.attention_forms import ScoresRange
from tfnas.quantization.aware_models import (
    ROUNDED_LAYERS,
    check_not_quantized,
    fake_quants,
    functions_of_outputs,
    has_channel_scales,
    keep_output_names,
    unquantized_layers,
)
from tfnas.quantization.call_forms import MASKED
from tfnas.quantization.einsum_forms import IntegerEinsum, IntegerRepeat
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.fake_quant_placement import FakeQuantBuilder
from tfnas.quantization.file_plan import FilePlan
from tfnas.quantization.float32_model import to_float32
from tfnas.quantization.float_islands import (
    are_refused,
    layers_in_the_way,
    line_that_allows,
    message_of_refusal,
)
from tfnas.quantization.fused_lstm import fused_layers
from tfnas.quantization.integer_inputs import with_integer_inputs
from tfnas.quantization.integer_layers import FloatInput
from tfnas.quantization.layer_registry import WITH_WEIGHTS
from tfnas.quantization.layer_roles import role
from tfnas.quantization.mask_forms import DiffersFrom
from tfnas.quantization.normal_form import normal_form
from tfnas.quantization.recurrent_forms import QuantizedRecurrent
from tfnas.quantization.residual_sums import has_wide_sums
from tfnas.quantization.spec import QuantSpec
from tfnas.quantization.trained_layers import keep_trained_layers, layers_to_train

if TYPE_CHECKING:
    from tfnas.data.data_types import ExampleData
    from tfnas.data.representative_dataset import RepresentativeDataset


def quantize_aware(
    model: keras.Model,
    spec: str | QuantSpec = "int8",
    data: ExampleData | RepresentativeDataset | None = None,
    engine: Literal["tfnas", "tfmot"] = "tfnas",
) -> keras.Model:
    """Returns a quantization-aware copy of a model, for training.

    The copy computes as its integer file will. Compile, train, save and load it
    (:func:`tfnas.load_model`) like any Keras model. :func:`tfnas.to_tflite` needs no calibration
    data for it, and :func:`tfnas.strip_quantization` turns it back into a float model. `model` is
    not changed; one of float64 is cast to float32. Zeros that :func:`tfnas.prune` keeps in training
    are kept in the copy too. After loading a model, call :func:`tfnas.keep_zeros` to keep zeros, or
    :func:`tfnas.keep_clusters` to keep clusters of equal weights (and zeros).

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
        model: A Keras 3 model. A subclassed one is opened, see :func:`tfnas.as_functional`.
        spec: "int8", "int8x4" (4-bit weights), "int16x8" (16-bit activations), or a
            :class:`tfnas.QuantSpec`. Where TFLite has no 4-bit kernel, as for transposed
            convolutions, weights have 8 bits instead.
        data: Calibration data: typical inputs, as for :func:`calibrate`, that set the ranges of
            activations before training. None: the first batches of training set them.
        engine: "tfnas", or "tfmot" for the quantization of tensorflow-model-optimization, which
            returns a tf_keras model.

    Returns:
        The quantization-aware model. :func:`tfnas.unquantized_layers` lists the layers that stay
        float because the specification says so, with reasons.

    Raises:
        ValueError: A layer has no integer form, and the specification does not leave it float:
            the message lists these layers, with the specification that does. Or the model is not
            built or is quantized already, the specification names a layer that does not exist, or
            the data does not fit.
    """
    spec = QuantSpec.of(spec)
    _check_arguments(spec, engine)
    model = as_functional(model, data)
    _check_model(model)
    if engine == "tfmot":
        from tfnas.legacy import quantize_aware_tfmot

        return quantize_aware_tfmot(model)[0]
    return _quantized(model, spec, data, refuse=True)


def quantize_aware_partly(
    model: keras.Model,
    spec: str | QuantSpec = "int8",
    data: ExampleData | RepresentativeDataset | None = None,
    warn: bool = True,
) -> keras.Model:
    """Returns what :func:`quantize_aware` does; layers without an integer form stay float.

    For jobs that choose formats themselves: they name what stays float in their reports.

    Args:
        model: A Keras 3 model.
        spec: As for :func:`quantize_aware`.
        data: As for :func:`quantize_aware`.
        warn: Whether a warning names them, with the specification that asks for it.

    Raises:
        ValueError: As of :func:`quantize_aware`, but for layers without an integer form.
    """
    spec = QuantSpec.of(spec)
    _check_arguments(spec, "tfnas")
    model = as_functional(model, data)
    _check_model(model)
    return _quantized(model, spec, data, refuse=False, warn=warn)


def _quantized(
    model: keras.Model, spec: QuantSpec, data: Any, refuse: bool, warn: bool = True
) -> keras.Model:
    quantized = with_fake_quantization(model, spec)
    left = layers_in_the_way(quantized, spec, unquantized_layers(quantized))
    if refuse and are_refused(left):
        raise ValueError(message_of_refusal(spec, left))
    if left and warn:
        names = ", ".join(each.name for each in left)
        line = line_that_allows(spec, left)
        text = "%s has no integer form and stays float in files of %s; %s asks for that"
        _LOG.warning(text, names, model.name, line)
    if data is not None:
        calibrate(quantized, data)
    return quantized


def with_fake_quantization(model: keras.Model, spec: QuantSpec, fixed: bool = False) -> keras.Model:
    """Returns a model rebuilt with fake quantization, whose ranges are not set yet.

    Args:
        model: A built functional or Sequential model.
        spec: The number formats.
        fixed: Whether the grids of kernels can be fixed, see
            :class:`tfnas.quantization.quantized_kernel.QuantizedKernel`.
    """
    check_no_lora(model)
    doubles = any(layer.compute_dtype == "float64" for layer in all_layers(model))
    single = to_float32(plain(model)) if doubles else model
    whole = with_integer_inputs(single)
    flat, origins = normal_form(whole, spec.activation_bits, spec.leaves_float)
    flow = walk(flat)
    names = [(c.name, c.kind) for c in flow.calls if role(c) in WITH_WEIGHTS]
    others = [origins.names(c) for c in flow.calls if role(c) not in WITH_WEIGHTS]
    spec.check_patterns(
        [*names, *origins.kernels.values()], others, [call.name for call in walk(whole).calls]
    )
    plan = FilePlan(flow, spec, origins, fixed)
    builder = FakeQuantBuilder(plan)
    raw = {
        tensor.name
        for tensor, value in zip(functional_inside(flat).inputs, flow.inputs, strict=True)
        if value in plan.raw
    }
    quantized = rebuild(
        flat,
        builder.apply,
        class_of=model,
        flow=flow,
        on_input=lambda tensor: tensor if tensor.name in raw else builder.on_input(tensor),
    )
    if spec.recurrent == "fused" and not fused_layers(quantized):
        raise ValueError(
            f"recurrent must be 'loop' for {model.name!r}, got 'fused': it has no LSTM of Keras' "
            "standard activations, without a mask and an initial state, that becomes integers"
        )
    if spec.widens_sums and not has_wide_sums(quantized):
        raise ValueError(
            f"residual_bits must be 8 for {model.name!r}, got {spec.residual_bits}: it has no sum "
            "that a normalization with an integer form reads"
        )
    if spec.has_channel_scales and not has_channel_scales(quantized):
        raise ValueError(
            f"dense_scales must be 'per_tensor' for {model.name!r}, got {spec.dense_scales!r}: it "
            "has no Dense or EinsumDense layer that becomes integers and is not clustered"
        )
    keep_output_names(quantized)
    keep_trained_layers(quantized, layers_to_train(whole, flow, spec, origins))
    builder.copies.carry_weights()
    carry_zeros(model, quantized)
    return quantized


def calibrate(model: keras.Model, data: ExampleData | RepresentativeDataset) -> keras.Model:
    """Sets the activation ranges of a quantization-aware model from typical inputs.

    Ranges that were observed before are widened.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model = tfnas.quantize_aware(model)
        >>> tfnas.calibrate(model, np.random.default_rng(0).normal(size=(100, 8))) is model
        True

    Args:
        model: A model returned by :func:`quantize_aware`; changed in place.
        data: Inputs: arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset` (targets are
            ignored), or a TFLite representative dataset of at most 500 examples, a function
            that yields lists (one array for each input, batch dimension included) or
            dictionaries by input name.

    Returns:
        The model.

    Raises:
        ValueError: The data is empty or does not fit, or the model is not quantization-aware.
    """
    layers = fake_quants(model)
    if not layers:
        raise ValueError(f"model must be quantization-aware, got {model.name!r}")
    columns = fitting_columns(model, data)
    for layer in layers:
        layer.begin_calibration()
    try:
        for start in range(0, len(columns[0]), _BATCH):
            part = [column[start : start + _BATCH] for column in columns]
            flat_outputs(model, keras.tree.pack_sequence_as(functional_inside(model).input, part))
    finally:
        for layer in layers:
            layer.end_calibration()
    return model


def strip_quantization(model: keras.Model) -> keras.Model:
    """Returns a float model with the weights of a quantization-aware one.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="d")])
        >>> float_model = tfnas.strip_quantization(tfnas.quantize_aware(model))
        >>> float_model.layers[-1].name
        'd'

    Args:
        model: A model returned by :func:`tfnas.quantize_aware`; it is not changed.

    Returns:
        A model of plain Keras layers, flat where the original was nested.

    Raises:
        ValueError: The model is not quantization-aware.
    """
    if not fake_quants(model):
        raise ValueError(f"model must be quantization-aware, got {model.name!r}")
    copies = LayerCopies()
    flow = walk(model)
    rejoined = functions_of_outputs(model, flow)
    inside = {id(function) for function in rejoined.values()}

    def apply(call: Call, tensors: list[Any]) -> Any:
        layer = call.operation
        if id(layer) in inside:
            return tensors
        if id(layer) in rejoined:
            function = rejoined[id(layer)].activation
            return [copies.of(layer.layer, activation=function)(tensors[0])]
        if isinstance(layer, FloatInput):
            return tensors
        if isinstance(layer, ScoresRange):
            args, _ = call.arguments(tensors)
            return [keras.ops.where(args[1], args[0], MASKED)]
        if isinstance(layer, IntegerRepeat):
            return [keras.ops.repeat(tensors[0], layer.repeats, axis=layer.axis)]
        if isinstance(layer, DiffersFrom):
            return [layer.float_form(tensors[0])]
        if isinstance(layer, IntegerEinsum):
            return [keras.ops.einsum(layer.equation, *tensors)]
        if isinstance(layer, FakeQuant):
            rounded_again = call.arguments(tensors)[1].get("ahead")
            if layer.relu is None or rounded_again:
                return tensors
            limit = None if layer.relu == float("inf") else layer.relu
            name = copies.unique(f"{layer.name}_relu")
            return [keras.layers.ReLU(limit, name=name)(tensors[0])]
        if isinstance(layer, SixteenBitActivation):
            return [layer.float_form(tensors[0])]
        if isinstance(layer, ROUNDED_LAYERS):
            if isinstance(layer, QuantizedRecurrent):
                _, kwargs = call.arguments(tensors)
                given = {name: kwargs.get(name) for name in ("mask", "initial_state")}
                return list(keras.tree.flatten(copies.of(layer.layer)(tensors[0], **given)))
            reverse = call.arguments(tensors)[1].get("reverse", False)
            options = {"reverse": True} if reverse else {}
            inputs = tensors if len(tensors) > 1 else tensors[0]
            output = copies.of(layer.layer)(inputs, **options)
            factor = getattr(layer, "factor", 1.0)
            if factor != 1.0:
                name = copies.unique(f"{layer.layer.name}_scale")
                output = keras.layers.Rescaling(factor, name=name)(output)
            return [output]
        return copies.call(call, tensors)

    float_model = rebuild(model, apply, class_of=model, flow=flow)
    copies.carry_weights()
    return float_model


def quantizable_layers(model: keras.Model) -> set[str]:
    """Returns the names of the layers whose weights :func:`quantize_aware` quantizes.

    Args:
        model: A functional or Sequential float model. Of a layer that is split or nested, the names
            of its parts and its own path are among them.
    """
    flat, origins = normal_form(model)
    own = {call.name for call in walk(flat).calls if role(call) in WITH_WEIGHTS}
    return own | {path for path, _ in origins.kernels.values()}


_BATCH = 64
_LOG = logging.getLogger(__name__)


def _check_model(model: object) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a Keras 3 model, got {type(model).__name__}")
    walk(model)  # raises unless the model is functional or Sequential, and built
    check_not_quantized(model)
    check_not_quantized_by_keras(model)


def _check_arguments(spec: QuantSpec, engine: str) -> None:
    if engine not in ("tfnas", "tfmot"):
        raise ValueError(f"engine must be 'tfnas' or 'tfmot', got {engine!r}")
    if spec.activations not in ("int8", "int16") or spec.weights not in ("int8", "int4"):
        raise ValueError(f"spec must have integer weights and activations, got {spec.mode!r}")
    if engine == "tfmot" and spec != QuantSpec():
        raise ValueError(f"spec must be 'int8', tfmot's only one, for engine 'tfmot', got {spec}")
