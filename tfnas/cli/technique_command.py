"""The commands of techniques, made from the table of techniques: `tfnas prune` and so on."""

from __future__ import annotations

import pathlib
import types
from typing import Any

from absl import flags

from tfnas.cli import early_checks
from tfnas.cli.common import define_training, load_model_and_split, result_folder
from tfnas.cli.option_flags import define_options, option_values
from tfnas.cli.task_flags import define_task, task_arguments
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.techniques.registry import technique, techniques
from tfnas.compression.techniques.technique import Technique
from tfnas.settings_fields import as_settings

RESUMES = True


def command_names() -> tuple[str, ...]:
    """Returns the names of the techniques' commands."""
    return tuple(each.command for each in techniques() if each.has_command)


def command_of(name: str) -> types.SimpleNamespace:
    """Returns the command of a technique, with what :mod:`tfnas.cli.app` expects of a command.

    Example:
        >>> command_of("prune-channels").SUMMARY
        'remove channels of a .keras model, so that it runs faster anywhere'

    Args:
        name: Name of the command.
    """
    own = technique(name.replace("-", "_"))
    module = f"{__name__}.{own.name}"
    return types.SimpleNamespace(
        __name__=module,
        SUMMARY=own.summary,
        POSITIONAL="MODEL.keras",
        EXAMPLES=_examples(own),
        RESUMES=RESUMES,
        define=lambda values: _define(own, values, module),
        check=lambda positional, values: _check(own, positional, values),
        main=lambda positional, values: _main(own, positional, values),
    )


def _define(own: Technique, values: flags.FlagValues, module: str) -> flags.FlagValues:
    common = {"flag_values": values, "module_name": module}
    define_options(own.settings, common)
    define_training(common, own.epochs, own.least_epochs)
    define_task(common)
    text = "replace an earlier job in the folder instead of resuming it"
    flags.DEFINE_bool("overwrite", False, text, **common)
    return values


def _examples(own: Technique) -> tuple[tuple[str, str], ...]:
    call = f"tfnas {own.command} model.keras"
    return (
        (
            "a data set by its name",
            f"{call} --data=fashion_mnist {own.example} --directory=runs/{own.suffix}",
        ),
        (
            "a table, and layers of your own in my_layers.py",
            f"{call} --data=table.csv --targets=label {own.example} --import=my_layers",
        ),
    )


def _check(own: Technique, positional: list[str], values: flags.FlagValues) -> None:
    source = pathlib.Path(positional[0])
    early_checks.check_data(values)
    early_checks.check_model(positional[0])
    early_checks.check_written(values, "directory")
    result_folder(source, values, own.suffix, [source.name])
    task_arguments(values)
    _settings(own, values)


def _settings(
    own: Technique, values: flags.FlagValues
) -> tuple[Any, FineTuneSettings, float | None]:
    """The settings of the technique and of its training, and the learning rate that was given."""
    settings = own.settings(**option_values(own.settings, values))
    found = option_values(FineTuneSettings, values)
    rate = found["learning_rate"]
    if rate is None:  # the technique's own
        del found["learning_rate"]
    training = as_settings(FineTuneSettings, found)
    if training.epochs and not own.trains:
        raise ValueError(
            f"epochs must be 0 for {own.command}, which trains nothing, got {training.epochs}"
        )
    getattr(settings, "spec", None)  # number formats are checked where they are read
    own.check_epochs(settings, training.epochs)
    return settings, training, rate


def _main(own: Technique, positional: list[str], values: flags.FlagValues) -> int:
    from tfnas.cli.console import progress_display
    from tfnas.compression.technique_row import Step
    from tfnas.jobs.technique_job import run_techniques

    settings, training, rate = _settings(own, values)
    step = Step(own.name, settings, epochs=training.epochs, learning_rate=rate)
    # The models in the folder are the job's: it may neither replace nor remove the one given.
    written = [pathlib.Path(positional[0]).name]
    model, split, directory = load_model_and_split(positional, values, own.suffix, written)
    with progress_display(values) as progress:
        result = run_techniques(
            model,
            [step],
            split,
            directory=directory,
            settings=training,
            overwrite=values["overwrite"].value,
            progress=progress,
            **task_arguments(values),
        )
    print(f"\n{result}")
    return 0
