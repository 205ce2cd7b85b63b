"""Channels through a reshape."""

from __future__ import annotations

import math

import numpy as np

from tfnas.pruning.structured.channel_ids import Channels

_MOST = 20_000_000


def reshaped(
    known: Channels, before: tuple[int | None, ...], after: tuple[int | None, ...]
) -> Channels | None:
    """Returns the channels after a reshape; None where no axis holds them unmixed.

    The atom of every single number is written down and reshaped as the numbers are. An axis
    along which alone atoms change is the new channel axis.

    Example:
        >>> maps = Channels(3, np.array([7, 8]))
        >>> reshaped(maps, (None, 1, 2, 2), (None, 4)).labels
        array([7, 8, 7, 8])

    Args:
        known: The channels before.
        before: The shape before, with the batch.
        after: The shape after.
    """
    old, new = ([n for n in shape[1:] if n is not None] for shape in (before, after))
    if len(old) + len(new) + 2 != len(before) + len(after) or math.prod(old) > _MOST:
        return None  # an open size
    if math.prod(old) != math.prod(new):
        return None  # numbers of several examples in one row, or of one in several
    row = [1] * len(old)
    row[known.axis - 1] = -1
    full = np.broadcast_to(known.labels.reshape(row), old).reshape(new)
    for axis in reversed(range(full.ndim)):
        rest = np.moveaxis(full, axis, -1).reshape(-1, full.shape[axis])
        if (rest == rest[0]).all():
            return Channels(axis + 1, rest[0].copy())
    return None
