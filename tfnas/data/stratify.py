"""Drawing a part of the examples, with the classes in proportion.

The draws are those of scikit-learn's `train_test_split` for the same seed, so that a data set is
split alike with and without it.
"""

from __future__ import annotations

import numpy as np


def draw(
    labels: np.ndarray, held: int, seed: int, by_class: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Splits examples at random.

    Example:
        >>> import numpy as np
        >>> from tfnas.data.stratify import draw
        >>> kept, held = draw(np.array([0, 0, 0, 0, 1, 1]), 3, seed=0)
        >>> len(kept), len(held)
        (3, 3)

    Args:
        labels: Class of each example, (examples,).
        held: How many examples are held out.
        seed: Seed of the draw.
        by_class: Whether each class is held out in proportion.

    Returns:
        Indices of the examples (kept, held out), each in ascending order.

    Raises:
        ValueError: A part would have no example, or one of a class has none.
    """
    kept = len(labels) - held
    if kept < 1 or held < 1:
        raise ValueError(f"{held} of {len(labels)} examples leave a part without any")
    generator = np.random.RandomState(seed)  # the generator that scikit-learn seeds
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
    for label, count, ours, theirs in zip(classes, counts, kept_counts, held_counts, strict=True):
        members = np.flatnonzero(labels == label)[generator.permutation(count)]
        kept_parts.append(members[:ours])
        held_parts.append(members[ours : ours + theirs])
    return np.sort(np.concatenate(kept_parts)), np.sort(np.concatenate(held_parts))


def _apportioned(counts: np.ndarray, total: int, generator: np.random.RandomState) -> np.ndarray:
    """Shares a total out in proportion; the largest remainders are rounded up, ties by lot."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainders, left = exact - shares, int(total - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if not left:
            break
        equal = np.flatnonzero(remainders == remainder)
        rounded_up = generator.choice(equal, size=min(len(equal), left), replace=False)
        shares[rounded_up] += 1
        left -= len(rounded_up)
    return shares.astype(int)
