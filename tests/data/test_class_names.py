"""Targets that are class names."""

import keras
import numpy as np
import pytest
from keras import layers

from tfnas.data.data_for_model import load_for
from tfnas.data.tables import read_table, table_targets
from tfnas.data.user_data import data_parts

NAMES = np.array(["wren", "Tern", "owl"] * 10)
X = np.arange(60.0).reshape(30, 2)


@pytest.fixture(scope="module")
def three_classes():
    return keras.Sequential([keras.Input((2,)), layers.Dense(3, "softmax")])


def test_names_are_numbered_in_sorted_order_and_reported(three_classes):
    parts = data_parts((X, NAMES), test_data=(X[:3], NAMES[:3]), model=three_classes)
    assert parts.test.y.tolist() == [2, 0, 1]
    assert parts.target_names == ("Tern", "owl", "wren")
    assert set(np.unique(parts.train.y)) == {0, 1, 2}
    assert parts.notes[0] == (
        "class names of the targets are numbered in sorted order: 0 Tern, 1 owl, 2 wren"
    )


@pytest.mark.parametrize("part", ["validation_data", "test_data"])
def test_an_unknown_class_is_named(part):
    with pytest.raises(ValueError, match=rf"targets of {part} must be classes of .* got 'hawk'"):
        data_parts((X, NAMES), **{part: (X[:2], np.array(["owl", "hawk"]))})


def test_names_by_output():
    y = {"bird": NAMES[:, None], "age": np.arange(30)}
    parts = data_parts((X, y), test_data=(X[:3], {"age": y["age"][:3], "bird": y["bird"][:3]}))
    assert parts.test.y["bird"].tolist() == [2, 0, 1]
    assert parts.test.y["age"].tolist() == [0, 1, 2]
    assert parts.notes[0].startswith("class names of 'bird' are")


def test_there_are_as_many_names_as_classes(three_classes):
    two = np.where(NAMES == "owl", "wren", NAMES)
    with pytest.raises(ValueError, match=r"must be 3 class names, for the 3 units .* got 2 names"):
        data_parts((X, two), model=three_classes)
    binary = keras.Sequential([keras.Input((2,)), layers.Dense(1, "sigmoid")])
    assert set(data_parts((X, two), model=binary).train.y) == {0, 1}
    with pytest.raises(ValueError, match="must be 2 class names, for the 1 unit of the output"):
        data_parts((X, NAMES), model=binary)


def test_names_in_a_table(three_classes, tmp_path):
    rows = [f"{a},{b},{name}" for (a, b), name in zip(X, NAMES, strict=True)]
    path = tmp_path / "birds.csv"
    path.write_text("\n".join(["wing,tail,bird", *rows]))
    parts = load_for(three_classes, path, targets=["bird"])
    assert parts.target_names == ("Tern", "owl", "wren")
    assert parts.train.y.dtype.kind == "i"
    path.write_text("\n".join(["wing,tail,bird", "1,2,3", "1,2,owl"]))
    with pytest.raises(ValueError, match=r"'bird' of .* must hold numbers, got 'owl' in row 2"):
        table_targets(read_table(path), three_classes, "birds.csv", ["bird"])
    with pytest.raises(ValueError, match=r"of one output must be numbers .* got texts in 'bird'"):
        table_targets({"bird": ["a"], "n": ["1"]}, three_classes, "birds.csv", ["bird", "n"])
