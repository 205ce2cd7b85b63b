"""`tfnas prune-channels`."""

from __future__ import annotations

from absl import flags

from tfnas.cli.common import define_training, parse_sizes, run_on_model, settings_of

SUMMARY = "remove channels of a .keras model, so that it runs faster anywhere"
POSITIONAL = "MODEL.keras"
EXAMPLE = (
    "example: tfnas prune-channels model.keras --dataset=fashion_mnist --macs=0.5 --epochs=5 "
    "--directory=runs/small"
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    text = "largest number of multiply-accumulates; up to 1: a fraction of the model's"
    flags.DEFINE_float("macs", None, text, **common)
    text = "largest number of weights; up to 1: a fraction of the model's"
    flags.DEFINE_float("params", None, text, **common)
    text = "largest latency of the int8 file, estimated by layers, as a fraction of the model's"
    flags.DEFINE_float("latency", None, text, **common)
    flags.DEFINE_list("sizes", [], "numbers of channels to keep: LAYER=NUMBER", **common)
    integers = [
        ("epochs", 5, 0, "epochs of training, over all steps"),
        ("steps", 1, 1, "number of steps of pruning and training"),
        ("round_to", None, 1, "round the numbers of channels to multiples of this number"),
    ]
    define_training(common, integers, learning_rate=1e-3)
    criteria = ["l1", "l2", "scale", "taylor", "random"]
    flags.DEFINE_enum("criterion", "l2", criteria, "importance of a channel", **common)
    scopes = ["global", "group", "saving"]
    text = "how the removed channels are distributed over the groups of channels"
    flags.DEFINE_enum("scope", "global", scopes, text, **common)
    text = "largest fraction of a group's channels to remove"
    flags.DEFINE_float("max_ratio", 0.9, text, **common)
    text = "layers whose channels are kept: names or patterns"
    flags.DEFINE_list("exclude", [], text, **common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.compression.results.prune_channels_result import PruneChannelsConfig
    from tfnas.jobs.prune_channels_job import prune_channels_to_files

    settings = settings_of(PruneChannelsConfig, values)
    config = PruneChannelsConfig(**{**settings, "sizes": parse_sizes(values.sizes)})
    return run_on_model(positional, values, config, prune_channels_to_files, "small")
