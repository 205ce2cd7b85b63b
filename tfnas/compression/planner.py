"""Chooses the next recipe, from the budget and the candidates so far.

Cheap recipes come first. Number formats without training take seconds or minutes; they show what
int8 alone saves and loses. Exceeded limits decide on the rest: limits on multiply-accumulates,
latency or a device, compared with the int8 file, set the fraction of channels that stays; limits on
bytes set the fraction of weights; a limit on gzipped bytes leads to pruning and clustering of
weights.

How many bytes a file will have is measured before anything is trained for it, until a fraction of
the weights lands under the limit. Nothing more is trained for a file that exceeds what no training
can change; the next amount is smaller. Where slightly too much quality is lost, training continues.
Where far too much is, float activations show whether rounding loses it; if not, the next fraction
is half-way back to the last that was good enough. Where little is lost, a smaller one follows.
Where a fraction that a limit demands meets the budget, the search stops unless the effort is
thorough: then one larger fraction shows the price of the limit. Where int8 takes too many bytes,
4-bit weights are trained. A candidate that another one dominates significantly is not developed
further. The analysis of the model (:mod:`tfnas.compression.plan_settings`) orders and scales all
that.

The plan is a state machine: :func:`next_step` takes a frozen state and an outcome, and returns
another state and a recipe. It draws no random numbers, so that a job that was killed repeats the
same steps. Which amount of a technique comes next is in :mod:`tfnas.compression.planner_amounts`,
what is tried with it in :mod:`tfnas.compression.planner_attempt`.
"""

from __future__ import annotations

import dataclasses
from typing import assert_never

from tfnas.compression.budget import QUALITY_LIMITS, Budget
from tfnas.compression.effort import Effort
from tfnas.compression.known_file import KnownFile, Outcome
from tfnas.compression.plan_settings import PlanSettings, decide_plan
from tfnas.compression.planner_amounts import (
    FEW,
    after_amount,
    first_amounts,
    low_rank_instead,
    next_amount,
)
from tfnas.compression.planner_attempt import (
    WHY_SIZE,
    fewer_bits_recipe,
    next_part,
    sparsities_left,
    with_outcome,
    zeros_recipe,
)
from tfnas.compression.planner_state import (
    ChooseAmount,
    Finished,
    Phase,
    PlannerState,
    TrainInt8,
    TryAmount,
    TryFewerBits,
    TryFormats,
    TryMore,
    TryZeros,
)
from tfnas.compression.recipe import Recipe
from tfnas.compression.tolerance import OF_ACCURACY, Tolerance
from tfnas.quantization.spec import FLOAT, QuantSpec


def first_state(
    budget: Budget,
    effort: Effort,
    settings: PlanSettings | None = None,
    *,
    tolerance: Tolerance = OF_ACCURACY,
) -> PlannerState:
    """Returns the state before the first recipe.

    Args:
        budget: The limits.
        effort: How much is tried.
        settings: Settings from the analysis of the model; None: it was not analyzed.
        tolerance: Which drops training is worth its time for, in the unit of the task's metric.
    """
    settings = settings or decide_plan(budget, effort, None)
    phase = TryFormats(settings.formats)
    return PlannerState(budget, effort, settings, phase, tolerance=tolerance)


def next_step(state: PlannerState, outcome: Outcome | None) -> tuple[PlannerState, Recipe | None]:
    """Returns the state after an outcome, and the recipe that is tried next.

    The same state and outcome give the same answer, and neither is changed.

    Example:
        >>> from tfnas.compression.effort import EFFORTS
        >>> state = first_state(Budget(max_bytes=100_000), EFFORTS["quick"])
        >>> state, recipe = next_step(state, None)
        >>> str(recipe)
        'float16'
        >>> state, recipe = next_step(state, None)  # it could not be converted
        >>> str(recipe)
        'dynamic'

    Args:
        state: A state.
        outcome: The candidate of the recipe that came with the state; None where it failed, and
            for the first state.

    Returns:
        The next state, and its recipe; None where the plan has ended.

    Raises:
        ValueError: The outcome is that of another recipe.
    """
    if outcome is not None and outcome.recipe != state.asked:
        raise ValueError(f"outcome must be that of {state.asked}, got one of {outcome.recipe}")
    if state.asked is not None:
        state = _received(state, None if outcome is None else KnownFile.of(outcome))
    while not isinstance(state.phase, Finished):
        found = _proposed(state)
        if isinstance(found, Recipe):
            return dataclasses.replace(state, asked=found), found
        state = found
    return state, None


def _received(state: PlannerState, file: KnownFile | None) -> PlannerState:
    """Returns a state that knows the outcome of the recipe that it asked for."""
    state = dataclasses.replace(state, asked=None, met=state.met or state.meets(file))
    phase = state.phase
    match phase:
        case TryFormats():
            files = state.files if file is None else (*state.files, file)
            rest = dataclasses.replace(phase, waiting=phase.waiting[1:])
            return dataclasses.replace(state, phase=rest, files=files)
        case TrainInt8():
            return dataclasses.replace(state, phase=TryFewerBits(), trained=file)
        case TryFewerBits():
            return _after_fewer_bits(state, phase, file)
        case TryAmount():
            attempt = with_outcome(state, phase.attempt, file)
            return _to(state, dataclasses.replace(phase, attempt=attempt))
        case TryZeros():
            return _to(state, TryZeros(sparsities_left(state, phase.sparsities, file)))
        case TryMore():
            return _to(state, _after_more(state, phase, file))
        case ChooseAmount() | Finished():
            raise ValueError(f"no recipe is asked for in {phase}, got {state.asked}")
    assert_never(phase)


