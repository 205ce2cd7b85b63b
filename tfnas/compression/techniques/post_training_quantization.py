"""Technique: integer weights and activations by typical inputs, without training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfnas.compression.techniques.quantized_models import (
    ALLOW_FLOAT_HELP,
    COPIES_HELP,
    DENSE_SCALES_HELP,
    EQUALIZE_HELP,
    FORMATS_HELP,
    RESIDUAL_HELP,
    SMOOTH_HELP,
    float_layer_lines,
    models_to_write,
    parse_formats,
    quantized_for_training,
)
from tfnas.compression.techniques.technique import Applied, Technique, TechniqueOutcome
from tfnas.settings_fields import check_options, documented, option
from tfnas.table import Tabular

if TYPE_CHECKING:
    import keras

    from tfnas.compression.technique_context import Context
    from tfnas.data.examples import Nested
    from tfnas.quantization.round_model import RoundedLayer
    from tfnas.quantization.spec import QuantSpec
    from tfnas.tflite.artifact import Artifact

_OF_SPEC = "rounding", "eight_bit_share", "ranges", "layers", "residual_bits", "dense_scales"


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class PtqSettings:
    """Settings of post-training quantization; see :class:`tfnas.QuantSpec`.

    Example:
        >>> PtqSettings(mode="int8x4").rounding
        'second_order'
    """

    mode: str = option("int8", "number formats of the file", choices=("int8", "int8x4", "int16x8"))
    rounding: str = option(
        "second_order",
        "how weights are rounded: each to the nearest step, or so that the outputs of layers "
        "change least",
        choices=("nearest", "second_order"),
    )
    eight_bit_share: float = option(
        0.08,
        "with 4-bit weights of second_order: largest share of them that keeps 8 bits",
        low=0,
        high=1,
    )
    correct: bool = option(
        True, "with rounding nearest: correct BatchNormalization for the shift of its inputs"
    )
    ranges: str = option(
        "moving_average",
        "ranges of activations: from the least to the largest number, without the farthest "
        "0.01%, or those of least squared error",
        choices=("moving_average", "percentile", "mse"),
    )
    smooth: float | None = option(None, SMOOTH_HELP, low=0, high=1)
    equalize: bool = option(False, EQUALIZE_HELP)
    residual_bits: int = option(8, RESIDUAL_HELP, low=8, high=16)
    dense_scales: str = option(
        "per_tensor", DENSE_SCALES_HELP, choices=("per_tensor", "per_channel")
    )
    calibration_copies: int = option(1, COPIES_HELP, low=1)
    layers: Any = option((), FORMATS_HELP, parse=parse_formats)
    allow_float: bool = option(False, ALLOW_FLOAT_HELP, flag=False)

    def __post_init__(self) -> None:
        check_options(self)
        _ = self.spec  # raises what no number formats can be

    @property
    def spec(self) -> QuantSpec:
        """The number formats and the rounding."""
        from tfnas.quantization.spec import QuantSpec

        own = {name: getattr(self, name) for name in _OF_SPEC}
        return dataclasses.replace(QuantSpec.of(self.mode), **own)


@dataclasses.dataclass(frozen=True, repr=False)
class RoundingReport(Tabular):
    """The error of each layer's output, with weights to nearest and as they were rounded.

    Args:
        layers: The layers with a kernel.
    """

    layers: tuple[RoundedLayer, ...]

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return ["layer", "bits", "error to nearest", "error", "s"]

    def rows(self) -> list[tuple[str, int, str, str, str]]:
        """Returns a row a layer; errors are relative to the variance of the float output."""
        return [(layer.name, layer.bits, *_numbers(layer)) for layer in self.layers]

    def notes(self) -> list[str]:
        """Returns what the errors are, and why layers were rounded to nearest."""
        unfitted = [each for each in self.layers if each.reason]
        return [
            "error: that of a layer's output on the calibration data, relative to its variance",
            *(f"{each.name} is rounded to nearest: {each.reason}" for each in unfitted),
        ]


def _numbers(layer: RoundedLayer) -> tuple[str, str, str]:
    """The errors and the time; empty where the layer was not fitted."""
    if layer.reason:
        return "", "", ""
    return f"{layer.nearest:.2e}", f"{layer.error:.2e}", f"{layer.seconds:.1f}"


def _with_copies(inputs: Nested, settings: PtqSettings) -> Nested:
    """Inputs, and changed copies of them where the settings have any."""
    from tfnas.data import augmented

    copies = settings.calibration_copies
    return augmented(inputs, copies) if copies > 1 else inputs


class PostTrainingQuantization(Technique[PtqSettings]):
    """Makes weights and activations integers, without training."""

    name = "ptq"
    rank = 80
    final = True
    trains = False
    summary = "post-training quantization of a .keras model, and its .tflite file"
    label = "quantized"
    settings = PtqSettings
    example = "--mode=int8x4"
    epochs = 0
    folder = "ptq"

    def for_amount(
        self, amount: float, *, brief: bool = False, weights: float | None = None
    ) -> PtqSettings:
        """Returns the settings of a number of bits of the weights, 8 or 4."""
        if amount not in (4, 8):
            raise ValueError(f"bits of ptq must be 4 or 8, got {amount!r}")
        return PtqSettings(mode="int8" if amount == 8 else "int8x4", allow_float=True)

    def check(self, model: keras.Model, settings: PtqSettings, context: Context) -> None:
        """Quantizes a copy that is thrown away, so that a bad argument fails before long work."""
        quantized_for_training(model, settings.spec, settings.allow_float)
        if settings.calibration_copies > 1:  # refuses what are no images
            _with_copies(context.calibration(1), settings)

    def apply(self, model: keras.Model, settings: PtqSettings, context: Context) -> Applied:
        """Returns a quantization-aware copy that converts without calibration data."""
        from tfnas.graph.functional_form import as_functional
        from tfnas.quantization.bias_correction import correct_bias
        from tfnas.quantization.even_channels import even_channels
        from tfnas.quantization.post_training import quantized_after_training

        context.progress.phase(f"{settings.mode} without training, rounding {settings.rounding}")
        spec, inputs = settings.spec, _with_copies(context.calibration(), settings)
        model, evened = even_channels(
            as_functional(model, inputs),
            inputs,
            smooth=settings.smooth,
            equalize=settings.equalize,
            residual=settings.residual_bits > 8,
        )
        quantized, layers = quantized_after_training(model, spec, inputs)
        if settings.correct and not spec.rounds:
            correct_bias(quantized, model, inputs)
        report = RoundingReport(layers) if layers else None
        return Applied(quantized, lambda: report, trains=False, extras={"evened": evened})

    def files(
        self, original: keras.Model, outcome: TechniqueOutcome, context: Context
    ) -> tuple[list[tuple[str, Artifact]], list[str]]:
        """Converts the original, also with weights to nearest, and the quantized model."""
        from tfnas.tflite.conversion_error import ConversionError
        from tfnas.tflite.convert import to_tflite

        mode: str = outcome.settings.mode
        files, notes = [("original, float32", to_tflite(original, "float32"))], []
        try:
            nearest = to_tflite(original, mode, context.calibration())
            files.append((f"rounded to nearest, {mode}", nearest))
        except ConversionError as error:
            notes.append(f"no {mode} file with weights rounded to nearest: {error}")
        files.append((f"{self.label}, {mode}", to_tflite(outcome.model, mode)))
        return files, notes

    def title(self, outcome: TechniqueOutcome) -> str:
        """Returns the number formats and the rounding."""
        return f"{outcome.settings.mode} without training, rounding {outcome.settings.rounding}"

    def remarks(self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]) -> list[str]:
        """Returns what was evened, and a line for each layer that stays float or to nearest."""
        report = outcome.reports[0]
        unfitted = [each for each in report.layers if each.reason] if report else []
        nearest = [f"{each.name} is rounded to nearest: {each.reason}" for each in unfitted]
        return [*outcome.extras["evened"], *float_layer_lines(outcome.model), *nearest]

    def models(self, outcome: TechniqueOutcome) -> dict[str, keras.Model]:
        """Returns the quantized model, with and without fake quantization."""
        return models_to_write(outcome.model)
