"""The registry of users' own layers: what a technique may do with a class that Keras lacks.

:func:`register_layer` is the one way in. Zeros, clusters, channels, costs and fake quantization
read the same record. A layer that is not registered is opened where it is a block of other layers
(:mod:`tfnas.graph.layer_blocks`). Else it locks what touches it, its multiply-accumulates are not
counted, and it stays float in an integer file; reports name it.
"""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from tfnas.runtime.argument_rules import check_takes

if TYPE_CHECKING:
    import keras

Shape: TypeAlias = "tuple[int | None, ...]"
# (layer, shape of its input, shape of its output) -> MACs of one example; lists of shapes where
# there are several inputs or outputs.
MacsFunction: TypeAlias = Callable[[Any, Any, Any], "int | None"]

SAME, LOCKED, OPEN = "same", "locked", "open"
INTEGER_FORMS = ("same", "compute", "open", "float")
_AXES = ("consumes", "produces", "passes")
_CHANNEL_KEYS = (*_AXES, "size")


@dataclasses.dataclass(frozen=True)
class ChannelAxes:
    """How channels pass through a layer.

    Args:
        consumes: Maps a weight's attribute to the axis of the input's channels.
        produces: Maps a weight's attribute to the axis of new channels, the output's.
        passes: Maps a weight's attribute to the axis of channels that the layer takes in and gives
            out again.
        size: Argument of the constructor that is the number of output channels; None: it has none.
    """

    consumes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    produces: Mapping[str, int] = dataclasses.field(default_factory=dict)
    passes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    size: str | None = None


@dataclasses.dataclass(frozen=True)
class RegisteredLayer:
    """What a class of layers is registered with; see :func:`register_layer`.

    Args:
        kernels: Maps an attribute that holds a kernel to the axis of its outputs.
        channels: How channels pass; None: they are locked.
        macs: Counts the multiply-accumulates; None: they are unknown.
        integer_form: One of `INTEGER_FORMS`, or a mapping from the attribute of a kernel to the
            axis that has a scale for each index, None for one scale; None: not registered.
    """

    kernels: Mapping[str, int]
    channels: ChannelAxes | None
    macs: MacsFunction | None
    integer_form: str | Mapping[str, int | None] | None


_REGISTERED: dict[type, RegisteredLayer] = {}


def register_layer(
    layer_class: Any = None,
    *,
    kernels: Iterable[str] | Mapping[str, int] = (),
    channels: str | Mapping[str, Any] | None = None,
    macs: MacsFunction | int | None = None,
    integer_form: str | Mapping[str, int | None] | None = None,
) -> Any:
    """Opens your own layer class to pruning, clustering, channels, costs and integers.

    Subclasses inherit the registration of their class; the last registration of a class counts, and
    replaces all of the one before. Leave out what does not apply: a layer keeps its channels, has
    unknown multiply-accumulates, or stays float, and reports name it. A layer that calls Keras
    layers and `keras.ops` alone is opened into them without a registration, where it computes the
    same layers in training; `integer_form="open"` and nothing else opens it in any case.

    Example:
        >>> import keras, tfnas
        >>> @tfnas.register_layer(channels={"passes": {"gamma": 0}}, macs=0, integer_form="float")
        ... class Scale(keras.layers.Layer):
        ...     def build(self, input_shape):
        ...         self.gamma = self.add_weight(shape=input_shape[-1:], initializer="ones")
        ...     def call(self, x):
        ...         return x * self.gamma
        >>> parts = [keras.layers.Dense(8), Scale(), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((4,)), *parts])
        >>> smaller, _ = tfnas.prune_channels(model, target_macs=0.5)
        >>> tuple(smaller.layers[-2].gamma.shape), tfnas.profile(smaller).macs
        ((4,), 24)

    Args:
        layer_class: A subclass of `keras.layers.Layer`. Leave it out to use the function as a
            decorator.
        kernels: Names of the attributes that hold kernels, of at least two dimensions, which
            :func:`tfnas.prune` and :func:`tfnas.cluster` may change; or a mapping from each to the
            axis of its outputs, which is the last one otherwise.
        channels: How channels, the last axis of a tensor, pass. "locked" (the default): they stay.
            "same": the output has those of the input, as in an elementwise function. A mapping:
            "consumes" maps the attribute of a weight to the axis of the input's channels,
            "produces" to the axis of the output's, which are new ones, and "passes" to the axis of
            channels that come in and go out; "size" is the argument of the constructor (in
            `get_config`) that is the number of output channels, where it has one.
        macs: Function of (layer, input shape, output shape) that returns the multiply-accumulates
            of one example, or None where it can't tell. Shapes have the batch, None, first; of
            several inputs it gets a list. A number is that number for all.
        integer_form: What the layer becomes in an integer file. "same": moves values without
            changing them. "compute": one operator that TFLite has in integers, without weights; its
            output is quantized. "open": calls Keras layers and `keras.ops` only. "float": stays
            float. A mapping: one operator with weights; it maps the attribute of each kernel to its
            last axis for a scale for each index (convolutions), or to None for one scale (matrix
            products); the output is quantized.

    Returns:
        The class; without `layer_class` a decorator.

    Raises:
        ValueError: `layer_class` is no layer class, nothing is registered, or an argument does not
            fit.
    """
    record = _record(kernels, channels, macs, integer_form)
    if layer_class is None:
        return functools.partial(_register, record=record)
    return _register(layer_class, record)


