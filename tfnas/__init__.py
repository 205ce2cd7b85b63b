"""tfnas: compress and search Keras models, measured on the `.tflite` file itself.

The public names are those that the stub `__init__.pyi` imports. Each is loaded when it is first
used: importing tfnas imports no other module of it.
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import sys
from typing import Any

__version__ = "0.2.0"


def _modules_of_names() -> dict[str, str]:
    """Returns public name -> the module inside tfnas that has it, as the stub imports them."""
    # pkgutil reads inside a zipped wheel too, which lazy_loader.attach_stub does not.
    stub = ast.parse(pkgutil.get_data(__name__, "__init__.pyi") or b"")
    modules = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").removeprefix(__name__).removeprefix(".")
            modules.update({alias.name: module or alias.name for alias in node.names})
    return modules


_HOME = _modules_of_names()
__all__ = sorted(_HOME)


def _check_backend() -> None:
    """Raises RuntimeError where Keras runs, or would run, on another backend than TensorFlow."""
    keras = sys.modules.get("keras")
    found = keras.config.backend() if hasattr(keras, "config") else os.environ.get("KERAS_BACKEND")
    if found not in (None, "", "tensorflow"):
        raise RuntimeError(
            f"tfnas needs Keras on TensorFlow, got the backend {found!r}: set "
            "KERAS_BACKEND=tensorflow before Keras is imported"
        )


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME[name]
    _check_backend()
    module = importlib.import_module(f"{__name__}.{home}")
    _check_backend()  # a backend that a file of settings chose is known once Keras is imported
    if name == home:
        value = module
    elif hasattr(module, name):
        value = getattr(module, name)
    else:  # a module in a package, such as tfnas.tasks.metrics
        value = importlib.import_module(f"{module.__name__}.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({name for name in globals() if name.startswith("__")} | {*__all__})
