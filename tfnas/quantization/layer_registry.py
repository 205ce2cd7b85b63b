"""Roles of registered layers: what a class of the user becomes in an integer file."""

from __future__ import annotations

import enum

import keras

from tfnas.graph.registered_layers import registered_form


class Role(enum.Enum):
    """What a call becomes in an integer file; see :mod:`tfnas.quantization.layer_roles`."""

    KERNEL = enum.auto()
    WEIGHTS = enum.auto()
    LOOP = enum.auto()
    ROWS = enum.auto()
    NORM = enum.auto()
    AFFINE = enum.auto()
    RELU = enum.auto()
    COMPUTE = enum.auto()
    FORM = enum.auto()
    TABLE = enum.auto()
    FIXED = enum.auto()
    SAME = enum.auto()
    OPEN = enum.auto()
    FLOAT = enum.auto()


# Roles of layers whose weights are quantized.
WITH_WEIGHTS = (Role.KERNEL, Role.WEIGHTS, Role.LOOP, Role.ROWS)
_ROLES = {"same": Role.SAME, "compute": Role.COMPUTE, "open": Role.OPEN, "float": Role.FLOAT}


def registered_role(operation: keras.Operation) -> Role | None:
    """Returns the role of a registered layer; None where its class has no `integer_form`.

    Args:
        operation: A layer or operation.
    """
    form = registered_form(operation)
    if form is None:
        return None
    return _ROLES[form] if isinstance(form, str) else Role.WEIGHTS
