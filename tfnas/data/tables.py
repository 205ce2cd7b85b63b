"""Tables in CSV files, read as a model takes them.

The first line names the columns. Columns that are no targets are features: a model with several
inputs takes them by name, a model with one input (batch, features) takes all of them side by side
in the order of the file.
"""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

import numpy as np

from tfnas.data.examples import Nested
from tfnas.data.model_inputs import ModelInput, has_output_names, model_inputs, model_outputs
from tfnas.runtime.argument_rules import near
from tfnas.runtime.foreign_files import open_regular

if TYPE_CHECKING:
    import keras

Table = dict[str, list[str]]
_LONGEST_LINE = 2**24  # characters: a file without a line break is no table


def read_table(path: pathlib.Path) -> Table:
    """Returns the columns of a CSV file by their names, as texts.

    Args:
        path: The file; commas separate, the first line names the columns.

    Raises:
        ValueError: It can't be read, a name comes twice, a line has another number of values or
            more than 2**24 characters, or there are null characters.
    """
    try:
        with (
            open_regular(path) as binary,
            io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as stream,
        ):
            reader = csv.reader(_lines(stream), strict=True)
            names = next(reader, [])
            rows = []
            for row in reader:
                if row and len(row) != len(names):
                    raise ValueError(
                        f"line {reader.line_num} has {len(row)} values, {len(names)} are named"
                    )
                if row:
                    rows.append(row)
    except (csv.Error, OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(
            f"data {str(path)!r} must be a CSV file whose first line names the columns: {error}"
        ) from error
    if not rows or len(set(names)) < len(names) or not all(names):
        raise ValueError(
            f"data {str(path)!r} must hold a line of different names and at least one more line, "
            f"got the names {', '.join(names)[:200]!r} and {len(rows)} more lines"
        )
    return dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True))


def _lines(stream: TextIO) -> Iterator[str]:
    """Yields the lines of a file, without reading one of any length."""
    number = 0
    while line := stream.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise ValueError(f"line {number} has {_LONGEST_LINE:,} characters or more")
        if "\0" in line:
            raise ValueError(f"line {number} holds a null character")
        yield line


def table_targets(table: Table, model: keras.Model, what: str, targets: Sequence[str]) -> Nested:
    """Returns the targets of a table.

    Args:
        table: The columns by name.
        model: The model.
        what: Name of the file, for the error message.
        targets: Names of the columns: one for each output, or all of one output.

    Raises:
        ValueError: None is named, one is unknown or holds numbers beside texts, or their number
            does not fit.
    """
    if not targets:
        raise ValueError(
            f"targets must name columns of {what!r}, got none: --targets=COLUMN[,COLUMN], of "
            f"{', '.join(table)[:300]}"
        )
    _check_names(targets, table, "targets", what)
    columns = [_classes_or_numbers(table, name, what) for name in targets]
    outputs = model_outputs(model)
    if len(outputs) > 1:
        names = [output.name for output in outputs]
        if len(targets) != len(names):
            raise ValueError(
                f"targets must name a column for each output of the model, {', '.join(names)}, "
                f"got {', '.join(targets)}"
            )
        if set(names) == set(targets):
            columns = [columns[list(targets).index(name)] for name in names]
        return dict(zip(names, columns, strict=True)) if has_output_names(model) else columns
    texts = [name for name, column in zip(targets, columns, strict=True) if column.dtype == object]
    if texts and len(columns) > 1:
        raise ValueError(
            f"targets of one output must be numbers where there are several columns, got texts in "
            f"{texts[0]!r} of {what!r}"
        )
    y = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    return {outputs[0].name: y} if outputs and has_output_names(model) else y


def table_groups(table: Table, what: str, groups: str | None) -> np.ndarray | None:
    """Returns the group of each line as text.

    Args:
        table: The columns by name.
        what: Name of the file, for the error message.
        groups: Name of the column; None: there is none.

    Raises:
        ValueError: There is no such column.
    """
    if groups is None:
        return None
    _check_names([groups], table, "groups", what)
    return np.array(table[groups])


def table_inputs(
    table: Table,
    model: keras.Model,
    what: str,
    inputs: Sequence[str] = (),
    targets: Sequence[str] = (),
) -> Nested:
    """Returns the inputs of a table.

    Args:
        table: The columns by name.
        model: The model.
        what: Name of the file, for the error message.
        inputs: Names of the columns; empty: all that are no targets, or the names of the model's
            inputs where it has several.
        targets: Names of the columns that are no inputs.

    Raises:
        ValueError: A column is missing or holds no numbers, or the model takes no columns.
    """
    _check_names(inputs, table, "inputs", what)
    own = model_inputs(model)
    if len(own) > 1:
        names = inputs or [each.name for each in own]
        if len(names) != len(own):
            raise ValueError(
                f"inputs must name a column for each input of the model, "
                f"{', '.join(each.name for each in own)}, got {', '.join(names)}"
            )
        if set(names) == {each.name for each in own}:
            names = [each.name for each in own]
        _check_names(names, table, "the model's inputs", what)
        pairs = zip(own, names, strict=True)
        return {each.name: _single(each, table, name, what) for each, name in pairs}
    features = list(inputs) or [name for name in table if name not in targets]
    if not features:
        raise ValueError(f"data {what!r} must hold columns that are no targets, got none")
    if own and own[0].dtype == "string":
        return _single(own[0], table, features[0], what)
    shape = own[0].shape if own else (None,)
    if len(shape) > 1 or (shape and shape[0] not in (None, len(features))):
        raise ValueError(
            f"model must take the {len(features)} columns {', '.join(features)[:200]} of {what!r} "
            f"as inputs (batch, {len(features)}), got (batch, {', '.join(map(str, shape))})"
        )
    matrix = np.stack([_numbers(table, name, what) for name in features], axis=1)
    return matrix.astype((own[0].dtype if own else "") or np.float32)


def _single(own: ModelInput, table: Table, name: str, what: str) -> np.ndarray:
    """Returns a column as an input of one value an example."""
    if own.shape not in ((), (1,), (None,)):
        raise ValueError(
            f"model must take one value an example for column {name!r} of {what!r}, got an input "
            f"of shape {own.shape}"
        )
    if own.dtype == "string":
        column = np.array(table[name], dtype=object)
    else:
        column = _numbers(table, name, what)
        column = column.astype(own.dtype or column.dtype)
    return column[:, None] if own.shape else column


def _classes_or_numbers(table: Table, name: str, what: str) -> np.ndarray:
    """Returns a column as numbers, or as the class names that it holds where none is a number."""
    if any(map(_is_number, table[name])):
        return _numbers(table, name, what)
    return np.array(table[name], dtype=object)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(table: Table, name: str, what: str) -> np.ndarray:
    """Returns a column as int64, or as float32 where a number is not whole."""
    texts = table[name]
    try:
        return np.array([int(text) for text in texts], np.int64)
    except (ValueError, OverflowError):
        pass
    numbers = np.empty(len(texts), np.float64)
    for row, text in enumerate(texts):
        try:
            numbers[row] = float(text)
        except ValueError:
            raise ValueError(
                f"column {name!r} of {what!r} must hold numbers, got {text[:80]!r} in row {row + 1}"
            ) from None
    return numbers.astype(np.float32)


def _check_names(names: Sequence[str], table: Table, kind: str, what: str) -> None:
    for name in names:
        if name not in table:
            raise ValueError(
                f"{kind} must be columns of {what!r}, {', '.join(table)[:300]}, got {name!r}"
                f"{near(name, list(table))}"
            )
