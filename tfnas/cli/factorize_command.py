"""`tfnas factorize`."""

from __future__ import annotations

from absl import flags

from tfnas.cli.common import define_training, run_on_model, settings_of

SUMMARY = "replace layers of a .keras model by smaller ones, by low-rank factorization"
POSITIONAL = "MODEL.keras"
EXAMPLE = (
    "example: tfnas factorize model.keras --dataset=fashion_mnist --macs=0.6 --epochs=5 "
    "--directory=runs/low_rank"
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    text = "largest number of multiply-accumulates; up to 1: a fraction of the model's"
    flags.DEFINE_float("macs", None, text, **common)
    text = "fraction of the energy of each layer's output to keep"
    flags.DEFINE_float("energy", None, text, **common)
    text = "rank: channels between the factors; below 1: a fraction of the full rank"
    flags.DEFINE_float("rank", None, text, **common)
    define_training(common, [("epochs", 5, 0, "epochs of training")], learning_rate=1e-3)
    methods = ["svd", "spatial", "tucker"]
    text = "factorizations to use: svd (Dense and 1x1), spatial and tucker (k x k)"
    flags.DEFINE_list("methods", methods, text, **common)
    text = "layers to leave as they are: names or patterns"
    flags.DEFINE_list("exclude", [], text, **common)
    text = "images on which the error of a layer's output is minimized; 0: that of its kernel"
    flags.DEFINE_integer("calibration", 300, text, lower_bound=0, **common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.compression.results.factorize_result import FactorizeConfig
    from tfnas.jobs.factorize_job import factorize_to_files

    config = FactorizeConfig(**settings_of(FactorizeConfig, values))
    return run_on_model(positional, values, config, factorize_to_files, "low_rank")
