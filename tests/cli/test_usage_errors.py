"""Errors of flags, in plain words."""

import pytest
from absl import flags

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
