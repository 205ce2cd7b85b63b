"""What is wrong with the flags of a command line, in plain words."""

from __future__ import annotations

import re

from absl import flags

from tfnas.cli.flag_forms import choices_of, is_required
from tfnas.cli.limit_hints import limit_hint
from tfnas.runtime.argument_rules import near

_ILLEGAL = re.compile(r"flag --(\w+)=(.*?): .*", re.DOTALL)


def usage_error(error: flags.Error, values: flags.FlagValues) -> str:
    """Returns an error of absl's flags as one line that names the flag, its rule and the value.

    Example:
        >>> values = flags.FlagValues()
        >>> options = {"flag_values": values, "module_name": "example"}
        >>> _ = flags.DEFINE_integer("rounds", 50, "", lower_bound=6, **options)
        >>> try:
        ...     values(["example", "--rounds=2"])
        ... except flags.Error as error:
        ...     print(usage_error(error, values))
        --rounds must be a whole number >= 6, got '2'

    Args:
        error: The error.
        values: The flags of the command.
    """
    if isinstance(error, flags.UnrecognizedFlagError):
        name = str(error.flagname).replace("-", "_")
        value = str(error.flagvalue).partition("=")[2]  # absl's is the whole argument
        hint = limit_hint(name, value, values) or _owners(name) or _nearest(name, values)
        return f"there is no flag --{error.flagname}{hint}"
    match = _ILLEGAL.fullmatch(str(error))
    if match and match[1] in values:
        flag, value = values[match[1]], match[2]
        if value == "None" and is_required(flag):
            return f"--{flag.name} must be given"
        hint = near(value, choices_of(flag))
        return f"--{flag.name} must be {_rule(flag)}, got {value!r}{hint}"
    return "; ".join(str(error).splitlines())


def _owners(name: str) -> str:
    """The commands that have a flag."""
    from tfnas.cli.command_table import command_of, commands, flags_of

    owners = [each for each in commands() if name in flags_of(command_of(each))]
    shown = [f"tfnas {each}" for each in owners]
    few = shown if len(shown) <= 3 else [shown[0], "others"]
    return f"; {' and '.join(few)} {'has' if len(few) == 1 else 'have'} it" if few else ""


def _nearest(name: str, values: flags.FlagValues) -> str:
    names = {each: f"--{each}" for each in values}
    names |= {f"no{each}": f"--no{each}" for each in values if values[each].boolean}
    found = near(name, names)
    return re.sub(r"'(\w+)'", lambda match: names[match[1]], found)


def _rule(flag: flags.Flag[object]) -> str:
    if flag.boolean:
        return "true or false"
    if choices := choices_of(flag):
        return f"one of {', '.join(choices)}"
    parser = flag.parser
    low, high = getattr(parser, "lower_bound", None), getattr(parser, "upper_bound", None)
    kinds = {"int": "a whole number", "float": "a number"}
    kind = kinds.get(flag.flag_type(), "a text")
    if low is not None and high is not None:
        return f"{kind} from {low:g} to {high:g}"
    if low is not None:
        return f"{kind} >= {low:g}"
    return kind if high is None else f"{kind} <= {high:g}"
