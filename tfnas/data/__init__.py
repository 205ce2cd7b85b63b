"""Data sets: named ones, `.npz` files, folders of images, and data of the caller."""

from tfnas.data.data_split import DataSplit
from tfnas.data.datasets import load
from tfnas.data.examples import ArrayParts, Examples, leaves
from tfnas.data.image_folder import parse_size
from tfnas.data.reading import arrays, batches, check_data, length, sliced, spread

__all__ = [
    "ArrayParts",
    "DataSplit",
    "Examples",
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
