"""Limits of a budget as flags of `tfnas compress`."""

import dataclasses

import pytest
from absl import flags

from tfnas.cli import compress_command
from tfnas.compression.budget import Budget


def test_each_limit_is_a_flag_with_its_first_sentence():
    values = compress_command.define(flags.FlagValues())
    texts = {field.name: values[field.name].help for field in dataclasses.fields(Budget)}
    assert "a limit" not in texts.values()
    assert texts["max_bytes"] == "Most bytes of the file"
    assert texts["max_drop"].startswith("Most that may be lost, in points for shares")
    assert texts["max_relative_loss"].startswith("Most that may be lost, as a fraction")
    assert texts["quality_limit"].startswith("Worst value of the metric")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--max_relative_loss=0", "max_relative_loss must be a finite number above 0, got 0"),
        ("--quality_limit=much", "--quality_limit must be a number, got 'much'"),
    ],
)
def test_bad_limits_end_the_command_before_any_work(flag, message):
    values = compress_command.define(flags.FlagValues())
    values(["tfnas", flag])
    with pytest.raises(ValueError, match=message):
        compress_command.main(["model.keras"], values)


def test_a_limit_on_the_value_may_be_below_zero():
    values = compress_command.define(flags.FlagValues())
    values(["tfnas", "--quality_limit=-0.5"])
    with pytest.raises(ValueError, match="data must be given"):  # the budget was taken
        compress_command.main(["model.keras"], values)
