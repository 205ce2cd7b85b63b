"""Technique: removes channels, so that a model runs faster anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from tfnas.compression.techniques.achieved import keep_achieved
from tfnas.compression.techniques.channel_sizes import (
    both_sizes,
    by_savings,
    equal_sizes,
    shared_layers,
)
from tfnas.compression.techniques.technique import (
    Applied,
    ReportSection,
    Technique,
    TechniqueOutcome,
    report_section,
)
from tfnas.settings_fields import check_options, documented, option, parse_pairs

if TYPE_CHECKING:
    import keras

    from tfnas.compression.technique_context import Context
    from tfnas.pruning.structured.channel_report import ChannelPruningReport
    from tfnas.tflite.artifact import Artifact

_Pruned: TypeAlias = "tuple[keras.Model, ChannelPruningReport]"
SCORED_BY_SAVING = 1024  # examples for the criterion "taylor" in `compress`
MOST = 0.9


def parse_sizes(texts: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Parses the values of --sizes, LAYER=NUMBER.

    Args:
        texts: The texts.

    Raises:
        ValueError: A text has another form.
    """
    return parse_pairs(texts, "sizes", "LAYER=NUMBER", whole=True)


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneChannelsSettings:
    """Settings of channel pruning; see :func:`tfnas.prune_channels`.

    One of `macs`, `params`, `latency` and `sizes` is set; `macs` and `params` may both be, as
    fractions, with the scope "saving".

    Example:
        >>> PruneChannelsSettings(macs=0.5).criterion
        'l2'
    """

    macs: float | None = option(
        None,
        "largest number of multiply-accumulates; up to 1: a fraction of the model's",
        low=0,
        open="low",
    )
    params: float | None = option(
        None,
        "largest number of weights; up to 1: a fraction of the model's",
        low=0,
        open="low",
    )
    latency: float | None = option(
        None,
        "largest latency of the int8 file, estimated by layers, as a fraction of the model's",
        low=0,
        open="low",
    )
    sizes: tuple[tuple[str, int], ...] | Mapping[str, int] = option(
        (), "numbers of channels to keep: LAYER=NUMBER", parse=parse_sizes
    )
    steps: int = option(1, "number of steps of pruning and training", low=1)
    round_to: int | None = option(
        None, "round the numbers of channels to multiples of this number", low=1
    )
    criterion: str = option(
        "l2", "importance of a channel", choices=("l1", "l2", "scale", "taylor", "obs", "random")
    )
    scope: str = option(
        "global",
        "how the removed channels are distributed over the groups of channels",
        choices=("global", "group", "saving"),
    )
    max_ratio: float = option(MOST, "largest fraction of a group's channels to remove")
    exclude: tuple[str, ...] = option((), "layers whose channels are kept: names or patterns")
    reconstruct: bool = option(
        True, "without training: fit the layers that lost channels to the original's outputs"
    )
    keep_blocks: bool = option(
        False, "whether channels between residual blocks are kept where possible", flag=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(dict(self.sizes).items()))
        names = ("macs", "params", "latency", "sizes")
        targets = [n for n in names if getattr(self, n) not in (None, ())]
        both = targets == ["macs", "params"] and self.keep_blocks
        if len(targets) != 1 and not both:
            raise ValueError(
                f"exactly one of macs, params, latency and sizes must be given, got "
                f"{', '.join(targets) or 'none'}"
            )
        check_options(self)
        if self.steps > 1 and not (self.macs is not None and self.macs < 1):
            raise ValueError(f"steps must be 1 unless macs is a fraction, got {self.steps}")


