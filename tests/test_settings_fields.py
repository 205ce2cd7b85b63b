"""Fields of settings records: their rules, their messages and their part of the docstring."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.techniques.registry import techniques
from tfnas.settings_fields import (
    FieldOption,
    as_settings,
    check_options,
    check_whole_numbers,
    documented,
    kinds_of,
    option,
    options_of,
)


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """Settings of a test.

    Example:
        >>> 1
        1
    """

    needed: float = option(help="a share", low=0, high=1, open="both")
    count: int | None = option(None, "number of things", low=2, high=9)
    rate: float = option(0.5, "any number")
    form: str = option("round", "form of the things", choices=("round", "square"))
    text: str = option("", "any text")
    on: bool = option(True, "whether it is on")
    names: tuple[str, ...] = option((), "names of things")
    free: int = 3  # not described

    def __post_init__(self):
        check_options(self)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({}, "finite"),
        ({"low": 0}, ">= 0"),
        ({"low": 0, "open": "low"}, "above 0"),
        ({"high": 2.5}, "<= 2.5"),
        ({"high": 2.5, "open": "high"}, "below 2.5"),
        ({"low": 0, "high": 1}, "in [0, 1]"),
        ({"low": 0, "high": 1, "open": "low"}, "in (0, 1]"),
        ({"low": 0, "high": 1, "open": "high"}, "in [0, 1)"),
        ({"low": 0, "high": 1, "open": "both"}, "in (0, 1)"),
    ],
)
def test_rules_in_words(rule, words):
    assert FieldOption("", **rule).rule == words


@settings(max_examples=100, deadline=None)
@given(
    st.none() | st.integers(-3, 3),
    st.none() | st.integers(-3, 3),
    st.sampled_from(["", "low", "high", "both"]),
    st.sampled_from([-math.inf, -3, -0.5, 0, 0.0, 2, 3, math.inf, math.nan]),
)
def test_a_rule_holds_where_its_words_say_so(low, high, ends, value):
    above = low is None or (value > low if ends in ("low", "both") else value >= low)
    below = high is None or (value < high if ends in ("high", "both") else value <= high)
    expected = math.isfinite(value) and above and below
    assert FieldOption("", low=low, high=high, open=ends).holds(value) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"needed": 0}, r"needed must be in \(0, 1\), got 0$"),
        ({"needed": 1.0}, r"needed must be in \(0, 1\), got 1\.0$"),
        ({"needed": None}, r"needed must be a finite number in \(0, 1\), got None$"),
        ({"needed": math.nan}, r"needed must be a finite number in \(0, 1\), got nan$"),
        ({"needed": True}, "needed must be a finite number"),
        ({"needed": "0.5"}, "needed must be a finite number in .*, got '0.5'$"),
        ({"count": 1}, r"count must be a whole number in \[2, 9\], got 1$"),
        ({"count": 10}, r"count must be a whole number in \[2, 9\], got 10$"),
        ({"count": 2.0}, r"count must be a whole number in \[2, 9\], got 2\.0$"),
        ({"count": True}, "count must be a whole number"),
        ({"rate": math.inf}, "rate must be a finite number, got inf$"),
        ({"form": "oval"}, "form must be one of round, square, got 'oval'$"),
        ({"form": None}, "form must be one of round, square, got None$"),
        ({"on": 1}, "on must be True or False, got 1$"),
    ],
)
def test_a_broken_rule_is_named_with_field_and_value(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Example(**{"needed": 0.5, **change})


@pytest.mark.parametrize(
    "change",
    [{}, {"count": 2}, {"count": 9}, {"rate": -3}, {"form": "square"}, {"names": ("a",)}],
)
def test_what_keeps_its_rule_is_kept(change):
    record = Example(**{"needed": 0.5, **change})
    assert {name: getattr(record, name) for name in change} == change


def test_types_and_descriptions():
    assert (
        set(options_of(Example))
        == set(kinds_of(Example))
        == {
            *("needed", "count", "rate", "form", "text", "on", "names"),
        }
    )
    assert kinds_of(Example)["count"] == (int, True)
    assert kinds_of(Example)["needed"] == (float, False)
    assert kinds_of(Example)["names"] == (tuple, False)
    assert options_of(Example(needed=0.5)) == options_of(Example)


def test_the_docstring_has_each_described_field_once():
    text = Example.__doc__
    assert text.startswith("Settings of a test.\n\nExample:\n    >>> 1\n    1\n\nArgs:\n")
    assert text.count("Args:\n") == text.count("Raises:\n") == 1
    assert "    needed: A share.\n    count: Number of things.\n" in text
    assert "    form: Form of the things: round, square.\n" in text
    assert "free" not in text
    assert text.endswith("    ValueError: A field breaks its rule; the message names it.\n")


@pytest.mark.parametrize(
    "record",
    [FineTuneSettings, *(each.settings for each in techniques())],
    ids=lambda r: r.__name__,
)
def test_the_records_of_tfnas_describe_every_field(record):
    described = options_of(record)
    assert set(described) == {field.name for field in dataclasses.fields(record)}
    for name, each in described.items():
        assert each.help, name
        assert not each.help.endswith("."), name
        assert f"    {name}: {each.help[0].upper()}" in record.__doc__
    assert max(map(len, record.__doc__.splitlines())) <= 100
    assert record.__doc__.count("Args:\n") == 1


def test_settings_of_values_ignore_what_is_no_field():
    assert as_settings(Example, {"needed": 0.25, "other": 1}) == Example(needed=0.25)


@pytest.mark.parametrize("value", [-1, 0.5, "1", None, True])
def test_whole_numbers(value):
    record = Example(needed=0.5)
    object.__setattr__(record, "free", value)
    with pytest.raises(ValueError, match=f"free must be a whole number >= 0, got {value!r}"):
        check_whole_numbers(record, free=0)
    if value is None:
        check_whole_numbers(record, optional=True, free=0)
    object.__setattr__(record, "free", 0)
    check_whole_numbers(record, free=0)
