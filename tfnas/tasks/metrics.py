"""Metrics of quality, by function and by name.

=======================  ======  =============================================
metric                   better  of
=======================  ======  =============================================
``accuracy``             higher  classes, steps of sequences, pixels
``top_k``                higher  classes
``auc``                  higher  classes; ROC, or average precision ("PR")
``f1``                   higher  classes; also ``precision`` and ``recall``
``mean_iou``             higher  segmentations
``mean_average_precision``  higher  detected boxes
``mse, mae, rmse``       lower   numbers
``r2``                   higher  numbers
``reconstruction_error`` lower   autoencoders, whose targets are their inputs
``expected_calibration_error``  lower  probabilities of classes
=======================  ======  =============================================

Where a task, a job or :func:`tfnas.evaluate` takes a metric, that may be one of these, its name, a
metric or a loss of Keras, its name, or a :class:`tfnas.Metric` of the user's own; see
:func:`metric_of`. Intervals are Wilson's of a proportion, Student's of another mean, else a
bootstrap over the examples.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tfnas.tasks.assessment import ACCURACY, Metric
from tfnas.tasks.class_metrics import (
    accuracy,
    auc,
    expected_calibration_error,
    f1,
    precision,
    recall,
    top_k,
)
from tfnas.tasks.detection_metrics import mean_average_precision
from tfnas.tasks.error_metrics import (
    RECONSTRUCTION,
    mae,
    mse,
    r2,
    reconstruction_error,
    rmse,
)
from tfnas.tasks.keras_metric_forms import (
    instance,
    keras_object,
    of_loss,
    of_metric,
    unknown_direction,
)
from tfnas.tasks.region_metrics import mean_iou

if TYPE_CHECKING:
    import keras

    from tfnas.data.examples import Nested

__all__ = [
    "accuracy",
    "auc",
    "expected_calibration_error",
    "f1",
    "mae",
    "mean_average_precision",
    "mean_iou",
    "metric_of",
    "metrics_by_output",
    "mse",
    "of_output",
    "precision",
    "r2",
    "recall",
    "reconstruction_error",
    "rmse",
    "top_k",
]

# A metric in any form: metric_of says which.
MetricLike: TypeAlias = (
    "str | Metric | keras.metrics.Metric | keras.losses.Loss | Callable[[Any, Any], Any] | None"
)


@dataclasses.dataclass(frozen=True)
class OutputForm:
    """What is known of a model's output.

    Args:
        shape: Its shape (batch, ..., units); None: unknown.
        activation: "softmax", "sigmoid", or "" of another; None: unknown.
        loss: The loss that it is trained by: a Keras loss, its name or a function; None: unknown.
    """

    shape: Sequence[int | None] | None = None
    activation: str | None = None
    loss: Any = None

    @property
    def loss_name(self) -> str:
        """The loss's name in lower case, without lines; empty where it is unknown."""
        if self.loss is None or isinstance(self.loss, str):
            return _plain(self.loss or "")
        return _plain(getattr(self.loss, "__name__", type(self.loss).__name__))

    @property
    def several_labels(self) -> bool:
        """Whether each unit is a label that may hold beside others."""
        if self.shape is None or self.shape[-1] in (None, 1):
            return False
        if self.loss_name:
            return "binary" in self.loss_name or self.loss_name == "bce"
        return self.activation == "sigmoid"

    @property
    def from_logits(self) -> bool:
        """Whether the output gives logits."""
        return bool(getattr(self.loss, "from_logits", False))

    @property
    def threshold(self) -> float:
        """The value above which a unit is predicted."""
        return 0.0 if self.from_logits and not self.activation else 0.5