class ChannelPruningTechnique(Technique[PruneChannelsSettings]):
    """Removes the least important channels."""

    name = "prune_channels"
    rank = 10
    summary = "remove channels of a .keras model, so that it runs faster anywhere"
    label = "smaller"
    settings = PruneChannelsSettings
    example = "--macs=0.5 --epochs=5"
    epochs = 5
    folder = "small"
    epochs_scale = 2.5  # more is lost at once
    muon = True

    def for_amount(
        self, amount: float, *, brief: bool = False, weights: float | None = None
    ) -> PruneChannelsSettings:
        """Returns the settings of a fraction of the MACs and one of the weights.

        Args:
            amount: Fraction of the MACs that stays; 1: no limit.
            brief: As for the base class.
            weights: Fraction of the weights that stays; None or 1: no limit.
        """
        limits: dict[str, Any] = {"macs": amount, "params": weights}
        return PruneChannelsSettings(
            criterion="taylor",
            scope="saving",
            keep_blocks=True,
            reconstruct=False,  # it is trained; files are measured before that
            **{name: value for name, value in limits.items() if value and value < 1},
        )

    def check_epochs(self, settings: PruneChannelsSettings, epochs: int) -> None:
        """Checks the number of steps."""
        if settings.steps > max(epochs, 1):
            raise ValueError(f"steps must be at most epochs {epochs}, got {settings.steps}")

    def apply(
        self, model: keras.Model, settings: PruneChannelsSettings, context: Context
    ) -> Applied:
        """Removes channels of a copy, all at once."""
        options = self._options(model, settings, context)
        smaller, report = _kept(
            model, context, "channels", lambda: self._pruned(model, settings, context), options
        )
        return Applied(smaller, lambda: report, keep_achieved(smaller, smaller))

    def _pruned(
        self, model: keras.Model, settings: PruneChannelsSettings, context: Context
    ) -> _Pruned:
        from tfnas.pruning.structured.prune_channels import prune_channels

        options = self._options(model, settings, context)
        if settings.keep_blocks:
            return self._between_blocks_kept(model, settings, options)
        return prune_channels(model, **self._target(settings, context), **options)

    def _between_blocks_kept(
        self, model: keras.Model, settings: PruneChannelsSettings, options: dict[str, Any]
    ) -> _Pruned:
        from tfnas.pruning.structured.prune_channels import prune_channels

        names = ("criterion", "data", "loss", "seed", "reconstruct")
        own = {name: options[name] for name in names}
        if settings.scope == "group":
            sizes = equal_sizes(model, settings.macs, settings.params)
            return prune_channels(model, sizes=sizes, **own)
        if settings.macs is not None and settings.params is not None:
            sizes = both_sizes(model, settings.macs, settings.params)
            return prune_channels(model, sizes=sizes, **own)
        limit = (
            {"target_params": settings.params}
            if settings.macs is None
            else {"target_macs": settings.macs}
        )
        return by_savings(model, shared_layers(model), **limit, **own)

    def _target(self, settings: PruneChannelsSettings, context: Context) -> dict[str, Any]:
        from tfnas.measure.latency_model.latency_model import LatencyModel

        if settings.sizes:
            return {"sizes": dict(settings.sizes)}
        if settings.latency is None:
            return {"target_macs": settings.macs, "target_params": settings.params}
        context.progress.phase("measuring the latency of single layers")
        return {"target_latency_ratio": settings.latency, "latency": LatencyModel("int8")}

    def _options(
        self, model: keras.Model, settings: PruneChannelsSettings, context: Context
    ) -> dict[str, Any]:
        scored = context.replace(scored=SCORED_BY_SAVING) if settings.keep_blocks else context
        return {
            "criterion": settings.criterion,
            "scope": settings.scope,
            "round_to": settings.round_to,
            "max_ratio": settings.max_ratio,
            "exclude": settings.exclude,
            "reconstruct": settings.reconstruct and not context.settings.epochs,
            "data": scored.scoring(),
            "loss": context.task.criterion_loss(model),
            "seed": context.seed,
        }

    def run(
        self, model: keras.Model, settings: PruneChannelsSettings, context: Context
    ) -> TechniqueOutcome:
        """Removes channels and fine-tunes, in one step or several."""
        steps, epochs = settings.steps, context.settings.epochs

        def fit(smaller: keras.Model, step: int) -> None:
            first, last = ((epochs * n) // steps for n in (step - 1, step))
            if last == first:
                return
            context.progress.phase(f"step {step} of {steps}: training {last - first} epochs")
            callbacks = keep_achieved(smaller, smaller)
            # Gradients of shared values are summed for Adam, not for Muon.
            muon, name = not callbacks, f"training {step}"
            context.fine_tune(smaller, callbacks, muon=muon, epochs=last - first, name=name)

        if steps > 1:
            options = self._options(model, settings, context)
            smaller, reports = _in_steps(model, settings, context, fit, options)
            return TechniqueOutcome(self.name, settings, smaller, reports)
        applied = self.apply(model, settings, context)
        fit(applied.model, 1)
        return TechniqueOutcome(self.name, settings, applied.model, [applied.report()])

    def title(self, outcome: TechniqueOutcome) -> str:
        """Returns the MACs before and after."""
        before, after = outcome.reports[0].macs[0], outcome.reports[-1].macs[1]
        return f"Fewer channels: {before:,} MACs to {after:,}"

    def sections(
        self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]
    ) -> list[ReportSection]:
        """Returns the channels that each step removed."""
        sections = []
        for number, report in enumerate(outcome.reports, 1):
            (before, after), (old, new) = report.macs, report.parameters
            text = f"{before:,} MACs to {after:,}, {old:,} parameters to {new:,}."
            section = report_section(f"Step {number}", report)
            sections.append(dataclasses.replace(section, texts=[text, *report.notes]))
        return sections


def _kept(
    model: keras.Model,
    context: Context,
    name: str,
    prune: Callable[[], _Pruned],
    options: Mapping[str, Any],
) -> _Pruned:
    """Returns the pruned model and the report; where a run before pruned it, of the same channels.

    Measured latencies and gradients, which choose the channels, are never quite the same again.
    """
    from tfnas.pruning.structured.channel_repair import remove_again_refitted
    from tfnas.pruning.structured.channel_report import ChannelPruningReport
    from tfnas.pruning.structured.slicing import remove_again

    now: list[_Pruned] = []

    def compute() -> dict[str, Any]:
        now.append(prune())
        return now[0][1].as_dict()

    report = ChannelPruningReport.of(context.decided(name, compute))
    if now:
        return now[0][0], report
    if options["reconstruct"]:
        return remove_again_refitted(model, report, options["data"]), report
    return remove_again(model, report), report


def _in_steps(
    model: keras.Model,
    settings: PruneChannelsSettings,
    context: Context,
    fit: Callable[[keras.Model, int], None],
    options: dict[str, Any],
) -> tuple[keras.Model, list[ChannelPruningReport]]:
    from tfnas.pruning.structured.iterative import ChannelPruning

    class Kept(ChannelPruning):
        """Removes the same channels again after a kill."""

        def _pruned(self, model: keras.Model, step: int) -> _Pruned:
            prune = super()._pruned
            return _kept(model, context, f"channels {step}", lambda: prune(model, step), options)

    assert settings.macs is not None
    return Kept(model, settings.macs, steps=settings.steps, fit=fit, **options).run()
