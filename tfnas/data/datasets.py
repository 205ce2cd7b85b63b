"""Data sets, and functions that read data of any supported kind.

:func:`load` loads a named data set, an `.npz` file or a folder of images as a :class:`DataSplit`.
The validation part is taken from the training part. The test part is for the final measurement
only.

Data may be arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset` everywhere in tfnas:
:func:`batches` and :func:`arrays` read all of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfnas.data.examples import Examples, digest_of, evenly
from tfnas.data.stratify import draw
from tfnas.optional import require

NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MAX_CLASSES = 100_000
_MAX_SIDE = 20_000  # pixels of a side of an image


@dataclasses.dataclass(frozen=True, eq=False)
class DataSplit:
    """Images and labels in three disjoint parts.

    Args:
        name: Name of the data set.
        x_train: Training images, (n, height, width, channels), pixels 0 to 255.
        y_train: Training labels, (n,), whole numbers from 0.
        x_val: Validation images, taken from the training part.
        y_val: Validation labels.
        x_test: Test images, for the final measurement.
        y_test: Test labels.
        class_names: Name of each label.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an image."""
        return self.x_train.shape[1:]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def train(self) -> Examples:
        """The training images and labels."""
        return Examples(self.x_train, self.y_train)

    @property
    def validation(self) -> Examples:
        """The validation images and labels."""
        return Examples(self.x_val, self.y_val)

    @property
    def test(self) -> Examples:
        """The test images and labels."""
        return Examples(self.x_test, self.y_test)

    def digest(self) -> str:
        """Returns a hash of all images and labels, as 16 hexadecimal digits."""
        return digest_of(self.train, self.validation, self.test)

    def training_part(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels of the training and the validation part together."""
        return (
            np.concatenate([self.x_train, self.x_val]),
            np.concatenate([self.y_train, self.y_val]),
        )

    def limited(self, examples: int | None, seed: int = 0) -> DataSplit:
        """Returns the split with a random, stratified subset of the training images.

        Args:
            examples: Largest number of training images; None: all.
            seed: Seed of the subset.
        """
        if examples is None or examples >= len(self.x_train):
            return self
        if examples < self.num_classes or len(self.y_train) - examples < self.num_classes:
            kept = np.random.default_rng(seed).permutation(len(self.y_train))[:examples]
        else:
            surplus = len(self.y_train) - examples
            kept, _ = _split_indices(self.y_train, surplus, seed, "train_limit")
        return dataclasses.replace(self, x_train=self.x_train[kept], y_train=self.y_train[kept])

    def for_given_model(self, seed: int = 0) -> DataSplit:
        """Returns a split for a model that was trained before.

        Such a model may have been trained on any of the training images. So half of the test part
        becomes the validation part (stratified if there are enough examples), and the former
        validation part is added to the training part.

        Args:
            seed: Seed of the split of the test part.
        """
        half = len(self.y_test) // 2
        counts = np.unique(self.y_test, return_counts=True)[1]
        by_class = counts.min(initial=2) >= 2 and half >= len(counts)
        test, validation = _split_indices(self.y_test, half, seed, "x_test", by_class)
        x_train, y_train = self.training_part()
        return dataclasses.replace(
            self,
            x_train=x_train,
            y_train=y_train,
            x_val=self.x_test[validation],
            y_val=self.y_test[validation],
            x_test=self.x_test[test],
            y_test=self.y_test[test],
        )

    def __str__(self) -> str:
        height, width, channels = self.input_shape
        return (
            f"{self.name}: {len(self.x_train)} train, {len(self.x_val)} validation, "
            f"{len(self.x_test)} test images of {height}x{width}x{channels}, "
            f"{self.num_classes} classes"
        )


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
    _check_size(image_size)
    if str(name) in NAMES:
        parts, names = _named(str(name), seed)
    elif path.is_dir():
        parts, names = _from_folder(path, image_size, seed)
    elif path.is_file():
        parts, names = _from_npz(path)
    else:
        raise ValueError(
            f"dataset must be one of {', '.join(NAMES)}, an .npz file or a folder with one "
            f"folder of images for each class, got {str(name)!r}"
        )
    x, y, x_test, y_test = parts
    num_held = max(len(names), round(validation * len(x)))
    kept, held = _split_indices(y, num_held, seed, "validation")
    return DataSplit(
        path.stem if path.exists() else str(name),
        *(x[kept], y[kept], x[held], y[held], x_test, y_test),
        class_names=names,
    )


def _path(name: Any) -> pathlib.Path:
    try:
        path = pathlib.Path(name).expanduser()
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


