"""`tfnas search`."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import TYPE_CHECKING, Any

from absl import flags

from tfnas.cli import early_checks
from tfnas.cli.common import (
    amount,
    define_deterministic,
    define_device,
    define_image_size,
    define_loading,
    loading_of,
)
from tfnas.cli.option_flags import define_options
from tfnas.runtime.argument_rules import near

if TYPE_CHECKING:
    from tfnas.search_space.compression_choices import CompressionSpace

SUMMARY = "search architectures for a data set and convert the best one"
POSITIONAL = ""
RESUMES = True
EXAMPLES = (
    (
        "fast networks for a data set by its name",
        "tfnas search --dataset=digits --preset=microcontroller --max_trials=16 --epochs=6 "
        "--final_epochs=30 --target_latency_ms=0.02 --directory=runs/digits",
    ),
    (
        "a Pareto front of accuracy and size, of files up to 60 kB",
        "tfnas search --dataset=images/ --objectives=file_accuracy,size_bytes "
        "--limit=size_bytes=60KB --directory=runs/small",
    ),
    (
        "the hyperparameters of build(hp) in my_models.py",
        "tfnas search --dataset=data.npz --hypermodel=my_models:build --directory=runs/own",
    ),
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    from tfnas.nas.search_config import SearchConfig

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
    define_options(SearchConfig, common)
    for other, name in (("data", "dataset"), ("objective", "objectives")):
        flags.DEFINE_alias(other, name, flag_values=values, module_name=__name__)
        values[other].help = f"the same as --{name}"
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
    define_deterministic(common)
    define_image_size(common)
    define_device(common, "")
    define_loading(common)
    flags.DEFINE_bool("resume", False, "fail if the folder holds no search to resume", **common)
    flags.DEFINE_bool("overwrite", False, "remove an earlier search in the folder", **common)
    return values


def check(positional: list[str], values: flags.FlagValues) -> None:
    """Raises what is wrong before TensorFlow is loaded."""
    from tfnas.data.datasets import check_name
    from tfnas.nas.search_config import SearchConfig

    early_checks.check_written(values, "directory")
    check_name(values["dataset"].value)
    if values["teacher"].value is not None:
        early_checks.check_model(values["teacher"].value, "teacher")
    SearchConfig(values["dataset"].value, **_settings(values))


def _settings(values: flags.FlagValues) -> dict[str, Any]:
    """The fields of the search's settings."""
    from tfnas.data.image_folder import parse_size
    from tfnas.nas.search_config import SearchConfig

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
    return settings


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.cli.console import progress_display
    from tfnas.jobs.search_job import search

    settings = _settings(values)
    if settings["hypermodel"] is not None:
        return _search_hypermodel(settings, values)
    loading = loading_of(values)
    with progress_display(values) as progress:
        result = search(
            values["dataset"].value,
            directory=values["directory"].value,
            overwrite=values["overwrite"].value,
            progress=progress,
            custom_objects=loading.custom_objects,
            safe_mode=loading.safe_mode,
            **settings,
        )
    print(f"\n{result}")
    return 130 if result.interrupted else 0


def _search_hypermodel(settings: dict[str, Any], values: flags.FlagValues) -> int:
    """Searches the user's own hypermodel."""
    from tfnas.cli.console import progress_display
    from tfnas.jobs.hypermodel_search import search_hypermodel
    from tfnas.nas.search_config import SearchConfig

    config = SearchConfig(values["dataset"].value, **settings)
    with progress_display(values) as progress:
        result = search_hypermodel(
            config,
            directory=values["directory"].value,
            overwrite=values["overwrite"].value,
            progress=progress,
        )
    print(f"\n{result}")
    return 130 if result.interrupted else 0


_LIMIT = re.compile(r"(\w+)\s*(?:<=|>=|=)(.+)")


def _limit(text: str) -> tuple[str, float]:
    """A metric and its bound; the sign must fit the direction of the metric."""
    from tfnas.nas.metric_directions import KNOWN_DIRECTIONS

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
    from tfnas.compression.techniques.registry import OF_FIELDS, techniques
    from tfnas.search_space.compression_choices import CompressionSpace

    if not texts:
        return None
    own = [field.name for field in dataclasses.fields(CompressionSpace) if field.name != "more"]
    known = [*own, *(each.name for each in techniques() if each.name not in OF_FIELDS.values())]
    fields: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, sign, choices = text.partition("=")
        if name not in known or not sign or name in fields:
            raise ValueError(
                f"--compression must be field=choices, each of {', '.join(known)} at most once, "
                f"got {text!r}{near(name, known) if name not in known else ''}"
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
