"""`tfnas search`."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any

from absl import flags

from tfnas.cli.common import amount, define_deterministic, define_device, define_image_size

SUMMARY = "search architectures for a data set and export the best one"
POSITIONAL = ""
RESUMES = True
EXAMPLE = (
    "example: tfnas search --dataset=digits --preset=microcontroller --max_trials=16 --epochs=6 "
    "--final_epochs=30 --target_latency_ms=0.02 --directory=runs/digits"
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    flags.DEFINE_string(
        "dataset",
        None,
        "digits, mnist, fashion_mnist, cifar10, cifar100, an .npz file (x_train, y_train, x_test, "
        "y_test), or a folder with one folder of images a class",
        required=True,
        **common,
    )
    flags.DEFINE_string("directory", None, "folder for the results", required=True, **common)
    flags.DEFINE_enum(
        "preset", "mobile", ["microcontroller", "mobile", "full"], "size of the space", **common
    )
    flags.DEFINE_enum(
        "algorithm", "evolution", ["evolution", "reinforce", "random"], "how to search", **common
    )
    flags.DEFINE_enum(
        "form", "building", ["building", "modifying"], "of --algorithm=reinforce", **common
    )
    flags.DEFINE_list(
        "objectives",
        ["reward"],
        "what to search for: reward, or metrics (file_accuracy, latency_ratio, size_bytes, macs, "
        "parameters, peak_activation_bytes, gzip_bytes, flash_bytes, ram_bytes, vela_ms, "
        "vela_cycles, vela_sram_bytes, vela_flash_bytes, vela_cpu_operators) for their front",
        **common,
    )
    flags.DEFINE_multi_string(
        "limit",
        [],
        "metric=bound that must be kept, such as size_bytes=60000 or 'ram_bytes<=64KiB'; repeat it",
        **common,
    )
    flags.DEFINE_multi_string(
        "compression",
        [],
        "search this too: field=choices, such as sparsity=0,0.5 or modes=float32,int8; fields are "
        "modes, aware, stage_weights, sparsity, clusters, low_rank, distill; repeat it",
        **common,
    )
    text = "a trained .keras model to learn from, where --compression=distill=... may distill"
    flags.DEFINE_string("teacher", None, text, **common)
    flags.DEFINE_float(
        "trial_timeout", None, "longest time of a trial in s; goes with --workers", **common
    )
    for name, default, minimum, text in (
        ("workers", 0, 0, "processes that run trials; 0: this one"),
        ("children", 24, 1, "proposals that a surrogate picks one of; 1: no surrogate"),
        ("max_trials", 20, 1, "number of trials"),
        ("epochs", 3, 1, "epochs a trial; with --halving, of the highest rung"),
        (
            "halving",
            None,
            2,
            "successive halving: one in so many trials goes on with as many times the epochs; "
            "a promotion counts as a trial",
        ),
        ("min_epochs", 1, 1, "epochs of the lowest rung of --halving, at least"),
        (
            "final_epochs",
            0,
            0,
            "train the best again this long on the whole training part; 0: don't",
        ),
        ("batch_size", 64, 1, "examples a training step"),
        ("train_limit", None, 1, "training examples a trial; none: all"),
        ("population_size", 8, 1, "of the evolution"),
        ("tournament_size", 3, 1, "of the evolution"),
        ("threads", 1, 1, "threads of the latency measurement"),
        ("random_candidates", 0, 0, "random architectures of the winner's size to compare with"),
        ("seed", 0, 0, "seed of everything"),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=minimum, **common)
    text = "fit a latency model of the space first, for so many s, and predict candidates' latency"
    flags.DEFINE_float("latency_seconds", None, text, **common)
    flags.DEFINE_float("learning_rate", 3e-3, "Adam's, at the start of its decay", **common)
    flags.DEFINE_float("target_latency_ms", None, "latency aimed at, ms on this machine", **common)
    flags.DEFINE_float(
        "target_latency_ratio",
        None,
        "latency aimed at, as a ratio to the reference model",
        **common,
    )
    flags.DEFINE_float(
        "latency_exponent", -0.07, "reward = accuracy x (latency/target)^this", **common
    )
    define_deterministic(common)
    define_image_size(common)
    define_device(common, "")
    flags.DEFINE_bool("inherit", False, "children begin with their parent's weights", **common)
    flags.DEFINE_bool("resume", False, "the folder must hold a search, which goes on", **common)
    flags.DEFINE_bool("baseline", True, "train MobileNetV2 0.35 as long to compare with", **common)
    flags.DEFINE_bool("overwrite", False, "throw away an earlier search in the folder", **common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.cli.console import progress_display
    from tfnas.data.datasets import parse_size
    from tfnas.jobs.search_job import search
    from tfnas.nas.search_result import SearchConfig

    names = {field.name for field in dataclasses.fields(SearchConfig)}
    names -= {"dataset", "limits", "compression"}
    settings = {name: values[name].value for name in sorted(names)}
    settings["objectives"] = tuple(settings["objectives"])
    settings["limits"] = dict(_limit(text) for text in values["limit"].value)
    settings["compression"] = _compression(values["compression"].value)
    folder = pathlib.Path(values["directory"].value)
    if values["resume"].value and not (folder / "config.json").exists():
        raise ValueError(f"--directory must hold a search to --resume, got {str(folder)!r}")
    settings["image_size"] = parse_size(values["image_size"].value)
    with progress_display() as progress:
        result = search(
            values["dataset"].value,
            directory=values["directory"].value,
            overwrite=values["overwrite"].value,
            progress=progress,
            **settings,
        )
    print(f"\n{result}")
    return 130 if result.interrupted else 0


_LIMIT = re.compile(r"(\w+)\s*(?:<=|>=|=)(.+)")


def _limit(text: str) -> tuple[str, float]:
    """A metric and its bound; which way it is kept is the metric's own."""
    from tfnas.nas.objectives import KNOWN_DIRECTIONS

    found = _LIMIT.fullmatch(text.strip())
    try:
        name, bound = found.groups() if found else ("", "")
        number = amount(bound)
    except ValueError:
        raise ValueError(
            f"--limit must be metric=number, in bytes perhaps with KB, KiB, MB or MiB, got {text!r}"
        ) from None
    kept = "max" if ">=" in text else "min" if "<=" in text else None
    direction = KNOWN_DIRECTIONS.get(name)
    if kept is not None and direction is not None and kept != direction:
        sign = "<=" if direction == "min" else ">="
        raise ValueError(f"--limit of {name} must be {name}{sign}number, got {text!r}")
    return name, number


def _compression(given: list[str]) -> Any:
    """The choices of --compression, None where there are none."""
    from tfnas.search_space.compression_choices import CompressionSpace

    if not given:
        return None
    known = [field.name for field in dataclasses.fields(CompressionSpace)]
    fields: dict[str, tuple[Any, ...]] = {}
    for text in given:
        name, sign, choices = text.partition("=")
        if name not in known or not sign or name in fields:
            raise ValueError(
                f"--compression must be field=choices, each of {', '.join(known)} at most once, "
                f"got {text!r}"
            )
        fields[name] = tuple(_choice(name, choice.strip()) for choice in choices.split(","))
    return CompressionSpace(**fields)


def _choice(name: str, text: str) -> Any:
    if name in ("modes", "stage_weights"):
        return text
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return int(text) if name == "clusters" else float(text)
    except ValueError:
        raise ValueError(f"--compression={name} must hold numbers, got {text!r}") from None
