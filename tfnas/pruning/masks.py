"""From scores to masks: the granularity of pruning, and the selection of the lowest scores.

A granularity divides a kernel, laid out as (rows, positions, columns) as in the `.tflite` file,
into units that are kept or pruned together:

| granularity | a unit is                             | its score            | pruned of it |
|-------------|---------------------------------------|----------------------|--------------|
| "element"   | a weight                              | that of the weight   | all          |
| "1x4"       | a block of 1 row and 4 columns        | mean over the block  | all          |
| "2:4"       | 4 neighbors in a row, of which 2 stay | sum of the 2 lowest  | the 2 lowest |
| "filter"    | all weights of a filter or unit       | mean over the filter | all          |

Blocks at the edges may be smaller. Equal scores are pruned in random order, so that a kernel
of equal weights does not lose its first rows.

References:
    Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021, for 2:4.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """The units of a kernel.

    Args:
        scores: Score of each unit, (units,).
        sizes: Number of weights that are pruned with each unit, (units,).
    """

    scores: np.ndarray
    sizes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Granularity:
    """Single weights; the base class of the other granularities.

    Args:
        text: Its name, such as "1x4".
    """

    text: str = "element"

    @property
    def max_sparsity(self) -> float:
        """Returns the fraction of weights that is pruned when all units are."""
        return 1.0

    def check(self, shape: tuple[int, int, int], filters: int | None) -> str | None:
        """Returns why a kernel has to be skipped, None if the granularity fits it.

        Args:
            shape: Shape of the kernel in the file: (rows, positions, columns).
            filters: Axis of `shape` that counts filters, None if there is none.

        Raises:
            ValueError: The granularity does not divide the kernel.
        """
        return None

    def units(self, scores: np.ndarray, filters: int | None) -> Units:
        """Returns the units of scores of shape (rows, positions, columns).

        Args:
            scores: Scores of the weights, (rows, positions, columns).
            filters: Axis that counts filters, None if there is none.
        """
        flat = scores.reshape(-1)
        return Units(flat, np.ones(flat.size, np.int64))

    def mask(self, keep: np.ndarray, scores: np.ndarray, filters: int | None) -> np.ndarray:
        """Returns the mask of the weights, (rows, positions, columns), for the kept units.

        Args:
            keep: Whether each unit is kept, boolean, (units,).
            scores: Scores of the weights, (rows, positions, columns).
            filters: Axis that counts filters, None if there is none.
        """
        return keep.reshape(scores.shape)


@dataclasses.dataclass(frozen=True)
class Blocks(Granularity):
    """Blocks of `rows` x `columns` weights of the matrix in the file."""

    rows: int = 1
    columns: int = 1

    def units(self, scores: np.ndarray, filters: int | None) -> Units:
        """Returns the blocks; their score is the mean of their weights.

        Args:
            scores: Scores of the weights, (rows, positions, columns).
            filters: Axis that counts filters, None if there is none.
        """
        sums = self._sum(scores)
        sizes = self._sum(np.ones(scores.shape))
        return Units((sums / sizes).reshape(-1), sizes.reshape(-1).astype(np.int64))

    def mask(self, keep: np.ndarray, scores: np.ndarray, filters: int | None) -> np.ndarray:
        """Returns the mask for the kept blocks, (rows, positions, columns).

        Args:
            keep: Whether each unit is kept, boolean, (units,).
            scores: Scores of the weights, (rows, positions, columns).
            filters: Axis that counts filters, None if there is none.
        """
        rows, positions, columns = scores.shape
        blocks = keep.reshape(-(-rows // self.rows), positions, -(-columns // self.columns))
        repeated = blocks.repeat(self.rows, axis=0).repeat(self.columns, axis=2)
        return repeated[:rows, :, :columns]

    def _sum(self, array: np.ndarray) -> np.ndarray:
        by_rows = np.add.reduceat(array, np.arange(0, array.shape[0], self.rows), axis=0)
        return np.add.reduceat(by_rows, np.arange(0, array.shape[2], self.columns), axis=2)


@dataclasses.dataclass(frozen=True)
class Filters(Granularity):
    """Whole filters (units of a Dense layer, channels of a depthwise one)."""

    def check(self, shape: tuple[int, int, int], filters: int | None) -> str | None:
        """Returns why a kernel has to be skipped, None if it has filters.

        Args:
            shape: Shape of the kernel in the file: (rows, positions, columns).
            filters: Axis that counts filters, None if there is none.
        """
        return "has no filters: its columns belong to gates" if filters is None else None

    def units(self, scores: np.ndarray, filters: int | None) -> Units:
        """Returns the filters; their score is the mean of their weights.

        Args:
            scores: Scores of the weights, (rows, positions, columns).
            filters: Axis that counts filters, None if there is none.
        """
        others = tuple(axis for axis in range(3) if axis != filters)
        means = scores.mean(axis=others)
        return Units(means, np.full(means.size, scores.size // means.size))

    def mask(self, keep: np.ndarray, scores: np.ndarray, filters: int | None) -> np.ndarray:
        """Returns the mask for the kept filters, (rows, positions, columns).

        Args:
            keep: Whether each unit is kept, boolean, (units,).
            scores: Scores of the weights, (rows, positions, columns).
            filters: Axis that counts filters, None if there is none.
        """
        shape = [len(keep) if axis == filters else 1 for axis in range(3)]
        return np.broadcast_to(keep.reshape(shape), scores.shape)


@dataclasses.dataclass(frozen=True)
class NOfM(Granularity):
    """N:M: at most `stay` of each `group` neighbors along the innermost axis are nonzero."""

    stay: int = 2
    group: int = 4

    @property
    def max_sparsity(self) -> float:
        """Returns the sparsity of a kernel whose groups are all pruned, in (0, 1)."""
        return 1.0 - self.stay / self.group

    def check(self, shape: tuple[int, int, int], filters: int | None) -> str | None:
        """Returns None: a kernel is never skipped.

        Args:
            shape: Shape of the kernel in the file: (rows, positions, columns).
            filters: Axis that counts filters, None if there is none.

        Raises:
            ValueError: The group does not divide the innermost axis.
        """
        if shape[2] % self.group:
            raise ValueError(
                f"granularity {self.text!r} must divide the kernel's innermost axis in the file, "
                f"got {shape[2]} weights there"
            )
        return None

    def units(self, scores: np.ndarray, filters: int | None) -> Units:
        """Returns the groups; their score is the sum of the scores that would be pruned.

        Args:
            scores: Scores of the weights, (rows, positions, columns).
            filters: Axis that counts filters, None if there is none.
        """
        lowest = np.sort(self._groups(scores), axis=1)[:, : self.group - self.stay]
        return Units(lowest.sum(axis=1), np.full(len(lowest), self.group - self.stay))

    def mask(self, keep: np.ndarray, scores: np.ndarray, filters: int | None) -> np.ndarray:
        """Returns the mask for the groups that stay whole, (rows, positions, columns).

        Args:
            keep: Whether each unit is kept, boolean, (units,).
            scores: Scores of the weights, (rows, positions, columns).
            filters: Axis that counts filters, None if there is none.
        """
        rank = np.argsort(np.argsort(self._groups(scores), axis=1, kind="stable"), axis=1)
        return (keep[:, None] | (rank >= self.group - self.stay)).reshape(scores.shape)

    def _groups(self, scores: np.ndarray) -> np.ndarray:
        return scores.reshape(-1, self.group)


def granularity(value: str | tuple[int, int] | Granularity) -> Granularity:
    """Returns a granularity by its name.

    Example:
        >>> granularity("1x4")
        Blocks(text='1x4', rows=1, columns=4)

    Args:
        value: "element", "filter", "ROWSxCOLUMNS" or (rows, columns), or "N:M".

    Raises:
        ValueError: The value is none of these.
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
    """Returns a boolean array that is True for exactly `count` of the lowest scores.

    Equal scores are taken in a random order that depends only on the number of scores, so that
    pruned weights are selected again at the next update.

    Example:
        >>> lowest(np.array([3.0, 1.0, 2.0]), 2, np.random.default_rng(0))
        array([False,  True,  True])

    Args:
        scores: (n,).
        count: 0 to n.
        rng: Random generator for the order of equal scores.
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
    """Returns which units to prune, so that the number of pruned weights is close to a target.

    Args:
        scores: Score of each unit, (units,).
        sizes: Number of weights that are pruned with each unit, (units,).
        weights: Target number of pruned weights.
        rng: Random generator for the order of equal scores.

    Returns:
        Boolean, (units,).
    """
    if scores.size == 0:
        return np.zeros(0, bool)
    if (sizes == sizes[0]).all():
        return lowest(scores, min(scores.size, int(weights / sizes[0] + 0.5)), rng)
    order = np.lexsort((rng.permutation(scores.size), scores))
    totals = np.concatenate([[0], np.cumsum(sizes[order])])
    count = int(np.abs(totals - weights).argmin())
    pruned = np.zeros(scores.size, bool)
    pruned[order[:count]] = True
    return pruned
