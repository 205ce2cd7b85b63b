"""Errors of flags, in plain words."""

import pytest
from absl import flags

from tfnas.cli.command_table import command_of, flags_of
from tfnas.cli.usage_errors import usage_error


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--trials=0"], "--trials must be a whole number >= 1, got '0'"),
        (["--trials=two"], "--trials must be a whole number >= 1, got 'two'"),
        (["--rate=2"], "--rate must be a number from 0 to 1, got '2'"),
        (["--speed=x"], "--speed must be a number, got 'x'"),
        (["--safe=maybe"], "--safe must be true or false, got 'maybe'"),
        (["--form=itn8"], "--form must be one of int8, float, got 'itn8'; did you mean 'int8'?"),
        (["--trails=3"], "there is no flag --trails; did you mean --trials?"),
        (["--nosaef"], "there is no flag --nosaef; did you mean --nosafe?"),
        (["--nonsense"], "there is no flag --nonsense"),
        (["--trials"], "Missing value for flag --trials"),
        ([], "--data must be given"),
    ],
)
def test_an_error_names_the_flag_the_rule_and_the_value(argv, text):
    values = flags.FlagValues()
    options = {"flag_values": values, "module_name": "test"}
    flags.DEFINE_integer("trials", 3, "", lower_bound=1, **options)
    flags.DEFINE_float("rate", 0.5, "", lower_bound=0, upper_bound=1, **options)
    flags.DEFINE_float("speed", 0.5, "", **options)
    flags.DEFINE_bool("safe", True, "", **options)
    flags.DEFINE_enum("form", "int8", ["int8", "float"], "", **options)
    flags.DEFINE_string("data", None, "", required=True, **options)
    with pytest.raises(flags.Error) as raised:
        values(["program", *argv])
    assert usage_error(raised.value, values) == text


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("search --max_ram_bytes=64KiB", "did you mean --limit=ram_bytes=64KiB?"),
        ("search --max-bytes 60KB", "did you mean --limit=size_bytes=NUMBER?"),
        ("search --size_bytes=60KB", "did you mean --limit=size_bytes=60KB?"),
        ("search --max_macs=0.5", "--limit=macs=NUMBER (multiply-accumulates, no fraction)?"),
        ("search --max_drop=1", "tfnas compress has it"),
        ("compress --limit=size_bytes<=60KB", "did you mean --max_bytes=60KB?"),
        ("compress --limit=x", "tfnas search has it"),
        ("compress --delegated_macs=0.9", "did you mean --min_delegated_macs=0.9?"),
        ("compress --latency_ratio=0.5", "--max_latency_ratio=NUMBER (a fraction of the orig"),
        ("compress --objectives=macs", "tfnas search has it"),
        ("prune --macs=0.5", "tfnas prune-channels and tfnas factorize have it"),
        ("search --targets=price", "tfnas compress and others have it"),
    ],
)
def test_a_limit_or_a_flag_of_another_command_is_explained(line, hint):
    command, *argv = line.split()
    values = flags_of(command_of(command))
    with pytest.raises(flags.Error) as raised:
        values(["tfnas", *argv])
    text = usage_error(raised.value, values)
    assert text.startswith(f"there is no flag {argv[0].partition('=')[0]}; ")
    assert hint in text
