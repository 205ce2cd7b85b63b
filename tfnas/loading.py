"""Loads saved Keras models, with or without tfnas classes and the user's own in them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tfnas.graph.model_class import own_objects

if TYPE_CHECKING:
    import keras

CustomObjects = Mapping[str, type | Callable[..., Any]]


def load_model(
    path: str | os.PathLike[str],
    custom_objects: CustomObjects | None = None,
    safe_mode: bool = True,
) -> keras.Model:
    """Loads a saved `.keras` or `.h5` model, including quantization-aware models and distillers.

    Classes of tfnas are registered first, so that Keras finds them. An `.h5` file of Keras 2 is
    read with tf_keras and converted (see :mod:`tfnas.legacy`). Code inside the file is not run,
    unless `safe_mode` is False.

    Example:
        >>> import keras, tempfile, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> path = f"{tempfile.mkdtemp()}/model.keras"
        >>> tfnas.quantize_aware(model).save(path)
        >>> tfnas.load_model(path).output_shape
        (None, 2)

    Args:
        path: A `.keras` or `.h5` file.
        custom_objects: Name -> class or function, for layers and functions of your own that are
            not registered by `keras.saving.register_keras_serializable`.
        safe_mode: Whether to refuse files with Python code, as that of a Lambda layer. False runs
            it: only for files that you trust.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: There is no such file, it is not a Keras model, or it needs `custom_objects` or
            `safe_mode=False`.
        ImportError: A file of Keras 2 needs tf_keras, which is not installed.

    References:
        `keras.models.load_model`:
        https://keras.io/api/models/model_saving_apis/model_saving_and_loading/
    """
    return Loading(custom_objects, safe_mode).load(path)


@dataclasses.dataclass(frozen=True)
class Loading:
    """How the saved models of a job are read.

    Args:
        custom_objects: As for :func:`load_model`.
        safe_mode: As for :func:`load_model`.

    Raises:
        ValueError: An argument is of another kind.
    """

    custom_objects: CustomObjects | None = None
    safe_mode: bool = True

    def __post_init__(self) -> None:
        objects = {} if self.custom_objects is None else self.custom_objects
        if not isinstance(objects, Mapping) or not all(map(callable, objects.values())):
            raise ValueError(
                "custom_objects must map names to classes or functions, got "
                f"{self.custom_objects!r}"
            )
        if not isinstance(self.safe_mode, bool):
            raise ValueError(f"safe_mode must be True or False, got {self.safe_mode!r}")

    def load(self, path: str | os.PathLike[str], compiled: bool = False) -> keras.Model:
        """Returns the model of a file.

        Args:
            path: A `.keras` or `.h5` file.
            compiled: Whether it is compiled as it was when it was saved, where its loss and its
                metrics can be read.

        Raises:
            ValueError: As for :func:`load_model`.
            ImportError: As for :func:`load_model`.
        """
        # Importing these modules registers their classes with Keras.
        import tfnas.distillation.distiller
        import tfnas.distillation.feature_losses
        import tfnas.quantization.quantize_aware  # noqa: F401
        from tfnas import legacy
        from tfnas.quantization.aware_models import restore_output_names

        path = os.fspath(path)
        model = legacy.load_model(path, self.custom_objects, self.safe_mode, compiled)
        restore_output_names(model)
        return model

    def knowing(self, model: keras.Model) -> Loading:
        """Returns the same, with the classes and functions of a model that is in memory.

        Args:
            model: The model; files of models that were made from it can then be read.
        """
        objects = {**own_objects(model), **(self.custom_objects or {})}
        return dataclasses.replace(self, custom_objects=objects)
