"""The private names of tf_keras and tfmot: each exists, and means what tfnas takes it to mean.

A failure here after an update names the function of `tfnas/legacy/tf_keras_private.py` to repair.
"""

import ast
import inspect
import pathlib
import re

import keras
import numpy as np
import pytest

from tfnas import keras_private, legacy
from tfnas.legacy import tf_keras_private

pytest.importorskip("tf_keras")
pytest.importorskip("tensorflow_model_optimization")

pytestmark = [
    # tf_keras and tfmot on Python 3.11 and NumPy 2.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tf_keras"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_model_optimization"),
]

FUNCTIONS = {
    name: function
    for name, function in inspect.getmembers(tf_keras_private, inspect.isfunction)
    if function.__module__ == tf_keras_private.__name__
}


def two_inputs(library):
    """Returns a model of {"b": (batch, 4), "a": (batch, 3)} with an output {"sum": (batch, 2)}."""
    layers = library.layers
    a, b = library.Input((3,), name="a"), library.Input((4,), name="b")
    shared = layers.Dense(2, name="shared")
    total = layers.Add(name="add")([shared(layers.Dense(4, name="widen")(a)), shared(b)])
    return library.Model({"b": b, "a": a}, {"sum": total})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_says_where_it_was_read_and_has_a_test(name):
    assert re.search(r"(tf_keras|tfmot)\s+\d+\.\d+", FUNCTIONS[name].__doc__)
    tree = ast.parse(pathlib.Path(__file__).read_text("utf-8"))
    tests = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    used = {n.attr for test in tests for n in ast.walk(test) if isinstance(n, ast.Attribute)}
    assert name in used


def test_functional_and_sequential_models_have_a_graph():
    library = legacy.tf_keras()

    class Subclassed(library.Model):
        pass

    assert tf_keras_private.is_functional(two_inputs(library))
    sequential = library.Sequential([library.Input((3,)), library.layers.Dense(2)])
    assert tf_keras_private.is_functional(sequential)
    for other in (Subclassed(), library.layers.Dense(2)):
        assert not tf_keras_private.is_functional(other)


def test_nodes_are_the_calls_in_the_order_of_execution():
    model = two_inputs(legacy.tf_keras())
    nodes = tf_keras_private.nodes(model)
    assert sorted(node.layer.name for node in nodes) == ["add", "shared", "shared", "widen"]
    assert nodes[-1].layer.name == "add"
    ((first, second),) = nodes[-1].call_args
    assert (first.shape, second.shape, nodes[-1].call_kwargs) == ((None, 2), (None, 2), {})
    assert nodes[-1].outputs is model.outputs[0]


def test_models_keep_the_structure_of_their_inputs_and_outputs():
    model = two_inputs(legacy.tf_keras())
    inputs = tf_keras_private.input_structure(model)
    assert {key: tensor.shape[1] for key, tensor in inputs.items()} == {"a": 3, "b": 4}
    assert list(tf_keras_private.output_structure(model)) == ["sum"]


def test_models_of_both_libraries_give_the_structure_of_their_inputs():
    for library in (keras, legacy.tf_keras()):
        found = tf_keras_private.any_input_structure(two_inputs(library))
        assert {key: tensor.shape[1] for key, tensor in found.items()} == {"a": 3, "b": 4}


def test_symbolic_tensors_of_both_libraries_name_their_producer():
    for library in (keras, legacy.tf_keras()):
        inputs = library.Input((3,), name="start")
        dense = library.layers.Dense(2)
        assert tf_keras_private.is_symbolic(inputs)
        assert tf_keras_private.producer(inputs).name == "start"
        assert tf_keras_private.producer(dense(inputs)) is dense
    for value in (np.ones(2), keras.ops.ones(2), 1, "name"):
        assert not tf_keras_private.is_symbolic(value)


def test_the_first_node_of_a_layer_has_its_outputs_and_the_layers_before():
    model = two_inputs(legacy.tf_keras())
    shared, widen, add = (model.get_layer(name) for name in ("shared", "widen", "add"))
    assert tf_keras_private.first_node(shared).inbound_layers is widen
    assert tf_keras_private.first_node(add).inbound_layers == [shared, shared]
    assert tf_keras_private.first_node(widen).outputs.shape == (None, 4)


def test_layers_call_tensorflow_functions():
    library = legacy.tf_keras()
    module = tf_keras_private.operation_layers()
    inputs = library.Input((3,))
    output = inputs + 1.0
    assert type(tf_keras_private.producer(output)) is module.TFOpLambda
    assert issubclass(module.SlicingOpLambda, module.TFOpLambda)


def test_the_configuration_of_tfmot_quantizes_the_output_alone():
    config = tf_keras_private.output_quantize_config()()
    layer = legacy.tf_keras().layers.Dense(2)
    layer.build((None, 3))
    assert config.get_weights_and_quantizers(layer) == []
    assert config.get_activations_and_quantizers(layer) == []
    assert len(config.get_output_quantizers(layer)) == 1


def test_all_layers_of_a_tf_keras_model_are_found_as_those_of_keras():
    library = legacy.tf_keras()
    inner = library.Sequential([library.Input((3,)), library.layers.Dense(2, name="dense")])
    outer = library.Sequential([library.Input((3,)), inner])
    assert keras_private.all_layers(outer)[0] is outer
    below = {layer.name for layer in keras_private.all_layers(outer, include_self=False)}
    assert {inner.name, "dense"} <= below
    assert outer.name not in below
