"""Groups of examples: columns that are no inputs, kept where parts are split off."""

import keras
import numpy as np
import pytest
from keras import layers

from tfnas.data.data_for_model import any_data, load_for
from tfnas.data.examples import ArrayParts, Examples
from tfnas.data.user_data import data_parts

N = 40
X, Y = np.arange(2.0 * N).reshape(N, 2), np.arange(float(N))
GROUPS = np.array([f"speaker {row % 4}" for row in range(N)])


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((2,)), layers.Dense(1)])


def fits(part):
    return all(part.groups == [f"speaker {int(row) % 4}" for row in part.y])


def test_groups_go_with_the_examples_that_are_split_off():
    parts = data_parts((X, Y), groups=GROUPS)
    assert fits(parts.test)
    halved = data_parts((X, Y), (X, Y), groups=GROUPS)
    assert halved.train.groups is None
    assert fits(halved.test)
    whole = data_parts((X, Y), (X, Y), (X, Y), groups=GROUPS)
    assert whole.validation.groups is None
    assert fits(whole.test)
    given = ArrayParts("mine", *[Examples(X, Y, None, GROUPS)] * 3).for_given_model()
    assert fits(given.test)


def test_groups_in_files(model, tmp_path):
    lines = [f"{a:g},{g},{b:g},{y:g}" for (a, b), y, g in zip(X, Y, GROUPS, strict=True)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["a,who,b,y", *lines]))
    parts = load_for(model, table, targets=["y"], groups="who")
    assert parts.test.x.shape == (4, 2)
    assert fits(parts.test)
    arrays = tmp_path / "arrays.npz"
    np.savez(arrays, x=X, y=Y, x_test=X, y_test=Y, who_test=GROUPS)
    assert fits(load_for(model, arrays, groups="who").test)
    with pytest.raises(ValueError, match=r"groups must name an array of .*, whom_test, got"):
        load_for(model, arrays, groups="whom")
    with pytest.raises(ValueError, match=r"groups must be columns of .* did you mean 'who'"):
        load_for(model, table, targets=["y"], groups="whom")


@pytest.mark.parametrize(
    ("data", "groups", "message"),
    [
        ((X, Y), GROUPS[:3], r"groups must hold a group for each of 40 examples, .* got \(3,\)"),
        ((X, Y), "who", "groups must hold a group for each example .* got 'who'"),
        ("digits", GROUPS, "groups must name a column where train_data is a file, got ndarray"),
        ("digits", "who", r"targets and groups must be empty where the data is no .npz .* got who"),
        (ArrayParts("mine", *[Examples(X, Y)] * 3), GROUPS, "groups must be None where train_data"),
        (lambda: iter([(X, Y)] * 20), GROUPS, "groups must be None where the test data comes in"),
    ],
)
def test_bad_groups(model, data, groups, message):
    with pytest.raises(ValueError, match=message):
        any_data(model, data, groups=groups)
