"""Every use of what tf_keras and tfmot do not document.

As :mod:`tfnas.keras_private`: one function for each private name, with the versions in which it
was read. `tests/legacy/test_tf_keras_private.py` fails where a library changes one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfnas.legacy import environment

if TYPE_CHECKING:
    import keras
    import tf_keras


def is_functional(model: tf_keras.layers.Layer) -> bool:
    """Whether a tf_keras model or layer has a graph.

    Reads `Functional._nodes_by_depth` (tf_keras 2.21.0).

    Args:
        model: A tf_keras model or layer.
    """
    return bool(getattr(model, "_nodes_by_depth", None))


def nodes(functional: tf_keras.Model) -> list[Any]:
    """Returns the calls of a functional model in the order of execution, without its inputs.

    Reads `Functional._nodes_by_depth` (tf_keras 2.21.0). Each has `layer`, `call_args`,
    `call_kwargs` and `outputs`.

    Args:
        functional: A tf_keras model with a graph; see :func:`is_functional`.
    """
    by_depth = functional._nodes_by_depth
    ordered = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [node for node in ordered if not node.is_input]


def input_structure(functional: tf_keras.Model) -> Any:
    """Returns the symbolic inputs of a functional model in the structure of its argument.

    Reads `Functional._nested_inputs` (tf_keras 2.21.0).

    Args:
        functional: A tf_keras model with a graph.
    """
    return functional._nested_inputs


def output_structure(functional: tf_keras.Model) -> Any:
    """Returns the symbolic outputs of a functional model in the structure of its result.

    Reads `Functional._nested_outputs` (tf_keras 2.21.0).

    Args:
        functional: A tf_keras model with a graph.
    """
    return functional._nested_outputs


def any_input_structure(model: keras.Model) -> Any:
    """Returns the symbolic inputs of a model of either library in the structure of its argument.

    Reads `_inputs_struct` (Keras 3.12.0, 3.15.1) or `_nested_inputs` (tf_keras 2.21.0).

    Args:
        model: A Keras or tf_keras model; a model that records no structure has `inputs`.
    """
    return getattr(model, "_inputs_struct", getattr(model, "_nested_inputs", model.inputs))


def is_symbolic(value: object) -> bool:
    """Whether a value is a symbolic tensor of Keras or tf_keras.

    Looks for `_keras_history` (Keras 3.12.0, 3.15.1; tf_keras 2.21.0).

    Args:
        value: Any argument of a layer.
    """
    return hasattr(value, "_keras_history")


def producer(tensor: keras.KerasTensor) -> Any:
    """Returns the layer or operation whose output a symbolic tensor is.

    Reads `_keras_history.operation` (Keras 3.12.0, 3.15.1) or `.layer` (tf_keras 2.21.0).

    Args:
        tensor: A symbolic tensor of Keras or tf_keras.
    """
    history = tensor._keras_history
    return history.layer if hasattr(history, "layer") else history.operation


def first_node(layer: tf_keras.layers.Layer) -> Any:
    """Returns the first call of a layer, which has `inbound_layers` and `outputs`.

    Reads `Layer._inbound_nodes` (tf_keras 2.21.0).

    Args:
        layer: A layer of a functional tf_keras model.
    """
    return layer._inbound_nodes[0]


def operation_layers() -> Any:
    """Returns the module of the layers that call a TensorFlow function, such as `TFOpLambda`.

    Imports `tf_keras.src.layers.core.tf_op_layer` (tf_keras 2.21.0).
    """
    environment.tf_keras()
    from tf_keras.src.layers.core import tf_op_layer

    return tf_op_layer


def output_quantize_config() -> Any:
    """Returns the class of tfmot's configuration that quantizes only the output of a layer.

    Imports `Default8BitOutputQuantizeConfig` from `tensorflow_model_optimization.python`
    (tfmot 0.8.1): tfmot exports the scheme, but not its configurations.
    """
    environment.tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_configs,
    )

    return default_8bit_quantize_configs.Default8BitOutputQuantizeConfig
