"""`tfnas profile`."""

from __future__ import annotations

from absl import flags

from tfnas.cli.common import loading_of

SUMMARY = "count the parameters, MACs and activation memory of each layer of a .keras model"
POSITIONAL = "MODEL.keras"
EXAMPLE = "example: tfnas profile model.keras"


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    text = "print one line for each layer; else only the totals"
    flags.DEFINE_bool("layers", True, text, flag_values=values, module_name=__name__)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.measure.profile import profile

    cost = profile(loading_of(values).load(positional[0]))
    print(cost if values["layers"].value else cost.summary())
    return 0
