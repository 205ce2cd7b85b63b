"""What techniques share whose models compute in integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfnas.settings_fields import parse_pairs

if TYPE_CHECKING:
    import keras

    from tfnas.quantization.spec import QuantSpec

FORMATS_HELP = (
    "number formats of the weights of single layers, by name, pattern or class; the first "
    "match counts: stem=int8,Dense=int4,*=float32"
)
ALLOW_FLOAT_HELP = (
    "whether layers without an integer form stay float instead of being refused; compress and "
    "searches, whose reports name them, set it"
)

RESIDUAL_HELP = (
    "bits of the sums of residual branches that a normalization reads; 16 beside activations of 8 "
    "is for transformers with outliers, best with smooth, which then scales these branches as well"
)
DENSE_SCALES_HELP = (
    "scales of the kernels of Dense layers, those of attention too: one for the kernel, or one for "
    "each output channel, for which they become convolutions of size 1"
)
COPIES_HELP = (
    "images that find ranges and rounding: each as it is, and N - 1 times mirrored at random and "
    "moved; for rounding second_order of large networks"
)
SMOOTH_HELP = (
    "SmoothQuant before rounding: share of the outliers of activations behind a normalization "
    "that moves into the weights that read it, such as 0.5; default: none"
)
EQUALIZE_HELP = (
    "before rounding, give the channels between two layers weights of the same size on both "
    "sides (Nagel et al. 2019)"
)


def parse_formats(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Parses the values of --layers, NAME=FORMAT.

    Args:
        texts: The texts.

    Raises:
        ValueError: A text has another form.
    """
    return parse_pairs(texts, "layers", "NAME=FORMAT")


def float_layer_lines(model: keras.Model) -> list[str]:
    """Returns a line for each layer that stays float, or one that says that none does.

    Args:
        model: A quantization-aware model.
    """
    from tfnas.quantization.aware_models import unquantized_layers

    skipped = unquantized_layers(model)
    if not skipped:
        return ["Every layer computes in integers."]
    return [f"{one.name} ({one.kind}) stays float: {one.reason}" for one in skipped]


def quantized_for_training(
    model: keras.Model, spec: QuantSpec, allow_float: bool, data: Any = None
) -> keras.Model:
    """Returns a quantization-aware copy of a model.

    Args:
        model: A float model.
        spec: The number formats.
        allow_float: Whether layers without an integer form stay float.
        data: Calibration data; None: ranges are not set.

    Raises:
        ValueError: The formats do not fit, or a layer would stay float and may not.
    """
    from tfnas.quantization.quantize_aware import quantize_aware, quantize_aware_partly

    return (quantize_aware_partly if allow_float else quantize_aware)(model, spec, data)


def models_to_write(model: keras.Model) -> dict[str, keras.Model]:
    """Returns a quantization-aware model, with and without fake quantization: file name -> model.

    Args:
        model: A quantization-aware model.
    """
    from tfnas.quantization.quantize_aware import strip_quantization

    return {"model.keras": model, "model_float.keras": strip_quantization(model)}
