"""Whether two models compute the same, and which layer is the first that doesn't."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfnas.legacy.functional_steps import flat, mapped

TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Tap:
    """The output of one layer in both models.

    Args:
        name: The layer.
        old: The symbolic tensor in the first model.
        new: The symbolic tensor in the second one.
    """

    name: str
    old: Any
    new: Any


def check_equal(old: Any, new: Any, taps: list[Tap], tolerance: float = TOLERANCE) -> None:
    """Raises ValueError where two models give different outputs for random inputs.

    Args:
        old: The first model.
        new: The second one.
        taps: What to look at to find the layer, in the order of execution.
        tolerance: Largest difference allowed, as a share of the outputs' scale.

    Raises:
        ValueError: They differ; the first layer that does is named.
    """
    arrays = [_random(tensor, seed) for seed, tensor in enumerate(old.inputs)]
    found = max(map(difference, _outputs(old, arrays), _outputs(new, arrays)))
    if found <= tolerance:
        return
    name, there = _first(old, new, taps, arrays, tolerance) or ("the output", found)
    raise ValueError(
        f"model {old.name!r} computes something else after it was brought over: the outputs "
        f"differ by {found:.2g} of their scale, first after layer {name!r} (by {there:.2g})"
    )


def difference(old: np.ndarray, new: np.ndarray) -> float:
    """Returns the largest difference as a share of the first array's largest value.

    Example:
        >>> difference(np.array([1.0, 4.0]), np.array([1.0, 3.0]))
        0.25

    Args:
        old: The array that sets the scale.
        new: Another of the same shape.

    Returns:
        The share; infinity where the shapes or the places of NaN differ.
    """
    if old.shape != new.shape or not np.array_equal(np.isfinite(old), np.isfinite(new)):
        return float("inf")
    finite = np.isfinite(old)
    if not finite.any():
        return 0.0
    old, new = old[finite].astype(np.float64), new[finite].astype(np.float64)
    return float(np.abs(old - new).max() / max(np.abs(old).max(), 1e-12))


def _first(
    old: Any, new: Any, taps: list[Tap], arrays: list[np.ndarray], tolerance: float
) -> tuple[str, float] | None:
    firsts = type(old).__mro__, type(new).__mro__
    make = [_functional(mro) for mro in firsts]
    before = _outputs(make[0](old.inputs, [tap.old for tap in taps]), arrays)
    after = _outputs(make[1](new.inputs, [tap.new for tap in taps]), arrays)
    found = zip(taps, map(difference, before, after), strict=True)
    return next(((tap.name, value) for tap, value in found if value > tolerance), None)


def _functional(mro: tuple[type, ...]) -> Any:
    """The Model class of the library that a class belongs to."""
    return next(kind for kind in reversed(mro) if kind.__name__ == "Model")


def _outputs(model: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    structure = getattr(model, "_inputs_struct", getattr(model, "_nested_inputs", model.inputs))
    given = {id(tensor): array for tensor, array in zip(model.inputs, arrays, strict=True)}
    if any(kind.__name__ == "Sequential" for kind in type(model).__mro__):
        structure = model.inputs[0]  # its own record of it has a list around
    data = mapped(structure, lambda tensor: given[id(tensor)])
    return [np.asarray(output) for output in flat(model(data, training=False))]


def _random(tensor: Any, seed: int) -> np.ndarray:
    """Two examples; open dimensions get a size that most models take."""
    generator = np.random.default_rng(seed)
    batch, *rest = tensor.shape
    open_size = 64 if len(rest) > 2 else 8
    shape = (batch or 2, *(size or open_size for size in rest))
    dtype = np.dtype(getattr(tensor.dtype, "name", tensor.dtype))
    if dtype.kind in "iub":
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.normal(size=shape).astype(dtype)
