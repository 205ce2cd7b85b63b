"""The models that a job makes: in files, and the last ones in memory.

A model is used as it is while it is in memory. Its file is read after a restart, or when the
model has left memory. Not every model can be read from a file: the code of a Lambda layer is only
run with `safe_mode=False`, and a layer without a complete `get_config()` becomes another one. The
first model that is saved is read again, and its outputs are compared. If they differ, all models
of the job stay in memory until they are released.
"""

from __future__ import annotations

import pathlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.loading import Loading
from tfnas.runtime.files import save_if_possible

if TYPE_CHECKING:
    import keras

KEPT = 3  # models in memory, where their files can be read


class ModelStore:
    """Keeps models by the paths of their files.

    Args:
        loading: How files are read.
        inputs: Returns a few inputs, to compare a model with its file.
        note: Is called with a note for the user.
    """

    def __init__(
        self, loading: Loading, inputs: Callable[[], Any], note: Callable[[str], None]
    ) -> None:
        self._loading, self._inputs, self._note = loading, inputs, note
        self._models: OrderedDict[pathlib.Path, keras.Model] = OrderedDict()
        self._readable: bool | None = None  # not known yet

    def __contains__(self, path: pathlib.Path) -> bool:
        """Whether a model is in memory, or has a file."""
        return path in self._models or path.exists()

    def put(self, path: pathlib.Path, model: keras.Model) -> None:
        """Saves a model, and keeps it in memory.

        Args:
            path: A `.keras` file.
            model: The model.
        """
        self._models[path] = model
        self._models.move_to_end(path)
        if reason := save_if_possible(model, path):
            self._fails(f"can't be saved ({reason})")
            return
        if self._readable is None:
            self._try(path, model)
        while self._readable and len(self._models) > KEPT:
            self._models.popitem(last=False)

    def get(self, path: pathlib.Path) -> keras.Model:
        """Returns a model, from memory or else from its file.

        Args:
            path: The path that it was put under, perhaps by an earlier run of the job.

        Raises:
            ValueError: The file can't be read.
        """
        if path not in self._models:
            return self._loading.load(path)
        self._models.move_to_end(path)
        return self._models[path]

    def release(self, folder: pathlib.Path, kept: Collection[pathlib.Path]) -> None:
        """Lets models go that no later step needs.

        Args:
            folder: A folder: models of other ones stay.
            kept: Paths of the models in it that stay.
        """
        for path in list(self._models):
            if folder in path.parents and path not in kept:
                del self._models[path]

    def _try(self, path: pathlib.Path, model: keras.Model) -> None:
        """Reads a file again, and compares the outputs."""
        try:
            copy = self._loading.load(path)
        except ValueError as error:
            self._fails(f"can't be read again ({error})")
            return
        inputs = self._inputs()
        pairs = zip(_outputs(model, inputs), _outputs(copy, inputs), strict=True)
        if all(np.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs):
            self._readable = True
        else:
            self._fails(
                "compute something else when they are read again: a layer needs a get_config() "
                "with all of its arguments"
            )

    def _fails(self, why: str) -> None:
        if self._readable is not False:
            self._note(f"models of this job {why}; they stay in memory until the job ends")
        self._readable = False


def _outputs(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    import keras

    return [np.asarray(each) for each in keras.tree.flatten(model(inputs, training=False))]