def _check_size(size: Any) -> None:
    if size is None:
        return
    is_pair = isinstance(size, tuple | list) and len(size) == 2
    is_whole = is_pair and all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) for n in size
    )
    if not is_whole or min(size) < 1 or max(size) > _MAX_SIDE:
        raise ValueError(
            f"image_size must be (height, width), from 1 to {_MAX_SIDE} pixels, got {size!r}"
        )


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Parses an image size.

    Args:
        text: A text such as "96,128", or None.

    Returns:
        (height, width) in pixels, or None.

    Raises:
        ValueError: The text is not two whole numbers above 0.
    """
    if text is None:
        return None
    parts = text.split(",") if isinstance(text, str) else []
    if len(parts) != 2 or not all(re.fullmatch(r"\s*0*[1-9][0-9]{0,8}\s*", p) for p in parts):
        raise ValueError(f"image_size must be HEIGHT,WIDTH in pixels, got {text!r}")
    return int(parts[0]), int(parts[1])


def batches(data: Any, what: str = "data") -> Iterator[tuple[Any, Any]]:
    """Yields batches of (inputs, targets or None) as NumPy arrays.

    Example:
        >>> import numpy as np
        >>> [x.shape for x, y in batches(np.zeros((300, 4)))]
        [(256, 4), (44, 4)]

    Args:
        data: An array, a list or dictionary of arrays (several inputs), or a tuple (x, y); a
            batched `tf.data.Dataset`; or a `keras.utils.PyDataset`.
        what: Name of the argument, for the error message.

    Raises:
        ValueError: The data is of none of these kinds, or the lengths of the arrays differ.
    """
    if _is_py_dataset(data):
        count = data.num_batches
        indices = itertools.count() if count is None else range(count)
        yield from (_as_pair(_numpy(data[index]), what) for index in indices)
    elif hasattr(data, "as_numpy_iterator"):
        yield from (_as_pair(_numpy(item), what) for item in data)
    else:
        x, y = _as_pair(_numpy(data), what)
        count = length(x, what)
        if y is not None and length(y, what) != count:
            raise ValueError(f"{what} must hold as many targets as inputs, got {count} inputs")
        for start in range(0, count, 256):
            part = slice(start, start + 256)
            yield sliced(x, part), None if y is None else sliced(y, part)


def arrays(data: Any, limit: int | None = None, what: str = "data") -> tuple[Any, Any]:
    """Returns all (inputs, targets or None) as NumPy arrays.

    Args:
        data: As for :func:`batches`.
        limit: Largest number of examples; None: all.
        what: Name of the argument, for the error message.

    Raises:
        ValueError: The data is of an unknown kind, holds no example, or is endless without a
            `limit`.
    """
    if limit is None and _is_endless(data):
        raise ValueError(f"{what} must end, got an endless data set: take(n) it first")
    xs, ys, count = [], [], 0
    for x, y in batches(data, what):
        if limit is not None:
            part = slice(0, limit - count)
            x, y = sliced(x, part), None if y is None else sliced(y, part)
        xs.append(x)
        ys.append(y)
        count += length(x, what)
        if limit is not None and count >= limit:
            break
    if not count:
        raise ValueError(f"{what} must hold at least one example, got none")
    return _joined(xs), None if ys[0] is None else _joined(ys)


def spread(data: Any, examples: int, what: str = "data") -> Any:
    """Returns evenly spaced inputs, which represent all classes also if data is sorted by class.

    Args:
        data: As for :func:`batches`; of a `tf.data.Dataset` or `PyDataset` the first examples are
            returned.
        examples: Largest number of inputs.
        what: Name of the argument, for the error message.
    """
    if _is_py_dataset(data) or hasattr(data, "as_numpy_iterator"):
        return arrays(data, examples, what)[0]
    inputs = arrays(data, what=what)[0]
    count = length(inputs, what)
    return sliced(inputs, evenly(count, examples))


def _named(name: str, seed: int) -> tuple[tuple[np.ndarray, ...], tuple[str, ...]]:
    if name == "digits":
        require("sklearn", 'the data set "digits"')
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
        train, test = _split_indices(digits.target, 360, seed=0, what="test")
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


def _from_folder(
    path: pathlib.Path, image_size: tuple[int, int] | None, seed: int
) -> tuple[tuple[np.ndarray, ...], tuple[str, ...]]:
    train = path / "train"
    if train.is_dir():
        test = next((path / n for n in ("test", "val") if (path / n).is_dir()), None)
        if test is None:
            raise ValueError(f"dataset {str(path)!r} must hold a folder 'test' beside 'train'")
        names = _class_folders(train)
        if _class_folders(test) != names:
            raise ValueError(
                f"dataset {str(path)!r} must hold the same classes in 'train' and {test.name!r}, "
                f"got {', '.join(sorted(set(names) ^ set(_class_folders(test))))} in one only"
            )
        x, y = _images(train, names, image_size)
        x_test, y_test = _images(test, names, image_size or x.shape[1:3])
        return _checked((x, y, x_test, y_test), str(path)), names
    names = _class_folders(path)
    x, y = _images(path, names, image_size)
    rest, test_part = _split_indices(y, max(len(names), round(0.2 * len(y))), seed, "test")
    return _checked((x[rest], y[rest], x[test_part], y[test_part]), str(path)), names


def _class_folders(path: pathlib.Path) -> tuple[str, ...]:
    folders = (item.name for item in path.iterdir() if item.is_dir())
    names = tuple(sorted(name for name in folders if not name.startswith((".", "__"))))
    if len(names) < 2:
        raise ValueError(
            f"dataset {str(path)!r} must hold at least 2 folders, one for each class, got "
            f"{len(names)}"
        )
    return names


def _images(
    folder: pathlib.Path, names: tuple[str, ...], size: tuple[int, ...] | None
) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        files = sorted((folder / name).rglob("*")) if (folder / name).is_dir() else []
        for file in (f for f in files if f.suffix.lower() in IMAGE_SUFFIXES):
            try:
                with Image.open(file) as opened:
                    picture = opened.convert("RGB")
                    if size is not None:
                        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
                    images.append(np.asarray(picture, np.uint8))
            except Exception as error:  # Pillow raises many types for a broken file
                raise ValueError(f"image {str(file)!r} can't be read: {error}") from error
            if images[-1].shape != images[0].shape:
                raise ValueError(
                    f"images must have one size if image_size is not given, got "
                    f"{images[-1].shape[:2]} in {str(file)!r} and {images[0].shape[:2]} before"
                )
            labels.append(label)
    if not images:
        raise ValueError(f"dataset {str(folder)!r} must hold images, got none in {names}")
    return np.stack(images), np.asarray(labels)


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


def _split_indices(
    labels: np.ndarray, held: int, seed: int, what: str, by_class: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (kept, held) of a random split, stratified by default."""
    try:
        return draw(labels, held, seed, by_class)
    except ValueError as error:
        raise ValueError(f"{what} part can't be split off by class: {error}") from error