def _proposed(state: PlannerState) -> Recipe | PlannerState:
    """Returns the recipe of the current phase, or the state of the next phase where it has none."""
    phase = state.phase
    match phase:
        case TryFormats():
            if not phase.waiting:
                return _after_formats(state, phase)
            why = "int8 can't be converted" if phase.later else "a number format trains nothing"
            return Recipe((), phase.waiting[0], why=why)
        case TrainInt8():
            return Recipe((), "int8", aware=True, why="post-training int8 loses quality")
        case TryFewerBits():
            return _of_fewer_bits(state, phase) or _reduced(state)
        case ChooseAmount():
            tried = next_amount(state, phase)
            return _after_technique(state, phase) if tried is None else _to(state, tried)
        case TryAmount():
            return _of_amount(state, phase)
        case TryZeros():
            why = "zeros and few distinct values compress well"
            return zeros_recipe((), phase.sparsities, why) or _with_more(state)
        case TryMore():
            return _of_more(state, phase)
        case Finished():
            return state
    assert_never(phase)


def _to(state: PlannerState, phase: Phase) -> PlannerState:
    return dataclasses.replace(state, phase=phase)


def _after_formats(state: PlannerState, phase: TryFormats) -> PlannerState:
    """Goes on from number formats: where int8 failed to the others, then to training."""
    base, settings = state.converted("int8"), state.settings
    if base is None and not phase.later:
        return _to(state, TryFormats(settings.later, later=True))
    if base is not None and base.costs.refused:
        # Fewer channels do not change the operators that the device can't run.
        return _to(state, Finished())
    if not state.effort.epochs:
        return _with_more(state)
    # No training makes the uncompressed model keep other limits than those on quality.
    possible = base is None or not state.exceeded(base)
    return _to(state, TrainInt8() if possible and state.rounding_loses else TryFewerBits())


def _of_fewer_bits(state: PlannerState, phase: TryFewerBits) -> Recipe | None:
    """Returns the recipe of 4-bit weights, first of the size of its file; None: it can't help."""
    known = state.known
    recipe = fewer_bits_recipe(state, (), known[0]) if known else None
    if recipe is None or phase.measured or not state.settings.sized:
        return recipe
    return dataclasses.replace(recipe, untrained=True, why=WHY_SIZE)


def _after_fewer_bits(
    state: PlannerState, phase: TryFewerBits, file: KnownFile | None
) -> PlannerState:
    """Goes on from 4-bit weights: from a size that fits, or is not known, to their training."""
    if state.settings.sized and not phase.measured:
        fits = file is None or not state.exceeded(file)
        return _to(state, TryFewerBits(measured=True)) if fits else _reduced(state)
    return _to(state, Finished()) if state.meets(file) else _reduced(state)


def _reduced(state: PlannerState) -> PlannerState:
    """Goes on to the first technique that reduces the model."""
    techniques = state.settings.techniques
    return _to(state, first_amounts(state, techniques)) if techniques else _with_zeros(state)


def _of_amount(state: PlannerState, phase: TryAmount) -> Recipe | PlannerState:
    """Returns the recipe of the next part of an attempt, or the state after the attempt."""
    attempt, recipe = next_part(state, phase.attempt)
    if attempt.part != phase.attempt.part:
        return _to(state, dataclasses.replace(phase, attempt=attempt))
    if recipe is not None:
        return recipe
    return _to(state, low_rank_instead(state, phase) or after_amount(state, phase))


def _after_technique(state: PlannerState, phase: ChooseAmount) -> PlannerState:
    """Goes on to the next technique, unless less promising ones are not needed."""
    limits_on_costs = set(state.budget.limits) - set(QUALITY_LIMITS)
    if not phase.others or (phase.met and limits_on_costs):
        return _with_zeros(state)
    return _to(state, first_amounts(state, phase.others))


def _with_zeros(state: PlannerState) -> PlannerState:
    enough = state.met and state.effort.rounds <= FEW
    if state.budget.max_gzip_bytes is None or enough:
        return _with_more(state)
    return _to(state, TryZeros(state.settings.sparsities))


def _with_more(state: PlannerState) -> PlannerState:
    return _to(state, TryMore(state.settings.more))


def _of_more(state: PlannerState, phase: TryMore) -> Recipe | PlannerState:
    """Returns the recipe of the next step, or the end where the limits are met or none is left."""
    mode = _mode_of_more(state)
    if state.met or not phase.waiting or mode is None:
        return _to(state, Finished())
    return Recipe((phase.waiting[0],), mode, why="limits are exceeded, and nothing else is left")


def _mode_of_more(state: PlannerState) -> str | None:
    """Returns int8; where it can't be converted, the float format of the fewest bytes, if any."""
    if state.converted("int8") is not None:
        return "int8"
    floats = [f for f in state.files if QuantSpec.of(f.recipe.mode).activations == FLOAT]
    return min(floats, key=lambda f: f.costs.bytes).recipe.mode if floats else None


def _after_more(state: PlannerState, phase: TryMore, file: KnownFile | None) -> TryMore:
    """Drops a technique's larger amounts where one failed or loses too much."""
    step, *rest = phase.waiting
    if not state.accurate(file):
        rest = [other for other in rest if other.technique != step.technique]
    return TryMore(tuple(rest))
