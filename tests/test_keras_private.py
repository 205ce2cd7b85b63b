"""The private names of Keras and TensorFlow: each exists, and means what tfnas takes it to mean.

A failure here after an update of Keras or TensorFlow names the function of `tfnas/keras_private.py`
to repair.
"""

import ast
import concurrent.futures
import copy
import gc
import inspect
import pathlib
import re
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.framework.func_graph import FuncGraph

import tfnas
from tfnas import keras_private
from tfnas.runtime.randomness import kept_random_state
from tfnas.tflite.quiet_converter import quiet_converter


class Doubled(keras.Model):
    """A functional model that computes something other than its graph."""

    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


class Named(keras.Model):
    """A functional model that follows its graph."""


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


class WithRandomState(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],))
        self.count = self.add_weight(name="count", shape=(), trainable=False)
        self.inner = layers.Dense(2)
        self.inner.build(shape)
        self.generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        return self.inner(inputs)


def two_inputs(kind=keras.Model):
    """Returns a model of {"b": (batch, 4), "a": (batch, 3)} with an output {"sum": (batch, 2)}."""
    a, b = keras.Input((3,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(2, name="shared")
    total = layers.Add(name="add")([shared(layers.Dense(4, name="widen")(a)), shared(b)])
    return kind({"b": b, "a": a}, {"sum": total})


def sequential(*more):
    return keras.Sequential([keras.Input((3,)), layers.Dense(2, name="dense"), *more])


def compiled(**arguments):
    model = sequential()
    model.compile(**{"optimizer": "sgd", "loss": "mse", "jit_compile": False, **arguments})
    return model


def ones(rows=4):
    return np.ones((rows, 3), "float32"), np.ones((rows, 2), "float32")


FUNCTIONS = dict(inspect.getmembers(keras_private, inspect.isfunction))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_says_where_it_was_read_and_has_a_test(name):
    assert re.search(r"(Keras|TensorFlow)\s+\d+\.\d+", FUNCTIONS[name].__doc__)
    tree = ast.parse(pathlib.Path(__file__).read_text("utf-8"))
    tests = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    used = {n.attr for test in tests for n in ast.walk(test) if isinstance(n, ast.Attribute)}
    assert name in used


# Models as graphs.


def test_functional_and_built_sequential_models_record_a_graph():
    model, built = two_inputs(), sequential()
    assert keras_private.recorded_graph(model) is model
    inside = keras_private.recorded_graph(built)
    assert isinstance(inside, keras.Model)
    assert inside is not built
    assert [tensor.shape for tensor in inside.inputs] == [(None, 3)]
    doubled = two_inputs(Doubled)
    assert keras_private.recorded_graph(doubled) is doubled
    other = Subclassed()
    other(np.ones((1, 3)))
    operation = keras_private.nodes(keras_private.recorded_graph(with_operation()))[0].operation
    for without in (other, keras.Sequential([layers.Dense(2)]), layers.Dense(2), operation):
        assert keras_private.recorded_graph(without) is None


def with_operation():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.ops.exp(inputs))


def test_a_model_that_overrides_call_does_not_follow_its_graph():
    assert keras_private.followed_graph(two_inputs(Doubled)) is None
    named, built = two_inputs(Named), sequential()
    assert keras_private.followed_graph(named) is named
    assert keras_private.followed_graph(built) is keras_private.recorded_graph(built)
    # What decides it: where Keras' own models define `call`.
    assert type(two_inputs()).call.__module__.startswith("keras.src.models.")
    assert keras.Sequential.call.__module__.startswith("keras.src.models.")


def test_the_functional_model_inside_a_sequential_one_has_an_input_and_an_output():
    built = sequential()
    functional = keras_private.functional_inside(built)
    assert functional is not built
    assert (functional.input.shape, functional.output.shape) == ((None, 3), (None, 2))
    for itself in (two_inputs(), Subclassed(), functional):
        assert keras_private.functional_inside(itself) is itself


def test_nodes_are_the_calls_in_the_order_of_execution():
    model = two_inputs()
    nodes = keras_private.nodes(model)
    names = [node.operation.name for node in nodes]
    assert sorted(names) == ["add", "shared", "shared", "widen"]
    assert names[-1] == "add"
    known = {id(tensor) for tensor in model.inputs}
    for node in nodes:
        assert not node.is_input
        assert {id(tensor) for tensor in node.input_tensors} <= known
        known |= {id(tensor) for tensor in node.outputs}
    assert nodes[-1].outputs[0] is model.outputs[0]
    assert [tuple(t.shape) for t in nodes[-1].input_tensors] == [(None, 2), (None, 2)]


def test_the_arguments_of_a_call_are_filled_in_by_the_ids_of_tensors():
    tensor = keras.Input((4, 2))
    output = layers.MultiHeadAttention(1, 2)(tensor, value=tensor, use_causal_mask=True)
    (node,) = keras_private.nodes(keras.Model(tensor, output))
    assert node.arguments.args == (tensor,)
    assert node.arguments.kwargs["use_causal_mask"] is True
    args, kwargs = keras_private.fill_arguments(node, {id(tensor): "new"})
    assert args == ("new",)
    assert (kwargs["value"], kwargs["use_causal_mask"]) == ("new", True)


def test_inputs_of_any_structure_become_one_tensor_for_each_of_the_models_inputs():
    model = two_inputs()
    batch = {"a": np.ones((5, 3)), "b": np.zeros((5, 4))}
    found = keras_private.standardized_inputs(model, batch)
    assert [t.shape[1] for t in found] == [t.shape[1] for t in model.inputs]
    assert all(tf.is_tensor(tensor) and tensor.dtype == "float32" for tensor in found)
    inside = keras_private.functional_inside(sequential())
    assert [t.shape for t in keras_private.standardized_inputs(inside, np.ones((5, 3)))] == [(5, 3)]


def test_a_functional_model_keeps_the_structure_of_its_inputs_and_outputs():
    model = two_inputs()
    assert {k: t.shape[1] for k, t in keras_private.input_structure(model).items()} == {
        "a": 3,
        "b": 4,
    }
    outputs = keras_private.output_structure(model)
    assert list(outputs) == ["sum"]
    assert outputs["sum"] is model.outputs[0]


def test_a_copied_operation_records_its_own_calls():
    (node,) = keras_private.nodes(with_operation())
    used = copy.copy(node.operation)
    used.name = "copied"
    keras_private.forget_calls(used)
    inputs = keras.Input((3,))
    again = keras.Model(inputs, used(inputs))
    assert [n.operation.name for n in keras_private.nodes(again)] == ["copied"]
    assert keras_private.nodes(again)[0].input_tensors[0] is inputs


# Layers.


def test_a_call_takes_training_where_it_has_the_argument():
    assert keras_private.call_takes_training(layers.Dropout(0.5))
    assert keras_private.call_takes_training(two_inputs(Doubled))
    operation = keras_private.nodes(with_operation())[0].operation
    for other in (layers.Flatten(), operation, np.exp):
        assert keras_private.call_takes_training(other) is False


def test_a_copy_of_a_lambda_has_its_function():
    factor = keras.ops.ones((2,))
    layer = layers.Lambda(lambda x: x * factor, output_shape=(2,), dtype="float64", name="old")
    copied = keras_private.lambda_copy(layer, "new", layer.dtype_policy)
    assert (copied.name, copied.dtype, copied.function) == ("new", "float64", layer.function)
    assert copied.compute_output_shape((None, 2)) == (None, 2)


def test_all_layers_of_a_model_are_found_once():
    shared = layers.Dense(3, name="shared")
    nested = keras.Sequential([keras.Input((3,)), shared, layers.Activation("relu")], name="nested")
    outer = keras.Sequential([keras.Input((3,)), nested, shared], name="outer")
    found = keras_private.all_layers(outer)
    assert found[0] is outer
    assert sum(layer is shared for layer in found) == 1
    assert {"nested", "shared"} < {layer.name for layer in found}
    assert any(isinstance(layer, layers.Activation) for layer in found)
    below = keras_private.all_layers(outer, include_self=False)
    assert [id(layer) for layer in below] == [id(layer) for layer in found[1:]]
    dense = layers.Dense(2)
    assert keras_private.all_layers(dense) == [dense]


def test_child_layers_are_those_directly_inside():
    wrapper = layers.Bidirectional(layers.LSTM(2, name="cell"))
    wrapper.build((None, 4, 3))
    children = keras_private.child_layers(wrapper)
    assert [layer.name for layer in children] == ["forward_cell", "backward_cell"]
    assert [len(keras_private.child_layers(child)) for child in children] == [1, 1]  # the cells
    assert keras_private.child_layers(layers.Dense(2)) == []


@pytest.mark.parametrize("trainable", [True, False])
def test_own_variables_are_those_of_the_layer_itself(trainable):
    layer = WithRandomState(trainable=trainable)
    layer.build((None, 3))
    own = keras_private.own_variables(layer)
    assert [variable.name for variable in own] == ["scale", "count"]
    assert len(layer.variables) == 5  # with the inner layer's and the generator's


# Tensors and what is attached to them.


def test_keras_attaches_masks_to_outputs():
    masked = layers.Masking()(np.array([[[1.0], [0.0]]], "float32"))
    np.testing.assert_array_equal(keras_private.mask_of(masked), [[True, False]])
    assert keras_private.mask_of(layers.Dense(1)(np.ones((1, 1)))) is None


def test_the_reduction_of_losses_applies_a_mask():
    class Plain(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return y_pred

    losses = tf.constant([1.0, 3.0, 100.0])
    keras_private.set_mask(losses, tf.constant([True, True, False]))
    assert float(Plain()(losses, losses)) == 2.0


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_keras_keeps_the_logits_behind_probabilities(activation):
    logits = tf.constant([[1.0, -2.0, 300.0]])
    probabilities = getattr(keras.activations, activation)(logits)
    np.testing.assert_array_equal(keras_private.logits_of(probabilities), logits)
    output = layers.Dense(2, activation=activation)(np.ones((1, 3)))
    assert keras_private.logits_of(output).shape == (1, 2)
    assert keras_private.logits_of(keras.activations.relu(logits)) is None


def test_options_of_a_loss_are_read():
    assert keras_private.loss_options(keras.losses.Huber(delta=0.3)) == {"delta": 0.3}
    assert keras_private.loss_options(keras.losses.MeanSquaredError()) == {}
    assert keras_private.loss_options(keras.losses.Loss()) == {}


def test_values_are_attached_to_tensors_and_callbacks():
    seen = []

    @tf.function
    def function(value):
        keras_private.attach(value, "forward", (1, 2))
        seen.append((keras_private.attached(value, "forward"), value + 1))
        seen.append(keras_private.attached(value + 1, "forward"))
        return value

    function(tf.constant(1.0))
    assert (seen[0][0], seen[1]) == ((1, 2), None)
    for target in (tf.constant(1.0), keras.Input((2,)), keras.callbacks.History()):
        assert keras_private.attached(target, "forward") is None
        keras_private.attach(target, "forward", "value")
        assert keras_private.attached(target, "forward") == "value"
    assert keras_private.attached(None, "forward") is None


# Training.


def test_the_variables_of_training_are_created_before_the_first_step():
    model = compiled(optimizer="adam", metrics=["mae"])
    assert not model.optimizer.built
    x, y = keras.KerasTensor((None, 3)), keras.KerasTensor((None, 2))
    keras_private.create_training_variables(model, (x, y, None))
    assert model.optimizer.built
    before = [id(variable) for variable in (*model.optimizer.variables, *model.metrics_variables)]
    assert len(before) > 6
    model.train_on_batch(*ones())
    after = [id(variable) for variable in (*model.optimizer.variables, *model.metrics_variables)]
    assert after == before


@pytest.mark.usefixtures("traced_by_keras")
def test_fit_calls_the_train_function_of_the_moment():
    model, seen = compiled(), []
    assert keras_private.train_function(model) is None
    model.make_train_function()
    step = keras_private.train_function(model)
    assert callable(step)

    def first(iterator):
        seen.append("first")
        keras_private.set_train_function(model, second)
        return step(iterator)

    def second(iterator):
        seen.append("second")
        return step(iterator)

    keras_private.set_train_function(model, first)
    model.fit(*ones(), batch_size=2, epochs=2, verbose=0)
    assert seen == ["first", "second", "second", "second"]


def test_a_train_function_is_renewed_where_there_is_one():
    model = compiled()
    keras_private.renew_train_function(model)
    assert keras_private.train_function(model) is None
    model.fit(*ones(), verbose=0)
    before = keras_private.train_function(model)
    keras_private.renew_train_function(model)
    assert keras_private.train_function(model) not in (None, before)


def test_all_functions_are_renewed():
    model = compiled()
    model.fit(*ones(), verbose=0)
    model.evaluate(*ones(), verbose=0)
    model.predict(ones()[0], verbose=0)
    before = model.train_function, model.test_function, model.predict_function
    assert None not in before
    keras_private.renew_functions(model)
    assert keras_private.train_function(model) not in (None, before[0])
    assert model.test_function not in (None, before[1])
    assert model.predict_function is None
    model.predict(ones()[0], verbose=0)
    assert model.predict_function not in (None, before[2])


def test_the_metrics_of_compile_are_one_of_the_models_metrics():
    assert keras_private.compiled_metrics(compiled()) is None
    model = compiled(metrics=["mae"])
    metrics = keras_private.compiled_metrics(model)
    assert [metric is metrics for metric in model.metrics].count(True) == 1
    model.train_on_batch(*ones())
    assert set(metrics.result()) == {"mae"}


def test_loss_loss_weights_and_metrics_of_compile_are_read():
    assert keras_private.compiled_losses(two_inputs()) == (None, None)
    assert keras_private.compiled_metric_arguments(two_inputs()) is None
    model = two_inputs()
    model.compile("adam", {"sum": "mse"}, loss_weights={"sum": 2.0}, metrics={"sum": ["mae"]})
    assert keras_private.compiled_losses(model) == ({"sum": "mse"}, {"sum": 2.0})
    assert keras_private.compiled_metric_arguments(model) == {"sum": ["mae"]}


def test_a_training_step_of_the_users_own_is_found():
    class OwnStep(keras.Model):
        def train_step(self, data):
            return {}

    class OwnLoss(keras.Model):
        def compute_loss(self, **arguments):
            return 0.0

    assert keras_private.own_training_step(two_inputs(OwnStep)) == "train_step"
    assert keras_private.own_training_step(two_inputs(OwnLoss)) == "compute_loss"
    assert keras_private.own_training_step(two_inputs(Named)) == ""
    assert keras_private.own_training_step(keras.Sequential([layers.Dense(1)])) == ""


def test_the_function_behind_a_metric_gives_one_value_per_example():
    function = keras_private.metric_function(keras.metrics.MeanSquaredError())
    values = function(np.zeros((2, 2), "float32"), np.array([[1.0, 1.0], [2.0, 2.0]], "float32"))
    np.testing.assert_array_equal(values, [1.0, 4.0])
    whole = keras.metrics.AUC()
    assert keras_private.metric_function(whole) is whole


def test_a_metric_keeps_the_arguments_of_its_function():
    metric = keras.metrics.BinaryAccuracy(threshold=0.7)
    assert keras_private.metric_arguments(metric)["threshold"] == 0.7
    assert keras_private.metric_arguments(keras.metrics.AUC()) == {}


def test_a_metric_has_a_direction():
    assert keras_private.metric_direction(keras.metrics.AUC()) == "up"
    assert keras_private.metric_direction(keras.metrics.MeanSquaredError()) == "down"
    assert keras_private.metric_direction(keras.metrics.Mean()) is None


# Optimizers.


def test_an_optimizer_keeps_its_learning_rate_or_schedule():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    found = keras_private.learning_rate_or_schedule(keras.optimizers.SGD(schedule))
    assert found is schedule
    assert float(keras_private.learning_rate_or_schedule(keras.optimizers.SGD(0.5))) == 0.5


def test_adam_keeps_a_moment_for_each_variable():
    first, second = keras.Variable([0.0, 0.0]), keras.Variable(np.zeros((2, 3)))
    optimizer = keras.optimizers.Adam(0.1, beta_1=0.5)
    optimizer.build([first, second])
    optimizer.apply([tf.constant([1.0, 2.0]), tf.ones((2, 3))], [first, second])
    np.testing.assert_array_equal(keras_private.momentum_of(optimizer, first), [0.5, 1.0])
    assert keras_private.momentum_of(optimizer, second).shape == (2, 3)


def test_the_update_step_comes_after_clipping_and_can_be_replaced():
    variable, seen = keras.Variable([1.0]), []
    optimizer = keras.optimizers.SGD(0.5, clipvalue=1.0)
    step = keras_private.update_step(optimizer)

    def replaced(gradients, variables, learning_rate):
        seen.append((float(gradients[0][0]), variables[0] is variable, float(learning_rate)))
        step([2 * gradients[0]], variables, learning_rate)

    keras_private.set_update_step(optimizer, replaced)
    optimizer.apply([tf.constant([8.0])], [variable])
    assert seen == [(1.0, True, 0.5)]
    np.testing.assert_array_equal(variable, [0.0])


# State of the process, and graphs of TensorFlow.


def test_random_draws_go_on_after_the_state_is_restored():
    def draws():
        return [float(tf.random.uniform(())), float(keras.random.uniform(()))]

    def seed(value):
        keras.utils.set_random_seed(value)
        keras_private.forget_seed_generator()

    with kept_random_state():
        seed(3)
        first, second = draws(), draws()
        assert first != second
        seed(3)
        assert draws() == first
        state = keras_private.random_state()
        assert state["seed"] == 3
        seed(4)
        assert draws() not in (first, second)
        keras_private.restore_random_state(state)
        assert keras_private.random_state()["seed"] == 3
        assert draws() == second


def test_name_scopes_that_an_error_left_open_are_closed():
    refused = keras.layers.Identity(name="own head")
    with keras.name_scope("outer"), keras_private.name_scopes_kept():
        with pytest.raises(ValueError, match="not a valid"):
            tf.function(refused).get_concrete_function(tf.TensorSpec((2,)))
        assert keras.Variable(0.0, name="inside").path == "outer/own head/inside"  # Keras' error
    assert keras.Variable(0.0, name="after").path == "after"


def graphs_alive(name, but=()):
    """The graphs of a name that are alive, without those of other tests, which may go meanwhile."""
    gc.collect()
    known = {id(graph) for graph in but}  # as `but` holds them, no other object has their numbers
    alive = [o for o in gc.get_objects() if isinstance(o, FuncGraph) and o.name.startswith(name)]
    return [graph for graph in alive if id(graph) not in known]


def accumulating():
    return keras.optimizers.SGD(gradient_accumulation_steps=2)


def scaling():
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())


@pytest.mark.usefixtures("traced_by_keras")
@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, accumulating, scaling])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_graphs_of_training_steps_are_freed(optimizer, jit_compile):
    keras_private.forget_step_gradients()
    before = graphs_alive("one_step_on_data")
    model = sequential(layers.Dense(2, activation="silu", name="last"))
    model.compile(optimizer(), "mse", jit_compile=jit_compile)
    model.fit(*ones(), verbose=0)
    del model
    assert graphs_alive("one_step_on_data", before), "TensorFlow no longer keeps them"
    assert keras_private.forget_step_gradients() > 0
    assert graphs_alive("one_step_on_data", before) == []
    assert keras_private.forget_step_gradients() == 0


