"""`tfnas qat`."""

from __future__ import annotations

import dataclasses
import pathlib

from absl import flags

from tfnas.cli.common import define_image_size, define_layers, parse_layers

SUMMARY = "train a .keras model for integers, and write its .tflite file"
POSITIONAL = "MODEL.keras"
EXAMPLE = (
    "example: tfnas qat model.keras --dataset=fashion_mnist --epochs=3 --mode=int8x4 "
    "--layers=stem=int8 --output=runs/qat"
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    flags.DEFINE_string(
        "dataset",
        None,
        "digits, mnist, fashion_mnist, cifar10, cifar100, an .npz file or a folder of images",
        required=True,
        **common,
    )
    flags.DEFINE_string("output", None, "folder; default: beside the model", **common)
    modes = ["int8", "int8x4", "int16x8"]
    flags.DEFINE_enum("mode", "int8", modes, "numbers that the file computes with", **common)
    define_layers(common)
    ranges = ["moving_average", "percentile", "learned"]
    flags.DEFINE_enum("ranges", "moving_average", ranges, "of activations, how found", **common)
    for name, default, minimum, text in (
        ("epochs", 3, 1, "epochs of training"),
        ("start_epoch", 0, 0, "first epoch that rounds"),
        ("freeze_epoch", None, 0, "first epoch in which ranges stand still; none: never"),
        ("batch_size", 64, 1, "examples a training step"),
        ("train_limit", None, 1, "training examples; none: all"),
        ("seed", 0, 0, "seed of everything"),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=minimum, **common)
    flags.DEFINE_float("learning_rate", 1e-4, "Adam's, at the start of its decay", **common)
    define_image_size(common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas import data
    from tfnas.cli.console import progress_display
    from tfnas.pipeline.qat import QatConfig, qat_to_files
    from tfnas.quantization.loading import load_model

    settings = {field.name: values[field.name].value for field in dataclasses.fields(QatConfig)}
    config = QatConfig(**{**settings, "layers": parse_layers(settings["layers"])})
    source = pathlib.Path(positional[0])
    model = load_model(source)
    size = data.parse_size(values["image_size"].value)
    split = data.load(values["dataset"].value, image_size=size, seed=config.seed)
    output = values["output"].value or source.with_name(f"{source.stem}_qat")
    written = [pathlib.Path(output) / name for name in ("model.keras", "model_float.keras")]
    if source.resolve() in [path.resolve() for path in written]:
        raise ValueError(f"output {str(output)!r} must not hold the model itself, got {source}")
    with progress_display() as progress:
        limited = split.limited(values["train_limit"].value, config.seed)
        result = qat_to_files(model, limited, output, config, progress)
    print(f"\n{result}")
    return 0
