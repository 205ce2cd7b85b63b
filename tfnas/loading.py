"""Loading a saved model, with layers of tfnas in it or not."""

from __future__ import annotations

import os
from typing import Any


def load_model(path: str | os.PathLike[str]) -> Any:
    """Loads a saved model: `.keras`, `.h5`, quantization-aware ones, distillers.

    Those hold classes of tfnas, which Keras does not know before they are imported; an `.h5`
    file of Keras 2 is read by tf_keras and brought over (see :mod:`tfnas.legacy`). Code inside
    the file is never run.

    Example:
        >>> import tfnas
        >>> model = tfnas.load_model("model.keras")  # doctest: +SKIP

    Args:
        path: A `.keras` or `.h5` file.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: There is no such file, or it is no Keras model.
        ImportError: A file of Keras 2 needs tf_keras, which is not installed.
    """
    # These register their classes.
    import tfnas.distillation.distiller
    import tfnas.distillation.feature_losses
    import tfnas.quantization.quantize_aware  # noqa: F401
    from tfnas import legacy

    return legacy.load_model(os.fspath(path))
