"""Frozen models that a student learns from.

Keras must not see them as parts of the student's model: they would be trained, pruned,
counted and written into every checkpoint. :class:`Teachers` is therefore a plain object. It
runs its models in inference mode, lets no gradient pass, and leaves them as they are:
not even their `trainable` is set, which copies of a teacher would inherit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfnas.distillation.feature_distances import shrunk
from tfnas.distillation.feature_losses import Transfer
from tfnas.distillation.forward import Reader, graph
from tfnas.distillation.losses import averaged
from tfnas.distillation.output_checks import check_model, check_number
from tfnas.graph.functional import settle


class Teachers:
    """Models that teach together.

    Args:
        models: A built Keras 3 model, a list of them, or None for none.
        weights: One number above 0 a model; None: all count alike.
        preprocess: What is done to the student's inputs first: a callable or a Keras layer
            for all models, or a list with one (or None) a model.
        gives: "logits" or "probabilities", for all models; None: by the last activation.
        features: What will be asked for of their inner activations.

    Raises:
        ValueError: An argument is outside its rule.
    """

    def __init__(
        self,
        models: Any,
        weights: Sequence[float] | None = None,
        preprocess: Any = None,
        gives: str | None = None,
        features: Sequence[Transfer] = (),
    ) -> None:
        listed = models if isinstance(models, (list, tuple)) else [models]
        if not listed:
            raise ValueError(
                "teacher must be a built Keras 3 model, a list of them or None, got []"
            )
        self.models = () if models is None else tuple(listed)
        for model in self.models:
            check_model("teacher", model)
        self.weights = _checked_weights(weights, len(self.models))
        self.preprocess = _listed_preprocess(preprocess, len(self.models))
        self.gives = gives
        self.readers = [
            Reader(model, "teacher", [f.teacher for f in features if f.of == index], gives)
            for index, model in enumerate(self.models)
        ]

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.models)

    def __getitem__(self, index: int) -> Any:
        return self.models[index]

    def told(self, x: Any, multi_label: bool) -> tuple[Any, list[dict[str, Any]]]:
        """Returns (logits of their average, a dictionary layer -> activations a model).

        Args:
            x: A batch of the student's inputs.
            multi_label: Whether each class is decided on its own.
        """
        readings = [
            reader.read(self._entering(index, x), False, multi_label)
            for index, reader in enumerate(self.readers)
        ]
        logits = averaged([r.logits for r in readings], self.weights, multi_label)
        features = [r.features for r in readings]
        return ops.stop_gradient(logits), keras.tree.map_structure(ops.stop_gradient, features)

    def check_inputs(self, student: Any) -> None:
        """Raises ValueError where a teacher can't take the student's inputs.

        Args:
            student: The student; a subclassed one is not looked at.
        """
        given = _input(student)
        if given is None:
            return  # several inputs: the teacher's own check must do
        for model, change in zip(self.models, self.preprocess, strict=True):
            wanted = _input_shape(model)
            shape = tuple(given.shape) if change is None else _shape_after(change, given)
            if wanted is not None and shape is not None and not _fits(shape, wanted):
                what = "teacher" if change is None else "preprocess"
                raise ValueError(
                    f"{what} must fit the student's inputs, got {shape} for inputs {wanted} of "
                    f"teacher {model.name!r}; images are resized, all else is for preprocess"
                )

    def supports_jit(self) -> bool:
        """Whether XLA can compile all of them."""
        parts = [layer for model in self.models for layer in model._flatten_layers()]
        parts += [p for p in self.preprocess if isinstance(p, keras.layers.Layer)]
        return all(layer.supports_jit for layer in parts)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, serialized; None for no teacher."""
        saved = [serialized(model) for model in self.models]
        changes = [p and keras.saving.serialize_keras_object(p) for p in self.preprocess]
        return {
            "teacher": saved or None,
            "teacher_weights": list(self.weights) if len(saved) > 1 else None,
            "preprocess": changes if any(changes) else None,
            "teacher_gives": self.gives,
        }

    def get_weights(self) -> list[np.ndarray]:
        """Returns all weights, also those of preprocessing layers."""
        return [value for part in self._with_weights() for value in part.get_weights()]

    def set_weights(self, values: Sequence[np.ndarray]) -> None:
        """Sets all weights, in the order of :meth:`get_weights`."""
        left = list(values)
        for part in self._with_weights():
            count = len(part.weights)
            part.set_weights(left[:count])
            settle(part)
            del left[:count]

    def _with_weights(self) -> list[Any]:
        layers = [p for p in self.preprocess if isinstance(p, keras.layers.Layer)]
        return [*self.models, *layers]

    def _entering(self, index: int, x: Any) -> Any:
        """The inputs as a teacher wants them: preprocessed, images in its resolution."""
        change, wanted = self.preprocess[index], _input_shape(self.models[index])
        x = x if change is None else _applied(change, x)
        size = None if wanted is None or len(wanted) != 4 else wanted[1:3]
        if size is None or None in size or len(getattr(x, "shape", ())) != 4:
            return x
        return _resized(x, size)


