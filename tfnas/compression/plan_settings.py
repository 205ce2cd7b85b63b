"""Settings of the plan, derived from the analysis of a model, each with its reason in words.

These are rules, not measurements: each is based on a number of the analysis, names it, and only
orders, leaves out or scales what is tried. Every file is measured afterwards all the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from tfnas.compression.budget import STORED, Budget
from tfnas.compression.effort import Effort
from tfnas.compression.model_analysis import DENSE, PRUNED, ModelAnalysis
from tfnas.compression.recipe import RecipeStep
from tfnas.measure.measure import ACTIVATION_BYTES
from tfnas.quantization.spec import FLOAT, QuantSpec
from tfnas.targets.device import Device

SPARSITIES = (0.6, 0.75, 0.85)
CAREFUL = (0.5, 0.6, 0.75)
SAME = 0.01  # fraction of changed predictions up to which a file counts as unchanged
SENSITIVE = 0.1  # fraction of changed predictions above which pruning begins carefully
MOST_OF_IT = 0.5  # fraction of the weights from which dense layers are compressed first
FLOAT_BYTES = 4
# Bytes of a weight of formats that are not developed further: where these exceed a limit, no such
# file can meet it. Others show what fewer channels start from.
_LEAST_BYTES = {"float32": 4, "float16": 2, "dynamic": 1, "int16x8": 1}
_STORED = {f"max_{name}" for name in STORED}
_COMPUTED = {
    "max_latency_ratio",
    "max_macs",
    "max_memory",
    "max_ram_bytes",
    "max_vela_ms",
    "max_vela_cycles",
    "max_vela_sram_bytes",
}
_OF_DEVICE = ("max_flash_", "max_ram_", "max_vela_")


@dataclasses.dataclass(frozen=True)
class PlanSettings:
    """What the plan tries and in which order, with the reasons.

    Args:
        formats: Number formats without training.
        later: Formats that can't meet the budget, tried only where int8 can't be converted.
        integers: Whether quantization-aware training is tried even where the file is good enough
            without it.
        techniques: Techniques that reduce the model, the most promising first.
        sparsities: Fractions of zeros that are tried, in turn.
        proportional: Fraction of the latency that is proportional to multiply-accumulates; the
            rest is proportional to their square root, as to channels.
        weights: Number of weights in kernels; 0: not known.
        dense: Number of weights in dense layers.
        fixed: Cost -> bytes of it that the firmware takes, whatever the model is.
        reasons: The reasons, a sentence each.
        more: Steps of further techniques, the mildest amount of each first. Where the effort
            trains, they are tried at the end, each alone, as long as no file meets all limits.
        sized: Whether the size of a file is measured before anything is trained for it, in seconds.
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
    reasons: tuple[str, ...] = ()
    more: tuple[RecipeStep, ...] = ()
    sized: bool = False

    def macs_for_latency(self, ratio: float) -> float:
        """Returns the fraction of multiply-accumulates that brings the latency to a ratio.

        Example:
            >>> round(PlanSettings((), proportional=1.0).macs_for_latency(0.5), 2)
            0.5
            >>> round(PlanSettings((), proportional=0.5).macs_for_latency(0.5), 2)
            0.38

        Args:
            ratio: Latency, as a ratio to the original's.
        """
        a, b = self.proportional, 1 - self.proportional
        root = ratio / b if not a else (math.sqrt(b * b + 4 * a * ratio) - b) / (2 * a)
        return min(1.0, root * root)


def decide_plan(
    budget: Budget, effort: Effort, analysis: ModelAnalysis | None, device: Device | None = None
) -> PlanSettings:
    """Returns the settings of the plan; without an analysis, all of the effort in its order.

    Args:
        budget: The limits.
        effort: How much is tried.
        analysis: The analysis of the model.
        device: The device of the files; None: one whose firmware takes no memory.
    """
    device = device or Device()
    fixed = {"flash_bytes": device.runtime_flash, "ram_bytes": device.runtime_ram}
    if analysis is None:
        return PlanSettings(effort.formats, fixed=fixed)
    reasons = tuple(f"not analyzed: {why}" for why in analysis.left_out)
    settings = PlanSettings(effort.formats, fixed=fixed, reasons=reasons)
    settings = _formats(settings, budget, analysis)
    if not effort.epochs:
        return _with(settings, "effort quick: nothing is trained, so only number formats are tried")
    settings = _integers(settings, budget, analysis)
    settings = _techniques(settings, budget, analysis)
    settings = _times(settings, budget, analysis)
    return _sparsities(settings, budget, analysis)


def _with(settings: PlanSettings, reason: str, **changes: object) -> PlanSettings:
    """Returns settings with another reason and the changes that it explains."""
    reasons = (*settings.reasons, reason)
    return dataclasses.replace(settings, reasons=reasons, **changes)  # type: ignore[arg-type]


