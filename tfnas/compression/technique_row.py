"""A row of techniques, applied one after another to one model: what all of tfnas runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfnas.compression.technique_context import Context
from tfnas.compression.techniques.registry import technique, techniques
from tfnas.compression.techniques.technique import TechniqueOutcome
from tfnas.runtime.files import model_digest

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Step:
    """A technique in a row.

    Args:
        technique: Its name, see :mod:`tfnas.compression.techniques.registry`.
        settings: Its settings, an instance of the technique's `settings`.
        epochs: Epochs of its fine-tuning; None: those of the row.
        learning_rate: Learning rate of its fine-tuning; None: that of the row, times the
            technique's scale.

    Raises:
        ValueError: There is no such technique, or the settings are another one's.
    """

    technique: str
    settings: Any
    epochs: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        expected = technique(self.technique).settings
        if not isinstance(self.settings, expected):
            raise ValueError(
                f"settings of {self.technique!r} must be {expected.__name__}, got {self.settings!r}"
            )


def check_order(names: Sequence[str]) -> None:
    """Checks that techniques come in an order in which each keeps what the one before achieved.

    Args:
        names: Their names.

    Raises:
        ValueError: They don't, or one comes twice, or there is none of this name, or one follows
            after a model that computes in integers.
    """
    ranks = [technique(name).rank for name in names]
    if ranks != sorted(set(ranks)):
        order = [each.name for each in techniques()]
        raise ValueError(
            f"techniques must be in the order {', '.join(order)}, each once, got {', '.join(names)}"
        )
    if early := next((name for name in names[:-1] if technique(name).final), None):
        raise ValueError(
            f"technique {early!r} must be the last, since its model computes in integers, got "
            f"{', '.join(names)}"
        )


def run_row(model: keras.Model, row: Sequence[Step], context: Context) -> list[TechniqueOutcome]:
    """Applies techniques one after another, each fine-tuned and kept through the next.

    Args:
        model: The model; it is not changed.
        row: The steps.
        context: Task, data and settings.

    Returns:
        What each technique did; the last one's model is the result.

    Raises:
        ValueError: The order is wrong, or a technique refuses the model.
    """
    check_order([step.technique for step in row])
    outcomes: list[TechniqueOutcome] = []
    for number, step in enumerate(row, 1):
        own = context_of(step, context, number)
        before = model_digest(model)
        outcome = technique(step.technique).run(model, step.settings, own)
        if model_digest(model) != before:
            raise ValueError(
                f"technique {step.technique!r} must change a copy, got a changed {model.name!r}"
            )
        outcomes.append(dataclasses.replace(outcome, training=own.settings))
        model = outcomes[-1].model
        context = context.replace(before=(*context.before, step.technique))
    return outcomes


def context_of(step: Step, context: Context, number: int = 1) -> Context:
    """Returns the context of one step: its epochs, its learning rate, its folder.

    Args:
        step: The step.
        context: The context of the row.
        number: Its place in the row, from 1.
    """
    own, settings = technique(step.technique), context.settings
    epochs = settings.epochs if step.epochs is None else step.epochs
    rate = step.learning_rate
    if rate is None:
        rate = settings.learning_rate * own.learning_rate_scale
    folder = context.checkpoints
    return context.replace(
        settings=dataclasses.replace(settings, epochs=epochs, learning_rate=rate),
        checkpoints=None if folder is None else folder / f"{number}_{own.name}",
    )
