"""`tfnas profile`."""

from __future__ import annotations

import pathlib
from typing import Any

from absl import flags

SUMMARY = "count a .keras model's parameters, MACs and memory, a layer"
POSITIONAL = "MODEL.keras"
EXAMPLE = "example: tfnas profile model.keras"


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    flags.DEFINE_bool("layers", True, "one line a layer", flag_values=values, module_name=__name__)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.bench.profile import profile

    text = str(profile(load_model(pathlib.Path(positional[0]))))
    print(text if values["layers"].value else text.splitlines()[-1])
    return 0


def load_model(path: pathlib.Path) -> Any:
    """Loads a saved Keras model; code inside it is never run.

    Raises:
        ValueError: There is no such file, or it is no Keras model.
    """
    import keras

    if not path.is_file():
        raise ValueError(f"model must be a .keras file, got {str(path)!r}, which is no file")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many types for a broken file
        cause = " ".join(str(error).split())[:300]
        raise ValueError(f"model {str(path)!r} can't be loaded: {cause}") from error
