"""Flags that several commands have."""

from __future__ import annotations

from typing import Any

from absl import flags


def define_image_size(common: dict[str, Any]) -> None:
    """Declares --image_size."""
    text = "resize the images of a folder: HEIGHT,WIDTH; none: they must be of one size"
    flags.DEFINE_string("image_size", None, text, **common)
