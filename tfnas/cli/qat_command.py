"""`tfnas qat`."""

from __future__ import annotations

from absl import flags

from tfnas.cli.common import define_layers, define_training, parse_layers, run_on_model, settings_of

SUMMARY = "quantization-aware training of a .keras model, and its .tflite file"
POSITIONAL = "MODEL.keras"
EXAMPLE = (
    "example: tfnas qat model.keras --dataset=fashion_mnist --epochs=3 --mode=int8x4 "
    "--layers=stem=int8 --directory=runs/qat"
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    modes = ["int8", "int8x4", "int16x8"]
    flags.DEFINE_enum("mode", "int8", modes, "number formats of the file", **common)
    define_layers(common)
    ranges = ["moving_average", "percentile", "learned"]
    text = "method that determines the ranges of activations"
    flags.DEFINE_enum("ranges", "moving_average", ranges, text, **common)
    integers = [
        ("epochs", 3, 1, "epochs of training"),
        ("start_epoch", 0, 0, "first epoch with fake quantization"),
        ("freeze_epoch", None, 0, "first epoch in which the ranges are frozen; default: never"),
    ]
    define_training(common, integers, learning_rate=1e-4)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.compression.results.qat_result import QatConfig
    from tfnas.jobs.qat_job import qat_to_files

    settings = settings_of(QatConfig, values)
    config = QatConfig(**{**settings, "layers": parse_layers(settings["layers"])})
    written = ("model.keras", "model_float.keras")
    return run_on_model(positional, values, config, qat_to_files, "qat", written)
