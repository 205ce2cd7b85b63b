"""The model and the data of `compress`: a model, a model's file, or a finished search."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfnas import data as data_module
from tfnas.data.data_for_model import is_ready
from tfnas.data.datasets import check_name
from tfnas.data.examples import Data as Parts
from tfnas.data.examples import Examples, ExampleSet
from tfnas.data.reading import is_dataset
from tfnas.data.user_data import DataParts
from tfnas.graph.functional_form import as_functional, compiled_as
from tfnas.graph.preprocessing import preprocessed, preprocessing_layers, split_preprocessing
from tfnas.jobs.finished_search import finished_config
from tfnas.loading import Loading
from tfnas.nas.search_config import SearchConfig
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.quantize_aware import strip_quantization
from tfnas.runtime.store import damage_named
from tfnas.search_space.json_records import check_types
from tfnas.tflite.recurrent_layers import recurrent_layers

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_for_model import AnyData
    from tfnas.data.user_data import UserData
    from tfnas.nas.search_result import SearchResult


def check_task(task: Any) -> None:
    """Checks an argument `task`.

    Args:
        task: A :class:`tfnas.Task`, or None.

    Raises:
        ValueError: It is something else, such as the class instead of an instance, or has no
            metric.
    """
    from tfnas.tasks.task import Task

    if task is None:
        return
    if not isinstance(task, Task):
        raise ValueError(f"task must be an instance of a subclass of tfnas.Task, got {task!r}")
    if not hasattr(task, "metric"):
        raise ValueError(f"task must have a metric, a tfnas.Metric, got {type(task).__name__}")


def load_model_and_data(
    model: keras.Model | str | os.PathLike[str] | SearchResult,
    data: AnyData | None,
    validation_data: UserData | None = None,
    test_data: UserData | None = None,
    *,
    inputs: Sequence[str] = (),
    targets: Sequence[str] = (),
    groups: Any = None,
    argument: str = "data",
    loading: Loading | None = None,
    **options: Any,
) -> tuple[keras.Model, Parts]:
    """Returns the model and its data.

    Args:
        model: A Keras model, the path of its file, the folder of a finished search, or the
            result of :func:`tfnas.search`.
        data: What :func:`tfnas.data.any_data` takes: arrays, streams, a split, a name or a path;
            None: the data of the search.
        validation_data: Data for choosing among models, of the same kinds.
        test_data: Data for the final measurement, of the same kinds.
        inputs: Names of a file's arrays or columns that are the model's inputs.
        targets: Names of those that are the targets.
        argument: Name of the argument `data`, for messages.
        groups: A group of each example of the data that the test data is of, or the name of a
            file's array or column; None: there are none.
        loading: How files of models are read; None: without classes of the user's own.
        **options: `image_size` and `seed`, as for :func:`tfnas.data.any_data`.

    Raises:
        ValueError: There is no such file or folder, the folder holds no finished search, or
            the data is missing or can't be used.
    """
    loading = loading or Loading()
    if isinstance(data, str | os.PathLike):
        check_name(data)
    folder = _search_folder(model)
    if data is None:
        if folder is None:
            raise ValueError(
                f"{argument} must be given where the model is not a finished search, got None"
            )
        others = (validation_data, test_data, groups, inputs or None, targets or None)
        if any(each is not None for each in others):
            raise ValueError(
                f"{argument} must be given with validation_data, test_data, inputs, targets and "
                "groups, got None"
            )
        return _search_model(folder, loading), _search_data(folder)
    if folder is not None:
        loaded = _search_model(folder, loading)
    else:
        loaded = (
            loading.load(model, compiled=True) if isinstance(model, str | os.PathLike) else model
        )
    loaded = as_functional(loaded, _batches_of(data))
    _check_state(loaded)
    parts = data_module.any_data(
        loaded,
        data,
        validation_data,
        test_data,
        inputs=inputs,
        targets=targets,
        groups=groups,
        argument=argument,
        **options,
    )
    return _without_preprocessing(loaded, parts, argument)


def _check_state(model: keras.Model) -> None:
    """Raises ValueError where answers depend on the examples before: jobs judge each by itself."""
    import keras

    # What is no model is refused by what uses it.
    for layer in recurrent_layers(model) if isinstance(model, keras.Model) else ():
        if layer.stateful:
            raise ValueError(
                f"model must keep no state between batches, got stateful=True of {layer.name!r}: "
                "build it with stateful=False and set these weights; tfnas.to_tflite takes it as "
                "it is"
            )


def _without_preprocessing(
    model: keras.Model, parts: Parts, argument: str
) -> tuple[keras.Model, Parts]:
    """A model without lookups, hashes and bins, and data that has been through them."""
    front, rest = split_preprocessing(model)
    if front is None:
        return model, parts
    names = ", ".join(preprocessing_layers(front))
    inputs = ", ".join(each.name for each in rest.inputs)
    way_out = (
        f"{argument} must be arrays where a model has preprocessing that no file can hold, got "
        f"{type(parts.train).__name__} for {model.name!r} with {names}: send the data through "
        "the first model of tfnas.split_preprocessing(model), and pass the second one"
    )
    if not isinstance(parts, DataParts):
        raise ValueError(way_out)

    def through(part: ExampleSet) -> Examples:
        if not isinstance(part, Examples):
            raise ValueError(way_out)
        return dataclasses.replace(part, x=preprocessed(front, part.x))

    note = f"{names} stay out of the files, which take {inputs}"
    new = dataclasses.replace(
        parts,
        train=through(parts.train),
        validation=through(parts.validation),
        test=through(parts.test),
        notes=(*parts.notes, note),
    )
    return compiled_as(model, rest), new


def _batches_of(data: Any) -> Any:
    """Data that shows the shapes of inputs; None where it is read by the model's inputs."""
    if is_ready(data):
        return getattr(data, "x_train", None)
    if isinstance(data, tuple) and len(data) in (2, 3):
        return data[:2]
    return data if is_dataset(data) else None


def _search_folder(model: Any) -> pathlib.Path | None:
    """Returns the folder of a search; None where the argument is a model or its file."""
    if isinstance(model, str | os.PathLike):
        path = pathlib.Path(model)
        return path if path.is_dir() else None
    from tfnas.nas.search_result import SearchResult

    return model.directory if isinstance(model, SearchResult) else None


def _search_model(folder: pathlib.Path, loading: Loading) -> keras.Model:
    finished_config(folder)
    model = loading.load(folder / "best.keras")
    # A search with compression may end in a quantization-aware model; it is quantized again.
    return strip_quantization(model) if fake_quants(model) else model


def _search_data(folder: pathlib.Path) -> Parts:
    config = finished_config(folder)
    with damage_named(folder / "config.json", "search"):
        own = ("image_size", "seed")
        check_types(SearchConfig, {name: config[name] for name in config if name in own})
    name, size = config.get("dataset"), config.get("image_size")
    try:
        return data_module.load(
            str(name), image_size=size and (size[0], size[-1]), seed=config.get("seed", 0)
        )
    except ValueError as error:
        raise ValueError(
            f"data must be given: the search's own, {name!r}, can't be read: {error}"
        ) from error
