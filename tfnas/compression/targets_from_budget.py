"""Targets of techniques, computed from the limits of a budget and the costs of int8 files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tfnas.compression.budget import STORED, Budget, cost_of_limit
from tfnas.compression.known_file import KnownFiles, Outcome
from tfnas.compression.plan_settings import PlanSettings
from tfnas.compression.recipe import RecipeStep

FEWER_BITS = "int8x4"
LEAST, MOST = 0.15, 0.95  # range of fractions that are tried
FEWEST = 0.05  # smallest fraction of weights
MARGIN = 0.95  # of a limit: some costs do not fall with the fraction
ROOM = 0.99  # of a limit on bytes: quantization-aware training adds a few bytes to a file
FINE = 0.02  # of the weights: smaller corrections are in thousandths
CLOSE = 0.97  # of a limit on bytes: a file of more is not made larger
INTERPOLATED = 3  # sizes, from which on fractions are halved
NEXT = 0.004  # least difference of two fractions of the weights whose sizes are measured
HALF = 0.5  # of a limit on bytes, from which the file's structure counts more than its weights
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
        return _steps_of_dense(budget, known, settings)
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
    why = f"demanded by {' and '.join([*computed, *stored])}"
    if technique == "prune_channels" and _mostly_structure(stored, known, settings):
        distinct = [dataclasses.replace(step, equal=True) for step in distinct]
        why += "; equal widths share tables, which take half of the bytes"
    return distinct, why


def _mostly_structure(
    exceeded: dict[str, tuple[float, float]], known: KnownFiles, settings: PlanSettings
) -> bool:
    """Returns whether half of a limit on bytes is for what no removed channel saves.

    These are the file's tables, operators, names and quantization parameters. Tables of equal
    content are written once, which layers of unequal widths have less of.
    """
    weight_bytes = _BYTES_OF_WEIGHT[known[0].recipe.mode] * settings.weights if known else 0.0
    return bool(weight_bytes) and any(
        value > weight_bytes and value - weight_bytes >= HALF * limit
        for name, (limit, value) in exceeded.items()
        if name != "max_vela_flash_bytes"
    )


def _fraction_of_weights(
    name: str, file: Outcome, limit: float, value: float, settings: PlanSettings
) -> float:
    """Returns the fraction of weights within a limit on bytes, if the rest of the file stays."""
    weight_bytes = _BYTES_OF_WEIGHT[file.recipe.mode] * settings.weights
    # Vela encodes weights: its bytes do not follow from their number.
    if not weight_bytes or weight_bytes > value or name == "max_vela_flash_bytes":
        return MARGIN * limit / value
    return (ROOM * limit - (value - weight_bytes)) / weight_bytes


def _steps_of_dense(
    budget: Budget, known: KnownFiles, settings: PlanSettings
) -> tuple[list[RecipeStep], str]:
    """Returns the fractions of dense weights within the limits on bytes, and the reason.

    That of int8 first; one of fewer bits follows where that exceeds the limits as well.
    """
    fractions: list[float] = []
    demanded = list(_exceeded(STORED, budget, known[:1], settings))
    for file in known if demanded else ():
        dense = max(1.0, _BYTES_OF_WEIGHT[file.recipe.mode] * settings.dense)
        exceeded = _exceeded(STORED, budget, (file,), settings).values()
        if exceeded:
            fractions.append(min(1 - (value - MARGIN * limit) / dense for limit, value in exceeded))
    if not demanded:
        return [], "most of the bytes are in dense layers"
    possible = [fraction for fraction in fractions if fraction >= FEWEST] or [FEWEST]
    steps = [RecipeStep("factorize_dense", rounded(each, FEWEST)) for each in possible]
    why = f"demanded by {' and '.join(demanded)}, and most bytes are in dense layers"
    return list(dict.fromkeys(steps)), why


def weights_of(step: RecipeStep, settings: PlanSettings) -> int:
    """Returns the number of weights that a step keeps a fraction of; 0: not known.

    Args:
        step: The step.
        settings: The plan's settings.
    """
    return settings.dense if step.technique == "factorize_dense" else settings.weights


def limits_bytes(budget: Budget) -> bool:
    """Returns whether a limit is on what the size of a file tells.

    Args:
        budget: The limits.
    """
    return bool(_byte_limits(budget))


def _byte_limits(budget: Budget) -> dict[str, float]:
    """Returns cost -> limit, of the limits on what the size of a file tells."""
    limits = budget.limits
    return {name: limits[f"max_{name}"] for name in _STORED if f"max_{name}" in limits}


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
    step: RecipeStep,
    file: Outcome,
    budget: Budget,
    settings: PlanSettings,
    before: Outcome | None = None,
) -> list[RecipeStep]:
    """Returns a step with fewer weights, instead of one whose file is a little too large.

    What a weight takes is measured between two files, since unequal widths share fewer tables;
    where that is less than the format's own bytes, more weights must go.

    Args:
        step: The step, with a fraction of the weights.
        file: The file of this step.
        budget: The limits.
        settings: The plan's settings.
        before: A larger file, of the same format; None: none is known.

    Returns:
        The new step; none where no limit on bytes is exceeded, or no fewer weights are possible.
    """
    weight_bytes = _BYTES_OF_WEIGHT[file.recipe.mode] * weights_of(step, settings)
    if not weight_bytes or step.kept is None:
        return []
    less = []
    for name, limit in _byte_limits(budget).items():
        value, each = file.costs.value(name), weight_bytes
        if value <= limit:
            continue
        if before is not None and (kept := _kept_by(before)) > step.kept:
            measured = (before.costs.value(name) - value) / (kept - step.kept)
            each = min(each, max(measured, each / 2))
        less.append((value - ROOM * limit) / each)
    if not less:
        return []
    digits = 3 if max(less) < FINE else 2
    fraction = rounded(step.kept - max(less), FEWEST, digits)
    return [step.keeping(fraction)] if fraction < step.kept else []


def next_weights(
    sizes: Sequence[Outcome], budget: Budget, settings: PlanSettings
) -> tuple[float, bool]:
    """Returns the fraction of the weights that comes next, so that a file lands under its limits.

    Sizes are interpolated between the largest file that fits and the smallest that does not, then
    the fractions are halved, since widths are whole numbers; on one side of the limits alone, sizes
    fall by what the files measured, or by the bytes of a weight.

    Args:
        sizes: Files of one format and of different fractions, which are measured in seconds.
        budget: The limits.
        settings: The plan's settings.

    Returns:
        The fraction, and whether it is the one to train: the largest that fits, or where none does
        and no smaller one can be tried the smallest.
    """
    loads = sorted((_kept_by(file), bytes_to_limits(file, budget)) for file in sizes)
    fitting = [row for row in loads if row[1] <= 1]
    above = [row for row in loads if row[1] > 1 and (not fitting or row[0] > fitting[-1][0])]
    kept, load = fitting[-1] if fitting else above[0]
    if fitting and (load >= CLOSE or (above and above[0][0] - kept < 2 * NEXT)):
        return kept, True
    slope = _slope(loads, budget, sizes[-1], settings)
    if fitting and above:
        slope = (above[0][1] - load) / (above[0][0] - kept)
    fraction = kept + (ROOM - load) / slope if slope > 0 else kept
    if fitting and above and len(loads) > INTERPOLATED:
        fraction = (kept + above[0][0]) / 2
    if fitting:
        highest = above[0][0] - NEXT if above else MOST
        fraction = min(highest, max(kept + NEXT, fraction))
    fraction = rounded(fraction, FEWEST, 3)
    known = any(abs(fraction - other) < 1e-9 for other, _ in loads)
    return (kept, True) if known else (fraction, False)


def largest_fitting(sizes: Sequence[Outcome], budget: Budget) -> float:
    """Returns the largest fraction of the weights whose file fits, else the smallest.

    Args:
        sizes: Files of different fractions.
        budget: The limits.
    """
    fitting = [_kept_by(file) for file in sizes if bytes_to_limits(file, budget) <= 1]
    return max(fitting) if fitting else min(map(_kept_by, sizes))


def bytes_to_limits(file: Outcome, budget: Budget) -> float:
    """Returns the bytes of a file as a fraction of their limit, of the strictest one.

    Args:
        file: The file.
        budget: The limits, of which one at least is on bytes.
    """
    return max(file.costs.value(name) / limit for name, limit in _byte_limits(budget).items())


def _slope(
    loads: Sequence[tuple[float, float]], budget: Budget, file: Outcome, settings: PlanSettings
) -> float:
    """Returns by how much a load falls with the fraction of the weights."""
    least = min(_byte_limits(budget).values())
    each = _BYTES_OF_WEIGHT[file.recipe.mode] * weights_of(file.recipe.steps[0], settings) / least
    if len(loads) < 2:
        return each
    (low, first), (high, last) = loads[:2] if loads[0][1] > 1 else loads[-2:]
    return min(2 * each, max(each / 2, (last - first) / (high - low)))


def _kept_by(file: Outcome) -> float:
    """Returns the fraction of the weights that a file's recipe keeps."""
    steps = file.recipe.steps
    return 1.0 if not steps or steps[0].kept is None else steps[0].kept


def rounded(fraction: float, least: float = LEAST, digits: int = 2) -> float:
    """Returns a fraction rounded down, to hundredths by default, within the range that is tried.

    Example:
        >>> rounded(0.4567), rounded(0.01), rounded(0.4567, digits=3)
        (0.45, 0.15, 0.456)

    Args:
        fraction: The fraction.
        least: The smallest value returned.
        digits: Number of decimals.
    """
    scale = 10**digits
    return min(MOST, max(least, math.floor(scale * fraction + 1e-9) / scale))
