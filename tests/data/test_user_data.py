"""The user's own data of any kind in three parts, and data that comes in batches."""

import itertools
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_cases import slow_but

from tfnas.data import batch_sources, streams, user_data
from tfnas.data.examples import Examples, leaves
from tfnas.data.streams import StreamedExamples
from tfnas.data.user_data import data_parts, example_set

X = {"b": np.arange(40.0).reshape(20, 2), "a": [np.arange(20), np.arange(60).reshape(20, 3)]}
Y = np.arange(20) % 2
W = np.linspace(0.5, 1.5, 20)


def rows(nested, index):
    return keras.tree.map_structure(lambda array: array[index], nested)


def cut(item, size):
    return [rows(item, slice(i, i + size)) for i in range(0, len(leaves(item)[0]), size)]


class Batches(keras.utils.PyDataset):
    """Batches from a list, which count what is done with them."""

    def __init__(self, items, **options):
        super().__init__(**options)
        self.items, self.ended, self.begun = items, 0, 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Shuffled(Batches):
    """Batches in another order after each epoch."""

    def on_epoch_begin(self):
        self.begun += 1

    def on_epoch_end(self):
        self.ended += 1
        self.items = self.items[1:] + self.items[:1]


def as_dataset(items):
    whole = rows_joined(items)
    tuples = tuple(streams.as_tuples(part) for part in whole)
    return tf.data.Dataset.from_tensor_slices(tuples).batch(len(leaves(items[0])[0]))


def rows_joined(items):
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *items)


KINDS = {
    "tf.data": as_dataset,
    "PyDataset": Batches,
    "function": lambda items: lambda: iter(items),
    "generator function": lambda items: lambda: (list(item) for item in items),
}


