"""One call from a trained model, its data and a budget to files that meet the budget.

The model is the teacher of everything that is trained. Half of the test part is for choosing among
files; the other half measures the chosen ones once, at the end, since the images that a model was
trained on can't tell its accuracy.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tfnas.compression.budget import Budget
from tfnas.compression.device_costs import Target
from tfnas.compression.effort import EFFORTS, Effort
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.progress import Progress, progress_of
from tfnas.compression.results.compress_result import CompressResult
from tfnas.compression.technique_context import Context
from tfnas.data.examples import Data, Examples, ExampleSet, notes_of
from tfnas.jobs.compress_folder import compress_folder, identity_of, set_aside
from tfnas.jobs.compress_run import run_compression
from tfnas.jobs.inputs import load_model_and_data
from tfnas.jobs.job_folder import JobFolder
from tfnas.jobs.task_choice import task_of
from tfnas.loading import CustomObjects, Loading
from tfnas.measure.elsewhere.named_device import timing_device
from tfnas.measure.elsewhere.timing_device import TimingDevice
from tfnas.measure.profile import profile
from tfnas.optional import require
from tfnas.runtime.argument_rules import check_choice
from tfnas.runtime.helper_process import isolated_by_default
from tfnas.runtime.retracing import retracing_expected
from tfnas.targets.device import Device
from tfnas.tasks.task import Task

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfnas.data.data_for_model import AnyData
    from tfnas.nas.search_result import SearchResult
    from tfnas.tasks.compiled_task import Fit
    from tfnas.tasks.metrics import MetricLike

MOST_EPOCHS = 100  # of small data, which more epochs only learn by heart
DISTILL = 0.3  # fraction of the loss: a model trained once more learns more from the labels


@isolated_by_default()
@retracing_expected()
def compress(
    model: keras.Model | str | os.PathLike[str] | SearchResult,
    train_data: AnyData | None,
    budget: Budget | Mapping[str, float],
    *,
    validation_data: AnyData | None = None,
    test_data: AnyData | None = None,
    metric: MetricLike | Mapping[str, MetricLike] | None = None,
    loss: Any = None,
    fit: Fit | None = None,
    groups: Sequence[Any] | np.ndarray | str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = 1,
    directory: str | pathlib.Path = "compressed",
    effort: Literal["quick", "normal", "thorough"] = "normal",
    epochs: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    augment: tuple[str, ...] = (),
    seed: int = 0,
    task: Task | None = None,
    overwrite: bool = False,
    accelerator: str = "ethos-u55-128",
    runtime_flash: int = 0,
    runtime_ram: int = 0,
    fit_for: str | None = None,
    measure_on: TimingDevice | str | None = None,
    progress: Progress | None = None,
    custom_objects: CustomObjects | None = None,
    safe_mode: bool = True,
) -> CompressResult:
    """Compresses a trained model until its `.tflite` file meets a budget.

    It analyzes the model for some seconds, plans what to try, and reports the reasons. The model
    is also the teacher of what is trained. Call it again with the same arguments and the same
    folder to continue a job that was stopped: candidates that exist are read, not built again.
    Where a call finds the report and files of an earlier, finished call in its folder, perhaps
    for another budget, it moves them to the subfolder `earlier` before it starts.

    Example:
        A finished job takes some seconds to hours, by the effort:

        >>> import tfnas
        >>> model = tfnas.load_model("model.keras")  # doctest: +SKIP
        >>> budget = {"max_drop": 1.0, "max_bytes": 100_000}
        >>> result = tfnas.compress(model, "digits", budget)  # doctest: +SKIP
        >>> result.best.file.save("small.tflite")  # doctest: +SKIP

        Arguments are checked before any work:

        >>> try:
        ...     tfnas.compress("model.keras", "digits", {"max_bytes": -1})
        ... except ValueError as error:
        ...     print(error)
        max_bytes must be a finite number above 0, got -1

    Args:
        model: A trained Keras 3 model; it is not changed. Or the path of its file. Or a finished
            search, as the result of :func:`tfnas.search` or as its folder: then the best model of
            the search is compressed.
        train_data: What models are trained on, in the form that `Model.fit` takes: `(x, y)` or
            `(x, y, sample_weight)` of arrays, nested as the model's inputs and outputs; a
            `tf.data.Dataset` or `keras.utils.PyDataset` of batches; or a function that returns a
            new iterator over batches. Or, for image classifiers that take pixels from 0 to 255, a
            :class:`~tfnas.data.DataSplit` or what :func:`tfnas.data.load` takes: one half of its
            test images then decides which files are chosen, and the other half measures them.
            None: the data of the search.
        validation_data: Data that decides which files are chosen, in the same forms; None: a part
            is split off.
        test_data: Data that measures the chosen files, once; None: a part is split off.
        budget: A :class:`tfnas.Budget`, or a dictionary of its fields, such as `{"max_drop": 1.0,
            "max_bytes": 100_000}`: at most 1 point of accuracy lost, at most 100,000 bytes. Without
            a limit on the quality the most accurate file is chosen, else the smallest and fastest.
        metric: What quality is measured by: a name such as "accuracy", "auc", "f1", "mean_iou",
            "mae" or "r2"; a Keras metric; a :class:`tfnas.Metric`; of several outputs a
            dictionary from output to metric, of which the first decides. None: the first metric
            that the model was compiled with, else the one that goes with the loss.
        loss: What `Model.compile` takes as `loss`; None: what the model was compiled with.
        fit: Your own training, `fit(model, epochs, callbacks)`; see :class:`tfnas.CompiledTask`.
            None: Keras' `fit`, with the model's own `train_step` where it has one.
        groups: A group of each example of `test_data`, (examples,), such as a speaker or a device,
            of `validation_data` or `train_data` where the test data is split off from it; the name
            of a file's array or column. The report shows the quality of each group, and which ones
            lose more than all. None: there are none.
        callbacks: Keras callbacks of each training.
        verbose: 1 prints each phase, with its reasons; 0 prints nothing.
        effort: "quick": number formats without training, seconds each. "normal": also
            quantization-aware training and channel pruning, and for gzipped bytes pruning and
            clustering of weights. "thorough": more of all, with longer training.
        directory: Folder of all files: a new or an empty one, or that of an earlier call.
        epochs: Epochs of each step that trains; None: chosen by `effort`.
        batch_size: Examples per training step, where the data are arrays.
        learning_rate: Learning rate of Adam at the start of its decay.
        augment: Random changes of the training images: "flip" mirrors them, "shift" moves them
            by a few pixels.
        seed: Seed of all random draws. It also replaces the seed of random layers that were given
            one, such as `Dropout(0.5, seed=42)`; see
            :class:`tfnas.FineTuneSettings`.
        task: What the model is for, instead of `metric`, `loss` and `fit`. None: a model with a
            :class:`~tfnas.data.DataSplit` classifies images, one label each; all others have a
            :class:`tfnas.CompiledTask`.
        overwrite: Whether the files of an earlier call in the folder, also of another model, are
            removed first. Files that `compress` did not write stay.
        accelerator: The accelerator (NPU) that the limits `max_vela_...` are for; see
            :func:`tfnas.vela`.
        runtime_flash: Bytes of flash that the firmware needs besides the file; they count toward
            `max_flash_bytes`.
        runtime_ram: Bytes of RAM that the firmware needs besides the activations; they count
            toward `max_ram_bytes`.
        fit_for: "gpu": each file is rewritten for TFLite's GPU delegate, as by
            :func:`tfnas.to_tflite`, before it is measured and compared.
        measure_on: The device that latencies are measured on, those of the original too: a
            :class:`tfnas.SshDevice`, a :class:`tfnas.AdbDevice`, a :class:`tfnas.BrowserDevice`, or
            the text of one, such as "ssh:pi@raspberrypi". None: this machine.
        progress: Receives each phase and the end of each epoch, instead of `verbose`.
        custom_objects: Name -> class or function, for saved models with layers or functions of
            your own; see :func:`tfnas.load_model`. Those of a model in memory are known.
        safe_mode: Whether to refuse saved models with Python code, as that of a Lambda layer. A
            model in memory is used as it is; its candidates are read from files only where an
            earlier run made them.

    Returns:
        The Pareto front of files, the best one for the budget, and the limits that it exceeds.

    Raises:
        ValueError: An argument is outside its rule, or the folder holds another job or files that
            are not of a job. It is raised before any long work.
        ImportError: matplotlib is not installed, or ethos-u-vela where a limit `max_vela_...` is
            set. It is raised before any long work.
        RuntimeError: No model could be converted, or another job that is running uses the folder.
            Or the device of `measure_on` lacks what it needs.
        ConnectionError: The device of `measure_on` can't be reached, or was lost and did not come
            back. The same call goes on from there.
    """
    budget = Budget.of(budget)
    device = Device(accelerator, runtime_flash, runtime_ram)
    target = Target.of(budget, device, fit_for, timing_device(measure_on))
    check_choice("effort", effort, tuple(EFFORTS))
    amounts, progress = EFFORTS[effort], progress_of(progress, verbose)
    folder = _ready_folder(directory, target.measure_on, progress)
    data, loading = (train_data, validation_data, test_data), Loading(custom_objects, safe_mode)
    model, split = load_model_and_data(
        model, *data, seed=seed, argument="train_data", groups=groups, loading=loading
    )
    task = task_of(model, split, task, loss=loss, metric=metric, fit=fit)
    _check_limits(budget, task, model)
    split = _checked(split.for_given_model(seed), model, task)
    settings = FineTuneSettings(
        epochs=_epochs(amounts, split.train, batch_size) if epochs is None else epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        distill=DISTILL if _distills(task, model, progress) else 0.0,
        augment=tuple(augment),
        seed=seed,
    )
    task.check_fine_tuning(settings.augment, settings.distill)
    context = Context(model, task, split, settings, progress, callbacks=callbacks)
    _tell(notes_of(split), progress)
    with folder.owned():
        folder.claim(identity_of(context), overwrite)
        set_aside(folder.path)
        return run_compression(context, folder.path, budget, target, effort, loading)


def _tell(notes: Iterable[str], progress: Progress) -> None:
    for note in notes:
        progress.phase(note)


def _ready_folder(
    directory: str | pathlib.Path, device: TimingDevice | None, progress: Progress
) -> JobFolder:
    """Returns the folder of a job; raises what would end it after long work.

    That is: matplotlib is missing, the device can't measure, or another job runs in the folder.
    """
    require("matplotlib", "the pictures of a report")
    if device is not None:
        progress.phase(f"latencies are measured on {device}: {device.check()}")
    folder = compress_folder(pathlib.Path(directory))
    folder.check_has_no_owner()
    return folder


def _check_limits(budget: Budget, task: Task, model: keras.Model) -> None:
    """Raises ValueError where one is a percentage of a share, or of what can't be counted."""
    limit, metric = budget.quality_limit, task.metric
    if limit is not None and limit > 1 and metric.unit == "points":
        raise ValueError(
            f"quality_limit must be at most 1 for {metric.name}, which is a share, got {limit!r}"
            + (f": {limit / 100:g}?" if limit <= 100 else "")
        )
    if budget.max_macs is not None:
        profile(model).check_counted("max_macs")


def _checked(data: Data, model: keras.Model, task: Task) -> Data:
    """Returns the data; raises ValueError where the task or a later step can't take the model."""
    task.check(model, data)
    task.check_judgment(model, data)
    for each in model.inputs:
        if None in each.shape[1:]:
            raise ValueError(f"model must take inputs of one size, got {each.shape[1:]}")
    task.check_for_compress(model)
    return data


def _distills(task: Task, model: keras.Model, progress: Progress) -> bool:
    """Returns whether the model can be the teacher of what is trained; says why not."""
    if not task.distills:
        return False
    try:
        task.check_distillation(model)
    except ValueError as error:
        progress.phase(f"models are trained without the original as their teacher: {error}")
        return False
    return True


def _epochs(effort: Effort, train: ExampleSet, batch_size: int) -> int:
    """Returns the epochs of a step that trains: enough optimizer steps, but few for small data."""
    if isinstance(train, Examples):
        wanted = -(-effort.steps * batch_size // max(1, len(train)))
    else:
        wanted = -(-effort.steps // train.steps(batch_size))
    return max(effort.epochs, min(wanted, MOST_EPOCHS))
