"""`tfnas factorize`."""

from __future__ import annotations

from absl import flags

from tfnas.cli.common import define_training, run_on_model, settings_of

SUMMARY = "make layers of a .keras model products of thinner ones, by low-rank factorization"
POSITIONAL = "MODEL.keras"
EXAMPLE = (
    "example: tfnas factorize model.keras --dataset=fashion_mnist --macs=0.6 --epochs=5 "
    "--directory=runs/low_rank"
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    flags.DEFINE_float("macs", None, "most multiply-accumulates; up to 1: a share", **common)
    flags.DEFINE_float("energy", None, "share of each layer's output to keep", **common)
    flags.DEFINE_float("rank", None, "channels between factors; below 1: a share", **common)
    define_training(common, [("epochs", 5, 0, "epochs of training")], learning_rate=1e-3)
    methods = ["svd", "spatial", "tucker"]
    text = "svd (Dense and 1x1), spatial and tucker (k x k): some of them"
    flags.DEFINE_list("methods", methods, text, **common)
    flags.DEFINE_list("exclude", [], "layers that stay: names or patterns", **common)
    text = "images that tell which error of a layer matters; 0: the kernels alone do"
    flags.DEFINE_integer("calibration", 300, text, lower_bound=0, **common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.compression.results.factorize_result import FactorizeConfig
    from tfnas.jobs.factorize_job import factorize_to_files

    config = FactorizeConfig(**settings_of(FactorizeConfig, values))
    return run_on_model(positional, values, config, factorize_to_files, "low_rank")
