"""Changed copies of images, for calibration."""

import doctest

import numpy as np
import pytest

import tfnas
from tfnas.data import augmented_copies

IMAGES = np.random.default_rng(0).integers(0, 256, (70, 16, 8, 3), dtype=np.uint8)


def test_the_example_is_true():
    finder = doctest.DocTestFinder()
    runner = doctest.DocTestRunner()
    for test in finder.find(augmented_copies.augmented, globs={}):
        runner.run(test)
    assert runner.summarize() == (0, 4)


def test_copies_are_mirrored_and_moved_and_follow_from_the_seed():
    found = tfnas.data.augmented(IMAGES, copies=3, seed=1)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[:70], IMAGES)
    first, second = found[70:140], found[140:]
    for copies in (first, second):
        assert np.mean([np.any(a != b) for a, b in zip(copies, IMAGES, strict=True)]) > 0.9
    assert np.any(first != second)
    np.testing.assert_array_equal(found, tfnas.data.augmented(IMAGES, copies=3, seed=1))
    assert np.any(found != tfnas.data.augmented(IMAGES, copies=3, seed=2))
    flipped = tfnas.data.augmented(IMAGES, copies=2, augment=["flip"])[70:]
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, IMAGES, strict=True)]
    assert 20 < sum(mirrored) < 50
    same = [np.array_equal(a, b) for a, b in zip(flipped, IMAGES, strict=True)]
    assert sum(mirrored) + sum(same) == 70


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 4)),), r"images must be an array .*, got \(3, 4\)"),
        (({"x": IMAGES},), r"images must be an array .*, got dict"),
        ((IMAGES, 0), "copies must be a whole number of at least 1, got 0"),
        ((IMAGES, True), "copies must be a whole number of at least 1, got True"),
        ((IMAGES, 2, ["turn"]), "augment must hold some of flip, shift"),
        ((IMAGES, 2, []), "augment must hold some of flip, shift, got none"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tfnas.data.augmented(*arguments)
