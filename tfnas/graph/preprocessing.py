"""Separates preprocessing that no `.tflite` file can hold from the rest of a model.

Layers that look up words, hash, count categories or sort numbers into bins have no TFLite
operators. They stand in front of a model, have no weights that are trained, and belong to the
program that feeds the file. What is arithmetic stays in the model: `Rescaling`, `Normalization`,
`Resizing`, one-hot `CategoryEncoding`; layers of augmentation do nothing outside of training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfnas.graph.functional import Call, Value, Walk, repeat_call, walk
from tfnas.graph.output_names import name_outputs
from tfnas.keras_private import functional_inside

if TYPE_CHECKING:
    import keras

PREPROCESSING = (
    "Discretization",
    "HashedCrossing",
    "Hashing",
    "IntegerLookup",
    "StringLookup",
    "TextVectorization",
)


def split_preprocessing(model: keras.Model) -> tuple[keras.Model | None, keras.Model]:
    """Returns the preprocessing in front of a model, and the rest, which converts.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> lookup = keras.layers.StringLookup(vocabulary=["rome", "oslo"], name="city")
        >>> own = [lookup, keras.layers.Embedding(3, 4), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((1,), dtype="string"), *own])
        >>> front, rest = tfnas.split_preprocessing(model)
        >>> keras.ops.convert_to_numpy(front(np.array([["oslo"]], object))).tolist()
        [[2]]
        >>> [tensor.name for tensor in rest.inputs]
        ['city']

    Args:
        model: A built functional or Sequential model.

    Returns:
        A model of the lookups, hashes and bins, and all that is before them, from the model's
        inputs to those of the rest (None where there are none); and a model of the other layers,
        with the same weights. Inputs of the rest have the names of the layers that make them. Where
        there are several, both models have them as a dictionary.

    Raises:
        ValueError: A layer before a lookup is trained, so that it can't be left out.
    """
    flow = walk(model)
    front = calls_in_front(flow)
    if not front:
        return None, model
    for call in front:
        if trained := getattr(call.operation, "trainable_weights", ()):
            raise ValueError(
                f"model must have its preprocessing in front of what is trained, got "
                f"{call.name!r} with {trained[0].name!r} before {front[-1].name!r} "
                f"({front[-1].kind})"
            )
    return _separated(model, flow, front)


def preprocessed(front: keras.Model, x: Any) -> Any:
    """Returns data behind the preprocessing, as NumPy arrays.

    Args:
        front: The first model of :func:`split_preprocessing`.
        x: Inputs of this model, (examples, ...): an array, or a list or dictionary of arrays.

    Returns:
        Inputs of the second model.
    """
    import keras

    return keras.tree.map_structure(keras.ops.convert_to_numpy, front(x))


def preprocessing_layers(front: keras.Model | None) -> tuple[str, ...]:
    """Returns the names of the lookups, hashes and bins of a model.

    Args:
        front: The first model of :func:`split_preprocessing`.
    """
    if front is None:
        return ()
    return tuple(call.name for call in walk(front).calls if _is_preprocessing(call))


def calls_in_front(flow: Walk) -> list[Call]:
    """Returns preprocessing, and the calls before it, in the order of execution.

    Args:
        flow: A model's calls.
    """
    needed: set[Value] = set()
    front: list[Call] = []
    for call in reversed(flow.calls):
        texts = any(value.dtype == "string" for value in call.inputs)
        if _is_preprocessing(call) or texts or needed & set(call.outputs):
            needed |= set(call.inputs)
            front.insert(0, call)
    return front


def _is_preprocessing(call: Call) -> bool:
    # Categories that are counted, or found in any order: Keras calls tf.math.bincount.
    counts = call.kind == "CategoryEncoding" and call.operation.output_mode != "one_hot"
    return counts or call.kind in PREPROCESSING


def _separated(
    model: keras.Model, flow: Walk, front: list[Call]
) -> tuple[keras.Model, keras.Model]:
    import keras

    graph = functional_inside(model)
    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in graph.inputs]
    names = dict(zip(flow.inputs, (t.name for t in graph.inputs), strict=True))
    tensors: dict[Value, Any] = dict(zip(flow.inputs, inputs, strict=True))
    for call in front:
        repeat_call(call, tensors)
        names |= {value: call.name.split("/")[-1] for value in call.outputs}
    left = [call for call in flow.calls if not any(call is each for each in front)]
    used = {value for call in left for value in call.inputs} | set(flow.outputs)
    between = [value for value in tensors if value in used]
    passed = {names[value]: tensors[value] for value in between}
    fed = {
        names[value]: keras.Input(batch_shape=value.shape, dtype=_dtype(value), name=names[value])
        for value in between
    }
    own = {value: fed[names[value]] for value in between}
    for call in left:
        repeat_call(call, own)
    outputs = keras.tree.pack_sequence_as(graph.output, [own[value] for value in flow.outputs])
    packed = keras.tree.pack_sequence_as(graph.input, inputs)
    single = len(fed) == 1
    rest = keras.Model(next(iter(fed.values())) if single else fed, outputs, name=model.name)
    name_outputs(rest, graph.output_names)
    return keras.Model(packed, next(iter(passed.values())) if single else passed), rest


def _dtype(value: Value) -> str:
    """The type of an input: a file has no use for integers of 64 bits."""
    return "int32" if value.dtype == "int64" else value.dtype
