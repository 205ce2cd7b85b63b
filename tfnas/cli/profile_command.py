"""`tfnas profile`."""

from __future__ import annotations

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
    from tfnas.loading import load_model
    from tfnas.measure.profile import profile

    cost = profile(load_model(positional[0]))
    print(cost if values["layers"].value else cost.summary())
    return 0
