"""Flags that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags


def define_image_size(common: dict[str, Any]) -> None:
    """Declares --image_size."""
    text = "resize the images of a folder: HEIGHT,WIDTH; none: they must be of one size"
    flags.DEFINE_string("image_size", None, text, **common)


def define_layers(common: dict[str, Any]) -> None:
    """Declares --layers."""
    text = (
        "formats of the weights of some layers, by name, pattern or class; the first that "
        "matches counts: stem=int8,Dense=int4,*=float32"
    )
    flags.DEFINE_list("layers", [], text, **common)


def parse_layers(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Returns the pairs of --layers.

    Raises:
        ValueError: An entry is no NAME=FORMAT.
    """
    pairs = []
    for entry in given:
        name, sign, value = entry.rpartition("=")
        if not (name and sign and value):
            raise ValueError(f"layers must hold NAME=FORMAT, got {entry!r}")
        pairs.append((name, value))
    return tuple(pairs)