def test_a_prediction_has_its_gradient_after_other_models_are_freed():
    model, factor = sequential(layers.Dense(2, activation="silu", name="last")), tf.Variable(1.0)
    expected = model.predict(ones()[0], verbose=0).sum()
    compiled().fit(*ones(), verbose=0)
    keras_private.forget_step_gradients()
    with tf.GradientTape() as tape:  # `predict` is under the tape, as in reinforcement learning
        loss = factor * model.predict(ones()[0], verbose=0).sum()
    assert float(tape.gradient(loss, factor)) == pytest.approx(expected)


def test_functions_with_gradients_of_their_own_are_found_in_loops():
    @tf.custom_gradient
    def doubled(x):
        return 2 * x, lambda gradient: 3 * gradient

    @tf.function
    def loop(x):
        for _ in tf.range(3):
            x = doubled(x)
        return x

    graph = loop.get_concrete_function(tf.TensorSpec(())).graph
    found = [name for _, name, of in keras_private.functions_with_gradients() if of is graph]
    assert len(found) == 1
    assert "doubled" in found[0]
    assert keras_private.forget_gradients(lambda each: each is graph) == 1


def test_threads_that_forget_at_once():
    @tf.custom_gradient
    def doubled(x):
        return 2 * x, lambda gradient: 3 * gradient

    many = tf.function(lambda x: [doubled(x) for _ in range(40)], autograph=False)
    graph = many.get_concrete_function(tf.TensorSpec(())).graph
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        forget = keras_private.forget_gradients
        counts = list(pool.map(forget, [lambda each: each is graph] * 2))
    assert sum(counts) == 40


