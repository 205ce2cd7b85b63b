"""Data of every kind that an argument may be: arrays, streams, a name, a path, a split."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tfnas.data.checked_arrays import check_finite
from tfnas.data.datasets import IMAGE_ARRAYS, NAMES, check_name, load, split_of_arrays
from tfnas.data.examples import Data, Nested
from tfnas.data.model_inputs import Signature, inputs_fitting, model_inputs, model_outputs
from tfnas.data.named_arrays import array_parts, group_array, input_arrays, read_arrays
from tfnas.data.tables import read_table, table_groups, table_inputs, table_targets
from tfnas.data.user_data import DataParts, data_parts

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_split import DataSplit
    from tfnas.data.user_data import UserData

    AnyData: TypeAlias = Data | UserData | str | os.PathLike[str]

Size = tuple[int, int]


def any_data(
    model: keras.Model,
    train_data: AnyData,
    validation_data: UserData | None = None,
    test_data: UserData | None = None,
    *,
    inputs: Sequence[str] = (),
    targets: Sequence[str] = (),
    image_size: Size | None = None,
    seed: int = 0,
    argument: str = "train_data",
    groups: Any = None,
) -> Data:
    """Returns data in three parts from whatever an argument may be.

    Args:
        model: The model that takes it.
        train_data: A :class:`~tfnas.data.DataSplit` or other data in three parts, as it is; a name
            or a path, as for :func:`load_for`; or what :func:`~tfnas.data.data_parts` takes.
        validation_data: What :func:`~tfnas.data.data_parts` takes.
        test_data: What :func:`~tfnas.data.data_parts` takes.
        inputs: Names of a file's arrays or columns that are the model's inputs.
        targets: Names of those that are the targets.
        image_size: (height, width) in pixels that the images of a folder are resized to.
        seed: Seed of the splits.
        argument: Name of the argument `train_data`, for messages.
        groups: A group of each example of the data that the test data is of; of a file the name of
            its array or column; None: there are none.

    Raises:
        ValueError: The data can't be used, or its parts are given twice.
    """
    is_file = isinstance(train_data, str | os.PathLike)
    if isinstance(groups, str) and not is_file:
        raise ValueError(
            f"groups must hold a group for each example of the test data where {argument} is no "
            f"file, got {groups!r}"
        )
    if groups is not None and not isinstance(groups, str) and is_file:
        raise ValueError(
            f"groups must name a column where {argument} is a file, got {type(groups).__name__}"
        )
    has_parts = is_ready(train_data)
    if (has_parts or is_file) and (validation_data is not None or test_data is not None):
        what = "validation_data" if validation_data is not None else "test_data"
        raise ValueError(
            f"{what} must be None where {argument} is a name, a path or has its own parts, got "
            f"{argument} {train_data!s:.200}"
        )
    if has_parts:
        if groups is not None:
            raise ValueError(
                f"groups must be None where {argument} has its own parts, got groups: those of its "
                "test examples, tfnas.data.Examples(x, y, groups=groups)"
            )
        return train_data  # type: ignore[return-value]
    if isinstance(train_data, str | os.PathLike):  # is_file, which does not narrow the type
        chosen = {"inputs": inputs, "targets": targets, "groups": groups}
        return load_for(model, train_data, **chosen, image_size=image_size, seed=seed)
    return data_parts(
        train_data,
        validation_data,
        test_data,
        seed=seed,
        model=model,
        argument=argument,
        groups=groups,
    )


def is_ready(data: Any) -> bool:
    """Whether data has three parts of its own."""
    return all(hasattr(data, part) for part in ("train", "validation", "test"))


def load_for(
    model: keras.Model | Signature,
    name: str | os.PathLike[str],
    *,
    inputs: Sequence[str] = (),
    targets: Sequence[str] = (),
    groups: str | None = None,
    image_size: Size | None = None,
    seed: int = 0,
) -> Data:
    """Loads the data of a model by its name or from a file.

    Args:
        model: The model that takes it, or the signature of a file that does.
        name: A name or a folder of images, as for :func:`tfnas.data.load`; an `.npz` file of named
            arrays (see :mod:`tfnas.data.named_arrays`); or a `.csv` file (see
            :mod:`tfnas.data.tables`).
        inputs: Names of a file's arrays or columns that are the model's inputs; empty: those of
            its inputs, or x; of a table all columns that are no targets.
        targets: Names of those that are the targets; empty: those of the model's outputs, or y. A
            table needs them.
        groups: Name of the array or column of the examples' groups, which is no input; None:
            there is none.
        image_size: (height, width) in pixels that the images of a folder are resized to.
        seed: Seed of the splits.

    Returns:
        A :class:`~tfnas.data.DataSplit` where the model classifies images and the data has one
        label an image; otherwise :class:`~tfnas.data.DataParts`.

    Raises:
        ValueError: The name is unknown, or the file does not fit the model.
        ImportError: "digits" needs scikit-learn, which is not installed.
    """
    path = pathlib.Path(name)
    if not is_array_file(name):
        if named := [*inputs, *targets, *([groups] if groups else [])]:
            raise ValueError(
                f"inputs, targets and groups must be empty where the data is no .npz or .csv file, "
                f"got {', '.join(named)} for {str(name)!r}"
            )
        return load(name, image_size=image_size, seed=seed)  # type: ignore[arg-type]
    if path.suffix.lower() == ".csv":
        table, what = read_table(path), str(path)
        y = table_targets(table, model, what, targets)
        column = table_groups(table, what, groups)
        x = table_inputs(table, model, what, inputs, [*targets, *([groups] if groups else [])])
        return data_parts(
            (x, y), name=path.stem, seed=seed, model=model, argument=path.name, groups=column
        )
    arrays = read_arrays(path)
    if not inputs and not targets and not groups and labels_images(arrays, model):
        return split_of_arrays(arrays, path, seed)
    return parts_of_arrays(model, arrays, path, inputs, targets, seed, groups)


def parts_of_arrays(
    model: keras.Model,
    arrays: dict[str, np.ndarray],
    path: pathlib.Path,
    inputs: Sequence[str],
    targets: Sequence[str],
    seed: int,
    groups: str | None = None,
) -> DataParts:
    """Returns the parts of a file of named arrays.

    Args:
        model: The model.
        arrays: The arrays by name.
        path: The file.
        inputs: Names of the inputs.
        targets: Names of the targets.
        seed: Seed of the splits.
        groups: Name of the groups; None: there are none.

    Raises:
        ValueError: An array is missing, or does not fit the model.
    """
    parts = array_parts(arrays, model, str(path), inputs, targets)
    return data_parts(
        parts["train"],
        parts.get("validation"),
        parts.get("test"),
        name=path.stem,
        seed=seed,
        model=model,
        argument=path.name,
        groups=group_array(arrays, groups, parts, str(path)),
    )


def load_calibration(
    model: keras.Model,
    name: str | os.PathLike[str],
    *,
    inputs: Sequence[str] = (),
    targets: Sequence[str] = (),
    image_size: Size | None = None,
) -> tuple[Nested, DataSplit | None]:
    """Loads inputs of a model for the ranges of its activations; a file needs no targets.

    Args:
        model: The model that takes them.
        name: As for :func:`load_for`.
        inputs: Names of a file's arrays or columns; empty: those of the model's inputs, or x; of a
            table all columns that are no targets.
        targets: Names of the columns of a table that are no inputs.
        image_size: (height, width) in pixels that the images of a folder are resized to.

    Returns:
        The inputs, an array (examples, ...) or a dictionary or list of such arrays; and the split
        where the data has images and labels, else None.

    Raises:
        ValueError: The name is unknown, or the file does not fit the model.
    """
    path = pathlib.Path(name)
    if not is_array_file(name):
        split = load(name, image_size=image_size)  # type: ignore[arg-type]
        return split.x_train, split
    if path.suffix.lower() == ".csv":
        x = table_inputs(read_table(path), model, str(path), inputs, targets)
    else:
        arrays = read_arrays(path)
        if not inputs and labels_images(arrays, model):
            split = split_of_arrays(arrays, path, 0)
            return split.x_train, split
        x = input_arrays(arrays, model, str(path), inputs)
    check_finite(x, f"x of {path.name}")
    fitted = inputs_fitting(model, path.name)
    return (x if fitted is None else fitted(x)), None


def is_array_file(name: str | os.PathLike[str]) -> bool:
    """Whether data is an `.npz` or `.csv` file.

    Args:
        name: The name of a data set, or a path.

    Raises:
        ValueError: There is no such data set, file or folder.
    """
    check_name(name)
    path = pathlib.Path(name)
    return path.is_file() and str(name) not in NAMES and path.suffix.lower() in (".npz", ".csv")


def labels_images(arrays: Mapping[str, np.ndarray], model: keras.Model) -> bool:
    """Whether a file holds images with one label each, for a model that classifies images.

    Args:
        arrays: The arrays by name.
        model: The model.
    """
    inputs, outputs = model_inputs(model), model_outputs(model)
    if any(key not in arrays for key in IMAGE_ARRAYS) or not len(inputs) == len(outputs) == 1:
        return False
    y, units = arrays["y_train"], outputs[0].shape
    whole = y.dtype.kind in "iu" and y.shape in ((len(y),), (len(y), 1)) and len(y) > 0
    return (
        len(inputs[0].shape) == 3
        and len(units) == 1
        and whole
        and (units[0] != 1 or int(y.max()) <= 1)
    )
