"""`tfnas compress`."""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from tfnas.cli import early_checks
from tfnas.cli.common import (
    define_data,
    define_device,
    define_fit_for,
    define_measure_on,
    limit_value,
    load_inputs,
    load_model_and_split,
    loading_of,
    result_folder,
)
from tfnas.cli.task_flags import define_task, task_arguments
from tfnas.compression.budget import Budget

SUMMARY = "compress a .keras model, or the best one of a search, to a budget, with a report"
POSITIONAL = "MODEL.keras|SEARCH_FOLDER"
EXAMPLES = (
    (
        "at most 1 point of accuracy lost, at most 100 kB",
        "tfnas compress model.keras --data=fashion_mnist --max_drop=1.0 --max_bytes=100KB "
        "--directory=runs/compressed",
    ),
    (
        "the best model of a search, at half of its time, in minutes",
        "tfnas compress runs/digits --max_latency_ratio=0.5 --effort=quick",
    ),
    (
        "at half of its time on a Raspberry Pi",
        "tfnas compress model.keras --data=images/ --max_latency_ratio=0.5 "
        "--measure_on=ssh:pi@raspberrypi,python=venv/bin/python",
    ),
    (
        "a microcontroller with 64 KiB of RAM, of which the firmware takes 20,000 bytes",
        "tfnas compress model.keras --data=images/ --max_ram_bytes=64KiB --runtime_ram=20000",
    ),
    (
        "files for a phone's GPU, which is to compute 99% of the multiply-accumulates",
        "tfnas compress model.keras --data=images/ --fit_for=gpu --min_delegated_macs=0.99",
    ),
)
RESUMES = True
MISSED = 3  # exit code
_LIMITS = [field.name for field in dataclasses.fields(Budget)]


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    texts = _texts(inspect.getdoc(Budget) or "")
    for name in _LIMITS:
        flags.DEFINE_string(name, None, texts.get(name, "a limit"), **common)
    efforts = ["quick", "normal", "thorough"]
    text = "how many candidates are tried, and how long they are trained"
    flags.DEFINE_enum("effort", "normal", efforts, text, **common)
    text = "epochs of each training step; default: by --effort"
    flags.DEFINE_integer("epochs", None, text, 1, **common)
    text = "initial learning rate of Adam, which decays along a cosine"
    flags.DEFINE_float("learning_rate", 2e-3, text, **common)
    text = "replace an earlier job in the folder instead of resuming it"
    flags.DEFINE_bool("overwrite", False, text, **common)
    define_device(common, "max_")
    define_fit_for(common)
    define_measure_on(common)
    define_data(common, required=False)
    define_task(common)
    text = "array or column of groups, such as speakers: quality is reported for each group"
    flags.DEFINE_string("groups", None, text, **common)
    return values


def check(positional: list[str], values: flags.FlagValues) -> None:
    """Raises what is wrong before TensorFlow is loaded."""
    from tfnas.compression.device_costs import Target
    from tfnas.compression.fine_tune_settings import FineTuneSettings
    from tfnas.jobs.finished_search import finished_config
    from tfnas.measure.elsewhere.named_device import timing_device
    from tfnas.targets.device import Device

    names = ("accelerator", "runtime_flash", "runtime_ram")
    budget = _budget(values)
    device = Device(*(values[name].value for name in names))
    measure_on = timing_device(values["measure_on"].value)
    Target.of(budget, device, values["fit_for"].value, measure_on)
    early_checks.check_data(values)
    source = pathlib.Path(positional[0])
    if source.is_dir() and not (source / "saved_model.pb").exists():
        finished_config(source)
    elif values["data"].value is None:
        raise ValueError("data must be given with the file of a model, got none")
    else:
        result_folder(source, values, "compressed")
        early_checks.check_model(positional[0])
    early_checks.check_written(values, "directory")
    task_arguments(values)
    settings = {name: values[name].value for name in ("batch_size", "learning_rate", "seed")}
    FineTuneSettings(epochs=1, augment=tuple(values["augment"].value), **settings)


def _budget(values: flags.FlagValues) -> Budget:
    texts = {name: values[name].value for name in _LIMITS if values[name].value is not None}
    limits = {name: limit_value(name, text) for name, text in texts.items()}
    _check_device(values, limits)
    return Budget.of({k: int(v) if v.is_integer() else v for k, v in limits.items()})


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.cli.console import progress_display
    from tfnas.jobs.compress import compress

    budget = _budget(values)
    model, split, directory = _load_inputs(positional, values)
    loading = loading_of(values)
    with progress_display(values) as progress:
        result = compress(
            model,
            split,
            budget,
            effort=values["effort"].value,
            directory=directory,
            epochs=values["epochs"].value,
            batch_size=values["batch_size"].value,
            learning_rate=values["learning_rate"].value,
            augment=tuple(values["augment"].value),
            seed=values["seed"].value,
            overwrite=values["overwrite"].value,
            accelerator=values["accelerator"].value,
            runtime_flash=values["runtime_flash"].value,
            runtime_ram=values["runtime_ram"].value,
            fit_for=values["fit_for"].value,
            measure_on=values["measure_on"].value,
            progress=progress,
            custom_objects=loading.custom_objects,
            safe_mode=loading.safe_mode,
            **task_arguments(values),
        )
    print(f"\n{result}")
    return 0 if result.meets else MISSED


def _texts(doc: str) -> dict[str, str]:
    """Returns limit -> its first sentence, or clause, in the docstring."""
    arguments = doc.partition("Args:")[2].partition("Raises:")[0]
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE)
    return {
        name: re.split(r"[.:;] ", text[0].lower() + " ".join(text[1:].split()))[0].rstrip(".")
        for name, text in found
    }


def _check_device(values: flags.FlagValues, limits: Mapping[str, float]) -> None:
    """Checks that the flags of the device come with a limit that they apply to."""
    for flag, needed in (
        ("accelerator", "max_vela_..."),
        ("runtime_flash", "max_flash_bytes"),
        ("runtime_ram", "max_ram_bytes"),
    ):
        if values[flag].present and not any(n.startswith(needed.rstrip(".")) for n in limits):
            raise ValueError(f"--{flag} needs a limit on the device, --{needed}, got none")


def _load_inputs(
    positional: Sequence[str], values: flags.FlagValues
) -> tuple[Any, Any, pathlib.Path]:
    """The model, its data and the folder; the data of a search are its own by default."""
    source = pathlib.Path(positional[0])
    if not source.is_dir():
        return load_model_and_split(positional, values, "compressed")
    model, split = load_inputs(source, values)
    directory = values["directory"].value or source.with_name(f"{source.resolve().name}_compressed")
    return model, split, pathlib.Path(directory)
