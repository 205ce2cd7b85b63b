"""Flags that several commands share, and the values that they are parsed to."""

from __future__ import annotations

import inspect
import pathlib
import re
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from tfnas.runtime.argument_rules import near
from tfnas.runtime.user_modules import user_module

if TYPE_CHECKING:
    from tfnas.loading import Loading

_UNITS = {"KB": 1000, "KIB": 1024, "MB": 1000**2, "MIB": 1024**2, "": 1}
_AMOUNT = re.compile(r"\s*([-+.\de]+?)\s*([KM]i?B)?\s*", re.IGNORECASE)


def amount(text: str) -> float:
    """Parses a number that may have a unit of bytes.

    Example:
        >>> amount("64KiB"), amount("0.5")
        (65536.0, 0.5)

    Args:
        text: A number; KB, KiB, MB or MiB may follow.

    Raises:
        ValueError: The text is not a number.
    """
    match = _AMOUNT.fullmatch(text)
    number, unit = match.groups("") if match else ("", "")
    return float(number) * _UNITS[unit.upper()]


def limit_value(name: str, text: str) -> float:
    """Returns the number of a limit's flag.

    Args:
        name: The flag.
        text: Its value; of bytes it may have a unit.

    Raises:
        ValueError: It is no number.
    """
    try:
        return amount(text)
    except ValueError:
        units = ", perhaps with KB, KiB, MB or MiB" if "bytes" in name or "memory" in name else ""
        raise ValueError(f"--{name} must be a number{units}, got {text!r}") from None


def define_training(common: dict[str, Any], epochs: int, least_epochs: int = 0) -> None:
    """Declares the flags of a command that fine-tunes a model on a data set.

    Args:
        common: Keyword arguments of each flag's declaration.
        epochs: Default of --epochs.
        least_epochs: Smallest value of --epochs.
    """
    text = "epochs of training" if least_epochs else "epochs of training; 0: none"
    flags.DEFINE_integer("epochs", epochs, text, lower_bound=least_epochs, **common)
    text = "initial learning rate of Adam, which decays along a cosine; default: the technique's"
    flags.DEFINE_float("learning_rate", None, text, **common)
    text = "weight of the original model's outputs in the loss, from 0 to 1; 0: only labels"
    flags.DEFINE_float("distill", 0.0, text, lower_bound=0.0, upper_bound=1.0, **common)
    define_data(common)


def define_data(common: dict[str, Any], required: bool = True) -> None:
    """Declares the flags of the data set and of the folder for the results.

    Args:
        common: Keyword arguments of each flag's declaration.
        required: Whether --data is required.
    """
    define_data_file(common, required=required)
    text = "folder for the results; default: a folder beside the model"
    flags.DEFINE_string("directory", None, text, **common)
    for name, default, minimum, text in (
        ("batch_size", 64, 1, "examples in a training step"),
        ("train_limit", None, 1, "number of training examples used; default: all"),
        ("seed", 0, 0, "seed of all random numbers"),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=minimum, **common)
    text = "random changes of training examples that are images: flip, shift"
    flags.DEFINE_list("augment", [], text, **common)
    define_deterministic(common)
    define_image_size(common)


def define_data_file(
    common: dict[str, Any], use: str = "the data: ", required: bool = False
) -> None:
    """Declares --data, --inputs and --targets.

    Args:
        common: Keyword arguments of each flag's declaration.
        use: What the data is for, in the help.
        required: Whether --data is required.
    """
    text = (
        f"{use}digits, mnist, fashion_mnist, cifar10, cifar100, a folder of images, an .npz file "
        "of named arrays or a .csv file"
    )
    flags.DEFINE_string("data", None, text, required=required, **common)
    flags.DEFINE_alias("dataset", "data", **common)
    common["flag_values"]["dataset"].help = "another name of --data"
    text = "arrays of the .npz file, or columns of the .csv file, that are the model's inputs"
    flags.DEFINE_list("inputs", [], f"{text}; default: those named as its inputs, or x", **common)
    text = "arrays or columns that are the targets; of a .csv file they must be named"
    flags.DEFINE_list("targets", [], f"{text}; default: named as the outputs, or y", **common)


def define_device(common: dict[str, Any], prefix: str) -> None:
    """Declares the flags of the target device.

    Args:
        common: Keyword arguments of each flag's declaration.
        prefix: Prefix of the metrics in the help: "" for metrics, "max_" for limits of them.
    """
    text = f"NPU that {prefix}vela_... is computed for"
    flags.DEFINE_string("accelerator", "ethos-u55-128", text, **common)
    for name, text in (
        ("runtime_flash", f"flash of the firmware in bytes, part of {prefix}flash_bytes"),
        ("runtime_ram", f"RAM of the firmware in bytes, part of {prefix}ram_bytes"),
    ):
        flags.DEFINE_integer(name, 0, text, lower_bound=0, **common)


def define_fit_for(common: dict[str, Any]) -> None:
    """Declares the flag of the accelerator that files are rewritten for.

    Args:
        common: Keyword arguments of each flag's declaration.
    """
    text = (
        "rewrite operators that TFLite's GPU delegate refuses, with equal outputs, where it takes "
        "more of the file then; such a file is for a batch of 1"
    )
    flags.DEFINE_enum("fit_for", None, ["gpu"], text, **common)


def define_measure_on(common: dict[str, Any]) -> None:
    """Declares --measure_on of a command that measures latencies on one device.

    Args:
        common: Keyword arguments of each flag's declaration.
    """
    from tfnas.nas.search_config import SearchConfig
    from tfnas.settings_fields import options_of

    text = options_of(SearchConfig)["measure_on"].help
    flags.DEFINE_string("measure_on", None, text, **common)


