"""The help of commands: wrapped, grouped, with examples that can be copied."""

import shlex

import pytest
from absl import flags

from tfnas.cli.command_table import command_groups, command_of, commands, flags_of
from tfnas.cli.flag_forms import described, with_underscores, written
from tfnas.cli.flag_groups import LIMITS, SETTINGS, grouped
from tfnas.cli.help_text import command_help, overview, terminal_width


def help_of(name, width):
    command = command_of(name)
    return command_help(name, command, flags_of(command), width)


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_no_line_is_wider_than_the_terminal(width):
    groups = {
        title: {name: command_of(name) for name in names}
        for title, names in command_groups().items()
    }
    for text in [overview(groups, width), *(help_of(name, width) for name in commands())]:
        for line in text.splitlines():
            # A word that is longer than a line stays whole.
            assert len(line) <= width or len(line.strip().removesuffix(" \\").split()) == 1, line


def test_the_width_is_that_of_the_terminal(monkeypatch):
    for columns, width in (("97", 97), ("10", 40)):
        monkeypatch.setenv("COLUMNS", columns)
        assert terminal_width() == width


@pytest.mark.parametrize("width", [40, 100])
def test_examples_can_be_copied(width):
    for name in commands():
        text = help_of(name, width).partition("\nExamples:\n")[2].replace("\\\n", " ")
        lines = [line.strip() for line in text.splitlines() if not line.startswith("  #")]
        copied = [shlex.split(line) for line in lines if line.startswith("tfnas")]
        assert copied == [shlex.split(line) for _, line in command_of(name).EXAMPLES]


def test_flags_are_grouped():
    values = flags_of(command_of("compress"))
    groups = {title: [flag.name for flag in found] for title, found in grouped(values).items()}
    assert sorted(name for names in groups.values() for name in names) == sorted(values)
    assert list(groups)[:2] == [LIMITS, SETTINGS]
    assert groups[SETTINGS] == ["effort"]
    assert groups["Data"][:2] == ["data", "dataset"]
    of_patches = grouped(flags_of(command_of("patches")))
    assert [flag.name for flag in of_patches[SETTINGS]] == [
        *("max_ram_bytes", "max_macs_ratio", "count_records")
    ]
    assert LIMITS not in of_patches


@pytest.fixture
def values():
    values = flags.FlagValues()
    options = {"flag_values": values, "module_name": "test"}
    flags.DEFINE_enum("format", "int8", ["int8", "float32"], "format of the file", **options)
    flags.DEFINE_bool("safe_mode", True, "whether it is safe", **options)
    flags.DEFINE_multi_string("limit", [], "a bound", **options)
    flags.DEFINE_list("names", ["a", "b"], "names of things", **options)
    flags.DEFINE_float("rate", None, "a rate", required=True, **options)
    return values


def test_flags_say_what_they_take_and_their_defaults(values):
    assert [(written(values[name]), described(values[name])) for name in sorted(values)] == [
        ("--format=int8|float32", "format of the file (default: int8)"),
        ("--limit=...", "a bound; may be given several times"),
        ("--names=A,B,...", "names of things (default: a,b)"),
        ("--rate=NUMBER", "a rate (required)"),
        ("--[no]safe_mode", "whether it is safe (default: on)"),
    ]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["--safe-mode"], ["--safe_mode"]),
        (["-safe-mode=false"], ["-safe_mode=false"]),
        (["--no-safe-mode"], ["--nosafe_mode"]),
        (["--nosafe-mode"], ["--nosafe_mode"]),
        (["--no_safe_mode"], ["--nosafe_mode"]),
        (["--limit=a-b=c-d"], ["--limit=a-b=c-d"]),
        (["a-b.keras", "--no-such=1", "-"], ["a-b.keras", "--no-such=1", "-"]),
        (["--no-rate"], ["--no-rate"]),
        (["--", "--safe-mode"], ["--", "--safe-mode"]),
    ],
)
def test_dashes_are_underscores_in_names_of_flags_alone(values, given, taken):
    assert with_underscores(given, values) == taken
