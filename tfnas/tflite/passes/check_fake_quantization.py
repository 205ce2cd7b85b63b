"""Pass: whether a quantization-aware model is ready for a file of the requested formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas.quantization.aware_models import (
    fake_quants,
    has_4_bit_kernel,
    has_channel_scales,
    ranges_between_layers,
)
from tfnas.quantization.float32_model import other_precision_layers
from tfnas.quantization.fused_lstm import fused_layers
from tfnas.quantization.recurrent_forms import step_layers
from tfnas.quantization.residual_sums import has_wide_sums
from tfnas.tflite.passes.conversion_state import Conversion

if TYPE_CHECKING:
    import keras


def check_fake_quantization(conversion: Conversion) -> Conversion:
    """Checks bits, ranges and rounding of a quantization-aware model.

    Args:
        conversion: A model in its last form.

    Returns:
        The conversion, unchanged.

    Raises:
        ValueError: The model was trained for other formats, has not seen data yet, does not
            round, or computes in another precision; or the file is to be sparse.
    """
    if conversion.aware:
        if conversion.sparse:
            raise ValueError("sparse must be False for a quantization-aware model, got True")
        if conversion.spec.rounds and not conversion.rounding:
            raise ValueError(
                "rounding must be 'nearest' for a quantization-aware model, whose training has "
                f"chosen the integers, got {conversion.spec.rounding!r}"
            )
        _check_formats(conversion)
        _check_ranges(conversion.model)
        _check_computation(conversion.model)
    return conversion


def _check_formats(conversion: Conversion) -> None:
    """Raises ValueError where a file of other formats is asked for than the model was made for."""
    model, spec = conversion.model, conversion.spec
    wrong = [each for each in ranges_between_layers(model) if each.bits != spec.activation_bits]
    if wrong:
        raise ValueError(
            f"mode must have activations of {wrong[0].bits} bits as model {model.name!r} was "
            f"trained for, got {spec.mode!r}"
        )
    if spec.recurrent == "fused" and not fused_layers(model):
        raise ValueError(
            f"recurrent must be 'loop' as model {model.name!r} was trained for, got 'fused': "
            "tfnas.quantize_aware(model, tfnas.QuantSpec(recurrent='fused')) trains for it"
        )
    states = {layer.state_bits for layer in step_layers(model)}
    if spec.state_bits < min(states, default=8):
        raise ValueError(
            f"state_bits must be {min(states)} as model {model.name!r} was trained for, got "
            f"{spec.state_bits}: tfnas.quantize_aware(model, tfnas.QuantSpec(state_bits="
            f"{spec.state_bits})) trains for it"
        )
    if spec.widens_sums and not has_wide_sums(model):
        raise ValueError(
            f"residual_bits must be 8 as model {model.name!r} was trained for, got "
            f"{spec.residual_bits}: tfnas.quantize_aware(model, tfnas.QuantSpec(residual_bits=16)) "
            "trains for it"
        )
    if spec.has_channel_scales and not has_channel_scales(model):
        raise ValueError(
            f"dense_scales must be 'per_tensor' as model {model.name!r} was trained for, got "
            f"{spec.dense_scales!r}: tfnas.quantize_aware(model, "
            "tfnas.QuantSpec(dense_scales='per_channel')) trains for it"
        )
    if spec.weights == "int4" and not has_4_bit_kernel(model):
        raise ValueError(
            f"mode must have weights of 8 bits as model {model.name!r} was trained for, got "
            f"{spec.mode!r}"
        )


def _check_ranges(model: keras.Model) -> None:
    """Raises ValueError where a model has not seen data, or infinite numbers."""
    layers = fake_quants(model)
    infinite = [layer.name for layer in layers if not layer.is_finite]
    if infinite:
        raise ValueError(
            "calibration and training data must give finite numbers in all layers, got NaN or "
            f"infinity for {infinite[0]!r} and {len(infinite) - 1} more"
        )
    unknown = [layer.name for layer in layers if not layer.observed]
    if unknown:
        raise ValueError(
            f"model must have seen data before it is exported, got no range for {unknown[0]!r} and "
            f"{len(unknown) - 1} more: train it, or tfnas.calibrate(model, data)"
        )


def _check_computation(model: keras.Model) -> None:
    """Raises ValueError where a model computes in another precision, or does not round."""
    others = other_precision_layers(model)
    if others:
        raise ValueError(
            f"model must compute in float32 to be exported, got {others[0]!r} of another "
            "precision, which can't be rebuilt in float32 because its class has no full "
            "get_config()"
        )
    inactive = [layer.name for layer in fake_quants(model) if not layer.active]
    if inactive:
        raise ValueError(f"model must round its activations, got {inactive[0]!r} inactive")
