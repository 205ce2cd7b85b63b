"""Optional dependencies: packages of the extras in `setup.cfg`, needed by parts of tfnas."""

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
    if not _is_installed(module):
        raise ImportError(
            f"the package {package} must be installed for {what}: run "
            f'pip install ".[{extra}]" in a checkout of tfnas, or pip install {package}'
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False
