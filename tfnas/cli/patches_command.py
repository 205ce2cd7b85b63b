"""`tfnas patches`."""

from __future__ import annotations

import pathlib

from absl import flags

from tfnas.cli import early_checks
from tfnas.cli.common import define_signature, limit_value

SUMMARY = "rewrite a .tflite file so that its first operators compute in patches, for less RAM"
POSITIONAL = "FILE.tflite"
EXAMPLES = (
    ("a device with 64,000 bytes", "tfnas patches model_int8.tflite --max_ram_bytes=64000"),
    (
        "as few bytes as twice the multiply-accumulates allow",
        "tfnas patches model_int8.tflite --max_macs_ratio=2 --output=model_patches.tflite",
    ),
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    text = "most bytes of activations, as TFLite Micro plans them; default: as few as possible"
    flags.DEFINE_string("max_ram_bytes", None, text, **common)
    text = "most multiply-accumulates, as a multiple of the file's"
    flags.DEFINE_float("max_macs_ratio", 1.5, text, **common)
    text = "whether the records of operators that patches add count for --max_ram_bytes"
    flags.DEFINE_bool("count_records", False, text, **common)
    text = "path of the new file; default: beside the file"
    flags.DEFINE_string("output", None, text, **common)
    define_signature(common)
    return values


def check(positional: list[str], values: flags.FlagValues) -> None:
    """Raises what is wrong before the file is read."""
    from tfnas.targets.patch_based import check_bounds

    if values["count_records"].value and values["max_ram_bytes"].value is None:
        raise ValueError("count_records needs max_ram_bytes, got none")
    check_bounds(_max_ram_bytes(values), values["max_macs_ratio"].value)
    early_checks.check_file(positional[0])
    early_checks.check_written(values, "output")


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.targets.patch_based import patch_based
    from tfnas.tflite.artifact import Artifact

    source = pathlib.Path(positional[0])
    target = values["output"].value or source.with_name(f"{source.stem}_patches.tflite")
    file, report = patch_based(
        Artifact.load(source, values["signature"].value),
        _max_ram_bytes(values),
        max_macs_ratio=values["max_macs_ratio"].value,
        count_records=values["count_records"].value,
    )
    print(report)
    print(f"{file.save(target)}: {file.size:,} bytes")
    return 0


def _max_ram_bytes(values: flags.FlagValues) -> int | None:
    text = values["max_ram_bytes"].value
    if text is None:
        return None
    value = limit_value("max_ram_bytes", text)
    if not value.is_integer():  # also of infinity
        raise ValueError(f"--max_ram_bytes must be a whole number of bytes, got {text!r}")
    return int(value)
