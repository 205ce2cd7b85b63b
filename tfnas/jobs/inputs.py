"""The model and the data of `compress`: a model, a model's file, or a finished search."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Any

from tfnas import data as data_module
from tfnas.data.examples import Data as Parts
from tfnas.loading import load_model
from tfnas.nas.search_config import SearchConfig
from tfnas.quantization.quantize_aware import fake_quants, strip_quantization
from tfnas.runtime.store import damage_named, read_json_object
from tfnas.search_space.json_records import check_types

if TYPE_CHECKING:
    import keras

    from tfnas.nas.search_result import SearchResult

Data = Parts | str | os.PathLike[str] | None


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
    model: keras.Model | str | os.PathLike[str] | SearchResult, data: Data
) -> tuple[keras.Model, Any]:
    """Returns the model and its data.

    Args:
        model: A Keras model, the path of its file, the folder of a finished search, or the
            result of :func:`tfnas.search`.
        data: A split, or what :func:`tfnas.data.load` takes; None: the data of the search.

    Raises:
        ValueError: There is no such file or folder, the folder holds no finished search, or
            the data is missing.
    """
    folder = _search_folder(model)
    if folder is not None:
        return _from_search(folder, data)
    if data is None:
        raise ValueError("data must be given where the model is not a finished search, got None")
    loaded = load_model(model) if isinstance(model, str | os.PathLike) else model
    return loaded, _split(data)


def _search_folder(model: Any) -> pathlib.Path | None:
    """Returns the folder of a search; None where the argument is a model or its file."""
    if isinstance(model, str | os.PathLike):
        path = pathlib.Path(model)
        return path if path.is_dir() else None
    from tfnas.nas.search_result import SearchResult

    return model.directory if isinstance(model, SearchResult) else None


def _from_search(folder: pathlib.Path, data: Data) -> tuple[keras.Model, Any]:
    config = _finished_config(folder)
    if data is not None:
        split = _split(data)
    else:
        with damage_named(folder / "config.json", "search"):
            own = ("image_size", "seed")
            check_types(SearchConfig, {name: config[name] for name in config if name in own})
        name, size = config.get("dataset"), config.get("image_size")
        try:
            split = data_module.load(
                str(name), image_size=size and (size[0], size[-1]), seed=config.get("seed", 0)
            )
        except ValueError as error:
            raise ValueError(
                f"data must be given: the search's own, {name!r}, can't be read: {error}"
            ) from error
    model = load_model(folder / "best.keras")
    # A search with compression may end in a quantization-aware model; it is quantized again.
    return (strip_quantization(model) if fake_quants(model) else model), split


def _finished_config(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the settings of a finished search."""

    def error(why: str) -> ValueError:
        return ValueError(
            f"model must be the folder of a finished search, got {str(folder)!r}{why}"
        )

    for name in ("config.json", "best.keras", "results.json"):
        if not (folder / name).is_file():
            raise error(f", which has no {name}")
    if read_json_object(folder / "results.json", "result").get("interrupted"):
        raise error(", which was interrupted: the same search on it continues")
    config = read_json_object(folder / "config.json", "search").get("config")
    if not isinstance(config, dict):
        raise error(", whose config.json has no config")
    return config


def _split(data: Parts | str | os.PathLike[str]) -> Parts:
    if all(hasattr(data, part) for part in ("train", "validation", "test")):
        return data  # type: ignore[return-value]
    return data_module.load(data)  # type: ignore[arg-type]  # an error names what is accepted
