"""A data set in three disjoint parts: training, validation and test."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.data.examples import Examples, digest_of
from tfnas.data.image_arrays import checked_images
from tfnas.data.stratify import draw


@dataclasses.dataclass(frozen=True, eq=False)
class DataSplit:
    """Images, or series, and labels in three disjoint parts.

    Example:
        >>> import numpy as np, tfnas
        >>> x, y = np.zeros((12, 8, 8, 1), np.uint8), np.arange(12) % 2
        >>> split = tfnas.data.DataSplit(
        ...     "mine", x[:6], y[:6], x[6:8], y[6:8], x[8:], y[8:], class_names=("cat", "dog")
        ... )
        >>> print(split)
        mine: 6 train, 2 validation, 4 test images of 8x8x1, 2 classes

    Args:
        name: Name of the data set.
        x_train: Training images, (examples, height, width, channels), pixels 0 to 255; or series,
            (examples, steps, channels), floats. What is said of images is true of series too.
        y_train: Training labels, (examples,), whole numbers from 0.
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

    @classmethod
    def from_arrays(
        cls,
        x: np.ndarray,
        y: np.ndarray,
        *,
        validation_data: tuple[np.ndarray, np.ndarray] | None = None,
        test_data: tuple[np.ndarray, np.ndarray] | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "data",
        seed: int = 0,
    ) -> DataSplit:
        """Returns a split of images and labels; a missing part is a tenth of them, by class.

        Example:
            >>> import numpy as np, tfnas
            >>> x, y = np.zeros((40, 8, 8, 1), np.uint8), np.arange(40) % 2
            >>> print(tfnas.data.DataSplit.from_arrays(x, y, class_names=["cat", "dog"]))
            data: 32 train, 4 validation, 4 test images of 8x8x1, 2 classes

        Args:
            x: Images, (examples, height, width, channels), pixels 0 to 255; or series, (examples,
                steps, channels), floats.
            y: Labels, (examples,) or (examples, 1), whole numbers from 0.
            validation_data: Images and labels for choosing among models.
            test_data: Images and labels for the final measurement.
            class_names: Name of each label; None: "0", "1" and so on.
            name: Name of the data set.
            seed: Seed of the splits.

        Returns:
            The split; pixels are uint8, or float32 where others are given.

        Raises:
            ValueError: The arrays are no images or series of one size with one label each, a label
                has no name, or a class has too few of them for a part that is missing.
        """
        x, y = np.asarray(x), np.asarray(y)
        x, y, *_ = checked_images((x, y, x[:1], y[:1]), name)
        held = max(len(np.unique(y)), round(0.1 * len(y)))
        parts = {}
        for what, given in (("test", test_data), ("validation", validation_data)):
            if given is None:
                kept, taken = split_indices(y, held, seed, what)
                parts[what] = x[taken], y[taken]
                x, y = x[kept], y[kept]
            else:
                own = _pair(given, f"{what}_data")
                *_, own_x, own_y = checked_images((x[:1], y[:1], *own), name, what)
                parts[what] = own_x, own_y
        highest = max(int(labels.max()) for _, labels in ((x, y), *parts.values()))
        names = tuple(map(str, range(highest + 1))) if class_names is None else tuple(class_names)
        if highest >= len(names):
            raise ValueError(
                f"class_names must hold a name for each label, got {len(names)} names and the "
                f"label {highest}"
            )
        return cls(name, x, y, *parts["validation"], *parts["test"], class_names=names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image, (height, width, channels), or of a series, (steps, channels).

        Example:
            >>> import tfnas
            >>> tfnas.data.load("digits").input_shape
            (8, 8, 1)

        Returns:
            Height and width in pixels, or steps, and the number of channels.
        """
        return self.x_train.shape[1:]

    @property
    def noun(self) -> str:
        """The examples in the plural: "images" or "series"."""
        return "series" if len(self.input_shape) == 2 else "images"

    @property
    def num_classes(self) -> int:
        """Number of classes.

        Example:
            >>> import tfnas
            >>> tfnas.data.load("digits").num_classes
            10

        Returns:
            Number of class names.
        """
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
        """Returns images and labels of the training and the validation part together.

        Example:
            >>> import tfnas
            >>> x, y = tfnas.data.load("digits").training_part()
            >>> x.shape, y.shape
            ((1437, 8, 8, 1), (1437,))

        Returns:
            Images (examples, height, width, channels) and labels (examples,).
        """
        return (
            np.concatenate([self.x_train, self.x_val]),
            np.concatenate([self.y_train, self.y_val]),
        )

    def limited(self, examples: int | None, seed: int = 0) -> DataSplit:
        """Returns the split with a random, stratified subset of the training images.

        Example:
            >>> import tfnas
            >>> tfnas.data.load("digits").limited(100).x_train.shape
            (100, 8, 8, 1)

        Args:
            examples: Largest number of training images; None: all.
            seed: Seed of the subset.

        Returns:
            A split with the same validation and test part.
        """
        if examples is None or examples >= len(self.x_train):
            return self
        if examples < self.num_classes or len(self.y_train) - examples < self.num_classes:
            kept = np.random.default_rng(seed).permutation(len(self.y_train))[:examples]
        else:
            surplus = len(self.y_train) - examples
            kept, _ = split_indices(self.y_train, surplus, seed, "train_limit")
        return dataclasses.replace(self, x_train=self.x_train[kept], y_train=self.y_train[kept])

    def for_given_model(self, seed: int = 0) -> DataSplit:
        """Returns a split for a model that was trained before.

        Such a model may have been trained on any of the training images. So half of the test part
        becomes the validation part (stratified if there are enough examples), and the former
        validation part is added to the training part.

        Example:
            >>> import tfnas
            >>> print(tfnas.data.load("digits").for_given_model())
            digits: 1437 train, 180 validation, 180 test images of 8x8x1, 10 classes

        Args:
            seed: Seed of the split of the test part.

        Returns:
            A split of the same images.
        """
        half = len(self.y_test) // 2
        counts = np.unique(self.y_test, return_counts=True)[1]
        by_class = counts.min(initial=2) >= 2 and half >= len(counts)
        test, validation = split_indices(self.y_test, half, seed, "x_test", by_class)
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
        shape = "x".join(map(str, self.input_shape))
        return (
            f"{self.name}: {len(self.x_train)} train, {len(self.x_val)} validation, "
            f"{len(self.x_test)} test {self.noun} of {shape}, {self.num_classes} classes"
        )


def _pair(data: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(data, tuple) or len(data) != 2:
        raise ValueError(f"{what} must be (images, labels), got {type(data).__name__}")
    return np.asarray(data[0]), np.asarray(data[1])


def split_indices(
    labels: np.ndarray, held: int, seed: int, what: str, by_class: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices (kept, held) of a random split, stratified by default.

    Args:
        labels: Class of each example, (examples,).
        held: Number of held examples.
        seed: Seed of the split.
        what: Name of the held part, for the error message.
        by_class: Whether each class has its proportion of the held examples.

    Raises:
        ValueError: There are too few examples of a class, or fewer than `held`.
    """
    try:
        return draw(labels, held, seed, by_class)
    except ValueError as error:
        raise ValueError(f"{what} part can't be split off by class: {error}") from error
