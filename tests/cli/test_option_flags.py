"""Flags that are made from the fields of settings records."""

import dataclasses

import pytest
from absl import flags

from tfnas.cli.option_flags import define_options, option_values
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.techniques.registry import techniques
from tfnas.settings_fields import as_settings, check_options, option, options_of


def pairs(texts):
    if any("=" not in text for text in texts):
        raise ValueError("sizes must hold NAME=NUMBER")
    return tuple(tuple(text.split("=")) for text in texts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """Settings of a test."""

    needed: float = option(help="a share", low=0, high=1, open="low")
    count: int | None = option(None, "number of things", low=2)
    form: str = option("round", "form of the things", choices=("round", "square"))
    text: str = option("", "any text")
    on: bool = option(True, "whether it is on")
    names: tuple[str, ...] = option(("a",), "names of things")
    sizes: tuple[tuple[str, str], ...] = option((), "sizes of things", parse=pairs)
    hidden: int = option(1, "not in the command line", flag=False)

    def __post_init__(self):
        check_options(self)


def parsed(*argv, record=Example, **defaults):
    values = flags.FlagValues()
    define_options(record, {"flag_values": values, "module_name": "test"}, **defaults)
    values(["program", *argv])
    return values


def test_flags_have_the_defaults_and_the_texts_of_the_fields():
    values = parsed("--needed=0.5")
    assert Example(**option_values(Example, values)) == Example(needed=0.5)
    found = {flag.name: flag for flag in values.get_flags_for_module("test")}
    assert set(found) == set(options_of(Example)) - {"hidden"}
    for name, flag in found.items():
        assert options_of(Example)[name].help in flag.help


def test_values_become_what_the_fields_take():
    values = parsed(
        *("--needed=1", "--count=3", "--form=square", "--noon", "--names=x,y", "--sizes=a=1,b=2"),
        "--text=t",
    )
    assert option_values(Example, values) == {
        "needed": 1.0,
        "count": 3,
        "form": "square",
        "text": "t",
        "on": False,
        "names": ("x", "y"),
        "sizes": (("a", "1"), ("b", "2")),
    }


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "needed"),
        (["--needed=1.5"], "needed"),
        (["--needed=much"], "needed"),
        (["--needed=1", "--count=1"], "count"),
        (["--needed=1", "--count=2.5"], "count"),
        (["--needed=1", "--form=oval"], "form"),
        (["--needed=1", "--on=perhaps"], "on"),
        (["--needed=1", "--hidden=2"], "hidden"),
    ],
)
def test_wrong_values_are_wrong_usage(argv, message):
    with pytest.raises(flags.Error, match=message):
        parsed(*argv)


def test_an_open_end_is_left_to_the_record():
    """Flags of absl have closed intervals alone."""
    values = option_values(Example, parsed("--needed=0"))
    with pytest.raises(ValueError, match=r"needed must be in \(0, 1\], got 0\.0"):
        Example(**values)


def test_texts_of_another_form_are_named():
    with pytest.raises(ValueError, match="sizes must hold NAME=NUMBER"):
        option_values(Example, parsed("--needed=1", "--sizes=a"))


def test_other_defaults():
    values = parsed(needed=0.25, count=7)
    assert as_settings(Example, option_values(Example, values)) == Example(needed=0.25, count=7)


def test_flags_that_are_not_declared_are_left_out():
    assert option_values(FineTuneSettings, parsed("--needed=1")) == {}


COMMANDS = [each for each in techniques() if each.has_command]


@pytest.mark.parametrize("own", COMMANDS, ids=lambda own: own.name)
def test_every_field_of_a_technique_is_a_flag_with_its_default(own):
    needed = {
        "prune": {"sparsity": 0.5},
        "factorize": {"macs": 0.5},
        "prune_channels": {"macs": 0.5},
    }
    fields = needed.get(own.name, {})
    values = parsed(*(f"--{name}={value}" for name, value in fields.items()), record=own.settings)
    assert own.settings(**option_values(own.settings, values)) == own.settings(**fields)
