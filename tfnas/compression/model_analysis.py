"""A short look at a model before anything is tried: what costs, and what it bears.

Counted: multiply-accumulates and weights a layer. Measured, each for seconds at most: the time
of every operator alone, the noise that int8 adds layer by layer, and how many answers change
where one kernel alone loses three quarters of its weights. What would take longer is left out,
and why is told. Answers are compared with the model's own, so no label is needed, and the
images are those to choose by.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import numpy as np

from tfnas.data.datasets import spread
from tfnas.graph.functional import walk
from tfnas.measure.latency_model.layer_times import layer_times
from tfnas.measure.profile import Profile, profile
from tfnas.measure.quantization_debugger.error_report import QuantizationError
from tfnas.measure.quantization_debugger.quantization_error import quantization_error
from tfnas.pruning.prunable_kernels import find_kernels
from tfnas.pruning.sensitivity import sensitivity
from tfnas.search_space.architecture import check_keys, parse_json_object
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError

SECONDS = 8.0  # that the pruning of kernels, one at a time, may take
PRUNED = 0.75  # of one kernel's weights
IMAGES, FEWEST = 256, 64  # whose answers are compared
NOISE_IMAGES, NOISE_FEWEST = 128, 16
NOISE_MACS = 4e9  # that both files compute operator by operator, a few seconds
TIMED_MACS = 1e9  # of a network whose operators are timed
DENSE = "dense layers"


@dataclasses.dataclass(frozen=True)
class LayerAnalysis:
    """What was seen of a layer.

    Args:
        name: Its name.
        group: What it is among, such as "3x3 convolutions".
        macs: Multiply-accumulates for one example.
        weights: Number of weights.
        time: Share of the file's time; None where it was not measured alone.
        noise: Noise that int8 adds in it, as a share of what the layer gives; None: not known.
        changed: Share of the images whose class changes where it alone is pruned; None: not
            tried.
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
    """What was seen of a model.

    Args:
        layers: Those with weights, multiply-accumulates or time of their own, in their order.
        activations: Most activation elements alive at once.
        changed: Share of the images whose class int8 changes; None: not known.
        images: Number of those images.
        pruned: Whether pruning was looked at, or tried to.
        left_out: What was not looked at, and why.
        seconds: How long it took.
    """

    layers: tuple[LayerAnalysis, ...]
    activations: int
    changed: float | None = None
    images: int = 0
    pruned: bool = False
    left_out: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def weights(self) -> int:
        """Weights in its layers."""
        return sum(layer.weights for layer in self.layers)

    def share(self, what: str, group: str) -> float:
        """Returns the share of a group's layers of all "macs", "weights" or "time".

        Args:
            what: Which cost.
            group: The group.
        """
        costs = [(layer.group, getattr(layer, what) or 0) for layer in self.layers]
        # Of the time a rest is not known by layer; of the others these are all.
        whole = 1.0 if what == "time" else sum(cost for _, cost in costs) or 1
        return sum(cost for own, cost in costs if own == group) / whole

    def groups(self, what: str) -> dict[str, float]:
        """Returns each group's share of a cost, the largest first."""
        names = dict.fromkeys(layer.group for layer in self.layers)
        shares = {name: self.share(what, name) for name in names}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def to_json(self) -> str:
        """Returns the record as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> ModelAnalysis:
        """Returns the record that :meth:`to_json` wrote.

        Raises:
            ValueError: The text is no such record; a key that is unknown or missing is named.
        """
        fields = parse_json_object(text, "survey")
        check_keys(cls, fields)
        layers = []
        for layer in fields["layers"]:
            check_keys(LayerAnalysis, layer)
            layers.append(LayerAnalysis(**layer))
        lists = {"layers": tuple(layers), "left_out": tuple(fields.get("left_out", ()))}
        return cls(**{**fields, **lists})


def analyze_model(model: Any, int8: Artifact | None, x: np.ndarray, pruning: bool) -> ModelAnalysis:
    """Looks at a model for some seconds.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(),
        ...     keras.layers.Dense(3, name="d")])
        >>> found = survey(model, None, np.zeros((8, 4, 4, 1), "uint8"), pruning=False)
        >>> [(layer.name, layer.group, layer.macs) for layer in found.layers]
        [('d', 'dense layers', 48)]

    Args:
        model: A built functional or Sequential Keras classifier; it stays as it is.
        int8: Its file after training; None where there is none.
        x: Images to look with, pixels 0 to 255.
        pruning: Whether kernels are pruned for a look.
    """
    began = time.monotonic()
    cost = profile(model)
    left: list[str] = []
    layers = _layers(model, cost)
    times = _times(model, int8, cost, left)
    errors = _noise(model, int8, x, cost, left)
    changed = _pruned(model, x, left) if pruning else {}
    noise = {} if errors is None else noise_of(errors)
    told = None if errors is None else errors.outputs[0].changed
    looked = [
        dataclasses.replace(
            layer,
            time=named(times, layer.name),
            noise=named(noise, layer.name),
            changed=named(changed, layer.name),
        )
        for layer in layers
    ]
    return ModelAnalysis(
        tuple(look for look in looked if look.weights or look.macs or look.time),
        cost.peak_activations,
        told,
        0 if errors is None else errors.examples,
        pruning,
        tuple(left),
        round(time.monotonic() - began, 2),
    )


def noise_of(errors: QuantizationError) -> dict[str, float]:
    """Returns the noise that each layer adds, all its operators together."""
    found: dict[str, float] = {}
    for entry in errors.layers:
        found[entry.layer] = found.get(entry.layer, 0.0) + entry.added
    return found


def file_errors(
    model: Any, file: Artifact, x: np.ndarray, macs: int
) -> tuple[QuantizationError | None, str]:
    """Measures what quantization adds layer by layer, if that takes seconds.

    Args:
        model: The Keras model behind the file.
        file: The quantized file.
        x: Images.
        macs: Multiply-accumulates of the model.

    Returns:
        The errors, or None and the reason.
    """
    images = min(NOISE_IMAGES, len(x), int(NOISE_MACS / max(1, macs)))
    if images < min(NOISE_FEWEST, len(x)):
        return None, f"{macs:,} multiply-accumulates, operator by operator, take too long"
    try:
        typical = spread(x, images)
        return quantization_error(model, file, typical, keep_float=(), calibration=typical), ""
    except (ConversionError, ValueError, RuntimeError) as error:
        return None, _line(error)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def named(found: dict[str, float], name: str) -> float | None:
    """A layer's entry: some records know it by its path, others by its own name."""
    return found.get(name, found.get(name.rsplit("/", 1)[-1]))


