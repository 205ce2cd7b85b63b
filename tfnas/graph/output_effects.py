"""What small changes of kernels do to a model's outputs: all layers in one backward pass.

A change dW of a layer's kernel changes its output by e = dW x, and the model's outputs by about
J e. The divergence of the outputs (:func:`tfnas.graph.divergence.divergence`) is then a square,

    (1/2) mean over examples of  e^T J^T F J e ,

with the Fisher information F of the class probabilities. With random numbers u of covariance F for
each example, e^T J^T F J e is the mean of (g . e)^2, where g = J^T u is a gradient at the layer's
output. One backward pass has the gradients of all layers; g . e is the derivative after a factor of
e, one for each example, at 0. So the effects of a hundred layers cost as much as some forward
passes, where running the model once for each changed layer costs a hundred.

References:
    Martens, "New Insights and Perspectives on the Natural Gradient Method", JMLR 2020 (the Fisher
    information as the curvature of the divergence).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.examples import leaves
from tfnas.data.reading import sliced
from tfnas.graph.divergence import are_classes, are_probabilities, outputs_of

if TYPE_CHECKING:
    import keras

_EXAMPLES = 8  # of a backward pass, which holds the outputs of all layers
_LEAST = 1e-12  # probability
_PROBABILITIES, _LOGITS = "probabilities", "logits"


@dataclasses.dataclass(frozen=True, eq=False)
class KernelChange:
    """A change of one layer's kernel.

    Args:
        layer: A Dense layer or a convolution.
        kernel: The change, of the kernel's shape.
        shift: The change of the mean outputs, (outputs,), which is taken off: a bias or a
            BatchNormalization corrects it.
    """

    layer: Any
    kernel: np.ndarray
    shift: np.ndarray


def effects_on_outputs(
    model: keras.Model, changes: Sequence[KernelChange], batches: Sequence[Any], seed: int = 0
) -> np.ndarray:
    """Returns the estimated divergence of a model's outputs for each change alone.

    Example:
        >>> import keras
        >>> layer = keras.layers.Dense(2, use_bias=False)
        >>> model = keras.Sequential([keras.Input((3,)), layer])
        >>> changes = [KernelChange(layer, np.full((3, 2), s), np.zeros(2)) for s in (0.0, 1.0)]
        >>> effects_on_outputs(model, changes[:1], [np.ones((4, 3), "float32")])
        array([0.])

    Args:
        model: A built Keras 3 model; it is not changed.
        changes: Small changes, at most one a layer.
        batches: Inputs, of :func:`tfnas.graph.batchnorm.input_batches`.
        seed: Seed of the random numbers, one for each output and example.

    Returns:
        One number a change: nats per example for outputs of classes, the relative squared change
        for others, as of :func:`tfnas.graph.divergence.divergence`.
    """
    rng = np.random.default_rng(seed)
    units = [_unit(output) for output in outputs_of(model, batches)]
    total, count = np.zeros(len(changes)), 0
    for batch in batches:
        length = len(leaves(batch)[0])
        for start in range(0, length, _EXAMPLES):
            part = sliced(batch, slice(start, start + _EXAMPLES))
            total += (_derivatives(model, changes, part, units, rng) ** 2).sum(axis=0)
        count += length
    return total / max(count, 1)


def _unit(output: np.ndarray) -> float | str:
    """What the changes of an output are measured in: the kind of its classes, or a deviation."""
    if not are_classes(output):
        return float(np.sqrt(max(float(output.var()), 1e-30)))
    return _PROBABILITIES if are_probabilities(output) else _LOGITS


def _derivatives(
    model: Any,
    changes: Sequence[KernelChange],
    batch: Any,
    units: Sequence[float | str],
    rng: np.random.Generator,
) -> np.ndarray:
    """The derivative of a random sum of the outputs after each change, (examples, changes)."""
    import keras
    import tensorflow as tf

    factors = tf.zeros((len(leaves(batch)[0]), len(changes)))
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(factors)
        with _changed(changes, factors):
            outputs = keras.tree.flatten(model(batch, training=False))
        sums = [_random_sum(*pair, rng) for pair in zip(outputs, units, strict=True)]
        found = tf.add_n(sums)
    gradient = tape.gradient(found, factors, unconnected_gradients="zero")
    return np.asarray(gradient, np.float64)


def _random_sum(output: Any, unit: float | str, rng: np.random.Generator) -> Any:
    """A sum over outputs of mean square (after a change) their divergence."""
    import tensorflow as tf

    output = tf.cast(output, tf.float32)
    noise = rng.normal(size=output.shape)
    if isinstance(unit, float):
        factors = noise / (unit * np.sqrt(np.prod(output.shape[1:])))
        return tf.reduce_sum(output * factors.astype(np.float32))
    if unit == _PROBABILITIES:
        logs = tf.math.log(tf.maximum(output, _LEAST))
    else:
        logs = tf.nn.log_softmax(output)
    factors = noise * np.sqrt(0.5 * np.exp(np.asarray(logs, np.float64)))
    return tf.reduce_sum(logs * factors.astype(np.float32))


@contextlib.contextmanager
def _changed(changes: Sequence[KernelChange], factors: Any) -> Iterator[None]:
    """Adds to the output of each layer the change times a factor for each example."""
    originals = [(change.layer, change.layer.__dict__.get("call")) for change in changes]
    for index, change in enumerate(changes):
        object.__setattr__(change.layer, "call", _with_change(change, factors[:, index]))
    try:
        yield
    finally:
        for layer, call in originals:
            object.__delattr__(layer, "call")
            if call is not None:
                object.__setattr__(layer, "call", call)


def _with_change(change: KernelChange, factor: Any) -> Any:
    """The layer's call, with the change of its kernel before its activation."""
    import keras
    import tensorflow as tf

    layer, call = change.layer, change.layer.call
    activation = getattr(layer, "activation", keras.activations.linear)
    values = [(layer.kernel, tf.constant(change.kernel.astype(np.float32)))]
    if getattr(layer, "bias", None) is not None:
        values.append((layer.bias, tf.zeros_like(layer.bias.value)))
    shift = change.shift.astype(np.float32)

    def changed(inputs: Any, **options: Any) -> Any:
        object.__setattr__(layer, "activation", keras.activations.linear)
        try:
            plain = call(inputs, **options)
            with keras.StatelessScope(state_mapping=values):
                moved = call(inputs, **options) - shift
        finally:
            object.__setattr__(layer, "activation", activation)
        each = tf.reshape(factor, [-1, *[1] * (len(plain.shape) - 1)])
        return activation(plain + tf.cast(each, plain.dtype) * moved)

    return changed
