"""Techniques: replace layers by factors of a lower rank."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tfnas.compression.techniques.block_hints import block_hints
from tfnas.compression.techniques.technique import (
    Applied,
    NotPossible,
    ReportSection,
    Technique,
    TechniqueOutcome,
    report_section,
)
from tfnas.settings_fields import check_options, documented, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras

    from tfnas.compression.technique_context import Context
    from tfnas.distillation.feature_losses import FeatureHint
    from tfnas.tflite.artifact import Artifact

LARGE_DENSE = 0.1  # of all dense weights: smaller dense layers are not factorized
METHODS = ("svd", "spatial", "tucker")


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorizeSettings:
    """Settings of low-rank factorization, of which one of `macs`, `energy` and `rank` is set.

    Example:
        >>> FactorizeSettings(macs=0.5).methods
        ('svd', 'spatial', 'tucker')
    """

    macs: float | None = option(
        None,
        "largest number of multiply-accumulates; up to 1: a fraction of the model's",
        low=0,
        open="low",
    )
    energy: float | None = option(
        None, "fraction of the energy of each layer's output to keep", low=0, open="low"
    )
    rank: float | None = option(
        None,
        "rank: channels between the factors; below 1: a fraction of the full rank",
        low=0,
        open="low",
    )
    methods: tuple[str, ...] = option(
        METHODS, "factorizations to use: svd (Dense and 1x1), spatial and tucker (k x k)"
    )
    exclude: tuple[str, ...] = option((), "layers to leave as they are: names or patterns")
    calibration: int = option(
        300,
        "examples on which the error of a layer's output is minimized; 0: that of its kernel",
        low=0,
    )

    def __post_init__(self) -> None:
        targets = [n for n in ("macs", "energy", "rank") if getattr(self, n) is not None]
        if len(targets) != 1:
            raise ValueError(
                f"exactly one of macs, energy and rank must be given, got "
                f"{', '.join(targets) or 'none'}"
            )
        check_options(self)


class LowRankFactors(Technique[FactorizeSettings]):
    """Replaces layers by factors of a lower rank."""

    name = "factorize"
    rank = 20
    summary = "replace layers of a .keras model by factors of a low rank"
    label = "low rank"
    settings = FactorizeSettings
    example = "--macs=0.5 --epochs=5"
    epochs = 5

    def for_amount(
        self, amount: float, *, brief: bool = False, weights: float | None = None
    ) -> FactorizeSettings:
        """Returns the settings of a fraction of the MACs."""
        return FactorizeSettings(macs=amount)

    def apply(self, model: keras.Model, settings: FactorizeSettings, context: Context) -> Applied:
        """Factorizes the layers of a copy."""
        rank: Any = settings.rank
        if rank is not None and rank == int(rank):
            rank = int(rank)
        target = {"rank": rank, "energy": settings.energy, "target_macs": settings.macs}
        return _factorized(model, context, settings.calibration, target, settings)

    def title(self, outcome: TechniqueOutcome) -> str:
        """Returns the title of the report."""
        return "Low rank"

    def sections(
        self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]
    ) -> list[ReportSection]:
        """Returns the factorized layers and the others."""
        report = outcome.reports[0]
        (before, after), (old, new) = report.macs, report.parameters
        error_of = "output on training examples" if report.weighted else "kernel"
        texts = [
            f"{before:,} MACs to {after:,}, {old:,} parameters to {new:,}. The error is the "
            f"fraction of the layer's squared {error_of} that the ranks leave out, before any "
            "training.",
        ]
        if report.layers:
            layers = report_section("Factorized layers", report, 2)
        else:
            layers = ReportSection("Factorized layers", texts=["None."])
        if not report.left:
            texts += report.notes
        sections = [dataclasses.replace(layers, texts=[*layers.texts, *texts])]
        if report.left:
            headers = ["layer", "class", "why"]
            title = "Layers that were not factorized"
            sections.append(ReportSection(title, headers, report.left_rows(), 3, report.notes, [2]))
        return sections


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorizeDenseSettings:
    """Settings of low-rank factorization of large dense layers alone."""

    weights: float = option(
        help="fraction of the weights of each large dense layer to keep", low=0, high=1, open="both"
    )

    def __post_init__(self) -> None:
        check_options(self)


class DenseFactors(Technique[FactorizeDenseSettings]):
    """Replaces large dense layers by factors, for files whose weights are mostly dense."""

    name = "factorize_dense"
    rank = 30
    summary = "replace large dense layers by factors of a low rank"
    label = "low rank"
    settings = FactorizeDenseSettings
    has_command = False

    def for_amount(
        self, amount: float, *, brief: bool = False, weights: float | None = None
    ) -> FactorizeDenseSettings:
        """Returns the settings of a fraction of the dense weights."""
        return FactorizeDenseSettings(weights=amount)

    def apply(
        self, model: keras.Model, settings: FactorizeDenseSettings, context: Context
    ) -> Applied:
        """Factorizes the large dense layers of a copy."""
        ranks = dense_ranks(model, settings.weights)
        if not ranks:
            raise NotPossible(
                f"no dense layer has {settings.weights:g} of its weights at a lower rank"
            )
        return _factorized(model, context, FactorizeSettings(macs=1).calibration, {"rank": ranks})


def _factorized(
    model: keras.Model,
    context: Context,
    calibration: int,
    target: dict[str, Any],
    settings: FactorizeSettings | None = None,
) -> Applied:
    import keras

    from tfnas.graph.batchnorm import (
        layers_of,
        layers_with_foreign_statistics,
        recalibrate_batchnorm,
    )
    from tfnas.low_rank.factorize import factorize, factorize_again
    from tfnas.low_rank.low_rank_report import FactorizationReport

    context.progress.phase("factorizing")
    options: dict[str, Any] = {}
    if settings is not None:
        options = {"methods": settings.methods, "exclude": settings.exclude}
    data = context.calibration(calibration) if calibration else None
    now: list[keras.Model] = []

    def compute() -> dict[str, Any]:
        factorized, report = factorize(model, data=data, **target, **options)
        now.append(factorized)
        return report.as_dict()

    # Kept: errors on data, which choose methods and ranks, are never quite the same again.
    report = FactorizationReport.of(context.decided("ranks", compute))
    factorized = now[0] if now else factorize_again(model, report, data, **options)
    if report.layers and layers_of(factorized, keras.layers.BatchNormalization):
        if layers_with_foreign_statistics(model, context.calibration()):
            context.progress.phase(
                "BatchNormalization keeps its statistics: the model's are not those of this data, "
                "as where normalization was folded"
            )
        else:
            recalibrate_batchnorm(factorized, context.calibration())
    hints: list[FeatureHint] = []
    if context.settings.distill:
        hints = block_hints(factorized, context.original, context.calibration())
    return Applied(factorized, lambda: report, hints=hints, trains=bool(report.layers))


def dense_ranks(model: keras.Model, fraction: float) -> dict[str, int]:
    """Returns the ranks at which the large dense layers keep a fraction of their weights.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, name="d")])
        >>> dense_ranks(model, 0.5)
        {'d': 16}

    Args:
        model: A Keras model.
        fraction: Fraction of each layer's weights, in (0, 1).
    """
    import keras

    from tfnas.graph.layer_kernels import model_kernels

    found = [k for k in model_kernels(model)[0] if isinstance(k.layer, keras.layers.Dense)]
    least = LARGE_DENSE * sum(kernel.size for kernel in found)
    large = [kernel for kernel in found if kernel.size >= least]
    ranks = {kernel.path: int(fraction * kernel.size / sum(kernel.shape)) for kernel in large}
    return {name: rank for name, rank in ranks.items() if rank}
