"""The names of the augmentations of images, known before TensorFlow is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from tfnas.runtime.argument_rules import near

NAMES = ("flip", "shift")


def check_augment(names: Sequence[str]) -> None:
    """Checks the names of augmentations.

    Args:
        names: The names.

    Raises:
        ValueError: A name is unknown or comes twice.
    """
    listed = not isinstance(names, str)
    unknown = [name for name in names if name not in NAMES] if listed else []
    if not listed or unknown or len(set(names)) < len(names):
        hint = near(str(unknown[0]), NAMES) if unknown else ""
        raise ValueError(
            f"augment must hold some of {', '.join(NAMES)}, each once, got {names!r}{hint}"
        )
