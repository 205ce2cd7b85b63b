"""The folder of a finished search, read before TensorFlow is loaded."""

from __future__ import annotations

import pathlib
from typing import Any

from tfnas.runtime.store import read_json_object


def finished_config(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the settings of a finished search.

    Args:
        folder: Its folder.

    Raises:
        ValueError: The folder holds no finished search.
    """

    def error(why: str) -> ValueError:
        return ValueError(
            f"model must be the folder of a finished search, got {str(folder)!r}{why}"
        )

    for name in ("config.json", "best.keras", "results.json"):
        if not (folder / name).is_file():
            raise error(f", which has no {name}")
    if read_json_object(folder / "results.json", "result").get("interrupted"):
        raise error(", which was interrupted: the same search on it continues")
    config = read_json_object(folder / "config.json", "search").get("config")
    if not isinstance(config, dict):
        raise error(", whose config.json has no config")
    return config
