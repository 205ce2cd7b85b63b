"""Analyzes a model before compression: costs and sensitivity of each layer, in some seconds.

Multiply-accumulates and weights of each layer are counted. Three things are measured, each for
seconds at most: the latency of every operator alone, the noise that int8 adds in each layer, and
how many predictions change where one kernel alone loses three quarters of its weights.
Measurements that would take longer are left out, with the reason. Predictions are compared with the
model's own, so no labels are needed.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import keras
import numpy as np

from tfnas.data.examples import Examples, Nested, mapped
from tfnas.data.reading import spread
from tfnas.graph.functional import walk
from tfnas.measure.latency_model.layer_times import layer_times
from tfnas.measure.profile import Profile, profile
from tfnas.measure.quantization_debugger.error_report import QuantizationError
from tfnas.measure.quantization_debugger.quantization_error import quantization_error
from tfnas.pruning.prunable_kernels import find_kernels
from tfnas.pruning.sensitivity import sensitivity
from tfnas.search_space.json_records import check_keys, check_types, parse_json_object
from tfnas.tasks.task import Task
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError

SECONDS = 8.0  # limit of the time to prune kernels, one at a time
PRUNED = 0.75  # fraction of the weights of one kernel
EXAMPLES, FEWEST = 256, 64  # most and fewest whose predictions are compared
NOISE_EXAMPLES, NOISE_FEWEST = 128, 16
NOISE_MACS = 4e9  # most MACs of the examples together; both files run operator by operator
TIMED_MACS = 1e9  # most MACs of a model whose operators are timed
DENSE = "dense layers"


@dataclasses.dataclass(frozen=True)
class LayerAnalysis:
    """Costs and sensitivity of a layer.

    Args:
        name: Name of the layer.
        group: Its kind, such as "3x3 convolutions".
        macs: Multiply-accumulates for one example.
        weights: Number of weights.
        time: Fraction of the int8 file's latency; None: not measured.
        noise: Noise that int8 adds in the layer, as a fraction of its output; None: not measured.
        changed: Fraction of the predictions that change where this layer alone is pruned, by
            :meth:`tfnas.tasks.task.Task.changed`; None: not measured.
    """

    name: str
    group: str
    macs: int
    weights: int
    time: float | None = None
    noise: float | None = None
    changed: float | None = None


@dataclasses.dataclass(frozen=True)
class ModelAnalysis:
    """Costs and sensitivity of a model.

    Args:
        layers: Layers with weights, multiply-accumulates or latency, in their order.
        activations: Most activation elements alive at once.
        changed: Fraction of the predictions that int8 changes, by
            :meth:`tfnas.tasks.task.Task.changed`; None: not measured.
        examples: Number of examples whose predictions were compared.
        pruned: Whether the sensitivity to pruning was to be measured.
        left_out: What was not measured, and why.
        seconds: Duration of the analysis, in seconds.
    """

    layers: tuple[LayerAnalysis, ...]
    activations: int
    changed: float | None = None
    examples: int = 0
    pruned: bool = False
    left_out: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def weights(self) -> int:
        """Number of weights of all layers."""
        return sum(layer.weights for layer in self.layers)

    def fraction(self, cost: str, group: str) -> float:
        """Returns the fraction of a cost that a group of layers takes.

        Args:
            cost: "macs", "weights" or "time".
            group: The group.
        """
        values = [(layer.group, getattr(layer, cost) or 0) for layer in self.layers]
        # Times are fractions already, and do not add up to 1: some operators are of no layer.
        total = 1.0 if cost == "time" else sum(value for _, value in values) or 1
        return sum(value for own, value in values if own == group) / total

    def groups(self, cost: str) -> dict[str, float]:
        """Returns the fraction of a cost that each group of layers takes, the largest first.

        Args:
            cost: "macs", "weights" or "time".
        """
        names = dict.fromkeys(layer.group for layer in self.layers)
        fractions = {name: self.fraction(cost, name) for name in names}
        return dict(sorted(fractions.items(), key=lambda item: -item[1]))

    def to_json(self) -> str:
        """Returns the record as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> ModelAnalysis:
        """Returns the record that :meth:`to_json` wrote.

        Raises:
            ValueError: The text is no such record; a key that is unknown or missing is named.
        """
        fields = parse_json_object(text, "model analysis")
        check_keys(cls, fields)
        check_types(cls, fields)
        layers = []
        for layer in fields["layers"]:
            check_keys(LayerAnalysis, layer)
            check_types(LayerAnalysis, layer)
            layers.append(LayerAnalysis(**layer))
        lists = {"layers": tuple(layers), "left_out": tuple(fields.get("left_out", ()))}
        return cls(**{**fields, **lists})


