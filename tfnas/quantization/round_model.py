"""Rounding of a whole model without training: each kernel is fitted to the float model's output.

Both networks are traversed front to back (:func:`tfnas.graph.traversal.visit`). At each kernel the
inputs x' in the quantized network, with all earlier kernels rounded and all activations on their
grids, and the inputs x in the float network give the problem of
:mod:`tfnas.quantization.second_order_rounding`:

    min over integers Q and scales s of  mean |s Q x' - W x|^2 .

So a layer also corrects the errors of those before it. Means are subtracted where a bias or a
BatchNormalization takes up their difference; the statistics of each BatchNormalization move by as
much as those of its inputs differ.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.data.examples import leaves
from tfnas.graph.batchnorm import adapt_statistics, input_batches, layers_of
from tfnas.graph.functional import walk
from tfnas.graph.traversal import MEMORY, Visit, visit_both
from tfnas.keras_private import all_layers
from tfnas.pruning.input_moments import to_rows, unsupported_reason
from tfnas.pruning.reconstruct import layer_problem, output_scale
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.layer_roles import Role, kernel_bits, role
from tfnas.quantization.normal_form import normal_form
from tfnas.quantization.quantize_aware import calibrate, with_fake_quantization
from tfnas.quantization.quantized_kernel import QuantizedKernel
from tfnas.quantization.second_order_rounding import round_rows
from tfnas.quantization.symmetric_grid import (
    largest_integer,
    least_error_scales,
    nearest_values,
    widest_scales,
)

if TYPE_CHECKING:
    from tfnas.data.data_types import ExampleData
    from tfnas.quantization.spec import QuantSpec


_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 10.0  # of progress
_FEW = 32  # examples


@dataclasses.dataclass(frozen=True)
class RoundedLayer:
    """What became of one kernel.

    Args:
        name: Name of its layer.
        bits: Bits of a weight.
        nearest: Error of the layer's output relative to the variance of the float output, with
            each weight rounded to nearest.
        error: The same, as it was rounded.
        seconds: Time that it took.
        reason: Why the kernel is rounded to nearest; empty where it was fitted.
    """

    name: str
    bits: int
    nearest: float
    error: float
    seconds: float
    reason: str = ""


def with_eight_bit_layers(model: keras.Model, spec: QuantSpec) -> QuantSpec:
    """Returns a specification in which layers that 4 bits hurt most, and that are small, have 8.

    Together they have at most `spec.eight_bit_share` of the weights: the depthwise convolutions,
    the first and the last layer with a kernel, each group where it fits; then other layers, the
    one that loses most per weight first. What a layer loses is the squared error of its rounded
    weights relative to their squares. Layers that `spec.layers` names stay as it says.

    Example:
        >>> import keras, tfnas
        >>> layers = [keras.layers.Conv2D(4, 3, name="first"), keras.layers.Conv2D(90, 3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        >>> with_eight_bit_layers(model, tfnas.QuantSpec("int4", "int8")).layers
        (('first', 'int8'),)

    Args:
        model: A built functional or Sequential model.
        spec: The formats; only those with 4-bit weights are changed.

    Returns:
        The specification.
    """
    if spec.weights != "int4":
        return spec
    calls = [
        call
        for call in walk(normal_form(model)[0]).calls
        if role(call) is Role.KERNEL and kernel_bits(call.kind, 4, spec.activation_bits) == 4
    ]
    kernels = {call.name: call.operation for call in calls}
    sizes = {name: math.prod(layer.kernel.shape) for name, layer in kernels.items()}
    limit = spec.eight_bit_share * sum(sizes.values())
    names = list(sizes)
    depthwise = [call.name for call in calls if call.kind.startswith("Depthwise")]
    losses = {name: _weight_error(layer) / sizes[name] for name, layer in kernels.items()}
    others = sorted(names, key=lambda name: -losses[name])
    chosen: list[str] = []
    for group in (depthwise, names[:1], names[-1:], *([name] for name in others)):
        new = [name for name in group if name not in chosen]
        if sum(sizes[name] for name in [*chosen, *new]) <= limit:
            chosen += new
    pairs = [*spec.layers, *((name, "int8") for name in chosen)]
    return dataclasses.replace(spec, layers=tuple(pairs))


def _weight_error(layer: Any) -> float:
    """Squared error of a kernel rounded to 4 bits, relative to its squares."""
    rows = to_rows(layer, layer.kernel)
    largest = largest_integer(4)
    scales = least_error_scales(rows, np.ones(rows.shape[1]), largest)
    rounded = nearest_values(rows, scales, largest)
    return float(((rounded - rows) ** 2).sum() / max(float((rows**2).sum()), 1e-30))


def rounded_model(
    model: keras.Model,
    spec: QuantSpec,
    data: ExampleData,
    *,
    memory: int = MEMORY,
    budget_seconds: float | None = None,
) -> tuple[keras.Model, tuple[RoundedLayer, ...]]:
    """Returns a quantization-aware model whose kernels were rounded by data.

    Args:
        model: A built functional or Sequential float model.
        spec: Integer weights and activations.
        data: Inputs without labels.
        memory: As for :func:`round_model`.
        budget_seconds: As for :func:`round_model`; the ranges count too.

    Returns:
        The model, with the ranges of `data`, and a record for each kernel.
    """
    began = time.monotonic()
    quantized = with_fake_quantization(model, spec, fixed=True)
    original = with_fake_quantization(model, spec, fixed=True)
    kernels = layers_of(quantized, QuantizedKernel)
    for layer in layers_of(original, (QuantizedKernel, FakeQuant)):
        layer.active = False
    for layer in kernels:  # ranges of the float network, not of one rounded to nearest
        layer.active = False
    calibrate(quantized, data)
    for layer in kernels:
        layer.active = True
    if budget_seconds is not None:
        budget_seconds = max(0.0, budget_seconds - (time.monotonic() - began))
    reports = round_model(quantized, original, data, memory=memory, budget_seconds=budget_seconds)
    return quantized, tuple(reports)


def round_model(
    model: keras.Model,
    original: keras.Model,
    data: ExampleData,
    *,
    rows: int = 20_000,
    shrinkage: float = 0.05,
    batch_size: int = 32,
    memory: int = MEMORY,
    budget_seconds: float | None = None,
) -> list[RoundedLayer]:
    """Rounds the kernels of a quantization-aware model, in place.

    Args:
        model: A model of :func:`tfnas.quantization.quantize_aware.with_fake_quantization` with
            `fixed`, whose ranges are set.
        original: The same model with nothing rounded (`active` False everywhere).
        data: Inputs without labels; some hundred examples.
        rows: Approximate number of patches that are read of each layer; of a depthwise
            convolution a quarter, since each of its rows has few weights.
        shrinkage: Least shrinkage of the moments to their diagonal, in [0, 1].
        batch_size: Examples per forward pass.
        memory: Bytes of layers' inputs that are held in memory for each of the models; others
            are in temporary files.
        budget_seconds: Time after which no further kernel is fitted: the others are rounded to
            nearest, and say so. None: no limit.

    Returns:
        A record for each kernel, in the order of execution.
    """
    kernels = layers_of(model, QuantizedKernel)
    norms = layers_of(model, keras.layers.BatchNormalization)
    floats = {layer.name: layer for layer in all_layers(original)}
    partners = [floats[layer.name] for layer in (*kernels, *norms)]
    batches = input_batches(data, batch_size)
    if (count := sum(len(leaves(batch)[0]) for batch in batches)) < _FEW:
        _LOG.warning(
            "model %r is rounded by %d example%s; below %d, integers fit these alone: some hundred "
            "are usual, and rounding 'nearest' needs none",
            *(model.name, count, "s" * (count != 1), _FEW),
        )
    reports = []
    ours = model, [*kernels, *norms]
    clock = _Clock(len(kernels) + len(norms), budget_seconds)
    for rounded, unrounded in visit_both(ours, (original, partners), batches, memory):
        if clock.is_over:
            break
        if isinstance(rounded.layer, QuantizedKernel):
            reports.append(_round_kernel(rounded, unrounded, rows, shrinkage))
        else:
            adapt_statistics(rounded, unrounded)
        clock.tick(model.name)
    done = {report.name for report in reports}
    late = [kernel for kernel in kernels if kernel.layer.name not in done and clock.is_over]
    if late:
        why = "the budget of time was used up"
        _LOG.warning("%d of %d layers rounded to nearest: %s", len(late), len(kernels), why)
        reports += [_unfitted(kernel, why) for kernel in late]
    return reports


class _Clock:
    """Logs the progress, with an estimate of the time left, and says when the budget is used up.

    Args:
        count: Number of steps.
        budget: Seconds; None: no limit.
    """

    def __init__(self, count: int, budget: float | None) -> None:
        self._count, self._done = count, 0
        self._began = self._said = time.monotonic()
        self._budget = math.inf if budget is None else budget

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up."""
        return time.monotonic() - self._began >= self._budget

    def tick(self, name: str) -> None:
        """Counts a step as done."""
        now, self._done = time.monotonic(), self._done + 1
        if now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            left = (now - self._began) / self._done * (self._count - self._done)
            text = "rounding %s: %d of %d layers, about %.0f s left"
            _LOG.info(text, name, self._done, self._count, min(left, self._budget))


def _unfitted(wrapper: Any, reason: str) -> RoundedLayer:
    return RoundedLayer(wrapper.layer.name, wrapper.bits, math.nan, math.nan, 0.0, reason)


def _round_kernel(rounded: Visit, unrounded: Visit, rows: int, shrinkage: float) -> RoundedLayer:
    began = time.monotonic()
    wrapper, layer = rounded.layer, rounded.layer.layer
    unrounded = dataclasses.replace(unrounded, layer=unrounded.layer.layer)
    kernel = _Kernel(layer)
    reason = unsupported_reason(kernel)
    if wrapper.one_scale:  # other integers would undo what clustering achieved
        reason = "its channels share few values"
    if reason is not None:
        return _unfitted(wrapper, reason)
    inner = dataclasses.replace(rounded, layer=layer)
    rows = max(1, rows // 4) if kernel.depthwise else rows
    problem = layer_problem(kernel, inner, unrounded, rows, shrinkage, halves=True)
    weights, bits = problem.weights, wrapper.bits
    keep = weights != 0  # what pruning removed stays removed
    scale = output_scale(unrounded)
    hessian, _ = problem.shrunk()
    target = problem.target(keep, scale)
    one_scale = wrapper.scale_per_kernel
    found = round_rows(target, hessian, bits, keep=keep, one_scale=one_scale)
    problem.assign(inner, unrounded, found.weights)
    largest = largest_integer(bits)
    wrapper.ends.assign((found.scales * largest).astype(np.float32))
    widest = widest_scales(weights, largest, one_scale)
    nearest = problem.error(nearest_values(weights, widest, largest), scale)
    fitted = problem.error(found.weights, scale)
    return RoundedLayer(layer.name, bits, nearest, fitted, time.monotonic() - began)


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """A layer's kernel, as :mod:`tfnas.pruning.input_moments` takes it."""

    layer: Any

    @property
    def depthwise(self) -> bool:
        """Whether each row has its own inputs."""
        return isinstance(self.layer, keras.layers.DepthwiseConv2D)

    @property
    def name(self) -> str:
        """The layer's name."""
        return str(self.layer.name)

    @property
    def variable(self) -> Any:
        """The layer's kernel."""
        return self.layer.kernel
