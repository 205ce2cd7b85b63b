"""What the plan makes of the first look at a model, every decision with its reason in words.

Rules, not measurements: each rests on a number of the survey, says which, and only orders,
leaves out or scales what is tried. What a file is worth is measured afterwards all the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from tfnas.compression.budget import STORED, Budget
from tfnas.compression.effort import Effort
from tfnas.compression.model_analysis import DENSE, PRUNED, ModelAnalysis
from tfnas.measure.measure import ACTIVATION_BYTES
from tfnas.quantization.spec import FLOAT, QuantSpec
from tfnas.targets.device import Device

SPARSITIES = (0.6, 0.75, 0.85)
CAREFUL = (0.5, 0.6, 0.75)
SAME = 0.01  # share of changed classes up to which a file counts as the same
SENSITIVE = 0.1  # share of changed classes from which pruning begins carefully
MOST_OF_IT = 0.5  # share of a cost from which a group of layers decides
FLOAT_BYTES = 4
_STORED = {f"max_{name}" for name in STORED}
_COMPUTED = {
    *("max_latency_ratio", "max_macs", "max_memory", "max_ram_bytes"),
    *("max_vela_ms", "max_vela_cycles", "max_vela_sram_bytes"),
}
_OF_DEVICE = ("max_flash_", "max_ram_", "max_vela_")


@dataclasses.dataclass(frozen=True)
class PlanReasons:
    """What is tried, and in which order.

    Args:
        formats: Number formats without training.
        later: Those that can't keep the budget, tried only where int8 can't be made.
        integers: Whether training for integers is tried also where the file keeps the drop.
        techniques: What makes the model smaller, the most promising first.
        sparsities: Shares of zeros that are tried, in turn.
        proportional: Share of the time that falls as multiply-accumulates do; the rest falls
            as their root, as channels do.
        weights: Number of weights in kernels; 0: not known.
        dense: Number of weights in dense layers.
        fixed: Cost -> bytes of it that are the firmware's, whatever becomes of the model.
        told: The reasons, a sentence each.
    """

    formats: tuple[str, ...]
    later: tuple[str, ...] = ()
    integers: bool = True
    techniques: tuple[str, ...] = ("prune_channels",)
    sparsities: tuple[float, ...] = SPARSITIES
    proportional: float = 1.0
    weights: int = 0
    dense: int = 0
    fixed: Mapping[str, int] = dataclasses.field(default_factory=dict)
    told: tuple[str, ...] = ()

    def share_for_time(self, ratio: float) -> float:
        """Returns the share of multiply-accumulates that brings the time to a ratio.

        Example:
            >>> round(Decisions((), proportional=1.0).share_for_time(0.5), 2)
            0.5
            >>> round(Decisions((), proportional=0.5).share_for_time(0.5), 2)
            0.38
        """
        a, b = self.proportional, 1 - self.proportional
        root = ratio / b if not a else (math.sqrt(b * b + 4 * a * ratio) - b) / (2 * a)
        return min(1.0, root * root)


def decide_plan(
    budget: Budget, effort: Effort, seen: ModelAnalysis | None, device: Device | None = None
) -> PlanReasons:
    """Returns what is tried; without a look at the model, all of the effort in its order.

    Args:
        budget: The limits.
        effort: How much is tried.
        seen: What was seen of the model.
        device: What files are meant for; None: one whose firmware takes nothing.
    """
    device = device or Device()
    fixed = {"flash_bytes": device.runtime_flash, "ram_bytes": device.runtime_ram}
    if seen is None:
        return PlanReasons(effort.formats, fixed=fixed)
    told = tuple(f"not looked at: {why}" for why in seen.left_out)
    made = PlanReasons(effort.formats, fixed=fixed, told=told)
    made = _formats(made, budget, seen)
    if not effort.epochs:
        return _with(made, "effort quick: nothing is trained, so number formats alone are tried")
    made = _integers(made, budget, seen)
    made = _techniques(made, budget, seen)
    made = _times(made, budget, seen)
    return _sparsities(made, budget, seen)


def _with(made: PlanReasons, told: str, **changes: object) -> PlanReasons:
    return dataclasses.replace(made, told=(*made.told, told), **changes)  # type: ignore[arg-type]


def _formats(made: PlanReasons, budget: Budget, seen: ModelAnalysis) -> PlanReasons:
    """Leaves out what exceeds a limit by arithmetic alone."""
    on_device = any(name.startswith(_OF_DEVICE) for name in budget.limits)
    for mode in made.formats:
        if mode == "int8":
            continue  # what everything else is compared with
        need = ACTIVATION_BYTES.get(mode, FLOAT_BYTES) * seen.activations
        if on_device and QuantSpec.of(mode).activations == FLOAT:
            why = "the device takes no integer or half kernels with float activations"
        elif budget.max_memory is not None and need > budget.max_memory:
            why = f"its activations take {need:,} bytes, above max_memory {budget.max_memory:,}"
        elif (
            mode == "float16"
            and budget.max_bytes is not None
            and 2 * seen.weights > budget.max_bytes
        ):
            why = (
                f"{seen.weights:,} weights take 2 bytes each, above max_bytes {budget.max_bytes:,}"
            )
        else:
            continue
        rest = tuple(other for other in made.formats if other != mode)
        made = _with(made, f"{mode} is left out: {why}", formats=rest, later=(*made.later, mode))
    return made


def _integers(made: PlanReasons, budget: Budget, seen: ModelAnalysis) -> PlanReasons:
    if seen.changed is None:
        return made
    worst = max(seen.layers, key=lambda layer: layer.noise or 0.0)
    told = f"int8 after training changes the class of {seen.changed:.1%} of {seen.images} images"
    if seen.changed <= SAME:
        if budget.max_drop is None:
            return _with(made, f"{told}: little is left for training for integers to bring back")
        told += ": training for integers is left out wherever a file keeps max_drop without it"
        return _with(made, told, integers=False)
    told += f", most noise comes in {worst.name}: files are trained for integers too"
    return _with(made, told)


def _techniques(made: PlanReasons, budget: Budget, seen: ModelAnalysis) -> PlanReasons:
    dense = sum(layer.weights for layer in seen.layers if layer.group == DENSE)
    share = seen.share("weights", DENSE)
    bytes_asked = not _STORED.isdisjoint(budget.limits)
    others = not _COMPUTED.isdisjoint(budget.limits)
    made = dataclasses.replace(made, dense=dense, weights=seen.weights)
    if share < MOST_OF_IT:
        name, most = next(iter(seen.groups("macs").items()))
        told = f"{most:.0%} of the multiply-accumulates are in {name}, and {share:.0%} of the "
        return _with(made, f"{told}weights in {DENSE}: fewer channels make it smaller")
    told = f"{share:.0%} of the weights, but {seen.share('macs', DENSE):.0%} of the "
    told += f"multiply-accumulates, sit in {DENSE}: "
    if bytes_asked or not others:
        told += "low rank of these comes first, fewer channels where that does not suffice"
        return _with(made, told, techniques=("factorize_dense", "prune_channels"))
    told += "low rank of these would save bytes, which are not asked for: fewer channels first"
    return _with(made, told, techniques=("prune_channels", "factorize_dense"))


def _times(made: PlanReasons, budget: Budget, seen: ModelAnalysis) -> PlanReasons:
    groups = seen.groups("time")
    if not any(groups.values()):
        return made
    name, most = next(iter(groups.items()))
    told = f"{most:.0%} of the int8 file's time is in {name}"
    if budget.max_latency_ratio is None:
        return _with(made, told)
    # Depthwise layers, sums and pools compute per channel, not per pair of channels.
    full = sum(
        share
        for group, share in groups.items()
        if group == DENSE or ("convolutions" in group and "depthwise" not in group)
    )
    told += (
        f", {full:.0%} in layers whose time falls as multiply-accumulates do, the rest as their "
        "root: max_latency_ratio is turned into a share of them by that"
    )
    return _with(made, told, proportional=min(1.0, full))


def _sparsities(made: PlanReasons, budget: Budget, seen: ModelAnalysis) -> PlanReasons:
    known = [layer for layer in seen.layers if layer.changed is not None]
    if not known:
        return made
    weights = sum(layer.weights for layer in known) or 1
    mean = sum((layer.changed or 0.0) * layer.weights for layer in known) / weights
    worst = max(known, key=lambda layer: layer.changed or 0.0)
    told = (
        f"a kernel with {PRUNED:.0%} zeros alone changes {mean:.1%} of the classes (by weights), "
        f"{worst.name} most: {worst.changed:.1%}"
    )
    if budget.max_gzip_bytes is None:
        return _with(made, f"{told}; zeros save gzipped bytes alone, which are not asked for")
    steps: tuple[float, ...] = CAREFUL if mean > SENSITIVE else SPARSITIES
    if mean <= SAME:
        steps = SPARSITIES[1:]
    return _with(made, f"{told}: zeros begin at {steps[0]:.0%}", sparsities=steps)
