"""Data sets: named ones, `.npz` files, folders of images, and data of the caller."""

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
