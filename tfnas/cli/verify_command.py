"""`tfnas verify`."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from tfnas.cli import early_checks
from tfnas.cli.common import define_data_file, define_image_size, define_signature, loading_of
from tfnas.cli.part_flags import define_part, part_of
from tfnas.runtime.files import write_atomically

if TYPE_CHECKING:
    import keras

SUMMARY = "compare the outputs of a .tflite file with those of its Keras model"
POSITIONAL = "MODEL.keras"
EXAMPLES = (
    (
        "a file and its model on typical inputs",
        "tfnas verify model.keras --file=model_int8.tflite --data=digits",
    ),
    (
        "on examples that the file's ranges are not from",
        "tfnas verify model.keras --file=model_int8.tflite --data=data.npz --part=test",
    ),
    (
        "one that is not verified is converted in other ways",
        "tfnas verify model.keras --file=model_int8.tflite --data=digits --repair=repaired.tflite",
    ),
)
NOT_VERIFIED = 3


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    text = "the .tflite file"
    flags.DEFINE_string("file", None, text, required=True, **common)
    define_data_file(common, "typical inputs that both are run on: ", required=True)
    text = (
        "inputs that both are run on; default: the training part of images with labels, else all "
        "examples of a file, which needs no targets then"
    )
    define_part(common, None, text)
    define_image_size(common)
    define_signature(common)
    text = (
        "largest error of an output (root mean square of the difference, as a fraction of that of "
        "Keras' outputs); default: by the file's number format"
    )
    flags.DEFINE_float("bound", None, text, **common)
    text = "where the file is not verified, convert the model in other ways; the first one that is"
    text += " verified is saved to this path"
    flags.DEFINE_string("repair", None, text, **common)
    text = "also write the result to this file, as JSON"
    flags.DEFINE_string("json", None, text, **common)
    return values


def check(positional: list[str], values: flags.FlagValues) -> None:
    """Raises what is wrong before TensorFlow is loaded."""
    bound = values["bound"].value
    if bound is not None and not bound >= 0:
        raise ValueError(f"bound must be a number of at least 0, got {bound}")
    if values["seed"].present and values["part"].value is None:
        raise ValueError(f"seed must go with part, which it draws, got {values['seed'].value}")
    early_checks.check_data(values)
    early_checks.check_model(positional[0])
    early_checks.check_file(values["file"].value)
    early_checks.check_written(values, "repair", "json")


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.measure.verification.verify import verify
    from tfnas.tflite.artifact import Artifact

    bound, target = values["bound"].value, values["repair"].value
    file = Artifact.load(values["file"].value, values["signature"].value)
    model = loading_of(values).load(positional[0])
    inputs = _inputs(model, values)
    found = verify(model, file, inputs, bound=bound, repair=target is not None)
    print(found)
    if values["json"].value:
        write_atomically(pathlib.Path(values["json"].value), found.to_json().encode())
    if found.repaired is not None:
        print(f"{found.repaired.save(target)}: a file that is verified")
    return 0 if found.passed else NOT_VERIFIED


def _inputs(model: keras.Model, values: flags.FlagValues) -> Any:
    """The inputs that both are run on."""
    from tfnas.data import load_calibration, parse_size
    from tfnas.data.data_for_model import load_for

    name, part = values["data"].value, values["part"].value
    chosen = {each: values[each].value for each in ("inputs", "targets")}
    size = parse_size(values["image_size"].value)
    if part is None:
        inputs, _ = load_calibration(model, name, image_size=size, **chosen)
        return inputs
    data = load_for(model, name, image_size=size, seed=values["seed"].value, **chosen)
    examples, _ = part_of(data, part)
    return examples.x