def _is_py_dataset(data: Any) -> bool:
    # Without an imported Keras there can be no PyDataset; Keras isn't imported to read arrays.
    if "keras" not in sys.modules:
        return False
    import keras  # waits if another thread is importing it

    return isinstance(data, keras.utils.PyDataset)


def _is_endless(data: Any) -> bool:
    if _is_py_dataset(data):
        return data.num_batches is None
    return hasattr(data, "cardinality") and int(data.cardinality()) == -1


def _as_pair(item: Any, what: str) -> tuple[Any, Any]:
    if isinstance(item, tuple):
        if not 1 <= len(item) <= 3:
            raise ValueError(f"{what} must be inputs or (inputs, targets), got {len(item)} parts")
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _numpy(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _numpy(value) for key, value in item.items()}
    if isinstance(item, tuple):
        return tuple(_numpy(value) for value in item)
    if isinstance(item, list) and item and hasattr(item[0], "shape"):
        return [_numpy(value) for value in item]
    return None if item is None else np.asarray(item)


def leaves(item: Any) -> list[Any]:
    """Returns a list of the arrays of an array, or of a list or dictionary of arrays.

    Args:
        item: The array, list or dictionary.
    """
    if isinstance(item, dict):
        return list(item.values())
    return list(item) if isinstance(item, list | tuple) else [item]


def check_data(data: Any, what: str = "data") -> None:
    """Checks that data can be read repeatedly.

    Args:
        data: As for :func:`batches`, or None.
        what: Name of the argument, for the error message.

    Raises:
        ValueError: The data is endless, or of a kind that can be read only once.
    """
    if data is None or _is_py_dataset(data) or hasattr(data, "as_numpy_iterator"):
        if data is not None and _is_endless(data):
            raise ValueError(f"{what} must end, got an endless data set: take(n) it first")
        return
    if not all(getattr(leaf, "ndim", 0) for part in leaves(data) for leaf in leaves(part)):
        raise ValueError(
            f"{what} must be arrays, a tf.data.Dataset or a keras.utils.PyDataset, got "
            f"{_describe(data)}"
        )


def length(item: Any, what: str = "data") -> int:
    """Returns the number of examples of an array, or of a list or dictionary of arrays.

    Args:
        item: The array, list or dictionary.
        what: Name of the argument, for the error message.

    Raises:
        ValueError: The lengths differ, or `item` is of another kind.
    """
    lengths = {len(leaf) if getattr(leaf, "ndim", 0) else -1 for leaf in leaves(item)}
    if len(lengths) != 1 or -1 in lengths:
        raise ValueError(
            f"{what} must be arrays of one length, a tf.data.Dataset or a "
            f"keras.utils.PyDataset, got {_describe(item)}"
        )
    return lengths.pop()


def _describe(item: Any) -> str:
    return ", ".join(f"{type(i).__name__} {getattr(i, 'shape', '')}" for i in leaves(item))


def sliced(item: Any, part: slice | np.ndarray) -> Any:
    """Returns a part of the examples of an array, or of a list or dictionary of arrays.

    Args:
        item: The array, list or dictionary.
        part: A slice, or indices or a mask of the examples.
    """
    if isinstance(item, dict):
        return {key: value[part] for key, value in item.items()}
    return type(item)(v[part] for v in item) if isinstance(item, list | tuple) else item[part]


def _joined(items: list[Any]) -> Any:
    first = items[0]
    if isinstance(first, dict):
        return {key: np.concatenate([item[key] for item in items]) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(np.concatenate(parts) for parts in zip(*items, strict=True))
    return np.concatenate(items)


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
