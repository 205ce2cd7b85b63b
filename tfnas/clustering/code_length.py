"""The size of a clustered kernel with a codebook, and with Huffman coding.

A kernel with k distinct values is a codebook of k numbers of 32 bits and an index per weight:
of ceil(log2 k) bits, or a Huffman code. A canonical Huffman code is stored as the length of each
code, one byte per value.

References:
    Han, Mao and Dally, "Deep Compression", ICLR 2016, equation (1) and section 4; Huffman,
    "A Method for the Construction of Minimum-Redundancy Codes", 1952.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

_NUMBER = 4  # bytes per value of the codebook
_LENGTH = 1  # bytes of the Huffman code length per value


def index_bits(values: int) -> int:
    """Returns the number of bits of an index into `values` values.

    Example:
        >>> [index_bits(k) for k in (1, 2, 3, 16, 17)]
        [0, 1, 2, 4, 5]

    Args:
        values: Number of values, at least 1.
    """
    return (values - 1).bit_length()


def huffman_lengths(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the length of each symbol's code in an optimal prefix code, in bits.

    Example:
        >>> huffman_lengths([5, 1, 1, 2])
        array([1, 3, 3, 2])

    Args:
        counts: How often each symbol occurs, (k,), above 0.

    Returns:
        Whole numbers, (k,); 0 if there is one symbol only.
    """
    lengths = np.zeros(len(counts), np.int64)
    heap = [(int(count), symbol, [symbol]) for symbol, count in enumerate(counts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (first, number, left), (second, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        joined = [*left, *right]
        lengths[joined] += 1
        heapq.heappush(heap, (first + second, number, joined))
    return lengths


def codebook_bytes(groups: np.ndarray) -> int:
    """Returns the size of codebooks and fixed-length indices, in bytes.

    Example:
        >>> codebook_bytes(np.array([[0.5, 0.1, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1]]))
        9

    Args:
        groups: The weights, (groups, n); each group has its own codebook.
    """
    bits = sum(group.size * index_bits(len(np.unique(group))) for group in groups)
    return _codebooks(groups) * _NUMBER + -(-bits // 8)


def huffman_bytes(groups: np.ndarray) -> int:
    """Returns the size of codebooks and Huffman-coded indices, in bytes.

    Example:
        >>> huffman_bytes(np.array([[0.5, 0.1, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1]]))
        11

    Args:
        groups: The weights, (groups, n); each group has its own codebook and code.
    """
    bits = 0
    for group in groups:
        counts = np.unique(group, return_counts=True)[1]
        bits += int((counts * huffman_lengths(counts)).sum())
    return _codebooks(groups) * (_NUMBER + _LENGTH) + -(-bits // 8)


def _codebooks(groups: np.ndarray) -> int:
    """Number of values in all codebooks."""
    return sum(len(np.unique(group)) for group in groups)
