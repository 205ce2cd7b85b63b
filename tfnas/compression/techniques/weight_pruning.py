"""Technique: sets weights to zero, at once or while training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfnas.compression.techniques.technique import (
    Applied,
    ReportSection,
    Technique,
    TechniqueOutcome,
    report_section,
)
from tfnas.schedules import check_ratio, polynomial
from tfnas.settings_fields import check_options, documented, option

if TYPE_CHECKING:
    import keras

    from tfnas.compression.technique_context import Context
    from tfnas.pruning.sensitivity import Sensitivity
    from tfnas.tflite.artifact import Artifact

SENSITIVITY_EXAMPLES = 2048  # largest number of examples that the loss is measured on
RAMP = 0.5  # fraction of the training in which the sparsity grows
BY_SENSITIVITY = "sensitivity"
SPEED_NOTE = (
    "Zeros make a file smaller once it is compressed; whether they make it faster depends on the "
    "device."
)
_SPARSE = "pruned, float32 sparse"


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneSettings:
    """Settings of weight pruning; see :func:`tfnas.prune` and :class:`tfnas.PruningCallback`.

    Example:
        >>> PruneSettings(sparsity=0.8, exclude=("first", "last")).criterion
        'magnitude'
    """

    sparsity: float = option(help="fraction of the weights to set to zero, in [0, 1)")
    criterion: str = option(
        "magnitude",
        "importance of a weight; the least important ones are pruned",
        choices=("magnitude", "gradient", "taylor", "random", "obs"),
    )
    granularity: str = option(
        "element", "units of pruning: element, blocks such as 1x4, N:M such as 2:4, filter"
    )
    scope: str = option(
        "layer",
        "how the sparsity is distributed over the layers",
        choices=("layer", "global", "erk", BY_SENSITIVITY, "output"),
    )
    exclude: tuple[str, ...] = option(
        (), "layers to leave as they are: names, patterns, first, last, depthwise"
    )
    reconstruct: bool = option(
        True, "without training: adjust the kept weights to compensate for the pruned ones"
    )
    sparse: bool = option(True, "also write a file that stores only the nonzero weights")
    depthwise: bool = option(True, "whether depthwise layers, if any, are pruned", flag=False)

    def __post_init__(self) -> None:
        check_ratio(self.sparsity, name="sparsity")
        check_options(self)


class WeightPruning(Technique[PruneSettings]):
    """Sets the least important weights to zero."""

    name = "prune"
    rank = 50
    keeps_itself = True
    summary = "set weights of a .keras model to zero, with or without training"
    label = "pruned"
    settings = PruneSettings
    example = "--sparsity=0.8 --epochs=5 --exclude=first,last"
    epochs = 0

    def for_amount(
        self, amount: float, *, brief: bool = False, weights: float | None = None
    ) -> PruneSettings:
        """Returns the settings of a fraction of zeros.

        A brief training prunes layer by layer, since factors of low rank have weights of another
        size than the others: a global threshold might empty a layer, which a few dozen steps
        don't repair.

        Args:
            amount: The fraction.
            brief: As for the base class.
        """
        if brief:
            return PruneSettings(sparsity=amount, depthwise=False)
        return PruneSettings(sparsity=amount, scope="global")

    def draws(self, settings: PruneSettings) -> bool:
        """Returns whether the sensitivity of the layers is drawn."""
        return settings.scope == BY_SENSITIVITY

    def check_epochs(self, settings: PruneSettings, epochs: int) -> None:
        """Checks what goes with the criterion "obs", which prunes without training."""
        from tfnas.pruning.prune import BY_OUTPUT, OBS

        obs = settings.criterion == OBS
        if obs and (epochs or settings.scope == BY_SENSITIVITY):
            raise ValueError(
                "criterion 'obs' goes with epochs 0 and the scopes layer, erk and output, got "
                f"{epochs} epochs and {settings.scope!r}"
            )
        if settings.scope == BY_OUTPUT and not obs:
            raise ValueError(
                f"scope 'output' goes with criterion 'obs', got {settings.criterion!r}"
            )

    def check(self, model: keras.Model, settings: PruneSettings, context: Context) -> None:
        """Prunes a copy that is thrown away, so that a bad argument fails before long work."""
        from tfnas.pruning.prune import BY_OUTPUT, OBS, prune

        scope = "layer" if settings.scope in (BY_SENSITIVITY, BY_OUTPUT) else settings.scope
        few = context.data.train.first(8)
        prune(
            model,
            settings.sparsity,
            criterion="magnitude" if settings.criterion == OBS else settings.criterion,
            granularity=settings.granularity,
            scope=scope,
            exclude=_excluded(settings, model),
            data=(few.x, few.y),
            loss=context.task.criterion_loss(model),
            seed=context.seed,
        )

    def apply(self, model: keras.Model, settings: PruneSettings, context: Context) -> Applied:
        """Prunes a copy at once, or returns one with the callback that prunes while training."""
        found = _sensitivity(model, settings, context)
        extras = {} if found is None else {"sensitivity": found}
        scope: Any = found.suggest(settings.sparsity) if found else settings.scope
        options = {
            "granularity": settings.granularity,
            "scope": scope,
            "exclude": _excluded(settings, model),
            "seed": context.seed,
            **_scoring(model, settings, context),
        }
        if not context.settings.epochs:
            return self._at_once(model, settings, context, options, extras)
        from tfnas.graph.functional import clone
        from tfnas.pruning.pruning_callback import PruningCallback

        context.progress.phase(f"pruning while training, {context.training_text()}")
        steps, first = context.steps(), context.first_step
        schedule = polynomial(
            settings.sparsity,
            begin=first,
            end=first + int(RAMP * steps),
            by="step",
            frequency=max(1, min(100, steps // 20)),
        )
        pruning = PruningCallback(schedule, **options)
        return Applied(clone(model), lambda: pruning.report, [pruning], extras=extras)

    def _at_once(
        self,
        model: keras.Model,
        settings: PruneSettings,
        context: Context,
        options: dict[str, Any],
        extras: dict[str, Any],
    ) -> Applied:
        from tfnas.pruning.prune import prune

        context.progress.phase("pruning without training")
        if settings.reconstruct:  # needs examples whatever the criterion
            options = {
                **options,
                "data": context.scoring(),
                "loss": context.task.criterion_loss(model),
            }
        pruned, report = prune(
            model, settings.sparsity, reconstruct=settings.reconstruct, **options
        )
        return Applied(pruned, lambda: report, trains=False, extras=extras)

    def files(
        self, original: keras.Model, outcome: TechniqueOutcome, context: Context
    ) -> tuple[list[tuple[str, Artifact]], list[str]]:
        """Converts both models, and the pruned one to a file that stores only nonzero weights."""
        from tfnas.tflite.conversion_error import ConversionError
        from tfnas.tflite.convert import to_tflite

        files, notes = super().files(original, outcome, context)
        if outcome.settings.sparse:
            try:
                files.append((_SPARSE, to_tflite(outcome.model, "float32", sparse=True)))
            except ConversionError as error:
                notes.append(f"no sparse file: {error}")
        return files, notes

    def column(self) -> str:
        """The fraction of zeros of a file."""
        return "zeros"

    def cell(self, file: Artifact) -> str:
        """Returns the fraction of zeros of a file."""
        from tfnas.tflite.file_sparsity import file_sparsity

        return f"{file_sparsity(file).sparsity:.1%}"

    def title(self, outcome: TechniqueOutcome) -> str:
        """Returns the fraction of zeros and the number of kernels."""
        report = outcome.reports[0]
        return f"{report.sparsity:.1%} zeros in {len(report.kernels)} pruned kernels"

    def remarks(self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]) -> list[str]:
        """Returns whether XNNPACK's sparse kernels can run the float32 file."""
        verdict = _speed_verdict(files)
        return [*([f"float32: {verdict}"] if verdict else []), SPEED_NOTE]

    def sections(
        self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]
    ) -> list[ReportSection]:
        """Returns the kernels, and the sensitivity of layers where it was measured."""
        report = outcome.reports[0]
        text = f"{report.zeros:,} of {report.weights:,} weights are zero."
        kernels = dataclasses.replace(
            report_section("The kernels", report, 4), texts=[text], prose=[3]
        )
        found = outcome.extras.get("sensitivity")
        if found is None:
            return [kernels]
        text = (
            "Minus the loss on the validation part with one layer alone pruned, the most sensitive "
            "layer first."
        )
        picture = ("sensitivity.png", "sensitivity", found)
        return [
            kernels,
            ReportSection(
                "Sensitivity",
                found.headers(),
                found.rows(),
                texts=[text],
                caption="Quality with one layer pruned",
                picture=picture,
            ),
        ]

    def products(self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]) -> dict[str, str]:
        """Returns the zeros of each kernel as CSV, and the sensitivity as JSON."""
        from tfnas.table import csv_table

        report = outcome.reports[0]
        rows = [
            [k.name, k.kind, "x".join(map(str, k.shape)), k.note, k.weights, k.zeros, k.sparsity]
            for k in report.kernels
        ]
        products = {"kernels.csv": csv_table(report.headers(), rows)}
        if "sensitivity" in outcome.extras:
            products["sensitivity.json"] = outcome.extras["sensitivity"].to_json()
        return products


