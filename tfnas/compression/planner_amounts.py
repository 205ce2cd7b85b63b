"""Which amount of a technique the planner tries next, by the files of the amounts before."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tfnas.compression.known_file import KnownFile
from tfnas.compression.planner_state import Attempt, ChooseAmount, PlannerState, TryAmount
from tfnas.compression.recipe import RecipeStep
from tfnas.compression.targets_from_budget import (
    FEWEST,
    LEAST,
    rounded,
    steps_for_budget,
    with_fewer_weights,
)

FEW = 2  # rounds up to which an effort stops where the budget is met


def first_amounts(state: PlannerState, techniques: tuple[str, ...]) -> ChooseAmount:
    """Returns the amounts of a technique that are tried first.

    Args:
        state: The state of the plan.
        techniques: The technique, and those that come after it.
    """
    technique = techniques[0]
    demanded, why = steps_for_budget(technique, state.budget, state.known, state.settings)
    waiting = demanded or [RecipeStep(technique, fraction) for fraction in state.effort.ladder]
    return ChooseAmount(
        technique=technique,
        scaled=demanded[0] if demanded else RecipeStep(technique, 0.5),
        why=why,
        waiting=tuple(waiting),
        demanded=tuple(demanded),
        left=max(state.effort.rounds, len(waiting)),
        others=techniques[1:],
    )


def next_amount(state: PlannerState, amounts: ChooseAmount) -> TryAmount | None:
    """Returns the amount that is tried next, None where the technique has ended.

    Args:
        state: The state of the plan.
        amounts: What is known of the technique.
    """
    step: RecipeStep | None = None
    if amounts.waiting:
        step = amounts.waiting[0]
    elif amounts.left > 0:
        step = _scaled(amounts.scaled, amounts.tried)
    if step is None:
        return None
    rest = dataclasses.replace(amounts, waiting=amounts.waiting[1:], left=amounts.left - 1)
    return TryAmount(rest, step, _attempt(state, rest, step, amounts.why))


def _attempt(state: PlannerState, amounts: ChooseAmount, step: RecipeStep, why: str) -> Attempt:
    enough = state.tolerance.little if amounts.met else 0.0
    return Attempt((step,), why, enough, state.settings.sparsities)


def low_rank_instead(state: PlannerState, tried: TryAmount) -> TryAmount | None:
    """Returns the same amount by low rank, where pruning channels failed and the effort allows it.

    Args:
        state: The state of the plan.
        tried: The amount, whose attempt has ended.
    """
    pruned = tried.attempt.steps[0].technique == "prune_channels"
    if tried.attempt.result is not None or not pruned or not state.effort.low_rank:
        return None
    why = f"channels can't be pruned: {tried.step}"
    step = RecipeStep("factorize", _fraction(tried.step))
    return dataclasses.replace(tried, attempt=_attempt(state, tried.amounts, step, why))


def after_amount(state: PlannerState, tried: TryAmount) -> ChooseAmount:
    """Returns what is known of a technique after one of its amounts.

    Args:
        state: The state of the plan.
        tried: The amount, whose attempt has ended.
    """
    step, file, amounts = tried.step, tried.attempt.result, tried.amounts
    accurate = state.accurate(file)
    amounts = dataclasses.replace(
        amounts,
        tried={**amounts.tried, _fraction(step): accurate},
        met=amounts.met or state.meets(file),
        why="the quality allows it" if accurate else "half-way back to a file that is good enough",
    )
    if file is None and amounts.technique == "factorize_dense":
        return _ended(amounts)  # other fractions fail too
    if step in amounts.demanded:
        amounts = _after_demanded(state, amounts, step, file)
    if amounts.met and amounts.demanded and not amounts.waiting and state.effort.rounds <= FEW:
        return _ended(amounts)  # the budget is met
    return amounts


def _after_demanded(
    state: PlannerState, amounts: ChooseAmount, step: RecipeStep, file: KnownFile | None
) -> ChooseAmount:
    """Returns what is known after an amount that the exceeded limits demand."""
    amounts = dataclasses.replace(amounts, scaled=step)
    if amounts.met:
        why = "shows the price of the limit"
        return dataclasses.replace(amounts, waiting=_milder(step), why=why)
    if file is not None and state.accurate(file):
        nearer: tuple[RecipeStep, ...] = ()
        if step not in amounts.nearer:  # only once
            nearer = tuple(with_fewer_weights(step, file, state.budget, state.settings))
        return dataclasses.replace(
            amounts,
            waiting=nearer,
            demanded=(*amounts.demanded, *nearer),
            nearer=(*amounts.nearer, *nearer),
            why="the file was slightly larger than estimated" if nearer else amounts.why,
        )
    if amounts.waiting:
        return dataclasses.replace(amounts, why="4 bits a weight leave more channels")
    return _ended(amounts)  # half-way back would exceed the limit that demands it


def _ended(amounts: ChooseAmount) -> ChooseAmount:
    """Returns amounts of which none is left to be tried."""
    return dataclasses.replace(amounts, waiting=(), left=0)


def _fraction(step: RecipeStep) -> float:
    """Returns the fraction of costs that stays, or of weights where only these are limited."""
    return step.amount if step.amount < 1 or step.weights is None else step.weights


def _milder(step: RecipeStep) -> tuple[RecipeStep, ...]:
    """Returns the step half-way between a step and the uncompressed model, if there is one."""
    fraction = rounded((1 + _fraction(step)) / 2)
    if step.technique != "prune_channels" or fraction <= _fraction(step):
        return ()
    if step.amount < 1:
        return (RecipeStep("prune_channels", fraction),)
    return (RecipeStep("prune_channels", 1.0, fraction),)


def _scaled(scaled: RecipeStep, tried: Mapping[float, bool]) -> RecipeStep | None:
    """Returns a smaller step if the smallest so far was good enough, else one half-way back."""
    allowed = min(fraction for fraction, accurate in tried.items() if accurate)
    below = [fraction for fraction in tried if fraction < allowed]
    fraction = rounded((allowed + max(below)) / 2 if below else 0.7 * allowed)
    if fraction in tried or fraction <= LEAST:
        return None
    if scaled.amount >= 1:
        return RecipeStep(scaled.technique, 1.0, fraction)
    if scaled.weights is None:
        return RecipeStep(scaled.technique, fraction)
    weights = rounded(scaled.weights * fraction / scaled.amount, FEWEST)
    return None if weights == scaled.weights else RecipeStep(scaled.technique, fraction, weights)
