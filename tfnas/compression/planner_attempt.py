"""What the planner tries with one amount of a technique: int8, then training that may help."""

from __future__ import annotations

import dataclasses
import typing

from tfnas.compression.budget import cost_of_limit
from tfnas.compression.known_file import KnownFile
from tfnas.compression.planner_state import Attempt, AttemptPart, PlannerState
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.targets_from_budget import FEWER_BITS, weights_of
from tfnas.quantization.spec import QuantSpec

VALUES = 16
WHY_SIZE = "the size of its file, before anything is trained"
SLIGHTLY = 0.1  # fraction of a limit, where no number of weights is known to estimate bytes by
_BY_BITS = {"bytes", "flash_bytes"}  # costs that fall with the bits of a weight
# Without training some of the 4-bit weights keep 8 bits, with training none: a fraction of bytes.
_LEAST = 1 / (1 + QuantSpec().eight_bit_share)
_PARTS: tuple[AttemptPart, ...] = typing.get_args(AttemptPart)


def next_part(state: PlannerState, attempt: Attempt) -> tuple[Attempt, Recipe | None]:
    """Returns an attempt at the next part that may help, and the recipe of this part.

    Args:
        state: The state of the plan.
        attempt: The attempt.

    Returns:
        The attempt, and its recipe; None where the attempt has ended.
    """
    for part in _PARTS[_PARTS.index(attempt.part) : -1]:
        recipe = _recipe_of(part, state, attempt)
        if recipe is not None:
            return dataclasses.replace(attempt, part=part), recipe
    return dataclasses.replace(attempt, part="ended"), None


def _recipe_of(part: AttemptPart, state: PlannerState, attempt: Attempt) -> Recipe | None:
    """Returns the recipe of a part, None where it can't help."""
    steps, best = attempt.steps, attempt.best
    if part == "size":
        mode, aware = sized_form(state, attempt.narrow, attempt.trained_form)
        return Recipe(steps, mode, aware, untrained=True, why=WHY_SIZE)
    if part == "int8":
        return Recipe(steps, "int8", why=attempt.why)
    if best is None:
        return None
    if part == "fewer bits":
        return fewer_bits_recipe(state, steps, best, attempt.narrow)
    if part == "zeros":
        limit = state.budget.max_gzip_bytes
        if limit is None or best.costs.gzip_bytes <= limit:
            return None
        why = "prune and cluster the remaining channels"
        return zeros_recipe(steps, attempt.sparsities, why)
    if state.exceeded(best) and (part == "longer" or not attempt.trained_fits):
        return None  # training for int8 is not known to make the file small enough
    return _training(part, state, attempt, best)


def sized_form(state: PlannerState, narrow: bool, trained_form: bool | None) -> tuple[str, bool]:
    """Returns the number format whose size is measured, and whether it is trained for that.

    Args:
        state: The state of the plan.
        narrow: Whether the amount is for 4-bit weights.
        trained_form: Whether the file is trained for int8; None: by the settings.
    """
    trained = state.settings.integers if trained_form is None else trained_form
    return (FEWER_BITS, True) if narrow else ("int8", trained)


def _training(
    part: AttemptPart, state: PlannerState, attempt: Attempt, best: KnownFile
) -> Recipe | None:
    """Returns the recipe of a part that trains for int8, or shows whether this may help.

    Longer training comes first, unless the uncompressed model needed quantization-aware training:
    then rounding is what loses. Where far too much is lost, the file with float activations tells
    rounding from the missing channels, and costs no training.
    """
    steps, missed, too_large = attempt.steps, state.missed(best), bool(state.exceeded(best))
    base = state.converted("int8")
    rounding_loses = attempt.trained_form is not False and (
        state.trained is not None
        or (base is not None and bool(state.exceeded(base)) and state.rounding_loses)
    )
    tolerance, longer = state.tolerance, _longer(steps, state.effort.longer)
    if part == "float" and not rounding_loses and state.hopeless(best):
        if "dynamic" not in (*state.settings.formats, *state.settings.later):
            return None
        return Recipe(steps, "dynamic", why="whether rounding is what loses far too much")
    least = 0.0 if attempt.trained_form is False else tolerance.little  # else rounding may be all
    if part == "longer" and not rounding_loses and least < missed <= tolerance.hopeless:
        return Recipe(longer, "int8", why="longer training wins more back")
    if attempt.trained_form is False:
        return None  # the file trained for int8 is known to be far too large
    limit, lost = state.budget.max_gzip_bytes, best.costs.drop
    if limit is not None and best.costs.gzip_bytes > limit and attempt.sparsities:
        return None  # zeros are trained for int8 as well
    if part == "aware" and too_large:
        why = "slightly too large: trained for int8 a kernel has one scale, not one a channel"
        return Recipe(steps, "int8", aware=True, why=why)
    if part == "aware" and ((state.settings.integers and lost > attempt.enough) or missed > 0):
        return Recipe(steps, "int8", aware=True, why="wins back what rounding loses")
    if part == "longer aware" and steps != longer and 0 < missed <= tolerance.hopeless:
        why = "slightly too much is lost: longer training, then quantization-aware again"
        return Recipe(longer, "int8", aware=True, why=why)
    return None


def _longer(steps: tuple[RecipeStep, ...], times: float) -> tuple[RecipeStep, ...]:
    """Returns steps with longer training as the last one, which it may be already."""
    train = RecipeStep("train", times)
    return steps if steps[-1] == train else (*steps, train)


