"""`tfnas evaluate`."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from tfnas.cli import early_checks
from tfnas.cli.common import (
    define_data_file,
    define_image_size,
    define_loading,
    define_signature,
    loading_of,
    named_function,
)
from tfnas.cli.part_flags import define_part, part_of
from tfnas.cli.task_flags import by_output, define_metric
from tfnas.runtime.files import write_atomically

if TYPE_CHECKING:
    from tfnas.data.examples import Examples
    from tfnas.data.model_inputs import Signature
    from tfnas.tflite.artifact import Artifact

SUMMARY = "measure the quality of a .tflite file on labeled data, with a 95% interval"
POSITIONAL = "FILE.tflite"
EXAMPLES = (
    (
        "several metrics on the test part of a file of arrays",
        "tfnas evaluate model_int8.tflite --data=data.npz --metric=accuracy,f1",
    ),
    (
        "what a compression cost each speaker",
        "tfnas evaluate small.tflite --data=data.npz --groups=speaker --baseline=original.tflite",
    ),
    (
        "all rows of a table, two outputs",
        "tfnas evaluate model.tflite --data=house.csv --part=all --targets=price,sold "
        "--metric=price=mae,sold=auc",
    ),
)


def define(values: flags.FlagValues) -> flags.FlagValues:
    """Declares the flags."""
    common = {"flag_values": values, "module_name": __name__}
    define_data_file(common, required=True)
    define_part(common, "test", "examples that the file is run on")
    define_metric(common, "; several of one output NAME,NAME; default: accuracy")
    text = "array or column of groups, such as speakers, or class: quality of each group too"
    flags.DEFINE_string("groups", None, text, **common)
    text = "another .tflite file: the difference to it too, paired over the examples"
    flags.DEFINE_string("baseline", None, text, **common)
    text = (
        "the .keras model behind the file: the data goes through its preprocessing layers, such as "
        "lookups, which are not in the file"
    )
    flags.DEFINE_string("model", None, text, **common)
    text = "whether the examples are a stream: a file with a state keeps it between them"
    flags.DEFINE_bool("stateful", False, text, **common)
    text = "MODULE:FUNCTION that turns the file's outputs into predictions, such as decoded boxes"
    flags.DEFINE_string("postprocess", None, text, **common)
    text = "examples in a run of the file"
    flags.DEFINE_integer("batch_size", 64, text, lower_bound=1, **common)
    flags.DEFINE_integer("threads", 1, "threads of the interpreter", lower_bound=1, **common)
    flags.DEFINE_string("json", None, "also write the result to this file, as JSON", **common)
    define_image_size(common)
    define_signature(common)
    define_loading(common)
    return values


def check(positional: list[str], values: flags.FlagValues) -> None:
    """Raises what is wrong before the file is run."""
    early_checks.check_data(values)
    early_checks.check_file(positional[0])
    if values["baseline"].value:
        early_checks.check_file(values["baseline"].value, "baseline")
    if values["model"].value:
        early_checks.check_model(values["model"].value)
    early_checks.check_written(values, "json")
    _metric(values)


def main(positional: list[str], values: flags.FlagValues) -> int:
    """Runs the command."""
    from tfnas.tasks.evaluation import evaluate
    from tfnas.tflite.artifact import Artifact

    signature, postprocess = values["signature"].value, values["postprocess"].value
    if postprocess is not None:
        postprocess = named_function(postprocess, "postprocess")
    file = Artifact.load(positional[0], signature)
    baseline = values["baseline"].value and Artifact.load(values["baseline"].value, signature)
    examples, what = _examples(file, values)
    found = evaluate(
        file,
        examples.x,
        examples.y,
        _metric(values),
        batch_size=values["batch_size"].value,
        threads=values["threads"].value,
        groups="class" if values["groups"].value == "class" else examples.groups,
        baseline=baseline,
        stateful=values["stateful"].value,
        postprocess=postprocess,
    )
    print(f"{positional[0]} on {what}")
    by_name = found if isinstance(found, dict) else {"": found}
    for name, each in by_name.items():
        print(f"{name}: {each}" if values["metric"].value and _by_output(values) else each)
    if values["json"].value:
        records = {name or "result": _record(each) for name, each in by_name.items()}
        write_atomically(pathlib.Path(values["json"].value), json.dumps(records, indent=2))
    return 0


def _record(found: Any) -> dict[str, Any]:
    """A result as JSON takes it."""
    from tfnas.measure.measurement import Score

    record = dataclasses.asdict(found)
    if not isinstance(found, Score):
        record["metric"] = found.metric.name
    return _without_nan(record)


def _without_nan(value: Any) -> Any:
    """The value of a group without examples is null."""
    if isinstance(value, dict):
        return {str(name): _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _by_output(values: flags.FlagValues) -> bool:
    return any("=" in each for each in values["metric"].value)


def _metric(values: flags.FlagValues) -> str | list[str] | dict[str, str]:
    names = values["metric"].value or ["accuracy"]
    if len(names) == 1 or _by_output(values):
        return by_output("metric", names) or "accuracy"
    return list(names)


def _examples(file: Artifact, values: flags.FlagValues) -> tuple[Examples, str]:
    """The examples of --part, and what they are in words."""
    from tfnas.data.image_folder import parse_size
    from tfnas.jobs.inputs import load_model_and_data

    groups, part = values["groups"].value, values["part"].value
    options = {
        "inputs": values["inputs"].value,
        "targets": values["targets"].value,
        "groups": None if groups == "class" else groups,
        "image_size": parse_size(values["image_size"].value),
        "seed": values["seed"].value,
    }
    name, model = values["data"].value, values["model"].value
    if model:
        _, data = load_model_and_data(model, name, loading=loading_of(values), **options)
    else:
        data = _load_for_file(file, name, options)
    chosen, what = part_of(data, part)
    if options["groups"] is not None and chosen.groups is None:
        raise ValueError(
            f"groups must be of the examples of --part, got {groups!r}, which are those of the "
            f"test part of {name!r} alone, with --part={part}"
        )
    return chosen, what


def _load_for_file(file: Artifact, name: str, options: dict[str, Any]) -> Any:
    from tfnas.data.data_for_model import load_for

    try:
        return load_for(_signature(file), name, **options)
    except ValueError as error:
        if not any(words in str(error) for words in ("inputs must be", "must hold numbers")):
            raise
        hint = "where the model has preprocessing layers, --model=MODEL.keras runs them"
        raise ValueError(f"{error}; {hint}") from error


def _signature(file: Artifact) -> Signature:
    from tfnas.data.model_inputs import ModelInput, Signature
    from tfnas.tflite.file_stream import ends_without_states

    inputs, outputs = (
        tuple(
            ModelInput(
                each.name,
                tuple(None if n < 0 else n for n in each.shape[1:]),
                "float32" if each.scale else each.dtype,  # predict() rounds by itself
            )
            for each in tensors
        )
        for tensors in ends_without_states(file)
    )
    return Signature(inputs, outputs)
