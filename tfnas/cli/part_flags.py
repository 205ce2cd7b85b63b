"""Flags of commands that run on one part of a data set: which one, and how it is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from tfnas.data.examples import Data, Examples

_PARTS = ("test", "validation", "train")


def define_part(common: dict[str, Any], default: str | None, use: str) -> None:
    """Declares --part and --seed.

    Args:
        common: Keyword arguments of each flag's declaration.
        default: The part where none is named; None: the command's own choice, which `use` says.
        use: What the examples are for, in the help.
    """
    text = (
        f"{use}; a part that the data does not have is a tenth of it, drawn by --seed as in tfnas "
        "compress"
    )
    flags.DEFINE_enum("part", default, [*_PARTS, "all"], text, **common)
    flags.DEFINE_integer("seed", 0, "seed of the parts", lower_bound=0, **common)


def part_of(data: Data, part: str) -> tuple[Examples, str]:
    """Returns the examples of a part, and what they are in words.

    Args:
        data: The data set.
        part: A value of --part.
    """
    from tfnas.data.examples import joined_examples

    parts: dict[str, Any] = {name: getattr(data, name) for name in _PARTS}
    total = sum(map(len, parts.values()))
    if part == "all":
        return joined_examples(*parts.values()), f"all {total} examples"
    return parts[part], f"the {part} part, {len(parts[part])} of {total} examples"
