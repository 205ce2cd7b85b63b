"""Compares the outputs of two models, and finds the first layer where they differ."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfnas.legacy.functional_steps import flatten, map_structure
from tfnas.legacy.tf_keras_private import any_input_structure

TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Tap:
    """The output of one layer in both models, for comparison.

    Args:
        name: Name of the layer.
        old: Symbolic output in the original model.
        new: Symbolic output in the converted model.
    """

    name: str
    old: Any
    new: Any


def check_equal(old: Any, new: Any, taps: list[Tap], tolerance: float = TOLERANCE) -> None:
    """Raises ValueError if two models return different outputs for random inputs.

    Args:
        old: The original model.
        new: The converted model.
        taps: Outputs of layers to compare, in the order of execution.
        tolerance: Largest allowed difference, relative to the largest absolute output.

    Raises:
        ValueError: The outputs differ; the message names the first layer where they do.
    """
    arrays = [_random(tensor, seed) for seed, tensor in enumerate(old.inputs)]
    largest = max(map(difference, _outputs(old, arrays), _outputs(new, arrays)))
    if largest <= tolerance:
        return
    fallback = ("the output", largest)
    name, at_layer = _first_difference(old, new, taps, arrays, tolerance) or fallback
    raise ValueError(
        f"model {old.name!r} has other outputs after the conversion: they differ by {largest:.2g} "
        f"of their scale, first after layer {name!r} (by {at_layer:.2g})"
    )


def difference(old: np.ndarray, new: np.ndarray) -> float:
    """Returns the largest difference, relative to the first array's largest absolute value.

    Example:
        >>> difference(np.array([1.0, 4.0]), np.array([1.0, 3.0]))
        0.25

    Args:
        old: The reference, which sets the scale.
        new: An array of the same shape.

    Returns:
        The relative difference; infinity if the shapes or the positions of NaN and infinity
        differ.
    """
    if old.shape != new.shape or not np.array_equal(np.isfinite(old), np.isfinite(new)):
        return float("inf")
    finite = np.isfinite(old)
    if not finite.any():
        return 0.0
    old, new = old[finite].astype(np.float64), new[finite].astype(np.float64)
    return float(np.abs(old - new).max() / max(np.abs(old).max(), 1e-12))


def _first_difference(
    old: Any, new: Any, taps: list[Tap], arrays: list[np.ndarray], tolerance: float
) -> tuple[str, float] | None:
    old_model, new_model = _model_class(old), _model_class(new)
    before = _outputs(old_model(old.inputs, [tap.old for tap in taps]), arrays)
    after = _outputs(new_model(new.inputs, [tap.new for tap in taps]), arrays)
    differences = zip(taps, map(difference, before, after), strict=True)
    return next(((tap.name, value) for tap, value in differences if value > tolerance), None)


def _model_class(model: Any) -> Any:
    """The class `Model` of the model's library."""
    return next(kind for kind in reversed(type(model).__mro__) if kind.__name__ == "Model")


def _outputs(model: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    structure = any_input_structure(model)
    by_tensor = {id(tensor): array for tensor, array in zip(model.inputs, arrays, strict=True)}
    if any(kind.__name__ == "Sequential" for kind in type(model).__mro__):
        structure = model.inputs[0]  # its recorded structure is a list of one
    data = map_structure(structure, lambda tensor: by_tensor[id(tensor)])
    return [np.asarray(output) for output in flatten(model(data, training=False))]


def _random(tensor: Any, seed: int) -> np.ndarray:
    """Two random examples; unknown dimensions get a size that most models accept."""
    generator = np.random.default_rng(seed)
    batch, *rest = tensor.shape
    default_size = 64 if len(rest) > 2 else 8
    shape = (batch or 2, *(size or default_size for size in rest))
    dtype = np.dtype(getattr(tensor.dtype, "name", tensor.dtype))
    if dtype.kind in "iub":
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.normal(size=shape).astype(dtype)
