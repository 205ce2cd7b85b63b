"""Changed copies of images, as more data for calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.data.augmentation_names import NAMES, check_augment

_CHUNK = 64  # images that are changed at once


def augmented(
    images: Any, copies: int = 3, augment: Sequence[str] = NAMES, seed: int = 0
) -> np.ndarray:
    """Returns images with changed copies of them: more data to calibrate large networks with.

    Rounding and pruning without training fit the weights of each layer to its inputs. A few hundred
    images are too few for layers of a thousand inputs. Copies help there, and may harm in small
    networks, which have enough (docs/post_training.md).

    Example:
        >>> import numpy as np, tfnas
        >>> images = np.random.default_rng(0).uniform(size=(5, 16, 16, 3))
        >>> more = tfnas.data.augmented(images, copies=3)
        >>> more.shape, bool(np.all(more[:5] == images))
        ((15, 16, 16, 3), True)

    Args:
        images: Images, (n, height, width, channels).
        copies: How often each image is in the result: as it is, and `copies` - 1 times changed.
        augment: How copies are changed: "flip" mirrors a random half of them, "shift" moves them by
            up to 1/16 of their sides.
        seed: Seed of the changes.

    Returns:
        The images, then their copies, (n * copies, height, width, channels).

    Raises:
        ValueError: `images` are no images, `copies` is no whole number of at least 1, or `augment`
            is empty or has unknown names.
    """
    given, images = type(images).__name__, np.asarray(images)
    if images.ndim != 4:
        raise ValueError(
            "images must be an array (n, height, width, channels) to have changed copies, got "
            f"{images.shape or given}"
        )
    if isinstance(copies, bool) or not isinstance(copies, int) or copies < 1:
        raise ValueError(f"copies must be a whole number of at least 1, got {copies!r}")
    check_augment(augment)
    if not augment:
        raise ValueError(f"augment must hold some of {', '.join(NAMES)}, got none")
    import tensorflow as tf

    from tfnas.data.augmentation import AUGMENTATIONS

    found = [images]
    for copy in range(1, copies):
        for begin in range(0, len(images), _CHUNK):
            part = images[begin : begin + _CHUNK]
            for index, name in enumerate(augment):
                part_seed = tf.random.fold_in(tf.random.fold_in([seed, index], copy), begin)
                part = AUGMENTATIONS[name](part, seed=part_seed)
            found.append(np.asarray(part))
    return np.concatenate(found)