def test_functions_run_after_their_kernels_were_forgotten():
    double = tf.function(lambda x: 2 * x)
    assert double(tf.constant(2.0)) == 4
    keras_private.forget_kernels()
    assert double(tf.constant(3.0)) == 6


def test_gradients_of_other_graphs_are_kept():
    @tf.custom_gradient
    def doubled(x):
        return 2 * x, lambda gradient: 3 * gradient

    spec = tf.TensorSpec(())
    once, again = (tf.function(lambda x: doubled(x)).get_concrete_function(spec) for _ in range(2))
    assert keras_private.forget_gradients(lambda graph: graph is once.graph) == 1
    keras_private.forget_step_gradients()
    x = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        y = again(x)
    assert tape.gradient(y, x) == 3


def test_determinism_of_operations_can_be_read():
    from tensorflow.python.framework import config

    before = keras_private.op_determinism_is_enabled()
    tf.config.experimental.enable_op_determinism()
    try:
        assert keras_private.op_determinism_is_enabled()
    finally:
        if not before:
            config.disable_op_determinism()
    assert keras_private.op_determinism_is_enabled() is before


def test_variables_become_constants_and_other_resources_inputs():
    variable = tf.Variable([2.0, 3.0])
    spec = tf.TensorSpec((2,), tf.float32)
    traced = tf.function(lambda x: {"y": x * variable}).get_concrete_function(spec)
    assert traced.variables
    graph, inputs = keras_private.with_constants(traced)
    assert inputs == 1
    assert not [node for node in graph.node if "Variable" in node.op]
    fed, computed = traced.inputs[0].name, traced.outputs[0].name
    product = tf.compat.v1.wrap_function(
        lambda x: tf.graph_util.import_graph_def(graph, {fed: x}, [computed]), [spec]
    )(tf.constant([1.0, 1.0]))[0]
    np.testing.assert_array_equal(product, [2.0, 3.0])
    entries = tf.lookup.KeyValueTensorInitializer(tf.constant([1, 2]), tf.constant([3, 4]))
    table = tf.lookup.StaticHashTable(entries, -1)
    ids = tf.TensorSpec((2,), tf.int32)
    lookup = tf.function(lambda x: {"y": table.lookup(x)}).get_concrete_function(ids)
    assert keras_private.with_constants(lookup)[1] == 2


