"""Every use of what Keras and TensorFlow do not document.

tfnas reads models as graphs, changes training steps and keeps random states. Keras and TensorFlow
have no public names for parts of that. Each function here uses one such name, and says in which
versions it was read. `tests/test_keras_private.py` fails where a library changes one of them, and
`tests/test_house.py` where another module of tfnas uses a private name of a library.
tf_keras and tfmot have :mod:`tfnas.legacy.tf_keras_private`.

Nothing is imported before it is needed: this module is on the ground floor.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_GLOBAL_SEEDS = ("global_random_seed", "global_seed_generator")


class CallArguments(Protocol):
    """The arguments of a recorded call: Keras' `SymbolicArguments` (Keras 3.12.0, 3.15.1)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def fill_in(self, tensor_dict: Mapping[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns args and kwargs with tensors in place of the symbolic ones, by their ids."""


class GraphNode(Protocol):
    """A recorded call of a layer or operation: Keras' `Node` (Keras 3.12.0, 3.15.1)."""

    operation: Any
    arguments: CallArguments
    input_tensors: list[Any]
    outputs: list[Any]
    is_input: bool


# Models as graphs.


def recorded_graph(model: keras.Model) -> Any:
    """Returns the functional model of a model or operation; None where no graph was recorded.

    Reads `Sequential._functional` and `Functional._nodes_by_depth` (Keras 3.12.0, 3.15.1). A
    functional model is returned itself; a Sequential one has a functional model inside once it is
    built; a subclassed model, a plain layer and an operation have none.

    Args:
        model: A Keras 3 model, layer or operation.
    """
    inner = getattr(model, "_functional", None)
    candidate = model if hasattr(model, "_nodes_by_depth") else inner
    return candidate if hasattr(candidate, "_nodes_by_depth") else None


def followed_graph(model: keras.Model) -> Any:
    """Returns :func:`recorded_graph`; None also where the model computes something else.

    A model whose class overrides `call` need not follow its graph. Keras' own models are those of
    `keras.src.models` (Keras 3.12.0, 3.15.1).

    Args:
        model: A Keras 3 model, layer or operation.
    """
    defines_call = next((c for c in type(model).__mro__ if "call" in vars(c)), None)
    is_keras = defines_call is None or defines_call.__module__.startswith("keras.src.models.")
    return recorded_graph(model) if is_keras else None


def functional_inside(model: keras.Model) -> Any:
    """Returns the functional model inside a Sequential one, and any other model itself.

    Reads `Sequential._functional` (Keras 3.12.0, 3.15.1). A functional model has an `input` and an
    `output`, in their structures, also before it is called; a Sequential one has not.

    Args:
        model: A Keras 3 model.
    """
    return getattr(model, "_functional", None) or model


def nodes(functional: keras.Model) -> list[GraphNode]:
    """Returns the calls of a functional model in the order of execution, without its inputs.

    Reads `Functional._nodes_by_depth` (Keras 3.12.0, 3.15.1): depth -> nodes; inputs are deepest.

    Args:
        functional: A functional model; see :func:`recorded_graph`.
    """
    by_depth = functional._nodes_by_depth
    ordered = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [node for node in ordered if not node.is_input]


