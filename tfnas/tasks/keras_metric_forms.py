"""Metrics and losses of Keras as :class:`tfnas.Metric`.

Those that tfnas computes itself are replaced by its own. Of the others, a metric that is the mean
of a function, or a loss, has a value for each example; the rest get all targets and predictions,
again for each resample of an interval.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.keras_private import metric_arguments, metric_direction, metric_function
from tfnas.tasks import class_metrics, error_metrics, ranking_metrics, region_metrics
from tfnas.tasks.assessment import Metric
from tfnas.tasks.target_forms import checked

if TYPE_CHECKING:
    import keras

# Directions that Keras does not say.
_DOWN = ("FalseNegatives", "FalsePositives", "MeanSquaredLogarithmicError", "LogCoshError")
_UP = ("TruePositives", "TrueNegatives")
# Metrics of keras.metrics that are shares, and so in points.
_SHARES = (
    *("Accuracy", "BinaryAccuracy", "CategoricalAccuracy", "SparseCategoricalAccuracy"),
    *("TopKCategoricalAccuracy", "SparseTopKCategoricalAccuracy", "AUC", "Precision", "Recall"),
    *("PrecisionAtRecall", "RecallAtPrecision", "SensitivityAtSpecificity", "FBetaScore"),
    *("SpecificityAtSensitivity", "F1Score", "IoU", "BinaryIoU", "MeanIoU", "OneHotIoU"),
    "OneHotMeanIoU",
)


def of_metric(metric: keras.metrics.Metric, otherwise: bool | None = None) -> Metric:
    """Returns a Keras metric as a metric of tfnas.

    Args:
        metric: The metric; its state is not changed.
        otherwise: Whether higher is better, where it is unknown; None: an error.

    Raises:
        ValueError: Its direction is unknown.
    """
    own = _own(metric)
    if own is not None:
        return own
    higher = _higher_is_better(metric)
    if higher is None:
        higher = otherwise
    if higher is None:
        raise unknown_direction(metric.name)
    options: dict[str, Any] = {"higher_is_better": higher}
    if _kinds(metric) & set(_SHARES):
        options |= {"scale": 100.0, "unit": "points", "little": 0.3, "hopeless": 3.0}
    if _is_mean_of_function(metric):
        function = functools.partial(metric_function(metric), **metric_arguments(metric))
        return Metric(metric.name, values=functools.partial(_each, function), **options)
    aggregate = functools.partial(_whole, _copied(metric))
    return Metric(metric.name, values=_pairs, aggregate=aggregate, **options)


def of_loss(loss: keras.losses.Loss | Callable[..., Any], name: str | None = None) -> Metric:
    """Returns a Keras loss as a metric, of which lower is better.

    Args:
        loss: A `keras.losses.Loss`, or a function of it.
        name: Name of the metric; None: the loss's own.
    """
    import keras

    function, own = loss, getattr(loss, "__name__", "loss")
    if isinstance(loss, keras.losses.Loss):
        function, own = functools.partial(_loss_values, loss), loss.name
    values = functools.partial(_each, function)
    return Metric(name or str(own), higher_is_better=False, values=values)


def unknown_direction(name: str) -> ValueError:
    """Returns the error of a metric that may be better higher or lower.

    Args:
        name: Its name.
    """
    return ValueError(
        f"metric must say whether higher is better, which is unknown of {name!r}: wrap it, "
        f"tfnas.Metric({name!r}, higher_is_better=..., values=function)"
    )


def _kinds(metric: object) -> set[str]:
    """Names of the classes of Keras that a metric is of."""
    return {
        each.__name__ for each in type(metric).__mro__ if each.__module__.startswith("keras.")
    } - {"object", "Metric"}


def _higher_is_better(metric: keras.metrics.Metric) -> bool | None:
    import keras

    known = {"up": True, "down": False}.get(metric_direction(metric) or "")
    if known is not None:
        return known
    kinds = _kinds(metric)
    if kinds & {*_DOWN, *_UP}:
        return bool(kinds & set(_UP))
    function = metric_function(metric)
    if function is not metric and (again := keras_object(function)) is not None:
        if not isinstance(again, keras.metrics.Metric):
            return False  # a loss
        return None if again is metric else _higher_is_better(again)
    return None


def keras_object(function: object) -> Any:
    """Returns the metric, or the function of a loss, that a function of Keras is; else None.

    Args:
        function: A function.
    """
    name, home = getattr(function, "__name__", ""), getattr(function, "__module__", None)
    if not (home or "").startswith("keras."):
        return None
    import keras

    for module in (keras.metrics, keras.losses):
        try:
            found = module.get(name)
        except (ValueError, TypeError):
            continue
        if found is function or metric_function(found) is function:
            return found
    return None


def _is_mean_of_function(metric: keras.metrics.Metric) -> bool:
    import keras

    wrapper = keras.metrics.MeanMetricWrapper
    return isinstance(metric, wrapper) and all(
        getattr(type(metric), name) is getattr(wrapper, name)
        for name in ("update_state", "result", "__call__")
    )


def _copied(metric: keras.metrics.Metric) -> keras.metrics.Metric:
    """Returns a metric with a state of its own, where it can be copied."""
    try:
        return type(metric).from_config(metric.get_config())
    except (TypeError, ValueError, NotImplementedError):
        return metric


def _each(function: Callable[..., Any], y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """A function's value for each example, the mean over its positions."""
    y, predictions = checked(y, predictions)
    found = np.asarray(function(y, predictions))
    if not found.ndim:  # of all examples together, as keras.losses.dice: one at a time
        ones = [slice(n, n + 1) for n in range(len(y))]
        found = np.array([np.asarray(function(y[one], predictions[one])) for one in ones])
    if found.shape[:1] != (len(y),):
        raise ValueError(
            f"metric must return one value for each of {len(y)} examples, got an array of shape "
            f"{found.shape}"
        )
    return found.reshape(len(y), -1).mean(axis=1, dtype=np.float64)


