"""Layers that stay float in an integer file: which ones, and the line that allows it.

An integer format means integers throughout. A layer that stands in the way stays float where the
specification says so: `QuantSpec("int8", layers={"LayerNormalization": "float32"})`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras

from tfnas.graph.functional import Skipped, walk
from tfnas.quantization.layer_roles import KERNEL_LAYERS, activation_name
from tfnas.quantization.spec import FLOAT, QuantSpec

KEPT_OUT = "preprocessing, stays out of the file"
BY_SPECIFICATION = "left float by the specification"
JOINS_FLOATS = "joins numbers of a layer that stays float"
# Layers of the first steps of a model, which stay float by name. A GlobalAveragePooling1D does
# where it gets the mask of an Embedding, which is a NotEqual.
MAY_STAY_FLOAT = {"GlobalAveragePooling1D", "NotEqual", "STFTSpectrogram"}
MAY_STAY_FLOAT |= {"Embedding", "ReversibleEmbedding"}
# A class of these has other layers with an integer form.
_BY_NAME = {"Activation", "BatchNormalization", "Lambda", *KERNEL_LAYERS}


def layers_in_the_way(
    model: keras.Model, spec: QuantSpec, skipped: Sequence[Skipped]
) -> list[Skipped]:
    """Returns the layers that stay float though the specification does not say so.

    Args:
        model: A quantization-aware model.
        spec: The number formats that it was made for.
        skipped: Its :func:`tfnas.unquantized_layers`.
    """
    names = {call.name: activation_name(call) for call in walk(model).calls}
    return [
        each
        for each in skipped
        if each.reason not in (KEPT_OUT, BY_SPECIFICATION, JOINS_FLOATS)
        and not spec.leaves_float(each.name, each.kind, names.get(each.name))
    ]


def are_refused(left: Sequence[Skipped]) -> bool:
    """Returns whether layers stand in the way of an integer file, not only those of first steps.

    Args:
        left: The layers, of :func:`layers_in_the_way`.
    """
    return not {each.kind for each in left} <= MAY_STAY_FLOAT


def with_islands(spec: QuantSpec, left: Sequence[Skipped]) -> QuantSpec:
    """Returns a specification that leaves layers float.

    Args:
        spec: The number formats.
        left: The layers, of :func:`layers_in_the_way`.
    """
    names = dict.fromkeys(_key(each) for each in left)
    pairs = [(name, FLOAT) for name in names]
    return dataclasses.replace(spec, layers=(*pairs, *spec.layers))


def line_that_allows(spec: QuantSpec, left: Sequence[Skipped]) -> str:
    """Returns the Python expression of a specification that leaves layers float.

    Args:
        spec: The number formats.
        left: The layers, of :func:`layers_in_the_way`.
    """
    formats = [repr(spec.weights).replace("'", '"')]
    if spec.activations != QuantSpec().activations:
        formats.append(f'"{spec.activations}"')
    pairs = ", ".join(f'"{name}": "{value}"' for name, value in with_islands(spec, left).layers)
    return f"QuantSpec({', '.join(formats)}, layers={{{pairs}}})"


def message_of_refusal(spec: QuantSpec, left: Sequence[Skipped]) -> str:
    """Returns what stands in the way of integers throughout, and the line that allows it.

    Args:
        spec: The number formats.
        left: The layers, of :func:`layers_in_the_way`.
    """
    reasons = "; ".join(f"{each.name}: {each.reason}" for each in left)
    return (
        f"mode {spec.mode!r} must have integers throughout, got layers without an integer form: "
        f"{reasons}. {line_that_allows(spec, left)} leaves them float"
    )


def _key(layer: Skipped) -> str:
    """The class where it says enough, else the name."""
    return layer.name if layer.kind in _BY_NAME else layer.kind
