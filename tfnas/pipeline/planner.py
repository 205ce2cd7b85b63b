"""What is tried next: from what the budget asks and what came out so far.

Cheap things first. Formats after training cost seconds; they show what integers alone save and
lose. What the budget still lacks decides on the rest: the share of channels that may stay
follows from the multiply-accumulates, the time or the bytes asked for, in proportion to the
int8 file; a limit on gzipped bytes asks for zeros and few values. Where the accuracy is lost,
the next share lies half-way back, where plenty is left, further on. What is beaten beyond
doubt in all that counts is not worked on.

The plan is a generator: it gives a recipe and is sent what came of it. It draws no numbers, so
that a job which was killed goes the same way again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator
from typing import TYPE_CHECKING

from tfnas.pipeline.budget import Budget
from tfnas.pipeline.recipes import Recipe, Step

if TYPE_CHECKING:
    from tfnas.pipeline.candidates import Candidate

Plan = Generator[Recipe, "Candidate | None", None]
Attempt = Generator[Recipe, "Candidate | None", "Candidate | None"]


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is tried.

    Args:
        formats: Number formats without training.
        epochs: Epochs of a step that trains; 0: nothing is trained.
        steps: Optimizer steps of one at least: few examples are seen more often.
        rounds: Shares of channels that are tried.
        ladder: Shares where the budget asks for none.
        low_rank: Whether low rank is tried where channels can't go.
    """

    formats: tuple[str, ...]
    epochs: int
    steps: int = 0
    rounds: int = 0
    ladder: tuple[float, ...] = ()
    low_rank: bool = False


_CHEAP = ("float16", "dynamic", "int8", "int8x4")
EFFORTS = {
    "quick": Effort(_CHEAP, 0),
    "normal": Effort(_CHEAP, 6, 1500, 2, (0.5,)),
    "thorough": Effort((*_CHEAP, "int16x8"), 15, 5000, 4, (0.7, 0.5, 0.35), low_rank=True),
}
SPARSITIES = (0.6, 0.75, 0.85)
VALUES = 16
ENOUGH = 0.3  # points that int8 may lose before it is worth a training
LEAST, MOST = 0.15, 0.95  # shares of channels that are tried


def plan(budget: Budget, effort: Effort) -> Plan:
    """Yields recipes; is sent what came of each, None where it could not be made.

    Args:
        budget: The limits.
        effort: How much is tried.
    """
    found: dict[str, Candidate | None] = {}
    for mode in effort.formats:
        found[mode] = yield Recipe((), mode, why="a number format costs seconds")
    if not effort.epochs:
        return
    base = found.get("int8")
    allowed = math.inf if budget.max_drop is None else budget.max_drop
    if base is None or base.costs.drop > min(ENOUGH, allowed):
        why = "int8 without training loses accuracy"
        base = (yield Recipe((), "int8", aware=True, why=why)) or base
    yield from _with_fewer_channels(budget, effort, base)
    if budget.max_gzip_bytes is not None:
        yield from _for_gzip(budget, (), "zeros and few values compress")


def _with_fewer_channels(budget: Budget, effort: Effort, base: Candidate | None) -> Plan:
    asked, why = _asked_share(budget, base)
    shares = list(effort.ladder) if asked is None else [asked]
    tried: dict[float, bool] = {1.0: True}  # share -> whether the accuracy allows it
    for _ in range(max(effort.rounds, len(shares))):
        share = shares.pop(0) if shares else _next_share(tried)
        if share is None:
            return
        technique = "shrink"
        ended = yield from _trained((Step(technique, share),), budget, why)
        if ended is None and effort.low_rank:
            why = f"channels can't go to {share:g}"
            ended = yield from _trained((Step("factorize", share),), budget, why)
        tried[share] = ended is not None and _accurate(budget, ended)
        if share == asked and not tried[share]:
            return  # half-way back would break the limit that asks for it
        why = "the accuracy allows it" if tried[share] else "half-way back in accuracy"


def _trained(steps: tuple[Step, ...], budget: Budget, why: str) -> Attempt:
    """int8 after steps; trained for it unless that is hopeless or needless.

    Returns:
        The better of the two, None where the steps could not be taken.
    """
    plain = yield Recipe(steps, "int8", why=why)
    if plain is None:
        return None
    if plain.beaten:
        return plain
    aware = yield Recipe(steps, "int8", aware=True, why="what rounding costs comes back")
    best = min((c for c in (plain, aware) if c is not None), key=lambda c: c.costs.drop)
    if budget.max_gzip_bytes is not None and best.costs.gzip_bytes > budget.max_gzip_bytes:
        yield from _for_gzip(budget, steps, "what is left of the channels, compressed")
    return best


def _for_gzip(budget: Budget, steps: tuple[Step, ...], why: str) -> Plan:
    assert budget.max_gzip_bytes is not None
    for sparsity in SPARSITIES:
        more = (*steps, Step("prune", sparsity), Step("cluster", VALUES))
        made = yield Recipe(more, "int8", aware=True, why=why)
        if made is None or made.costs.gzip_bytes <= budget.max_gzip_bytes:
            return


def _asked_share(budget: Budget, base: Candidate | None) -> tuple[float | None, str]:
    """The share of multiply-accumulates that the budget asks for, and by which limit."""
    shares = {}
    if budget.max_macs is not None:
        shares["max_macs"] = budget.max_macs
    if base is not None:
        for name, value in (
            ("max_latency", base.costs.latency),
            ("max_bytes", base.costs.bytes),
            ("max_memory", base.costs.memory),
        ):
            limit = getattr(budget, name)
            if limit is not None and value > limit:
                shares[name] = 0.95 * limit / value
    if not shares:
        return None, "fewer channels run faster anywhere"
    name = min(shares, key=lambda key: shares[key])
    return _rounded(shares[name]), f"{name} asks for it"


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