def define_loading(common: dict[str, Any]) -> None:
    """Declares the flags of how a model is read.

    Args:
        common: Keyword arguments of each flag's declaration.
    """
    text = "modules with the model's own layers and functions, found from the current folder too"
    flags.DEFINE_list("import", [], text, **common)
    text = "refuse a model with Python code in its file, as that of a Lambda layer"
    flags.DEFINE_bool("safe_mode", True, text, **common)


def loading_of(values: flags.FlagValues) -> Loading:
    """Returns how models are read; imports the modules that hold classes of the user's own.

    Args:
        values: The flags of :func:`define_loading`.

    Raises:
        ValueError: There is no such module, or it can't be imported.
    """
    from tfnas.loading import Loading

    objects: dict[str, Any] = {}
    for name in values["import"].value:
        module = user_module(name, "--import")
        objects |= {
            item.__name__: item
            for item in vars(module).values()
            if isinstance(item, type | types.FunctionType) and item.__module__ == module.__name__
        }
    return Loading(objects, values["safe_mode"].value)


def named_function(name: str, flag: str) -> Callable[..., Any]:
    """Returns a function of a module of the user's own.

    Args:
        name: MODULE:FUNCTION; modules are found from the current folder too.
        flag: Name of the flag, for messages.

    Raises:
        ValueError: There is no such module or function.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(f"--{flag} must be MODULE:FUNCTION, got {name!r}")
    module = user_module(module_name, f"--{flag}")
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [each for each, value in vars(module).items() if inspect.isfunction(value)]
        raise ValueError(
            f"--{flag} must name a function of {module_name}, got {attribute!r}"
            f"{near(attribute, known)}"
        )
    return found


def load_model_and_split(
    positional: Sequence[str],
    values: flags.FlagValues,
    suffix: str,
    written: Sequence[str] = ("model.keras", "model_float.keras"),
) -> tuple[Any, Any, pathlib.Path]:
    """Returns the model, its data and the folder for the results.

    Args:
        positional: The path of the model.
        values: The flags of :func:`define_training` and :func:`define_loading`.
        suffix: Suffix of the default folder's name, after the name of the model.
        written: Names of the models that the job writes into its folder.

    Raises:
        ValueError: The job would overwrite the model.
    """
    source = pathlib.Path(positional[0])
    directory = result_folder(source, values, suffix, written)
    model, split = load_inputs(source, values)
    return model, split, directory


def result_folder(
    source: pathlib.Path,
    values: flags.FlagValues,
    suffix: str,
    written: Sequence[str] = ("model.keras", "model_float.keras"),
) -> pathlib.Path:
    """Returns the folder for the results.

    Args:
        source: The path of the model.
        values: The flags of :func:`define_data`.
        suffix: Suffix of the default folder's name, after the name of the model.
        written: Names of the models that the job writes into its folder.

    Raises:
        ValueError: The job would overwrite the model.
    """
    directory = pathlib.Path(
        values["directory"].value or source.with_name(f"{source.stem}_{suffix}")
    )
    if source.resolve() in [(directory / name).resolve() for name in written]:
        raise ValueError(
            f"directory {str(directory)!r} must not be that of the model, got the model {source}"
        )
    return directory


def load_inputs(source: pathlib.Path, values: flags.FlagValues) -> tuple[Any, Any]:
    """Returns the model and its data, with as many training examples as --train_limit.

    Args:
        source: The path of the model, or the folder of a finished search, whose data is taken
            where there is no --data.
        values: The flags of :func:`define_data`.

    Raises:
        ValueError: A file can't be read, or the data does not fit the model.
    """
    from tfnas.data import parse_size
    from tfnas.jobs.inputs import load_model_and_data

    seed = values["seed"].value
    model, split = load_model_and_data(
        source,
        values["data"].value,
        inputs=values["inputs"].value,
        targets=values["targets"].value,
        image_size=parse_size(values["image_size"].value),
        seed=seed,
        groups=values["groups"].value if "groups" in values else None,
        loading=loading_of(values),
    )
    return model, split.limited(values["train_limit"].value, seed)  # type: ignore[attr-defined]


def define_messages(common: dict[str, Any]) -> None:
    """Declares --quiet and --verbose."""
    text = "print the result alone: no progress, and of messages errors alone"
    flags.DEFINE_bool("quiet", False, text, **common)
    text = "also print reasons, and what TensorFlow and its converter write"
    flags.DEFINE_bool("verbose", False, text, **common)


def define_signature(common: dict[str, Any]) -> None:
    """Declares --signature."""
    text = "signature of a .tflite file of several, by name; the file's others are left out"
    flags.DEFINE_string("signature", None, text, **common)


def define_deterministic(common: dict[str, Any]) -> None:
    """Declares --deterministic."""
    text = "use deterministic operations, so that a seed always gives the same weights; slower"
    flags.DEFINE_bool("deterministic", False, text, **common)


def define_image_size(common: dict[str, Any]) -> None:
    """Declares --image_size."""
    text = "resize the images of a folder to HEIGHT,WIDTH; default: they must have one size"
    flags.DEFINE_string("image_size", None, text, **common)


def define_layers(common: dict[str, Any]) -> None:
    """Declares --layers."""
    text = (
        "number formats of the weights of single layers, by name, pattern or class; the first "
        "match counts: stem=int8,Dense=int4,*=float32"
    )
    flags.DEFINE_list("layers", [], text, **common)
