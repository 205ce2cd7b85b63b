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
    flags.DEFINE_float("macs", None, "most multiply-accumulates; up to 1: a share", **common)
    flags.DEFINE_float("params", None, "most weights; up to 1: a share", **common)
    flags.DEFINE_float(
        "latency", None, "most time of the int8 file, by its layers: a share", **common
    )
    flags.DEFINE_list("sizes", [], "channels that stay, as LAYER=NUMBER", **common)
    whole = [
        ("epochs", 5, 0, "epochs of training, over all steps"),
        ("steps", 1, 1, "steps of pruning and training"),
        ("round_to", None, 1, "multiple that the numbers of channels shall have"),
    ]
    define_training(common, whole, learning_rate=1e-3)
    criteria = ["l1", "l2", "scale", "taylor", "random"]
    flags.DEFINE_enum("criterion", "l2", criteria, "what a channel is worth", **common)
    scopes = ["global", "group", "saving"]
    flags.DEFINE_enum("scope", "global", scopes, "how channels are spread over groups", **common)
    flags.DEFINE_float("max_ratio", 0.9, "share of a group's channels that may go", **common)
    flags.DEFINE_list("exclude", [], "layers whose channels stay: names or patterns", **common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.compression.results.prune_channels_result import PruneChannelsConfig
    from tfnas.jobs.prune_channels_job import prune_channels_to_files

    settings = settings_of(PruneChannelsConfig, values)
    config = PruneChannelsConfig(**{**settings, "sizes": parse_sizes(values.sizes)})
    return run_on_model(positional, values, config, prune_channels_to_files, "small")