def serialized(model: Any) -> dict[str, Any]:
    """A model's configuration, without how it was compiled: its losses need not load."""
    compiled, model.compiled = model.compiled, False
    try:
        return keras.saving.serialize_keras_object(model)
    finally:
        model.compiled = compiled


def _checked_weights(weights: Any, count: int) -> tuple[float, ...]:
    if weights is None:
        return (1.0,) * count
    if not isinstance(weights, (list, tuple)) or len(weights) != count:
        raise ValueError(
            f"teacher_weights must be a list of one number a teacher, {count}, got {weights!r}"
        )
    for weight in weights:
        check_number("teacher_weights", weight, low=0.0, outside={0.0})
    return tuple(map(float, weights))


def _listed_preprocess(preprocess: Any, count: int) -> tuple[Any, ...]:
    listed = preprocess if isinstance(preprocess, (list, tuple)) else [preprocess] * count
    if len(listed) != count or not all(p is None or callable(p) for p in listed):
        raise ValueError(
            f"preprocess must be a callable, or a list of one a teacher, {count}, got "
            f"{preprocess!r}"
        )
    return tuple(listed)


def _applied(change: Any, x: Any) -> Any:
    takes_it = getattr(change, "_call_has_training_arg", False)
    return change(x, training=False) if takes_it else change(x)


def _input(model: Any) -> Any:
    """A model's only input, symbolic; None where it has several, or does not tell."""
    given = graph(model).input if getattr(model, "inputs", None) else None
    return given if hasattr(given, "shape") else None


def _input_shape(model: Any) -> tuple[int | None, ...] | None:
    given = _input(model)
    return None if given is None else tuple(given.shape)


def _shape_after(change: Any, given: Any) -> tuple[int | None, ...] | None:
    """The shape that preprocessing gives, by a batch of one; None where that is unknown."""
    if None in given.shape[1:]:
        return None
    try:
        made = _applied(change, ops.zeros((1, *given.shape[1:]), given.dtype))
        return (None, *made.shape[1:])
    except Exception as error:  # a caller's function may raise anything
        raise ValueError(
            f"preprocess must take a batch of the student's inputs, {tuple(given.shape)} of "
            f"{given.dtype}, and failed: {' '.join(str(error).split())[:200]}"
        ) from error


def _resized(images: Any, size: tuple[Any, ...]) -> Any:
    """Images in another resolution: averaged where it is smaller, else interpolated."""
    given = tuple(images.shape[1:3])
    if given == size:
        return images
    if None not in given:
        images = shrunk(images, [min(pair) for pair in zip(given, size, strict=True)])
        if tuple(images.shape[1:3]) == size:
            return images
    return ops.image.resize(ops.cast(images, "float32"), size, data_format="channels_last")


def _fits(shape: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    if len(shape) != len(wanted):
        return False
    axes = [3] if len(wanted) == 4 and None not in wanted[1:3] else range(1, len(wanted))
    return all(None in (shape[i], wanted[i]) or shape[i] == wanted[i] for i in axes)
