"""The flags that say what a model is for."""

from __future__ import annotations

from typing import Any

from absl import flags


def define_task(common: dict[str, Any]) -> None:
    """Declares the flags of loss and metric.

    Args:
        common: Arguments of absl's `DEFINE` functions.
    """
    define_metric(
        common,
        ", of which the first decides; default: the first metric that the model was compiled with",
    )
    text = (
        "loss of the training, a name of keras.losses such as mse; of several outputs "
        "OUTPUT=NAME,OUTPUT=NAME; default: the loss that the model was compiled with"
    )
    flags.DEFINE_list("loss", [], text, **common)


def define_metric(common: dict[str, Any], rest: str) -> None:
    """Declares --metric.

    Args:
        common: Arguments of absl's `DEFINE` functions.
        rest: End of the help.
    """
    text = (
        "what quality is measured by, such as accuracy, auc, f1, mean_iou, mae or r2; of several "
        f"outputs OUTPUT=NAME,OUTPUT=NAME{rest}"
    )
    flags.DEFINE_list("metric", [], text, **common)


def task_arguments(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the arguments `metric` and `loss` of a job.

    Args:
        values: The parsed flags.

    Raises:
        ValueError: A flag holds several names without outputs, or an output twice.
    """
    return {name: by_output(name, values[name].value) for name in ("metric", "loss")}


def by_output(flag: str, parts: list[str]) -> str | dict[str, str] | None:
    """Returns the value of --metric or --loss: a name, or names by output; None: not given.

    Args:
        flag: Name of the flag, for the message.
        parts: Its texts.

    Raises:
        ValueError: There are several names without outputs, or an output twice.
    """
    if not parts:
        return None
    if len(parts) == 1 and "=" not in parts[0]:
        return parts[0]
    pairs = [part.partition("=") for part in parts]
    names = [output for output, _, _ in pairs]
    if not all(output and equals and name for output, equals, name in pairs) or len(
        set(names)
    ) != len(names):
        raise ValueError(
            f"--{flag} must be a name, or OUTPUT=NAME for each output, got {','.join(parts)!r}"
        )
    return {output: name for output, _, name in pairs}
