"""Where a model's time goes, layer by layer: each operator measured alone."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfnas.measure.latency_model.profiling import undisturbed_ratios
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.network_operators import Operator, Operators, operators_of
from tfnas.tflite.network_writer import writable, write

_NOTHING = Operator("clip", (-1,), ((1,),), (1,), clip="relu")


def layer_times(
    model: Any, whole: Artifact, mode: str = "int8", *, rounds: int = 8, seed: int = 0
) -> dict[str, float]:
    """Returns the share of the time that each layer takes, as far as it can be measured alone.

    Every operator becomes a file of its own with random weights, without the converter, so that
    a network takes a second. Operators that only the converter writes have no entry; their time
    is what the shares leave of 1.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, name="c")])
        >>> list(layer_times(model, tfnas.to_tflite(model), "float32", rounds=6))
        ['c']

    Args:
        model: A built functional or Sequential Keras model of known input sizes.
        whole: Its file of that mode, which tells what the parts are a share of.
        mode: Numbers that the operators compute with, "float32" or "int8".
        rounds: Interleaved rounds, at least 6.
        seed: Seed of the order of measurements.

    Raises:
        ValueError: The model has no known connections, or an input of open size.
    """
    network = operators_of(model, lambda call: call.kind)
    alone = {
        place: dataclasses.replace(op, sources=tuple(-1 - n for n in range(len(op.inputs))))
        for place, op in enumerate(network.operators)
        if op.kind != "layer"
    }
    different = list(dict.fromkeys([_NOTHING, *alone.values()]))
    parts = [Operators(op.inputs, (op,), (0,)) for op in different]
    files = [write(part, mode) for part in parts if writable(part)]
    total, empty, *others = undisturbed_ratios([whole, *files], seed=seed, rounds=rounds)
    cost = dict(zip(different, [0.0, *(max(ratio - empty, 0.0) for ratio in others)], strict=True))
    named: dict[str, float] = {}
    for place, operator in alone.items():
        if (call := network.calls.get(place)) is not None:
            named[call.name] = named.get(call.name, 0.0) + cost[operator]
    # Alone a layer may take longer than among others: then the shares are of their sum.
    all_of_it = max(total - empty, sum(named.values())) or 1.0
    return {name: value / all_of_it for name, value in named.items()}
