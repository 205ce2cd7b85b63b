"""Loads a named data set, an `.npz` file or a folder of images in three parts.

The validation part is taken from the training part. The test part is for the final measurement
only.
"""

from __future__ import annotations

import pathlib

import numpy as np

from tfnas.data.data_split import DataSplit, split_indices
from tfnas.data.image_folder import check_size, images_of_folder
from tfnas.optional import require

NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MAX_CLASSES = 100_000


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
            the path of an `.npz` file with x_train, y_train, x_test and y_test; or the
            path of a folder with one folder of images for each class, or with the folders
            `train` and `test` of this form.
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
        parts = _checked(images, str(path))
    elif path.is_file():
        parts, names = _from_npz(path)
    else:
        raise ValueError(
            f"dataset must be one of {', '.join(NAMES)}, an .npz file or a folder with one "
            f"folder of images for each class, got {str(name)!r}"
        )
    x, y, x_test, y_test = parts
    num_held = max(len(names), round(validation * len(x)))
    kept, held = split_indices(y, num_held, seed, "validation")
    return DataSplit(
        path.stem if path.exists() else str(name),
        *(x[kept], y[kept], x[held], y[held], x_test, y_test),
        class_names=names,
    )


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
        return _checked(parts, name), tuple(str(c) for c in digits.target_names)
    import keras

    try:
        (x, y), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a plain Exception if a download fails
        raise ValueError(f"dataset {name!r} can't be downloaded: {error}") from error
    parts = tuple(a[..., None] if a.ndim == 3 else a for a in (x, x_test))
    names = _CLASS_NAMES.get(name) or tuple(str(c) for c in range(int(y.max()) + 1))
    return _checked((parts[0], y, parts[1], y_test), name), names


def _from_npz(path: pathlib.Path) -> tuple[tuple[np.ndarray, ...], tuple[str, ...]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            missing = [key for key in _NPZ_KEYS if key not in getattr(file, "files", ())]
            if missing:
                raise ValueError(f"missing {', '.join(missing)}")
            parts = tuple(file[key] for key in _NPZ_KEYS)
    except Exception as error:  # zip, zlib and NumPy raise many types for a broken file
        raise ValueError(
            f"dataset {str(path)!r} must be an .npz file with {', '.join(_NPZ_KEYS)}: {error}"
        ) from error
    x, y, x_test, y_test = _checked(parts, str(path))
    return (x, y, x_test, y_test), tuple(str(c) for c in range(int(max(y.max(), y_test.max())) + 1))


def _checked(parts: tuple[np.ndarray, ...], name: str) -> tuple[np.ndarray, ...]:
    x, y, x_test, y_test = parts
    for key, images, labels in (("train", x, y), ("test", x_test, y_test)):
        if images.ndim != 4:
            raise ValueError(
                f"x_{key} of {name!r} must be (n, height, width, channels), got {images.shape}"
            )
        if not all(images.shape[1:]):
            raise ValueError(f"x_{key} of {name!r} must have pixels, got {images.shape}")
        if images.dtype.kind not in "uif" or not _are_float32(images):
            raise ValueError(f"x_{key} of {name!r} must hold finite numbers, got {images.dtype}")
        if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "ui":
            raise ValueError(
                f"y_{key} of {name!r} must hold one whole number for each image, "
                f"got {labels.dtype} {labels.shape} for {len(images)} images"
            )
        if not len(images) or labels.min() < 0:
            raise ValueError(
                f"{key} part of {name!r} must hold labels >= 0, got none or negative ones"
            )
        if labels.max() >= _MAX_CLASSES:
            raise ValueError(
                f"y_{key} of {name!r} must hold labels below {_MAX_CLASSES:,}, got {labels.max()}"
            )
    if x.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"x_test of {name!r} must have images of {x.shape[1:]}, got {x_test.shape[1:]}"
        )
    pixels = [a if a.dtype == np.uint8 else a.astype(np.float32) for a in (x, x_test)]
    return pixels[0], y.reshape(-1).astype(np.int64), pixels[1], y_test.reshape(-1).astype(np.int64)


def _are_float32(numbers: np.ndarray) -> bool:
    """Whether all numbers are finite as float32."""
    largest = np.finfo(np.float32).max
    return numbers.dtype.kind != "f" or not len(numbers) or bool((np.abs(numbers) <= largest).all())


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