def analyze_model(
    model: keras.Model, int8: Artifact | None, x: Nested, task: Task, pruning: bool
) -> ModelAnalysis:
    """Analyzes the costs and the sensitivity of a model's layers in some seconds.

    Example:
        >>> from tfnas.tasks.image_classes import ImageClasses
        >>> model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(),
        ...     keras.layers.Dense(3, name="d")])
        >>> x = np.zeros((8, 4, 4, 1), "uint8")
        >>> found = analyze_model(model, None, x, ImageClasses(), pruning=False)
        >>> [(layer.name, layer.group, layer.macs) for layer in found.layers]
        [('d', 'dense layers', 48)]

    Args:
        model: A built functional or Sequential Keras model; it is not changed.
        int8: Its post-training int8 file; None where there is none.
        x: Typical inputs, examples first.
        task: What it is for.
        pruning: Whether the sensitivity to pruning is measured.
    """
    began = time.monotonic()
    cost = profile(model)
    left_out: list[str] = []
    if cost.uncounted:
        left_out.append(f"multiply-accumulates of {', '.join(cost.uncounted)}: can't be counted")
    layers = _layers(model, cost)
    times = _times(model, int8, cost, left_out)
    errors = _noise(model, int8, x, cost, left_out)
    by_int8, examples = _changed_by_int8(model, int8, x, task, errors, left_out)
    changed = _sensitivity(model, x, task, left_out) if pruning else {}
    noise = {} if errors is None else noise_of(errors)
    analyzed = [
        dataclasses.replace(
            layer,
            time=named(times, layer.name),
            noise=named(noise, layer.name),
            changed=named(changed, layer.name),
        )
        for layer in layers
    ]
    return ModelAnalysis(
        tuple(layer for layer in analyzed if layer.weights or layer.macs or layer.time),
        cost.peak_activations,
        by_int8,
        examples,
        pruning,
        tuple(left_out),
        round(time.monotonic() - began, 2),
    )


def noise_of(errors: QuantizationError) -> dict[str, float]:
    """Returns the noise that each layer adds, summed over its operators.

    Args:
        errors: Errors by operator.
    """
    found: dict[str, float] = {}
    for error in errors.layers:
        found[error.layer] = found.get(error.layer, 0.0) + error.added
    return found


def file_errors(
    model: keras.Model, file: Artifact, x: Nested, macs: int
) -> tuple[QuantizationError | None, str]:
    """Measures the quantization error of each layer, if that takes seconds only.

    Args:
        model: The Keras model behind the file.
        file: The quantized file.
        x: Typical inputs, examples first.
        macs: Multiply-accumulates of the model.

    Returns:
        The errors, or None and the reason.
    """
    available = len(Examples(x, ()))
    count = min(NOISE_EXAMPLES, available, int(NOISE_MACS / max(1, macs)))
    if count < min(NOISE_FEWEST, available):
        return None, f"{macs:,} multiply-accumulates, operator by operator, would take too long"
    try:
        examples = spread(x, count)
        return quantization_error(model, file, examples, keep_float=(), calibration=examples), ""
    except (ConversionError, ValueError, RuntimeError) as error:
        return None, _line(error)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def named(values: dict[str, float], name: str) -> float | None:
    """Returns a layer's value: some records name it by its path, others by its own name.

    Args:
        values: Layer -> value.
        name: Path of the layer.
    """
    return values.get(name, values.get(name.rsplit("/", 1)[-1]))


def _layers(model: Any, cost: Profile) -> list[LayerAnalysis]:
    """Returns a record a layer; the costs of a layer that is called twice add up."""
    found: dict[str, LayerAnalysis] = {}
    calls = {call.name: call for call in walk(model).calls}
    for layer in cost.layers:
        if layer.kind == "BatchNormalization":
            continue  # folded into the layer before
        before = found.get(layer.name)
        macs = (layer.macs or 0) + (before.macs if before else 0)
        weights = layer.parameters + (before.weights if before else 0)
        group = _group(layer.kind, getattr(calls[layer.name], "operation", None))
        found[layer.name] = LayerAnalysis(layer.name, group, macs, weights)
    return list(found.values())


