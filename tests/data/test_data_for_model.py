"""Data from files, as a model takes it, and images from arrays."""

import doctest

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfnas
from tfnas.data import data_for_model as module
from tfnas.data import data_split, named_arrays, tables
from tfnas.data.data_for_model import any_data, load_calibration, load_for
from tfnas.data.data_split import DataSplit
from tfnas.data.user_data import DataParts


def images_model(units=4, sizes=(6, 5, 3)):
    return keras.Sequential(
        [keras.Input(sizes), keras.layers.Flatten(), keras.layers.Dense(units, "softmax")]
    )


def one_input(features=3, units=1, name="features"):
    return keras.Sequential([keras.Input((features,), name=name), keras.layers.Dense(units)])


def named_model(outputs=("price", "sold"), dictionary=True, age_shape=(1,)):
    """Inputs named "size" and "age" (integers), outputs of one value each."""
    inputs = {
        "size": keras.Input((1,), name="size"),
        "age": keras.Input(age_shape, name="age", dtype="int32"),
    }
    age = keras.layers.Flatten()(keras.ops.cast(inputs["age"], "float32"))
    joined = keras.layers.Concatenate()([inputs["size"], age])
    values = {name: keras.layers.Dense(1, name=name)(joined) for name in outputs}
    if len(outputs) == 1:
        return keras.Model(inputs, values[outputs[0]])
    return keras.Model(inputs, values if dictionary else list(values.values()))


def npz(folder, **arrays):
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return path


def csv(folder, *lines):
    path = folder / "mine.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def images_of(count=40):
    return {
        "x_train": np.zeros((count, 6, 5, 3), np.uint8),
        "y_train": np.arange(count) % 4,
        "x_test": np.zeros((12, 6, 5, 3), np.uint8),
        "y_test": np.arange(12) % 4,
    }


# --- .npz


def test_images_with_labels_are_a_split_for_a_classifier(tmp_path):
    path = npz(tmp_path, **images_of())
    split = load_for(images_model(), path)
    assert isinstance(split, DataSplit)
    assert split.digest() == tfnas.data.load(path).digest()
    assert split.name == "mine"


@pytest.mark.parametrize(
    "model",
    [
        images_model(1),  # one number an image, of labels up to 3
        keras.Sequential([keras.Input((6, 5, 3)), keras.layers.Conv2D(2, 1)]),
    ],
    ids=["regression", "segmentation"],
)
def test_the_same_file_is_data_of_any_kind_for_other_models(model, tmp_path):
    arrays = images_of()
    if len(model.output_shape) > 2:
        arrays |= {f"y_{part}": arrays[f"x_{part}"][..., 0] for part in ("train", "test")}
    parts = load_for(model, npz(tmp_path, **arrays))
    assert isinstance(parts, DataParts)
    assert len(parts.train) == 36
    assert len(parts.test) == 12
    assert parts.notes[0].startswith("10% of mine.npz was split off as validation data")


def test_a_series_is_split_by_its_names(tmp_path):
    x, y = np.zeros((20, 9, 2), np.float32), np.arange(20) % 2
    model = keras.Sequential([keras.Input((9, 2)), keras.layers.Flatten(), keras.layers.Dense(2)])
    arrays = {"x_train": x, "y_train": y, "x_val": x[:6], "y_val": y[:6], "classes": ["a", "b"]}
    parts = load_for(model, npz(tmp_path, **arrays, x_test=x[:5], y_test=y[:5]))
    assert [len(each) for each in (parts.train, parts.validation, parts.test)] == [20, 6, 5]
    assert parts.notes == ()
    parts = load_for(model, npz(tmp_path, x=x, y=y, sample_weight=np.ones(20)))
    assert [len(each) for each in (parts.train, parts.validation, parts.test)] == [16, 2, 2]
    assert parts.train.weights.shape == (16,)
    parts = load_for(
        model, npz(tmp_path, wave=x, kind=y, other=y), inputs=["wave"], targets=["kind"]
    )
    assert parts.train.x.shape == (16, 9, 2)


@pytest.mark.parametrize("dictionary", [True, False])
def test_arrays_are_found_by_the_names_of_inputs_and_outputs(dictionary, tmp_path):
    n = np.arange(20.0)
    path = npz(tmp_path, age=n, size=2 * n, sold=3 * n, price=4 * n)
    parts = load_for(named_model(dictionary=dictionary), path)
    x, y = parts.train.x, parts.train.y
    assert {key: array.shape for key, array in x.items()} == {"size": (16, 1), "age": (16, 1)}
    np.testing.assert_array_equal(x["size"], 2 * x["age"])
    price, sold = (y["price"], y["sold"]) if dictionary else y
    np.testing.assert_array_equal(price, 4 * x["age"][:, 0])
    np.testing.assert_array_equal(sold, 3 * x["age"][:, 0])