def assert_same(one, other):
    for a, b in zip(leaves([one.x, one.y]), leaves([other.x, other.y]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.weights is None) == (other.weights is None)
    if one.weights is not None:
        np.testing.assert_array_equal(one.weights, other.weights)


# --- streams


@pytest.mark.parametrize("weights", [(), (W,)], ids=["", "weights"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_holds_the_examples_of_the_arrays(kind, weights):
    arrays = Examples(X, Y, *weights)
    stream = StreamedExamples(KINDS[kind](cut((X, Y, *weights), 6)))
    assert len(stream) == 20
    assert stream.steps(64) == 4
    found = list(stream.batches())
    assert [len(part) for part in found] == [6, 6, 6, 2]
    assert_same(streams.joined_examples(*found), arrays)
    for count in (1, 5, 7, 20, 30):
        assert_same(stream.first(count), arrays.first(count))
        assert_same(stream.spread(count), arrays.spread(count))
    assert stream.spread(5) is stream.spread(5)


@pytest.mark.parametrize("kind", KINDS)
def test_all_batches_are_trained_on_in_each_epoch(kind):
    stream = StreamedExamples(KINDS[kind](cut((X, Y, W), 6)))
    dataset = stream.training_batches(64, 0).dataset()
    for _ in range(2):
        batches = list(dataset.as_numpy_iterator())
        assert sorted(len(item[1]) for item in batches) == [2, 6, 6, 6]
        assert sorted(np.concatenate([x["a"][0] for x, _, _ in batches])) == list(range(20))
        for x, y, w in batches:
            np.testing.assert_array_equal(x["b"][:, 0], 2 * x["a"][0])
            np.testing.assert_array_equal(y, x["a"][0] % 2)
            np.testing.assert_allclose(w, W[x["a"][0]])
    assert not dataset.options().autotune.enabled


@pytest.mark.parametrize("workers", [1, 3])
def test_epochs_of_a_py_dataset_begin_and_end(workers):
    x = np.arange(12)
    dataset = Shuffled(cut((x, x), 3), workers=workers, max_queue_size=2)
    batches = StreamedExamples(dataset).training_batches(64, seed=0)
    orders = []
    for epoch in range(4):
        batches.start_at(epoch)
        orders.append([int(y[0]) for _, y in batches.dataset()])
        assert (dataset.begun, dataset.ended) == (epoch + 1, epoch)
        assert sorted(orders[-1]) == [0, 3, 6, 9]
    assert len(set(map(tuple, orders))) > 1
    again = StreamedExamples(Shuffled(cut((x, x), 3))).training_batches(64, seed=0)
    assert [int(y[0]) for _, y in again.dataset()] == orders[0]  # whatever the workers


@pytest.mark.parametrize("kind", slow_but([*KINDS], "PyDataset", "tf.data"))
def test_a_model_is_trained_on_a_stream(kind):
    inputs = {"b": keras.Input((2,), name="b"), "a": keras.Input((1,), name="a")}
    joined = keras.layers.Concatenate()([inputs["b"], inputs["a"]])
    model = keras.Model(inputs, keras.layers.Dense(1)(joined))
    model.compile("sgd", "mse", jit_compile=False)
    x = {"b": X["b"] / 40, "a": np.arange(20)}  # "a" without the last axis
    stream = example_set(KINDS[kind](cut((x, Y, W), 6)), "train_data", model)
    assert stream.first(3).x["a"].shape == (3, 1)
    history = model.fit(
        stream.training_batches(64, 0).dataset(), epochs=2, shuffle=False, verbose=0
    )
    assert len(history.history["loss"]) == 2


def test_a_dataset_that_does_not_know_its_number_of_batches_is_trained_on():
    items = cut((np.arange(20.0)[:, None], Y), 6)
    spec = (tf.TensorSpec([None, 1]), tf.TensorSpec([None], tf.int32))
    dataset = tf.data.Dataset.from_generator(lambda: iter(items), output_signature=spec)
    stream = StreamedExamples(dataset)
    assert stream.source.number is None
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    batches = stream.training_batches(64, 0).dataset()
    model.fit(batches, epochs=3, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 12


def test_sizes_that_differ_from_batch_to_batch():
    items = [(np.zeros((2, length, 3)), np.zeros(2)) for length in (4, 7, 4)]
    stream = StreamedExamples(lambda: iter(items))
    assert leaves(stream.found.form)[0].shape == (None, 3)
    shapes = [x.shape for x, _ in stream.training_batches(64, 0).dataset()]
    assert shapes == [(2, 4, 3), (2, 7, 3), (2, 4, 3)]


def test_strings_are_streamed():
    items = [(np.array(["a", "bc"]), np.zeros(2)), (np.array(["def"]), np.ones(1))]
    for source in (lambda: iter(items), as_dataset(items), Batches(items)):
        stream = StreamedExamples(source)
        assert len(stream) == 3
        found = [x.tolist() for x, _ in stream.training_batches(1, 0).dataset().as_numpy_iterator()]
        assert sorted(itertools.chain.from_iterable(found)) == [b"a", b"bc", b"def"]
        assert len(stream.digest()) == 16


def test_a_stream_is_never_held():
    alive, most = [], 0

    class Row(np.ndarray):
        pass  # arrays have no weak references, their subclasses do

    def batches():
        nonlocal most
        for start in range(0, 100_000, 1000):
            x = np.full((1000, 50), start, np.float32).view(Row)
            alive.append(weakref.ref(x))
            most = max(most, sum(ref() is not None for ref in alive))
            yield x, np.zeros(1000, np.int8)

    stream = StreamedExamples(batches)
    assert len(stream) == 100_000
    assert stream.spread(300).x.nbytes < 100_000
    assert stream.spread(300).x.base is None
    stream.first(10)
    assert sum(len(part) for part in stream.batches()) == 100_000
    assert stream.digest()
    assert stream.repeats_all()
    assert sum(1 for _ in stream.training_batches(64, 0).dataset()) == 100
    assert most <= 8  # the batch, the one before, and those that are prefetched


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 13), st.integers(1, 50))
def test_typical_examples_are_those_of_the_arrays(count, size, wanted):
    x = np.arange(count)
    stream = StreamedExamples(lambda: iter(cut((x, -x), size)))
    assert_same(stream.spread(wanted), Examples(x, -x).spread(wanted))
    assert_same(stream.first(wanted), Examples(x, -x).first(wanted))


# --- digests


@pytest.mark.parametrize("kind", KINDS)
def test_a_digest_tells_contents_but_no_order(kind):
    def digest(x, y):
        return StreamedExamples(KINDS[kind](cut((x, y), 6))).digest()

    order = np.random.default_rng(0).permutation(20)
    assert digest(X, Y) == digest(rows(X, order), Y[order])
    assert digest(X, Y) == digest({"a": X["a"], "b": X["b"]}, Y)
    assert digest(X, Y) != digest(X, 1 - Y)
    assert digest(X, Y) != digest(rows(X, order), Y)
    assert digest(X, Y) != digest(rows(X, slice(18)), Y[:18])


def test_a_digest_of_shuffled_data_leaves_out_the_contents():
    dataset = as_dataset(cut((np.arange(100), np.arange(100)), 10)).unbatch()

    def digest(data, count):
        return StreamedExamples(data.shuffle(100).take(count).batch(10)).digest()

    assert digest(dataset, 100) == digest(dataset, 100)
    assert digest(dataset, 90) != digest(dataset, 100)
    assert not StreamedExamples(dataset.shuffle(100).batch(10)).repeats
    assert StreamedExamples(dataset.batch(10)).repeats


CODE = """
import numpy as np, tensorflow as tf
from tfnas.data.user_data import data_parts
x = {"b": np.arange(40.0), "a": np.array(["u", "v"] * 20)}
data = tf.data.Dataset.from_tensor_slices((x, np.arange(40))).batch(4)
print(data_parts(data).digest(), data_parts((x, np.arange(40))).digest())
print(data_parts(({"a": list("uv") * 20}, list(range(40)))).digest())
"""


@pytest.mark.slow
def test_digests_are_equal_across_processes():
    runs = [
        subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=120
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(set(runs[0].split())) == 3


# --- three parts


def ids(part):
    return sorted(part.x["a"][0].tolist() if isinstance(part, Examples) else seen(part))


def seen(part):
    return np.concatenate([batch.x["a"][0] for batch in part.batches()]).tolist()


@pytest.mark.parametrize("kind", [*KINDS, "arrays"])
def test_parts_are_disjoint_and_said(kind):
    x = rows(X, np.arange(80) % 20)
    x["a"][0], y = np.arange(80), np.arange(80) % 2

    def data(index):
        item = (rows(x, index), y[index])
        return item if kind == "arrays" else KINDS[kind](cut(item, 4))

    every = list(range(80))
    none = data_parts(data(np.arange(80)))
    assert ids(none.train) != every
    assert sorted(ids(none.train) + ids(none.validation) + ids(none.test)) == every
    assert [len(part) for part in (none.train, none.validation, none.test)] == [64, 8, 8]
    assert none.notes == tuple(
        f"10% of train_data was split off as {each} data; the model may have been trained on it"
        for each in ("validation", "test")
    )
    assert none.for_given_model(3) is none
    test = data_parts(data(np.arange(60)), test_data=data(np.arange(60, 80)), argument="data")
    assert sorted(ids(test.train) + ids(test.validation)) == list(range(60))
    assert ids(test.test) == list(range(60, 80))
    assert len(test.notes) == 1
    assert "of data was split off as validation data" in test.notes[0]
    validation = data_parts(data(np.arange(40)), data(np.arange(40, 80)))
    assert ids(validation.train) == list(range(40))
    assert sorted(ids(validation.validation) + ids(validation.test)) == list(range(40, 80))
    assert len(validation.test) == 20
    assert "validation_data was halved: 20 examples" in validation.notes[0]
    full = data_parts(data(np.arange(40)), data(np.arange(40, 60)), data(np.arange(60, 80)))
    assert full.notes == ()
    assert str(full) == "data: 40 train, 20 validation, 20 test examples"


def test_classes_are_split_in_proportion():
    y = np.repeat([0, 1, 2], [50, 30, 20])
    parts = data_parts((np.arange(100), y[:, None]), seed=3)
    for part, expected in ((parts.validation, [5, 3, 2]), (parts.test, [5, 3, 2])):
        np.testing.assert_array_equal(np.bincount(part.y[:, 0]), expected)
    again = data_parts((np.arange(100), y[:, None]), seed=3)
    assert again.digest() == parts.digest()
    assert data_parts((np.arange(100), y[:, None]), seed=4).digest() != parts.digest()
    data_parts((np.arange(100), np.arange(100)))  # numbers that are no classes


def test_lists_of_numbers_and_tables_are_arrays():
    x = {"a": [1, 2, 3, 4], "b": [[1.0], [2.0], [3.0], [4.0]], "c": list("wxyz")}
    part = example_set((x, [0, 1, 0, 1], [1, 1, 2, 2]), "train_data")
    assert part.x["a"].dtype == np.int64
    assert part.x["b"].shape == (4, 1)
    assert part.x["c"].tolist() == list("wxyz")
    assert part.weights.shape == (4,)
    part = example_set(([tf.ones((2, 3)), np.ones(2)], (np.ones(2), np.zeros(2))), "train_data")
    assert [array.shape for array in part.x] == [(2, 3), (2,)]
    assert isinstance(part.y, tuple)


def test_a_training_part_is_limited():
    parts = data_parts((np.arange(100), np.arange(100) % 2))
    assert len(parts.limited(20).train) == 20
    assert parts.limited(None) is parts
    assert parts.limited(1000) is parts
    assert parts.limited(20).digest() == parts.limited(20).digest()
    streamed = data_parts(lambda: iter(cut((np.arange(100), np.arange(100)), 5)))
    with pytest.raises(ValueError, match="train_limit must be None for data in batches, got 20"):
        streamed.limited(20)


# --- refused


def endless():
    return itertools.cycle(cut((np.arange(20), Y), 6))


def one_pass(items):
    iterator = iter(items)
    return lambda: iterator


def changed(part, value):
    """X with a value that is no number."""
    x = {key: np.array(value, float) for key, value in (("a", W), ("b", W))}
    x[part][7] = value
    return x


ITEMS = cut((np.arange(20.0), Y), 6)
BAD_NUMBER = [*ITEMS[:2], (np.array([1.0, np.nan]), np.zeros(2))]
DATASET = as_dataset(ITEMS)
REFUSED = {
    "inputs alone": (X["b"], r"must be \(x, y\), .* where they are the targets themselves"),
    "a dictionary": ({"x": W, "y": Y}, r"must be \(x, y\), .*, got a dict of 2 parts: inputs with"),
    "a list": ([W, Y], r"must be \(x, y\), .* \(x, y\) must be a tuple"),
    "a name": ("digits", r"must be \(x, y\), .*, got 'digits'"),
    "None": (None, r"must be \(x, y\), .*, got a NoneType"),
    "four parts": ((W, Y, W, W), r"must be \(x, y\) or \(x, y, sample_weight\), got a tuple of 4"),
    "no targets": ((W, None), r"must be \(x, y\) or \(x, y, sample_weight\)"),
    "other lengths": ((W, Y[:5]), "x and y must hold as many examples, got 20 in x, 5 in y"),
    "other weights": ((W, Y, Y[:5]), "x and y and sample_weight must hold .* 5 in sample_weight"),
    "no inputs": (({}, Y), "x of train_data must hold at least one array"),
    "no examples": ((W[:0], Y[:0]), "must hold at least one example, got none"),
    "a number": ((1.0, Y), "x of train_data must hold the examples along its first axis"),
    "rows of several lengths": (([[1], [1, 2]], [0, 1]), "x of train_data must be an array of num"),
    "objects": (([object()] * 2, [0, 1]), "x of train_data must be an array .* it holds object"),
    "dates": ((np.zeros(2, "M8[s]"), [0, 1]), "x of train_data must hold numbers or strings, got"),
    "NaN": ((changed("a", np.nan), Y), r"x of train_data\['a'\] must hold finite .* in example 7"),
    "infinity": ((W, changed("b", np.inf)), r"y of train_data\['b'\] must hold finite numbers"),
    "NaN as weight": ((W, Y, changed("a", np.nan)["a"]), "sample_weight of train_data must hold f"),
    "a weight below 0": (
        (W, Y, Y - 9),
        r"sample_weight of train_data must hold numbers >= 0, got -",
    ),
    "no weight above 0": ((W, Y, 0 * Y), "sample_weight of train_data must hold a number above 0"),
    "no weight in batches": (
        lambda: ((x, y, 0 * y) for x, y in ITEMS),
        "sample_weight of train_data must hold a number above 0, got zeros only",
    ),
    "a weight as a word": (
        (W, Y, ["a"] * 20),
        "sample_weight of train_data must hold numbers, got",
    ),
    "NaN in a batch": (lambda: iter(BAD_NUMBER), "x of train_data must hold finite numbers, got N"),
    "NaN in a dataset": (as_dataset(BAD_NUMBER[::2]), "x of train_data must hold finite numbers"),
    "a generator": (iter(ITEMS), "must be readable more than once, got a list_iterator, which can"),
    "a function of one pass": (one_pass(ITEMS), "must return a new iterator at each call"),
    "no iterator": (lambda: 3, "must return a new iterator of batches at each call, got an int"),
    "an argument": (lambda n: iter(ITEMS), "must be a function without arguments: missing a requ"),
    "an endless function": (endless, "must end, got more than 19 batches, which repeat after 4"),
    "one batch without end": (
        lambda: itertools.repeat(ITEMS[0]),
        "must end, got more than 1,000 batches, which repeat after 1: yield each batch once",
    ),
    "an endless dataset": (DATASET.repeat(), r"must end, got an endless data set: .*take\(100\)"),
    "an endless PyDataset": (
        type("E", (Batches,), {"num_batches": None})([]),
        "must end, got an e",
    ),
    "an empty function": (lambda: iter(()), "must hold at least one example, got none"),
    "an empty dataset": (DATASET.take(0), "must hold at least one example, got none"),
    "an empty PyDataset": (Batches([]), "must hold at least one example, got a PyDataset of leng"),
    "an empty batch": (lambda: iter([*ITEMS, (W[:0], Y[:0])]), "must hold at least one example"),
    "single examples": (DATASET.unbatch(), r"must be in batches, got single examples: .*batch\(32"),
    "inputs alone in batches": (DATASET.map(lambda x, y: x), r"must be \(x, y\) or \(x, y, sample"),
    "another nest later": (
        lambda: iter([*ITEMS, ({"a": W}, Y)]),
        "must yield batches of one form, got another one in batch 4: an array and then the keys",
    ),
    "other keys later": (
        lambda: iter([({"a": W}, Y), ({"b": W}, Y)]),
        r"must yield batches of one form, .* the keys \['a'\] and then the keys \['b'\]",
    ),
    "weights later": (
        lambda: iter([(W, Y), (W, Y, W)]),
        "must yield batches of one form, .* 2 arrays and then 3 arrays",
    ),
    "another type later": (
        lambda: iter([(W, Y), (Y, Y)]),
        r"must yield batches of one form, .* float64 \(batch,\) and then int64 \(batch,\)",
    ),
    "too few to split": ((W[:2], Y[:2]), "must hold at least 3 examples where parts are split off"),
    "too few batches to split": (lambda: iter(ITEMS[:2]), "must hold at least 3 batches where par"),
    "shuffled and to be split": (
        DATASET.unbatch().shuffle(20).batch(3),
        "must give the same batches in each pass .*: give validation_data and test_data",
    ),
    "reordered and to be split": (Shuffled(ITEMS), "must give the same batches .* an on_epoch_end"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_that_is_refused(case):
    data, match = REFUSED[case]
    with pytest.raises(ValueError, match=f"train_data.*{match}|^{match}"):
        data_parts(data)


def test_validation_data_must_be_in_one_order():
    shuffled = DATASET.unbatch().shuffle(20).batch(4)
    assert len(data_parts(shuffled, (W, Y), (W, Y)).train) == 20
    with pytest.raises(ValueError, match=r"^test_data must give the same examples in the same"):
        data_parts((W, Y), (W, Y), shuffled)
    with pytest.raises(ValueError, match=r"^validation_data must give the same batches in each"):
        data_parts((W, Y), shuffled)
    with pytest.raises(ValueError, match=r"^validation_data must hold at least 2 examples to"):
        data_parts((W, Y), (W[:1], Y[:1]))


def test_data_that_repeats_itself_a_little_is_taken():
    few = [ITEMS[i] for i in (0, 1, 0, 1, 0, 1, 2, 0, 1)]
    for items in (few, [ITEMS[0]] * 50, few * 3):
        assert StreamedExamples(lambda items=items: iter(items)).steps(1) == len(items)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=60))
def test_a_repetition_is_found_where_there_is_one(values):
    found = streams._Repetition()
    stops = [number for number, value in enumerate(values) if found.seen(value)]
    for number in stops[:1]:
        read = values[: number + 1]
        assert read == read[: found.period] * streams.ROUNDS
        assert len(set(read)) > 1


def two_inputs():
    inputs = {"b": keras.Input((2,), name="b"), "a": keras.Input((1,), name="a")}
    joined = keras.layers.Concatenate()([inputs["b"], inputs["a"]])
    return keras.Model(inputs, keras.layers.Dense(1)(joined))


TWO = {"b": np.zeros((6, 2)), "a": np.zeros((6, 1))}
UNFIT = {
    "another key": ({"b": TWO["b"], "c": TWO["a"]}, r"must hold the inputs \['b', 'a'\], got \['b"),
    "one array": (TWO["b"], r"must hold 2 inputs, \['b', 'a'\], got 1"),
    "another shape": (
        {"b": np.zeros((6, 3)), "a": TWO["a"]},
        r"shape \(examples, 2\) for input 'b'",
    ),
    "strings": ({"b": TWO["b"], "a": np.array(list("uvwxyz"))}, "must hold numbers for input 'a'"),
    "a deeper nest": ([TWO["b"], [TWO["a"]]], "must be a list of arrays for"),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("case", UNFIT)
def test_inputs_that_do_not_fit_the_model(case, streamed):
    x, match = UNFIT[case]
    item = (x, np.zeros(6))
    with pytest.raises(ValueError, match=f"^x of data .*{match}"):
        data_parts(
            (lambda: iter([item])) if streamed else item, model=two_inputs(), argument="data"
        )


def test_a_dataset_of_single_examples_is_told_by_the_model():
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    single = tf.data.Dataset.from_tensor_slices((np.zeros((5, 8, 8, 1)), np.zeros((5, 8))))
    with pytest.raises(ValueError, match=r"x and y must hold as many|a single example: data must"):
        data_parts(single, model=model)
    one = (np.zeros((8, 8, 1)), np.zeros(8))
    with pytest.raises(
        ValueError, match=r"got .8, 8, 1., a single example: data must be in batches"
    ):
        data_parts(one, model=model)
    with pytest.raises(ValueError, match=r"must hold 1 input, \[.*\], got 20: stack single exam"):
        data_parts(([np.zeros((8, 1))] * 20, np.zeros(8)), model=model)


def test_a_model_that_does_not_know_its_inputs_takes_any():
    class Own(keras.Model):
        def call(self, x):
            return x

    assert len(data_parts((np.zeros((20, 3)), np.zeros(20)), model=Own()).train) == 16


def test_the_examples_are_true():
    import doctest

    for module in (user_data, streams, batch_sources):
        assert doctest.testmod(module).failed == 0
