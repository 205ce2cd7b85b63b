"""Data sets: named ones, `.npz` files, folders of images, and data of the caller."""

from tfnas.data.augmented_copies import augmented
from tfnas.data.data_for_model import any_data, load_calibration, load_for
from tfnas.data.data_split import DataSplit
from tfnas.data.datasets import load
from tfnas.data.examples import ArrayParts, Examples, leaves
from tfnas.data.image_folder import parse_size
from tfnas.data.reading import arrays, batches, check_data, length, sliced, spread
from tfnas.data.streams import StreamedExamples
from tfnas.data.user_data import DataParts, data_parts

__all__ = [
    "ArrayParts",
    "DataParts",
    "DataSplit",
    "Examples",
    "StreamedExamples",
    "any_data",
    "arrays",
    "augmented",
    "batches",
    "check_data",
    "data_parts",
    "leaves",
    "length",
    "load",
    "load_calibration",
    "load_for",
    "parse_size",
    "sliced",
    "spread",
]