def with_outcome(state: PlannerState, attempt: Attempt, file: KnownFile | None) -> Attempt:
    """Returns an attempt after the outcome of its part.

    Args:
        state: The state of the plan.
        attempt: The attempt.
        file: The outcome; None where the recipe failed.
    """
    part = attempt.part
    following = _PARTS[_PARTS.index(part) + 1]
    if part == "size":
        return _after_size(attempt, file, following)
    if part == "int8":
        return _first_outcome(state, attempt, file, following)
    if part == "zeros":
        left = sparsities_left(state, attempt.sparsities, file)
        best = file if state.meets(file) else attempt.best
        return dataclasses.replace(attempt, sparsities=left, best=best)
    if part == "float" and file is not None and state.hopeless(file):
        return dataclasses.replace(attempt, part="ended")  # the missing channels lose it
    attempt = dataclasses.replace(attempt, part=following)
    if part == "float":
        return attempt
    if part == "fewer bits":
        return dataclasses.replace(attempt, low_bits=file if state.meets(file) else None)
    steps = attempt.steps
    if part.startswith("longer"):
        steps = _longer(steps, state.effort.longer)
    return dataclasses.replace(attempt, steps=steps, best=_better(state, attempt.best, file))


def _first_outcome(
    state: PlannerState, attempt: Attempt, file: KnownFile | None, following: AttemptPart
) -> Attempt:
    """Returns an attempt after its first file, which ends it where training can't help."""
    attempt = dataclasses.replace(attempt, part=following, best=file)
    if file is None or file.beaten:
        return dataclasses.replace(attempt, part="ended")
    if not state.exceeded(file) or attempt.trained_fits or _for_fewer_bits(state, attempt, file):
        return attempt
    return dataclasses.replace(attempt, part="ended", too_large=file)


def _after_size(attempt: Attempt, file: KnownFile | None, following: AttemptPart) -> Attempt:
    """Returns an attempt after the size of its file: ended, unless the size is not known."""
    part: AttemptPart = following if file is None else "ended"
    return dataclasses.replace(attempt, part=part, size=file)


def _for_fewer_bits(state: PlannerState, attempt: Attempt, file: KnownFile) -> bool:
    """Returns whether a file is too large for int8, but not for 4 bits.

    One that was estimated to fit is not: it keeps slightly fewer weights instead.
    """
    if fewer_bits_recipe(state, attempt.steps, file, attempt.narrow) is None:
        return False
    if state.settings.sized and attempt.steps[0].kept is not None:
        return attempt.narrow
    if not state.settings.weights:
        return max(state.exceeded(file).values()) > SLIGHTLY
    return keeps_too_much(state, attempt.steps[0])


def keeps_too_much(state: PlannerState, step: RecipeStep) -> bool:
    """Returns whether a step keeps more weights than a limit has room for with a byte each.

    By the same estimate that demands amounts: a file without some channels may be smaller.

    Args:
        state: The state of the plan.
        step: The first step of an attempt.
    """
    known, weights = state.known, weights_of(step, state.settings)
    if len(known) < 2 or not weights:
        return False
    saved = 0.0 if step.kept is None else weights * (1 - step.kept)
    limits = ((name, state.budget.limits.get(f"max_{name}")) for name in _BY_BITS)
    return any(
        limit is not None and known[0].costs.value(name) - saved > limit for name, limit in limits
    )


def _better(
    state: PlannerState, one: KnownFile | None, other: KnownFile | None
) -> KnownFile | None:
    """Returns the file that meets all limits, or fits, or loses less; else the first."""
    if one is None or other is None:
        return one or other

    def ranked(file: KnownFile) -> tuple[bool, bool, float]:
        return not state.meets(file), bool(state.exceeded(file)), file.costs.drop

    return min((one, other), key=ranked)


def fewer_bits_recipe(
    state: PlannerState, steps: tuple[RecipeStep, ...], best: KnownFile, fits: bool = False
) -> Recipe | None:
    """Returns the recipe that trains 4-bit weights.

    Args:
        state: The state of the plan.
        steps: The steps before it.
        best: The int8 file after these steps.
        fits: Whether 4-bit weights are known to meet the limits on bytes.

    Returns:
        The recipe; None unless int8 exceeds limits on bytes alone, and 4 bits would meet these.
    """
    over = {cost_of_limit(name) for name in state.budget.excesses(best.costs)}
    known = state.known
    if len(known) < 2 or not over or not over <= _BY_BITS:
        return None
    for name in () if fits else over:
        fraction = _LEAST * known[1].costs.value(name) / known[0].costs.value(name)
        if fraction * best.costs.value(name) > state.budget.limits[f"max_{name}"]:
            return None
    why = "int8 takes too many bytes, and 4-bit weights about half of them"
    return Recipe(steps, FEWER_BITS, aware=True, why=why)


def zeros_recipe(
    steps: tuple[RecipeStep, ...], sparsities: tuple[float, ...], why: str
) -> Recipe | None:
    """Returns the recipe that prunes and clusters weights.

    Args:
        steps: The steps before it.
        sparsities: Fractions of zeros, the next one first.
        why: The reason.

    Returns:
        The recipe; None where no fraction is left.
    """
    if not sparsities:
        return None
    more = RecipeStep("prune", sparsities[0]), RecipeStep("cluster", VALUES)
    return Recipe((*steps, *more), "int8", aware=True, why=why)


def sparsities_left(
    state: PlannerState, sparsities: tuple[float, ...], file: KnownFile | None
) -> tuple[float, ...]:
    """Returns the fractions of zeros to try after an outcome: none where it failed or sufficed.

    Args:
        state: The state of the plan.
        sparsities: The fractions, that of the outcome first.
        file: The outcome; None where the recipe failed.
    """
    limit = state.budget.max_gzip_bytes
    if file is None or limit is None or file.costs.gzip_bytes <= limit:
        return ()
    return sparsities[1:]
