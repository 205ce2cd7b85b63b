"""What the file of a hypermodel's trial is judged by.

The networks of a search space are classifiers. A hypermodel may build anything: its files are
judged by an accuracy where an output has one, else by what the model was compiled with, as
:func:`tfnas.compress` does. Without an accuracy there is no `file_accuracy` and no `reward`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import keras

from tfnas.graph.output_names import by_output
from tfnas.keras_private import compiled_losses, compiled_metric_arguments
from tfnas.nas.metric_directions import REWARD
from tfnas.tasks.assessment import Metric
from tfnas.tasks.compiled_task import CompiledTask, output_forms
from tfnas.tasks.metrics import OutputForm, metric_of, of_output

OF_ACCURACY = (REWARD, "file_accuracy")
_ACCURACIES = ("acc", "accuracy", "binaryaccuracy", "categoricalaccuracy")


@dataclasses.dataclass(frozen=True)
class Quality:
    """How a file is judged.

    Args:
        metric: The metric, of the targets and predictions of all outputs.
        is_accuracy: Whether it is an accuracy, of which rewards are made.
    """

    metric: Metric
    is_accuracy: bool


OF_CLASSES = Quality(metric_of("accuracy"), is_accuracy=True)


def quality_of(model: keras.Model) -> Quality:
    """Returns how the file of a model is judged, by what it was compiled with.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse", metrics=["mae"])
        >>> found = quality_of(model)
        >>> found.metric.name, found.is_accuracy
        ('mae', False)

    Args:
        model: A built model. One that was not compiled gives classes.
    """
    loss, _ = compiled_losses(model)
    metrics = compiled_metric_arguments(model)
    if loss is None and not metrics:
        return OF_CLASSES
    if getattr(model, "outputs", None) is None:  # a subclassed model
        forms = {"output": OutputForm(loss=None if isinstance(loss, dict | list) else loss)}
    else:
        forms = output_forms(model, loss)
    compiled = _compiled_metrics(metrics, [*forms])
    for name, form in forms.items():
        found = _accuracy(form, compiled.get(name, []))
        if found is not None:
            several = len(forms) > 1
            found = of_output(found, name, [*forms]) if several else found
            return Quality(found, is_accuracy=True)
    return Quality(_other_metric(model, loss, forms), is_accuracy=False)


def check_accuracy(names: Collection[str], build: Callable[[], keras.Model]) -> None:
    """Checks that the files of a hypermodel have an accuracy where the search needs one.

    Args:
        names: Names of the objectives and limits.
        build: Builds and compiles one of its models.

    Raises:
        ValueError: They have none.
    """
    asked = [name for name in OF_ACCURACY if name in names]
    if not asked:
        return
    model = build()
    if not model.built or (found := quality_of(model)).is_accuracy:
        return
    raise ValueError(
        f"{asked[0]} needs models that give classes, compiled with a cross-entropy or "
        f'metrics=["accuracy"], got one that is judged by its {found.metric.name}: search for '
        'what fit reports, such as objective=["val_loss", "size_bytes"]'
    )


def _accuracy(form: OutputForm, compiled: list[Any]) -> Metric | None:
    """The accuracy of an output; None: it has none."""
    for spec in compiled:
        if _plain(spec).removeprefix("sparse") in _ACCURACIES:
            return metric_of(spec, form.shape, form.activation, form.loss)
    if "crossentropy" in form.loss_name or form.loss_name == "bce":
        return metric_of("accuracy", form.shape, form.activation, form.loss)
    return None


def _plain(spec: Any) -> str:
    """The name of a metric in lower case, without lines."""
    name = spec if isinstance(spec, str) else getattr(spec, "__name__", type(spec).__name__)
    return name.lower().replace("_", "")


def _other_metric(model: keras.Model, loss: Any, forms: Mapping[str, OutputForm]) -> Metric:
    """The first metric that a model was compiled with, else its loss."""
    if getattr(model, "outputs", None) is None:
        return metric_of("loss", loss=loss) if loss is not None else metric_of("mse")
    try:
        return CompiledTask.of(model).metric
    except ValueError:  # whether higher is better is not known of a metric of the user's
        losses = {name: "loss" for name, form in forms.items() if form.loss is not None}
        metric = losses if len(forms) > 1 else "loss"
        return CompiledTask(loss, metric, forms=forms).metric


def _compiled_metrics(metrics: Any, names: list[str]) -> dict[str, list[Any]]:
    """The metrics that a model was compiled with, by output."""
    if not metrics:
        return {}
    if len(names) == 1:
        return {names[0]: _flat(metrics)}
    return {name: _flat(each) for name, each in by_output(metrics, names, "metrics").items()}


def _flat(nested: Any) -> list[Any]:
    if isinstance(nested, dict):
        nested = [*nested.values()]
    if isinstance(nested, list | tuple):
        return [leaf for each in nested for leaf in _flat(each)]
    return [] if nested is None else [nested]
