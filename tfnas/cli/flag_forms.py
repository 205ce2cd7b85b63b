"""Flags as they are written on a command line: `--max-trials` and `--max_trials` are one."""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

_ABSL_CHOICES = ">: "  # ends the choices that absl puts before the text of a flag
_ABSL_REPEATED = ";\n    repeat this option to specify a list of values"
_LONGEST_CHOICES = 32


def with_underscores(argv: Sequence[str], values: flags.FlagValues) -> list[str]:
    """Returns a command line whose flags have the names that they are declared by.

    Example:
        >>> values = flags.FlagValues()
        >>> options = {"flag_values": values, "module_name": "example"}
        >>> _ = flags.DEFINE_bool("safe_mode", True, "", **options)
        >>> with_underscores(["a-b", "--no-safe-mode", "--", "--safe-mode"], values)
        ['a-b', '--nosafe_mode', '--', '--safe-mode']

    Args:
        argv: The arguments after the command's name.
        values: The declared flags.
    """
    found: list[str] = []
    for number, argument in enumerate(argv):
        if argument == "--":
            return [*found, *argv[number:]]
        bare = argument.lstrip("-")
        dashes = argument[: len(argument) - len(bare)]
        name, sign, value = bare.partition("=")
        renamed = declared_name(name, values) if dashes in ("-", "--") else None
        found.append(f"{dashes}{renamed}{sign}{value}" if renamed else argument)
    return found


def declared_name(name: str, values: flags.FlagValues) -> str | None:
    """Returns what absl calls a flag that was written with dashes; None: there is no such flag.

    Args:
        name: The flag without the dashes before it, perhaps with "no" before the name.
        values: The declared flags.
    """
    plain = name.replace("-", "_")
    if plain in values:
        return plain
    off = plain.removeprefix("no").removeprefix("_")
    return f"no{off}" if plain[:2] == "no" and off in values and values[off].boolean else None


def is_required(flag: flags.Flag[object]) -> bool:
    """Returns whether a command needs a flag.

    Args:
        flag: The flag.
    """
    return any("other than None" in validator.message for validator in flag.validators)


def choices_of(flag: flags.Flag[object]) -> tuple[str, ...]:
    """Returns the words that a flag takes; empty: it takes others.

    Args:
        flag: The flag.
    """
    return tuple(getattr(flag.parser, "enum_values", None) or ())


def written(flag: flags.Flag[object]) -> str:
    """Returns a flag with the form of its value, such as `--max_trials=N`.

    Args:
        flag: The flag.
    """
    if flag.boolean:
        return f"--[no]{flag.name}"
    if choices := choices_of(flag):
        listed = "|".join(choices)
        return f"--{flag.name}={listed if len(listed) <= _LONGEST_CHOICES else 'NAME'}"
    forms = {"int": "N", "float": "NUMBER", "comma separated list of strings": "A,B,..."}
    return f"--{flag.name}={forms.get(flag.flag_type(), '...')}"


def described(flag: flags.Flag[object]) -> str:
    """Returns the text of a flag: what it is, that it is required, and its default.

    Args:
        flag: The flag.
    """
    text, choices = flag.help or "", choices_of(flag)
    if choices:
        text = text.partition(_ABSL_CHOICES)[2]
        if written(flag).endswith("=NAME"):
            text += f"; one of {', '.join(choices)}"
    if text.endswith(_ABSL_REPEATED):
        text = text.removesuffix(_ABSL_REPEATED) + "; may be given several times"
    if is_required(flag):
        return f"{text} (required)"
    default = _default(flag)
    return f"{text} (default: {default})" if default else text


def _default(flag: flags.Flag[object]) -> str:
    if flag.boolean:
        return "on" if flag.default else "off"
    if isinstance(flag.default, list):
        return ",".join(map(str, flag.default))
    return "" if flag.default is None else str(flag.default)
