"""Epochs that `compress` plans to train, for models whose outcomes follow from formulas.

    python tests/planned_epochs.py

The formulas have the numbers of MLPerf Tiny's ResNet8 (benchmarks/results/compress_resnet8.json):
its weights and the bytes of its structure, what pruned channels lose after so many epochs, what
rounding adds and what quantization-aware training wins back. Other models are more and less
sensitive. They compare two planners; what a real model loses they can't tell.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

from tfnas.compression.budget import Budget, CandidateCosts, relative_loss
from tfnas.compression.choice import best_for_budget
from tfnas.compression.effort import EFFORTS
from tfnas.compression.known_file import KnownFile
from tfnas.compression.model_analysis import DENSE, LayerAnalysis, ModelAnalysis
from tfnas.compression.plan_settings import decide_plan
from tfnas.compression.planner import first_state, next_step
from tfnas.compression.recipe import Recipe
from tfnas.compression.techniques.registry import technique
from tfnas.compression.tolerance import Tolerance
from tfnas.tasks.assessment import ACCURACY

BASELINE = 0.9  # accuracy of the original
EPOCHS = 6  # of a step, for ResNet8 with effort "normal"
WEIGHTS, STRUCTURE = 77_000, 12_800  # bytes of an int8 file: 89,800
BYTES = {"float16": 2.0, "int8x4": 0.5}  # of a weight; else 1


@dataclasses.dataclass(frozen=True)
class Model:
    """How a model reacts.

    Args:
        cut: Factor of what pruned channels lose.
        rounding: Points that int8 loses without training for it.
        narrow: Further points that int8 loses with fewer channels.
        unequal: Bytes that unequal widths add to a file.
        aware: Bytes that quantization-aware training adds; below 0: that it saves.
        channels: Bytes of the structure that are those of channels.
    """

    cut: float
    rounding: float = 0.05
    narrow: float = 0.25
    unequal: int = 0
    aware: int = 550
    channels: int = 0

    def outcome(self, recipe: Recipe) -> KnownFile:
        """Returns the file of a recipe."""
        macs, weights, epochs, zeros = 1.0, 1.0, 0.0, 0.0
        for step in recipe.steps:
            if step.technique in ("prune_channels", "factorize_dense"):
                macs, weights = step.amount, step.kept or step.amount**0.8
                epochs = epochs_of(step.technique)
            elif step.technique == "train":
                epochs += EPOCHS * step.amount
            elif step.technique == "prune":
                zeros = step.amount
        drop = 2.0 * zeros**3
        if epochs:
            drop += self.cut * (1.2 * (1 - macs) + 1.6 * (1 - weights)) * (0.5 + 6.0 / epochs)
        if recipe.mode == "int8":
            drop += (self.rounding + self.narrow * bool(epochs)) * (0.15 if recipe.aware else 1.0)
        if recipe.mode == "int8x4":
            drop += 0.8 if recipe.aware else 30.0
        size = int(STRUCTURE + WEIGHTS * weights * BYTES.get(recipe.mode, 1.0))
        size += self.aware * recipe.aware - int(self.channels * (1 - weights**0.5))
        size += self.unequal * any(step.weights and not step.equal for step in recipe.steps)
        latency = 0.5 * (0.8 * macs + 0.2 * macs**0.5)
        gz = int(0.8 * size * (1 - 0.75 * zeros))
        costs = CandidateCosts(round(drop, 4), size, gz, latency, macs, int(64_000 * macs))
        quality = BASELINE - costs.drop / 100
        lost = relative_loss(quality, BASELINE, higher_is_better=True)
        if recipe.untrained:
            costs = dataclasses.replace(costs, drop=math.nan, latency=math.nan)
            return KnownFile(recipe, costs)
        return KnownFile(recipe, dataclasses.replace(costs, quality=quality, relative_loss=lost))


MODELS = {
    "ResNet8": Model(1.0),
    "robust": Model(0.2, narrow=0.1),
    "fragile": Model(5.0),
    "worse in int8": Model(0.6, rounding=1.2),
}
BUDGETS: Mapping[str, Mapping[str, float]] = {
    "half of bytes and MACs": {"max_drop": 1.22, "max_bytes": 49_248, "max_macs": 0.5},
    "half of the MACs": {"max_drop": 1.0, "max_macs": 0.5},
    "a point": {"max_drop": 1.0},
    "bytes": {"max_drop": 1.5, "max_bytes": 60_000},
    "few bytes": {"max_drop": 1.0, "max_bytes": 25_000},
    "time": {"max_drop": 1.0, "max_latency_ratio": 0.3},
    "gzipped bytes": {"max_drop": 2.0, "max_gzip_bytes": 40_000},
    "bytes alone": {"max_bytes": 50_000},
}


def epochs_of(name: str) -> int:
    """Returns the epochs of a technique's step."""
    return round(technique(name).epochs_scale * EPOCHS)


def planned_epochs(recipes: Iterable[Recipe]) -> int:
    """Returns the epochs that candidates train; steps that several begin with are trained once."""
    trained: dict[tuple[object, ...], int] = {}
    for recipe in recipes:
        if recipe.untrained:
            continue
        for count, step in enumerate(recipe.steps, 1):
            times = step.amount if step.technique == "train" else 1.0
            trained[recipe.steps[:count]] = round(times * epochs_of(step.technique))
        if recipe.aware:
            trained[(*recipe.steps, recipe.mode)] = epochs_of("qat")
    return sum(trained.values())


def analysis() -> ModelAnalysis:
    """Returns what is measured of a model before it is compressed."""
    layers = (
        LayerAnalysis("conv", "3x3 convolutions", 12_000_000, WEIGHTS - 640, 0.8, 0.02, 0.05),
        LayerAnalysis("head", DENSE, 640, 640, 0.05, 0.001, 0.05),
    )
    return ModelAnalysis(layers, 64_000, 0.03, 128, pruned=True)


def planned(
    model: Model, limits: Mapping[str, float], effort: str = "normal", **changes: object
) -> tuple[list[KnownFile], KnownFile]:
    """Returns the files that are tried, and the one that is chosen.

    Args:
        model: The model.
        limits: The budget.
        effort: How much is tried.
        **changes: Changed settings of the plan.
    """
    budget = Budget.of(limits)
    tolerance = Tolerance.of(ACCURACY, BASELINE, budget)
    plan = decide_plan(budget, EFFORTS[effort], analysis())
    plan = dataclasses.replace(plan, **changes)  # type: ignore[arg-type]
    state, recipe = next_step(first_state(budget, EFFORTS[effort], plan, tolerance=tolerance), None)
    files = []
    while recipe is not None:
        file = model.outcome(recipe)
        files.append(file)
        state, recipe = next_step(state, file)
    trained = [file for file in files if not file.recipe.untrained]
    return files, best_for_budget(trained, budget, tolerance)


def rows(show: Callable[[str], object] = print) -> dict[str, tuple[int, str, float, bool]]:
    """Returns and shows (epochs, chosen, its drop, whether it keeps the budget) of each case."""
    found = {}
    for name, model in MODELS.items():
        for words, limits in BUDGETS.items():
            files, best = planned(model, limits, sized=True)
            epochs = planned_epochs(file.recipe for file in files)
            kept = not Budget.of(limits).excesses(best.costs)
            found[f"{name}, {words}"] = epochs, str(best.recipe), best.costs.drop, kept
            show(f"{name}, {words}: {epochs}, {best.recipe}, {best.costs.drop}, {kept}")
    show(f"epochs: {sum(row[0] for row in found.values())}")
    return found


if __name__ == "__main__":
    rows()
