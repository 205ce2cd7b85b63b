"""`tfnas profile`."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from absl import flags

from tfnas.cli import early_checks
from tfnas.cli.common import define_data_file, define_signature, loading_of

if TYPE_CHECKING:
    from tfnas.measure.file_profile import FileProfile
    from tfnas.measure.profile import Profile

SUMMARY = "count the weights, MACs and activation memory of each layer of a model, or of a file"
POSITIONAL = "MODEL.keras|FILE.tflite"
EXAMPLES = (
    ("each layer of a model", "tfnas profile model.keras"),
    ("the totals of a file", "tfnas profile model_int8.tflite --nolayers"),
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    text = "print one line for each layer or operator; else only the totals"
    flags.DEFINE_bool("layers", True, text, **common)
    define_data_file(common, "inputs whose shapes tell the sizes that the model leaves open: ")
    define_signature(common)
    return values


def check(positional: list[str], values: flags.FlagValues) -> None:
    """Raises what is wrong before TensorFlow is loaded."""
    path, name = positional[0], values["data"].value
    early_checks.check_data(values)
    if path.endswith(".tflite"):
        early_checks.check_file(path)
        if name and not name.endswith(".npz"):
            raise ValueError(f"data must be an .npz file for a .tflite file, got {name!r}")
        return
    if values["signature"].value is not None:
        raise ValueError(f"signature is of .tflite files alone, got {path!r}")
    early_checks.check_model(path)


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.data import load_calibration
    from tfnas.measure.profile import profile

    name = values["data"].value
    if positional[0].endswith(".tflite"):
        cost: Profile | FileProfile = _of_file(positional[0], values)
    else:
        model, data = loading_of(values).load(positional[0]), None
        if name:
            names = {each: values[each].value for each in ("inputs", "targets")}
            data, _ = load_calibration(model, name, **names)
        cost = profile(model, data)
    print(cost if values["layers"].value else cost.summary())
    return 0


def _of_file(path: str, values: flags.FlagValues) -> FileProfile:
    """The cost of a `.tflite` file; --data is an `.npz` file with its inputs."""
    from tfnas.data.named_arrays import read_arrays
    from tfnas.measure.profile import profile
    from tfnas.tflite.artifact import Artifact

    file = Artifact.load(path, values["signature"].value)
    name = values["data"].value
    if not name:
        return profile(file)
    arrays = read_arrays(pathlib.Path(name))
    names = values["inputs"].value or [tensor.name for tensor in file.inputs]
    if not set(names) <= set(arrays) and len(names) == 1 and "x" in arrays:
        names = ["x"]
    missing = [each for each in names if each not in arrays]
    if missing:
        raise ValueError(f"data must hold the array {missing[0]!r}, got {', '.join(arrays)}")
    return profile(file, [arrays[each] for each in names])
