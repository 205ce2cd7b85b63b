"""Reads a folder of images: one folder for each class, or `train` and `test` of this form.

`keras.utils.image_dataset_from_directory` is not used, as its images are others: it resizes
without antialiasing (by up to 36 of 255 from Pillow's pixels on smooth images), decodes JPEG by
a faster transform (up to 4 of 255), resizes silently where sizes differ, visits nested folders in
another order, skips `.webp`, and does not name the image that can't be read.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tfnas.data.data_split import split_indices
from tfnas.runtime.foreign_files import open_regular
from tfnas.table import printable

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
# Whatever the name says; Pillow knows others, such as EPS, for which it starts a program.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MOST_PIXELS = 2**26  # of an image: 192 MiB in RGB
_MAX_SIDE = 20_000  # pixels of a side of an image


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Parses an image size.

    Example:
        >>> parse_size("96,128")
        (96, 128)

    Args:
        text: Height and width in pixels, such as "96,128", or None.

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


def check_size(size: Any) -> None:
    """Checks an image size.

    Args:
        size: (height, width) in pixels, or None.

    Raises:
        ValueError: It is not a pair of whole numbers from 1 to 20,000.
    """
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


def images_of_folder(
    path: pathlib.Path, image_size: tuple[int, int] | None, seed: int
) -> tuple[tuple[np.ndarray, ...], tuple[str, ...]]:
    """Reads a folder of images, and splits off a test part where it has none.

    Args:
        path: A folder with one folder of images for each class, or with the folders `train` and
            `test` (or `val`) of this form.
        image_size: (height, width) in pixels that images are resized to; None: all images must
            have the same size.
        seed: Seed of the split; a fifth of the images becomes the test part.

    Returns:
        (x_train, y_train, x_test, y_test), images (examples, height, width, 3) of uint8 and labels
        (examples,), and the names of the classes.

    Raises:
        ValueError: There are fewer than two classes, other ones in the test folder, no images of a
            class, images of several sizes, an image that can't be read or has more than 2**26
            pixels, or a folder that can't be read.
    """
    train = path / "train"
    if train.is_dir():
        test = next((path / n for n in ("test", "val") if (path / n).is_dir()), None)
        if test is None:
            raise ValueError(f"dataset {str(path)!r} must hold a folder 'test' beside 'train'")
        names = _class_folders(train)
        different = set(names) ^ set(_class_folders(test))
        if different:
            raise ValueError(
                f"dataset {str(path)!r} must hold the same classes in 'train' and {test.name!r}, "
                f"got {printable(', '.join(sorted(different)))} in one only"
            )
        x, y = _images(train, names, image_size)
        x_test, y_test = _images(test, names, image_size or x.shape[1:3], complete=False)
        return (x, y, x_test, y_test), tuple(map(printable, names))
    names = _class_folders(path)
    x, y = _images(path, names, image_size)
    rest, test_part = split_indices(y, max(len(names), round(0.2 * len(y))), seed, "test")
    parts = x[rest], y[rest], x[test_part], y[test_part]
    return parts, tuple(map(printable, names))


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
    folder: pathlib.Path,
    names: tuple[str, ...],
    size: tuple[int, ...] | None,
    complete: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        for file in sorted(_image_files(folder / name)):
            try:
                with open_regular(file) as stream:
                    images.append(_pixels(stream, size))
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
    empty = [name for label, name in enumerate(names) if label not in set(labels)]
    if empty and complete:
        raise ValueError(
            f"dataset {str(folder)!r} must hold images of each class, got none in "
            f"{printable(', '.join(empty))}: {', '.join(IMAGE_SUFFIXES)} are read"
        )
    return np.stack(images), np.asarray(labels)


def _image_files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the images of a folder and of those in it; links to folders are not followed.

    `Path.rglob` leaves out in silence what it may not read, and is recursive.
    """
    pending = [folder] if folder.is_dir() else []
    while pending:
        place = pending.pop()
        try:
            with os.scandir(place) as items:
                for item in items:
                    path = place / item.name
                    if item.is_dir(follow_symlinks=False):
                        pending.append(path)
                    elif path.suffix.lower() in IMAGE_SUFFIXES:
                        yield path
        except OSError as error:  # no permission, or a path too long
            raise ValueError(
                f"folder {str(place)[:500]!r} can't be read: {error.strerror or error}"
            ) from error


def _pixels(stream: IO[bytes], size: tuple[int, ...] | None) -> np.ndarray:
    """Returns an image as RGB (height, width, 3), resized to (height, width) if that is given."""
    from PIL import Image

    with Image.open(stream, formats=FORMATS) as opened:
        if opened.width * opened.height > MOST_PIXELS:
            raise ValueError(
                f"it must have at most {MOST_PIXELS:,} pixels, got {opened.width} x {opened.height}"
            )
        picture: Image.Image = opened.convert("RGB")
        if size is not None:
            picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(picture, np.uint8)
