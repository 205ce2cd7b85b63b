"""Sizes of images and series, and the strides that suit them."""

from __future__ import annotations

import math
from collections.abc import Iterable


def image_shape(input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns the shape of an image, or of a series as an image of height 1.

    Example:
        >>> image_shape((128, 9)), image_shape((28, 28, 1))
        ((1, 128, 9), (28, 28, 1))

    Args:
        input_shape: (height, width, channels), or (steps, channels) of a series.
    """
    height, width, channels = (1, *input_shape) if len(input_shape) == 2 else input_shape
    return height, width, channels


def fitted_strides(
    sides: Iterable[int], strides: Iterable[int], smallest: int = 4
) -> tuple[int, list[int]]:
    """Returns (stem stride, stage strides), reduced for small images and short series.

    The shortest side decides. One that is too short from the beginning does not: a spectrogram of
    3 bands is downsampled by its frames.

    Example:
        >>> fitted_strides((8, 8), [1, 2, 2, 2]), fitted_strides((20,), [1, 2, 2, 2])
        ((1, [1, 2, 1, 1]), (1, [1, 2, 2, 2]))

    Args:
        sides: (height, width) in pixels, or (steps,) of a series.
        strides: Requested stride of each stage.
        smallest: Feature maps of this many pixels a side are not downsampled further.
    """
    sides = tuple(sides)
    side = min((each for each in sides if each > smallest), default=max(sides))
    stem = 2 if side >= 64 else 1
    side = math.ceil(side / stem)
    fitted = []
    for stride in strides:
        stride = stride if side > smallest else 1
        side = math.ceil(side / stride)
        fitted.append(stride)
    return stem, fitted
