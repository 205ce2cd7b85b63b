"""The quality of a `.tflite` file on labeled examples, with a 95% interval."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.examples import BATCH, Nested, joined
from tfnas.data.reading import arrays, batches, check_data, length, sliced
from tfnas.tasks.assessment import Metric, shapes
from tfnas.tasks.judged_parts import Judge, JudgedParts
from tfnas.tasks.keras_metric_forms import instance, keras_object, of_metric
from tfnas.tasks.metrics import MetricLike, metric_of, takes_inputs
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_stream import (
    ends_without_states,
    is_stream,
    sequence_predictor,
    stream_ends,
)

if TYPE_CHECKING:
    from tfnas.data.data_types import Arrays, ExampleData

_NUMBERS = 2**24  # of outputs of arrays that are judged at once


def evaluate(
    artifact: Artifact | str | os.PathLike[str],
    x: ExampleData,
    y: Arrays | None = None,
    metric: MetricLike | Mapping[str, MetricLike] | Sequence[MetricLike] = "accuracy",
    *,
    batch_size: int = 64,
    threads: int = 1,
    groups: Sequence[Any] | np.ndarray | str | None = None,
    baseline: Artifact | str | os.PathLike[str] | None = None,
    postprocess: Callable[[Nested], Nested] | None = None,
    stateful: bool = False,
) -> Any:
    """Runs a `.tflite` file on examples and returns its metric with a 95% interval.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> artifact = tfnas.to_tflite(model)
        >>> x, y = np.zeros((50, 4)), np.arange(50) % 2
        >>> score = tfnas.evaluate(artifact, x, y)
        >>> 0 <= score.low <= score.value <= score.high <= 1
        True
        >>> list(tfnas.evaluate(artifact, x, y, groups="class").groups)
        ['0', '1']

    Args:
        artifact: The file, or its path. One of `to_tflite(model, streaming=True)` gets each
            sequence of `x` frame by frame, and is judged as the file of whole sequences.
        x: Inputs, examples first; or a `tf.data.Dataset` or `keras.utils.PyDataset` that gives
            inputs and targets, then `y` is None. These are read batch by batch. Sample weights in
            them don't count: metrics are not weighted.
        y: Targets: for "accuracy" class indices (n,) or (n, 1), or one-hot (n, classes). A model
            with one output unit is binary: targets 0 or 1, threshold 0.5.
        metric: A name such as "accuracy", "auc", "mean_iou" or "mse", a :class:`tfnas.Metric`, or
            a metric or loss of Keras, see :mod:`tfnas.metrics`; or a function `(y_true, y_pred)`
            that returns one value per example (their mean is reported) or one value in all. With
            several outputs: a dictionary from output name to metric, or a function that takes the
            lists of targets and predictions. A list of names or metrics of one output: all of
            them.
        batch_size: Examples per invocation.
        threads: Threads of the interpreter.
        groups: A group for each example, (n,), such as a column of speakers; "class": the
            classes in the targets. The metric is then reported for each group too.
        baseline: Another file, such as the original of a compressed one; the difference to it is
            then reported, paired over the examples.
        postprocess: Function that turns the file's outputs into predictions, such as one that
            decodes boxes. With several outputs it takes their list.
        stateful: Whether the examples are a stream, as for `Artifact.predict`.

    Returns:
        A :class:`~tfnas.measure.measurement.Score`; with `groups` or `baseline` an
        :class:`Evaluation`; a dictionary of them if `metric` is a dictionary, or by the
        metrics' names if it is a list. The 95% interval is
        Wilson's for a proportion, Student's for another mean, else a bootstrap percentile
        interval over the examples; a bootstrap for a function.

    Raises:
        ValueError: `artifact` is no :class:`tfnas.Artifact`, the targets are missing or do not
            fit the predictions, or the metric is unknown.
        FileNotFoundError: There is no such file.
    """
    file = _file(artifact, "artifact")
    files = [file] if baseline is None else [file, _file(baseline, "baseline")]
    names = [tensor.name for tensor in ends_without_states(file)[1]]
    judges = _judges(metric, names)
    compared = groups is not None or baseline is not None
    if compared and (functions := [each for each in judges.values() if _is_function(each)]):
        raise ValueError(
            "metric must say whether higher is better where there are groups or a baseline, got "
            f"{_name(functions[0])!r}: wrap it, tfnas.Metric(name, values=function)"
        )
    classes = isinstance(groups, str) and groups == "class"
    parts = JudgedParts(judges, isinstance(metric, Mapping), names, classes)
    runs = [
        sequence_predictor(each, threads=threads, stateful=stateful)
        if is_stream(each)
        else each.predictor(batch_size=batch_size, threads=threads, stateful=stateful)
        for each in files
    ]
    for inputs, targets in _examples(x, y, judges, file, batch_size):
        answers = [run(inputs) for run in runs]
        found = [postprocess(each) if postprocess else each for each in answers]
        with _frames_explained(file, answers[0]):
            parts.add(targets, found)
    results: dict[str, Any] = {}
    members = parts.members(groups)
    for name in judges:
        results[name] = parts.evaluation(name, members) if compared else parts.score(name)
    return results.get("", results)


def _file(given: Artifact | str | os.PathLike[str], name: str) -> Artifact:
    if isinstance(given, Artifact):
        return given
    if isinstance(given, str | os.PathLike):
        return Artifact.load(given)
    raise ValueError(
        f"{name} must be a tfnas.Artifact or the path of a .tflite file, got "
        f"{type(given).__name__}: tfnas.to_tflite converts a model to one"
    )


def _judges(metric: Any, names: Sequence[str]) -> dict[str, Judge]:
    """Returns the metrics, or plain functions, by output, by their names, or the only one by ""."""
    if isinstance(metric, Mapping):
        if unknown := sorted(set(metric) - set(names)):
            raise ValueError(f"metric must name outputs of {names}, got {', '.join(unknown)}")
        return {name: _judge(each) for name, each in metric.items()}
    several = list(metric) if isinstance(metric, list | tuple) else [metric]
    judges = [_judge(each) for each in several]
    if len(names) > 1 and any(isinstance(each, str) for each in several):
        raise ValueError(
            f"metric must be a dictionary by output name, one of {names}, got {metric!r}"
        )
    if not isinstance(metric, list | tuple):
        return {"": judges[0]}
    if not judges:
        raise ValueError("metric must hold at least one metric, got none")
    return {_name(each): each for each in judges}


def _judge(spec: Any) -> Judge:
    if isinstance(spec, Metric | str) or not callable(spec):
        return metric_of(spec)
    found = instance(spec)
    if found is None and keras_object(spec) is None:
        return spec
    is_metric = found is not None and hasattr(found, "update_state")
    return of_metric(found, otherwise=True) if is_metric else metric_of(spec)


def _is_function(judge: Judge) -> bool:
    return not isinstance(judge, Metric)


def _name(judge: Judge) -> str:
    if isinstance(judge, Metric):
        return judge.name
    return getattr(judge, "__name__", type(judge).__name__)


def _examples(
    x: ExampleData,
    y: Arrays | None,
    judges: Mapping[str, Judge],
    file: Artifact,
    batch_size: int,
) -> Iterator[tuple[Nested, Nested]]:
    """Yields inputs and targets."""
    targets = None if y is None else arrays(y, what="y")[0]
    if targets is not None and isinstance(x, np.ndarray):
        _check_count(targets, len(x), file, x.shape)
    same = all(isinstance(each, Metric) and takes_inputs(each) for each in judges.values())
    start = 0
    for inputs, own in _inputs(x, _at_once(file, batch_size)):
        count = length(inputs, "x")
        if targets is not None:
            own = sliced(targets, slice(start, start + count))
        elif own is None and same:
            own = inputs
        if own is None:
            raise ValueError("y must hold the targets, got None, and x holds no targets either")
        yield inputs, own
        start += count
    if targets is not None:
        _check_count(targets, start, file)


def _check_count(
    targets: Nested, count: int, file: Artifact, shape: tuple[int, ...] = (0,)
) -> None:
    """Raises ValueError where there are not as many targets as examples."""
    found = length(targets, "y")
    if found == count:
        return
    hint = ""
    if is_stream(file) and len(shape) > 1 and found == count * shape[1]:
        hint = f": those of the frames of a sequence together, y.reshape({count}, {shape[1]}, ...)"
    raise ValueError(
        f"y must hold one target per example, got targets {shapes(targets)} and {count} inputs"
        f"{hint}"
    )


@contextlib.contextmanager
def _frames_explained(file: Artifact, answers: Any) -> Iterator[None]:
    """Says in errors of targets what a stream returns for an example."""
    try:
        yield
    except ValueError as error:
        if not is_stream(file) or isinstance(answers, list):
            raise
        if not any(stream_ends(file).steps):
            raise ValueError(
                f"{error} (the file is a stream with an output after the last frame: y holds a "
                f"target for each sequence, ({len(answers)}, ...))"
            ) from error
        raise ValueError(
            f"{error} (the file is a stream with an output for each of {answers.shape[1]} frames: "
            f"y holds a target for each, ({len(answers)}, {answers.shape[1]}, ...))"
        ) from error


def _inputs(x: ExampleData, size: int) -> Iterator[tuple[Nested, Nested | None]]:
    """Yields inputs and their targets: of arrays as many as `size`, of a data set its batches."""
    if isinstance(x, np.ndarray | list | tuple | dict) or hasattr(x, "__array__"):
        inputs, targets = arrays(x, what="x")
        for start in range(0, length(inputs, "x"), size):
            part = slice(start, start + size)
            yield sliced(inputs, part), None if targets is None else sliced(targets, part)
        return
    check_data(x, "x")
    waiting: list[tuple[Nested, Nested]] = []
    count = total = 0
    for pair in batches(x, "x"):
        waiting.append(pair)
        count += length(pair[0], "x")
        if count >= BATCH:  # small batches are run together
            yield _together(waiting)
            total, count, waiting = total + count, 0, []
    if waiting:
        yield _together(waiting)
    elif not total:
        raise ValueError("x must hold at least one example, got none")


def _together(pairs: Sequence[tuple[Nested, Nested]]) -> tuple[Nested, Nested | None]:
    inputs, targets = zip(*pairs, strict=True)
    return joined(*inputs), None if targets[0] is None else joined(*targets)


def _at_once(file: Artifact, batch_size: int) -> int:
    """Number of examples of arrays that are judged at once: all, unless outputs are large."""
    numbers = sum(math.prod(max(1, size) for size in each.shape[1:]) for each in file.outputs)
    batch = max(1, batch_size)
    return batch * max(1, _NUMBERS // max(1, numbers) // batch)
