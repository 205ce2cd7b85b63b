"""A number format for each layer's weights, so that a file fits into a given size.

Layers differ by orders of magnitude in what coarse weights cost. For every layer and format
a `.tflite` file with that one layer's weights in that format is made and run:

    effect(layer, format) = divergence of the file's outputs from the float file's,
    saving(layer, format) = bytes by which the file is smaller.

From the float file on, the step of least effect a byte saved is taken next, along the lower
convex hull of each layer's formats, until the size is met; then what is left over is
given back to the layers that gain most by it. That effects of single layers add up is an
assumption: the record tells what the whole file was measured to cost.

References:
    Dong et al., "HAWQ-V2", NeurIPS 2020 (a format a layer under a size constraint, by the
    sum of each layer's sensitivity). Everett 1963 (one price a byte is optimal on hulls).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.graph.batchnorm import fitting_columns
from tfnas.graph.divergence import divergence
from tfnas.graph.functional import walk
from tfnas.graph.lower_hull import lower_hull
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.quantization.layer_roles import Role, role
from tfnas.quantization.normal_form import normal_form
from tfnas.quantization.quantize_aware import fake_quants
from tfnas.quantization.spec import FLOAT, QuantSpec
from tfnas.table import table
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import to_tflite
from tfnas.tflite.quantizer_recipes import apply_recipe, layers_of_file, weights_recipe

EXAMPLES = 128
_FORMATS = (FLOAT, "int8", "int4")
_BUILDS = 8


@dataclasses.dataclass(frozen=True)
class LayerFormats:
    """What each format of one layer's weights costs.

    Args:
        name: The layer.
        kind: Its class.
        weights: Number of weights.
        formats: Formats that were tried, the finest first.
        savings: Bytes that each saves, against the first.
        effects: Divergence of the outputs that each brings alone (nats an example where
            the outputs are class scores, else relative squared change).
        chosen: The format chosen.
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
    """Formats chosen under a size budget. Prints as a table, the most sensitive layer first.

    Args:
        budget: Bytes allowed.
        size: Bytes of the file.
        predicted: Sum of the chosen effects.
        measured: Divergence of the file's outputs from the float file's.
        layers: What was measured and chosen.
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
        """The choice as a specification, for :func:`tfnas.quantize_aware` too."""
        chosen = {layer.name: layer.chosen for layer in self.layers}
        return _spec(self.activations, self.weight_only, chosen)

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        tried = dict.fromkeys(f for layer in self.layers for f in layer.formats if f != FLOAT)
        return ["layer", "type", "weights", *(f"effect of {f}" for f in tried), "chosen"]

    def rows(self) -> list[list[str]]:
        """Returns a row a layer, the most sensitive first; see :meth:`headers`."""
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
        """Returns the record that :meth:`to_json` wrote.

        Raises:
            ValueError: The text is no such record; a key that is unknown or missing is named.
        """
        from tfnas.search_space.architecture import check_keys, parse_json_object

        fields = parse_json_object(text, "mixed precision")
        check_keys(cls, fields)
        layers = []
        for entry in fields["layers"]:
            check_keys(LayerFormats, entry)
            lists = {k: tuple(v) for k, v in entry.items() if isinstance(v, list)}
            layers.append(LayerFormats(**{**entry, **lists}))
        return cls(**{**fields, "layers": tuple(layers)})


def mixed_precision(
    model: Any,
    size: float,
    data: Any,
    *,
    activations: str = FLOAT,
    weight_only: bool = False,
    formats: Sequence[str] | None = None,
) -> tuple[Artifact, MixedPrecision]:
    """Makes a file of at most a given size, each layer's weights as fine as that allows.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> layers = keras.layers.Dense(64), keras.layers.Dense(64)
        >>> model = keras.Sequential([keras.Input((64,)), *layers])
        >>> x = np.random.default_rng(0).normal(size=(64, 64))
        >>> file, found = tfnas.mixed_precision(model, 10_000, x)
        >>> file.size <= 10_000, sorted(layer.chosen for layer in found.layers)
        (True, ['int4', 'int8'])

    Args:
        model: A trained model, as for :func:`tfnas.to_tflite`.
        size: Bytes that the file may have; below 1: a share of the float32 file's.
        data: Unlabeled inputs; 128 examples from all over them are used (and 500 to
            calibrate integer activations).
        activations: "float32" or "int8".
        weight_only: With float activations, whether weights are unpacked to floats.
        formats: Formats to choose from. None: "float32", "int8" and "int4" with float
            activations, "int8" and "int4" with integer ones.

    Returns:
        The file, and what was measured and chosen.

    Raises:
        ValueError: An argument is outside its rule, or not even the coarsest formats meet
            the size; the message tells what they need.
        ConversionError: The model can't be converted.
    """
    chosen_from = _checked(size, activations, weight_only, formats)
    plain = to_tflite(model)  # tells first what no model can be converted
    columns = fitting_columns(model, data, EXAMPLES)
    if activations != FLOAT and is_tf_keras(model):
        raise ValueError(
            f"model must be a Keras 3 model for activations {activations!r}, got tf_keras' "
            f"{model.name!r}"
        )
    if activations != FLOAT and fake_quants(model):
        raise ValueError(
            f"model must be a float one for activations {activations!r}, got {model.name!r}, whose "
            "weights were trained for their formats: tfnas.strip_quantization(model)"
        )
    budget = int(size * plain.size) if size < 1 else int(size)
    asked = _Asked(model, plain, _packed(model, columns), activations, weight_only, data)
    options = asked.measure(chosen_from)
    return asked.build(options, budget)


def _checked(
    size: float, activations: str, weight_only: bool, formats: Sequence[str] | None
) -> tuple[str, ...]:
    """Returns the formats to choose from, the finest first."""
    real = isinstance(size, numbers.Real) and not isinstance(size, bool)
    if not real or not size > 0 or not math.isfinite(size):
        raise ValueError(f"size must be bytes, or a share in (0, 1), got {size!r}")
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


def _with_rounded_kernel(model: Any) -> set[str]:
    """The layers whose kernels :func:`tfnas.quantize_aware` rounds."""
    plain, origins = normal_form(model)
    own = [call.name for call in walk(plain).calls if role(call) is Role.KERNEL]
    return {name.split("/")[-1] for name in (*own, *(path for path, _ in origins.values()))}


def _packed(model: Any, columns: list[np.ndarray]) -> Any:
    return columns[0] if len(columns) == 1 else columns


def _spec(activations: str, weight_only: bool, layers: dict[str, str]) -> QuantSpec:
    return QuantSpec("int8", activations, layers=layers, weight_only=weight_only)


@dataclasses.dataclass(frozen=True, eq=False)
class _Asked:
    """A call's model, its float file, examples and settings."""

    model: Any
    plain: Artifact
    x: Any
    activations: str
    weight_only: bool
    calibration: Any

    def measure(self, formats: tuple[str, ...]) -> list[LayerFormats]:
        """One file a layer and format."""
        found = []
        layers = layers_of_file(self.model, self.plain)
        if self.activations != FLOAT:  # others stay float there, and have no name
            known = _with_rounded_kernel(self.model)
            layers = {name: layer for name, layer in layers.items() if name in known}
        for name, (kind, kernels) in layers.items():
            weights = sum(kernel.values.size for kernel in kernels)
            savings: list[int] = []
            effects: list[float] = []
            tried: list[str] = []
            for wanted in formats:
                file = self.plain if wanted == FLOAT else self._alone(name, wanted)
                if file is None or (savings and self.plain.size - file.size <= savings[-1]):
                    continue  # the operator has no such kernel, or nothing is gained
                savings.append(self.plain.size - file.size)
                effects.append(divergence(self.expected, self._outputs(file)))
                tried.append(wanted)
            if tried:
                least = [saving - savings[0] for saving in savings]
                rising = np.maximum.accumulate(effects)
                found.append(
                    LayerFormats(
                        *(name, kind, weights, tuple(tried), tuple(least)),
                        *(tuple(map(float, rising)), tried[0]),
                    )
                )
        if not any(len(layer.formats) > 1 for layer in found):
            raise ValueError(f"model must have a layer to quantize, got {self.model.name!r}")
        return found

    def _alone(self, name: str, wanted: str) -> Artifact | None:
        spec = _spec(FLOAT, self.weight_only, {name: wanted, "*": FLOAT})
        try:
            return apply_recipe(self.plain, weights_recipe(self.model, self.plain, spec))
        except ValueError:  # an operator whose weights stay floats
            return None

    @functools.cached_property
    def expected(self) -> list[np.ndarray]:
        """What the float file gives."""
        return self._outputs(self.plain)

    def _outputs(self, file: Artifact) -> list[np.ndarray]:
        given = file.predict(self.x)
        return given if isinstance(given, list) else [given]

    def build(self, options: list[LayerFormats], budget: int) -> tuple[Artifact, MixedPrecision]:
        """The file of least effect within the budget."""
        file = start = self._file(options)
        missing = start.size - budget
        for _ in range(_BUILDS):
            if file.size <= budget:
                break
            options = _choose(options, missing, start.size, budget)
            file = self._file(options)
            missing += max(0, file.size - budget)  # sizes add up but for a few bytes
        if file.size > budget:
            raise ValueError(f"size must be at least about {file.size:,} bytes, got {budget:,}")
        predicted = sum(layer.effects[layer.formats.index(layer.chosen)] for layer in options)
        half = max(1e-12, *(tensor.scale / 2 for tensor in file.outputs))
        measured = divergence(self.expected, self._outputs(file), half)
        found = MixedPrecision(
            *(budget, file.size, predicted, measured, tuple(options)),
            *(self.activations, self.weight_only),
        )
        mixed = {"mode": file.mode, "size_budget": budget}
        return Artifact(file.content, file.mode, {**file.origin, **mixed}), found

    def _file(self, options: list[LayerFormats]) -> Artifact:
        chosen = {layer.name: layer.chosen for layer in options}
        if self.activations != FLOAT:
            return to_tflite(self.model, _spec(self.activations, False, chosen), self.calibration)
        if set(chosen.values()) == {FLOAT}:
            return self.plain
        spec = _spec(FLOAT, self.weight_only, {**chosen, "*": FLOAT})
        file = apply_recipe(self.plain, weights_recipe(self.model, self.plain, spec))
        return Artifact(file.content, spec.mode, file.origin)


