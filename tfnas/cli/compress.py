"""`tfnas compress`."""

from __future__ import annotations

from absl import flags

from tfnas.cli.common import define_data, load_model_and_split

SUMMARY = "make a .keras model small enough for a budget, and prove what that costs"
POSITIONAL = "MODEL.keras"
EXAMPLE = (
    "example: tfnas compress model.keras --dataset=fashion_mnist --max_drop=1.0 "
    "--max_bytes=100000 --output=runs/compressed"
)
_LIMITS = (
    ("max_drop", "most points of accuracy lost"),
    ("max_bytes", "most bytes of the file"),
    ("max_gzip_bytes", "most bytes of the file after gzip"),
    ("max_latency", "most time, as a ratio to the float32 file of the model given"),
    ("max_macs", "most multiply-accumulates, as a share of the model's"),
    ("max_memory", "most bytes of activations alive at once"),
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    for name, text in _LIMITS:
        flags.DEFINE_float(name, None, text, **common)
    efforts = ["quick", "normal", "thorough"]
    flags.DEFINE_enum("effort", "normal", efforts, "how much is tried, and how long", **common)
    flags.DEFINE_integer(
        "epochs", None, "epochs of each step that trains; none: by the effort", 1, **common
    )
    flags.DEFINE_float("learning_rate", 2e-3, "Adam's, at the start of its decay", **common)
    flags.DEFINE_bool("overwrite", False, "begin anew where the folder holds a job", **common)
    define_data(common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.cli.console import progress_display
    from tfnas.pipeline.compress import compress

    limits = {name: values[name].value for name, _ in _LIMITS if values[name].value is not None}
    model, split, output = load_model_and_split(positional, values, "compressed")
    with progress_display() as progress:
        result = compress(
            model,
            split,
            {k: int(v) if float(v).is_integer() else v for k, v in limits.items()},
            values["effort"].value,
            output,
            epochs=values["epochs"].value,
            batch_size=values["batch_size"].value,
            learning_rate=values["learning_rate"].value,
            augment=tuple(values["augment"].value),
            seed=values["seed"].value,
            overwrite=values["overwrite"].value,
            progress=progress,
        )
    print(f"\n{result}")
    return 0
