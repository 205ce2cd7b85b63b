"""Which amount of a technique the planner tries next, by the files of the amounts before."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tfnas.compression.known_file import KnownFile, Outcome
from tfnas.compression.planner_attempt import SLIGHTLY, keeps_too_much, sized_form
from tfnas.compression.planner_state import (
    Attempt,
    ChooseAmount,
    PlannerState,
    TryAmount,
)
from tfnas.compression.recipe import RecipeStep
from tfnas.compression.targets_from_budget import (
    FEWEST,
    FINE,
    LEAST,
    bytes_to_limits,
    largest_fitting,
    limits_bytes,
    next_weights,
    rounded,
    steps_for_budget,
    with_fewer_weights,
)

UNTRAINED = 2  # times as many corrections where nothing is trained for the file
REFUSED = 0.05  # of the weights: so many more are kept where an amount is refused
FEWER_BITS_WHY = "4 bits a weight leave more channels"
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
        narrow=tuple(step for step in demanded if keeps_too_much(state, step)),
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
    sized = _sizeable(state, step) and step in amounts.demanded
    narrow = sized and step in amounts.narrow
    form = sized_form(state, narrow, amounts.trained_form)
    sizes = _sizes_of(amounts, step)
    known = step in amounts.landed or form in sizes
    trained = sizes.get(("int8", True))
    return Attempt(
        *((step,), why, enough, state.settings.sparsities),
        part="size" if sized and not known else "int8",
        narrow=narrow,
        trained_form=amounts.trained_form,
        trained_fits=trained is not None and not state.exceeded(trained),
    )


def _sizeable(state: PlannerState, step: RecipeStep) -> bool:
    """Returns whether the size of a step's file is measured before anything is trained for it."""
    return state.settings.sized and step.kept is not None and limits_bytes(state.budget)


def _sizes_of(amounts: ChooseAmount, step: RecipeStep) -> dict[tuple[str, bool], KnownFile]:
    """Returns form -> the file of a step in this form of which only the size is known."""
    return {_form(one): one for one in amounts.sizes if one.recipe.steps == (step,)}


def low_rank_instead(state: PlannerState, tried: TryAmount) -> TryAmount | None:
    """Returns the same amount by low rank, where pruning channels failed and the effort allows it.

    Args:
        state: The state of the plan.
        tried: The amount, whose attempt has ended.
    """
    pruned = tried.attempt.steps[0].technique == "prune_channels"
    possible = tried.attempt.result is not None or tried.attempt.size is not None
    if possible or not pruned or not state.effort.low_rank:
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
    large, size = tried.attempt.too_large, tried.attempt.size
    if size is not None:
        return _after_size(state, amounts, step, size)
    # Of a file that is too large nothing more was trained, so that it may lose a little.
    good = state.accurate(file) or (large is not None and not state.hopeless(large))
    amounts = dataclasses.replace(
        amounts,
        tried={**amounts.tried, _fraction(step): good},
        met=amounts.met or state.meets(file),
        why="the quality allows it" if good else "half-way back to a file that is good enough",
    )
    if file is None and tried.attempt.steps == (step,) and step in amounts.demanded:
        milder = _after_refusal(state, amounts, step)
        if milder is not None:
            return milder
    if file is None and amounts.technique == "factorize_dense":
        return _ended(amounts)  # other fractions fail too
    if step in amounts.demanded:
        amounts = _after_demanded(state, amounts, tried.attempt, step, good)
    if amounts.met and amounts.demanded and not amounts.waiting and state.effort.rounds <= FEW:
        return _ended(amounts)  # the budget is met
    return amounts


