"""`tfnas prune`."""

from __future__ import annotations

from absl import flags

from tfnas.cli.common import define_training, run_on_model, settings_of

SUMMARY = "set weights of a .keras model to zero, with or without training"
POSITIONAL = "MODEL.keras"
EXAMPLE = (
    "example: tfnas prune model.keras --dataset=fashion_mnist --sparsity=0.8 --epochs=5 "
    "--exclude=first,last --directory=runs/pruned"
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    flags.DEFINE_float("sparsity", None, "share of zeros, in [0, 1)", required=True, **common)
    whole = [
        ("epochs", 0, 0, "epochs of training while the ratio grows; 0: prune without training"),
    ]
    define_training(common, whole, learning_rate=1e-3)
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
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.compression.results.prune_result import PruneConfig
    from tfnas.jobs.prune_job import prune_to_files

    config = PruneConfig(**settings_of(PruneConfig, values))
    return run_on_model(positional, values, config, prune_to_files, "pruned")
