"""Files of named arrays (`.npz`), read as a model takes them.

An array belongs to a part by the end of its name: `NAME_train`, `NAME_validation` or `NAME_val`,
`NAME_test`; `NAME` alone is for training. Inputs are the arrays named as the model's inputs, or
`x`; targets those named as its outputs, or `y`; `sample_weight` is optional.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.examples import Nested
from tfnas.data.model_inputs import has_output_names, model_inputs, model_outputs
from tfnas.runtime.argument_rules import near
from tfnas.runtime.foreign_files import check_archive, open_regular

if TYPE_CHECKING:
    import keras

PARTS = {"train": ("_train", ""), "validation": ("_validation", "_val"), "test": ("_test",)}
WEIGHTS = "sample_weight"


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of arrays, or of columns of a table, that are inputs or targets of a model.

    Args:
        names: The names, in the order of the model's inputs or outputs.
        keys: Keys of the dictionary that they become; None: one array, or a list of them.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...] | None = None

    def nest(self, arrays: Sequence[np.ndarray]) -> Nested:
        """Returns the arrays as the model takes them.

        Args:
            arrays: An array for each name.
        """
        if self.keys is not None:
            return dict(zip(self.keys, arrays, strict=True))
        return arrays[0] if len(arrays) == 1 else list(arrays)


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by their names.

    Args:
        path: An `.npz` file.

    Raises:
        ValueError: It is no such file, or holds pickled objects.
    """
    try:
        with open_regular(path) as stream, np.load(stream, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise ValueError("it holds a single array")
            check_archive(path)
            return {name: file[name] for name in file.files}
    except Exception as error:  # zip, zlib and NumPy raise many types for a broken file
        raise ValueError(f"data {str(path)!r} must be an .npz file of arrays: {error}") from error


def array_parts(
    arrays: Mapping[str, np.ndarray],
    model: keras.Model,
    what: str,
    inputs: Sequence[str] = (),
    targets: Sequence[str] = (),
) -> dict[str, tuple[Nested, ...]]:
    """Returns (x, y) or (x, y, sample_weight) of each part that a file holds.

    Args:
        arrays: The arrays by name.
        model: The model.
        what: Name of the file, for the error message.
        inputs: Names of the inputs, without the parts; empty: as the model's inputs, or x.
        targets: Names of the targets; empty: as the model's outputs, or y.

    Raises:
        ValueError: An array is missing or ambiguous.
    """
    found = {part: _of_part(arrays, part) for part in PARTS}
    x = input_columns(model, found["train"], what, inputs)
    y = target_columns(model, found["train"], what, targets)
    parts = {}
    for part, own in found.items():
        wanted = [*x.names, *y.names]
        missing = [name for name in wanted if name not in own]
        if part != "train" and len(missing) == len(wanted):
            continue
        if missing:
            ends = " or ".join(f"{missing[0]}{end}" for end in PARTS[part])
            raise ValueError(f"data {what!r} must hold the array {ends}, got {_listed(arrays)}")
        sides = [columns.nest([own[name] for name in columns.names]) for columns in (x, y)]
        parts[part] = (*sides, *([own[WEIGHTS]] if WEIGHTS in own else []))
    return parts


def input_arrays(
    arrays: Mapping[str, np.ndarray], model: keras.Model, what: str, inputs: Sequence[str] = ()
) -> Nested:
    """Returns a model's inputs from a file that needs no targets: those for training, if any.

    Args:
        arrays: The arrays by name.
        model: The model.
        what: Name of the file, for the error message.
        inputs: Names of the inputs; empty: as the model's inputs, or x.

    Raises:
        ValueError: An array is missing.
    """
    for part in PARTS:
        own = _of_part(arrays, part)
        try:
            columns = input_columns(model, own, what, inputs)
        except ValueError:
            continue
        if all(name in own for name in columns.names):
            return columns.nest([own[name] for name in columns.names])
    columns = input_columns(model, _of_part(arrays, "train"), what, inputs)
    raise ValueError(f"data {what!r} must hold the array {columns.names[0]}, got {_listed(arrays)}")


def group_array(
    arrays: Mapping[str, np.ndarray], name: str | None, parts: Mapping[str, Any], what: str
) -> np.ndarray | None:
    """Returns the groups of the part that the test data is of.

    Args:
        arrays: The arrays by name.
        name: Name of the groups without a part's ending; None: there are none.
        parts: The parts that the file holds.
        what: Name of the file, for the error message.

    Raises:
        ValueError: There is no such array for that part.
    """
    if name is None:
        return None
    part = next(each for each in ("test", "validation", "train") if each in parts)
    found = _of_part(arrays, part)
    if name not in found:
        ends = " or ".join(f"{name}{end}" for end in PARTS[part])
        raise ValueError(f"groups must name an array of {what!r}, {ends}, got {_listed(arrays)}")
    return found[name]


def _of_part(arrays: Mapping[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a part by their names without its ending."""
    endings = [end for ends in PARTS.values() for end in ends if end]
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        end = next((end for end in endings if name.endswith(end) and name != end), "")
        if end in PARTS[part]:
            base = name.removesuffix(end)
            if base in found:
                raise ValueError(f"data must hold {base!r} of part {part!r} once, got it twice")
            found[base] = array
    return found


def input_columns(
    model: keras.Model, names: Mapping[str, Any], what: str, chosen: Sequence[str] = ()
) -> Columns:
    """Returns which arrays are a model's inputs.

    Args:
        model: The model.
        names: The names that there are.
        what: Name of the file, for the error message.
        chosen: Names that the user chose; empty: those of the model's inputs, or x.

    Raises:
        ValueError: They are other ones than the model's.
    """
    own = tuple(each.name for each in model_inputs(model))
    if chosen:
        return _chosen(chosen, own, "inputs", dictionary=len(own) > 1)
    if len(own) > 1:
        if missing := [name for name in own if name not in names]:
            raise ValueError(
                f"data {what!r} must hold an array for each input of the model, {', '.join(own)}, "
                f"got none for {missing[0]!r}: --inputs names others{near(missing[0], names)}"
            )
        return Columns(own, own)
    if own and own[0] in names:
        return Columns(own)
    return Columns(("x",))


def target_columns(
    model: keras.Model, names: Mapping[str, Any], what: str, chosen: Sequence[str] = ()
) -> Columns:
    """Returns which arrays are the targets of a model's outputs.

    Args:
        model: The model.
        names: The names that there are.
        what: Name of the file, for the error message.
        chosen: Names that the user chose; empty: those of the model's outputs, or y.

    Raises:
        ValueError: They are other ones than the model's.
    """
    own = tuple(each.name for each in model_outputs(model))
    keyed = has_output_names(model)
    if chosen:
        return _chosen(chosen, own, "targets", dictionary=keyed)
    if len(own) > 1:
        if missing := [name for name in own if name not in names]:
            raise ValueError(
                f"data {what!r} must hold an array for each output of the model, {', '.join(own)}, "
                f"got none for {missing[0]!r}: --targets names others{near(missing[0], names)}"
            )
        return Columns(own, own if keyed else None)
    name = own[0] if own and own[0] in names else "y"
    return Columns((name,), own if keyed else None)


def _chosen(chosen: Sequence[str], own: tuple[str, ...], what: str, dictionary: bool) -> Columns:
    """Returns chosen names, by name where they are the model's own, else in its order."""
    if own and len(chosen) != len(own):
        raise ValueError(
            f"{what} must name {len(own)} array{'s' * (len(own) != 1)}, for {', '.join(own)}, got "
            f"{', '.join(chosen)}"
        )
    names = own if set(chosen) == set(own) else tuple(chosen)
    return Columns(names, own if dictionary and own else None)


def _listed(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(sorted(arrays)) or "none"