def test_arrays_of_any_names_are_chosen(tmp_path):
    n = np.arange(20.0)
    path = npz(tmp_path, a=n, b=2 * n, c=3 * n, d=4 * n)
    parts = load_for(named_model(), path, inputs=["b", "a"], targets=["d", "c"])
    x, y = parts.train.x, parts.train.y
    np.testing.assert_array_equal(x["size"], 2 * x["age"])
    np.testing.assert_array_equal(y["price"], 4 * x["age"][:, 0])


BAD_ARRAYS = {
    "no targets": ({"x": np.zeros((9, 3))}, {}, "must hold the array y_train or y, got x"),
    "no inputs": ({"y": np.zeros(9)}, {}, "must hold the array x_train or x, got y"),
    "half a part": (
        {"x": np.zeros((9, 3)), "y": np.zeros(9), "x_test": np.zeros((9, 3))},
        {},
        "must hold the array y_test, got x, x_test, y",
    ),
    "twice": (
        {"x": np.zeros((9, 3)), "x_train": np.zeros((9, 3)), "y": np.zeros(9)},
        {},
        "must hold 'x' of part 'train' once",
    ),
    "another shape": (
        {"x": np.zeros((9, 4)), "y": np.zeros(9)},
        {},
        r"x of mine.npz must have the shape \(examples, 3\) for input 'features', got \(9, 4\)",
    ),
    "NaN": (
        {"x": np.full((9, 3), np.nan), "y": np.zeros(9)},
        {},
        "x of mine.npz must hold finite numbers, got NaN or infinity in example 0",
    ),
    "too many": (
        {"a": np.zeros((9, 3)), "y": np.zeros(9)},
        {"inputs": ["a", "b"]},
        "inputs must name 1 array, for features, got a, b",
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_arrays_that_are_refused(case, tmp_path):
    arrays, names, match = BAD_ARRAYS[case]
    with pytest.raises(ValueError, match=match):
        load_for(one_input(), npz(tmp_path, **arrays), **names)


def test_an_input_without_an_array_is_named(tmp_path):
    path = npz(tmp_path, aged=np.zeros(9), size=np.zeros(9), price=np.zeros(9), sold=np.zeros(9))
    with pytest.raises(ValueError, match=r"each input .* size, age, got none for 'age': .* 'aged'"):
        load_for(named_model(), path)
    path = npz(tmp_path, age=np.zeros(9), size=np.zeros(9), price=np.zeros(9))
    with pytest.raises(ValueError, match=r"each output .*, price, sold, got none for 'sold'"):
        load_for(named_model(), path)


def test_files_that_hold_no_arrays(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    for name in ("broken.npz", "objects.npz"):
        with pytest.raises(ValueError, match=rf"data '.*{name}' must be an .npz file of arrays"):
            load_for(one_input(), tmp_path / name)


# --- tables

LINES = ("age,size,city,price", *(f"{i},{i + 0.5},{i % 3},{10 * i}" for i in range(20)))


def test_one_input_takes_all_features_side_by_side(tmp_path):
    parts = load_for(one_input(3), csv(tmp_path, *LINES), targets=["price"])
    x, y = parts.train.x, parts.train.y
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[:, 1], x[:, 0] + 0.5)
    np.testing.assert_array_equal(y, 10 * x[:, 0])
    assert y.dtype == np.int64
    parts = load_for(
        one_input(2), csv(tmp_path, *LINES), inputs=["size", "age"], targets=["price", "city"]
    )
    np.testing.assert_allclose(parts.train.x[:, 0], parts.train.x[:, 1] + 0.5)
    assert parts.train.y.shape == (16, 2)


@pytest.mark.parametrize("age_shape", [(1,), ()])
def test_several_inputs_take_columns_by_name(age_shape, tmp_path):
    model = named_model(("price",), age_shape=age_shape) if age_shape else scalar_age()
    parts = load_for(model, csv(tmp_path, *LINES), targets=["price"])
    x = parts.train.x
    assert x["age"].dtype == np.int32
    assert x["age"].shape == (16, *age_shape)
    assert x["size"].dtype == np.float32
    np.testing.assert_array_equal(parts.train.y, 10 * x["age"].reshape(-1))
    assert np.isfinite(model.predict(x, verbose=0)).all()


def scalar_age():
    inputs = {"size": keras.Input((1,), name="size"), "age": keras.Input((), name="age")}
    inputs["age"] = keras.Input((), name="age", dtype="int32")
    age = keras.ops.reshape(keras.ops.cast(inputs["age"], "float32"), (-1, 1))
    return keras.Model(inputs, keras.layers.Dense(1)(keras.ops.concatenate([inputs["size"], age])))


def test_several_outputs_take_columns_by_name_or_order(tmp_path):
    lines = ("age,size,sold,price", *(f"{i},{2 * i},{3 * i},{4 * i}" for i in range(20)))
    for targets in (["sold", "price"], ["price", "sold"]):
        parts = load_for(named_model(), csv(tmp_path, *lines), targets=targets)
        np.testing.assert_array_equal(parts.train.y["price"], 4 * parts.train.x["age"][:, 0])


BAD_TABLES = {
    "no targets": (
        LINES,
        {},
        r"targets must name columns of .*: --targets=COLUMN\[,COLUMN\], of ag",
    ),
    "unknown": (LINES, {"targets": ["prize"]}, "targets must be columns .*did you mean 'price'"),
    "an unknown input": (
        LINES,
        {"targets": ["price"], "inputs": ["sise"]},
        "inputs must be columns",
    ),
    "texts": (
        (*LINES, "1,2,Paris,3"),
        {"targets": ["price"]},
        "column 'city' of .* must hold numbers, got 'Paris' in row 21",
    ),
    "nothing": (
        (*LINES, "1,,1,3"),
        {"targets": ["price"]},
        "column 'size' of .* must hold numbers, got '' in row 21",
    ),
    "NaN": (
        (*LINES, "1,nan,1,3"),
        {"targets": ["price"]},
        "x of mine.csv must hold finite numbers, got NaN or infinity in example 20",
    ),
    "other lengths": ((*LINES, "1,2"), {"targets": ["price"]}, "line 22 has 2 values, 4 are named"),
    "two of a name": (("a,a", "1,2"), {"targets": ["a"]}, "a line of different names"),
    "names alone": (("a,b",), {"targets": ["a"]}, "at least one more line"),
    "other columns": (
        LINES,
        {"targets": ["price", "city"]},
        r"model must take the 2 columns age, size .* as inputs \(batch, 2\), got \(batch, 3\)",
    ),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_tables_that_are_refused(case, tmp_path):
    lines, names, match = BAD_TABLES[case]
    with pytest.raises(ValueError, match=match):
        load_for(one_input(3), csv(tmp_path, *lines), **names)


def test_columns_that_do_not_fit_several_inputs(tmp_path):
    with pytest.raises(ValueError, match=r"the model's inputs must be columns .*, got 'size'"):
        load_for(named_model(("price",)), csv(tmp_path, "age,price", "1,2"), targets=["price"])
    path = csv(tmp_path, "age,size,price", "1,2,3")
    with pytest.raises(ValueError, match=r"take one value an example for column 'age' .* \(2,\)"):
        load_for(named_model(("p",), age_shape=(2,)), path, targets=["price"])
    with pytest.raises(ValueError, match="a column for each output of the model, price, sold, got"):
        load_for(named_model(), path, targets=["price"])


# --- whatever an argument may be


def test_names_and_splits_and_arrays():
    split = any_data(images_model(10, (8, 8, 1)), "digits")
    assert isinstance(split, DataSplit)
    assert any_data(one_input(), split) is split
    parts = any_data(one_input(), (np.zeros((9, 3)), np.zeros(9)), argument="data")
    assert isinstance(parts, DataParts)
    assert parts.notes[0].startswith("10% of data was")
    for train in ("digits", split):
        with pytest.raises(ValueError, match="test_data must be None where train_data is a name"):
            any_data(one_input(), train, test_data=(np.zeros((9, 3)), np.zeros(9)))
    with pytest.raises(ValueError, match=r"train_data must be \(x, y\)"):
        any_data(one_input(), [1, 2, 3])
    with pytest.raises(ValueError, match=r"dataset must be one of digits.*, got 'nowhere'"):
        any_data(one_input(), "nowhere")
    with pytest.raises(ValueError, match=r"targets and groups must be empty .* got y for 'digits'"):
        load_for(one_input(), "digits", targets=["y"])


def test_calibration_needs_no_targets(tmp_path):
    n = np.arange(20.0)
    inputs, split = load_calibration(named_model(), npz(tmp_path, age=n, size=n))
    assert split is None
    assert {key: array.shape for key, array in inputs.items()} == {"size": (20, 1), "age": (20, 1)}
    inputs, _ = load_calibration(one_input(), npz(tmp_path, x_test=np.zeros((5, 3))))
    assert inputs.shape == (5, 3)
    inputs, _ = load_calibration(one_input(3), csv(tmp_path, *LINES), targets=["price"])
    assert inputs.shape == (20, 3)
    inputs, split = load_calibration(images_model(), npz(tmp_path, **images_of()))
    assert len(inputs) == len(split.x_train) == 36
    inputs, split = load_calibration(images_model(), npz(tmp_path, x=np.zeros((7, 6, 5, 3))))
    assert (len(inputs), split) == (7, None)
    with pytest.raises(ValueError, match="must hold the array x, got z"):
        load_calibration(one_input(), npz(tmp_path, z=n))
    with pytest.raises(ValueError, match=r"x of mine.npz must have the shape"):
        load_calibration(one_input(), npz(tmp_path, x=n))


@pytest.mark.slow
def test_techniques_are_run_on_data_of_any_kind(tmp_path):
    class Regression(tfnas.Task):
        metric = tfnas.Metric("error", higher_is_better=False)

        def check(self, model, data):
            pass

        def loss(self, model):
            return "mse"

        def example_values(self, y, predictions):
            return np.abs(y - predictions[:, 0])

    model = one_input()
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    y = x.sum(axis=1)
    stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
    settings = tfnas.FineTuneSettings(epochs=1)
    results = [
        tfnas.run_techniques(
            model,
            [("prune", {"sparsity": 0.5})],
            data,
            directory=tmp_path / str(number),
            task=Regression(),
            settings=settings,
        )
        for number, data in enumerate([(x, y), stream, lambda: iter(stream)])
    ]
    assert [len(result.rows) for result in results] == [len(results[0].rows)] * 3


# --- images from arrays


def test_a_split_from_arrays(caplog):
    x, y = np.zeros((40, 8, 8, 1)), np.arange(40)[:, None] % 4
    split = DataSplit.from_arrays(x, y, name="mine", class_names=list("abcd"))
    assert str(split) == "mine: 32 train, 4 validation, 4 test images of 8x8x1, 4 classes"
    assert split.x_train.dtype == np.float32
    assert sorted(split.y_test) == [0, 1, 2, 3]
    assert split.digest() == DataSplit.from_arrays(x, y, name="mine").digest()
    given = DataSplit.from_arrays(x, y, validation_data=(x[:6], y[:6]), test_data=(x[:5], y[:5]))
    assert [len(each) for each in (given.train, given.validation, given.test)] == [40, 6, 5]
    given = DataSplit.from_arrays(x, y, test_data=(x[:5], y[:5]))
    assert [len(each) for each in (given.train, given.validation, given.test)] == [36, 4, 5]
    assert given.class_names == ("0", "1", "2", "3")
    series = DataSplit.from_arrays(np.zeros((40, 16, 3)), y)
    assert str(series) == "data: 32 train, 4 validation, 4 test series of 16x3, 4 classes"
    assert (series.x_train.dtype, series.input_shape) == (np.float32, (16, 3))
    assert not caplog.records
    DataSplit.from_arrays(np.zeros((40, 16, 16)), y)
    assert "channel have the shape (n, height, width, 1)" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"class_names": ["a"]}, "class_names must hold a name for each label, got 1 names and th"),
        ({"test_data": np.zeros(3)}, r"test_data must be \(images, labels\), got ndarray"),
        (
            {"validation_data": (np.zeros((2, 9, 8, 1)), [0, 1])},
            r"x_validation of 'data' must have images of \(8, 8, 1\), got \(9, 8, 1\)",
        ),
        ({"x": np.zeros((40, 8))}, "x_train of 'data' must be .n, height, width, channels"),
        (
            {"x": np.zeros((40, 8, 8), np.uint8)},
            r"must be \(n, .*channels\) of images, or floats \(n, steps.*got uint8 \(40, 8, 8\)",
        ),
        ({"y": np.zeros(40)}, "y_train of 'data' must hold one whole number for each image"),
        ({"y": np.arange(40)}, "can't be split off by class"),
    ],
)
def test_arrays_that_are_no_split(arguments, match):
    arrays = {"x": np.zeros((40, 8, 8, 1)), "y": np.arange(40) % 4}
    with pytest.raises(ValueError, match=match):
        DataSplit.from_arrays(**arrays | arguments)


def test_the_examples_are_true():
    for each in (module, data_split, named_arrays, tables):
        assert doctest.testmod(each).failed == 0