def metric_of(
    spec: MetricLike,
    output_shape: Sequence[int | None] | None = None,
    last_activation: str | None = None,
    loss: Any = None,
) -> Metric:
    """Returns the metric behind a name, an object of Keras or a function.

    Example:
        >>> metric_of("mean_squared_error").higher_is_better
        False
        >>> metric_of("top_3").name
        'top-3 accuracy'
        >>> metric_of("acuracy")
        Traceback (most recent call last):
          ...
        ValueError: metric must be ... got 'acuracy': did you mean 'accuracy'?

    Args:
        spec: A name of this module or of Keras, such as "accuracy", "top_5", "auc", "mean_iou",
            "mse" or "huber"; a :class:`tfnas.Metric`; a `keras.metrics.Metric`; a
            `keras.losses.Loss`, of which lower is better; a function of either module; None: the
            accuracy of a model that is trained by a cross-entropy, else its loss.
        output_shape: Shape of the output, (batch, ..., units); None: unknown.
        last_activation: "softmax", "sigmoid" or "" of another; None: unknown.
        loss: The output's loss; it says whether outputs are logits and several labels may hold.

    Returns:
        The metric.

    Raises:
        ValueError: The metric is unknown, or whether higher is better.
    """
    form = OutputForm(output_shape, last_activation, loss)
    if isinstance(spec, Metric):
        return _accuracy(form) if spec == ACCURACY else spec
    if spec is None:
        classes = not form.loss_name or "crossentropy" in form.loss_name
        spec = "accuracy" if classes or form.loss_name == "bce" else "loss"
    if isinstance(spec, str):
        return _named(spec, form)
    if not callable(spec):
        raise ValueError(
            "metric must be a name, a tfnas.Metric, a metric or loss of Keras, or a function, got "
            f"{spec!r}"
        )
    found = instance(spec) or keras_object(spec)
    if found is None:
        raise unknown_direction(getattr(spec, "__name__", type(spec).__name__))
    return _of_keras(found)


def of_output(metric: Metric, name: str, names: Sequence[str]) -> Metric:
    """Returns a metric of one output, which takes the targets and predictions of all.

    Example:
        >>> metric = of_output(mse(), "b", ["a", "b"])
        >>> metric.name
        'mse of b'
        >>> y, predictions = {"a": np.zeros(2), "b": np.ones(2)}, [np.ones(2), np.ones(2)]
        >>> metric.values(y, predictions)
        array([0., 0.])

    Args:
        metric: A metric of targets and predictions of one output; it has `values`.
        name: Name of the output.
        names: Names of all outputs, in the model's order.

    Returns:
        The metric; targets and predictions are dictionaries by output name, or lists in order.

    Raises:
        ValueError: There is no such output, or the metric has no `values`.
    """
    if name not in names:
        raise ValueError(_unknown("metric must name outputs", [name], names))
    if metric.values is None:
        raise ValueError(f"metric {metric.name!r} must have values, got None")
    picked = functools.partial(_picked, metric.values, name=name, names=tuple(names))
    return dataclasses.replace(metric, name=f"{metric.name} of {name}", values=picked)


def metrics_by_output(
    specs: Mapping[str, MetricLike],
    names: Sequence[str],
    decides: str | None = None,
    forms: Mapping[str, OutputForm] | None = None,
) -> dict[str, Metric]:
    """Returns a metric for each of several outputs, the one that decides first.

    Example:
        >>> found = metrics_by_output({"a": "mse", "b": "accuracy"}, ["a", "b"], decides="b")
        >>> [(name, metric.name) for name, metric in found.items()]
        [('b', 'accuracy of b'), ('a', 'mse of a')]

    Args:
        specs: Metric by output name, as for :func:`metric_of`.
        names: Names of all outputs, in the model's order.
        decides: The output that decides which model is better; None: the first of `specs`.
        forms: What is known of the outputs.

    Returns:
        Metrics by output name; each takes the targets and predictions of all outputs.

    Raises:
        ValueError: An output is unknown, or there is no metric.
    """
    if not specs:
        raise ValueError("metric must hold a metric for at least one output, got none")
    if unknown := [each for each in specs if each not in names]:
        raise ValueError(_unknown("metric must name outputs", unknown, names))
    if decides is not None and decides not in specs:
        raise ValueError(_unknown("decides must be an output with a metric", [decides], [*specs]))
    found = {}
    for name in sorted(specs, key=lambda each: each != (decides or next(iter(specs)))):
        form = (forms or {}).get(name, OutputForm())
        metric = metric_of(specs[name], form.shape, form.activation, form.loss)
        found[name] = of_output(metric, name, names)
    return found


def takes_inputs(metric: Metric) -> bool:
    """Whether a metric compares predictions with the inputs where there are no targets.

    Args:
        metric: The metric.
    """
    return metric.name == RECONSTRUCTION


def _picked(
    values: Callable[[Any, Any], np.ndarray],
    y: Nested,
    predictions: Nested,
    name: str,
    names: tuple[str, ...],
) -> np.ndarray:
    return values(_part(y, name, names, "y"), _part(predictions, name, names, "predictions"))


def _part(nested: Nested, name: str, names: tuple[str, ...], what: str) -> Any:
    if isinstance(nested, Mapping):
        if name not in nested:
            raise ValueError(f"{what} must hold {name!r}, got {', '.join(map(str, nested))}")
        return nested[name]
    if isinstance(nested, list | tuple):
        if len(nested) != len(names):
            raise ValueError(
                f"{what} must hold {len(names)} arrays, one per output, got {len(nested)}"
            )
        return nested[names.index(name)]
    if len(names) > 1:
        raise ValueError(f"{what} must hold {len(names)} arrays, one per output, got one")
    return nested


