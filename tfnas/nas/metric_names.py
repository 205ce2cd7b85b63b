"""The names of the metrics that `fit` will report, before any training.

An objective of another name would fail each trial, after its training. The names are those that
Keras gives the metrics of the compiled model, computed on a few examples. They can't be known if a
model, a hypermodel or a callback of the user's may report more; then the results of the first trial
are checked (:mod:`tfnas.nas.fit_results`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import keras_tuner as kt

from tfnas.nas.fit_results import UNSPECIFIED
from tfnas.nas.metric_directions import KNOWN_DIRECTIONS
from tfnas.runtime.argument_rules import did_you_mean
from tfnas.search_space.hypermodel import CompressedHyperModel

_EXAMPLES = 2
# What trials report beside the results of `fit`.
_OF_TRIALS = {*KNOWN_DIRECTIONS, "rung", "epochs", "inherited", "patches"}
_OVERRIDABLE = ("fit", "train_step", "test_step", "compute_metrics", "get_metrics_result")


def check_objective_names(
    names: Collection[str],
    hypermodel: Any,
    build: Callable[[], keras.Model],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Checks that the trials of a search will report its objectives.

    Args:
        names: Names of the objectives.
        hypermodel: The hypermodel.
        build: Builds and compiles one of its models.
        args: Positional arguments of `keras.Model.fit`.
        kwargs: Keyword arguments of `keras.Model.fit`.

    Raises:
        ValueError: One is known to be missing; the message has the nearest right one.
    """
    asked = [name for name in names if name not in _OF_TRIALS]
    if not asked or not _fits_as_keras(hypermodel):
        return
    try:
        arguments = inspect.signature(keras.Model.fit).bind_partial(None, *args, **kwargs).arguments
    except TypeError:
        return  # the first trial reports it
    known = fit_metrics(build, arguments)
    if known is None:
        return
    for name in asked:
        if name in known:
            continue
        if name.startswith("val_") and name.removeprefix("val_") in known:
            raise ValueError(
                f"objective {name!r} needs validation_data or validation_split, got neither"
            )
        if name == UNSPECIFIED:
            raise ValueError(
                "objective must be given unless HyperModel.fit or run_trial is overridden and "
                f"returns a number, got None: the model reports {', '.join(sorted(known))}"
            )
        near = did_you_mean(name, sorted(known | _OF_TRIALS))
        raise ValueError(
            f"objective must be a metric that the model reports ({', '.join(sorted(known))}) or "
            f"one that tfnas measures, got {name!r}: {near}"
        )


def fit_metrics(build: Callable[[], keras.Model], arguments: Mapping[str, Any]) -> set[str] | None:
    """Returns the names of the metrics that Keras' `fit` reports; None: they can't be known.

    Args:
        build: Builds and compiles a model.
        arguments: Arguments of `keras.Model.fit`, by name.
    """
    callbacks = arguments.get("callbacks") or ()
    if any(not type(each).__module__.startswith("keras.") for each in callbacks):
        return None
    batch = _first_examples(arguments)
    if batch is None:
        return None
    try:
        model = build()
        if any(getattr(type(model), n) is not getattr(keras.Model, n) for n in _OVERRIDABLE):
            return None
        names = set(_evaluated(model, *batch))
    except kt.errors.FatalError:
        raise
    except Exception:  # of the user's model or data: the first trial reports it
        return None
    if arguments.get("validation_data") is not None or arguments.get("validation_split"):
        names |= {f"val_{name}" for name in names}
    return names | ({"learning_rate"} if callbacks else set())


def _fits_as_keras(hypermodel: Any) -> bool:
    if isinstance(hypermodel, CompressedHyperModel):
        hypermodel = hypermodel.inner
    return isinstance(hypermodel, kt.HyperModel) and type(hypermodel).fit in (
        kt.HyperModel.fit,
        CompressedHyperModel.fit,
    )


def _first_examples(arguments: Mapping[str, Any]) -> tuple[Any, Any, Any] | None:
    """The first (inputs, targets, weights); None where reading them could lose them."""
    x: Any = arguments.get("x")
    try:
        if isinstance(x, keras.utils.PyDataset):
            batch = keras.utils.unpack_x_y_sample_weight(x[0])
        elif hasattr(x, "as_numpy_iterator"):
            batch = keras.utils.unpack_x_y_sample_weight(next(iter(x)))
        elif x is None or hasattr(x, "__next__") or arguments.get("y") is None:
            return None
        else:
            batch = (x, arguments["y"], arguments.get("sample_weight"))
        return keras.tree.map_structure(_first, batch)
    except Exception:  # of the user's data: the first trial reports it
        return None


def _first(part: Any) -> Any:
    return None if part is None else part[:_EXAMPLES]


def _evaluated(model: keras.Model, x: Any, y: Any, weights: Any) -> Mapping[str, Any]:
    """The metrics of some examples, as an epoch reports them."""
    predictions = model(x, training=False)
    model.compute_loss(x=x, y=y, y_pred=predictions, sample_weight=weights, training=False)
    return model.compute_metrics(x, y, predictions, sample_weight=weights)
