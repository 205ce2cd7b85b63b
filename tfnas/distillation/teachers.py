"""Frozen models that a student learns from.

Keras must not track them as parts of the distiller: they would be trained, pruned, counted and
written into every checkpoint. :class:`Teachers` is therefore a plain object. It runs its models
in inference mode and stops their gradients. It does not change them: even `trainable` stays as
it is, since copies of a teacher would inherit it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from tfnas.distillation.attention_taps import ActivationTap
from tfnas.distillation.feature_distances import area_downsample
from tfnas.distillation.feature_losses import Transfer
from tfnas.distillation.forward import ForwardPass, ForwardResult, OutputEnd, own_structure
from tfnas.distillation.losses import averaged, averaged_values
from tfnas.distillation.output_checks import check_model, check_number
from tfnas.distillation.output_kinds import compiled_losses, loss_facts
from tfnas.distillation.output_losses import OutputLoss
from tfnas.distillation.output_structure import OutputStructure, same_outputs
from tfnas.graph.functional import refresh_normalization
from tfnas.keras_private import all_layers, call_takes_training, functional_inside

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import Tensors

Preprocess = Callable[[Any], Any] | Sequence[Callable[[Any], Any] | None] | None


class Teachers:
    """One or several teachers whose outputs are averaged: of classes their probabilities.

    Args:
        models: A built Keras 3 model, a list of them, or None for none.
        weights: One number above 0 per model; None: equal weights.
        preprocess: Applied to the student's inputs first: a callable or a Keras layer for all
            models, or a list with one (or None) per model.
        gives: Whether the outputs of all models are "logits" or "probabilities"; None: inferred
            from each last activation.
        features: The losses that need intermediate activations of the models.
        structure: The student's outputs, in whose order the models' outputs are returned; None:
            those of the first model.

    Raises:
        ValueError: An argument is invalid, or the models have other outputs.
    """

    def __init__(
        self,
        models: keras.Model | Sequence[keras.Model] | None,
        weights: Sequence[float] | None = None,
        preprocess: Preprocess = None,
        gives: str | None = None,
        features: Sequence[Transfer] = (),
        structure: OutputStructure | None = None,
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
        structures = [own_structure(model, "teacher") or structure for model in self.models]
        losses = [
            compiled_losses(model, own or OutputStructure(("output",)))
            for model, own in zip(self.models, structures, strict=True)
        ]
        self.losses = losses  # of each model and output, as they were compiled
        self.forward_passes = [
            ForwardPass(
                model,
                "teacher",
                [f.teacher_tap for f in features if f.of == index],
                gives,
                [loss_facts(loss) for loss in losses[index]],
                structures[index],
            )
            for index, model in enumerate(self.models)
        ]
        self.gives = gives or self._gives_by_loss()
        if structure is None and self.models:
            structure = self.forward_passes[0].structure
        self.positions = [
            same_outputs(structure, one.structure) for one in self.forward_passes if structure
        ]

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.models)

    def __getitem__(self, index: int) -> Any:
        return self.models[index]

    def ends(self, output: int) -> list[OutputEnd]:
        """Returns how each model ends at an output of the student."""
        pairs = zip(self.forward_passes, self.positions, strict=True)
        return [one.ends[positions[output]] for one, positions in pairs]

    def loss_of(self, output: int) -> list[Any]:
        """Returns the loss that each model was compiled with for an output of the student."""
        pairs = zip(self.losses, self.positions, strict=True)
        return [losses[positions[output]] for losses, positions in pairs]

    def outputs_and_features(
        self, x: Tensors, outputs: Sequence[OutputLoss]
    ) -> tuple[list[Any], list[dict[ActivationTap, Any]]]:
        """Runs all teachers on a batch.

        Args:
            x: A batch of the student's inputs.
            outputs: How each output is compared.

        Returns:
            For each output the averaged logits (batch, ..., classes), or the averaged outputs
            where no logits are compared; and for each model a dictionary tap -> activations.
        """
        results = [
            forward.run(self._prepared_inputs(index, x), False)
            for index, forward in enumerate(self.forward_passes)
        ]
        values = [self._averaged(results, n, output) for n, output in enumerate(outputs)]
        features = [
            {tap: ops.stop_gradient(found) for tap, found in result.features.items()}
            for result in results
        ]
        return keras.tree.map_structure(ops.stop_gradient, values), features

    def _averaged(self, results: Sequence[ForwardResult], number: int, output: OutputLoss) -> Any:
        """The average of an output over all models."""
        runs = [
            (forward, result, positions[number])
            for forward, result, positions in zip(
                self.forward_passes, results, self.positions, strict=True
            )
        ]
        if not output.compares_logits:
            values = [result.tensors[position] for _, result, position in runs]
            return averaged_values(values, self.weights)
        logits = [
            forward.logits(result, position, output.multi_label)
            for forward, result, position in runs
        ]
        return averaged(logits, self.weights, output.multi_label)

    def _gives_by_loss(self) -> str | None:
        """What all outputs are, where only a loss says it, which a saved teacher loses."""
        ends = [end for one in self.forward_passes for end in one.ends]
        forms = {end.probabilities for end in ends}
        if len(forms) != 1 or not any(end.by_loss for end in ends) or None in forms:
            return None
        return "probabilities" if forms.pop() else "logits"

    def check_inputs(self, student: keras.Model) -> None:
        """Raises ValueError if a teacher can't take the student's inputs.

        Args:
            student: The student; a subclassed one is not checked.
        """
        source = _input(student)
        if source is None:
            return  # several inputs: the teacher checks them when it is called
        for model, preprocess in zip(self.models, self.preprocess, strict=True):
            expected = _input_shape(model)
            shape = tuple(source.shape) if preprocess is None else _shape_after(preprocess, source)
            if expected is not None and shape is not None and not _fits(shape, expected):
                argument = "teacher" if preprocess is None else "preprocess"
                raise ValueError(
                    f"{argument} must fit the student's inputs, got {shape} for inputs {expected} "
                    f"of teacher {model.name!r}; images are resized, other changes need preprocess"
                )

    def supports_jit(self) -> bool:
        """Whether XLA can compile all teachers."""
        parts = [layer for model in self.models for layer in all_layers(model)]
        parts += [p for p in self.preprocess if isinstance(p, keras.layers.Layer)]
        return all(layer.supports_jit for layer in parts)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, serialized; None for no teacher."""
        models = [serialized(model) for model in self.models]
        preprocess = [p and keras.saving.serialize_keras_object(p) for p in self.preprocess]
        return {
            "teacher": models or None,
            "teacher_weights": list(self.weights) if len(models) > 1 else None,
            "preprocess": preprocess if any(preprocess) else None,
            "teacher_gives": self.gives,
        }

    def get_weights(self) -> list[np.ndarray]:
        """Returns all weights, also those of preprocessing layers."""
        return [value for part in self._with_weights() for value in part.get_weights()]

    def set_weights(self, values: Sequence[np.ndarray]) -> None:
        """Sets all weights, in the order of :meth:`get_weights`."""
        remaining = list(values)
        for part in self._with_weights():
            count = len(part.weights)
            part.set_weights(remaining[:count])
            refresh_normalization(part)
            del remaining[:count]

    def _with_weights(self) -> list[Any]:
        layers = [p for p in self.preprocess if isinstance(p, keras.layers.Layer)]
        return [*self.models, *layers]

    def _prepared_inputs(self, index: int, x: Any) -> Any:
        """Preprocesses inputs for a teacher and resizes images to its resolution."""
        preprocess, expected = self.preprocess[index], _input_shape(self.models[index])
        x = x if preprocess is None else _apply(preprocess, x)
        size = None if expected is None or len(expected) != 4 else expected[1:3]
        if size is None or None in size or len(getattr(x, "shape", ())) != 4:
            return x
        return _resized(x, size)