def _group(kind: str, layer: Any) -> str:
    """Returns a name for the kind of a layer."""
    size = getattr(layer, "kernel_size", None)
    window = "x".join(map(str, size)) if isinstance(size, tuple) else ""
    if "Conv" in kind and window:
        depthwise = "depthwise " if kind.startswith(("Depthwise", "Separable")) else ""
        return f"{window} {depthwise}convolutions"
    return DENSE if kind in ("Dense", "EinsumDense") else kind


def _times(
    model: Any, int8: Artifact | None, cost: Profile, left_out: list[str]
) -> dict[str, float]:
    if int8 is None:
        left_out.append("time a layer: there is no int8 file")
        return {}
    if cost.macs > TIMED_MACS:
        left_out.append(f"time a layer: {cost.macs:,} multiply-accumulates would take too long")
        return {}
    try:
        return layer_times(model, int8)
    except (ValueError, RuntimeError) as error:  # the analysis must not end the job
        left_out.append(f"time a layer: {_line(error)}")
        return {}


def _noise(
    model: Any, int8: Artifact | None, x: Nested, cost: Profile, left_out: list[str]
) -> QuantizationError | None:
    if int8 is None:
        left_out.append("int8 error a layer: there is no int8 file")
        return None
    errors, why = file_errors(model, int8, x, cost.macs)
    if errors is None:
        left_out.append(f"int8 error a layer: {why}")
    return errors


def _changed_by_int8(
    model: keras.Model,
    int8: Artifact | None,
    x: Nested,
    task: Task,
    errors: QuantizationError | None,
    left_out: list[str],
) -> tuple[float | None, int]:
    """Returns the fraction of predictions that int8 changes, and of how many examples.

    It is measured on the examples of the errors, where these were.
    """
    if int8 is None or errors is None:
        return None, 0
    examples = Examples(x, ()).spread(errors.examples).x
    before = _outputs(model, _floats(examples))
    try:
        changed = task.changed(before, int8.predict(examples))
    except (ValueError, RuntimeError) as error:  # the analysis must not end the job
        left_out.append(f"predictions that int8 changes: {_line(error)}")
        return None, 0
    return float(np.mean(changed)), errors.examples


def _sensitivity(model: Any, x: Nested, task: Task, left_out: list[str]) -> dict[str, float]:
    """Returns the fraction of predictions that change where one kernel alone is pruned."""
    inputs = _floats(Examples(x, ()).spread(EXAMPLES).x)
    count = len(Examples(inputs, ()))
    outputs = _outputs(model, inputs)  # a first call is slower: not timed
    began = time.monotonic()
    _outputs(model, inputs)
    seconds = max(time.monotonic() - began, 1e-4)
    kernels = sorted(find_kernels(model)[0], key=lambda kernel: -kernel.size)
    affordable = SECONDS / seconds - 1
    if affordable < len(kernels):
        fewer = min(count, max(FEWEST, int(count * affordable / len(kernels))))
        affordable *= count / fewer
        inputs, count = Examples(inputs, ()).rows(slice(fewer)).x, fewer
        outputs = mapped(lambda array: array[:fewer], outputs)
    if int(affordable) < min(3, len(kernels)):
        left_out.append(f"pruning a layer: {count} examples take {seconds:.1f} s a kernel")
        return {}
    chosen = [kernel.name for kernel in kernels[: int(affordable)]]
    if len(chosen) < len(kernels):
        left_out.append(
            f"pruning of the {len(kernels) - len(chosen)} smallest kernels: not enough time"
        )
    if not chosen:
        return {}

    def agreement(pruned: Any) -> float:
        return 1 - float(task.changed(outputs, _outputs(pruned, inputs)).mean())

    try:
        found = sensitivity(model, agreement, [PRUNED], layers=chosen)
    except ValueError as error:  # the analysis must not end the job
        left_out.append(f"pruning a layer: {_line(error)}")
        return {}
    return dict(zip(found.names, map(float, found.losses()[:, -1]), strict=True))


def _floats(inputs: Nested) -> Nested:
    return mapped(lambda array: np.asarray(array, np.float32), inputs)


def _outputs(model: Any, inputs: Nested) -> Nested:
    """Returns a model's outputs in the form of a file's: an array, or a list of several."""
    outputs = [np.asarray(each) for each in keras.tree.flatten(model(inputs, training=False))]
    return outputs[0] if len(outputs) == 1 else outputs
