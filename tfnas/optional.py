"""Optional dependencies: packages of the extras in `setup.cfg`, needed by parts of tfnas."""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from importlib.machinery import ModuleSpec

# Module -> (package, extra).
OPTIONAL = {
    "sklearn": ("scikit-learn", "digits"),
    "matplotlib": ("matplotlib", "plots"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "tf_keras": ("tf-keras", "legacy"),
    "tensorflow_model_optimization": ("tensorflow-model-optimization", "legacy"),
    "tflite_micro": ("tflite-micro", "micro"),
    "ethosu.vela": ("ethos-u-vela", "micro"),
}


def require(module: str, what: str) -> None:
    """Raises ImportError unless an optional module is installed; imports nothing.

    Call it before long-running work.

    Example:
        >>> from tfnas.optional import require
        >>> require("matplotlib", "the pictures of a report")

    Args:
        module: One of `OPTIONAL`.
        what: The feature that needs it, for the message.

    Raises:
        ImportError: The module is not installed; the message names the package and the extra.
    """
    package, extra = OPTIONAL[module]
    if _find_spec(module) is None:
        raise ImportError(
            f"the package {package} must be installed for {what}: run "
            f'pip install ".[{extra}]" in a checkout of tfnas, or pip install {package}'
        )


def _find_spec(module: str) -> ModuleSpec | None:
    """`importlib.util.find_spec`, which would import the packages that hold the module."""
    if module in sys.modules and sys.modules[module] is None:  # its import is blocked
        return None
    package, _, _ = module.rpartition(".")
    if not package:
        return importlib.util.find_spec(module)
    above = _find_spec(package)
    if above is None or above.submodule_search_locations is None:
        return None
    finders = map(pkgutil.get_importer, above.submodule_search_locations)
    specs = (finder.find_spec(module) for finder in finders if finder is not None)
    return next(filter(None, specs), None)
