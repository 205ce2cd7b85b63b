"""`tfnas search`."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import TYPE_CHECKING, Any

from absl import flags

from tfnas.cli.common import amount, define_deterministic, define_device, define_image_size

if TYPE_CHECKING:
    from tfnas.search_space.compression_choices import CompressionSpace

SUMMARY = "search architectures for a data set and convert the best one"
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
        "y_test), or a folder with one folder of images for each class",
        required=True,
        **common,
    )
    flags.DEFINE_string("directory", None, "folder for the results", required=True, **common)
    flags.DEFINE_enum(
        "preset",
        "mobile",
        ["microcontroller", "mobile", "full"],
        "preset of the search space",
        **common,
    )
    flags.DEFINE_enum(
        "algorithm",
        "evolution",
        ["evolution", "reinforce", "random"],
        "search algorithm",
        **common,
    )
    text = "whether the policy of --algorithm=reinforce builds or modifies architectures"
    flags.DEFINE_enum("form", "building", ["building", "modifying"], text, **common)
    flags.DEFINE_list(
        "objectives",
        ["reward"],
        "objective: reward, or several metrics whose Pareto front is searched for "
        "(file_accuracy, latency_ratio, size_bytes, macs, parameters, peak_activation_bytes, "
        "gzip_bytes, flash_bytes, ram_bytes, vela_ms, vela_cycles, vela_sram_bytes, "
        "vela_flash_bytes, vela_cpu_operators)",
        **common,
    )
    flags.DEFINE_multi_string(
        "limit",
        [],
        "bound of a metric, such as size_bytes=60000 or 'ram_bytes<=64KiB'",
        **common,
    )
    flags.DEFINE_multi_string(
        "compression",
        [],
        "choices of compression that are searched too, such as sparsity=0,0.5 or "
        "modes=float32,int8; one of modes, aware, stage_weights, sparsity, clusters, low_rank, "
        "distill, or the name of another technique",
        **common,
    )
    text = "path of a trained .keras model, the teacher of --compression=distill=..."
    flags.DEFINE_string("teacher", None, text, **common)
    text = "time limit of a trial in s, with --workers"
    flags.DEFINE_float("trial_timeout", None, text, **common)
    for name, default, minimum, text in (
        ("workers", 0, 0, "number of processes that run trials; 0: trials run in this process"),
        ("children", 24, 1, "number of proposals that a surrogate chooses from; 1: no surrogate"),
        ("max_trials", 20, 1, "number of trials"),
        ("epochs", 3, 1, "epochs of a trial; with --halving, of the highest rung"),
        (
            "halving",
            None,
            2,
            "reduction factor of successive halving: the best 1/halving of the trials train "
            "halving times as many epochs; each promotion counts as a trial",
        ),
        ("min_epochs", 1, 1, "smallest number of epochs of the lowest rung of --halving"),
        (
            "final_epochs",
            0,
            0,
            "epochs that the best architecture is trained again for, on training and validation "
            "part; 0: the model of its trial is kept",
        ),
        ("batch_size", 64, 1, "examples in a training step"),
        ("train_limit", None, 1, "number of training examples used by trials; default: all"),
        ("population_size", 8, 1, "population size of --algorithm=evolution"),
        ("tournament_size", 3, 1, "tournament size of --algorithm=evolution"),
        ("threads", 1, 1, "threads of the latency measurement"),
        (
            "random_candidates",
            0,
            0,
            "number of random architectures of the winner's size to compare with",
        ),
        ("seed", 0, 0, "seed of all random numbers"),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=minimum, **common)
    text = "time in s to fit a latency model of the space first, which predicts latencies"
    flags.DEFINE_float("latency_seconds", None, text, **common)
    text = "initial learning rate of Adam, which decays along a cosine"
    flags.DEFINE_float("learning_rate", 3e-3, text, **common)
    text = "target latency of the reward, in ms on this machine"
    flags.DEFINE_float("target_latency_ms", None, text, **common)
    text = "target latency of the reward, as a ratio to the reference model"
    flags.DEFINE_float("target_latency_ratio", None, text, **common)
    text = "exponent of the reward: accuracy x (latency/target)^exponent"
    flags.DEFINE_float("latency_exponent", -0.07, text, **common)
    define_deterministic(common)
    define_image_size(common)
    define_device(common, "")
    flags.DEFINE_bool("inherit", False, "start children from their parent's weights", **common)
    flags.DEFINE_bool("resume", False, "fail if the folder holds no search to resume", **common)
    flags.DEFINE_bool("baseline", True, "train MobileNetV2 0.35 to compare with", **common)
    flags.DEFINE_bool("overwrite", False, "remove an earlier search in the folder", **common)
    return values


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.cli.console import progress_display
    from tfnas.data.image_folder import parse_size
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
    """A metric and its bound; the sign must fit the direction of the metric."""
    from tfnas.nas.objectives import KNOWN_DIRECTIONS

    match = _LIMIT.fullmatch(text.strip())
    try:
        name, bound = match.groups() if match else ("", "")
        number = amount(bound)
    except ValueError:
        raise ValueError(
            f"--limit must be metric=number, with KB, KiB, MB or MiB for bytes, got {text!r}"
        ) from None
    sign_direction = "max" if ">=" in text else "min" if "<=" in text else None
    direction = KNOWN_DIRECTIONS.get(name)
    if None not in (sign_direction, direction) and sign_direction != direction:
        sign = "<=" if direction == "min" else ">="
        raise ValueError(f"--limit of {name} must be {name}{sign}number, got {text!r}")
    return name, number


def _compression(texts: list[str]) -> CompressionSpace | None:
    """The choices of --compression; None: there are none."""
    from tfnas.compression.techniques.registry import techniques
    from tfnas.compression.trial_compression import TECHNIQUES
    from tfnas.search_space.compression_choices import CompressionSpace

    if not texts:
        return None
    own = [field.name for field in dataclasses.fields(CompressionSpace) if field.name != "more"]
    known = [*own, *(each.name for each in techniques() if each.name not in TECHNIQUES.values())]
    fields: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, sign, choices = text.partition("=")
        if name not in known or not sign or name in fields:
            raise ValueError(
                f"--compression must be field=choices, each of {', '.join(known)} at most once, "
                f"got {text!r}"
            )
        fields[name] = tuple(_choice(name, choice.strip()) for choice in choices.split(","))
    more = {name: fields.pop(name) for name in list(fields) if name not in own}
    return CompressionSpace(**fields, more=more)


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
