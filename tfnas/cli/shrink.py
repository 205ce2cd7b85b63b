"""`tfnas shrink`."""

from __future__ import annotations

import dataclasses
import pathlib

from absl import flags

from tfnas.cli.common import define_image_size

SUMMARY = "remove channels of a .keras model, so that it runs faster anywhere"
POSITIONAL = "MODEL.keras"
EXAMPLE = (
    "example: tfnas shrink model.keras --dataset=fashion_mnist --macs=0.5 --epochs=5 "
    "--output=runs/small"
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
    flags.DEFINE_float("macs", None, "most multiply-accumulates; up to 1: a share", **common)
    flags.DEFINE_float("params", None, "most weights; up to 1: a share", **common)
    flags.DEFINE_float(
        "latency", None, "most time of the int8 file, by its layers: a share", **common
    )
    flags.DEFINE_string("output", None, "folder; default: beside the model", **common)
    for name, default, minimum, text in (
        ("epochs", 5, 0, "epochs of training, over all steps"),
        ("steps", 1, 1, "steps of pruning and training"),
        ("batch_size", 64, 1, "examples a training step"),
        ("round_to", None, 1, "multiple that the numbers of channels shall have"),
        ("train_limit", None, 1, "training examples; none: all"),
        ("seed", 0, 0, "seed of everything"),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=minimum, **common)
    criteria = ["l1", "l2", "scale", "taylor", "random"]
    flags.DEFINE_enum("criterion", "l2", criteria, "what a channel is worth", **common)
    flags.DEFINE_enum(
        "scope", "global", ["global", "group"], "how channels are spread over groups", **common
    )
    flags.DEFINE_list("ignore", [], "layers whose channels stay: names or patterns", **common)
    flags.DEFINE_float("learning_rate", 1e-3, "Adam's, at the start of its decay", **common)
    define_image_size(common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas import data
    from tfnas.cli.console import progress_display
    from tfnas.pipeline.shrink import ShrinkConfig, shrink_to_files
    from tfnas.quantization.loading import load_model

    names = [field.name for field in dataclasses.fields(ShrinkConfig)]
    settings = {name: values[name].value for name in names}
    config = ShrinkConfig(**{**settings, "ignore": tuple(settings["ignore"])})
    source = pathlib.Path(positional[0])
    model = load_model(source)
    size = data.parse_size(values["image_size"].value)
    split = data.load(values["dataset"].value, image_size=size, seed=config.seed)
    output = values["output"].value or source.with_name(f"{source.stem}_small")
    if (pathlib.Path(output) / "model.keras").resolve() == source.resolve():
        raise ValueError(f"output {str(output)!r} must not hold the model itself, got {source}")
    with progress_display() as progress:
        limited = split.limited(values["train_limit"].value, config.seed)
        result = shrink_to_files(model, limited, output, config, progress)
    print(f"\n{result}")
    return 0