def test_the_converter_of_a_saved_model_is_that_of_tensorflow(tmp_path):
    module = tf.Module()
    module.weight = tf.Variable([2.0, 3.0])
    spec = tf.TensorSpec((1, 2), tf.float32, name="x")
    module.serve = tf.function(lambda x: {"y": x * module.weight}, input_signature=[spec])
    signatures = {"serving_default": module.serve.get_concrete_function()}
    tf.saved_model.save(module, str(tmp_path), signatures=signatures)
    theirs = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path), ["serving_default"])
    calibrated = []
    ours = keras_private.converter_of(str(tmp_path), "serving_default", calibrated.append)
    assert ours.convert() == theirs.convert()
    assert calibrated == []
    for converter in (ours, theirs):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter([[np.ones((1, 2), np.float32)]])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    assert ours.convert() == theirs.convert()
    assert len(calibrated) == 1


def test_a_file_is_changed_while_its_inputs_and_outputs_are_floats():
    spec = tf.TensorSpec((1, 2), tf.float32, name="x")

    def rounded(x):
        return tf.quantization.fake_quant_with_min_max_args(x, -4.0, 4.0)

    doubled = tf.function(lambda x: {"y": rounded(rounded(x) * rounded(tf.constant(2.0)))})
    traced = doubled.get_concrete_function(spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    files = []
    keras_private.change_before_integer_ends(converter, lambda file: files.append(file) or file)
    with quiet_converter():
        file = converter.convert()
    before, after = (tfnas.Artifact(bytes(content)) for content in (files[0], file))
    assert [before.inputs[0].dtype, before.outputs[0].dtype] == ["float32", "float32"]
    assert [after.inputs[0].dtype, after.outputs[0].dtype] == ["int8", "int8"]
    assert len(files) == 1


def test_an_input_that_the_first_batch_added_is_told_from_one_of_the_user():
    deferred = keras.Sequential([layers.Dense(2)])
    assert not keras_private.built_by_first_batch(deferred)
    assert keras_private.build_shapes(deferred) is None
    deferred(np.zeros((3, 4), np.float32))
    assert keras_private.built_by_first_batch(deferred)
    assert keras_private.build_shapes(deferred) == (4,)
    for own in (keras.Input((4,)), keras.Input(batch_shape=(3, 4))):
        assert not keras_private.built_by_first_batch(keras.Sequential([own, layers.Dense(2)]))
    assert not keras_private.built_by_first_batch(two_inputs())


def test_the_shapes_that_a_model_was_built_with():
    model = Subclassed()
    model(np.zeros((3, 4), np.float32))
    assert keras_private.build_shapes(model) == (4,)

    class Named(keras.Model):
        def call(self, inputs):
            return inputs["a"] + inputs["b"]

    named = Named()
    named({"a": np.zeros((3, 4), np.float32), "b": np.zeros((3, 4), np.float32)})
    assert keras_private.build_shapes(named) == {"a": (4,), "b": (4,)}


def test_the_operations_between_tensors_are_found():
    inputs = keras.Input((4,))
    first = layers.Dense(3, name="first")(inputs)
    last = layers.Dense(2, name="last")(keras.ops.relu(first))
    found = keras_private.operations_between([first], [last])
    assert [type(each).__name__ for each in found] == ["Dense", "Relu"]
    assert keras_private.operations_between([last], [last]) == []


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("kind", ["multi", "grouped"])
def test_attention_layers_have_projections(kind, gate):
    inputs = keras.Input((5, 6))
    if kind == "multi":
        layer = layers.MultiHeadAttention(2, 3, use_gate=gate)
    else:
        layer = layers.GroupQueryAttention(3, 4, 2, use_gate=gate)
    layer(inputs, inputs)
    found = keras_private.attention_projections(layer)
    assert list(found) == ["query", "key", "value", "gate", "output"]
    assert (found["gate"] is not None) is gate
    kernels = {id(each.kernel) for each in found.values() if each is not None}
    assert kernels | {id(e.bias) for e in found.values() if e} == {id(w) for w in layer.weights}


def test_recurrent_functions_are_replaced_in_this_thread_while_open():
    model = keras.Sequential([keras.Input((3, 2)), layers.LSTM(2, use_cudnn=False)])
    x, found = tf.ones((1, 3, 2)), []

    def rnn(step, inputs, initial_states, **options):
        found.append(sorted(options))
        return inputs[:, -1], inputs, initial_states

    expected = model(x)
    with keras_private.backend_functions_replaced({"rnn": rnn}):
        np.testing.assert_array_equal(model(x), x[:, -1])
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.append(model(x)))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(model(x), expected)
    np.testing.assert_array_equal(elsewhere[0], expected)
    assert {"go_backwards", "mask", "return_all_outputs", "zero_output_for_mask"} <= set(found[0])


