"""tfnas.data: named data sets, .npz files, folders of images, and data of every kind."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfnas.data.data_split import DataSplit
from tfnas.data.datasets import load
from tfnas.data.image_folder import parse_size
from tfnas.data.reading import arrays, batches, spread, spread_pairs


class Sequence(keras.utils.PyDataset):
    """Batches of (x, y), in order."""

    def __init__(self, x, y, size):
        super().__init__()
        self.x, self.y, self.size = x, y, size

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, index):
        part = slice(index * self.size, (index + 1) * self.size)
        return self.x[part], self.y[part]


class Endless(keras.utils.PyDataset):
    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return np.full((4, 2), index)


def npz_parts(n=40, n_test=10):
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (n, 6, 5, 3), dtype=np.uint8),
        "y_train": np.arange(n) % 4,
        "x_test": rng.integers(0, 256, (n_test, 6, 5, 3), dtype=np.uint8),
        "y_test": np.arange(n_test)[:, None] % 4,
    }


def write_images(folder, per_class=10, size=(7, 5), classes=("cat", "dog", "emu"), suffix=".png"):
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            pixel = np.full((*size, 3), 10 * label + i, np.uint8)
            Image.fromarray(pixel).save(folder / name / f"{i}{suffix}")


# --- digits


def test_digits_parts_are_disjoint_and_complete(digits):
    from sklearn.datasets import load_digits

    rows = [x.reshape(len(x), -1).tobytes() for x in (digits.x_train, digits.x_val, digits.x_test)]
    assert [len(r) // 64 for r in rows] == [1293, 144, 360]
    seen = collections.Counter(r[i : i + 64] for r in rows for i in range(0, len(r), 64))
    raw = np.round(load_digits().images * (255 / 16)).astype(np.uint8).reshape(-1, 64)
    assert seen == collections.Counter(row.tobytes() for row in raw)
    assert max(seen.values()) == 1  # no two digits are equal, so equal sets means disjoint parts


def test_digits_are_raw_pixels_and_stratified(digits):
    assert digits.input_shape == (8, 8, 1)
    assert digits.num_classes == 10
    assert {x.dtype.name for x in (digits.x_train, digits.x_val, digits.x_test)} == {"uint8"}
    assert (digits.x_train.min(), digits.x_train.max()) == (0, 255)
    total = np.bincount(np.concatenate([digits.y_train, digits.y_val, digits.y_test]))
    for y in (digits.y_train, digits.y_val, digits.y_test):
        assert np.abs(np.bincount(y) - total * len(y) / total.sum()).max() < 1.01


def test_seed_changes_validation_but_never_test(digits):
    other = load("digits", seed=1)
    np.testing.assert_array_equal(other.x_test, digits.x_test)
    assert not np.array_equal(other.x_val, digits.x_val)
    again = load("digits")
    np.testing.assert_array_equal(again.x_val, digits.x_val)
    x, y = digits.training_part()
    assert len(x) == len(y) == 1293 + 144


def test_limited_is_stratified_and_leaves_the_other_parts(digits):
    limited = digits.limited(200)
    assert limited.x_train.shape == (200, 8, 8, 1)
    assert set(np.bincount(limited.y_train)) <= {19, 20, 21}
    assert limited.x_val is digits.x_val
    assert limited.x_test is digits.x_test
    rows = {row.tobytes() for row in digits.x_train}
    assert all(row.tobytes() in rows for row in limited.x_train)
    assert digits.limited(None) is digits
    assert digits.limited(1293) is digits
    np.testing.assert_array_equal(limited.x_train, digits.limited(200).x_train)
    assert "200 train, 144 validation, 360 test images of 8x8x1, 10 classes" in str(limited)


@pytest.mark.parametrize("examples", [5, 1290])
def test_limited_where_the_classes_can_not_be_in_proportion(digits, examples):
    limited = digits.limited(examples)
    assert len(limited.x_train) == len(limited.y_train) == examples
    np.testing.assert_array_equal(limited.y_train, digits.limited(examples).y_train)


def test_spread_returns_examples_of_each_part():
    by_class = np.repeat(np.arange(10), 100)
    assert set(spread(by_class, 50)) == set(range(10))
    np.testing.assert_array_equal(spread(by_class, 5000), by_class)
    inputs = {"a": np.arange(9), "b": np.arange(9)}
    part = spread(inputs, 3)
    assert (part["b"] // 3).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(part["a"], part["b"])


def test_spread_of_periodic_data_has_all_phases():
    hours = np.arange(24 * 500) % 24
    assert len(np.unique(spread(hours, 500))) == 24
    x, y = spread_pairs(hours[:, None], hours, 500)
    np.testing.assert_array_equal(x[:, 0], y)


@pytest.mark.parametrize("text", ["96", "96,", "0,96", "-1,5", "a,b", "1,2,3"])
def test_image_size_is_checked(text):
    with pytest.raises(ValueError, match="image_size must be HEIGHT,WIDTH"):
        parse_size(text)
    assert parse_size("96, 128") == (96, 128)


@pytest.mark.parametrize("validation", [0.0, 1.0, -0.1, 1, float("nan")])
def test_validation_share_is_checked(validation):
    with pytest.raises(ValueError, match=r"validation must be in \(0, 1\)"):
        load("digits", validation)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"must be one of digits.*got 'imagenot'"):
        load("imagenot")
    with pytest.raises(ValueError, match="did you mean 'fashion_mnist'"):
        load("fashion-mnist")


@pytest.mark.parametrize("name", ["none.npz", "data/digits", "~/none", "none/"])
def test_a_path_that_is_missing_is_said_to_be(name):
    with pytest.raises(ValueError, match="must be a file or a folder that exists, got "):
        load(name)


# --- .npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    parts = npz_parts()
    save(tmp_path / "mine.npz", **parts)
    split = load(tmp_path / "mine.npz", 0.2)
    assert split.name == "mine"
    assert split.class_names == ("0", "1", "2", "3")
    assert (split.x_train.shape, split.x_val.shape) == ((32, 6, 5, 3), (8, 6, 5, 3))
    assert split.x_train.dtype == np.uint8
    np.testing.assert_array_equal(split.x_test, parts["x_test"])
    np.testing.assert_array_equal(split.y_test, parts["y_test"].ravel())
    np.testing.assert_array_equal(np.bincount(split.y_val), [2, 2, 2, 2])
    label_of = {x.tobytes(): y for x, y in zip(parts["x_train"], parts["y_train"], strict=True)}
    assert [label_of[x.tobytes()] for x in split.x_val] == list(split.y_val)


def test_npz_of_floats_keeps_float32(tmp_path):
    parts = npz_parts()
    parts["x_train"] = parts["x_train"] / 2.0
    np.savez(tmp_path / "f.npz", **parts)
    assert load(tmp_path / "f.npz").x_train.dtype == np.float32


BAD_NPZ = {
    "objects": (
        {"x_train": np.array([np.zeros(3), "x"], object)},
        "must be an .npz file with x_train.*Object arrays cannot be loaded",
    ),
    "missing": ({"y_test": None}, "missing y_test"),
    "flat images": ({"x_train": np.zeros((40, 90))}, r"x_train of .* must be \(n, height"),
    "text images": ({"x_test": np.full((10, 6, 5, 3), "a")}, "x_test of .* must hold finite"),
    "nan": ({"x_train": np.full((40, 6, 5, 3), np.nan)}, "x_train of .* must hold finite"),
    "float labels": ({"y_train": np.arange(40) % 4.0}, "y_train of .* got float64"),
    "labels short": ({"y_test": np.zeros(9, int)}, r"y_test of .*\(9,\) for 10 images"),
    "one-hot": (
        {"y_train": np.eye(4, dtype=int)[np.arange(40) % 4]},
        "one whole number for each image",
    ),
    "below 0": ({"y_train": np.arange(40) % 4 - 1}, "labels >= 0"),
    "other size": ({"x_test": np.zeros((10, 6, 6, 3))}, r"x_test .* \(6, 5, 3\), got \(6, 6, 3\)"),
    "no test": ({"x_test": np.zeros((0, 6, 5, 3)), "y_test": np.zeros(0, int)}, "test part of"),
    "a class of one": ({"y_train": np.r_[np.zeros(39, int), 1]}, "validation part can't be split"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_npz_that_is_refused(tmp_path, case):
    changes, match = BAD_NPZ[case]
    parts = {k: v for k, v in {**npz_parts(), **changes}.items() if v is not None}
    np.savez(tmp_path / "bad.npz", **parts)
    with pytest.raises(ValueError, match=match):
        load(tmp_path / "bad.npz")


def damaged(content, how):
    middle = len(content) // 2
    return {
        "truncated": content[:middle],
        "empty": b"",
        "text": b"hello",
        "flipped": content[:3000] + bytes(b ^ 0xFF for b in content[3000:3100]) + content[3100:],
    }[how]


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "flipped"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_npz_is_refused_with_its_path(tmp_path, save, how):
    path = tmp_path / "damaged.npz"
    save(path, **npz_parts(400))
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(ValueError, match=r"dataset '.*damaged.npz' must be an .npz file"):
        load(path)


def test_npy_is_no_npz(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"must be an .npz file"):
        load(tmp_path / "a.npy")


def test_what_is_no_archive_is_not_called_pickled(tmp_path):
    (tmp_path / "a.csv").write_text("size,kind\n1.5,cat\n")
    with pytest.raises(ValueError, match="it is none, but a table, which trained models take"):
        load(tmp_path / "a.csv")
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(ValueError, match=r"x_test, y_test: it is none$"):
        load(tmp_path / "a.txt")


# --- folders


def test_a_class_without_images_is_named(tmp_path):
    write_images(tmp_path / "animals")
    (tmp_path / "animals" / "yak").mkdir()
    with pytest.raises(ValueError, match=r"must hold images of each class, got none in yak: .png"):
        load(tmp_path / "animals")
    for part in ("train", "test"):
        write_images(tmp_path / "parts" / part)
    for image in (tmp_path / "parts" / "test" / "emu").iterdir():
        image.unlink()
    assert len(load(tmp_path / "parts", 0.25).class_names) == 3  # a test part may lack a class


def test_folder_with_one_folder_a_class(tmp_path):
    write_images(tmp_path / "animals")
    (tmp_path / "animals" / "cat" / "notes.txt").write_text("not an image")
    split = load(tmp_path / "animals", 0.25)
    assert split.class_names == ("cat", "dog", "emu")
    assert split.input_shape == (7, 5, 3)
    assert [len(y) for y in (split.y_train, split.y_val, split.y_test)] == [18, 6, 6]
    np.testing.assert_array_equal(np.bincount(split.y_test), [2, 2, 2])
    for x, y in (
        (split.x_train, split.y_train),
        (split.x_val, split.y_val),
        (split.x_test, split.y_test),
    ):
        np.testing.assert_array_equal(x[:, 0, 0, 0] // 10, y)  # the pixel says the class
    pixels = np.concatenate([split.x_train, split.x_val, split.x_test])[:, 0, 0, 0]
    assert sorted(pixels) == list(range(30))


def test_train_and_test_folders(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", per_class=4)
    split = load(tmp_path, 0.2)
    assert len(split.x_test) == 12
    assert len(split.x_train) + len(split.x_val) == 30


def test_test_images_are_resized_to_training_images(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "val", per_class=2, size=(14, 10))
    assert load(tmp_path).x_test.shape == (6, 7, 5, 3)


def test_train_folder_alone_is_refused(tmp_path):
    write_images(tmp_path / "train")
    with pytest.raises(ValueError, match="must hold a folder 'test' beside 'train'"):
        load(tmp_path)


def test_mixed_sizes_need_image_size(tmp_path):
    write_images(tmp_path)
    Image.new("L", (9, 9), 25).save(tmp_path / "emu" / "z.png")
    with pytest.raises(ValueError, match=r"one size.*\(9, 9\) in '.*z.png' and \(7, 5\)"):
        load(tmp_path)
    split = load(tmp_path, image_size=(4, 6))
    assert split.input_shape == (4, 6, 3)
    assert split.x_train.dtype == np.uint8


def test_corrupt_image_is_named(tmp_path):
    write_images(tmp_path, suffix=".jpg", size=(64, 64))
    content = (tmp_path / "dog" / "3.jpg").read_bytes()
    (tmp_path / "dog" / "3.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"image '.*dog/3.jpg' can't be read"):
        load(tmp_path)
    (tmp_path / "dog" / "3.jpg").write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=r"image '.*dog/3.jpg' can't be read"):
        load(tmp_path)


def test_folder_without_classes_or_images(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(ValueError, match="at least 2 folders, one for each class, got 1"):
        load(tmp_path)
    (tmp_path / "two").mkdir()
    with pytest.raises(ValueError, match="must hold images, got none"):
        load(tmp_path)


# --- batches and arrays

X = np.arange(600, dtype=np.float32).reshape(300, 2)
Y = np.arange(300)


def kinds():
    def dataset(*parts):
        return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(64)

    return {
        "array": (X, X, None),
        "pair": ((X, Y), X, Y),
        "weighted": ((X, Y, Y), X, Y),
        "list": ([X, Y], [X, Y], None),
        "dict": ({"b": X, "a": Y}, {"b": X, "a": Y}, None),
        "lists with dict targets": (([X, X], {"t": Y}), [X, X], {"t": Y}),
        "plain numbers": (X.tolist(), X, None),
        "dataset": (dataset(X), X, None),
        "dataset pair": (dataset(X, Y), X, Y),
        "dataset dict": (dataset({"b": X, "a": Y}, Y), {"b": X, "a": Y}, Y),
        "dataset two": (dataset((X, Y), Y), (X, Y), Y),
        "py_dataset": (Sequence(X, Y, 64), X, Y),
        "tensor": (tf.constant(X), X, None),
    }


def check(got, expected):
    assert type(got) is type(expected)
    if isinstance(expected, dict):
        assert list(got) == list(expected) or sorted(got) == sorted(expected)
        for key in expected:
            check(got[key], expected[key])
    elif isinstance(expected, list | tuple):
        for a, b in zip(got, expected, strict=True):
            check(a, b)
    elif expected is not None:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", kinds())
def test_arrays_of_every_kind(kind):
    data, x, y = kinds()[kind]
    check(arrays(data), (x, y))


@pytest.mark.parametrize("kind", ["array", "pair", "dict", "dataset dict", "py_dataset"])
def test_limit_takes_the_first(kind):
    data, x, y = kinds()[kind]
    first = {k: v[:70] for k, v in x.items()} if isinstance(x, dict) else x[:70]
    check(arrays(data, 70), (first, None if y is None else y[:70]))


def test_batches_keep_inputs_and_targets_together():
    assert [(len(x), len(y)) for x, y in batches((X, Y))] == [(256, 256), (44, 44)]
    sizes = [len(x) for x, _ in batches(Sequence(X, Y, 64))]
    assert sizes == [64, 64, 64, 64, 44]


@pytest.mark.parametrize(
    "data", [tf.data.Dataset.from_tensor_slices(X).batch(8).repeat(), Endless()]
)
def test_endless_data_need_a_limit(data):
    with pytest.raises(ValueError, match="calibration must end, got an endless data set"):
        arrays(data, what="calibration")
    assert arrays(data, 10)[0].shape == (10, 2)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (X[:0], "x must hold at least one example, got none"),
        (tf.data.Dataset.from_tensor_slices(X[:0]).batch(4), "at least one example"),
        ([X, Y[:299]], r"arrays of one length.*\(300, 2\), ndarray \(299,\)"),
        ({"a": X, "b": Y[:1]}, "arrays of one length"),
        ((X, Y[:299]), "as many targets as inputs, got 300 inputs"),
        ((X, Y, Y, Y), "got 4 parts"),
        (3.0, "must be arrays of one length"),
        (None, "must be arrays of one length, a tf.data.Dataset"),
        ({}, "must be arrays of one length"),
    ],
)
def test_data_that_is_refused(data, match):
    with pytest.raises(ValueError, match=match):
        arrays(data, what="x")


def test_a_test_part_of_one_image_a_class_is_halved_too():
    x, y = np.zeros((10, 4, 4, 1), np.uint8), np.arange(10)
    split = DataSplit("few", x[:0], y[:0], x[:0], y[:0], x, y, tuple("abcdefghij"))
    halved = split.for_given_model()
    assert len(halved.x_val) == len(halved.x_test) == 5
    assert sorted([*halved.y_val, *halved.y_test]) == list(range(10))
