"""Examples of nested arrays: their parts keep rows together, whatever the nest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.data.examples import (
    ArrayParts,
    Examples,
    as_tuples,
    digest_of,
    joined,
    leaves,
    mapped,
)

# Nests of numbers: each leaf becomes an array whose rows tell leaf and example.
SHAPES = st.recursive(
    st.sampled_from([(), (2,), (2, 3)]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.lists(inner, min_size=1, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3)
    ),
    max_leaves=4,
).filter(lambda shape: shape != ())


def is_shape(value):
    return isinstance(value, tuple) and all(isinstance(part, int) for part in value)


def nest(shape, examples, counter=None):
    """Arrays of a nest; every row of a leaf holds 1000 * leaf + example."""
    counter = iter(range(1000)) if counter is None else counter
    if is_shape(shape):
        rows = 1000 * next(counter) + np.arange(examples)
        return np.broadcast_to(rows.reshape(-1, *(1 for _ in shape)), (examples, *shape)).copy()
    if isinstance(shape, dict):
        return {key: nest(shape[key], examples, counter) for key in sorted(shape)}
    return type(shape)(nest(part, examples, counter) for part in shape)


def numbers(nested):
    """The example that each row of each leaf belongs to."""
    return [np.reshape(leaf, (len(leaf), -1))[:, 0] % 1000 for leaf in leaves(nested)]


@settings(max_examples=50, deadline=None)
@given(SHAPES, st.integers(1, 12), st.data())
def test_rows_stay_together(shape, count, data):
    examples = Examples(nest(shape, count), nest(shape, count))
    assert len(examples) == count
    index = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=9))
    part = examples.rows(index)
    for found in [*numbers(part.x), *numbers(part.y)]:
        np.testing.assert_array_equal(found, index)
    begin = data.draw(st.integers(0, count - 1))
    for found in numbers(examples.rows(slice(begin, None)).x):
        np.testing.assert_array_equal(found, np.arange(begin, count))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(1, 300))
def test_scattered_examples_are_one_of_each_part(count, wanted):
    part = Examples(np.arange(count), np.arange(count)).spread(wanted)
    np.testing.assert_array_equal(part.x, part.y)
    parts = min(count, wanted)
    ends = [i * count // parts for i in range(parts + 1)]
    assert all(a <= x < b for a, x, b in zip(ends[:-1], part.x, ends[1:], strict=True))


def test_scattered_examples_have_all_phases_of_periodic_data():
    hours = np.arange(24 * 100) % 24
    assert len(np.unique(Examples(hours, hours).spread(100).x)) > 18


@settings(max_examples=50, deadline=None)
@given(SHAPES, st.integers(1, 5), st.integers(1, 5))
def test_nests_are_joined_leaf_by_leaf(shape, first, second):
    both = joined(nest(shape, first), nest(shape, second))
    assert structure(both) == structure(nest(shape, 1))
    for found in numbers(both):
        np.testing.assert_array_equal(found, [*range(first), *range(second)])


def structure(nested):
    """The nest with None for each array."""
    return mapped(lambda array: None, nested)


@settings(max_examples=50, deadline=None)
@given(SHAPES)
def test_leaves_are_those_that_a_function_is_applied_to(shape):
    nested, seen = nest(shape, 2), []
    assert structure(nested) == mapped(lambda array: seen.append(array), nested)
    assert {id(a) for a in seen} == {id(a) for a in leaves(nested)}
    tuples = as_tuples(nested)
    assert [id(a) for a in leaves(tuples)] == [id(a) for a in leaves(nested)]
    assert not any(isinstance(part, list) for part in parts_of(tuples))


def parts_of(nested):
    yield nested
    if isinstance(nested, dict):
        nested = list(nested.values())
    if isinstance(nested, list | tuple):
        for part in nested:
            yield from parts_of(part)


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(1, 6), st.integers(1, 6), st.integers(2, 12), st.integers(0, 9))
def test_parts_for_a_given_model_share_no_example(shape, train, validation, test, seed):
    total = train + validation + test
    every = Examples(nest(shape, total), nest(shape, total))
    bounds = (slice(0, train), slice(train, train + validation), slice(train + validation, None))
    parts = ArrayParts("nests", *(every.rows(part) for part in bounds))
    given_model = parts.for_given_model(seed)
    assert given_model.name == "nests"
    seen = []
    for part in (given_model.train, given_model.validation, given_model.test):
        columns = [*numbers(part.x), *numbers(part.y)]
        for column in columns[1:]:
            np.testing.assert_array_equal(column, columns[0])
        seen.append(list(columns[0]))
    assert sorted(seen[0]) == list(range(train + validation))
    assert sorted(seen[1] + seen[2]) == list(range(train + validation, total))
    assert len(seen[1]) == test // 2
    again = parts.for_given_model(seed)
    assert again.digest() == given_model.digest()


def test_a_digest_tells_examples_and_their_order():
    x = {"b": np.arange(6.0).reshape(3, 2), "a": np.arange(3)}
    one = Examples(x, np.arange(3))
    digest = digest_of(one)
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert digest_of(Examples({key: x[key] for key in ("a", "b")}, np.arange(3))) == digest
    assert digest_of(one.rows([0, 2, 1])) != digest
    assert digest_of(Examples(x, np.array([0, 1, 3]))) != digest
    parts = ArrayParts("p", one, one.rows([0]), one.rows([1]))
    assert parts.digest() == digest_of(one, one.rows([0]), one.rows([1]))
    assert parts.digest() != ArrayParts("p", one, one.rows([1]), one.rows([0])).digest()
    assert str(parts) == "p: 3 train, 1 validation, 1 test examples"


def test_nests_of_other_structures_are_not_joined():
    with pytest.raises(ValueError, match="zip"):
        joined([np.ones(2)], [np.ones(2), np.ones(2)])
    with pytest.raises(KeyError):
        joined({"a": np.ones(2)}, {"b": np.ones(2)})
