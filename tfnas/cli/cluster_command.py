"""`tfnas cluster`."""

from __future__ import annotations

from absl import flags

from tfnas.cli.common import define_training, run_on_model, settings_of

SUMMARY = "let the weights of a .keras model share few values, so that it compresses"
POSITIONAL = "MODEL.keras"
EXAMPLE = (
    "example: tfnas cluster model.keras --dataset=fashion_mnist --clusters=16 --epochs=3 "
    "--layers=first=64 --directory=runs/clustered"
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    whole = [
        ("clusters", 16, 2, "most values of a kernel, up to 256"),
        ("epochs", 3, 0, "epochs of training the shared values; 0: none"),
        (
            "renew",
            None,
            1,
            "steps after which weights may go over to another value, such as 5; none: never",
        ),
    ]
    define_training(common, whole, learning_rate=1e-3)
    flags.DEFINE_enum(
        "granularity", "layer", ["layer", "channel"], "whose values: a layer's or each "
        "output channel's", **common
    )  # fmt: skip
    starts = ["kmeans++", "linear", "density", "quantile"]
    flags.DEFINE_enum("initialization", "kmeans++", starts, "what k-means begins with", **common)
    flags.DEFINE_bool(
        "weighted", True, "without training: errors count by the inputs that they meet", **common
    )
    flags.DEFINE_list("layers", [], "layers with a number of values of their own: NAME=K", **common)
    flags.DEFINE_list(
        "exclude", [], "layers left alone: names, patterns, first, last, depthwise", **common
    )
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.compression.results.cluster_result import ClusterConfig
    from tfnas.jobs.cluster_job import cluster_to_files

    settings = settings_of(ClusterConfig, values)
    config = ClusterConfig(**{**settings, "layers": _counts(settings["layers"])})
    return run_on_model(positional, values, config, cluster_to_files, "clustered")


def _counts(given: list[str]) -> tuple[tuple[str, int], ...]:
    """Returns the pairs of --layers.

    Raises:
        ValueError: An entry is no NAME=K.
    """
    pairs = []
    for entry in given:
        name, _, count = entry.rpartition("=")
        if not (name and count.isdecimal()):
            raise ValueError(f"layers must hold NAME=K, got {entry!r}")
        pairs.append((name, int(count)))
    return tuple(pairs)
