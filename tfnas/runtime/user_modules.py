"""Modules of the user's own, which are named on the command line."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType


def user_module(name: str, argument: str) -> ModuleType:
    """Imports a module from the current folder, or an installed one.

    Args:
        name: Name of the module, such as "my_layers".
        argument: The argument or flag that names it, for messages.

    Raises:
        ValueError: The name has another form, there is no such module, or it can't be imported.
    """
    if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
        raise ValueError(f"{argument} must name a module, such as my_layers, got {name!r}")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    try:
        return importlib.import_module(name)
    except Exception as error:  # a module of the user's own can raise anything
        raise ValueError(
            f"{argument} must name a module in the current folder or an installed one, "
            f"got {name!r}: {type(error).__name__}: {error}"
        ) from error
