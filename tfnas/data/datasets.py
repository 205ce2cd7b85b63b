"""Loads a named data set, an `.npz` file or a folder of images in three parts.

The validation part is taken from the training part. The test part is for the final measurement
only.
"""

from __future__ import annotations

import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from tfnas.data.data_split import DataSplit, split_indices
from tfnas.data.image_arrays import checked_images
from tfnas.data.image_folder import check_size, images_of_folder
from tfnas.optional import require
from tfnas.runtime.argument_rules import near
from tfnas.runtime.foreign_files import check_archive, open_regular
from tfnas.table import printable

NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
_HINTS = {".csv": ", but a table, which trained models take (tfnas compress --targets=COLUMN)"}
IMAGE_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def load(
    name: str | pathlib.Path,
    validation: float = 0.1,
    *,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
) -> DataSplit:
    """Loads a data set and splits a validation part from its training part.

    Example:
        >>> import tfnas
        >>> tfnas.data.load("digits").input_shape
        (8, 8, 1)

    Args:
        name: "digits" (scikit-learn's 8x8 digits, no download), "mnist",
            "fashion_mnist", "cifar10" or "cifar100" (downloaded by keras.datasets);
            the path of an `.npz` file with x_train, y_train, x_test and y_test, images
            (examples, height, width, channels) or series of floats (examples, steps,
            channels); or the path of a folder with one folder of images for each class, or
            with the folders `train` and `test` of this form.
        validation: Fraction of the training part that becomes the validation part, in (0, 1),
            stratified.
        image_size: (height, width) in pixels that the images of a folder are resized to. Default:
            all images must have the same size.
        seed: Seed of the split.

    Returns:
        The split; pixels are uint8, or float32 if an `.npz` file holds floats.

    Raises:
        ValueError: The name is unknown, the file has another form, an image can't be
            read, or a class has too few images.
        ImportError: "digits" needs scikit-learn, which is not installed.
    """
    if not isinstance(validation, float) or not 0.0 < validation < 1.0:
        raise ValueError(f"validation must be in (0, 1), got {validation!r}")
    path = _path(name)
    check_size(image_size)
    if str(name) in NAMES:
        parts, names = _named(str(name), seed)
    elif path.is_dir():
        images, names = images_of_folder(path, image_size, seed)
        parts = checked_images(images, str(path))
    elif path.is_file():
        parts, names = _from_npz(path)
    else:
        check_name(name)
        raise ValueError(
            f"dataset {str(name)!r} must be a file or a folder, got a pipe or a device"
        )
    title = printable(path.stem) if path.exists() else str(name)
    return _split(parts, names, title, validation, seed)


def check_name(name: str | os.PathLike[str]) -> None:
    """Checks that data of a name exists, before anything is read.

    Args:
        name: A name or a path, as for :func:`load`.

    Raises:
        ValueError: There is no such data set, file or folder.
    """
    text, path = str(name), _path(name)
    if text in NAMES or path.exists():
        return
    if path.suffix or len(path.parts) != 1 or os.sep in text:  # meant as a path
        raise ValueError(
            f"dataset must be a file or a folder that exists, got {text!r}: there is none"
        )
    raise ValueError(
        f"dataset must be one of {', '.join(NAMES)}, an .npz or .csv file or a folder with one "
        f"folder of images for each class, got {text!r}{near(text, NAMES)}"
    )


def split_of_arrays(arrays: Mapping[str, np.ndarray], path: pathlib.Path, seed: int) -> DataSplit:
    """Returns a split of the arrays of a file, as :func:`load` does.

    Args:
        arrays: x_train, y_train, x_test and y_test.
        path: The file.
        seed: Seed of the split.

    Raises:
        ValueError: They are no images of one size with one label each.
    """
    parts, names = _labeled(tuple(arrays[key] for key in IMAGE_ARRAYS), path)
    return _split(parts, names, printable(path.stem), 0.1, seed)


def _split(
    parts: tuple[np.ndarray, ...], names: tuple[str, ...], name: str, validation: float, seed: int
) -> DataSplit:
    x, y, x_test, y_test = parts
    num_held = max(len(names), round(validation * len(x)))
    kept, held = split_indices(y, num_held, seed, "validation")
    return DataSplit(name, *(x[kept], y[kept], x[held], y[held], x_test, y_test), class_names=names)


def _path(name: object) -> pathlib.Path:
    try:
        path = pathlib.Path(name).expanduser()  # type: ignore[arg-type]
        path.exists()
    except TypeError:
        raise ValueError(
            f"dataset must be a name, a path or a tfnas.data.DataSplit, got a {type(name).__name__}"
        ) from None
    except (RuntimeError, OSError) as error:  # an unknown user in "~user", or a name too long
        raise ValueError(
            f"dataset must be a name or a path, got {str(name)[:200]!r}: {error}"[:500]
        ) from error
    return path


def _named(name: str, seed: int) -> tuple[tuple[np.ndarray, ...], tuple[str, ...]]:
    if name == "digits":
        require("sklearn", 'the data set "digits"')
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
        train, test = split_indices(digits.target, 360, seed=0, what="test")
        parts = x[train], digits.target[train], x[test], digits.target[test]
        return checked_images(parts, name), tuple(str(c) for c in digits.target_names)
    import keras

    try:
        (x, y), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a plain Exception if a download fails
        raise ValueError(f"dataset {name!r} can't be downloaded: {error}") from error
    parts = tuple(a[..., None] if a.ndim == 3 else a for a in (x, x_test))
    names = _CLASS_NAMES.get(name) or tuple(str(c) for c in range(int(y.max()) + 1))
    return checked_images((parts[0], y, parts[1], y_test), name), names


def _from_npz(path: pathlib.Path) -> tuple[tuple[np.ndarray, ...], tuple[str, ...]]:
    try:
        with open_regular(path) as stream:
            if not zipfile.is_zipfile(stream):  # NumPy takes anything else for pickled data
                raise ValueError(f"it is none{_HINTS.get(path.suffix.lower(), '')}")
            check_archive(path)
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                missing = [key for key in IMAGE_ARRAYS if key not in getattr(file, "files", ())]
                if missing:
                    raise ValueError(f"missing {', '.join(missing)}")
                parts = tuple(file[key] for key in IMAGE_ARRAYS)
    except Exception as error:  # zip, zlib and NumPy raise many types for a broken file
        raise ValueError(
            f"dataset {str(path)!r} must be an .npz file with {', '.join(IMAGE_ARRAYS)}: {error}"
        ) from error
    return _labeled(parts, path)


def _labeled(
    parts: tuple[np.ndarray, ...], path: pathlib.Path
) -> tuple[tuple[np.ndarray, ...], tuple[str, ...]]:
    x, y, x_test, y_test = checked_images(parts, str(path))
    return (x, y, x_test, y_test), tuple(str(c) for c in range(int(max(y.max(), y_test.max())) + 1))


_CLASS_NAMES = {
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "cifar10": (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
}