def serialized(model: keras.Model) -> dict[str, Any]:
    """Returns a model's configuration without `compile`'s arguments, which may not load."""
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
            f"teacher_weights must be a list of one number per teacher, {count}, got {weights!r}"
        )
    for weight in weights:
        check_number("teacher_weights", weight, low=0.0, excluded={0.0})
    return tuple(map(float, weights))


def _listed_preprocess(preprocess: Any, count: int) -> tuple[Any, ...]:
    listed = preprocess if isinstance(preprocess, (list, tuple)) else [preprocess] * count
    if len(listed) != count or not all(p is None or callable(p) for p in listed):
        raise ValueError(
            f"preprocess must be a callable, or a list of one per teacher, {count}, got "
            f"{preprocess!r}"
        )
    return tuple(listed)


def _apply(preprocess: Any, x: Any) -> Any:
    return preprocess(x, training=False) if call_takes_training(preprocess) else preprocess(x)


def _input(model: Any) -> Any:
    """The symbolic input of a model; None where it has several or is subclassed."""
    tensor = functional_inside(model).input if getattr(model, "inputs", None) else None
    return tensor if hasattr(tensor, "shape") else None


def _input_shape(model: Any) -> tuple[int | None, ...] | None:
    tensor = _input(model)
    return None if tensor is None else tuple(tensor.shape)


def _shape_after(preprocess: Any, source: Any) -> tuple[int | None, ...] | None:
    """The shape after preprocessing, found with a batch of one; None where it is unknown."""
    if None in source.shape[1:]:
        return None
    try:
        outputs = _apply(preprocess, ops.zeros((1, *source.shape[1:]), source.dtype))
        return (None, *outputs.shape[1:])
    except Exception as error:  # a caller's function may raise anything
        raise ValueError(
            f"preprocess must take a batch of the student's inputs, {tuple(source.shape)} of "
            f"{source.dtype}, and failed: {' '.join(str(error).split())[:200]}"
        ) from error


def _resized(images: Any, size: tuple[Any, ...]) -> Any:
    """Resizes images: averages over areas where they get smaller, else interpolates."""
    old_size = tuple(images.shape[1:3])
    if old_size == size:
        return images
    if None not in old_size:
        images = area_downsample(images, [min(pair) for pair in zip(old_size, size, strict=True)])
        if tuple(images.shape[1:3]) == size:
            return images
    return ops.image.resize(ops.cast(images, "float32"), size, data_format="channels_last")


def _fits(shape: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    if len(shape) != len(expected):
        return False
    axes = [3] if len(expected) == 4 and None not in expected[1:3] else range(1, len(expected))
    return all(None in (shape[i], expected[i]) or shape[i] == expected[i] for i in axes)
