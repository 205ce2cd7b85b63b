"""Packages that only a part of tfnas needs: each belongs to an extra of `setup.cfg`."""

from __future__ import annotations

import importlib.util

# Module -> (package, extra).
OPTIONAL = {
    "sklearn": ("scikit-learn", "digits"),
    "matplotlib": ("matplotlib", "plots"),
    "tf_keras": ("tf-keras", "legacy"),
    "tensorflow_model_optimization": ("tensorflow-model-optimization", "legacy"),
    "tflite_micro": ("tflite-micro", "micro"),
    "ethosu.vela": ("ethos-u-vela", "micro"),
}


def require(module: str, what: str) -> None:
    """Raises unless an optional module is installed; nothing is imported.

    Call it before long work.

    Example:
        >>> from tfnas.optional import require
        >>> require("matplotlib", "the pictures of a report")

    Args:
        module: One of `OPTIONAL`.
        what: What needs it, for the message.

    Raises:
        ImportError: It is not installed; the message names the package and the extra.
    """
    package, extra = OPTIONAL[module]
    if not _is_installed(module):
        raise ImportError(
            f"the package {package} must be installed for {what}: run "
            f'pip install ".[{extra}]" in a checkout of tfnas, or pip install {package}'
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