def _register(layer_class: Any, record: RegisteredLayer) -> Any:
    import keras

    if not isinstance(layer_class, type) or not issubclass(layer_class, keras.layers.Layer):
        raise ValueError(
            f"layer_class must be a subclass of keras.layers.Layer, got {layer_class!r}: as a "
            "decorator, name the arguments: @register_layer(macs=...)"
        )
    if is_of_keras(layer_class) and record != RegisteredLayer({}, None, None, "float"):
        raise ValueError(
            "layer_class must be your own class; one of Keras takes integer_form='float' alone, "
            f"got {layer_class.__name__}"
        )
    _REGISTERED[layer_class] = record
    return layer_class


def unregister_layer(layer_class: type) -> None:
    """Removes a class from the registry; one that is not in it is no error.

    Args:
        layer_class: The class.
    """
    _REGISTERED.pop(layer_class, None)


def registered_layer(operation: keras.Operation) -> RegisteredLayer | None:
    """Returns what a layer's own class, or its nearest base class, is registered with.

    Args:
        operation: A layer or operation; None is returned for a class of Keras.
    """
    found = _nearest(operation)
    return None if found is None or is_of_keras(found) else _REGISTERED[found]


def registered_form(operation: keras.Operation) -> str | Mapping[str, int | None] | None:
    """Returns the `integer_form` of a layer's class, or of its nearest registered base class.

    Args:
        operation: A layer or operation, of Keras too.
    """
    found = _nearest(operation)
    return None if found is None else _REGISTERED[found].integer_form


def _nearest(operation: Any) -> type | None:
    return next((base for base in type(operation).__mro__ if base in _REGISTERED), None)


def is_of_keras(layer_class: type) -> bool:
    """Returns whether a class is one of Keras itself: another of its name may compute anything.

    Args:
        layer_class: The class of a layer or operation.
    """
    return layer_class.__module__.split(".")[0] == "keras"


def registered_kernels(layer: keras.layers.Layer) -> dict[str, Any]:
    """Returns the variables that a layer's class registers as kernels; none if it registers none.

    Args:
        layer: A built layer.

    Raises:
        ValueError: An attribute is missing or no weight of at least two dimensions.
    """
    record = registered_layer(layer)
    names = () if record is None else record.kernels
    return {name: weight_of(layer, name, "kernels", 2) for name in names}


def weight_of(layer: keras.layers.Layer, name: str, argument: str, rank: int = 1) -> Any:
    """Returns the weight that a registration names.

    Args:
        layer: A built layer.
        name: Name of the attribute.
        argument: Argument of `register_layer`, for the error message.
        rank: Least number of its dimensions.

    Raises:
        ValueError: The layer has no such weight.
    """
    found: Any = getattr(layer, name, None)
    if not any(found is weight for weight in layer.weights):
        own = ", ".join(sorted(k for k, v in vars(layer).items() if _is_among(v, layer.weights)))
        raise ValueError(
            f"{argument} of register_layer must name weights of {type(layer).__name__}, got "
            f"{name!r}; {layer.name!r} has {own or 'none'}"
        )
    if len(found.shape) < rank:
        raise ValueError(
            f"{argument} of register_layer must name weights of at least {rank} dimensions, got "
            f"{name!r} of shape {tuple(found.shape)} in {layer.name!r}"
        )
    return found


