"""What :func:`tfnas.quantization_error` measured, as values: tables and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tfnas.measure.quantization_debugger.sqnr import as_decibels, as_share, decibels
from tfnas.search_space.architecture import check_keys, parse_json_object
from tfnas.table import table


@dataclasses.dataclass(frozen=True)
class LayerError:
    """What quantization does to one operator of the file.

    Noise is the mean square of the difference to the float file, as a share of the mean
    square of the float file's own numbers, so from 0 up.

    Args:
        layer: The Keras layer.
        operator: The operator in the file, such as "CONV_2D"; "INPUT" for an input that is
            quantized.
        dtype: Element type of its output in the file.
        shape: Shape of its output in the file, the batch first.
        noise: Noise of its output.
        added: `noise` less the largest noise among what it takes, at least 0.
        saturation: Share of the float file's numbers that lie more than one step outside
            of what the output can hold; 0 for float outputs.
        grid_noise: Noise of the float file's numbers rounded to the output's steps, nothing
            else being quantized; 0 for float outputs.
        weights: Number of weights, biases not counted.
        weight_bits: Bits of a weight in the file, None without weights.
        weight_noise: Noise of the weights, None where they can't be compared.
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
        return decibels(self.noise)

    @property
    def weight_sqnr(self) -> float | None:
        """Signal-to-quantization-noise ratio of the weights, in dB."""
        return None if self.weight_noise is None else decibels(self.weight_noise)

    def row(self) -> list[str]:
        """Returns the record as a table's row; see :meth:`QuantizationError.headers`."""
        return [
            self.layer,
            self.operator,
            "x".join(map(str, self.shape)),
            self.dtype,
            as_decibels(self.noise),
            f"{self.added:.2e}" if self.added else "0",
            "" if self.dtype.startswith("float") else as_decibels(self.grid_noise),
            "" if self.dtype.startswith("float") else as_share(self.saturation),
            f"{self.weights:,}" if self.weights else "",
            "" if self.weight_bits is None else str(self.weight_bits),
            as_decibels(self.weight_noise),
        ]


@dataclasses.dataclass(frozen=True)
class OutputError:
    """What quantization does to one output of the model.

    Args:
        name: Its name in the file.
        noise: Its noise, as in :class:`LayerError`.
        changed: Share of the examples with another class (largest number); None where the
            output is no row of several numbers an example.
    """

    name: str
    noise: float
    changed: float | None

    @property
    def sqnr(self) -> float:
        """Signal-to-quantization-noise ratio, in dB."""
        return decibels(self.noise)


@dataclasses.dataclass(frozen=True)
class FloatLayers:
    """The file again with some layers left float.

    Args:
        layers: The layers.
        size: Size of the file, in bytes; None where there is none.
        outputs: What quantization does to its outputs.
        note: Why there is no such file, or what else became float in it; else empty.
    """

    layers: tuple[str, ...]
    size: int | None
    outputs: tuple[OutputError, ...]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Unaligned:
    """An operator that has no counterpart in the other file, so that nothing is known of it.

    Args:
        layer: The Keras layer, as far as the names tell.
        operator: The operator.
        file: "float" or "quantized": the file that it is in.
        reason: Why.
    """

    layer: str
    operator: str
    file: str
    reason: str


@dataclasses.dataclass(frozen=True)
class QuantizationError:
    """Where a quantized file departs from its float model. Prints as a table, worst first.

    Args:
        model: The model's name.
        mode: The file's.
        examples: Number of examples that were run.
        layers: An entry an operator, the one that adds most noise first.
        kept_float: The file as it was given, then with more and more of the worst layers
            float.
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
        """What quantization does to the model's outputs, in the model's order."""
        return self.kept_float[0].outputs

    @property
    def size(self) -> int:
        """Size of the file, in bytes."""
        return int(self.kept_float[0].size or 0)

    def worst(self, k: int | None = None) -> tuple[str, ...]:
        """Returns the layers with quantized weights, the one that adds most noise first.

        Args:
            k: How many at most; None: all.
        """
        named = (entry.layer for entry in self.layers if (entry.weight_bits or 32) < 32)
        return tuple(dict.fromkeys(named))[:k]

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return [
            *("layer", "operator", "output", "type", "SQNR dB", "noise added", "grid dB"),
            *("saturated", "weights", "bits", "weights dB"),
        ]

    def rows(self) -> list[list[str]]:
        """Returns a row an operator, the one that adds most noise first."""
        return [entry.row() for entry in self.layers]

    def kept_headers(self) -> list[str]:
        """Returns the titles of :meth:`kept_rows`."""
        return ["left float", "layers", "bytes", "more", "outputs dB", "classes changed"]

    def kept_rows(self) -> list[list[str]]:
        """Returns what leaving layers float costs and gives back, a row a file."""
        rows = []
        for index, kept in enumerate(self.kept_float):
            none = "none, made anew" if index else "none, the file as given"
            which = ", ".join(kept.layers) or none
            changed = ["-" if o.changed is None else as_share(o.changed) for o in kept.outputs]
            rows.append(
                [
                    f"{which}: {kept.note}" if kept.note else which,
                    str(len(kept.layers)),
                    "-" if kept.size is None else f"{kept.size:,}",
                    "-" if kept.size is None else f"{kept.size / self.size - 1:+.1%}",
                    " ".join(as_decibels(o.noise) for o in kept.outputs) or "-",
                    " ".join(changed) or "-",
                ]
            )
        return rows

    def __str__(self) -> str:
        lines = [
            f"{self.model}, {self.mode}, {self.examples:,} examples",
            table(self.headers(), self.rows(), right=4),
            "",
            table(self.kept_headers(), self.kept_rows()),
        ]
        if self.unaligned:
            lines += ["", "Without a counterpart in the other file:"]
            lines += [f"  {u.layer} ({u.operator}, {u.file}): {u.reason}" for u in self.unaligned]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Returns the record as JSON text."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> QuantizationError:
        """Returns the record that :meth:`to_json` wrote.

        Raises:
            ValueError: The text is no such record; a key that is unknown or missing is named.
        """
        fields = parse_json_object(text, "quantization error")
        check_keys(cls, fields)
        parts = {
            "layers": _records(LayerError, fields, "layers"),
            "kept_float": _records(FloatLayers, fields, "kept_float"),
            "unaligned": _records(Unaligned, fields, "unaligned"),
        }
        if not parts["kept_float"]:
            raise ValueError("kept_float must hold the file as it was given, got []")
        return cls(**{**fields, **parts})


def _records(record: type, fields: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    """The list of records under a key, with lists as tuples again."""
    values = fields.get(key, ())
    if not isinstance(values, list | tuple):
        raise ValueError(f"{key} must be a list, got {values!r}")
    found = []
    for value in values:
        check_keys(record, value)
        made = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        if "outputs" in made:
            made["outputs"] = _records(OutputError, made, "outputs")
        found.append(record(**made))
    return tuple(found)
