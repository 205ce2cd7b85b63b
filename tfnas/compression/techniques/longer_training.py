"""Technique: trains once more, longer, where the accuracy is slightly too low."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfnas.compression.techniques.achieved import keep_achieved
from tfnas.compression.techniques.technique import Applied, Technique, TechniqueOutcome
from tfnas.settings_fields import check_options, documented, option

if TYPE_CHECKING:
    import keras

    from tfnas.compression.technique_context import Context


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class LongerSettings:
    """Settings of longer training."""

    times: float = option(1.0, "multiple of the epochs of a step", low=0, open="low")

    def __post_init__(self) -> None:
        check_options(self)


class LongerTraining(Technique[LongerSettings]):
    """Trains once more."""

    name = "train"
    rank = 40
    summary = "train once more"
    label = "trained longer"
    settings = LongerSettings
    has_command = False
    muon = True

    def for_amount(
        self, amount: float, *, brief: bool = False, weights: float | None = None
    ) -> LongerSettings:
        """Returns the settings of a multiple of a step's epochs."""
        return LongerSettings(times=amount)

    def apply(self, model: keras.Model, settings: LongerSettings, context: Context) -> Applied:
        """Returns a copy to train."""
        from tfnas.graph.functional import clone

        copy = clone(model)
        return Applied(copy, lambda: None, keep_achieved(model, copy))

    def run(
        self, model: keras.Model, settings: LongerSettings, context: Context
    ) -> TechniqueOutcome:
        """Trains a copy for a multiple of the epochs."""
        applied = self.apply(model, settings, context)
        epochs = max(1, round(settings.times * context.settings.epochs))
        muon = not applied.callbacks  # gradients of shared values are summed for Adam
        context.fine_tune(applied.model, applied.callbacks, muon=muon, epochs=epochs)
        return TechniqueOutcome(self.name, settings, applied.model, [])
