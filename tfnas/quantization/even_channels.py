"""Even channels before rounding: smoothing and equalization as a command and a technique ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas.quantization.smooth_activations import smooth_activations
from tfnas.quantization.weight_equalization import equalize_weights

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import ExampleData
    from tfnas.quantization.channel_scaling import ScalingReport


def even_channels(
    model: keras.Model,
    data: ExampleData | None,
    *,
    smooth: float | None = None,
    equalize: bool = False,
    residual: bool = False,
) -> tuple[keras.Model, list[str]]:
    """Returns an equal model that loses less as integers, and a line on each thing that was done.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8, 8, 3))])
        >>> model.add(keras.layers.Conv2D(4, 3, activation="relu", name="first"))
        >>> model.add(keras.layers.Conv2D(4, 3, name="second"))
        >>> even_channels(model, None, equalize=True)[1]
        ['1 pair of layers is equalized, 1 layer is left as it is']

    Args:
        model: A Keras 3 model; it is not changed.
        data: Typical inputs without labels; needed for `smooth`.
        smooth: The strength of :func:`tfnas.smooth_activations`; None: not done.
        equalize: Whether :func:`tfnas.equalize_weights` is done, before that.
        residual: With `smooth`: whether residual branches count too.

    Raises:
        ValueError: There is nothing in the model that can be smoothed or equalized, or an argument
            is invalid; the message names the argument.
    """
    lines = []
    if equalize:
        model, report = equalize_weights(model)
        _check_some(report, "equalize", "two layers whose channels can be equalized")
        pairs = "pair of layers is" if len(report.scaled) == 1 else "pairs of layers are"
        lines.append(f"{len(report.scaled)} {pairs} equalized{_left(report, 'layer')}")
    if smooth is not None:
        if data is None:
            raise ValueError(f"data must be given for smooth, got none and smooth={smooth}")
        model, report = smooth_activations(model, data, smooth, residual=residual)
        _check_some(report, "smooth", "a normalization whose activations can be smoothed")
        noun = "layer" if residual else "normalization"
        layers = f"{noun} is" if len(report.scaled) == 1 else f"{noun}s are"
        lines.append(f"{len(report.scaled)} {layers} smoothed{_left(report, noun)}")
    return model, lines


def _check_some(report: ScalingReport, argument: str, what: str) -> None:
    if not report.scaled:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in report.skipped[:3])
        raise ValueError(f"{argument} needs {what}, got none{reasons and f' ({reasons})'}")


def _left(report: ScalingReport, noun: str) -> str:
    left = len(report.skipped)
    if left < 2:
        return f", 1 {noun} is left as it is" if left else ""
    return f", {left} {noun}s are left as they are"
