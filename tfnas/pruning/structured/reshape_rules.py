"""Channel ids of the output of a reshape."""

from __future__ import annotations

import math

import numpy as np

from tfnas.pruning.structured.channel_ids import Channels

_MAX_ELEMENTS = 20_000_000


def reshaped(
    known: Channels, before: tuple[int | None, ...], after: tuple[int | None, ...]
) -> Channels | None:
    """Returns the channels after a reshape; None if no axis of the result separates them.

    An array with the channel id of each element is reshaped like the tensor. If the ids then
    vary along one axis only, that is the new channel axis.

    Example:
        >>> feature_maps = Channels(3, np.array([7, 8]))
        >>> reshaped(feature_maps, (None, 1, 2, 2), (None, 4)).ids
        array([7, 8, 7, 8])

    Args:
        known: The channels before.
        before: The shape before, with the batch.
        after: The shape after, with the batch.
    """
    old, new = ([n for n in shape[1:] if n is not None] for shape in (before, after))
    if len(old) + len(new) + 2 != len(before) + len(after) or math.prod(old) > _MAX_ELEMENTS:
        return None  # an unknown size
    if math.prod(old) != math.prod(new):
        return None  # the batch axis is reshaped too
    row = [1] * len(old)
    row[known.axis - 1] = -1
    full = np.broadcast_to(known.ids.reshape(row), old).reshape(new)
    for axis in reversed(range(full.ndim)):
        rest = np.moveaxis(full, axis, -1).reshape(-1, full.shape[axis])
        if (rest == rest[0]).all():
            return Channels(axis + 1, rest[0].copy())
    return None