def _choose(
    options: Sequence[LayerFormats], missing: int, start: int, budget: int
) -> list[LayerFormats]:
    """The formats of least total effect that save `missing` bytes."""
    most = sum(layer.savings[-1] for layer in options)
    if most < missing:
        raise ValueError(
            f"size must be at least about {start - most:,} bytes, what the coarsest formats "
            f"need, got {budget:,}"
        )
    at = [0] * len(options)
    saved = 0
    for _, number, format_ in sorted(_steps(options)):
        if saved >= missing:
            break
        layer = options[number]
        saved += layer.savings[format_] - layer.savings[at[number]]
        at[number] = format_
    while (finer := _best_return(options, at, saved - missing)) is not None:
        number, format_ = finer
        saved -= options[number].savings[at[number]] - options[number].savings[format_]
        at[number] = format_
    return [
        dataclasses.replace(layer, chosen=layer.formats[format_])
        for layer, format_ in zip(options, at, strict=True)
    ]


def _steps(options: Sequence[LayerFormats]) -> list[tuple[float, int, int]]:
    """(effect a byte saved, layer, format that the step leads to) along each layer's hull."""
    steps = []
    for number, layer in enumerate(options):
        hull = lower_hull(layer.savings, layer.effects)
        for (left, low), (right, high) in itertools.pairwise(hull):
            price = (high - low) / (right - left)
            steps.append((price, number, layer.savings.index(int(right))))
    return steps


def _best_return(
    options: Sequence[LayerFormats], at: Sequence[int], spare: int
) -> tuple[int, int] | None:
    """The (layer, finer format) within the spare bytes that takes most effect back."""
    best, gain = None, 0.0
    for number, layer in enumerate(options):
        for format_ in range(at[number]):
            bytes_back = layer.savings[at[number]] - layer.savings[format_]
            effect_back = layer.effects[at[number]] - layer.effects[format_]
            if bytes_back <= spare and effect_back > gain:
                best, gain = (number, format_), effect_back
    return best
