"""A technique: one way to make a model smaller or faster, the same everywhere in tfnas.

A technique changes a copy of a model, names the callbacks that its training needs, and describes
what it did. The engine does the rest, in one way for all of them: it fine-tunes
(:mod:`tfnas.compression.fine_tune`), keeps what earlier techniques achieved, converts, measures
and reports. A command (`tfnas prune`), a step of :func:`tfnas.compress` and a trial of a search
that compresses are all rows of techniques (:mod:`tfnas.compression.technique_row`).

To add one, write a subclass in a module of this folder and add a row to
:mod:`tfnas.compression.techniques.registry`; `docs/add_a_technique.md` shows how. Modules of
techniques import TensorFlow only inside their functions, so that `tfnas --help` is quick.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    import keras

    from tfnas.compression.fine_tune_settings import FineTuneSettings
    from tfnas.compression.technique_context import Context
    from tfnas.distillation.feature_losses import FeatureHint
    from tfnas.tflite.artifact import Artifact

S = TypeVar("S")


class NotPossible(ValueError):
    """A technique refuses a model; the message says why."""


@dataclasses.dataclass(frozen=True)
class ReportSection:
    """A part of a technique's report.

    Args:
        title: Its title.
        headers: Titles of the table's columns; empty: no table.
        rows: The table's rows.
        right: Number of the first column that is aligned to the right.
        texts: Paragraphs after the table.
        prose: Numbers of columns whose cells are sentences.
        caption: Text of the picture.
        picture: (file name, kind, record) of a picture before the table; see
            :data:`tfnas.reports.plots.PICTURES`.
    """

    title: str
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str | int | float | None]] = ()
    right: int = 1
    texts: Sequence[str] = ()
    prose: Sequence[int] = ()
    caption: str = ""
    picture: tuple[str, str, Any] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Applied:
    """A model that a technique changed, before its fine-tuning.

    Args:
        model: The changed copy.
        report: Returns the technique's report; called after the fine-tuning.
        callbacks: Callbacks of the fine-tuning.
        hints: Losses between layers of the original and of the model, where it is distilled.
        trains: Whether the model is fine-tuned at all.
        extras: Further records for the report, by name.
    """

    model: keras.Model
    report: Callable[[], Any]
    callbacks: Sequence[keras.callbacks.Callback] = ()
    hints: Sequence[FeatureHint] = ()
    trains: bool = True
    extras: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class TechniqueOutcome:
    """What a technique did.

    Args:
        technique: The technique's name.
        settings: Its settings.
        model: The model after it.
        reports: Its report, or one of each round.
        extras: Further records for the report, by name.
        training: How it was fine-tuned.
    """

    technique: str
    settings: Any
    model: keras.Model
    reports: Sequence[Any]
    extras: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: FineTuneSettings | None = None


class Technique(abc.ABC, Generic[S]):
    """One way to make a model smaller or faster; see the module.

    Attributes:
        name: Its name in recipes, and with "-" for "_" that of its command.
        rank: Its place in a row: techniques of lower ranks come first, so that each keeps what
            the one before achieved (:mod:`tfnas.graph.compatibility`).
        summary: One line for `tfnas --help`.
        label: Name of its files in tables, such as "pruned".
        settings: The dataclass of its settings, of :func:`tfnas.settings_fields.option`.
        example: Flags of the command's example.
        has_command: Whether it is a command.
        epochs: Default of the command's --epochs.
        learning_rate_scale: Factor of the learning rate of its fine-tuning.
        epochs_scale: Factor of the epochs of its fine-tuning in `compress`.
        trains: Whether its model is fine-tuned at all.
        final: Whether its model computes in integers, so that no technique can follow.
        keeps_itself: Whether its own callbacks keep zeros and shared values of earlier techniques;
            False: the engine adds what does.
        muon: Whether Muon trains it instead of Adam, after a big loss of accuracy.
        needs_matplotlib: Whether its report always has pictures; see :meth:`draws`.
        folder: Suffix of the command's default folder; "": the label.
        least_epochs: Smallest value of the command's --epochs.
        choices: Amounts that `compress` tries, the mildest first, for techniques that the
            planner has no rule of its own for; empty: none.
    """

    name: ClassVar[str]
    rank: ClassVar[int]
    summary: ClassVar[str]
    label: ClassVar[str]
    settings: ClassVar[type]
    example: ClassVar[str] = ""
    has_command: ClassVar[bool] = True
    epochs: ClassVar[int] = 3
    learning_rate_scale: ClassVar[float] = 1.0
    epochs_scale: ClassVar[float] = 1.0
    trains: ClassVar[bool] = True
    final: ClassVar[bool] = False
    keeps_itself: ClassVar[bool] = False
    muon: ClassVar[bool] = False
    needs_matplotlib: ClassVar[bool] = False
    folder: ClassVar[str] = ""
    least_epochs: ClassVar[int] = 0
    choices: ClassVar[tuple[float, ...]] = ()

    @property
    def command(self) -> str:
        """Name of the command."""
        return self.name.replace("_", "-")

    @property
    def suffix(self) -> str:
        """Suffix of the command's default folder, after the name of the model."""
        return self.folder or self.label.replace(" ", "_")

    def draws(self, settings: S) -> bool:
        """Returns whether the report has pictures, for which matplotlib must be installed.

        Args:
            settings: The settings.
        """
        return self.needs_matplotlib

    @abc.abstractmethod
    def apply(self, model: keras.Model, settings: S, context: Context) -> Applied:
        """Changes a copy of a model.

        Args:
            model: The model; it is not changed.
            settings: The settings.
            context: Task, data, seed and epochs.

        Raises:
            ValueError: The technique refuses the model or the settings; before long work.
        """

    @abc.abstractmethod
    def for_amount(self, amount: float, *, brief: bool = False, weights: float | None = None) -> S:
        """Returns the settings of one amount, as recipes and searches write it.

        Args:
            amount: The amount, such as a fraction of zeros.
            brief: Whether the training is only some dozen steps, as in a trial of a search.
            weights: Fraction of the weights that stays, for techniques that have a second amount.
        """

    def check_epochs(self, settings: S, epochs: int) -> None:
        """Checks that settings fit the number of epochs.

        Args:
            settings: The settings.
            epochs: Epochs of the fine-tuning.

        Raises:
            ValueError: They don't.
        """

    def check(self, model: keras.Model, settings: S, context: Context) -> None:
        """Checks model and settings in a second or two, before any file is written.

        Args:
            model: The model.
            settings: The settings.
            context: Task, data, seed and epochs.

        Raises:
            ValueError: They don't fit.
        """

    def run(self, model: keras.Model, settings: S, context: Context) -> TechniqueOutcome:
        """Applies the technique and fine-tunes.

        Args:
            model: The model; it is not changed.
            settings: The settings.
            context: Task, data, seed, epochs and progress.

        Raises:
            ValueError: The technique refuses the model or the settings.
        """
        applied = self.apply(model, settings, context)
        if applied.trains and context.settings.epochs:
            callbacks = [*self._keep(model, applied, context), *applied.callbacks]
            context.fine_tune(applied.model, callbacks, hints=applied.hints, muon=self.muon)
        return TechniqueOutcome(
            self.name, settings, applied.model, [applied.report()], applied.extras
        )

    def _keep(
        self, model: keras.Model, applied: Applied, context: Context
    ) -> Sequence[keras.callbacks.Callback]:
        """Keeps zeros and shared values of earlier techniques through the training."""
        from tfnas.compression.techniques.achieved import keep_achieved

        if self.keeps_itself:
            return ()
        return keep_achieved(model, applied.model, context.before)

    def files(
        self, original: keras.Model, outcome: TechniqueOutcome, context: Context
    ) -> tuple[list[tuple[str, Artifact]], list[str]]:
        """Converts the original and the new model; what `tfnas` commands compare.

        Args:
            original: The model before.
            outcome: What the technique did.
            context: The data.

        Returns:
            ("original, float32", file) and so on, the original's first, and notes on what could
            not be converted.
        """
        from tfnas.compression.file_comparison_table import convert_all

        models = {"original": original, self.label: outcome.model}
        return convert_all(models, context.calibration())

    def examined(
        self, outcome: TechniqueOutcome, files: Mapping[str, Artifact], context: Context
    ) -> TechniqueOutcome:
        """Returns the outcome with records that need its files.

        Args:
            outcome: What the technique did.
            files: Its files, by label.
            context: The data.
        """
        return outcome

    def column(self) -> str:
        """Returns the title of a column of the table of files; "": there is none."""
        return ""

    def cell(self, file: Artifact) -> str:
        """Returns a file's cell in that column."""
        return ""

    def title(self, outcome: TechniqueOutcome) -> str:
        """Returns the title of the report, such as "80.0% zeros in 9 pruned kernels"."""
        return self.summary

    def remarks(self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]) -> list[str]:
        """Returns sentences for the reader of the result.

        Args:
            outcome: What the technique did.
            files: Its files, by label.
        """
        return []

    def details(self, outcome: TechniqueOutcome) -> list[str]:
        """Returns what a terminal shows before the table of files."""
        return [str(report) for report in outcome.reports if report is not None]

    def sections(
        self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]
    ) -> list[ReportSection]:
        """Returns the parts of the report after the table of files.

        Args:
            outcome: What the technique did.
            files: Its files, by label.
        """
        return [
            report_section(f"Step {number}" if len(outcome.reports) > 1 else "Layers", report)
            for number, report in enumerate(outcome.reports, 1)
            if report is not None
        ]

    def products(self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]) -> dict[str, str]:
        """Returns more files of the job: name -> text.

        Args:
            outcome: What the technique did.
            files: Its files, by label.
        """
        return {}

    def models(self, outcome: TechniqueOutcome) -> dict[str, keras.Model]:
        """Returns the Keras models that the command writes: file name -> model."""
        return {"model.keras": outcome.model}


def report_section(title: str, report: Any, right: int = 1) -> ReportSection:
    """Returns a report's table as a section.

    Args:
        title: Title of the section.
        report: A record with `headers()` and `rows()`.
        right: Number of the first column that is aligned to the right.
    """
    return ReportSection(title, list(report.headers()), report.rows(), right)
