"""Loading a saved model, quantisation-aware or not."""

from __future__ import annotations

import os
import pathlib
from typing import Any


def load_model(path: str | os.PathLike[str]) -> Any:
    """Loads a saved Keras model, also one of :func:`tfnas.quantize_aware`.

    Such a model holds layers of tfnas, which Keras does not know before they are imported.
    Code inside the file is never run.

    Example:
        >>> import tfnas
        >>> model = tfnas.load_model("model.keras")  # doctest: +SKIP

    Args:
        path: A `.keras` file.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: There is no such file, or it is no Keras model.
    """
    import keras

    import tfnas.quantization.fake_quant  # noqa: F401  (registers its layers)

    file = pathlib.Path(path)
    if not file.is_file():
        raise ValueError(f"model must be a .keras file, got {str(path)!r}, which is no file")
    try:
        return keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many types for a broken file
        cause = " ".join(str(error).split())[:300]
        raise ValueError(f"model {str(path)!r} can't be loaded: {cause}") from error
