"""Quantization of a trained model by typical inputs, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas.graph.functional_form import as_functional
from tfnas.quantization.aware_models import check_not_quantized, has_4_bit_kernel
from tfnas.quantization.quantize_aware import quantize_aware_partly
from tfnas.quantization.round_model import RoundedLayer, rounded_model, with_eight_bit_layers
from tfnas.quantization.spec import QuantSpec

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import ExampleData


def quantized_after_training(
    model: keras.Model,
    spec: QuantSpec,
    data: ExampleData,
    *,
    budget_seconds: float | None = None,
    warn: bool = True,
) -> tuple[keras.Model, tuple[RoundedLayer, ...]]:
    """Returns a quantization-aware model with ranges by data, and weights rounded as `spec` says.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="d")])
        >>> spec = tfnas.QuantSpec("int8", "int8", rounding="second_order")
        >>> x = np.random.default_rng(0).normal(size=(64, 8))
        >>> quantized, layers = quantized_after_training(model, spec, x)
        >>> [(layer.name, layer.bits) for layer in layers]
        [('d', 8)]

    Args:
        model: A trained Keras 3 model; it is not changed.
        spec: Integer weights and activations.
        data: Some hundred inputs, without labels.
        budget_seconds: Time after which no further kernel is fitted; None: no limit.
        warn: Whether a warning names the layers that stay float.

    Returns:
        The model, which converts without calibration data, and a record for each kernel; none
        where each weight is rounded to nearest.

    Raises:
        ValueError: The model is quantized already, or the formats or the data do not fit it.
    """
    check_not_quantized(model)
    records: tuple[RoundedLayer, ...] = ()
    if spec.rounds:
        model = as_functional(model, data)
        mixed = with_eight_bit_layers(model, spec)
        quantized, records = rounded_model(model, mixed, data, budget_seconds=budget_seconds)
    else:
        quantized = quantize_aware_partly(model, spec, data, warn)
    if spec.weights == "int4" and not has_4_bit_kernel(quantized):
        raise ValueError(
            f"mode {spec.mode!r} must give 4 bits to the kernel of some layer, got none in "
            f"{model.name!r} that TFLite and layers={dict(spec.layers)} allow"
        )
    return quantized, records
