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
import math
import time
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.graph.batchnorm import adapt_statistics, input_batches, layers_of
from tfnas.graph.functional import walk
from tfnas.graph.traversal import MEMORY, Visit, visit_both
from tfnas.keras_private import all_layers
from tfnas.pruning.input_moments import unsupported_reason
from tfnas.pruning.optimal_brain_surgeon import refit
from tfnas.pruning.reconstruct import layer_problem, output_scale
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.layer_roles import Role, role
from tfnas.quantization.normal_form import normal_form
from tfnas.quantization.quantize_aware import calibrate, with_fake_quantization
from tfnas.quantization.quantized_kernel import QuantizedKernel
from tfnas.quantization.second_order_rounding import largest_integer, round_rows, widest_scales

if TYPE_CHECKING:
    from tfnas.data.data_types import ExampleData
    from tfnas.quantization.spec import QuantSpec


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


# Layers whose kernels of 8 bits instead of 4 add at most this share to the file keep 8 bits.
EIGHT_BIT_SHARE = 0.02


def with_eight_bit_layers(model: keras.Model, spec: QuantSpec) -> QuantSpec:
    """Returns a specification in which layers that 4 bits hurt most, and that are small, have 8.

    They are the depthwise convolutions, the first and the last layer with a kernel, each group
    where it adds at most 2% to the weights of the file. Layers that `spec.layers` names stay as
    it says.

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
    calls = [call for call in walk(normal_form(model)[0]).calls if role(call) is Role.KERNEL]
    sizes = {call.name: math.prod(call.operation.kernel.shape) for call in calls}
    limit = EIGHT_BIT_SHARE * sum(sizes.values())
    names = list(sizes)
    depthwise = [call.name for call in calls if call.kind.startswith("Depthwise")]
    chosen: list[str] = []
    for group in (depthwise, names[:1], names[-1:]):
        new = [name for name in group if name not in chosen]
        if sum(sizes[name] for name in [*chosen, *new]) <= limit:
            chosen += new
    pairs = [*spec.layers, *((name, "int8") for name in chosen)]
    return dataclasses.replace(spec, layers=tuple(pairs))


def rounded_model(
    model: keras.Model, spec: QuantSpec, data: ExampleData, *, memory: int = MEMORY
) -> tuple[keras.Model, tuple[RoundedLayer, ...]]:
    """Returns a quantization-aware model whose kernels were rounded by data.

    Args:
        model: A built functional or Sequential float model.
        spec: Integer weights and activations.
        data: Inputs without labels.
        memory: As for :func:`round_model`.

    Returns:
        The model, with the ranges of `data`, and a record for each kernel.
    """
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
    return quantized, tuple(round_model(quantized, original, data, memory=memory))


def round_model(
    model: keras.Model,
    original: keras.Model,
    data: ExampleData,
    *,
    rows: int = 20_000,
    shrinkage: float = 0.05,
    batch_size: int = 32,
    memory: int = MEMORY,
) -> list[RoundedLayer]:
    """Rounds the kernels of a quantization-aware model, in place.

    Args:
        model: A model of :func:`tfnas.quantization.quantize_aware.with_fake_quantization` with
            `fixed`, whose ranges are set.
        original: The same model with nothing rounded (`active` False everywhere).
        data: Inputs without labels; some hundred examples.
        rows: Approximate number of patches that are read of each layer.
        shrinkage: Least shrinkage of the moments to their diagonal, in [0, 1].
        batch_size: Examples per forward pass.
        memory: Bytes of layers' inputs that are held in memory for each of the models; others
            are in temporary files.

    Returns:
        A record for each kernel, in the order of execution.
    """
    kernels = layers_of(model, QuantizedKernel)
    norms = layers_of(model, keras.layers.BatchNormalization)
    floats = {layer.name: layer for layer in all_layers(original)}
    partners = [floats[layer.name] for layer in (*kernels, *norms)]
    batches = input_batches(data, batch_size)
    reports = []
    ours = model, [*kernels, *norms]
    for rounded, unrounded in visit_both(ours, (original, partners), batches, memory):
        if isinstance(rounded.layer, QuantizedKernel):
            reports.append(_round_kernel(rounded, unrounded, rows, shrinkage))
        else:
            adapt_statistics(rounded, unrounded)
    return reports


def _round_kernel(rounded: Visit, unrounded: Visit, rows: int, shrinkage: float) -> RoundedLayer:
    began = time.monotonic()
    wrapper, layer = rounded.layer, rounded.layer.layer
    unrounded = dataclasses.replace(unrounded, layer=unrounded.layer.layer)
    reason = unsupported_reason(_Kernel(layer))
    if reason is not None:
        return RoundedLayer(layer.name, wrapper.bits, math.nan, math.nan, 0.0, reason)
    inner = dataclasses.replace(rounded, layer=layer)
    problem = layer_problem(_Kernel(layer), inner, unrounded, rows, shrinkage)
    weights, bits = problem.weights, wrapper.bits
    keep = weights != 0  # what pruning removed stays removed
    hessian, cross = problem.shrunk()
    target = refit(weights, keep, hessian, cross)
    one_scale = wrapper.scale_per_kernel or wrapper.one_scale
    found = round_rows(target, hessian, bits, keep=keep, one_scale=one_scale)
    problem.assign(inner, unrounded, found.weights)
    wrapper.ends.assign((found.scales * largest_integer(bits)).astype(np.float32))
    scale = output_scale(unrounded)
    nearest = problem.error(_nearest(weights, bits, one_scale), scale)
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


def _nearest(weights: np.ndarray, bits: int, one_scale: bool) -> np.ndarray:
    """Each weight rounded to nearest on the grid up to the largest weight."""
    scales = widest_scales(weights, largest_integer(bits), one_scale)[:, None]
    return np.asarray(np.rint(weights / scales) * scales)