def _loss_values(loss: keras.losses.Loss, y: np.ndarray, predictions: np.ndarray) -> Any:
    import keras

    tensors = [keras.ops.convert_to_tensor(each, loss.dtype) for each in (y, predictions)]
    return loss.call(*tensors)


def _pairs(y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Targets and predictions as one array of records, (examples,)."""
    y, predictions = checked(y, predictions)
    parts = {"y": y, "predictions": predictions}
    form = [(name, each.dtype, each.shape[1:]) for name, each in parts.items()]
    rows = np.empty(len(y), form)
    for name, each in parts.items():
        rows[name] = each
    return rows


def _whole(metric: keras.metrics.Metric, rows: np.ndarray) -> float:
    metric.reset_state()
    metric.update_state(rows["y"], rows["predictions"])
    value = np.asarray(metric.result())
    if value.ndim:
        raise ValueError(
            f"metric must have one value, got {value.shape} of {metric.name!r}: choose its average"
        )
    return float(value)


def _own(metric: keras.metrics.Metric) -> Metric | None:
    """Returns the metric of tfnas that computes the same, under the name of Keras's."""
    name = type(metric).__name__
    if not type(metric).__module__.startswith("keras.") or name not in _OWN:
        return None
    found = _OWN[name](metric.get_config())
    return None if found is None else dataclasses.replace(found, name=metric.name)


def _area(config: Mapping[str, Any]) -> Metric | None:
    if config.get("label_weights") is not None or config.get("from_logits"):
        return None
    several = bool(config.get("multi_label"))
    return ranking_metrics.auc(
        config["curve"], average="macro" if several else "micro", several_labels=several
    )


def _f(config: Mapping[str, Any]) -> Metric | None:
    average, threshold = config["average"], config.get("threshold")
    if average is None:
        raise ValueError(
            "average must be 'macro', 'micro' or 'weighted', got None, which gives a value a class"
        )
    beta = float(config.get("beta", 1.0))
    if threshold is None:
        return class_metrics.f1(average, beta=beta)
    return class_metrics.f1(average, beta=beta, threshold=threshold, several_labels=True)


def _binary(config: Mapping[str, Any]) -> Metric:
    return class_metrics.accuracy(threshold=config.get("threshold", 0.5), several_labels=True)


def _region(config: Mapping[str, Any]) -> Metric:
    return region_metrics.mean_iou(
        config.get("num_classes"),
        target_class_ids=config.get("target_class_ids"),
        ignore_class=config.get("ignore_class"),
    )


def _binary_region(config: Mapping[str, Any]) -> Metric:
    ids, threshold = config.get("target_class_ids"), config.get("threshold", 0.5)
    return region_metrics.mean_iou(target_class_ids=ids, threshold=threshold)


def _plain_r2(config: Mapping[str, Any]) -> Metric | None:
    plain = config["class_aggregation"] == "uniform_average" and not config["num_regressors"]
    return error_metrics.r2() if plain else None


# Class of Keras -> function of its config that returns tfnas's metric, or None.
_OWN: dict[str, Callable[[Mapping[str, Any]], Metric | None]] = {
    "CategoricalAccuracy": lambda config: class_metrics.accuracy(),
    "SparseCategoricalAccuracy": lambda config: class_metrics.accuracy(),
    "BinaryAccuracy": _binary,
    "TopKCategoricalAccuracy": lambda config: class_metrics.top_k(config["k"]),
    "SparseTopKCategoricalAccuracy": lambda config: class_metrics.top_k(config["k"]),
    "AUC": _area,
    "F1Score": _f,
    "FBetaScore": _f,
    "IoU": _region,
    "MeanIoU": _region,
    "OneHotIoU": _region,
    "OneHotMeanIoU": _region,
    "BinaryIoU": _binary_region,
    "MeanSquaredError": lambda config: error_metrics.mse(),
    "MeanAbsoluteError": lambda config: error_metrics.mae(),
    "RootMeanSquaredError": lambda config: error_metrics.rmse(),
    "R2Score": _plain_r2,
}


def instance(spec: object) -> Any:
    """Returns a Keras metric or loss of a class, or of what is one already; else None.

    Args:
        spec: Anything.
    """
    if "keras" not in sys.modules:  # then there can be none, and Keras is slow to import
        return None
    import keras

    kinds = (keras.metrics.Metric, keras.losses.Loss)
    if inspect.isclass(spec) and issubclass(spec, kinds):
        return spec()
    return spec if isinstance(spec, kinds) else None