def _accuracy(form: OutputForm) -> Metric:
    return accuracy(threshold=form.threshold, several_labels=form.several_labels)


def _scored(form: OutputForm) -> dict[str, Any]:
    return {"threshold": form.threshold, "several_labels": form.several_labels}


# Name, in lower case and without lines -> function of the output's form.
_NAMED: dict[str, Callable[[OutputForm], Metric]] = {
    "accuracy": _accuracy,
    "acc": _accuracy,
    "auc": lambda form: auc(several_labels=form.several_labels),
    "rocauc": lambda form: auc(several_labels=form.several_labels),
    "prauc": lambda form: auc("PR", several_labels=form.several_labels),
    "averageprecision": lambda form: auc("PR", several_labels=form.several_labels),
    "f1": lambda form: f1(**_scored(form)),
    "f1score": lambda form: f1(**_scored(form)),
    "precision": lambda form: precision(**_scored(form)),
    "recall": lambda form: recall(**_scored(form)),
    "meaniou": lambda form: mean_iou(threshold=form.threshold),
    "miou": lambda form: mean_iou(threshold=form.threshold),
    "iou": lambda form: mean_iou(threshold=form.threshold),
    "meanaverageprecision": lambda form: mean_average_precision(),
    "map": lambda form: mean_average_precision(),
    "cocomap": lambda form: mean_average_precision("coco"),
    "mse": lambda form: mse(),
    "meansquarederror": lambda form: mse(),
    "mae": lambda form: mae(),
    "meanabsoluteerror": lambda form: mae(),
    "rmse": lambda form: rmse(),
    "rootmeansquarederror": lambda form: rmse(),
    "r2": lambda form: r2(),
    "r2score": lambda form: r2(),
    "reconstructionerror": lambda form: reconstruction_error(),
    "calibrationerror": lambda form: expected_calibration_error(from_logits=_logits(form)),
    "expectedcalibrationerror": lambda form: expected_calibration_error(from_logits=_logits(form)),
    "ece": lambda form: expected_calibration_error(from_logits=_logits(form)),
}
_SHOWN = (
    *("accuracy", "top_5", "auc", "pr_auc", "f1", "precision", "recall", "mean_iou"),
    *("mean_average_precision", "mse", "mae", "rmse", "r2", "reconstruction_error"),
    *("calibration_error", "loss"),
)


def _logits(form: OutputForm) -> bool | None:
    return None if form.loss is None else form.from_logits


def _named(spec: str, form: OutputForm) -> Metric:
    plain = _plain(spec)
    if plain in _NAMED:
        return _NAMED[plain](form)
    if plain.startswith("top") and (digits := plain[3:].removesuffix("accuracy")).isdigit():
        return top_k(int(digits))
    if plain == "loss" and form.loss is not None:
        return _loss(form.loss, form)
    import keras

    for module in (keras.metrics, keras.losses):
        try:
            found = module.get(spec)
        except (ValueError, TypeError):
            continue
        if found is not None and (found := instance(found) or keras_object(found)) is not None:
            return dataclasses.replace(_of_keras(found), name=spec)
    known = {_plain(each): each for each in (*_keras_names(), *_NAMED, *_SHOWN)}
    near = difflib.get_close_matches(plain, known, 1)
    hint = f"did you mean {known[near[0]]!r}?" if near else f"others are {', '.join(_SHOWN)}"
    raise ValueError(f"metric must be a metric of keras.metrics, got {spec!r}: {hint}")


def _loss(loss: Any, form: OutputForm) -> Metric:
    """Returns a loss as a metric: of any function, as of a loss less is better."""
    if isinstance(loss, str):
        return _named(loss, OutputForm(form.shape, form.activation))
    return of_loss(instance(loss) or loss)


def _keras_names() -> list[str]:
    """Returns the names of the metrics and losses of Keras."""
    import keras

    return [name for module in (keras.metrics, keras.losses) for name in dir(module)]


def _of_keras(found: Any) -> Metric:
    import keras

    return of_metric(found) if isinstance(found, keras.metrics.Metric) else of_loss(found)


def _plain(name: str) -> str:
    return "".join(each for each in name.lower() if each.isalnum())


def _unknown(rule: str, unknown: Sequence[str], known: Sequence[str]) -> str:
    near = difflib.get_close_matches(unknown[0], known, 1)
    hint = f": did you mean {near[0]!r}?" if near else ""
    return f"{rule} of {list(known)}, got {', '.join(unknown)}{hint}"