def test_a_backend_function_is_found_while_another_is_called_in_its_place():
    name = "numpy.roll"
    with keras_private.backend_functions_replaced({name: lambda x, shift, axis=None: x}):
        np.testing.assert_array_equal(keras.ops.roll([1, 2, 3], 1), [1, 2, 3])
        found = keras_private.backend_function(name)([1, 2, 3], 1)
    np.testing.assert_array_equal(found, [3, 1, 2])
    assert keras_private.backend_function("rnn") is keras_private.backend_function("rnn")


def test_a_loop_over_steps_returns_outputs_and_states():
    x = np.arange(12, dtype="float32").reshape(2, 3, 2)
    mask = np.array([[True, True, False], [True, True, True]])

    def step(given, states):
        return states[0] + given, [states[0] + given]

    last, outputs, states = keras_private.loop_over_steps(
        step, tf.constant(x), [tf.zeros((2, 2))], mask=tf.constant(mask)
    )
    sums = np.cumsum(x, axis=1)
    sums[0, 2] = sums[0, 1]
    np.testing.assert_array_equal(outputs, sums)
    np.testing.assert_array_equal(last, sums[:, -1])
    np.testing.assert_array_equal(states[0], sums[:, -1])
    back = keras_private.loop_over_steps(
        step, tf.constant(x), [tf.zeros((2, 2))], go_backwards=True, return_all_outputs=False
    )
    np.testing.assert_array_equal(back[0], x.sum(axis=1))


