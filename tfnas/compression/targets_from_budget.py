"""How much of a model may stay, by what a budget asks and what number formats alone came to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tfnas.compression.budget import STORED, Budget
from tfnas.compression.plan_reasons import PlanReasons
from tfnas.compression.recipe import RecipeStep

if TYPE_CHECKING:
    from tfnas.compression.candidate_store import Candidate

Known = tuple["Candidate", ...]  # int8, then with fewer bits; those that can be made

FEWER_BITS = "int8x4"
LEAST, MOST = 0.15, 0.95  # shares that are tried
FEWEST = 0.05  # share of weights
MARGIN = 0.95  # of a limit: what does not shrink with the share must have room
ROOM = 0.99  # of bytes told by the weights: trained for integers, a file holds a little more
_BYTES_OF_WEIGHT = {"int8": 1.0, FEWER_BITS: 0.5}
_COMPUTED = (  # fall with what channels compute
    *("latency_ratio", "memory", "ram_bytes"),
    *("vela_ms", "vela_cycles", "vela_sram_bytes"),
)
_STORED = ("bytes", "flash_bytes", "vela_flash_bytes")  # fall with their weights


def steps_for_budget(
    technique: str, budget: Budget, known: Known, made: PlanReasons
) -> tuple[list[RecipeStep], str]:
    """What the budget asks a technique for, and by which limits; none where it asks nothing.

    With 8 bits a weight first, then, where bytes are asked for, with the fewer that are known.

    Args:
        technique: Its name.
        budget: The limits.
        known: What formats came to.
        made: What the look at the model decided.
    """
    if technique == "factorize_dense":
        share, why = _asked_of_dense(budget, known, made)
        return ([] if share is None else [RecipeStep("factorize_dense", share)]), why
    computed = {} if budget.max_macs is None else {"max_macs": budget.max_macs}
    for name, (limit, value) in _exceeded(_COMPUTED, budget, known[:1], made).items():
        ratio = MARGIN * limit / value
        computed[name] = made.share_for_time(ratio) if name == "max_latency_ratio" else ratio
    costs = rounded(min(computed.values())) if computed else 1.0
    steps, stored = [], _exceeded(_STORED, budget, known[:1], made)
    for file in known if stored else ():
        exceeded = _exceeded(_STORED, budget, (file,), made)
        shares = [_weights_share(name, file, *numbers, made) for name, numbers in exceeded.items()]
        weights = min(shares, default=None)  # None: the format keeps the limit
        if weights is None or weights >= FEWEST:
            share = None if weights is None else rounded(weights, FEWEST)
            steps.append(RecipeStep(technique, costs, share))
    if not steps and (stored or computed):
        steps = [RecipeStep(technique, costs, FEWEST if stored else None)]
    asked = list(dict.fromkeys(step for step in steps if step.amount < 1 or step.weights))
    if not asked:
        return [], "fewer channels run faster anywhere"
    names = [*computed, *stored]
    return asked, f"{' and '.join(names)} {'asks' if len(names) == 1 else 'ask'} for it"


def _weights_share(
    name: str, file: Candidate, limit: float, value: float, made: PlanReasons
) -> float:
    """The share of the weights that a limit on bytes leaves, all else in the file staying."""
    held = _BYTES_OF_WEIGHT[file.recipe.mode] * made.weights
    if not held or held > value or name == "max_vela_flash_bytes":  # which encodes them
        return MARGIN * limit / value
    return (ROOM * limit - (value - held)) / held


def _asked_of_dense(budget: Budget, known: Known, made: PlanReasons) -> tuple[float | None, str]:
    """The share of the dense layers' weights, a byte each, that limits on bytes leave them."""
    shares = {
        name: 1 - (value - MARGIN * limit) / max(1, made.dense)
        for name, (limit, value) in _exceeded(STORED, budget, known, made).items()
    }
    if not shares:
        return None, "most of the bytes are in dense layers"
    name = min(shares, key=lambda key: shares[key])
    return rounded(shares[name]), f"{name} asks for it, and most bytes are in dense layers"


def _exceeded(
    names: tuple[str, ...], budget: Budget, known: Known, made: PlanReasons
) -> dict[str, tuple[float, float]]:
    """Limit -> (limit, value) of costs above it, less what the model has no part in.

    Bytes are those of the smallest file known, as its format can be taken for any share.
    """
    found: dict[str, tuple[float, float]] = {}
    for name in names if known else ():
        limit = budget.limits.get(f"max_{name}")
        if limit is None:
            continue
        value = min(c.costs.value(name) for c in (known if name in STORED else known[:1]))
        if value > limit:
            fixed = made.fixed.get(name, 0)
            found[f"max_{name}"] = limit - fixed, value - fixed
    return found


def with_less(
    step: RecipeStep, file: Candidate, budget: Budget, made: PlanReasons
) -> list[RecipeStep]:
    """What is asked for instead of a step whose file takes a little more bytes than it may.

    Args:
        step: The step, with a share of the weights.
        file: What came of it.
        budget: The limits.
        made: What the look at the model decided.

    Returns:
        The step with fewer weights; none where bytes are not what is over, or no fewer can go.
    """
    over = [
        file.costs.value(name) - ROOM * limit
        for name in _STORED
        if (limit := budget.limits.get(f"max_{name}")) and file.costs.value(name) > limit
    ]
    held = _BYTES_OF_WEIGHT[file.recipe.mode] * made.weights
    if not over or not held or step.weights is None:
        return []
    share = rounded(step.weights - max(over) / held, FEWEST)
    return [RecipeStep(step.technique, step.amount, share)] if share < step.weights else []


def rounded(share: float, least: float = LEAST) -> float:
    """Returns a share in hundredths, within those that are tried."""
    return min(MOST, max(least, math.floor(100 * share + 1e-9) / 100))
