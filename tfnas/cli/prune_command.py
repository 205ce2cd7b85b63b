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
    text = "fraction of the weights to set to zero, in [0, 1)"
    flags.DEFINE_float("sparsity", None, text, required=True, **common)
    text = "epochs of training while the sparsity grows; 0: prune without training"
    define_training(common, [("epochs", 0, 0, text)], learning_rate=1e-3)
    criteria = ["magnitude", "gradient", "taylor", "random", "obs"]
    text = "importance of a weight; the least important ones are pruned"
    flags.DEFINE_enum("criterion", "magnitude", criteria, text, **common)
    text = "units of pruning: element, blocks such as 1x4, N:M such as 2:4, filter"
    flags.DEFINE_string("granularity", "element", text, **common)
    scopes = ["layer", "global", "erk", "sensitivity", "output"]
    text = "how the sparsity is distributed over the layers"
    flags.DEFINE_enum("scope", "layer", scopes, text, **common)
    text = "layers to leave as they are: names, patterns, first, last, depthwise"
    flags.DEFINE_list("exclude", [], text, **common)
    text = "without training: adjust the kept weights to compensate for the pruned ones"
    flags.DEFINE_bool("reconstruct", True, text, **common)
    text = "also write a file that stores only the nonzero weights"
    flags.DEFINE_bool("sparse", True, text, **common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.compression.results.prune_result import PruneConfig
    from tfnas.jobs.prune_job import prune_to_files

    config = PruneConfig(**settings_of(PruneConfig, values))
    return run_on_model(positional, values, config, prune_to_files, "pruned")
