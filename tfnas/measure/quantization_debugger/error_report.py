"""The result of :func:`tfnas.quantization_error`: records, tables and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tfnas.measure.quantization_debugger.sqnr import as_percent, db_text, sqnr_db
from tfnas.search_space.json_records import check_keys, parse_json_object
from tfnas.table import Tabular, TextTable


@dataclasses.dataclass(frozen=True)
class LayerError:
    """Quantization error of one operator of the file.

    Noise is the mean square of the difference to the float file, divided by the mean square of
    the float file's values, so it is at least 0.

    Args:
        layer: Name of the Keras layer.
        operator: The operator in the file, such as "CONV_2D"; "INPUT" for a quantized input.
        dtype: Element type of its output in the file.
        shape: Shape of its output in the file, the batch first.
        noise: Noise of its output.
        added: `noise` minus the largest noise of its inputs, at least 0.
        saturation: Fraction of the float values that are more than one quantization step
            outside the output's range; 0 for float outputs.
        grid_noise: Noise of the float values if only this output were quantized; 0 for float
            outputs.
        weights: Number of weights without biases.
        weight_bits: Bits per weight in the file, None without weights.
        weight_noise: Noise of the weights, None if they can't be compared.
    """

    layer: str
    operator: str
    dtype: str
    shape: tuple[int, ...]
    noise: float
    added: float
    saturation: float
    grid_noise: float
    weights: int = 0
    weight_bits: int | None = None
    weight_noise: float | None = None

    @property
    def sqnr(self) -> float:
        """Signal-to-quantization-noise ratio of the output, in dB."""
        return sqnr_db(self.noise)

    @property
    def weight_sqnr(self) -> float | None:
        """Signal-to-quantization-noise ratio of the weights, in dB."""
        return None if self.weight_noise is None else sqnr_db(self.weight_noise)

    def row(self) -> list[str]:
        """Returns the error as a row of a table; see :meth:`QuantizationError.headers`."""
        return [
            self.layer,
            self.operator,
            "x".join(map(str, self.shape)),
            self.dtype,
            db_text(self.noise),
            f"{self.added:.2e}" if self.added else "0",
            "" if self.dtype.startswith("float") else db_text(self.grid_noise),
            "" if self.dtype.startswith("float") else as_percent(self.saturation),
            f"{self.weights:,}" if self.weights else "",
            "" if self.weight_bits is None else str(self.weight_bits),
            db_text(self.weight_noise),
        ]


@dataclasses.dataclass(frozen=True)
class OutputError:
    """Quantization error of one output of the model.

    Args:
        name: Its name in Keras; where the model has none, that in the file.
        noise: Its noise, as in :class:`LayerError`.
        changed: Fraction of the examples whose class (argmax) changed; None if the output has
            not the shape (examples, classes) with at least 2 classes.
    """

    name: str
    noise: float
    changed: float | None

    @property
    def sqnr(self) -> float:
        """Signal-to-quantization-noise ratio, in dB."""
        return sqnr_db(self.noise)


@dataclasses.dataclass(frozen=True)
class FloatLayers:
    """The file converted again with some layers in float32.

    Args:
        layers: Names of these layers.
        size: Size of the file, in bytes; None if there is no such file.
        outputs: Quantization error of its outputs.
        note: Why there is no such file, or which other layers are float32 in it; else empty.
    """

    layers: tuple[str, ...]
    size: int | None
    outputs: tuple[OutputError, ...]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Unaligned:
    """An operator without a counterpart in the other file: its error is not known.

    Args:
        layer: Name of the Keras layer, as far as the names in the file show it.
        operator: The operator, such as "CONV_2D".
        file: The file that has it, "float" or "quantized".
        reason: Why it has no counterpart.
    """

    layer: str
    operator: str
    file: str
    reason: str


@dataclasses.dataclass(frozen=True, repr=False)
class QuantizationError(Tabular):
    """Quantization error of a file, operator by operator. Prints as tables, worst first.

    Args:
        model: Name of the model.
        mode: Mode of the file.
        examples: Number of examples that were run.
        layers: One record per operator, the one that adds most noise first.
        kept_float: The file itself, then the files with more and more of the worst layers in
            float32.
        unaligned: Operators of either file without a counterpart in the other.
    """

    model: str
    mode: str
    examples: int
    layers: tuple[LayerError, ...]
    kept_float: tuple[FloatLayers, ...]
    unaligned: tuple[Unaligned, ...] = ()

    @property
    def outputs(self) -> tuple[OutputError, ...]:
        """Quantization error of the file's outputs, in the order of the model's outputs."""
        return self.kept_float[0].outputs

    @property
    def size(self) -> int:
        """Size of the file, in bytes."""
        return int(self.kept_float[0].size or 0)

    def worst(self, k: int | None = None) -> tuple[str, ...]:
        """Returns the names of layers with quantized weights, most added noise first.

        Args:
            k: Number of layers, at most; None: all.
        """
        names = (layer.layer for layer in self.layers if (layer.weight_bits or 32) < 32)
        return tuple(dict.fromkeys(names))[:k]

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return [
            "layer",
            "operator",
            "output",
            "type",
            "SQNR dB",
            "noise added",
            "grid dB",
            "saturated",
            "weights",
            "bits",
            "weights dB",
        ]

    def rows(self) -> list[list[str]]:
        """Returns one row per operator, the one that adds most noise first."""
        return [layer.row() for layer in self.layers]

    def kept_headers(self) -> list[str]:
        """Returns the titles of :meth:`kept_rows`."""
        return ["in float32", "layers", "bytes", "more", "outputs dB", "classes changed"]

    def kept_rows(self) -> list[list[str]]:
        """Returns one row per file of `kept_float`: its size and the error of its outputs."""
        rows = []
        for index, kept in enumerate(self.kept_float):
            none = "none, converted again" if index else "none, the file itself"
            layers = ", ".join(kept.layers) or none
            changed = ["-" if o.changed is None else as_percent(o.changed) for o in kept.outputs]
            rows.append(
                [
                    f"{layers}: {kept.note}" if kept.note else layers,
                    str(len(kept.layers)),
                    "-" if kept.size is None else f"{kept.size:,}",
                    "-" if kept.size is None else f"{kept.size / self.size - 1:+.1%}",
                    " ".join(db_text(o.noise) for o in kept.outputs) or "-",
                    " ".join(changed) or "-",
                ]
            )
        return rows

    def tables(self) -> list[TextTable]:
        """Returns the table of the operators and that of the files."""
        title = f"{self.model}, {self.mode}, {self.examples:,} examples"
        return [
            TextTable(self.headers(), self.rows(), right=4, title=title),
            TextTable(self.kept_headers(), self.kept_rows()),
        ]

    def notes(self) -> list[str]:
        """Returns the operators without a counterpart."""
        if not self.unaligned:
            return []
        lines = [f"{u.layer} ({u.operator}, {u.file}): {u.reason}" for u in self.unaligned]
        return ["Without a counterpart in the other file:", *lines]

    def to_json(self) -> str:
        """Returns the record as JSON text."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> QuantizationError:
        """Returns the record of JSON text as :meth:`to_json` returns it.

        Raises:
            ValueError: The text is no such record; the message names an unknown or missing key.
        """
        fields = parse_json_object(text, "quantization error")
        check_keys(cls, fields)
        parts = {
            "layers": _records(LayerError, fields, "layers"),
            "kept_float": _records(FloatLayers, fields, "kept_float"),
            "unaligned": _records(Unaligned, fields, "unaligned"),
        }
        if not parts["kept_float"]:
            raise ValueError("kept_float must begin with the file itself, got []")
        return cls(**{**fields, **parts})


def _records(record: type, fields: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    """The records under a key, with JSON's lists turned back into tuples."""
    values = fields.get(key, ())
    if not isinstance(values, list | tuple):
        raise ValueError(f"{key} must be a list, got {values!r}")
    found = []
    for value in values:
        check_keys(record, value)
        arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        if "outputs" in arguments:
            arguments["outputs"] = _records(OutputError, arguments, "outputs")
        found.append(record(**arguments))
    return tuple(found)