def _formats(settings: PlanSettings, budget: Budget, analysis: ModelAnalysis) -> PlanSettings:
    """Leaves out formats that must exceed a limit."""
    on_device = any(name.startswith(_OF_DEVICE) for name in budget.limits)
    for mode in settings.formats:
        if mode == "int8":
            continue  # all other files are compared with it
        need = ACTIVATION_BYTES.get(mode, FLOAT_BYTES) * analysis.activations
        if on_device and QuantSpec.of(mode).activations == FLOAT:
            why = "the device has no kernels for integer or half weights with float activations"
        elif budget.max_memory is not None and need > budget.max_memory:
            why = f"its activations take {need:,} bytes, above max_memory {budget.max_memory:,}"
        elif (
            mode in _LEAST_BYTES
            and budget.max_bytes is not None
            and _LEAST_BYTES[mode] * analysis.weights > budget.max_bytes
        ):
            each = "a byte" if _LEAST_BYTES[mode] == 1 else f"{_LEAST_BYTES[mode]} bytes"
            why = f"{analysis.weights:,} weights take {each} each"
            why += f", above max_bytes {budget.max_bytes:,}"
        else:
            continue
        rest = tuple(other for other in settings.formats if other != mode)
        settings = _with(
            settings, f"{mode} is left out: {why}", formats=rest, later=(*settings.later, mode)
        )
    return settings


def _integers(settings: PlanSettings, budget: Budget, analysis: ModelAnalysis) -> PlanSettings:
    if analysis.changed is None:
        return settings
    worst = max(analysis.layers, key=lambda layer: layer.noise or 0.0)
    reason = f"post-training int8 changes {analysis.changed:.1%} of the predictions for "
    reason += f"{analysis.examples} examples"
    if analysis.changed <= SAME:
        if not budget.limits_quality:
            return _with(settings, f"{reason}: quantization-aware training has little to win back")
        reason += ": quantization-aware training is left out where a file is good enough without it"
        return _with(settings, reason, integers=False)
    reason += f", most noise is added in {worst.name}: quantization-aware training is tried too"
    return _with(settings, reason)


def _techniques(settings: PlanSettings, budget: Budget, analysis: ModelAnalysis) -> PlanSettings:
    dense = sum(layer.weights for layer in analysis.layers if layer.group == DENSE)
    fraction = analysis.fraction("weights", DENSE)
    bytes_limited = not _STORED.isdisjoint(budget.limits)
    others_limited = not _COMPUTED.isdisjoint(budget.limits)
    settings = dataclasses.replace(settings, dense=dense, weights=analysis.weights)
    if fraction < MOST_OF_IT:
        name, most = next(iter(analysis.groups("macs").items()))
        reason = f"{most:.0%} of the multiply-accumulates are in {name}, and {fraction:.0%} of the "
        reason += f"weights in {DENSE}: channels are pruned"
        return _with(settings, reason)
    reason = f"{fraction:.0%} of the weights, but {analysis.fraction('macs', DENSE):.0%} of the "
    reason += f"multiply-accumulates, are in {DENSE}: "
    if bytes_limited or not others_limited:
        reason += "their low rank is tried first, channel pruning where that does not suffice"
        return _with(settings, reason, techniques=("factorize_dense", "prune_channels"))
    reason += "their low rank would save bytes, which no limit is on: channels are pruned first"
    return _with(settings, reason, techniques=("prune_channels", "factorize_dense"))


def _times(settings: PlanSettings, budget: Budget, analysis: ModelAnalysis) -> PlanSettings:
    groups = analysis.groups("time")
    if not any(groups.values()):
        return settings
    name, most = next(iter(groups.items()))
    reason = f"{most:.0%} of the int8 file's latency is in {name}"
    if budget.max_latency_ratio is None:
        return _with(settings, reason)
    # Depthwise layers, sums and pools compute per channel, not per pair of channels.
    proportional = sum(
        fraction
        for group, fraction in groups.items()
        if group == DENSE or ("convolutions" in group and "depthwise" not in group)
    )
    reason += (
        f", {proportional:.0%} in layers whose latency is proportional to multiply-accumulates, "
        "the rest to their square root: max_latency_ratio becomes a limit on them by that"
    )
    return _with(settings, reason, proportional=min(1.0, proportional))


def _sparsities(settings: PlanSettings, budget: Budget, analysis: ModelAnalysis) -> PlanSettings:
    known = [layer for layer in analysis.layers if layer.changed is not None]
    if not known:
        return settings
    weights = sum(layer.weights for layer in known) or 1
    mean = sum((layer.changed or 0.0) * layer.weights for layer in known) / weights
    worst = max(known, key=lambda layer: layer.changed or 0.0)
    reason = (
        f"pruning {PRUNED:.0%} of one kernel changes {mean:.1%} of the predictions on average "
        f"(by weights), of {worst.name} most: {worst.changed:.1%}"
    )
    if budget.max_gzip_bytes is None:
        return _with(settings, f"{reason}; zeros save only gzipped bytes, which no limit is on")
    steps: tuple[float, ...] = CAREFUL if mean > SENSITIVE else SPARSITIES
    if mean <= SAME:
        steps = SPARSITIES[1:]
    return _with(settings, f"{reason}: sparsities begin at {steps[0]:.0%}", sparsities=steps)