@pytest.mark.parametrize("name", ["lstm", "gru", "bidirectional_lstm", "bidirectional_gru"])
def test_keras_takes_its_loop_where_a_replacement_raises(name):
    def refuse(*_, **__):
        calls.append(name)
        raise NotImplementedError

    calls = []
    kind = layers.LSTM if "lstm" in name else layers.GRU
    layer = layers.Bidirectional(kind(2)) if "bi" in name else kind(2)
    x = tf.ones((1, 3, 2))
    expected = layer(x)
    with keras_private.backend_functions_replaced({name: refuse}):
        np.testing.assert_allclose(layer(x), expected, rtol=1e-6)
    assert name in calls or "bi" in name  # of both directions: a form for GPUs alone


def test_outer_layer_calls_hands_over_calls_that_no_other_layer_makes():
    model, seen = Subclassed(), []

    def record(layer, call, args, kwargs):
        seen.append(layer)
        return call(*args, **kwargs)

    x = np.ones((1, 3), "float32")
    expected = model(x)
    with keras_private.outer_layer_calls(record):
        np.testing.assert_array_equal(model(x), expected)
        with keras_private.outer_layer_calls(lambda *call: "inner"):
            assert model(x) == "inner"
        np.testing.assert_array_equal(model.dense(x), expected)
        other = threading.Thread(target=lambda: model(x))
        other.start()
        other.join()
    np.testing.assert_array_equal(model(x), expected)
    assert seen == [model, model.dense]
