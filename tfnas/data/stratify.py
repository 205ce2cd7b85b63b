"""Random, stratified splits of examples.

The splits are those of scikit-learn's `train_test_split` for the same seed, so that a data set is
split in the same way with and without scikit-learn.
"""

from __future__ import annotations

import numpy as np


def draw(
    labels: np.ndarray, held: int, seed: int, by_class: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Splits examples at random into a part that is kept and a part that is held out.

    Example:
        >>> import numpy as np
        >>> from tfnas.data.stratify import draw
        >>> kept, held = draw(np.array([0, 0, 0, 0, 1, 1]), 3, seed=0)
        >>> len(kept), len(held)
        (3, 3)

    Args:
        labels: Class of each example, (examples,).
        held: Number of examples that are held out.
        seed: Seed of the split.
        by_class: Whether the split is stratified: each part has the classes in proportion.

    Returns:
        Indices of the examples (kept, held out), each in ascending order.

    Raises:
        ValueError: A part would have no example, or no example of a class.
    """
    kept = len(labels) - held
    if kept < 1 or held < 1:
        raise ValueError(f"{held} of {len(labels)} examples leave a part without any")
    generator = np.random.RandomState(seed)  # the generator of scikit-learn
    if not by_class:
        shuffled = generator.permutation(len(labels))
        return np.sort(shuffled[held:]), np.sort(shuffled[:held])
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ValueError(f"class {classes[counts.argmin()]} has 1 example, at least 2 are needed")
    if min(kept, held) < len(classes):
        raise ValueError(
            f"{len(classes)} classes need as many examples in each part, got {kept} and {held}"
        )
    kept_counts = _apportioned(counts, kept, generator)
    held_counts = _apportioned(counts - kept_counts, held, generator)
    kept_parts, held_parts = [], []
    for label, count, num_kept, num_held in zip(
        classes, counts, kept_counts, held_counts, strict=True
    ):
        members = np.flatnonzero(labels == label)[generator.permutation(count)]
        kept_parts.append(members[:num_kept])
        held_parts.append(members[num_kept : num_kept + num_held])
    return np.sort(np.concatenate(kept_parts)), np.sort(np.concatenate(held_parts))


def _apportioned(counts: np.ndarray, total: int, generator: np.random.RandomState) -> np.ndarray:
    """Splits a total in proportion to counts.

    The largest remainders are rounded up, ties at random.
    """
    exact = counts / counts.sum() * total
    rounded = np.floor(exact)
    remainders, left = exact - rounded, int(total - rounded.sum())
    for remainder in np.unique(remainders)[::-1]:
        if not left:
            break
        equal = np.flatnonzero(remainders == remainder)
        rounded_up = generator.choice(equal, size=min(len(equal), left), replace=False)
        rounded[rounded_up] += 1
        left -= len(rounded_up)
    return rounded.astype(int)
