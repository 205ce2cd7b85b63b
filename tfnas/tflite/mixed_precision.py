"""Mixed precision: a weight format for each layer, under a budget for the file's size.

Layers differ by orders of magnitude in how much coarse weights hurt. For every layer and format
a `.tflite` file with only that layer's weights in that format is made and run:

    effect(layer, format) = divergence of the file's outputs from those of the float file,
    saving(layer, format) = bytes by which the file is smaller.

The search starts with the float file. Along the lower convex hull of each layer's formats it
takes the step with the smallest effect per saved byte, until the size is met. The bytes that are
then left over go back to the layers whose effect they reduce most. The search assumes that the
effects of single layers add up; the result has both the predicted sum and the measured divergence
of the final file.

References:
    Dong et al., "HAWQ-V2", NeurIPS 2020 (a format for each layer under a size constraint, by
    the sum of the layers' sensitivities). Everett 1963 (one price per byte is optimal on hulls).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.batchnorm import fitting_columns
from tfnas.graph.divergence import divergence
from tfnas.graph.functional_form import opened_model
from tfnas.graph.lower_hull import lower_hull
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.quantize_aware import quantizable_layers
from tfnas.quantization.spec import FLOAT, QuantSpec
from tfnas.table import table
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import to_tflite
from tfnas.tflite.quantizer_recipes import layers_of_file, with_weight_formats

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import CalibrationData

EXAMPLES = 128
_FORMATS = (FLOAT, "int8", "int4")
_MAX_BUILDS = 8


@dataclasses.dataclass(frozen=True)
class LayerFormats:
    """Size and effect of each weight format of one layer.

    Args:
        name: Name of the layer.
        kind: Class of the layer.
        weights: Number of weights.
        formats: Formats that were tried, the finest first.
        savings: Bytes saved by each format, relative to the first one.
        effects: Divergence of the outputs for each format of this layer alone (nats per example
            if the outputs are class scores, else the relative squared change).
        chosen: The chosen format.
    """

    name: str
    kind: str
    weights: int
    formats: tuple[str, ...]
    savings: tuple[int, ...]
    effects: tuple[float, ...]
    chosen: str


@dataclasses.dataclass(frozen=True)
class MixedPrecision:
    """Weight formats chosen under a size budget; `print` shows a table, most sensitive layer first.

    Args:
        budget: Allowed size of the file, in bytes.
        size: Size of the file, in bytes.
        predicted: Sum of the effects of the chosen formats.
        measured: Divergence of the file's outputs from those of the float file.
        layers: Measurements and choice for each layer.
        activations: Number format of activations.
        weight_only: See :class:`tfnas.QuantSpec`.
    """

    budget: int
    size: int
    predicted: float
    measured: float
    layers: tuple[LayerFormats, ...]
    activations: str = FLOAT
    weight_only: bool = False

    @property
    def spec(self) -> QuantSpec:
        """Returns the choice, for :func:`tfnas.to_tflite` and `quantize_aware`."""
        chosen = {layer.name: layer.chosen for layer in self.layers}
        return _spec(self.activations, self.weight_only, chosen)

    def headers(self) -> list[str]:
        """Returns the titles of the table's columns."""
        tried = dict.fromkeys(f for layer in self.layers for f in layer.formats if f != FLOAT)
        return ["layer", "type", "weights", *(f"effect of {f}" for f in tried), "chosen"]

    def rows(self) -> list[list[str]]:
        """Returns one row for each layer, the most sensitive first; see :meth:`headers`."""
        tried = [title.removeprefix("effect of ") for title in self.headers()[3:-1]]
        rows = []
        for layer in sorted(self.layers, key=lambda one: -max(one.effects)):
            effects = dict(zip(layer.formats, layer.effects, strict=True))
            shown = [f"{effects[f]:.2e}" if f in effects else "" for f in tried]
            rows.append([layer.name, layer.kind, f"{layer.weights:,}", *shown, layer.chosen])
        return rows

    def __str__(self) -> str:
        return (
            f"{table(self.headers(), self.rows())}\n{self.size:,} of {self.budget:,} bytes; "
            f"divergence from the float file: predicted {self.predicted:.2e}, measured "
            f"{self.measured:.2e}"
        )

    def to_json(self) -> str:
        """Returns the record as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> MixedPrecision:
        """Returns the record from the JSON text of :meth:`to_json`.

        Raises:
            ValueError: The text is not such a record; the message names unknown or missing keys.
        """
        from tfnas.search_space.json_records import check_keys, parse_json_object

        fields = parse_json_object(text, "mixed precision")
        check_keys(cls, fields)
        layers = []
        for layer in fields["layers"]:
            check_keys(LayerFormats, layer)
            lists = {k: tuple(v) for k, v in layer.items() if isinstance(v, list)}
            layers.append(LayerFormats(**{**layer, **lists}))
        return cls(**{**fields, "layers": tuple(layers)})


def mixed_precision(
    model: keras.Model,
    size: float,
    data: CalibrationData,
    *,
    activations: str = FLOAT,
    weight_only: bool = False,
    formats: Sequence[str] | None = None,
) -> tuple[Artifact, MixedPrecision]:
    """Chooses a weight format for each layer so that the file has at most a given size.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> layers = keras.layers.Dense(64), keras.layers.Dense(64)
        >>> model = keras.Sequential([keras.Input((64,)), *layers])
        >>> x = np.random.default_rng(0).normal(size=(64, 64))
        >>> file, result = tfnas.mixed_precision(model, 10_000, x)
        >>> file.size <= 10_000, sorted(layer.chosen for layer in result.layers)
        (True, ['int4', 'int8'])

    Args:
        model: A trained model, as for :func:`tfnas.to_tflite`.
        size: Maximum size of the file in bytes; below 1: a fraction of the float32 file's size.
        data: Inputs, as `calibration` of :func:`tfnas.to_tflite`: arrays of shape
            (examples, ...), or other data. 128 examples measure the effects, of arrays one
            of each equal part; 500 calibrate integer activations.
        activations: "float32" or "int8".
        weight_only: With float activations, whether weights are dequantized before use.
        formats: Formats to choose from. None: "float32", "int8" and "int4" with float
            activations, "int8" and "int4" with integer ones.

    Returns:
        The file, and the record of what was measured and chosen.

    Raises:
        ValueError: An argument is invalid, or even the coarsest formats exceed the size; the
            message has the size that they need.
        ConversionError: The model can't be converted.
    """
    candidates = _check_arguments(size, activations, weight_only, formats)
    if not is_tf_keras(model):
        model = opened_model(model, data)
    # The first error is of a model that can't be converted.
    float_file = to_tflite(model, "float32")
    columns = fitting_columns(model, data, EXAMPLES)
    if activations != FLOAT and is_tf_keras(model):
        raise ValueError(
            f"model must be a Keras 3 model for activations {activations!r}, got the tf_keras "
            f"model {model.name!r}"
        )
    if activations != FLOAT and fake_quants(model):
        raise ValueError(
            f"model must be a float one for activations {activations!r}, got {model.name!r}, whose "
            "weights were trained for their formats: tfnas.strip_quantization(model)"
        )
    budget = int(size * float_file.size) if size < 1 else int(size)
    x = columns[0] if len(columns) == 1 else columns
    search = _FormatSearch(model, float_file, x, activations, weight_only, data)
    return search.build(search.measure(candidates), budget)


def _check_arguments(
    size: float, activations: str, weight_only: bool, formats: Sequence[str] | None
) -> tuple[str, ...]:
    """Checks the arguments and returns the formats to choose from, the finest first."""
    real = isinstance(size, numbers.Real) and not isinstance(size, bool)
    if not real or not size > 0 or not math.isfinite(size):
        raise ValueError(f"size must be bytes, or a fraction in (0, 1), got {size!r}")
    if activations not in (FLOAT, "int8"):
        raise ValueError(f"activations must be 'float32' or 'int8', got {activations!r}")
    if weight_only and activations != FLOAT:
        raise ValueError(f"weight_only goes with float activations, got {activations!r}")
    if formats is None:
        return _FORMATS if activations == FLOAT else _FORMATS[1:]
    unknown = [f for f in formats if f not in _FORMATS]
    if unknown or len(set(formats)) < 2:
        raise ValueError(
            f"formats must be two or more of {', '.join(_FORMATS)}, got {list(formats)}"
        )
    return tuple(f for f in _FORMATS if f in formats)


def _quantizable_layers(model: keras.Model) -> set[str]:
    """Names of the layers whose kernels :func:`tfnas.quantize_aware` quantizes."""
    return {name.split("/")[-1] for name in quantizable_layers(model)}


def _spec(activations: str, weight_only: bool, layers: dict[str, str]) -> QuantSpec:
    return QuantSpec("int8", activations, layers=layers, weight_only=weight_only)


@dataclasses.dataclass(frozen=True, eq=False)
class _FormatSearch:
    """Model, float file, examples and settings of one search."""

    model: keras.Model
    float_file: Artifact
    x: Any
    activations: str
    weight_only: bool
    calibration: Any

    def measure(self, formats: tuple[str, ...]) -> list[LayerFormats]:
        """Makes and runs one file for each layer and format."""
        measured = []
        layers = layers_of_file(self.model, self.float_file)
        if self.activations != FLOAT:  # the others stay float, and a spec can't name them
            known = _quantizable_layers(self.model)
            layers = {name: layer for name, layer in layers.items() if name in known}
        for name, (kind, kernels) in layers.items():
            weights = sum(kernel.values.size for kernel in kernels)
            savings: list[int] = []
            effects: list[float] = []
            tried: list[str] = []
            for format_ in formats:
                file = self._quantize_layer(name, format_)
                if file is None or (savings and self.float_file.size - file.size <= savings[-1]):
                    continue  # the operator has no such kernel, or the file is not smaller
                savings.append(self.float_file.size - file.size)
                effects.append(divergence(self.expected, self._outputs(file)))
                tried.append(format_)
            if tried:
                layer = LayerFormats(
                    name,
                    kind,
                    weights,
                    formats=tuple(tried),
                    savings=tuple(saving - savings[0] for saving in savings),
                    effects=tuple(map(float, np.maximum.accumulate(effects))),
                    chosen=tried[0],
                )
                measured.append(layer)
        if not any(len(layer.formats) > 1 for layer in measured):
            raise ValueError(f"model must have a layer to quantize, got {self.model.name!r}")
        return measured

    def _quantize_layer(self, name: str, format_: str) -> Artifact | None:
        """The float file with one layer in another format; None if its operator stays float."""
        if format_ == FLOAT:
            return self.float_file
        spec = _spec(FLOAT, self.weight_only, {name: format_, "*": FLOAT})
        try:
            return self._quantize_weights(spec)
        except ValueError:
            return None

    def _quantize_weights(self, spec: QuantSpec) -> Artifact:
        return with_weight_formats(self.model, self.float_file, spec)

    @functools.cached_property
    def expected(self) -> list[np.ndarray]:
        """Outputs of the float file."""
        return self._outputs(self.float_file)

    def _outputs(self, file: Artifact) -> list[np.ndarray]:
        outputs = file.predict(self.x)
        return outputs if isinstance(outputs, list) else [outputs]

    def build(self, options: list[LayerFormats], budget: int) -> tuple[Artifact, MixedPrecision]:
        """Returns the file with the smallest effect within the budget, and its record."""
        file = start = self._file(options)
        missing = start.size - budget
        for _ in range(_MAX_BUILDS):
            if file.size <= budget:
                break
            options = _choose(options, missing, start.size, budget)
            file = self._file(options)
            missing += max(0, file.size - budget)  # sizes add up except for a few bytes
        if file.size > budget:
            raise ValueError(f"size must be at least about {file.size:,} bytes, got {budget:,}")
        predicted = sum(layer.effects[layer.formats.index(layer.chosen)] for layer in options)
        half_step = max(1e-12, *(tensor.scale / 2 for tensor in file.outputs))
        result = MixedPrecision(
            budget,
            file.size,
            predicted,
            measured=divergence(self.expected, self._outputs(file), half_step),
            layers=tuple(options),
            activations=self.activations,
            weight_only=self.weight_only,
        )
        origin = {**file.origin, "mode": file.mode, "size_budget": budget}
        return Artifact(file.content, file.mode, origin), result

    def _file(self, options: list[LayerFormats]) -> Artifact:
        chosen = {layer.name: layer.chosen for layer in options}
        if self.activations != FLOAT:
            return to_tflite(self.model, _spec(self.activations, False, chosen), self.calibration)
        if set(chosen.values()) == {FLOAT}:
            return self.float_file
        spec = _spec(FLOAT, self.weight_only, {**chosen, "*": FLOAT})
        file = self._quantize_weights(spec)
        return Artifact(file.content, spec.mode, file.origin)


def _choose(
    options: Sequence[LayerFormats], missing: int, start: int, budget: int
) -> list[LayerFormats]:
    """The formats with the smallest total effect that save `missing` bytes."""
    most = sum(layer.savings[-1] for layer in options)
    if most < missing:
        raise ValueError(
            f"size must be at least about {start - most:,} bytes, which the coarsest formats "
            f"need, got {budget:,}"
        )
    at = [0] * len(options)  # index of each layer's format
    saved = 0
    for _, number, format_ in sorted(_steps(options)):
        if saved >= missing:
            break
        layer = options[number]
        saved += layer.savings[format_] - layer.savings[at[number]]
        at[number] = format_
    while (finer := _best_refinement(options, at, saved - missing)) is not None:
        number, format_ = finer
        saved -= options[number].savings[at[number]] - options[number].savings[format_]
        at[number] = format_
    return [
        dataclasses.replace(layer, chosen=layer.formats[format_])
        for layer, format_ in zip(options, at, strict=True)
    ]


def _steps(options: Sequence[LayerFormats]) -> list[tuple[float, int, int]]:
    """(effect per saved byte, layer, format after the step) along each layer's hull."""
    steps = []
    for number, layer in enumerate(options):
        hull = lower_hull(layer.savings, layer.effects)
        for (left, low), (right, high) in itertools.pairwise(hull):
            price = (high - low) / (right - left)
            steps.append((price, number, layer.savings.index(int(right))))
    return steps


def _best_refinement(
    options: Sequence[LayerFormats], at: Sequence[int], spare: int
) -> tuple[int, int] | None:
    """The (layer, finer format) within the spare bytes that reduces the effect most."""
    best, gain = None, 0.0
    for number, layer in enumerate(options):
        for format_ in range(at[number]):
            cost = layer.savings[at[number]] - layer.savings[format_]
            reduction = layer.effects[at[number]] - layer.effects[format_]
            if cost <= spare and reduction > gain:
                best, gain = (number, format_), reduction
    return best
