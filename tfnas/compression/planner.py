"""What is tried next: from what the budget asks and what came out so far.

Cheap things first. Formats after training cost seconds; they show what integers alone save and
lose. What the budget still lacks decides on the rest: how many channels may stay follows from
the multiply-accumulates, the time or what is left of a device, in proportion to the int8 file,
and from the bytes, by their weights; a limit on gzipped bytes asks for zeros and few values.
Where the accuracy is nearly enough, training goes on; where it is lost, the next share lies
half-way back, where plenty is left, further on. A share that a limit asked for and that meets
the budget is enough but for a thorough effort, and for one that is half-way to the whole
network, so that people see what their limits cost. Where int8 would take too many bytes, 4-bit
weights are trained for. What is beaten beyond doubt in all that counts is not worked on. What
the first look at the model says (:mod:`tfnas.compression.plan_reasons`) orders and scales all that.

The plan is a generator: it gives a recipe and is sent what came of it. It draws no numbers, so
that a job which was killed goes the same way again.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING

from tfnas.compression.budget import Budget
from tfnas.compression.effort import Effort
from tfnas.compression.plan_reasons import PlanReasons, decide_plan
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.targets_from_budget import (
    FEWER_BITS,
    FEWEST,
    LEAST,
    Known,
    rounded,
    steps_for_budget,
    with_less,
)

if TYPE_CHECKING:
    from tfnas.compression.candidate_store import Candidate

Plan = Generator[Recipe, "Candidate | None", None]
Search = Generator[Recipe, "Candidate | None", bool]
Attempt = Generator[Recipe, "Candidate | None", "Candidate | None"]

VALUES = 16
ENOUGH = 0.3  # points that int8 may lose before it is worth a training
FEW = 2  # rounds of an effort that stops where the budget is met
LONGER = 4.0  # times a step's epochs, where the accuracy is nearly enough
HOPELESS = 3.0  # points beyond the limit that longer training won't bring back
_BY_BITS = {"bytes", "flash_bytes"}  # fall with the bits of each


def plan(budget: Budget, effort: Effort, made: PlanReasons | None = None) -> Plan:
    """Yields recipes; is sent what came of each, None where it could not be made.

    Args:
        budget: The limits.
        effort: How much is tried.
        made: What the look at the model decided; None: nothing was looked at.
    """
    made = made or decide_plan(budget, effort, None)
    found: dict[str, Candidate | None] = {}
    for mode in made.formats:
        found[mode] = yield Recipe((), mode, why="a number format costs seconds")
    base = found.get("int8")
    for mode in made.later if base is None else ():
        yield Recipe((), mode, why="int8 can't be made")
    if not effort.epochs or (base is not None and base.costs.refused):
        return  # with fewer channels the operators stay those that the device can't run
    allowed = math.inf if budget.max_drop is None else budget.max_drop
    if base is None or base.costs.drop > (min(ENOUGH, allowed) if made.integers else allowed):
        why = "int8 without training loses accuracy"
        base = (yield Recipe((), "int8", aware=True, why=why)) or base
    sized = set(budget.limits) - {"max_drop"}
    light = found.get(FEWER_BITS)
    known = () if base is None else (base,) if light is None else (base, light)
    if base is not None and (yield from _in_fewer_bits((), base, budget, known)):
        return
    for technique in made.techniques:
        met = yield from _made_smaller(technique, budget, effort, known, made)
        if met and sized:
            break  # what was less promising is not needed
    if budget.max_gzip_bytes is not None:
        yield from _for_gzip(budget, (), "zeros and few values compress", made)


def _made_smaller(
    technique: str, budget: Budget, effort: Effort, known: Known, made: PlanReasons
) -> Search:
    """Amounts of a technique, one after another.

    Args:
        technique: Its name.
        budget: The limits.
        effort: How many.
        known: int8 without any technique, and with fewer bits, where these can be made.
        made: What the look at the model decided.

    Returns:
        Whether a file keeps all limits.
    """
    asked, why = steps_for_budget(technique, budget, known, made)
    waiting = list(asked) or [RecipeStep(technique, share) for share in effort.ladder]
    scaled = asked[0] if asked else RecipeStep(technique, 0.5)  # what further shares are like
    tried: dict[float, bool] = {1.0: True}  # share -> whether the accuracy allows it
    nearer: list[RecipeStep] = []  # asked for after a file was a little too large
    left, met = max(effort.rounds, len(waiting)), False
    while waiting or left > 0:
        step = waiting.pop(0) if waiting else _next_step(scaled, tried)
        if step is None:
            break
        left -= 1
        enough = ENOUGH if met else 0.0
        ended = yield from _trained((step,), budget, why, known, made, enough)
        if ended is None and technique == "prune_channels" and effort.low_rank:
            why = f"channels can't go: {step}"
            steps = (RecipeStep("factorize", _share(step)),)
            ended = yield from _trained(steps, budget, why, known, made, enough)
        fine = ended is not None and _accurate(budget, ended)
        tried[_share(step)] = fine
        met = met or (ended is not None and not budget.excesses(ended.costs))
        if ended is None and technique == "factorize_dense":
            break  # no other share goes either
        why = "the accuracy allows it" if fine else "half-way back in accuracy"
        if step in asked:
            scaled = step
            if met:
                waiting, why = _milder(step), "what less would cost"
            elif fine and ended is not None:
                waiting = [] if step in nearer else with_less(step, ended, budget, made)
                asked, nearer = [*asked, *waiting], [*nearer, *waiting]
                why = "its file holds a little more than was reckoned" if waiting else why
            elif waiting:
                why = "4 bits a weight leave more of the channels"
            else:
                break  # half-way back would break the limit that asks for it
        if met and asked and not waiting and effort.rounds <= FEW:
            break  # all that is asked for is there
    return met


def _share(step: RecipeStep) -> float:
    """What a step is ordered by: the costs that stay, or the weights where these alone count."""
    return step.amount if step.amount < 1 or step.weights is None else step.weights


def _milder(step: RecipeStep) -> list[RecipeStep]:
    """Half-way between a step and the whole model, where there is such a share."""
    share = rounded((1 + _share(step)) / 2)
    if step.technique != "prune_channels" or share <= _share(step):
        return []
    return [
        RecipeStep("prune_channels", share)
        if step.amount < 1
        else RecipeStep("prune_channels", 1.0, share)
    ]


def _next_step(scaled: RecipeStep, tried: dict[float, bool]) -> RecipeStep | None:
    """Further on where the smallest allowed share is the smallest tried, else half-way."""
    allowed = min(share for share, fine in tried.items() if fine)
    below = [share for share in tried if share < allowed]
    share = rounded((allowed + max(below)) / 2 if below else 0.7 * allowed)
    if share in tried or share <= LEAST:
        return None
    if scaled.amount >= 1:
        return RecipeStep(scaled.technique, 1.0, share)
    if scaled.weights is None:
        return RecipeStep(scaled.technique, share)
    weights = rounded(scaled.weights * share / scaled.amount, FEWEST)
    return None if weights == scaled.weights else RecipeStep(scaled.technique, share, weights)


def _trained(
    steps: tuple[RecipeStep, ...],
    budget: Budget,
    why: str,
    known: Known,
    made: PlanReasons,
    enough: float = 0.0,
) -> Attempt:
    """int8 after steps; trained for integers unless that is needless, longer where it may help.

    Longer first, but where integers are what costs: where the whole model was trained for them.

    Args:
        steps: What was done before.
        budget: The limits.
        why: The reason for the steps.
        known: What formats came to.
        made: What the look at the model decided.
        enough: Points that may be lost before a training is worth it, if the budget allows them.

    Returns:
        The best of them, None where the steps could not be taken.
    """
    best = yield Recipe(steps, "int8", why=why)
    if best is None or best.beaten:
        return best
    longer = (*steps, RecipeStep("train", LONGER))
    rounding = bool(known) and known[0].recipe.aware
    if not rounding and ENOUGH < _missed(budget, best) <= HOPELESS:
        best = _better(best, (yield Recipe(longer, "int8", why="longer training brings more back")))
        steps = longer
    if (made.integers and best.costs.drop > enough) or not _accurate(budget, best):
        why = "what rounding costs comes back"
        best = _better(best, (yield Recipe(steps, "int8", aware=True, why=why)))
    if steps is not longer and 0 < _missed(budget, best) <= HOPELESS:
        why = "nearly enough: longer training, and for integers again"
        best = _better(best, (yield Recipe(longer, "int8", aware=True, why=why)))
        steps = longer
    light = yield from _in_fewer_bits(steps, best, budget, known)
    if budget.max_gzip_bytes is not None and best.costs.gzip_bytes > budget.max_gzip_bytes:
        yield from _for_gzip(budget, steps, "what is left of the channels, compressed", made)
    return light or best


def _better(one: Candidate, other: Candidate | None) -> Candidate:
    return one if other is None or one.costs.drop <= other.costs.drop else other


def _in_fewer_bits(
    steps: tuple[RecipeStep, ...], best: Candidate, budget: Budget, known: Known
) -> Attempt:
    """Trained for 4-bit weights, where bytes alone keep int8 from the budget, and they suffice.

    Returns:
        The file if it keeps all limits, else None.
    """
    over = {name.removeprefix("max_") for name in budget.excesses(best.costs)}
    if len(known) < 2 or not over or not over <= _BY_BITS:
        return None
    for name in over:
        share = known[1].costs.value(name) / known[0].costs.value(name)
        if share * best.costs.value(name) > budget.limits[f"max_{name}"]:
            return None
    why = "int8 takes too many bytes, and 4-bit weights about half of them"
    light = yield Recipe(steps, FEWER_BITS, aware=True, why=why)
    return light if light is not None and not budget.excesses(light.costs) else None


def _for_gzip(budget: Budget, steps: tuple[RecipeStep, ...], why: str, made: PlanReasons) -> Plan:
    assert budget.max_gzip_bytes is not None
    for sparsity in made.sparsities:
        more = (*steps, RecipeStep("prune", sparsity), RecipeStep("cluster", VALUES))
        packed = yield Recipe(more, "int8", aware=True, why=why)
        if packed is None or packed.costs.gzip_bytes <= budget.max_gzip_bytes:
            return


def _missed(budget: Budget, made: Candidate) -> float:
    """Points that are lost beyond the limit."""
    return -math.inf if budget.max_drop is None else made.costs.drop - budget.max_drop


def _accurate(budget: Budget, made: Candidate) -> bool:
    return _missed(budget, made) <= 0
