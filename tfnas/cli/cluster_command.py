"""`tfnas cluster`."""

from __future__ import annotations

from absl import flags

from tfnas.cli.common import define_training, run_on_model, settings_of

SUMMARY = "cluster the weights of a .keras model to a few shared values, so that it compresses"
POSITIONAL = "MODEL.keras"
EXAMPLE = (
    "example: tfnas cluster model.keras --dataset=fashion_mnist --clusters=16 --epochs=3 "
    "--layers=first=64 --directory=runs/clustered"
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    integers = [
        ("clusters", 16, 2, "largest number of distinct values of a kernel, up to 256"),
        ("epochs", 3, 0, "epochs of training the shared values; 0: no training"),
        (
            "renew",
            None,
            1,
            "number of steps, such as 5, after which weights are reassigned to the nearest value; "
            "default: never",
        ),
    ]
    define_training(common, integers, learning_rate=1e-3)
    text = "whether a layer or each of its output channels has values of its own"
    flags.DEFINE_enum("granularity", "layer", ["layer", "channel"], text, **common)
    starts = ["kmeans++", "linear", "density", "quantile"]
    flags.DEFINE_enum("initialization", "kmeans++", starts, "initialization of k-means", **common)
    text = "without training: weight the error of each kernel element by its inputs"
    flags.DEFINE_bool("weighted", True, text, **common)
    text = "numbers of values of single layers: NAME=K"
    flags.DEFINE_list("layers", [], text, **common)
    text = "layers to leave as they are: names, patterns, first, last, depthwise"
    flags.DEFINE_list("exclude", [], text, **common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.compression.results.cluster_result import ClusterConfig
    from tfnas.jobs.cluster_job import cluster_to_files

    settings = settings_of(ClusterConfig, values)
    config = ClusterConfig(**{**settings, "layers": _counts(settings["layers"])})
    return run_on_model(positional, values, config, cluster_to_files, "clustered")


def _counts(texts: list[str]) -> tuple[tuple[str, int], ...]:
    """Parses the values of --layers, NAME=K."""
    pairs = []
    for text in texts:
        name, _, count = text.rpartition("=")
        if not (name and count.isdecimal()):
            raise ValueError(f"layers must hold NAME=K, got {text!r}")
        pairs.append((name, int(count)))
    return tuple(pairs)