def _layers(model: Any, cost: Profile) -> list[LayerAnalysis]:
    """The calls that cost something; of a layer called twice the costs add up."""
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
    """What people call such layers."""
    size = getattr(layer, "kernel_size", None)
    window = "x".join(map(str, size)) if isinstance(size, tuple) else ""
    if "Conv" in kind and window:
        depthwise = "depthwise " if kind.startswith(("Depthwise", "Separable")) else ""
        return f"{window} {depthwise}convolutions"
    return DENSE if kind in ("Dense", "EinsumDense") else kind


def _times(model: Any, int8: Artifact | None, cost: Profile, left: list[str]) -> dict[str, float]:
    if int8 is None:
        left.append("time a layer: there is no int8 file")
        return {}
    if cost.macs > TIMED_MACS:
        left.append(f"time a layer: {cost.macs:,} multiply-accumulates take too long")
        return {}
    try:
        return layer_times(model, int8)
    except (ValueError, RuntimeError) as error:  # a look must not end the job
        left.append(f"time a layer: {_line(error)}")
        return {}


def _noise(
    model: Any, int8: Artifact | None, x: np.ndarray, cost: Profile, left: list[str]
) -> QuantizationError | None:
    if int8 is None:
        left.append("int8 error a layer: there is no int8 file")
        return None
    errors, why = file_errors(model, int8, x, cost.macs)
    if errors is None:
        left.append(f"int8 error a layer: {why}")
    return errors


def _pruned(model: Any, x: np.ndarray, left: list[str]) -> dict[str, float]:
    """Share of the images whose class changes where one kernel alone is pruned."""
    images = spread(x, IMAGES).astype(np.float32)
    classes = _classes(model, images)  # the first call is slower
    began = time.monotonic()
    _classes(model, images)
    seconds = max(time.monotonic() - began, 1e-4)
    kernels = sorted(find_kernels(model)[0], key=lambda kernel: -kernel.size)
    affordable = SECONDS / seconds - 1
    if affordable < len(kernels):
        count = min(len(images), max(FEWEST, int(len(images) * affordable / len(kernels))))
        affordable *= len(images) / count
        images, classes = images[:count], classes[:count]
    if int(affordable) < min(3, len(kernels)):
        left.append(f"pruning a layer: {len(images)} images take {seconds:.1f} s a kernel")
        return {}
    chosen = [kernel.name for kernel in kernels[: int(affordable)]]
    if len(chosen) < len(kernels):
        left.append(f"pruning of the {len(kernels) - len(chosen)} smallest kernels: no time")
    if not chosen:
        return {}

    def same(pruned: Any) -> float:
        return float((_classes(pruned, images) == classes).mean())

    try:
        found = sensitivity(model, same, [PRUNED], layers=chosen)
    except ValueError as error:  # a look must not end the job
        left.append(f"pruning a layer: {_line(error)}")
        return {}
    return dict(zip(found.names, map(float, found.losses()[:, -1]), strict=True))


def _classes(model: Any, images: np.ndarray) -> np.ndarray:
    answers = np.asarray(model(images, training=False))
    return answers[:, 0] > 0.5 if answers.shape[-1] == 1 else answers.argmax(-1)
