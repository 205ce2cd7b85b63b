"""From scores to masks: granularity and the choice of exactly so many.

A granularity cuts a kernel, given as (rows, positions, columns) as in the `.tflite` file,
into units that are kept or pruned as one:

| granularity | a unit is                              | its score               | pruned of it |
|-------------|----------------------------------------|-------------------------|--------------|
| "element"   | a weight                               | the weight's            | all          |
| "1x4"       | a block of 1 row and 4 columns         | mean over the block     | all          |
| "2:4"       | 4 neighbors in a row, of which 2 stay | sum of the 2 lowest     | the 2 lowest |
| "filter"    | all weights of a filter or unit        | mean over the filter    | all          |

Blocks at the edges may be smaller. Which of several equal scores goes is drawn at random,
so that a kernel of equal weights does not lose its first rows.

References:
    Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021, for 2:4.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """A kernel cut into units.

    Args:
        scores: Score a unit, (units,).
        sizes: Weights that go with a unit when it is pruned, (units,).
    """

    scores: np.ndarray
    sizes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Granularity:
    """Base: single weights.

    Args:
        text: Its name, such as "1x4".
    """

    text: str = "element"

    @property
    def highest_ratio(self) -> float:
        """The share of weights that are pruned when every unit is."""
        return 1.0

    def check(self, shape: tuple[int, int, int], filters: int | None) -> str | None:
        """Returns why a kernel can't be cut this way and has to be left out, or None.

        Raises:
            ValueError: It does not divide the kernel.
        """
        return None

    def units(self, scores: np.ndarray, filters: int | None) -> Units:
        """Cuts scores of shape (rows, positions, columns) into units."""
        flat = scores.reshape(-1)
        return Units(flat, np.ones(flat.size, np.int64))

    def mask(self, keep: np.ndarray, scores: np.ndarray, filters: int | None) -> np.ndarray:
        """Returns which weights stay, (rows, positions, columns), given which units do."""
        return keep.reshape(scores.shape)


@dataclasses.dataclass(frozen=True)
class Blocks(Granularity):
    """Blocks of `rows` x `columns` neighbors of the file's matrix."""

    rows: int = 1
    columns: int = 1

    def units(self, scores: np.ndarray, filters: int | None) -> Units:
        sums = self._sum(scores)
        sizes = self._sum(np.ones(scores.shape))
        return Units((sums / sizes).reshape(-1), sizes.reshape(-1).astype(np.int64))

    def mask(self, keep: np.ndarray, scores: np.ndarray, filters: int | None) -> np.ndarray:
        rows, positions, columns = scores.shape
        blocks = keep.reshape(-(-rows // self.rows), positions, -(-columns // self.columns))
        whole = blocks.repeat(self.rows, axis=0).repeat(self.columns, axis=2)
        return whole[:rows, :, :columns]

    def _sum(self, array: np.ndarray) -> np.ndarray:
        by_rows = np.add.reduceat(array, np.arange(0, array.shape[0], self.rows), axis=0)
        return np.add.reduceat(by_rows, np.arange(0, array.shape[2], self.columns), axis=2)


@dataclasses.dataclass(frozen=True)
class Filters(Granularity):
    """Whole filters (units of a Dense layer, channels of a depthwise one)."""

    def check(self, shape: tuple[int, int, int], filters: int | None) -> str | None:
        return "has no filters: its columns are gates" if filters is None else None

    def units(self, scores: np.ndarray, filters: int | None) -> Units:
        others = tuple(axis for axis in range(3) if axis != filters)
        means = scores.mean(axis=others)
        return Units(means, np.full(means.size, scores.size // means.size))

    def mask(self, keep: np.ndarray, scores: np.ndarray, filters: int | None) -> np.ndarray:
        shape = [len(keep) if axis == filters else 1 for axis in range(3)]
        return np.broadcast_to(keep.reshape(shape), scores.shape)


@dataclasses.dataclass(frozen=True)
class NOfM(Granularity):
    """Of `group` neighbors along the innermost axis at most `stay` are not zero."""

    stay: int = 2
    group: int = 4

    @property
    def highest_ratio(self) -> float:
        return 1.0 - self.stay / self.group

    def check(self, shape: tuple[int, int, int], filters: int | None) -> str | None:
        if shape[2] % self.group:
            raise ValueError(
                f"granularity {self.text!r} must divide the kernel's innermost axis in the file, "
                f"got {shape[2]} weights there"
            )
        return None

    def units(self, scores: np.ndarray, filters: int | None) -> Units:
        lowest = np.sort(self._groups(scores), axis=1)[:, : self.group - self.stay]
        return Units(lowest.sum(axis=1), np.full(len(lowest), self.group - self.stay))

    def mask(self, keep: np.ndarray, scores: np.ndarray, filters: int | None) -> np.ndarray:
        rank = np.argsort(np.argsort(self._groups(scores), axis=1, kind="stable"), axis=1)
        return (keep[:, None] | (rank >= self.group - self.stay)).reshape(scores.shape)

    def _groups(self, scores: np.ndarray) -> np.ndarray:
        return scores.reshape(-1, self.group)


def granularity(value: str | tuple[int, int] | Granularity) -> Granularity:
    """Returns the granularity that is described.

    Example:
        >>> granularity("1x4")
        Blocks(text='1x4', rows=1, columns=4)

    Args:
        value: "element", "filter", "ROWSxCOLUMNS" or (rows, columns), or "N:M".

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, Granularity):
        return value
    text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if text == "element":
        return Granularity()
    if text == "filter":
        return Filters("filter")
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    if re.fullmatch(r"\d+x\d+", text) and min(numbers) > 0:
        return Blocks(text, *numbers)
    if re.fullmatch(r"\d+:\d+", text) and 0 < numbers[0] < numbers[1]:
        return NOfM(text, *numbers)
    raise ValueError(
        "granularity must be 'element', 'filter', blocks such as '1x4', or N:M such as '2:4' "
        f"with 0 < N < M, got {value!r}"
    )


def lowest(scores: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a mask of exactly `count` of the lowest scores.

    Equal ones go in a random order that depends on their number alone, not on which of them
    are equal: weights that were pruned by it before are pruned by it again.

    Example:
        >>> lowest(np.array([3.0, 1.0, 2.0]), 2, np.random.default_rng(0))
        array([False,  True,  True])

    Args:
        scores: (n,).
        count: 0 to n.
        rng: Makes the order among equal scores.
    """
    if count <= 0:
        return np.zeros(scores.size, bool)
    edge = np.partition(scores, count - 1)[count - 1]
    chosen = scores < edge
    level = np.flatnonzero(scores == edge)
    missing = count - int(chosen.sum())
    if missing < len(level):
        level = level[np.argsort(rng.permutation(scores.size)[level])[:missing]]
    chosen[level] = True
    return chosen


def prune_units(
    scores: np.ndarray, sizes: np.ndarray, weights: float, rng: np.random.Generator
) -> np.ndarray:
    """Returns which units go, so that as nearly `weights` weights go as the units allow.

    Args:
        scores: Score a unit, (n,).
        sizes: Weights that go with a unit, (n,).
        weights: Number of weights to prune.
        rng: Draws among equal scores.
    """
    if scores.size == 0:
        return np.zeros(0, bool)
    if (sizes == sizes[0]).all():
        return lowest(scores, min(scores.size, int(weights / sizes[0] + 0.5)), rng)
    order = np.lexsort((rng.permutation(scores.size), scores))
    gone = np.concatenate([[0], np.cumsum(sizes[order])])
    count = int(np.abs(gone - weights).argmin())
    pruned = np.zeros(scores.size, bool)
    pruned[order[:count]] = True
    return pruned
