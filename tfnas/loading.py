"""Loads saved Keras models, with or without tfnas classes in them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a saved `.keras` or `.h5` model, including quantization-aware models and distillers.

    Classes of tfnas are registered first, so that Keras finds them. An `.h5` file of Keras 2 is
    read with tf_keras and converted (see :mod:`tfnas.legacy`). Code inside the file is never run.

    Example:
        >>> import keras, tempfile, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> path = f"{tempfile.mkdtemp()}/model.keras"
        >>> tfnas.quantize_aware(model).save(path)
        >>> tfnas.load_model(path).output_shape
        (None, 2)

    Args:
        path: A `.keras` or `.h5` file.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: There is no such file, or it is not a Keras model.
        ImportError: A file of Keras 2 needs tf_keras, which is not installed.

    References:
        `keras.models.load_model`:
        https://keras.io/api/models/model_saving_apis/model_saving_and_loading/
    """
    # Importing these modules registers their classes with Keras.
    import tfnas.distillation.distiller
    import tfnas.distillation.feature_losses
    import tfnas.quantization.quantize_aware  # noqa: F401
    from tfnas import legacy

    return legacy.load_model(os.fspath(path))
