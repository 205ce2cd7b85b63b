"""`tfnas profile`."""

from __future__ import annotations

from absl import flags

from tfnas.cli.common import define_data_file, loading_of

SUMMARY = "count the parameters, MACs and activation memory of each layer of a .keras model"
POSITIONAL = "MODEL.keras"
EXAMPLE = "example: tfnas profile model.keras"


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    text = "print one line for each layer; else only the totals"
    flags.DEFINE_bool("layers", True, text, **common)
    define_data_file(common, "inputs whose shapes tell the sizes that the model leaves open: ")
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.data import load_calibration
    from tfnas.data.datasets import check_name
    from tfnas.measure.profile import profile

    name = values["data"].value
    if name:
        check_name(name)
    model, data = loading_of(values).load(positional[0]), None
    if name:
        names = {each: values[each].value for each in ("inputs", "targets")}
        data, _ = load_calibration(model, name, **names)
    cost = profile(model, data)
    print(cost if values["layers"].value else cost.summary())
    return 0