def _after_demanded(
    state: PlannerState,
    amounts: ChooseAmount,
    attempt: Attempt,
    step: RecipeStep,
    good: bool,
) -> ChooseAmount:
    """Returns what is known after an amount that the exceeded limits demand."""
    file, narrow = attempt.result, attempt.narrow
    amounts = dataclasses.replace(amounts, scaled=step)
    if amounts.met:
        if file is not None and amounts.waiting and _too_lossy(state, file):
            return dataclasses.replace(amounts, why=FEWER_BITS_WHY)
        why = "shows the price of the limit"
        milder = _milder(step) if state.effort.price and not narrow else ()
        return dataclasses.replace(amounts, waiting=milder, why=why)
    if narrow and not amounts.waiting:
        return _ended(amounts)  # fewer bits are the last that is tried
    if file is not None and good:
        smaller = _corrected(state, amounts, step, file)
        if smaller is None and amounts.lossy:
            return _ended(amounts)  # what would fit loses too much
        return smaller or dataclasses.replace(amounts, waiting=())
    amounts = dataclasses.replace(amounts, lossy=max(amounts.lossy, step.kept or 0.0))
    trained = None if narrow else _in_trained_form(state, amounts, step)
    if trained is not None:
        return trained
    if amounts.waiting:
        return dataclasses.replace(amounts, why=FEWER_BITS_WHY)
    return _ended(amounts)  # half-way back would exceed the limit that demands it


def _in_trained_form(
    state: PlannerState, amounts: ChooseAmount, step: RecipeStep
) -> ChooseAmount | None:
    """Returns amounts that measure the files trained for int8, which may have room for more.

    None where their sizes are what was measured.
    """
    if not amounts.sizes or amounts.trained_form is not None or state.settings.integers:
        return None
    return dataclasses.replace(
        amounts,
        waiting=(step, *amounts.waiting),
        landed=tuple(one for one in amounts.landed if one != step),
        trained_form=True,
        left=0,
        why="trained for int8 the limit may leave more weights",
    )


def _after_refusal(
    state: PlannerState, amounts: ChooseAmount, step: RecipeStep
) -> ChooseAmount | None:
    """Returns amounts with more weights, half-way to one of known size; None: that is no help.

    Weights that no channel removes, as of fixed filters, may leave too few for a small fraction.
    """
    if (
        not _sizeable(state, step)
        or step.technique != "prune_channels"
        or amounts.refused >= state.effort.corrections
    ):
        return None
    least = step.kept or 0.0
    measured = [one.recipe.steps[0].kept or 1.0 for one in amounts.sizes]
    above = min((kept for kept in measured if kept > least), default=least + 2 * REFUSED)
    fraction = rounded((least + above) / 2, FEWEST, 3)
    if above - least < FINE or step.keeping(fraction) in amounts.demanded:
        return None
    following = step.keeping(fraction)
    return dataclasses.replace(
        amounts,
        waiting=(following, *amounts.waiting),
        demanded=(*amounts.demanded, following),
        refused=amounts.refused + 1,
        narrow=(*amounts.narrow, following) if step in amounts.narrow else amounts.narrow,
        why="fewer weights are not possible",
    )


def _too_lossy(state: PlannerState, file: KnownFile) -> bool:
    """Returns whether the least loss counts, since no limit is on it, and far too much is lost."""
    return state.allowed_drop is None and file.costs.drop > state.tolerance.hopeless


