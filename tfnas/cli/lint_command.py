"""`tfnas lint`."""

from __future__ import annotations

import pathlib

from absl import flags

from tfnas.cli import early_checks
from tfnas.cli.common import define_signature
from tfnas.runtime.argument_rules import check_choice
from tfnas.runtime.files import write_atomically

SUMMARY = "show which operators of a .tflite file a GPU, TFLite Micro or an NPU does not take"
POSITIONAL = "FILE.tflite"
EXAMPLES = (
    ("several runtimes", "tfnas lint model.tflite --runtimes=gpu,micro,ethos-u55-128"),
    (
        "for a script: exit code 3 below 90% of the multiply-accumulates",
        "tfnas lint model.tflite --runtimes=gpu --min_share=0.9",
    ),
)
NOT_COMPLETE = 3


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    text = "runtimes: gpu, micro, or an accelerator such as ethos-u55-128"
    flags.DEFINE_list("runtimes", ["gpu", "micro"], text, **common)
    text = "with one runtime: the least share of multiply-accumulates that it must take, in [0, 1]"
    text += "; of the GPU's parts the largest counts, which its delegate takes by default"
    flags.DEFINE_float("min_share", None, text, **common)
    text = "also write the result to this file, as JSON"
    flags.DEFINE_string("json", None, text, **common)
    define_signature(common)
    return values


def check(positional: list[str], values: flags.FlagValues) -> None:
    """Raises what is wrong before the file is read."""
    from tfnas.targets.ethos_u import ACCELERATORS
    from tfnas.targets.readiness import RUNTIMES

    least, runtimes = values["min_share"].value, values["runtimes"].value
    early_checks.check_file(positional[0])
    early_checks.check_written(values, "json")
    for runtime in runtimes:
        check_choice("runtimes", runtime, [*RUNTIMES, *ACCELERATORS])
    if least is not None and not 0 <= least <= 1:
        raise ValueError(f"min_share must be in [0, 1], got {least}")
    if least is not None and len(runtimes) != 1:
        raise ValueError(f"min_share needs one runtime, got {', '.join(runtimes)}")


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.targets.readiness import readiness
    from tfnas.tflite.artifact import Artifact

    least, runtimes = values["min_share"].value, values["runtimes"].value
    found = readiness(Artifact.load(positional[0], values["signature"].value), runtimes)
    print(found)
    if values["json"].value:
        write_atomically(pathlib.Path(values["json"].value), found.to_json())
    if least is None:
        return 0 if found.complete else NOT_COMPLETE
    share = found.of(runtimes[0]).share_by_default
    return 0 if share is not None and share >= least else NOT_COMPLETE
