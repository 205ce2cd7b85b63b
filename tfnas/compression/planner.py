"""Chooses the next recipe, from the budget and the candidates so far.

Cheap recipes come first. Number formats without training cost seconds; they show what int8 alone
saves and loses. Exceeded limits decide on the rest: limits on multiply-accumulates, latency or a
device, compared with the int8 file, set the fraction of channels that stays; limits on bytes set
the fraction of weights; a limit on gzipped bytes leads to pruning and clustering of weights.

Where the accuracy is slightly too low, training continues. Where it is far too low, the next
fraction is half-way back to the last that was accurate; where it is high enough, a smaller one
follows. Where a fraction that a limit demands meets the budget, one larger fraction is tried, to
show the price of the limit; then the search stops unless the effort is thorough. Where int8 takes
too many bytes, 4-bit weights are trained. A candidate that another one dominates significantly is
not developed further. The analysis of the model (:mod:`tfnas.compression.plan_settings`) orders and
scales all that.

The plan is a generator: it yields a recipe and receives its candidate. It draws no random
numbers, so that a job that was killed repeats the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING

from tfnas.compression.budget import Budget, cost_of_limit
from tfnas.compression.effort import Effort
from tfnas.compression.plan_settings import PlanSettings, decide_plan
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.targets_from_budget import (
    FEWER_BITS,
    FEWEST,
    LEAST,
    KnownFiles,
    rounded,
    steps_for_budget,
    with_fewer_weights,
)

if TYPE_CHECKING:
    from tfnas.compression.candidate_store import Candidate

Plan = Generator[Recipe, "Candidate | None", None]
Search = Generator[Recipe, "Candidate | None", bool]
Attempt = Generator[Recipe, "Candidate | None", "Candidate | None"]

VALUES = 16
ENOUGH = 0.3  # points that int8 may lose before training is worth its time
FEW = 2  # rounds up to which an effort stops where the budget is met
LONGER = 4.0  # times a step's epochs, where the accuracy is slightly too low
HOPELESS = 3.0  # points beyond the limit that longer training won't win back
_BY_BITS = {"bytes", "flash_bytes"}  # costs that fall with the bits of a weight


def plan(budget: Budget, effort: Effort, settings: PlanSettings | None = None) -> Plan:
    """Yields recipes; receives the candidate of each, None where it failed.

    Args:
        budget: The limits.
        effort: How much is tried.
        settings: Settings from the analysis of the model; None: it was not analyzed.
    """
    settings = settings or decide_plan(budget, effort, None)
    found: dict[str, Candidate | None] = {}
    for mode in settings.formats:
        found[mode] = yield Recipe((), mode, why="a number format costs seconds")
    base = found.get("int8")
    for mode in settings.later if base is None else ():
        yield Recipe((), mode, why="int8 can't be converted")
    if not effort.epochs or (base is not None and base.costs.refused):
        return  # fewer channels do not change the operators that the device can't run
    allowed = math.inf if budget.max_drop is None else budget.max_drop
    if base is None or base.costs.drop > (min(ENOUGH, allowed) if settings.integers else allowed):
        why = "post-training int8 loses accuracy"
        base = (yield Recipe((), "int8", aware=True, why=why)) or base
    limits_on_costs = set(budget.limits) - {"max_drop"}
    low_bits = found.get(FEWER_BITS)
    known = () if base is None else (base,) if low_bits is None else (base, low_bits)
    if base is not None and (yield from _in_fewer_bits((), base, budget, known)):
        return
    for technique in settings.techniques:
        met = yield from _reduce(technique, budget, effort, known, settings)
        if met and limits_on_costs:
            break  # less promising techniques are not needed
    if budget.max_gzip_bytes is not None:
        yield from _for_gzip(budget, (), "zeros and few distinct values compress well", settings)


def _reduce(
    technique: str, budget: Budget, effort: Effort, known: KnownFiles, settings: PlanSettings
) -> Search:
    """Tries amounts of a technique, one after another.

    Args:
        technique: Name of the technique.
        budget: The limits.
        effort: How many amounts are tried.
        known: The int8 file of the uncompressed model, and the one with fewer bits.
        settings: Settings from the analysis of the model.

    Returns:
        Whether a file meets all limits.
    """
    demanded, why = steps_for_budget(technique, budget, known, settings)
    waiting = list(demanded) or [RecipeStep(technique, fraction) for fraction in effort.ladder]
    scaled = demanded[0] if demanded else RecipeStep(technique, 0.5)  # later steps scale it
    tried: dict[float, bool] = {1.0: True}  # fraction -> whether it is accurate enough
    nearer: list[RecipeStep] = []  # with fewer weights than a file that was slightly too large
    left, met = max(effort.rounds, len(waiting)), False
    while waiting or left > 0:
        step = waiting.pop(0) if waiting else _next_step(scaled, tried)
        if step is None:
            break
        left -= 1
        enough = ENOUGH if met else 0.0
        candidate = yield from _trained((step,), budget, why, known, settings, enough)
        if candidate is None and technique == "prune_channels" and effort.low_rank:
            why = f"channels can't be pruned: {step}"
            steps = (RecipeStep("factorize", _fraction(step)),)
            candidate = yield from _trained(steps, budget, why, known, settings, enough)
        accurate = candidate is not None and _accurate(budget, candidate)
        tried[_fraction(step)] = accurate
        met = met or (candidate is not None and not budget.excesses(candidate.costs))
        if candidate is None and technique == "factorize_dense":
            break  # other fractions fail too
        why = "the accuracy allows it" if accurate else "half-way back to an accurate file"
        if step in demanded:
            scaled = step
            if met:
                waiting, why = _milder(step), "shows the price of the limit"
            elif accurate and candidate is not None:
                waiting = (
                    [] if step in nearer else with_fewer_weights(step, candidate, budget, settings)
                )
                demanded, nearer = [*demanded, *waiting], [*nearer, *waiting]
                why = "the file was slightly larger than estimated" if waiting else why
            elif waiting:
                why = "4 bits a weight leave more channels"
            else:
                break  # half-way back would exceed the limit that demands it
        if met and demanded and not waiting and effort.rounds <= FEW:
            break  # the budget is met
    return met


def _fraction(step: RecipeStep) -> float:
    """Returns the fraction of costs that stays, or of weights where only these are limited."""
    return step.amount if step.amount < 1 or step.weights is None else step.weights


def _milder(step: RecipeStep) -> list[RecipeStep]:
    """Returns the step half-way between a step and the uncompressed model, if there is one."""
    fraction = rounded((1 + _fraction(step)) / 2)
    if step.technique != "prune_channels" or fraction <= _fraction(step):
        return []
    return [
        RecipeStep("prune_channels", fraction)
        if step.amount < 1
        else RecipeStep("prune_channels", 1.0, fraction)
    ]


def _next_step(scaled: RecipeStep, tried: dict[float, bool]) -> RecipeStep | None:
    """Returns a smaller step if the smallest so far was accurate, else one half-way back."""
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


def _trained(
    steps: tuple[RecipeStep, ...],
    budget: Budget,
    why: str,
    known: KnownFiles,
    settings: PlanSettings,
    enough: float = 0.0,
) -> Attempt:
    """Tries int8 after some steps, then quantization-aware and longer training where they may help.

    Longer training comes first, unless the uncompressed model needed quantization-aware training:
    then rounding is what loses the accuracy.

    Args:
        steps: The techniques.
        budget: The limits.
        why: The reason for the steps.
        known: The files of the uncompressed model.
        settings: Settings from the analysis of the model.
        enough: Points that may be lost before training is worth its time, within the budget.

    Returns:
        The most accurate candidate; None where the steps failed.
    """
    best = yield Recipe(steps, "int8", why=why)
    if best is None or best.beaten:
        return best
    longer = (*steps, RecipeStep("train", LONGER))
    rounding_loses = bool(known) and known[0].recipe.aware
    if not rounding_loses and ENOUGH < _missed(budget, best) <= HOPELESS:
        best = _better(best, (yield Recipe(longer, "int8", why="longer training wins more back")))
        steps = longer
    if (settings.integers and best.costs.drop > enough) or not _accurate(budget, best):
        why = "wins back what rounding loses"
        best = _better(best, (yield Recipe(steps, "int8", aware=True, why=why)))
    if steps is not longer and 0 < _missed(budget, best) <= HOPELESS:
        why = "slightly too low: longer training, then quantization-aware again"
        best = _better(best, (yield Recipe(longer, "int8", aware=True, why=why)))
        steps = longer
    low_bits = yield from _in_fewer_bits(steps, best, budget, known)
    if budget.max_gzip_bytes is not None and best.costs.gzip_bytes > budget.max_gzip_bytes:
        yield from _for_gzip(budget, steps, "prune and cluster the remaining channels", settings)
    return low_bits or best


def _better(one: Candidate, other: Candidate | None) -> Candidate:
    return one if other is None or one.costs.drop <= other.costs.drop else other


def _in_fewer_bits(
    steps: tuple[RecipeStep, ...], best: Candidate, budget: Budget, known: KnownFiles
) -> Attempt:
    """Trains 4-bit weights where int8 exceeds only limits on bytes and they would meet these.

    Returns:
        The candidate if it meets all limits, else None.
    """
    over = {cost_of_limit(name) for name in budget.excesses(best.costs)}
    if len(known) < 2 or not over or not over <= _BY_BITS:
        return None
    for name in over:
        fraction = known[1].costs.value(name) / known[0].costs.value(name)
        if fraction * best.costs.value(name) > budget.limits[f"max_{name}"]:
            return None
    why = "int8 takes too many bytes, and 4-bit weights about half of them"
    candidate = yield Recipe(steps, FEWER_BITS, aware=True, why=why)
    return candidate if candidate is not None and not budget.excesses(candidate.costs) else None


def _for_gzip(
    budget: Budget, steps: tuple[RecipeStep, ...], why: str, settings: PlanSettings
) -> Plan:
    assert budget.max_gzip_bytes is not None
    for sparsity in settings.sparsities:
        more = (*steps, RecipeStep("prune", sparsity), RecipeStep("cluster", VALUES))
        candidate = yield Recipe(more, "int8", aware=True, why=why)
        if candidate is None or candidate.costs.gzip_bytes <= budget.max_gzip_bytes:
            return


def _missed(budget: Budget, candidate: Candidate) -> float:
    """Returns the points that are lost beyond the limit."""
    return -math.inf if budget.max_drop is None else candidate.costs.drop - budget.max_drop


def _accurate(budget: Budget, candidate: Candidate) -> bool:
    return _missed(budget, candidate) <= 0