def fill_arguments(
    node: GraphNode, tensors: Mapping[int, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the (args, kwargs) of a recorded call with tensors in place of the symbolic ones.

    Calls `Node.arguments.fill_in` (Keras 3.12.0, 3.15.1).

    Args:
        node: The call.
        tensors: id of each of `node.input_tensors` -> the tensor in its place.
    """
    return node.arguments.fill_in(tensors)


def built_by_first_batch(model: keras.Model) -> bool:
    """Whether the input of a Sequential model was added when its first batch came.

    Keras then fixes the size of that batch. Reads `Sequential._layers` and the arguments that an
    operation keeps in `_auto_config` (Keras 3.15.1): `Sequential.build` passes a dtype and no name,
    `keras.Input` passes what the user wrote.

    Args:
        model: A Keras 3 model.
    """
    first: Any = next(iter(getattr(model, "_layers", ())), None)
    if getattr(model, "_functional", None) is None or type(first).__name__ != "InputLayer":
        return False
    arguments = getattr(getattr(first, "_auto_config", None), "config", None) or {}
    automatic = first.name.startswith("input_layer") and arguments.get("dtype") is not None
    return automatic and (first.batch_shape[0] or 0) > 1


def build_shapes(model: keras.Model) -> Any:
    """Returns the shapes, without the batch, that the first call built a model with.

    Reads `Layer._build_shapes_dict` (Keras 3.12.0, 3.15.1).

    Args:
        model: A Keras 3 model.

    Returns:
        A tuple, or dictionaries and lists of tuples; None where the model was not called.
    """
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes or len(shapes) != 1:
        return None

    def without_batch(nested: Any) -> Any:
        if isinstance(nested, Mapping):
            return {name: without_batch(each) for name, each in nested.items()}
        if any(isinstance(each, list | tuple | Mapping) for each in nested):
            return [without_batch(each) for each in nested]
        return tuple(nested[1:])

    [found] = shapes.values()
    return None if found is None else without_batch(found)


def standardized_inputs(functional: keras.Model, inputs: Any) -> list[Any]:
    """Returns inputs as a functional model uses them: one tensor for each of its `inputs`.

    Calls `Functional._standardize_inputs` (Keras 3.12.0, 3.15.1), which takes any structure of
    arrays that the model takes.

    Args:
        functional: A functional model; see :func:`functional_inside`.
        inputs: A batch: an array, or a list or dictionary of arrays.
    """
    return functional._standardize_inputs(inputs)


def input_structure(functional: keras.Model) -> Any:
    """Returns the symbolic inputs of a functional model in the structure of its argument.

    Reads `Functional._inputs_struct` (Keras 3.12.0, 3.15.1).

    Args:
        functional: A functional model.
    """
    return functional._inputs_struct


def output_structure(functional: keras.Model) -> Any:
    """Returns the symbolic outputs of a functional model in the structure of its result.

    Reads `Functional._outputs_struct` (Keras 3.12.0, 3.15.1).

    Args:
        functional: A functional model.
    """
    return functional._outputs_struct


def forget_calls(operation: keras.Operation) -> None:
    """Empties the record of an operation's calls, for a copy that was not called yet.

    Sets `Operation._inbound_nodes` and `_outbound_nodes` (Keras 3.12.0, 3.15.1).

    Args:
        operation: The copy; changed in place.
    """
    operation._inbound_nodes, operation._outbound_nodes = [], []


# Layers.


def operations_between(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """Returns the layers and operations that made tensors from others, the last ones first.

    Reads `KerasTensor._keras_history` (Keras 3.12.0, 3.15.1).

    Args:
        inputs: The symbolic tensors at which it begins.
        outputs: Symbolic tensors.
    """
    known, waiting = {id(tensor) for tensor in inputs}, list(outputs)
    found: dict[int, Any] = {}
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in known:
            continue
        known.add(id(tensor))
        operation, number, _ = tensor._keras_history
        found[id(operation)] = operation
        waiting += operation._inbound_nodes[number].input_tensors
    return list(found.values())


def attention_projections(layer: keras.layers.Layer) -> dict[str, Any]:
    """Returns the EinsumDense layers of an attention layer; None where it has none of a name.

    Reads `_query_dense`, `_key_dense`, `_value_dense`, `_gate_dense` and `_output_dense` of
    MultiHeadAttention and GroupedQueryAttention (Keras 3.12.0, 3.15.1).

    Args:
        layer: The layer, built.
    """
    names = ("query", "key", "value", "gate", "output")
    return {name: getattr(layer, f"_{name}_dense", None) for name in names}


def call_takes_training(operation: keras.Operation) -> bool:
    """Whether a layer's `call` has the argument `training`; False for what is no layer.

    Reads `Layer._call_has_training_arg` (Keras 3.12.0, 3.15.1).

    Args:
        operation: A layer, an operation, or any function.
    """
    return bool(getattr(operation, "_call_has_training_arg", False))


def all_layers(layer: keras.layers.Layer, include_self: bool = True) -> list[Any]:
    """Returns a layer or model and all layers inside it, at any depth, each once.

    Calls `Layer._flatten_layers` (Keras 3.12.0, 3.15.1), which tf_keras has too (2.21.0).

    Args:
        layer: A layer or model of Keras or tf_keras.
        include_self: Whether it comes first in the list itself.
    """
    return list(layer._flatten_layers(include_self=include_self))


def child_layers(layer: keras.layers.Layer) -> list[Any]:
    """Returns the layers directly inside a layer or model.

    Reads `Layer._layers` (Keras 3.12.0, 3.15.1).

    Args:
        layer: The layer or model.
    """
    return list(layer._layers)


def own_variables(layer: keras.layers.Layer) -> list[Any]:
    """Returns the variables of a layer itself, without those of layers inside it.

    Reads `Layer._trainable_variables` and `_non_trainable_variables` (Keras 3.12.0, 3.15.1).
    Trainable ones come first, also where the layer is frozen; states of random generators are
    in neither.

    Args:
        layer: A built layer.
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def lambda_copy(layer: keras.layers.Lambda, name: str, dtype: Any) -> keras.layers.Lambda:
    """Returns a new Lambda layer with the function of another one.

    Reads `Lambda._output_shape` (Keras 3.12.0, 3.15.1). A configuration holds the function's
    compiled code without its global names, and Keras refuses to run it where it isn't trusted.

    Args:
        layer: The layer.
        name: Name of the copy.
        dtype: Its dtype policy.
    """
    return type(layer)(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        name=name,
        dtype=dtype,
        trainable=layer.trainable,
    )


# Tensors and what is attached to them.


def mask_of(tensor: keras.KerasTensor) -> Any:
    """Returns the mask that Keras attached to a layer's output; None where there is none.

    Reads `_keras_mask` (Keras 3.12.0, 3.15.1).

    Args:
        tensor: The output.
    """
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: keras.KerasTensor, mask: keras.KerasTensor) -> None:
    """Attaches a mask to a tensor, which the reductions of Keras' losses apply.

    Sets `_keras_mask` (Keras 3.12.0, 3.15.1).

    Args:
        tensor: Losses or a layer's input, (batch, ...); changed in place.
        mask: Which of them count, of the same shape.
    """
    tensor._keras_mask = mask


def logits_of(tensor: keras.KerasTensor) -> Any:
    """Returns the logits behind the output of a softmax or sigmoid; None where Keras kept none.

    Reads `_keras_logits` (Keras 3.12.0, 3.15.1), which Keras' own losses use too.

    Args:
        tensor: Probabilities.
    """
    return getattr(tensor, "_keras_logits", None)


def loss_options(loss: keras.losses.Loss) -> dict[str, Any]:
    """Returns the options of one of Keras' losses that is the mean of a function.

    Reads `LossFunctionWrapper._fn_kwargs` (Keras 3.12.0, 3.15.1). The configuration of
    `keras.losses.Huber` lacks its `delta` (Keras 3.15.1).

    Args:
        loss: A loss; {} for one of another kind.
    """
    return dict(getattr(loss, "_fn_kwargs", {}))


def attach(target: object, name: str, value: object) -> None:
    """Attaches a value of tfnas to an object of Keras or TensorFlow, as Keras does with masks.

    Relies on tensors and callbacks taking new attributes (Keras 3.12.0, 3.15.1; TensorFlow
    2.21.0). Operations on a tensor return another one, without it.

    Args:
        target: A tensor or a callback; changed in place.
        name: Name of the value; the attribute is called `_tfnas_NAME`.
        value: The value.
    """
    setattr(target, f"_tfnas_{name}", value)


def attached(target: object, name: str) -> Any:
    """Returns what :func:`attach` attached to an object; None where there is nothing.

    As there: Keras 3.12.0, 3.15.1; TensorFlow 2.21.0.

    Args:
        target: A tensor or a callback.
        name: Name of the value.
    """
    return getattr(target, f"_tfnas_{name}", None)


# Training.


def create_training_variables(model: keras.Model, batch: Sequence[Any]) -> None:
    """Creates the variables of a compiled model's optimizer, loss and metrics.

    Calls `Trainer._symbolic_build` (Keras 3.12.0, 3.15.1), as Keras does on JAX.

    Args:
        model: A built and compiled model; changed in place.
        batch: Symbolic (x, y, sample_weight) of shapes (batch, ...); None for what is missing.
    """
    model._symbolic_build(data_batch=batch)


def train_function(model: keras.Model) -> Callable[..., Any] | None:
    """Returns the compiled training step of a model; None before `fit` made one.

    Reads `Trainer.train_function` (Keras 3.12.0, 3.15.1), which `fit` calls with an iterator.

    Args:
        model: The model.
    """
    return getattr(model, "train_function", None)


def set_train_function(model: keras.Model, step: Callable[..., Any] | None) -> None:
    """Replaces the compiled training step of a model.

    Sets `Trainer.train_function` (Keras 3.12.0, 3.15.1), which `fit` reads anew for each step.

    Args:
        model: The model; changed in place.
        step: Takes an iterator over batches and returns the logs; None: `fit` compiles a new one.
    """
    model.train_function = step


def renew_train_function(model: keras.Model) -> None:
    """Has a model trace its training step again, if it was traced before.

    Calls `Trainer.make_train_function` (Keras 3.12.0, 3.15.1).

    Args:
        model: The model; changed in place.
    """
    if train_function(model) is not None:
        model.make_train_function(force=True)


def renew_functions(model: keras.Model) -> None:
    """Has a model trace its steps of training, evaluation and prediction again.

    Calls `Trainer.make_train_function` and `make_test_function`, and removes
    `predict_function`, which `predict` makes where it is missing (Keras 3.12.0, 3.15.1).

    Args:
        model: A compiled model; changed in place.
    """
    model.make_train_function(force=True)
    model.make_test_function(force=True)
    model.predict_function = None


def compiled_metrics(model: keras.Model) -> Any:
    """Returns the metric that holds the metrics passed to `compile`; None where there are none.

    Reads `Trainer._compile_metrics` (Keras 3.12.0, 3.15.1), which is one of `model.metrics`.

    Args:
        model: A compiled model.
    """
    return model._compile_metrics


def compiled_losses(model: keras.Model) -> tuple[Any, Any]:
    """Returns the loss and the loss weights that a model was compiled with; None where none are.

    Reads `Trainer._compile_loss` and its `_user_loss` and `_user_loss_weights` (Keras 3.12.0,
    3.15.1).

    Args:
        model: The model.
    """
    compiled = getattr(model, "_compile_loss", None)
    if compiled is None:
        return None, None
    return compiled._user_loss, compiled._user_loss_weights


def compiled_metric_arguments(model: keras.Model) -> Any:
    """Returns the `metrics` that a model was compiled with; None where there are none.

    Reads `Trainer._compile_metrics` and its `_user_metrics` (Keras 3.12.0, 3.15.1).

    Args:
        model: The model.
    """
    return getattr(getattr(model, "_compile_metrics", None), "_user_metrics", None)


def own_training_step(model: keras.Model) -> str:
    """Returns the method of training that a model's class overrides; "" where it overrides none.

    Compares with `TensorFlowTrainer.train_step` and `Trainer.compute_loss` (Keras 3.12.0, 3.15.1).

    Args:
        model: The model.
    """
    for name in ("train_step", "compute_loss"):
        owner = next(base for base in type(model).__mro__ if name in vars(base))
        if owner.__module__.partition(".")[0] != "keras":
            return name
    return ""


def metric_function(metric: object) -> Any:
    """Returns the function behind a metric that is the mean of a function; else the metric itself.

    Reads `MeanMetricWrapper._fn` (Keras 3.12.0, 3.15.1).

    Args:
        metric: A metric or function of `keras.metrics.get`.
    """
    return getattr(metric, "_fn", metric)


def metric_arguments(metric: object) -> dict[str, Any]:
    """Returns the arguments that a metric passes to the function that it is the mean of.

    Reads `MeanMetricWrapper._fn_kwargs` (Keras 3.12.0, 3.15.1).

    Args:
        metric: A metric; of another kind than `MeanMetricWrapper` there are none.
    """
    return dict(getattr(metric, "_fn_kwargs", {}))


def metric_direction(metric: object) -> str | None:
    """Returns "up" where a higher value of a metric is better, "down" where a lower; else None.

    Reads `Metric._direction` (Keras 3.12.0, 3.15.1), which keras_tuner goes by too.

    Args:
        metric: A metric.
    """
    return getattr(metric, "_direction", None)


# Optimizers.


def learning_rate_or_schedule(optimizer: keras.optimizers.Optimizer) -> Any:
    """Returns the learning rate of an optimizer as it was passed: a variable or a schedule.

    Reads `Optimizer._learning_rate` (Keras 3.12.0, 3.15.1). The public `learning_rate` is that of
    the current step.

    Args:
        optimizer: The optimizer.
    """
    return optimizer._learning_rate


def momentum_of(optimizer: keras.optimizers.Adam, variable: keras.Variable) -> Any:
    """Returns the variable in which Adam keeps the first moment of a variable's gradients.

    Reads `Adam._momentums` and calls `Optimizer._get_variable_index` (Keras 3.12.0, 3.15.1).

    Args:
        optimizer: Adam or a subclass, built.
        variable: A variable that it was built with.
    """
    return optimizer._momentums[optimizer._get_variable_index(variable)]


def update_step(optimizer: keras.optimizers.Optimizer) -> Callable[..., None]:
    """Returns the method with which an optimizer updates all variables.

    Reads `Optimizer._backend_update_step` (Keras 3.12.0, 3.15.1), which Keras calls with
    (gradients, variables, learning rate) after clipping and accumulation.

    Args:
        optimizer: The optimizer.
    """
    return optimizer._backend_update_step


def set_update_step(optimizer: keras.optimizers.Optimizer, step: Callable[..., None]) -> None:
    """Replaces the method with which an optimizer updates all variables.

    Sets `Optimizer._backend_update_step` (Keras 3.12.0, 3.15.1); see :func:`update_step`.

    Args:
        optimizer: The optimizer; changed in place.
        step: Takes gradients, variables and the learning rate.
    """
    optimizer._backend_update_step = step


# State of the process, and graphs of TensorFlow.


def random_state() -> dict[str, Any]:
    """Returns the seeds and the states of the random generators of Keras and TensorFlow.

    Reads `keras.src.backend.common.global_state` (Keras 3.12.0, 3.15.1) and
    `tensorflow.python.eager.context` (TensorFlow 2.21.0). Keras' generator is in it as an object:
    draws from that same object are not taken back. See :func:`forget_seed_generator`.
    """
    from keras.src.backend.common import global_state
    from tensorflow.python.eager import context

    generator = getattr(context.context(), "_rng", None)  # exists once a seed was set
    return {
        "keras": {name: global_state.get_global_attribute(name) for name in _GLOBAL_SEEDS},
        "seed": context.global_seed(),
        "generator": None if generator is None else generator.getstate(),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Sets the seeds and the random generators of Keras and TensorFlow.

    Uses the names of :func:`random_state` (Keras 3.12.0, 3.15.1; TensorFlow 2.21.0).

    Args:
        state: What :func:`random_state` returned.
    """
    import tensorflow as tf
    from keras.src.backend.common import global_state
    from tensorflow.python.eager import context

    for name, value in state["keras"].items():
        global_state.set_global_attribute(name, value)
    tf.random.set_seed(state["seed"])  # None: no seed
    if state["generator"] is not None:
        context.context()._rng.setstate(state["generator"])


def forget_seed_generator() -> None:
    """Has Keras create the generator of `keras.random` anew, from the global seed.

    Sets a name of `keras.src.backend.common.global_state` (Keras 3.12.0, 3.15.1), as
    `keras.utils.set_random_seed` itself does in 3.15.1, but not in 3.12.0.
    """
    from keras.src.backend.common import global_state

    global_state.set_global_attribute("global_seed_generator", None)


@contextlib.contextmanager
def name_scopes_kept() -> Iterator[None]:
    """Closes at its end the name scopes that were opened in it and left open by an error.

    Keras notes a scope before TensorFlow refuses its name (`name_scope.__enter__`, Keras 3.12.0,
    3.15.1), and never closes it: the paths of all later weights would begin with that name. Reads
    `name_scope_stack` of `keras.src.backend.common.global_state`.
    """
    from keras.src.backend.common import global_state

    def stack() -> list[Any]:
        return global_state.get_global_attribute("name_scope_stack") or []

    depth = len(stack())
    try:
        yield
    finally:
        del stack()[depth:]


def op_determinism_is_enabled() -> bool:
    """Whether `tf.config.experimental.enable_op_determinism` was called.

    Calls `is_op_determinism_enabled` of `tensorflow.python.framework.config` (TensorFlow 2.21.0).
    """
    from tensorflow.python.framework import config

    return bool(config.is_op_determinism_enabled())


def with_constants(function: tf.types.experimental.ConcreteFunction) -> tuple[Any, int]:
    """Returns a traced function's graph with constants in place of its variables.

    Does what `convert_variables_to_constants_v2` of
    `tensorflow.python.framework.convert_to_constants` does before it builds a function of the
    graph, and calls `context` of `tensorflow.python.eager` as that does (TensorFlow 2.21.0).

    Args:
        function: The traced function; control flow is kept as it is.

    Returns:
        The graph (a `GraphDef`), and how many inputs the function has in it: a resource other than
        a variable becomes one.
    """
    from tensorflow.python.eager import context
    from tensorflow.python.framework import convert_to_constants

    data = convert_to_constants._FunctionConverterDataInEager(
        func=function, lower_control_flow=False, aggressive_inlining=False
    )
    graph, replaced = convert_to_constants._replace_variables_by_constants(data)
    for each in graph.library.function:  # bodies of loops: those of the graph are new
        if context.context().has_function(each.signature.name):
            context.context().remove_function(each.signature.name)
    return graph, len(function.inputs) - len(replaced)


def forget_step_gradients() -> int:
    """Lets go of the graphs of Keras' training steps, and returns how many gradients held one.

    A function with a gradient of its own puts that into TensorFlow's registry of gradients, where
    it stays for good, and with it the graph that called the function. Keras' optimizers call one
    in each training step, to sum gradients over replicas. So every compiled model that was ever
    trained stays in memory. Nothing takes the gradient of such a step, which computed its own.
    Gradients of `predict` and of other functions may be taken, and stay.

    The graph of a step is named after `one_step_on_data` of `TensorFlowTrainer` (Keras 3.12.0,
    3.15.1), and calls `ReplicaContext.all_reduce` (TensorFlow 2.21).
    """
    calls = functions_with_gradients()
    steps = [
        graph
        for _, function, graph in calls
        if "all_reduce" in function and getattr(graph, "name", "").startswith("one_step_on_data")
    ]
    return forget_gradients(lambda graph: any(graph is step for step in steps), calls)


def forget_kernels() -> None:
    """Lets go of the compiled functions that nothing will call any more.

    TensorFlow keeps what it compiled of each function by its name, also once the function is gone:
    some MB for each trained network. A function that is called again is compiled again.

    Calls `clear_kernel_cache` of `tensorflow.python.eager.context` (TensorFlow 2.21).
    """
    from tensorflow.python.eager import context

    context.context().clear_kernel_cache()


def forget_gradients(
    is_done: Callable[[Any], bool], calls: Sequence[tuple[str, str, Any]] | None = None
) -> int:
    """Removes gradients of functions that were called in a graph, and returns their number.

    Changes `gradient_registry` of `tensorflow.python.framework.ops` (TensorFlow 2.21).

    Args:
        is_done: Whether nothing will take the gradient of a graph any more.
        calls: What :func:`functions_with_gradients` has returned; None: it is called.
    """
    from tensorflow.python.framework import ops

    calls = functions_with_gradients() if calls is None else calls
    entries = ops.gradient_registry._registry
    done = [name for name, _, graph in calls if is_done(graph)]
    # Another thread may have removed some.
    return sum(entries.pop(name, None) is not None for name in done)


def functions_with_gradients() -> list[tuple[str, str, Any]]:
    """Returns the functions with gradients of their own that were called in graphs.

    Reads `gradient_registry` of `tensorflow.python.framework.ops` and what
    `custom_gradient._graph_mode_decorator` registers there (TensorFlow 2.21): a function around
    `tape_grad_fn`, which holds the `result` of the call and `grad_fn`. The graph of a branch or of
    the body of a loop is part of the one around it (`ControlFlowFuncGraph.outer_graph`).

    Returns:
        For each call its name in the registry, the gradient's qualified name, and the graph.
    """
    import tensorflow as tf
    from tensorflow.python.framework import ops
    from tensorflow.python.ops.control_flow_v2_func_graphs import ControlFlowFuncGraph

    def variables_around(function: Any) -> Mapping[str, Any]:
        try:
            return inspect.getclosurevars(function).nonlocals
        except (TypeError, ValueError):  # no Python function, or a variable without a value
            return {}

    found = []
    for name, entry in tuple(ops.gradient_registry._registry.items()):
        if not name.startswith("CustomGradient-"):
            continue
        call = variables_around(variables_around(entry["type"]).get("tape_grad_fn"))
        results = [t for t in tf.nest.flatten(call.get("result")) if tf.is_symbolic_tensor(t)]
        if results:
            graph = results[0].graph
            while isinstance(graph, ControlFlowFuncGraph):
                graph = graph.outer_graph
            found.append((name, getattr(call.get("grad_fn"), "__qualname__", ""), graph))
    return found


@functools.cache
def _converter_of_saved_models() -> type[Any]:
    """The class of `converter_of`, made when TensorFlow is loaded."""
    from tensorflow.lite.python import lite

    class Converter(lite.TFLiteSavedModelConverterV2):
        """Does not load the SavedModel as functions to see where its operators were made."""

        check_calibrated: Callable[[bytes], None]

        @lite._export_metrics
        def convert(self) -> Any:
            graph, *_ = self._load_saved_model(self.saved_model_dir, self._saved_model_tags)
            return self._convert_from_saved_model(graph)

        def _quantize(self, content: bytes, *formats: Any) -> Any:
            inputs, outputs, activations, _, _, variables, debugging = formats
            if activations == lite._dtypes.int16:  # calibrated and quantized in one call
                return super()._quantize(content, *formats)
            self._experimental_calibrate_only = True
            try:
                calibrated = super()._quantize(content, *formats)
            finally:
                self._experimental_calibrate_only = False
            self.check_calibrated(calibrated)
            return lite._mlir_quantize(
                calibrated,
                self._experimental_disable_per_channel,
                input_data_type=inputs,
                output_data_type=outputs,
                enable_variable_quantization=variables,
                disable_per_channel_for_dense_layers=(
                    self._experimental_disable_per_channel_quantization_for_dense_layers
                ),
                debug_options_str=debugging.SerializeToString(),
            )

    return Converter


def converter_of(
    saved_model: str, signature: str, check_calibrated: Callable[[bytes], None]
) -> Any:
    """Returns TensorFlow's converter of a SavedModel that is known to have a signature.

    `TFLiteConverter.from_saved_model` and its `convert` both load the SavedModel as functions: to
    see which signatures there are, and where in the source each operator was made, which only a
    SavedModel with debug information says. Uses `TFLiteSavedModelConverterV2`, its `_quantize` and
    `_mlir_quantize` of `tensorflow.lite.python.lite` (TensorFlow 2.21.0).

    Args:
        saved_model: Its folder; without debug information.
        signature: Its only signature.
        check_calibrated: Gets the file with the ranges that the calibration of a mode of 8-bit
            activations found, before integers are made of them. What it raises, `convert` raises.
    """
    from tensorflow.lite.python import conversion_metadata_schema_py_generated, lite

    kind = conversion_metadata_schema_py_generated.ModelType.TF_SAVED_MODEL
    lite.TFLiteConverterBase._set_original_model_type(kind)
    converter = _converter_of_saved_models()(saved_model, {"serve"}, [signature])
    converter.check_calibrated = check_calibrated
    return converter


def change_before_integer_ends(converter: Any, change: Callable[[bytes], bytes]) -> None:
    """Lets a converter change the file before it makes integers of inputs and outputs.

    Wraps `_optimize_tflite_model` of `tensorflow.lite.python.lite.TFLiteConverterBase`, which does
    that for quantization-aware models (TensorFlow 2.21.0).

    Args:
        converter: TensorFlow's converter; changed in place.
        change: Gets the file, and returns the one that is used instead.
    """
    optimize = converter._optimize_tflite_model

    def changed(content: bytes, *arguments: Any, **options: Any) -> Any:
        return optimize(change(bytes(content)), *arguments, **options)

    converter._optimize_tflite_model = changed


# Calls while a model is opened.

_WATCHED, _REPLACING = threading.local(), threading.Lock()
_WATCHERS: dict[str, Any] = {}  # Keras' own function, and how many replace it now


@contextlib.contextmanager
def outer_layer_calls(
    replace: Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any],
) -> Iterator[None]:
    """Hands each call of a layer that no other layer makes to a function, in this thread.

    Wraps `keras.layers.Layer.__call__`, which Keras documents for calls alone (Keras 3.12.0,
    3.15.1).

    Args:
        replace: Function of (the layer, what calls it, positional arguments, keyword arguments),
            which returns the call's result.
    """
    import keras

    with _REPLACING:
        if not _WATCHERS:
            _WATCHERS["original"] = keras.layers.Layer.__call__
            _WATCHERS["count"] = 0
        _WATCHERS["count"] += 1
    original = _WATCHERS["original"]

    @functools.wraps(original)
    def watched(layer: Any, *args: Any, **kwargs: Any) -> Any:
        replace = getattr(_WATCHED, "replace", None)
        if replace is None:
            return original(layer, *args, **kwargs)
        _WATCHED.replace = None  # calls inside of this one are the layer's own
        try:
            return replace(layer, functools.partial(original, layer), args, kwargs)
        finally:
            _WATCHED.replace = replace

    with _REPLACING:
        keras.layers.Layer.__call__ = watched
    before = getattr(_WATCHED, "replace", None)
    _WATCHED.replace = replace
    try:
        yield
    finally:
        _WATCHED.replace = before
        with _REPLACING:
            _WATCHERS["count"] -= 1
            if not _WATCHERS["count"]:
                keras.layers.Layer.__call__ = _WATCHERS["original"]
                _WATCHERS.clear()


# Recurrent layers.

_REPLACED = threading.local()


def loop_over_steps(
    step: Callable[[Any, Any], tuple[Any, list[Any]]],
    x: Any,
    states: list[Any],
    *,
    mask: Any = None,
    go_backwards: bool = False,
    return_all_outputs: bool = True,
) -> tuple[Any, Any, list[Any]]:
    """Iterates over the time steps of a tensor, as recurrent layers do.

    Calls `keras.src.backend.rnn` (Keras 3.12.0, 3.15.1).

    Args:
        step: Function of (the input at a step, states), returning (output, new states).
        x: The inputs, (batch, steps, ...).
        states: The states before the first step, each (batch, ...).
        mask: Where an example's step counts, (batch, steps); elsewhere output and states stay.
        go_backwards: Whether the last step comes first.
        return_all_outputs: Whether the outputs of all steps are returned, or the last alone.

    Returns:
        The last output, all outputs in the order of computation, and the last states.
    """
    from keras.src import backend

    found: tuple[Any, Any, list[Any]] = backend.rnn(
        step,
        x,
        states,
        mask=mask,
        go_backwards=go_backwards,
        return_all_outputs=return_all_outputs,
    )
    return found


def backend_function(name: str) -> Callable[..., Any]:
    """Returns a function of Keras' backend, also while another one is called in its place.

    Reads a function of `keras.src.backend` or of one of its modules (Keras 3.12.0, 3.15.1).

    Args:
        name: As for :func:`backend_functions_replaced`.
    """
    from keras.src import backend

    module, _, attribute = name.rpartition(".")
    found = getattr(getattr(backend, module) if module else backend, attribute)
    return found.__wrapped__ if hasattr(found, "replaceable") else found


@contextlib.contextmanager
def backend_functions_replaced(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Lets layers and operations call other functions than Keras' own, in this thread, while open.

    Replaces `rnn`, `lstm`, `gru`, `bidirectional_lstm` and `bidirectional_gru` of
    `keras.src.backend`, and functions of its modules, such as `numpy.roll` (Keras 3.12.0, 3.15.1).
    A replaced function must compute the same; the recurrent ones other than `rnn` may raise
    NotImplementedError, and the layer calls `rnn` then.

    Args:
        functions: Name of a function -> what is called in its place.
    """
    from keras.src import backend

    def replaceable(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*arguments: Any, **options: Any) -> Any:
            function = getattr(_REPLACED, "functions", {}).get(name, original)
            return function(*arguments, **options)

        call.replaceable = True  # type: ignore[attr-defined]
        return call

    with _REPLACING:
        for name in functions:
            module, _, attribute = name.rpartition(".")
            owner = getattr(backend, module) if module else backend
            original = getattr(owner, attribute)
            if not hasattr(original, "replaceable"):
                setattr(owner, attribute, replaceable(name, original))
    before = getattr(_REPLACED, "functions", {})
    _REPLACED.functions = {**before, **functions}
    try:
        yield
    finally:
        _REPLACED.functions = before
