"""Flags that several commands have."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

Whole = tuple[str, int | None, int, str]  # a flag's name, default, least value and help
_UNITS = {"KB": 1000, "KIB": 1024, "MB": 1000**2, "MIB": 1024**2, "": 1}
_AMOUNT = re.compile(r"\s*([-+.\de]+?)\s*([KM]i?B)?\s*", re.IGNORECASE)


def amount(text: str) -> float:
    """Returns the number in a text, of bytes perhaps with their unit.

    Example:
        >>> amount("64KiB"), amount("0.5")
        (65536.0, 0.5)

    Args:
        text: A number; KB, KiB, MB or MiB may follow.

    Raises:
        ValueError: It is none.
    """
    found = _AMOUNT.fullmatch(text)
    number, unit = found.groups("") if found else ("", "")
    return float(number) * _UNITS[unit.upper()]


def define_training(common: dict[str, Any], whole: Sequence[Whole], learning_rate: float) -> None:
    """Declares the flags of a command that trains a given model on a data set.

    Args:
        common: What each flag is declared with.
        whole: The command's own flags that are whole numbers.
        learning_rate: The default.
    """
    for name, default, minimum, text in whole:
        flags.DEFINE_integer(name, default, text, lower_bound=minimum, **common)
    flags.DEFINE_float(
        "learning_rate", learning_rate, "Adam's, at the start of its decay", **common
    )
    text = "share of the loss that is what the model given says, 0 to 1; 0: labels alone"
    flags.DEFINE_float("distill", 0.0, text, lower_bound=0.0, upper_bound=1.0, **common)
    define_data(common)


def define_data(common: dict[str, Any], required: bool = True) -> None:
    """Declares the data set, how much of it is taken and how, and the folder.

    Args:
        common: What each flag is declared with.
        required: Whether the data set must be given.
    """
    flags.DEFINE_string(
        "dataset",
        None,
        "digits, mnist, fashion_mnist, cifar10, cifar100, an .npz file or a folder of images",
        required=required,
        **common,
    )
    flags.DEFINE_string("directory", None, "folder; default: beside the model", **common)
    for name, default, minimum, text in (
        ("batch_size", 64, 1, "examples a training step"),
        ("train_limit", None, 1, "training examples; none: all"),
        ("seed", 0, 0, "seed of everything"),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=minimum, **common)
    text = "changes of the training images: flip, shift"
    flags.DEFINE_list("augment", [], text, **common)
    define_deterministic(common)
    define_image_size(common)


def define_device(common: dict[str, Any], of: str) -> None:
    """Declares the device that files are meant for.

    Args:
        common: What each flag is declared with.
        of: What its numbers count for begins with: "" for metrics, "max_" for their limits.
    """
    text = f"NPU of {of}vela_..."
    flags.DEFINE_string("accelerator", "ethos-u55-128", text, **common)
    for name, text in (
        ("runtime_flash", f"bytes that the firmware takes beside the file: {of}flash_bytes"),
        ("runtime_ram", f"bytes that it takes beside the activations: {of}ram_bytes"),
    ):
        flags.DEFINE_integer(name, 0, text, lower_bound=0, **common)


def settings_of(config: type, values: flags.FlagValues) -> dict[str, Any]:
    """Returns the flags that are a record's fields."""
    found = {field.name: values[field.name].value for field in dataclasses.fields(config)}
    # A record holds no list, which others could change.
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}


def run_on_model(
    positional: Sequence[str],
    values: flags.FlagValues,
    config: Any,
    run: Callable[..., Any],
    suffix: str,
    written: Sequence[str] = ("model.keras",),
) -> int:
    """Loads model and data, runs a pipeline on them, and prints what it returns.

    Args:
        positional: The model's path.
        values: The flags of :func:`define_training`.
        config: What to do.
        run: Takes (model, split, directory, config, progress).
        suffix: What the default folder's name adds to the model's.
        written: Models that the run writes into its folder.

    Raises:
        ValueError: One of them is the model itself.
    """
    from tfnas.cli.console import progress_display

    model, split, directory = load_model_and_split(positional, values, suffix, written)
    with progress_display() as progress:
        result = run(model, split, directory, config, progress)
    print(f"\n{result}")
    return 0


def load_model_and_split(
    positional: Sequence[str],
    values: flags.FlagValues,
    suffix: str,
    written: Sequence[str] = ("model.keras",),
) -> tuple[Any, Any, pathlib.Path]:
    """Returns the model, its data and the folder; arguments as for :func:`run_on_model`."""
    from tfnas import data
    from tfnas.loading import load_model

    source = pathlib.Path(positional[0])
    model = load_model(source)
    size, seed = data.parse_size(values["image_size"].value), values["seed"].value
    split = data.load(values["dataset"].value, image_size=size, seed=seed)
    directory = pathlib.Path(
        values["directory"].value or source.with_name(f"{source.stem}_{suffix}")
    )
    if source.resolve() in [(directory / name).resolve() for name in written]:
        raise ValueError(
            f"directory {str(directory)!r} must not hold the model itself, got {source}"
        )
    return model, split.limited(values["train_limit"].value, seed), directory


def define_deterministic(common: dict[str, Any]) -> None:
    """Declares --deterministic."""
    text = "operations that give the same bits each time, so that a seed gives the same weights"
    flags.DEFINE_bool("deterministic", False, f"{text}; slower", **common)


def define_image_size(common: dict[str, Any]) -> None:
    """Declares --image_size."""
    text = "resize the images of a folder: HEIGHT,WIDTH; none: they must be of one size"
    flags.DEFINE_string("image_size", None, text, **common)


def define_layers(common: dict[str, Any]) -> None:
    """Declares --layers."""
    text = (
        "formats of the weights of some layers, by name, pattern or class; the first that "
        "matches counts: stem=int8,Dense=int4,*=float32"
    )
    flags.DEFINE_list("layers", [], text, **common)


def parse_layers(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Returns the pairs of --layers.

    Raises:
        ValueError: An entry is no NAME=FORMAT.
    """
    pairs = []
    for entry in given:
        name, sign, value = entry.rpartition("=")
        if not (name and sign and value):
            raise ValueError(f"layers must hold NAME=FORMAT, got {entry!r}")
        pairs.append((name, value))
    return tuple(pairs)


def parse_sizes(given: Sequence[str]) -> dict[str, int]:
    """Returns the layers and numbers of --sizes.

    Raises:
        ValueError: An entry is no LAYER=NUMBER.
    """
    sizes = {}
    for entry in given:
        name, sign, value = entry.rpartition("=")
        if not (name and sign and value.isascii() and value.isdecimal()):
            raise ValueError(f"sizes must hold LAYER=NUMBER, got {entry!r}")
        sizes[name] = int(value)
    return sizes