def _after_size(
    state: PlannerState, amounts: ChooseAmount, step: RecipeStep, file: KnownFile
) -> ChooseAmount:
    """Returns what is known after the size of a file: the next size, or the step to train for."""
    if _form(file) == ("int8", True) and amounts.trained_form is None and _far(state, file):
        return _untrained_too(amounts, step, file)
    trained = _sizes_of(amounts, step).get(("int8", True))
    if amounts.trained_form is False and trained is not None and not _far(state, file, trained):
        amounts = dataclasses.replace(amounts, trained_form=True, sizes=(*amounts.sizes, file))
        file = trained  # both are as large
    alike = tuple(
        {one.recipe: one for one in (*amounts.sizes, file) if _form(one) == _form(file)}.values()
    )
    fraction, landed = next_weights(alike, state.budget, state.settings)
    measured = {one.recipe for one in (*amounts.sizes, file) if one.recipe.mode == file.recipe.mode}
    if not landed and len(measured) >= UNTRAINED * state.effort.corrections:
        fraction, landed = largest_fitting(alike, state.budget), True
    following = step.keeping(fraction)
    lossy = amounts.trained_form and fraction < amounts.lossy + landed * FINE
    never = landed and amounts.others and all(map(state.exceeded, alike))
    if step not in amounts.narrow and (lossy or never):
        why = FEWER_BITS_WHY
        return dataclasses.replace(amounts, why=why) if amounts.waiting else _ended(amounts)
    return dataclasses.replace(
        amounts,
        waiting=(following, *amounts.waiting)
        if following not in amounts.landed
        else amounts.waiting,
        demanded=(*amounts.demanded, following),
        left=amounts.left + 1,
        sizes=(*amounts.sizes, file),
        landed=(*amounts.landed, following) if landed else amounts.landed,
        narrow=(*amounts.narrow, following) if step in amounts.narrow else amounts.narrow,
    )


def _far(state: PlannerState, file: KnownFile, other: KnownFile | None = None) -> bool:
    """Returns whether a file exceeds a limit far, or is far smaller than another one."""
    own = bytes_to_limits(file, state.budget)
    return (bytes_to_limits(other, state.budget) - own if other else own - 1) > SLIGHTLY


def _untrained_too(amounts: ChooseAmount, step: RecipeStep, file: KnownFile) -> ChooseAmount:
    """Returns amounts that measure the file without training for int8, which may be far smaller.

    Training for int8 leaves layers that it does not know in float32.
    """
    return dataclasses.replace(
        amounts,
        waiting=(step, *amounts.waiting),
        left=amounts.left + 1,
        sizes=(*amounts.sizes, file),
        trained_form=False,
    )


def _corrected(
    state: PlannerState, amounts: ChooseAmount, step: RecipeStep, file: KnownFile
) -> ChooseAmount | None:
    """Returns amounts that go on with fewer weights; None where that is not possible."""
    if len(amounts.too_large) >= state.effort.corrections:
        return None
    alike = [one for one in (*state.known, *amounts.too_large) if _form(one) == _form(file)]
    before = alike[-1] if alike else None
    nearer = with_fewer_weights(step, file, state.budget, state.settings, before)
    if not nearer or (nearer[0].kept or 0.0) <= amounts.lossy:
        return None
    return dataclasses.replace(
        amounts,
        waiting=tuple(nearer),
        demanded=(*amounts.demanded, *nearer),
        landed=(*amounts.landed, *nearer),
        too_large=(*amounts.too_large, file),
        why="the file was slightly larger than estimated",
    )


def _form(file: Outcome) -> tuple[str, bool]:
    """Returns what the bytes of a file depend on besides its weights."""
    return file.recipe.mode, file.recipe.aware


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
        return (dataclasses.replace(step, amount=fraction, weights=None),)
    return (dataclasses.replace(step, weights=fraction),)


def _scaled(scaled: RecipeStep, tried: Mapping[float, bool]) -> RecipeStep | None:
    """Returns a smaller step if the smallest so far was good enough, else one half-way back."""
    allowed = min(fraction for fraction, accurate in tried.items() if accurate)
    below = [fraction for fraction in tried if fraction < allowed]
    fraction = rounded((allowed + max(below)) / 2 if below else 0.7 * allowed)
    if fraction in tried or fraction <= LEAST:
        return None
    if scaled.amount >= 1:
        return dataclasses.replace(scaled, weights=fraction)
    if scaled.weights is None:
        return dataclasses.replace(scaled, amount=fraction)
    weights = rounded(scaled.weights * fraction / scaled.amount, FEWEST)
    if weights == scaled.weights:
        return None
    return dataclasses.replace(scaled, amount=fraction, weights=weights)
