"""What is tried next: from what the budget asks and what came out so far.

Cheap things first. Formats after training cost seconds; they show what integers alone save and
lose. What the budget still lacks decides on the rest: the share of channels that may stay
follows from the multiply-accumulates, the time, the bytes or what is left of a device, in
proportion to the int8 file; a limit on gzipped bytes asks for zeros and few values. Where the
accuracy is lost, the next share lies half-way back, where plenty is left, further on; a share
that a limit asked for and that meets the budget is enough but for a thorough effort. Where
int8 takes too many bytes, 4-bit weights are trained for. What is beaten beyond doubt in all
that counts is not worked on. What the first look at the model says
(:mod:`tfnas.pipeline.decisions`) orders and scales all that.

The plan is a generator: it gives a recipe and is sent what came of it. It draws no numbers, so
that a job which was killed goes the same way again.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING

from tfnas.pipeline.budget import STORED, Budget
from tfnas.pipeline.decisions import Decisions, decide
from tfnas.pipeline.effort import Effort
from tfnas.pipeline.recipes import Recipe, Step

if TYPE_CHECKING:
    from tfnas.pipeline.candidates import Candidate

Plan = Generator[Recipe, "Candidate | None", None]
Search = Generator[Recipe, "Candidate | None", bool]
Attempt = Generator[Recipe, "Candidate | None", "Candidate | None"]
Known = tuple["Candidate", ...]


VALUES = 16
FEWER_BITS = "int8x4"
ENOUGH = 0.3  # points that int8 may lose before it is worth a training
LEAST, MOST = 0.15, 0.95  # shares that are tried
FEW = 2  # rounds of an effort that stops where the budget is met
MARGIN = 0.95  # of a limit: what does not shrink with the share must have room
_BY_BITS = {"bytes", "flash_bytes"}  # fall with the bits of each
_SHRINKING = (  # fall with channels
    *("latency", "bytes", "memory", "flash_bytes", "ram_bytes"),
    *("vela_ms", "vela_cycles", "vela_sram_bytes", "vela_flash_bytes"),
)


def plan(budget: Budget, effort: Effort, made: Decisions | None = None) -> Plan:
    """Yields recipes; is sent what came of each, None where it could not be made.

    Args:
        budget: The limits.
        effort: How much is tried.
        made: What the look at the model decided; None: nothing was looked at.
    """
    made = made or decide(budget, effort, None)
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
    technique: str, budget: Budget, effort: Effort, known: Known, made: Decisions
) -> Search:
    """Shares of a technique, one after another.

    Args:
        technique: Its name.
        budget: The limits.
        effort: How many shares.
        known: int8 without any technique, and with fewer bits, where these can be made.
        made: What the look at the model decided.

    Returns:
        Whether a file keeps all limits.
    """
    asked, why = _asked_share(technique, budget, known, made)
    shares = list(effort.ladder) if asked is None else [asked]
    tried: dict[float, bool] = {1.0: True}  # share -> whether the accuracy allows it
    met = False
    for _ in range(max(effort.rounds, len(shares))):
        share = shares.pop(0) if shares else _next_share(tried)
        if share is None:
            break
        ended = yield from _trained((Step(technique, share),), budget, why, known, made)
        if ended is None and technique == "shrink" and effort.low_rank:
            why = f"channels can't go to {share:g}"
            steps = (Step("factorize", share),)
            ended = yield from _trained(steps, budget, why, known, made)
        tried[share] = ended is not None and _accurate(budget, ended)
        met = met or (ended is not None and not budget.excesses(ended.costs))
        if ended is None and technique == "thin":
            break  # no other share goes either
        if share == asked and not tried[share]:
            break  # half-way back would break the limit that asks for it
        if share == asked and met and effort.rounds <= FEW:
            break  # all that is asked for is there
        why = "the accuracy allows it" if tried[share] else "half-way back in accuracy"
    return met


def _trained(
    steps: tuple[Step, ...], budget: Budget, why: str, known: Known, made: Decisions
) -> Attempt:
    """int8 after steps; trained for it unless that is hopeless or needless.

    Returns:
        The better of the two, None where the steps could not be taken.
    """
    plain = yield Recipe(steps, "int8", why=why)
    if plain is None:
        return None
    if plain.beaten:
        return plain
    best = plain
    if made.integers or not _accurate(budget, plain):
        aware = yield Recipe(steps, "int8", aware=True, why="what rounding costs comes back")
        best = min((c for c in (plain, aware) if c is not None), key=lambda c: c.costs.drop)
    light = yield from _in_fewer_bits(steps, best, budget, known)
    if budget.max_gzip_bytes is not None and best.costs.gzip_bytes > budget.max_gzip_bytes:
        yield from _for_gzip(budget, steps, "what is left of the channels, compressed", made)
    return light or best


def _in_fewer_bits(
    steps: tuple[Step, ...], best: Candidate, budget: Budget, known: Known
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


def _for_gzip(budget: Budget, steps: tuple[Step, ...], why: str, made: Decisions) -> Plan:
    assert budget.max_gzip_bytes is not None
    for sparsity in made.sparsities:
        more = (*steps, Step("prune", sparsity), Step("cluster", VALUES))
        packed = yield Recipe(more, "int8", aware=True, why=why)
        if packed is None or packed.costs.gzip_bytes <= budget.max_gzip_bytes:
            return


def _asked_share(
    technique: str, budget: Budget, known: Known, made: Decisions
) -> tuple[float | None, str]:
    """The share that the budget asks a technique for, and by which limit."""
    if technique == "thin":
        return _asked_of_dense(budget, known, made)
    shares = {}
    if budget.max_macs is not None:
        shares["max_macs"] = budget.max_macs
    for name, (limit, value) in _exceeded(_SHRINKING, budget, known, made).items():
        ratio = MARGIN * limit / value
        shares[name] = made.share_for_time(ratio) if name == "max_latency" else ratio
    if not shares:
        return None, "fewer channels run faster anywhere"
    name = min(shares, key=lambda key: shares[key])
    return _rounded(shares[name]), f"{name} asks for it"


def _exceeded(
    names: tuple[str, ...], budget: Budget, known: Known, made: Decisions
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


def _asked_of_dense(budget: Budget, known: Known, made: Decisions) -> tuple[float | None, str]:
    """The share of the dense layers' weights, a byte each, that limits on bytes leave them."""
    shares = {
        name: 1 - (value - MARGIN * limit) / max(1, made.dense)
        for name, (limit, value) in _exceeded(STORED, budget, known, made).items()
    }
    if not shares:
        return None, "most of the bytes are in dense layers"
    name = min(shares, key=lambda key: shares[key])
    return _rounded(shares[name]), f"{name} asks for it, and most bytes are in dense layers"


def _next_share(tried: dict[float, bool]) -> float | None:
    """Further on where the smallest allowed share is the smallest tried, else half-way."""
    allowed = min(share for share, fine in tried.items() if fine)
    below = [share for share in tried if share < allowed]
    share = _rounded((allowed + max(below)) / 2 if below else 0.7 * allowed)
    return None if share in tried or share <= LEAST else share


def _rounded(share: float) -> float:
    return min(MOST, max(LEAST, math.floor(100 * share) / 100))


def _accurate(budget: Budget, made: Candidate) -> bool:
    return budget.max_drop is None or made.costs.drop <= budget.max_drop
