"""One call from a trained model, techniques and data to files and a report.

The commands of techniques (`tfnas prune` and so on) are this call with one technique.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfnas.compression.file_comparison_table import compare_files
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.progress import Progress, progress_of
from tfnas.compression.results.technique_result import TechniqueResult
from tfnas.compression.technique_context import TRAININGS, Context
from tfnas.compression.technique_row import Step, check_order, context_of, run_row
from tfnas.compression.techniques.registry import technique
from tfnas.compression.techniques.technique import TechniqueOutcome
from tfnas.compression.training_curves import FILE, TrainingCurves
from tfnas.data.examples import notes_of
from tfnas.jobs.inputs import load_model_and_data
from tfnas.jobs.job_folder import JobFolder
from tfnas.jobs.task_choice import task_of
from tfnas.loading import CustomObjects, Loading
from tfnas.measure.latency import benchmark
from tfnas.reports import technique_report
from tfnas.runtime.files import model_digest, save_if_possible, write_atomically
from tfnas.runtime.retracing import retracing_expected
from tfnas.settings_fields import as_settings
from tfnas.tflite.conversion_error import ConversionError

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_for_model import AnyData
    from tfnas.tasks.compiled_task import Fit
    from tfnas.tasks.metrics import MetricLike
    from tfnas.tasks.task import Task
    from tfnas.tflite.artifact import Artifact

CHECKPOINTS = TRAININGS
LEARNING_RATE = 1e-3
_REPORTS = ("report.md", "report.html")
_OWN = (*_REPORTS, FILE, f"{CHECKPOINTS}/*/*.npz")

Row = Sequence[Step | str | tuple[str, Any]]


@retracing_expected()
def run_techniques(
    model: keras.Model | str | os.PathLike[str],
    techniques: Row,
    train_data: AnyData,
    *,
    directory: str | os.PathLike[str],
    validation_data: AnyData | None = None,
    test_data: AnyData | None = None,
    metric: MetricLike | Mapping[str, MetricLike] | None = None,
    loss: Any = None,
    fit: Fit | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = 1,
    task: Task | None = None,
    settings: FineTuneSettings | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    custom_objects: CustomObjects | None = None,
    safe_mode: bool = True,
) -> TechniqueResult:
    """Applies techniques to a trained model; writes models, `.tflite` files and a report.

    Each technique is fine-tuned, and what it achieved is kept through the next. The same call on
    the same folder continues a training that was stopped, from its last epoch.

    Example:
        >>> import tfnas
        >>> model = tfnas.load_model("model.keras")  # doctest: +SKIP
        >>> row = [("prune", {"sparsity": 0.8}), ("qat", {"mode": "int8"})]
        >>> settings = tfnas.FineTuneSettings(epochs=3)
        >>> result = tfnas.run_techniques(
        ...     model, row, "digits", directory="small", settings=settings
        ... )  # doctest: +SKIP
        >>> print(result)  # doctest: +SKIP

    Args:
        model: A trained Keras 3 model, or the path of its file; it is not changed.
        techniques: (name, settings) of each technique in their order, or
            :class:`~tfnas.compression.technique_row.Step` records. The names are those of the
            commands: prune_channels, factorize, prune, cluster, qat, ptq; the settings are the
            flags.
        train_data: What models are trained on, as :func:`tfnas.compress` takes it; or a
            :class:`~tfnas.data.DataSplit`, or what :func:`tfnas.data.load` takes.
        directory: Folder of all files: a new one, an empty one, or that of the same job.
        validation_data: As for :func:`tfnas.compress`; for choices among models.
        test_data: As for :func:`tfnas.compress`; it is used once, at the end.
        metric: As for :func:`tfnas.compress`.
        loss: As for :func:`tfnas.compress`.
        fit: As for :func:`tfnas.compress`.
        callbacks: As for :func:`tfnas.compress`.
        verbose: As for :func:`tfnas.compress`.
        task: As for :func:`tfnas.compress`.
        settings: How each technique is fine-tuned; None: 3 epochs.
        overwrite: Whether an earlier job in the folder is removed first.
        progress: Receives phases and epochs, instead of `verbose`.
        custom_objects: Name -> class or function, for the file of a model with layers or functions
            of your own; see :func:`tfnas.load_model`.
        safe_mode: Whether to refuse a file with Python code, as that of a Lambda layer.

    Returns:
        The files, measured on the test part beside the original's, and each technique's report.

    Raises:
        ValueError: An argument is outside its rule, or the folder holds another job or other
            files; before any long work.
        ImportError: A report has pictures and matplotlib is not installed; as early.
        ConversionError: The new model can't be converted.
        RuntimeError: Another job that is running uses the folder.
    """
    _check_arguments(techniques, settings)
    row = [_step(each) for each in techniques]
    if not row:
        raise ValueError("techniques must hold at least one technique, got none")
    check_order([step.technique for step in row])
    _check_pictures(row)
    _check_source(model, pathlib.Path(directory))
    folder = JobFolder(pathlib.Path(directory), "techniques", _OWN)
    folder.check_has_no_owner()
    progress = progress_of(progress, verbose)
    loading = Loading(custom_objects, safe_mode)
    model, split = load_model_and_data(
        *(model, train_data, validation_data, test_data), argument="train_data", loading=loading
    )
    settings = settings or FineTuneSettings(epochs=3)
    task = task_of(model, split, task, loss=loss, metric=metric, fit=fit)
    task.check_fine_tuning(settings.augment, settings.distill)
    if settings.distill:
        task.check_distillation(model)
    task.check(model, split)
    task.check_judgment(model, split)
    for note in notes_of(split):
        progress.phase(note)
    context = Context(
        *(model, task, split, settings, progress),
        checkpoints=folder.path / CHECKPOINTS,
        callbacks=callbacks,
    )
    _check(model, row, context)
    with folder.claimed(_identity(model, row, context), overwrite):
        context = context.replace(curves=TrainingCurves(folder.path / FILE))
        outcomes = run_row(model, row, context)
        return _result(model, outcomes, context, folder)


def _check_source(model: Any, directory: pathlib.Path) -> None:
    """Refuses a folder that holds the model itself: the job writes a model into it."""
    if isinstance(model, str | os.PathLike):
        source = pathlib.Path(model).resolve()
        if source.parent == directory.resolve():
            raise ValueError(
                f"directory must not be that of the model, got {str(directory)!r}, which holds "
                f"{source.name}"
            )


def _check_arguments(techniques: Any, settings: Any) -> None:
    """Raises ValueError where the arguments are of another kind."""
    pair = isinstance(techniques, tuple) and len(techniques) == 2 and isinstance(techniques[0], str)
    if not isinstance(techniques, list | tuple) or (pair and not isinstance(techniques[1], str)):
        raise ValueError(
            "techniques must be a list of names or of (name, settings), got "
            f"{techniques!r}" + (f": [{techniques!r}] holds one" if pair else "")
        )
    if not isinstance(settings, FineTuneSettings | None):
        raise ValueError(
            f"settings must be a tfnas.FineTuneSettings or None, got {settings!r}"
            + (": FineTuneSettings(**settings)" if isinstance(settings, Mapping) else "")
        )


def _step(each: Step | str | tuple[str, Any]) -> Step:
    if isinstance(each, Step):
        return each
    name, values = (each, {}) if isinstance(each, str) else each
    kind = technique(name).settings
    if isinstance(values, kind):
        return Step(name, values)
    if not isinstance(values, Mapping):
        raise ValueError(
            f"settings of {name!r} must be a dictionary or {kind.__name__}, got {values!r}"
        )
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ValueError(
            f"settings of {name!r} must be some of {', '.join(sorted(known))}, got {unknown[0]!r}"
        )
    needed = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
    if missing := [field for field in needed if field not in values]:
        raise ValueError(f"settings of {name!r} must hold {missing[0]}, got {dict(values)!r}")
    return Step(name, as_settings(kind, values))


def _check(model: keras.Model, row: Sequence[Step], context: Context) -> None:
    """Checks all that can be checked before long work."""
    for number, step in enumerate(row, 1):
        own, its = technique(step.technique), context_of(step, context, number)
        own.check_epochs(step.settings, its.settings.epochs)
        if number == 1:  # later ones get a model that does not exist yet
            own.check(model, step.settings, its)


def _check_pictures(row: Sequence[Step]) -> None:
    from tfnas.optional import require

    if any(technique(step.technique).draws(step.settings) for step in row):
        require("matplotlib", "the pictures of a report")


def _identity(model: keras.Model, row: Sequence[Step], context: Context) -> dict[str, Any]:
    """Returns what makes a job the same: model, data, techniques and training."""
    return {
        "model": model_digest(model),
        "task": context.task.identity(),
        "techniques": [_plain(dataclasses.asdict(step)) for step in row],
        # Before the data, which another seed splits in another way: the first difference is named.
        "settings": _plain(dataclasses.asdict(context.settings)),
        "data": f"{context.data.name}, {context.data.digest()}",
    }


def _plain(value: Any) -> Any:
    """Returns a record as JSON holds it; NumPy's numbers as Python's."""
    return json.loads(json.dumps(value, default=lambda number: number.item()))


def _result(
    model: keras.Model, outcomes: list[TechniqueOutcome], context: Context, folder: JobFolder
) -> TechniqueResult:
    """Converts, measures and reports."""
    context.progress.phase("converting and measuring the files on the test part")
    last = outcomes[-1]
    own = technique(last.technique)
    files, notes = own.files(model, last, context)
    prefix = f"{own.label}, "
    if not any(label.startswith(prefix) for label, _ in files):
        raise ConversionError(f"no model could be converted: {'; '.join(notes)}")
    by_label = dict(files)
    rows = compare_files(context.task, context.data.test, files)
    times = benchmark([file for _, file in files])
    latencies = {label: time for (label, _), time in zip(files, times, strict=True)}
    outcomes = [*outcomes[:-1], own.examined(last, by_label, context)]
    curves = {} if context.curves is None else context.curves.curves
    result = TechniqueResult(folder.path, outcomes, rows, latencies, notes, curves)
    saved = {
        f"model_{label.removeprefix(prefix).replace(' ', '_')}.tflite": file
        for label, file in files
        if label.startswith(prefix)
    }
    _write(result, own.models(last), saved, folder)
    technique_report.write(result, context)
    return result


def _write(
    result: TechniqueResult,
    models: Mapping[str, keras.Model],
    files: Mapping[str, Artifact],
    folder: JobFolder,
) -> None:
    """Writes all but the report, after the names of all files."""
    products: dict[str, str] = {}
    for outcome in result.outcomes:
        products |= technique(outcome.technique).products(outcome, result.files)
    pictures = [section.picture[0] for section in result.sections() if section.picture]
    folder.will_write([*models, *files, *products, *pictures])
    for name, model in models.items():
        if reason := save_if_possible(model, folder.path / name):
            result.notes.append(f"{name} is not written: the model can't be saved ({reason})")
    for name, file in files.items():
        file.save(folder.path / name)
    for name, text in products.items():
        write_atomically(folder.path / name, text)
