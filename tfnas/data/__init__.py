"""Data sets: named ones, files, folders, and whatever data a caller has."""

from tfnas.data.datasets import (
    DataSplit,
    arrays,
    batches,
    check_data,
    leaves,
    length,
    load,
    parse_size,
    sliced,
    spread,
)

__all__ = [
    "DataSplit",
    "arrays",
    "batches",
    "check_data",
    "leaves",
    "length",
    "load",
    "parse_size",
    "sliced",
    "spread",
]