def check_slices(layer: keras.layers.Layer, values: Sequence[Any]) -> None:
    """Checks that a registered layer with fewer channels takes the weights that were cut for it.

    Args:
        layer: The built layer.
        values: The arrays for its weights.

    Raises:
        ValueError: A weight depends on the number of channels, and the registration leaves it out.
    """
    if registered_layer(layer) is None:
        return
    for weight, value in zip(layer.weights, values, strict=False):
        if tuple(weight.shape) != tuple(value.shape):
            raise ValueError(
                "channels of register_layer must name each weight whose size follows the channels, "
                f"got none for {weight.name!r} of {type(layer).__name__}: with fewer channels its "
                f"shape is {tuple(weight.shape)}, not {tuple(value.shape)}"
            )


def is_custom(operation: keras.Operation) -> bool:
    """Returns whether an operation computes with code that is not Keras' own.

    A subclass of a Keras layer that changes nothing but its construction is not custom.

    Args:
        operation: A layer or operation.
    """
    return class_of_keras(operation) is None


def class_of_keras(operation: keras.Operation) -> type | None:
    """Returns the class of Keras whose computation an operation has; None: it is custom.

    Args:
        operation: A layer or operation.
    """
    return _class_of_keras(type(operation))


def kind_of(operation_class: type) -> str:
    """Returns the name of a class, as rules know it.

    A class of another package with the name of a layer or operation of Keras has the package's name
    before it: it may compute anything, unless it computes what Keras' class of that name does.

    Args:
        operation_class: The class of a layer or operation.
    """
    known, own = _class_of_keras(operation_class), operation_class.__name__
    if known is not None and known.__name__ == own:
        return own
    package = operation_class.__module__.split(".")[0]
    taken = own in _names_of_keras() and package not in ("keras", "tfnas")
    return f"{package}.{own}" if taken else own


@functools.lru_cache(maxsize=1)
def _names_of_keras() -> frozenset[str]:
    """Returns the names of Keras' layers, and of the operations behind `keras.ops`."""
    import keras

    found, names = [keras.Operation], set(dir(keras.layers))
    while found:
        operation = found.pop()
        found += operation.__subclasses__()
        names |= {operation.__name__} if is_of_keras(operation) else set()
    return frozenset(names)


def _class_of_keras(operation_class: type) -> type | None:
    if operation_class not in _COMPUTES_AS:
        _COMPUTES_AS[operation_class] = _find_class_of_keras(operation_class)
    return _COMPUTES_AS[operation_class]


_COMPUTES_AS: weakref.WeakKeyDictionary[type, type | None] = weakref.WeakKeyDictionary()


def _find_class_of_keras(operation_class: type) -> type | None:
    own: set[str] = set()
    for base in operation_class.__mro__:
        if is_of_keras(base):
            changed = {name for name in own if hasattr(base, name)} - _CONSTRUCTION
            return None if changed or base.__name__ in _ABSTRACT else base
        own |= {
            name for name, value in vars(base).items() if callable(value) or _is_property(value)
        }
    return None


# Methods that a subclass may override without computing anything else.
_CONSTRUCTION = {
    "__init__",
    "build",
    "build_from_config",
    "compute_mask",
    "compute_output_shape",
    "compute_output_spec",
    "from_config",
    "get_build_config",
    "get_config",
    "load_own_variables",
    "save_own_variables",
}
_ABSTRACT = {"Layer", "Model", "Functional", "Operation", "Wrapper"}


def _is_property(value: Any) -> bool:
    return isinstance(value, property | classmethod | staticmethod)


def _is_among(value: Any, weights: Iterable[Any]) -> bool:
    return any(value is weight for weight in weights)


