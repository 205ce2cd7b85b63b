"""Writes a Keras model as a SavedModel with constant weights, which converts faster.

`TFLiteConverter.from_keras_model` goes through `keras.export`: it writes all variables as a
checkpoint and traces every function several times, which takes most of the conversion. Here the
model is traced once, its variables become constants, and the SavedModel is a single function
without state. The converter reads it like any SavedModel and writes the same operators, weights
and ranges (`tests/tflite/test_frozen_saved_model.py`).
"""

from __future__ import annotations

import functools
import itertools
import pathlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras

from tfnas.keras_private import forget_gradients, functional_inside, with_constants
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.tflite.needed_nodes import keep_needed

if TYPE_CHECKING:
    import tensorflow as tf

SIGNATURE = "serving_default"
_MOST_BYTES = 2**30  # of weights: a graph of constants is one protocol buffer, at most 2 GiB
# Operations that write to a variable, in the names of TensorFlow's graph.
_ASSIGNMENT = re.compile(r"Assign(Add|Sub)?VariableOp|Resource(Scatter|Apply|StridedSlice)\w+")


class SharedNames(ValueError):
    """Two outputs of a model would have one name in the file."""


def can_be_frozen(model: keras.Model) -> bool:
    """Returns whether a model's weights fit into a graph of constants: at most 1 GiB.

    Args:
        model: A built Keras 3 model.
    """
    weights = sum(v.value.shape.num_elements() * v.value.dtype.size for v in model.variables)
    return weights <= _MOST_BYTES


def write_frozen_saved_model(model: keras.Model, directory: str | pathlib.Path) -> bool:
    """Writes a model for inference, with the input and output names of `Model.export`.

    Args:
        model: A built Keras 3 model with known inputs; see :func:`can_be_frozen`.
        directory: An empty directory.

    Returns:
        Whether it was written. False where constants can't replace the model's state: the graph
        assigns variables (a stateful RNN), or uses state that is no variable (the table of a
        StringLookup).

    Raises:
        ValueError: Two outputs have one name, as in {"a": [x], "a_0": y}.
    """
    import tensorflow as tf

    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]
    functional = functional_inside(model)

    def infer(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(keras.tree.pack_sequence_as(functional.input, inputs), training=False)
        return _named(outputs)

    traced = tf.function(infer, autograph=False).get_concrete_function(*specs)
    forget_gradients(lambda graph: graph is traced.graph)  # TensorFlow would keep the graph
    if _assigns_variables(traced.graph):
        return False
    names = sorted(traced.structured_outputs)
    graph, inputs_left = with_constants(traced)
    if inputs_left > len(specs):  # what is no variable became an input
        return False
    fed = [tensor.name for tensor in traced.inputs[: len(specs)]]
    computed = [tensor.name for tensor in traced.outputs]
    needed = keep_needed(graph, fed, computed)

    def imported(*inputs: tf.Tensor) -> list[tf.Tensor]:
        # An input that nothing reads stays one of the signature, but is none of this graph.
        pairs = zip(fed, inputs, strict=True)
        placeholders = {name: tensor for name, tensor in pairs if name in needed}
        return tf.graph_util.import_graph_def(graph, placeholders, computed, name="")

    # `tf.function` would add to the graph in which order its loops run.
    frozen = tf.compat.v1.wrap_function(imported, specs)

    def serve(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(names, keras.tree.flatten(frozen(*inputs)), strict=True))

    module = tf.Module()
    module.serve = tf.function(serve, input_signature=specs, autograph=False)
    signature = module.serve.get_concrete_function()
    tf.saved_model.save(
        module,
        str(directory),
        signatures={SIGNATURE: signature},
        # Custom gradients (of silu, for example) capture values of the first graph; they are not
        # needed for inference. Nor are functions that store variables, where there are none.
        options=tf.saved_model.SaveOptions(
            experimental_custom_gradients=False, experimental_skip_saver=True
        ),
    )
    return True


def write_saved_model(model: keras.Model, directory: str | pathlib.Path) -> None:
    """Writes a model with its variables, as `TFLiteConverter.from_keras_model` (2.21) does.

    Args:
        model: A built Keras 3 or tf_keras model with known inputs.
        directory: A new directory.

    Raises:
        Exception: It can't be exported.
    """
    import tensorflow as tf

    if is_tf_keras(model):
        debug = tf.saved_model.SaveOptions(save_debug_info=True)
        tf.saved_model.save(model, str(directory), options=debug)
        return
    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]
    archive = keras.export.ExportArchive()
    archive.track(model)
    infer = functools.partial(model.__call__, training=False)
    archive.add_endpoint("serve", infer, [specs] if len(specs) > 1 else specs)
    archive.write_out(str(directory), verbose=False)


def _assigns_variables(graph: tf.Graph) -> bool:
    """Whether a graph, or a function that it calls, writes to a variable."""
    definition = graph.as_graph_def()
    functions = (function.node_def for function in definition.library.function)
    nodes = itertools.chain(definition.node, *functions)
    return any(_ASSIGNMENT.fullmatch(node.op) for node in nodes)


def _named(outputs: object) -> dict[str, tf.Tensor]:
    """Outputs by their names in the SavedModel's signature: "a_0" for the x of {"a": [x, y]}."""
    if not isinstance(outputs, dict):
        return {f"output_{i}": value for i, value in enumerate(keras.tree.flatten(outputs))}
    leaves = [leaf for key, value in outputs.items() for leaf in _leaves(key, value)]
    named = dict(leaves)
    if len(named) < len(leaves):
        names = sorted(name for name, _ in leaves)
        raise SharedNames(f"outputs must have different names in the file, got {names}")
    return named


def _leaves(name: str, value: Any) -> Iterator[tuple[str, tf.Tensor]]:
    if not isinstance(value, dict | list | tuple):
        yield name, value
        return
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves(f"{name}_{key}", part)
