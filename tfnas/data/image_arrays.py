"""Images, or series, and labels as arrays: what is checked of them."""

from __future__ import annotations

import logging

import numpy as np

MAX_CLASSES = 100_000
_LOG = logging.getLogger(__name__)


def checked_images(
    parts: tuple[np.ndarray, ...], name: str, held: str = "test"
) -> tuple[np.ndarray, ...]:
    """Returns images of uint8 or float32, (examples, height, width, channels), labels of int64.

    Series are floats, (examples, steps, channels). Whole numbers of this form are refused: they are
    more often images of one channel that is missing. Square ones are warned of.

    Args:
        parts: x_train, y_train, x_test, y_test.
        name: Name of the data, for the error message.
        held: Name of the second part, for the error message.

    Raises:
        ValueError: They are no images or series of one size with one label each.
    """
    x, y, x_test, y_test = parts
    for key, images, labels in (("train", x, y), (held, x_test, y_test)):
        is_series = images.ndim == 3 and images.dtype.kind == "f"
        if images.ndim != 4 and not is_series:
            raise ValueError(
                f"x_{key} of {name!r} must be (n, height, width, channels) of images, or floats "
                f"(n, steps, channels) of series, got {images.dtype} {images.shape}"
            )
        if not all(images.shape[1:]):
            raise ValueError(f"x_{key} of {name!r} must have pixels, got {images.shape}")
        if images.dtype.kind not in "uif" or not _are_float32(images):
            raise ValueError(f"x_{key} of {name!r} must hold finite numbers, got {images.dtype}")
        if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "ui":
            raise ValueError(
                f"y_{key} of {name!r} must hold one whole number for each image, "
                f"got {labels.dtype} {labels.shape} for {len(images)} images"
            )
        if not len(images) or labels.min() < 0:
            raise ValueError(
                f"{key} part of {name!r} must hold labels >= 0, got none or negative ones"
            )
        if labels.max() >= MAX_CLASSES:
            raise ValueError(
                f"y_{key} of {name!r} must hold labels below {MAX_CLASSES:,}, got {labels.max()}"
            )
    if x.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"x_{held} of {name!r} must have images of {x.shape[1:]}, got {x_test.shape[1:]}"
        )
    if x.ndim == 3 and x.shape[1] == x.shape[2]:
        _LOG.warning(
            "x_train of %r, %s, is taken for series of %d steps and channels; images of one "
            "channel have the shape (n, height, width, 1)",
            name,
            x.shape,
            x.shape[1],
        )
    pixels = [a if a.dtype == np.uint8 else a.astype(np.float32) for a in (x, x_test)]
    return pixels[0], y.reshape(-1).astype(np.int64), pixels[1], y_test.reshape(-1).astype(np.int64)


def _are_float32(numbers: np.ndarray) -> bool:
    """Whether all numbers are finite as float32."""
    largest = np.finfo(np.float32).max
    return numbers.dtype.kind != "f" or not len(numbers) or bool((np.abs(numbers) <= largest).all())
