"""The arguments of a call by their names, with shapes in place of tensors."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfnas.graph.known_sizes import Shape

if TYPE_CHECKING:
    from tfnas.graph.functional import Call


def named_arguments(call: Call, tensors: Sequence[Any] | None = None) -> dict[str, Any]:
    """Returns the arguments of a call by the names that its operation's `call` has for them.

    Tensors are :class:`~tfnas.graph.functional.Value` objects. A call that Keras did not record has
    its inputs alone.

    Args:
        call: The call.
        tensors: What stands for its inputs, one for each; None: the inputs themselves.
    """
    tensors = call.inputs if tensors is None else tensors
    args, kwargs = (tensors, {}) if call.node is None else call.arguments(tensors)
    return dict(inspect.signature(call.operation.call).bind_partial(*args, **kwargs).arguments)


def shapes_of(call: Call, *names: str) -> list[Shape | None]:
    """Returns the shapes of a call's arguments, tensors or arrays; None for those left out.

    Args:
        call: The call.
        names: Names of the arguments.
    """
    found = named_arguments(call)
    return [shape_of(found.get(name)) for name in names]


def shape_of(value: Any) -> Shape | None:
    """Returns the shape of a tensor, array, number or variable; None for anything else."""
    if isinstance(value, int | float | complex):
        return ()
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(None if n is None else int(n) for n in shape)