def _excluded(settings: PruneSettings, model: keras.Model) -> tuple[str, ...]:
    """Returns the patterns of layers to leave as they are."""
    import keras

    from tfnas.graph.batchnorm import layers_of

    # A pattern that matches no layer is refused.
    if not settings.depthwise and layers_of(model, keras.layers.DepthwiseConv2D):
        return (*settings.exclude, "depthwise")
    return settings.exclude


def _scoring(model: keras.Model, settings: PruneSettings, context: Context) -> dict[str, Any]:
    if settings.criterion in ("magnitude", "random"):
        return {"criterion": settings.criterion}
    return {
        "criterion": settings.criterion,
        "data": context.scoring(),
        "loss": context.task.criterion_loss(model),
    }


def _sensitivity(
    model: keras.Model, settings: PruneSettings, context: Context
) -> Sensitivity | None:
    if settings.scope != BY_SENSITIVITY:
        return None

    from tfnas.pruning.sensitivity import Sensitivity

    # Kept: measured again, it would suggest other sparsities than those of the training.
    text = context.decided(
        "sensitivity", lambda: _measured_sensitivity(model, settings, context).to_json()
    )
    return Sensitivity.from_json(text)


def _measured_sensitivity(
    model: keras.Model, settings: PruneSettings, context: Context
) -> Sensitivity:
    from tfnas.pruning.sensitivity import sensitivity

    examples = context.data.validation.spread(SENSITIVITY_EXAMPLES)
    loss = context.task.criterion_loss(model)
    context.progress.phase(
        f"measuring each layer's sensitivity on {len(examples)} validation examples"
    )

    def quality(candidate: keras.Model) -> float:
        # The loss, not the metric: it also moves where no prediction changes.
        return -float(loss(examples.y, candidate.predict(examples.x, verbose=0)))

    return sensitivity(
        model,
        quality,
        _sparsities(settings),
        granularity=settings.granularity,
        exclude=_excluded(settings, model),
        seed=context.seed,
        **_scoring(model, settings, context),
    )


def _sparsities(settings: PruneSettings) -> list[float]:
    """Sparsities to measure, up to the highest of the granularity, the target well inside."""
    from tfnas.pruning.masks import granularity
    from tfnas.pruning.sensitivity import SPARSITIES

    highest = granularity(settings.granularity).max_sparsity
    ratios = [highest * fraction for fraction in SPARSITIES]
    if settings.sparsity >= ratios[-1]:
        ratios.append((settings.sparsity + highest) / 2)
    return ratios if highest == 1.0 else [*ratios, highest]


def _speed_verdict(files: Mapping[str, Artifact]) -> str:
    """Returns whether XNNPACK's sparse kernels can run the float32 file; "": there is none."""
    from tfnas.tflite.file_sparsity import file_sparsity

    found = next((files[name] for name in (_SPARSE, "pruned, float32") if name in files), None)
    if found is None:
        return ""
    verdict = file_sparsity(found).verdict
    if not verdict.eligible:
        return f"{verdict}"
    return f"{verdict} by its form, where 1x1 kernels hold two thirds zeros and are stored sparse"
