"""Targets of techniques, computed from the limits of a budget and the costs of int8 files."""

from __future__ import annotations

import math

from tfnas.compression.budget import STORED, Budget, cost_of_limit
from tfnas.compression.known_file import KnownFiles, Outcome
from tfnas.compression.plan_settings import PlanSettings
from tfnas.compression.recipe import RecipeStep

FEWER_BITS = "int8x4"
LEAST, MOST = 0.15, 0.95  # range of fractions that are tried
FEWEST = 0.05  # smallest fraction of weights
MARGIN = 0.95  # of a limit: some costs do not fall with the fraction
ROOM = 0.99  # of a limit on bytes: quantization-aware training adds a few bytes to a file
_BYTES_OF_WEIGHT = {"int8": 1.0, FEWER_BITS: 0.5}
# Costs that fall with multiply-accumulates, and costs that fall with weights.
_COMPUTED = ("latency", "memory", "ram_bytes", "vela_ms", "vela_cycles", "vela_sram_bytes")
_STORED = ("bytes", "flash_bytes", "vela_flash_bytes")


def steps_for_budget(
    technique: str, budget: Budget, known: KnownFiles, settings: PlanSettings
) -> tuple[list[RecipeStep], str]:
    """Returns the amounts of a technique that the exceeded limits demand, and the reason.

    With 8 bits a weight first, then, where bytes are limited, with fewer bits.

    Args:
        technique: Name of the technique.
        budget: The limits.
        known: The files of the uncompressed model.
        settings: The plan's settings.

    Returns:
        Steps, none where no limit is exceeded; and why they are tried.
    """
    if technique == "factorize_dense":
        fraction, why = _fraction_of_dense(budget, known, settings)
        return ([] if fraction is None else [RecipeStep("factorize_dense", fraction)]), why
    computed = {} if budget.max_macs is None else {"max_macs": budget.max_macs}
    for name, (limit, value) in _exceeded(_COMPUTED, budget, known[:1], settings).items():
        ratio = MARGIN * limit / value
        computed[name] = settings.macs_for_latency(ratio) if name == "max_latency_ratio" else ratio
    costs = rounded(min(computed.values())) if computed else 1.0
    steps, stored = [], _exceeded(_STORED, budget, known[:1], settings)
    for file in known if stored else ():
        exceeded = _exceeded(_STORED, budget, (file,), settings)
        fractions = [
            _fraction_of_weights(name, file, *numbers, settings)
            for name, numbers in exceeded.items()
        ]
        weights = min(fractions, default=None)  # None: the format keeps the limit
        if weights is None or weights >= FEWEST:
            fraction = None if weights is None else rounded(weights, FEWEST)
            steps.append(RecipeStep(technique, costs, fraction))
    if not steps and (stored or computed):
        steps = [RecipeStep(technique, costs, FEWEST if stored else None)]
    distinct = list(dict.fromkeys(step for step in steps if step.amount < 1 or step.weights))
    if not distinct:
        return [], "fewer channels run faster on any device"
    names = [*computed, *stored]
    return distinct, f"demanded by {' and '.join(names)}"


def _fraction_of_weights(
    name: str, file: Outcome, limit: float, value: float, settings: PlanSettings
) -> float:
    """Returns the fraction of weights within a limit on bytes, if the rest of the file stays."""
    weight_bytes = _BYTES_OF_WEIGHT[file.recipe.mode] * settings.weights
    # Vela encodes weights: its bytes do not follow from their number.
    if not weight_bytes or weight_bytes > value or name == "max_vela_flash_bytes":
        return MARGIN * limit / value
    return (ROOM * limit - (value - weight_bytes)) / weight_bytes


def _fraction_of_dense(
    budget: Budget, known: KnownFiles, settings: PlanSettings
) -> tuple[float | None, str]:
    """Returns the fraction of dense weights, a byte each, within the limits on bytes."""
    fractions = {
        name: 1 - (value - MARGIN * limit) / max(1, settings.dense)
        for name, (limit, value) in _exceeded(STORED, budget, known, settings).items()
    }
    if not fractions:
        return None, "most of the bytes are in dense layers"
    name = min(fractions, key=lambda key: fractions[key])
    return rounded(fractions[name]), f"demanded by {name}, and most bytes are in dense layers"


def _exceeded(
    names: tuple[str, ...], budget: Budget, known: KnownFiles, settings: PlanSettings
) -> dict[str, tuple[float, float]]:
    """Returns limit -> (limit, value) of exceeded limits, without the bytes of the firmware.

    Bytes are those of the smallest file known, since any fraction can be converted to its format.
    """
    found: dict[str, tuple[float, float]] = {}
    limits = {cost_of_limit(name): (name, limit) for name, limit in budget.limits.items()}
    for name in names if known else ():
        if name not in limits:
            continue
        limit_name, limit = limits[name]
        value = min(c.costs.value(name) for c in (known if name in STORED else known[:1]))
        if value > limit:
            fixed = settings.fixed.get(name, 0)
            found[limit_name] = limit - fixed, value - fixed
    return found


def with_fewer_weights(
    step: RecipeStep, file: Outcome, budget: Budget, settings: PlanSettings
) -> list[RecipeStep]:
    """Returns a step with fewer weights, instead of one whose file is a little too large.

    Args:
        step: The step, with a fraction of the weights.
        file: The candidate of this step.
        budget: The limits.
        settings: The plan's settings.

    Returns:
        The new step; none where no limit on bytes is exceeded, or no fewer weights are possible.
    """
    over = [
        file.costs.value(name) - ROOM * limit
        for name in _STORED
        if (limit := budget.limits.get(f"max_{name}")) and file.costs.value(name) > limit
    ]
    weight_bytes = _BYTES_OF_WEIGHT[file.recipe.mode] * settings.weights
    if not over or not weight_bytes or step.weights is None:
        return []
    fraction = rounded(step.weights - max(over) / weight_bytes, FEWEST)
    return [RecipeStep(step.technique, step.amount, fraction)] if fraction < step.weights else []


def rounded(fraction: float, least: float = LEAST) -> float:
    """Returns a fraction rounded down to hundredths, within the range that is tried.

    Example:
        >>> rounded(0.4567), rounded(0.01)
        (0.45, 0.15)

    Args:
        fraction: The fraction.
        least: The smallest value returned.
    """
    return min(MOST, max(least, math.floor(100 * fraction + 1e-9) / 100))