def _record(kernels: Any, channels: Any, macs: Any, integer_form: Any) -> RegisteredLayer:
    record = RegisteredLayer(
        _kernels(kernels), _channels(channels), _macs(macs), _integer_form(integer_form)
    )
    if record == RegisteredLayer({}, None, None, None) and channels is None:
        raise ValueError(
            "register_layer must get kernels, channels, macs or integer_form, got none of them"
        )
    if record.integer_form == OPEN and (record.kernels or channels is not None or macs is not None):
        raise ValueError(
            "kernels, channels and macs must be left out with integer_form 'open': the layers "
            "inside tell them"
        )
    return record


def _kernels(value: Any) -> dict[str, int]:
    if isinstance(value, str):
        value = (value,)
    items = value.items() if isinstance(value, Mapping) else _defaults(value, "kernels")
    return _named_axes(dict(items), "kernels")


def _defaults(value: Any, argument: str) -> list[tuple[Any, int]]:
    if not isinstance(value, Iterable):
        raise ValueError(f"{argument} must be names of attributes, got {value!r}")
    return [(name, -1) for name in value]


def _named_axes(value: Any, argument: str, none: bool = False) -> dict[str, Any]:
    """Checks a mapping from attributes to axes."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{argument} must map attributes to axes, got {value!r}")
    for name, axis in value.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{argument} must be names of attributes, got {name!r}")
        whole = isinstance(axis, int) and not isinstance(axis, bool)
        if not whole and not (none and axis is None):
            extra = " or None" if none else ""
            raise ValueError(f"{argument} must map {name!r} to an axis{extra}, got {axis!r}")
    return dict(value)


def _channels(value: Any) -> ChannelAxes | None:
    if value is None or (isinstance(value, str) and value == LOCKED):
        return None
    if isinstance(value, str) and value == SAME:
        return ChannelAxes()
    if not isinstance(value, Mapping):
        raise ValueError(
            f"channels must be 'same', 'locked' or a mapping with {', '.join(_CHANNEL_KEYS)}, got "
            f"{value!r}"
        )
    unknown = [key for key in value if key not in _CHANNEL_KEYS]
    if unknown:
        raise ValueError(
            f"channels must have the keys {', '.join(_CHANNEL_KEYS)}, got {unknown[0]!r}"
        )
    axes = {key: _named_axes(value.get(key, {}), f"channels[{key!r}]") for key in _AXES}
    size = value.get("size")
    if size is not None and not (isinstance(size, str) and size.isidentifier()):
        raise ValueError(f"channels['size'] must name an argument, got {size!r}")
    if bool(axes["consumes"]) != bool(axes["produces"]):
        raise ValueError(
            "channels must have 'consumes' and 'produces' together, got "
            f"{'consumes' if axes['consumes'] else 'produces'!r} alone"
        )
    twice = [n for n, axis in axes["consumes"].items() if axes["produces"].get(n) == axis]
    if twice:
        raise ValueError(f"channels must have two axes of {twice[0]!r}, got one for both sides")
    if axes["produces"] and size is None:
        raise ValueError("channels must have 'size' with 'produces', got none")
    if axes["passes"] and axes["produces"]:
        raise ValueError("channels must have 'passes' or 'produces', got both")
    return ChannelAxes(**axes, size=size)


def _macs(value: Any) -> MacsFunction | None:
    if value is None:
        return None
    if callable(value):
        check_takes("macs", value, ("layer", "input shape", "output shape"))
        found: MacsFunction = value
        return found
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"macs must be a function or a whole number from 0 on, got {value!r}")
    return functools.partial(_constant, value)


def _constant(number: int, *_: Any) -> int:
    return number


def _integer_form(value: Any) -> str | Mapping[str, int | None] | None:
    if value is None or (isinstance(value, str) and value in INTEGER_FORMS):
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            f"integer_form must be {', '.join(map(repr, INTEGER_FORMS))} or map kernels to axes, "
            f"got {value!r}"
        )
    for name, axis in _named_axes(value, "integer_form", none=True).items():
        if axis not in (None, -1):
            raise ValueError(
                f"integer_form must map {name!r} to -1, since an integer file has a scale for each "
                f"index of the last axis, or to None for one scale, got {axis!r}"
            )
    return dict(value)
