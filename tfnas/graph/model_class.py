"""Keeps the class of a model that trains in its own way.

A model may be of a class with its own `train_step`. A technique that builds the model anew has to
keep that class, or the model would be trained with Keras' own step, without a word.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from tfnas.graph.output_names import name_outputs
from tfnas.keras_private import all_layers, followed_graph, nodes

if TYPE_CHECKING:
    import keras

STEPS = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics")
_LIBRARIES = ("keras", "tf_keras")
_GRAPH = ("layers", "input_layers", "output_layers", "inputs", "outputs")  # of a config
_COMMON = ("name", "trainable", "dtype")  # of the config of every layer


def own_steps(model: keras.Model) -> tuple[str, ...]:
    """Returns the methods of training and evaluation that the class of a model overrides.

    Example:
        >>> import keras
        >>> class Mine(keras.Model):
        ...     def train_step(self, data):
        ...         return {"loss": 0.0}
        >>> inputs = keras.Input((4,))
        >>> own_steps(Mine(inputs, keras.layers.Dense(2)(inputs)))
        ('train_step',)

    Args:
        model: A model of Keras or tf_keras.
    """
    return tuple(name for name in STEPS if _overrides(type(model), name))


def in_class_of(model: keras.Model, inputs: Any, outputs: Any) -> keras.Model:
    """Returns a functional model that trains as another model does, not compiled.

    It is a plain functional model, unless the other's class has its own `train_step`, `test_step`,
    `predict_step`, `compute_loss` or `compute_metrics`. Then it is of the same class, with the same
    further arguments of its constructor: `get_config` has to return them. Weights that are in none
    of the layers between inputs and outputs are copied.

    Example:
        >>> import keras
        >>> class Mine(keras.Model):
        ...     def train_step(self, data):
        ...         return {"loss": 0.0}
        >>> inputs = keras.Input((4,))
        >>> model = Mine(inputs, keras.layers.Dense(2)(inputs))
        >>> type(in_class_of(model, inputs, keras.layers.Dense(3)(inputs))).__name__
        'Mine'

    Args:
        model: The model whose class is kept, functional or Sequential.
        inputs: Symbolic inputs, in the structure of the new model's argument.
        outputs: Symbolic outputs, in the structure of its result.

    Raises:
        ValueError: The class can't be kept; the message says why, and the way out.
    """
    import keras

    steps = own_steps(model)
    if not steps:
        return keras.Model(inputs, outputs, name=model.name)
    try:
        new = _of_same_class(model, inputs, outputs)
        _copy_further_weights(model, new)
    except Exception as error:  # the user's constructor can raise anything
        kind = type(model).__name__
        raise ValueError(
            f"model {model.name!r} can't be rebuilt with the {steps[0]} of its class {kind}: "
            f"{' '.join(str(error).split())[:200]}. Give {kind} a constructor that takes (inputs, "
            "outputs), and a get_config() with its further arguments; or pass "
            f"keras.Model(model.inputs, model.outputs), which trains without this {steps[0]}"
        ) from error
    return new


def plain(model: keras.Model) -> keras.Model:
    """Returns a model with Keras' own training and the same layers, for conversion to a file.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> plain(model) is model
        True

    Args:
        model: A model; one whose class trains as Keras does, or has its own `call`, is returned
            itself.
    """
    import keras

    graph = followed_graph(model)
    if graph is None or not own_steps(model):
        return model
    same = keras.Model(graph.input, graph.output, name=model.name)
    name_outputs(same, graph.output_names)
    return same


def check_no_own_steps(model: keras.Model, technique: str) -> None:
    """Raises ValueError for a model whose own training a technique can't keep.

    Args:
        model: A model of Keras or tf_keras.
        technique: Name of the calling function, for the message.

    Raises:
        ValueError: The model's class has its own `train_step` or the like.
    """
    if steps := own_steps(model):
        raise ValueError(
            f"model must train as Keras does, got {model.name!r} of class {type(model).__name__} "
            f"with its own {steps[0]}: {technique} returns a model of another library, without it. "
            "Pass keras.Model(model.inputs, model.outputs)"
        )


def own_objects(model: keras.Model) -> dict[str, Any]:
    """Returns the classes and functions in a model that Keras does not have, by their saved names.

    They are what `keras.saving.load_model` needs as `custom_objects` where they aren't registered.

    Example:
        >>> import keras
        >>> def halved(x):
        ...     return x / 2
        >>> dense = keras.layers.Dense(2, activation=halved)
        >>> list(own_objects(keras.Sequential([keras.Input((4,)), dense])))
        ['halved']

    Args:
        model: A model or layer.
    """
    import keras

    found: dict[str, Any] = {}
    for layer in all_layers(model):
        values = [each for each in vars(layer).values() if hasattr(each, "get_config")]
        functions = [each for each in vars(layer).values() if inspect.isfunction(each)]
        for item in (type(layer), *map(type, values), *functions):
            if not _is_of_library(item):
                found[keras.saving.get_registered_name(item)] = item
    return found


def _is_of_library(item: Any) -> bool:
    return str(item.__module__).split(".")[0] in _LIBRARIES


def _overrides(kind: type, name: str) -> bool:
    """Whether a class, or one between it and those of Keras, defines a method."""
    owner = next((each for each in kind.__mro__ if name in vars(each)), object)
    return owner is not object and not _is_of_library(owner)


def _of_same_class(model: keras.Model, inputs: Any, outputs: Any) -> keras.Model:
    import keras

    if isinstance(model, keras.Sequential):
        layers = _chain(inputs, outputs)
        return _constructed(model, {"layers": layers})
    new = _constructed(model, {"inputs": inputs, "outputs": outputs})
    for name, own, expected in (
        ("inputs", new.inputs, inputs),
        ("outputs", new.outputs, outputs),
    ):
        flat = keras.tree.flatten(expected)
        if len(own) != len(flat) or any(a is not b for a, b in zip(own, flat, strict=True)):
            raise ValueError(f"its constructor changes the {name}")
    return new


def _constructed(model: keras.Model, graph: dict[str, Any]) -> keras.Model:
    """Calls the constructor of a model's class with another graph."""
    kind = type(model)
    settings = dict(model.get_config()) if _overrides(kind, "get_config") else {}
    settings = {name: value for name, value in settings.items() if name not in _GRAPH}
    if _overrides(kind, "from_config"):
        created: keras.Model = kind.from_config({**settings, **graph, "name": model.name})
        return created
    parameters = inspect.signature(kind.__init__).parameters
    kinds = {each.kind for each in parameters.values()}
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds
    if not takes_any and (missing := [name for name in graph if name not in parameters]):
        raise ValueError(f"its constructor does not take {' and '.join(missing)}")
    further = [
        name
        for name, each in list(parameters.items())[1:]
        if name not in (*graph, *_COMMON) and each.kind not in _VARIADIC
    ]
    if unknown := [name for name in further if name not in settings]:
        raise ValueError(
            f"get_config() does not return {unknown[0]!r}, which its constructor takes"
        )
    arguments = {name: settings[name] for name in further}
    if takes_any:
        arguments |= {name: v for name, v in settings.items() if name not in _COMMON}
    if takes_any or "name" in parameters:
        arguments["name"] = model.name
    new: keras.Model = kind(**graph, **arguments)
    new.name = model.name
    return new


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _chain(inputs: Any, outputs: Any) -> list[Any]:
    """The input and the layers of a graph that is a chain; raises ValueError for another one."""
    import keras

    [tensor] = keras.tree.flatten(inputs)
    layers: list[Any] = [tensor]
    for node in nodes(keras.Model(inputs, outputs)):
        arguments = [*node.arguments.args, *node.arguments.kwargs.values()]
        alone = [each for each in arguments if each is not None]
        if (
            len(alone) != 1
            or alone[0] is not tensor
            or not isinstance(node.operation, keras.layers.Layer)
        ):
            raise ValueError("its layers no longer are a chain, as in a Sequential model")
        layers.append(node.operation)
        [tensor] = node.outputs
    return layers


def _copy_further_weights(model: keras.Model, new: keras.Model) -> None:
    """Copies the weights of a model that are in no layer of its graph."""
    old, own = _further_weights(model), _further_weights(new)
    if [tuple(each.shape) for each in old] != [tuple(each.shape) for each in own]:
        raise ValueError(
            f"it has {len(old)} weights outside of its graph, and a new one has {len(own)}"
        )
    for variable, value in zip(own, old, strict=True):
        variable.assign(value)


def _further_weights(model: keras.Model) -> list[Any]:
    import keras

    graph = followed_graph(model)
    layers = [each.operation for each in nodes(graph)]
    inside = {
        id(variable)
        for layer in layers
        if isinstance(layer, keras.layers.Layer)
        for variable in layer.variables
    }
    return [variable for variable in model.variables if id(variable) not in inside]
