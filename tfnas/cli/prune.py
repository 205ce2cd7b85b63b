"""`tfnas prune`."""

from __future__ import annotations

import dataclasses
import pathlib

from absl import flags

from tfnas.cli.common import define_image_size

SUMMARY = "set weights of a .keras model to zero, with or without training"
POSITIONAL = "MODEL.keras"
EXAMPLE = (
    "example: tfnas prune model.keras --dataset=fashion_mnist --sparsity=0.8 --epochs=5 "
    "--exclude=first,last --output=runs/pruned"
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
    flags.DEFINE_float("sparsity", None, "share of zeros, in [0, 1)", required=True, **common)
    flags.DEFINE_string("output", None, "folder; default: beside the model", **common)
    for name, default, minimum, text in (
        ("epochs", 0, 0, "epochs of training while the ratio grows; 0: prune without training"),
        ("batch_size", 64, 1, "examples a training step"),
        ("train_limit", None, 1, "training examples; none: all"),
        ("seed", 0, 0, "seed of everything"),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=minimum, **common)
    criteria = ["magnitude", "gradient", "taylor", "random", "obs"]
    flags.DEFINE_enum("criterion", "magnitude", criteria, "what goes first", **common)
    flags.DEFINE_string(
        "granularity", "element", "element, blocks such as 1x4, N:M such as 2:4, filter", **common
    )
    scopes = ["layer", "global", "erk", "sensitivity", "output"]
    flags.DEFINE_enum("scope", "layer", scopes, "how the ratio is spread over layers", **common)
    flags.DEFINE_list(
        "exclude", [], "layers left alone: names, patterns, first, last, depthwise", **common
    )
    flags.DEFINE_bool(
        "reconstruct", True, "without training: let the kept weights make up for the rest", **common
    )
    flags.DEFINE_bool("sparse", True, "also write a file that leaves the zeros out", **common)
    flags.DEFINE_float("learning_rate", 1e-3, "Adam's, at the start of its decay", **common)
    define_image_size(common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas import data
    from tfnas.cli.console import progress_display
    from tfnas.pipeline.prune import PruneConfig, prune_to_files
    from tfnas.quantization.loading import load_model

    names = {field.name for field in dataclasses.fields(PruneConfig)}
    settings = {name: values[name].value for name in sorted(names)}
    config = PruneConfig(**{**settings, "exclude": tuple(settings["exclude"])})
    source = pathlib.Path(positional[0])
    model = load_model(source)
    size = data.parse_size(values["image_size"].value)
    split = data.load(values["dataset"].value, image_size=size, seed=config.seed)
    output = values["output"].value or source.with_name(f"{source.stem}_pruned")
    if (pathlib.Path(output) / "model.keras").resolve() == source.resolve():
        raise ValueError(f"output {str(output)!r} must not hold the model itself, got {source}")
    with progress_display() as progress:
        limited = split.limited(values["train_limit"].value, config.seed)
        result = prune_to_files(model, limited, output, config, progress)
    print(f"\n{result}")
    return 0
