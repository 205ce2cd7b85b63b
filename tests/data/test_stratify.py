"""Stratified splits, compared with those of scikit-learn for the same seeds."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from tfnas.data.stratify import draw


@pytest.mark.parametrize("by_class", [True, False])
def test_draws_are_those_of_scikit_learn(by_class):
    rng = np.random.default_rng(0)
    for seed in range(100):
        classes = rng.integers(2, 9)
        labels = rng.permutation(
            np.r_[np.repeat(np.arange(classes), 2), rng.integers(classes, size=60)]
        )
        held = int(rng.integers(classes, len(labels) - classes))
        expected = train_test_split(
            np.arange(len(labels)),
            test_size=held,
            random_state=seed,
            stratify=labels if by_class else None,
        )
        for ours, theirs in zip(draw(labels, held, seed, by_class), expected, strict=True):
            np.testing.assert_array_equal(ours, np.sort(theirs))


def test_equal_remainders_are_rounded_at_random():
    labels = np.repeat([0, 1, 2, 3], 3)
    counts = {tuple(np.bincount(labels[draw(labels, 6, seed)[1]])) for seed in range(20)}
    assert len(counts) > 1
    assert all(sum(count) == 6 and set(count) == {1, 2} for count in counts)


@pytest.mark.parametrize(
    ("labels", "held", "message"),
    [
        ([0, 0, 1, 1], 4, "4 of 4 examples leave a part without any"),
        ([0, 0, 1, 1], 0, "0 of 4 examples leave a part without any"),
        ([0, 0, 0, 7], 2, "class 7 has 1 example, at least 2 are needed"),
        ([0, 0, 1, 1], 1, "2 classes need as many examples in each part, got 3 and 1"),
    ],
)
def test_refusals(labels, held, message):
    with pytest.raises(ValueError, match=message):
        draw(np.array(labels), held, seed=0)
