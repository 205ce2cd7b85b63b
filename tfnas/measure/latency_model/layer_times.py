"""The latency of each layer of a model, by measuring each operator as a file of its own."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfnas.measure.latency_model.profiling import undisturbed_ratios
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.network_operators import Operator, Operators, operators_of
from tfnas.tflite.network_writer import writable, write

if TYPE_CHECKING:
    import keras

_EMPTY = Operator("clip", (-1,), ((1,),), (1,), clip="relu")


def layer_times(
    model: keras.Model, baseline: Artifact, mode: str = "int8", *, rounds: int = 8, seed: int = 0
) -> dict[str, float]:
    """Returns the fraction of a model's latency that each layer takes.

    Every operator is written as a file with random weights, without the converter, and measured;
    a network takes about a second. Operators that only the converter can write are missing from
    the result, so the fractions may add up to less than 1.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, name="c")])
        >>> list(layer_times(model, tfnas.to_tflite(model), "float32", rounds=6))
        ['c']

    Args:
        model: A built functional or Sequential Keras model of known input shapes.
        baseline: Its file of this mode; the fractions are of its latency.
        mode: "float32" or "int8".
        rounds: Interleaved rounds, at least 6.
        seed: Seed of the order of measurements.

    Returns:
        Fractions in [0, 1] by layer name.

    Raises:
        ValueError: The model is subclassed, or has an input with a dimension of None other than
            the batch.
    """
    network = operators_of(model, lambda call: call.kind)
    alone = {
        place: dataclasses.replace(op, sources=tuple(-1 - n for n in range(len(op.inputs))))
        for place, op in enumerate(network.operators)
        if op.kind != "layer"
    }
    distinct = list(dict.fromkeys([_EMPTY, *alone.values()]))
    networks = [Operators(op.inputs, (op,), (0,)) for op in distinct]
    files = [write(each, mode) for each in networks if writable(each)]
    total, empty, *others = undisturbed_ratios([baseline, *files], seed=seed, rounds=rounds)
    cost = dict(zip(distinct, [0.0, *(max(ratio - empty, 0.0) for ratio in others)], strict=True))
    by_layer: dict[str, float] = {}
    for place, operator in alone.items():
        if (call := network.calls.get(place)) is not None:
            by_layer[call.name] = by_layer.get(call.name, 0.0) + cost[operator]
    # A layer may take longer alone than in the model: then the fractions are of the sum.
    denominator = max(total - empty, sum(by_layer.values())) or 1.0
    return {name: value / denominator for name, value in by_layer.items()}
