"""Technique: trains with fake quantization, so that the integer file loses less."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfnas.compression.techniques.quantized_models import (
    ALLOW_FLOAT_HELP,
    FORMATS_HELP,
    float_layer_lines,
    models_to_write,
    parse_formats,
    quantized_for_training,
)
from tfnas.compression.techniques.technique import (
    Applied,
    ReportSection,
    Technique,
    TechniqueOutcome,
)
from tfnas.settings_fields import check_options, documented, option

if TYPE_CHECKING:
    import keras

    from tfnas.compression.technique_context import Context
    from tfnas.quantization.spec import QuantSpec
    from tfnas.tflite.artifact import Artifact

EXAMINED = 128  # training examples for the errors of single layers


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class QatSettings:
    """Settings of quantization-aware training; see :func:`tfnas.quantize_aware`.

    Example:
        >>> QatSettings(mode="int8x4").start_epoch
        0
    """

    mode: str = option("int8", "number formats of the file", choices=("int8", "int8x4", "int16x8"))
    layers: Any = option((), FORMATS_HELP, parse=parse_formats)
    ranges: str = option(
        "moving_average",
        "method that determines the ranges of activations",
        choices=("moving_average", "percentile", "mse", "learned"),
    )
    start_epoch: int = option(0, "first epoch with fake quantization", low=0)
    freeze_epoch: int | None = option(
        None, "first epoch in which the ranges are frozen; default: never", low=0
    )
    allow_float: bool = option(False, ALLOW_FLOAT_HELP, flag=False)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def spec(self) -> QuantSpec:
        """The number formats of the file."""
        from tfnas.quantization.spec import QuantSpec

        spec = QuantSpec.of(self.mode)
        return dataclasses.replace(spec, layers=self.layers, ranges=self.ranges)


class QuantizationAware(Technique[QatSettings]):
    """Trains with fake quantization."""

    name = "qat"
    rank = 70
    keeps_itself = True
    final = True
    summary = "quantization-aware training of a .keras model, and its .tflite file"
    label = "trained"
    settings = QatSettings
    example = "--epochs=3 --mode=int8x4 --layers=stem=int8"
    learning_rate_scale = 0.1
    needs_matplotlib = True
    folder = "qat"
    least_epochs = 1

    def for_amount(
        self, amount: float, *, brief: bool = False, weights: float | None = None
    ) -> QatSettings:
        """Returns the settings of a number of bits of the weights, 8 or 4."""
        return QatSettings(mode="int8" if amount == 8 else "int8x4", allow_float=True)

    def check_epochs(self, settings: QatSettings, epochs: int) -> None:
        """Checks that there is training with fake quantization."""
        if epochs < 1:
            raise ValueError(f"epochs must be a whole number >= 1, got {epochs}")
        if settings.start_epoch >= epochs:
            raise ValueError(
                f"start_epoch must be below epochs {epochs}, got {settings.start_epoch}: nothing "
                "would be rounded"
            )
        from tfnas.quantization.quantization_schedule import QuantizationSchedule

        QuantizationSchedule(settings.start_epoch, settings.freeze_epoch)

    def check(self, model: keras.Model, settings: QatSettings, context: Context) -> None:
        """Quantizes a copy that is thrown away, so that a bad argument fails before long work."""
        self._quantized(model, settings, context)

    def apply(self, model: keras.Model, settings: QatSettings, context: Context) -> Applied:
        """Returns a copy with fake quantization, and the callbacks that keep what was achieved."""
        from tfnas.compression.techniques.achieved import keep_achieved
        from tfnas.quantization.quantization_schedule import QuantizationSchedule

        trainable = self._quantized(model, settings, context)
        callbacks = keep_achieved(model, trainable, context.before)
        schedule = QuantizationSchedule(settings.start_epoch, settings.freeze_epoch)
        context.progress.phase(f"training quantization-aware, {context.training_text()}")
        return Applied(trainable, lambda: None, [*callbacks, schedule])

    def _quantized(
        self, model: keras.Model, settings: QatSettings, context: Context
    ) -> keras.Model:
        data = context.calibration()
        return quantized_for_training(model, settings.spec, settings.allow_float, data)

    def files(
        self, original: keras.Model, outcome: TechniqueOutcome, context: Context
    ) -> tuple[list[tuple[str, Artifact]], list[str]]:
        """Converts the original, also without training, and the trained model."""
        from tfnas.tflite.conversion_error import ConversionError
        from tfnas.tflite.convert import to_tflite

        spec, notes = outcome.settings.spec, []
        files = [("original, float32", to_tflite(original, "float32"))]
        try:
            label = f"post-training, {spec.mode}"
            files.append((label, to_tflite(original, spec, context.calibration())))
        except ConversionError as error:
            notes.append(f"no {spec.mode} file without training: {error}")
        files.append((f"{self.label}, {spec.mode}", to_tflite(outcome.model, spec)))
        return files, notes

    def title(self, outcome: TechniqueOutcome) -> str:
        """Returns the number formats."""
        return f"{outcome.settings.mode} after quantization-aware training"

    def details(self, outcome: TechniqueOutcome) -> list[str]:
        """Returns the errors of the layers."""
        errors = outcome.extras.get("errors")
        return (
            []
            if errors is None
            else [f"The layers of the trained file, the worst first:\n{errors}"]
        )

    def remarks(self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]) -> list[str]:
        """Returns a line for each layer that stays float."""
        return float_layer_lines(outcome.model)

    def sections(
        self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]
    ) -> list[ReportSection]:
        """Returns the errors of the layers."""
        errors = outcome.extras.get("errors")
        if errors is None:  # a technique after this one made the files
            return []
        picture = ("errors.png", "quantization error", errors)
        title = "Quantization error, layer by layer"
        return [
            ReportSection(
                title,
                errors.headers(),
                errors.rows(),
                caption="Signal to noise of each layer",
                picture=picture,
            )
        ]

    def products(self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]) -> dict[str, str]:
        """Returns the errors of the layers as JSON."""
        errors = outcome.extras.get("errors")
        return {} if errors is None else {"errors.json": errors.to_json()}

    def examined(
        self, outcome: TechniqueOutcome, files: Mapping[str, Artifact], context: Context
    ) -> TechniqueOutcome:
        """Adds the errors of the file's layers."""
        from tfnas.measure.quantization_debugger.quantization_error import quantization_error

        file = files[f"{self.label}, {outcome.settings.mode}"]
        inputs = context.calibration(EXAMINED)
        errors = quantization_error(outcome.model, file, inputs, keep_float=())
        return dataclasses.replace(outcome, extras={**outcome.extras, "errors": errors})

    def models(self, outcome: TechniqueOutcome) -> dict[str, keras.Model]:
        """Returns the trained model, with and without fake quantization."""
        return models_to_write(outcome.model)
