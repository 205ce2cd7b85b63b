"""Candidates of recipes, kept on disk so that a job that was killed continues."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil

import keras
import numpy as np

from tfnas.compression.budget import Budget, CandidateCosts
from tfnas.compression.device_costs import Target
from tfnas.compression.model_analysis import ModelAnalysis, analyze_model
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.techniques.recipe_steps import CALIBRATION, NotPossible, StepRunner
from tfnas.data.data_split import DataSplit
from tfnas.data.reading import spread
from tfnas.loading import load_model
from tfnas.measure.accuracy import correct, paired_difference
from tfnas.measure.latency import benchmark
from tfnas.measure.measure import ACTIVATION_BYTES
from tfnas.measure.measurement import pareto_front
from tfnas.measure.profile import Profile, profile
from tfnas.runtime.files import save_model, write_atomically
from tfnas.search_space.json_records import parse_json_object
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.convert import to_tflite

ROUNDS = 20  # of the latency measurement of each new file
_APART = ("device", "refused")  # costs that depend on the device: kept in `device.json`


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A file with its costs.

    Args:
        recipe: Its recipe.
        file: The file.
        costs: Its costs; the drop of accuracy on the images for choosing.
        drop: Points lost on those, with their 95% interval: (value, low, high).
        right: Whether each of those images was classified right, (examples,).
        beaten: Whether another candidate is as small and fast and significantly more accurate.
    """

    recipe: Recipe
    file: Artifact
    costs: CandidateCosts
    drop: tuple[float, float, float]
    right: np.ndarray = dataclasses.field(repr=False)
    beaten: bool = False

    @property
    def points(self) -> str:
        """Accuracy minus the original's in points, as text with its 95% interval."""
        value, low, high = self.drop
        return f"{0 - value:+.2f} [{0 - high:+.2f}, {0 - low:+.2f}]"  # no minus before 0.00

    def row(self, gzipped: bool, timed: bool = True) -> tuple[float, ...]:
        """Returns the values to compare candidates by, smaller is better: drop, size, time.

        After these come the device's limited metrics.

        Args:
            gzipped: Whether sizes are those after gzip.
            timed: Whether the time is the measured latency; else multiply-accumulates, which are
                the same each time.
        """
        size = self.costs.gzip_bytes if gzipped else self.costs.bytes
        time = self.costs.latency if timed else self.costs.macs
        return self.costs.drop, size, time, *self.costs.device.values()


def front(candidates: list[Candidate], gzipped: bool) -> list[Candidate]:
    """Returns the Pareto front: candidates that no other dominates.

    Args:
        candidates: The candidates.
        gzipped: Whether sizes are those after gzip.
    """
    rows = [candidate.row(gzipped) for candidate in candidates]
    return [candidates[i] for i in pareto_front(rows, ["min"] * len(rows[0]))] if rows else []


def beaten(
    right: np.ndarray,
    row: tuple[float, ...],
    others: list[Candidate],
    gz: bool,
    timed: bool = True,
) -> bool:
    """Returns whether another candidate is as small and fast and significantly more accurate.

    Args:
        right: Whether each image was classified right, (examples,).
        row: The candidate's :meth:`Candidate.row`.
        others: The other candidates.
        gz: Whether sizes are those after gzip.
        timed: Whether the time is the measured latency.
    """
    return any(
        all(a <= b for a, b in zip(other.row(gz, timed)[1:], row[1:], strict=True))
        and paired_difference(other.right, right)[1] > 0
        for other in others
    )


def best_for_budget(candidates: list[Candidate], budget: Budget) -> Candidate:
    """Returns the candidate that meets a budget best, or the one nearest to it.

    With a limit on the drop it is the one of least size x latency among those that meet all
    limits; without, the most accurate of them. Where none meets all, the one whose excesses add
    up to the least.

    Args:
        candidates: At least one.
        budget: The limits.
    """
    gzipped = budget.max_gzip_bytes is not None
    meeting = [c for c in candidates if not budget.excesses(c.costs)]
    if not meeting:
        return min(candidates, key=lambda c: sum(budget.excesses(c.costs).values()))
    if budget.max_drop is None:
        return min(meeting, key=lambda c: c.costs.drop)
    return min(meeting, key=lambda c: c.row(gzipped)[1] * c.costs.latency)


def _on_device(costs: CandidateCosts) -> str:
    if costs.refused:
        return f", the device can't run it: {costs.refused}"
    return "".join(f", {name} {text}" for name, text in costs.device_texts().items())


class CandidateStore:
    """Builds and measures candidates in a folder, and reads those that are there already.

    Args:
        runner: Applies the steps of a recipe to the model.
        folder: Folder of models and candidates.
        gzipped: Whether sizes are compared after gzip.
        target: The device of the files.
        timed: Whether candidates are compared by measured latency: then a job of the same seed
            may take other steps.
    """

    def __init__(
        self, runner: StepRunner, folder: pathlib.Path, gzipped: bool, target: Target, timed: bool
    ) -> None:
        self.timed = timed
        self.runner, self.folder, self.gzipped, self.target = runner, folder, gzipped, target
        self.baseline = to_tflite(runner.original)
        self.right = self._right(self.baseline)
        self.profile = profile(runner.original)
        self.candidates: list[Candidate] = []
        self.failures: dict[str, str] = {}

    @property
    def split(self) -> DataSplit:
        """The data."""
        return self.runner.split

    @functools.cached_property
    def int8(self) -> Artifact | None:
        """The original's post-training int8 file; None where it can't be converted."""
        with contextlib.suppress(ConversionError):
            return to_tflite(self.runner.original, "int8", self._calibration())
        return None

    def analyze_model(self, pruning: bool) -> ModelAnalysis:
        """Returns the analysis of the original, that of an earlier run where it measured as much.

        Latencies differ from run to run; the first analysis is kept, so that a job that was
        killed takes the same steps again.

        Args:
            pruning: Whether the sensitivity to pruning is measured.
        """
        path = self.folder / "model_analysis.json"
        if path.exists():
            before = ModelAnalysis.from_json(path.read_text())
            if before.pruned or not pruning:
                return before
        analysis = analyze_model(self.runner.original, self.int8, self.split.x_val, pruning)
        write_atomically(path, analysis.to_json())
        return analysis

    def make(self, recipe: Recipe) -> Candidate | None:
        """Builds and measures the candidate of a recipe.

        Args:
            recipe: The recipe.

        Returns:
            The candidate; None where a technique or the converter refuses the model, then
            `failures` has the reason.
        """
        folder = self._folder_of(recipe)
        progress = self.runner.progress
        try:
            if (folder / "record.json").exists():
                candidate = self._read(recipe, folder)
                progress.phase(f"{recipe}: read, built before")
            else:
                progress.phase(f"{recipe}: {recipe.why}" if recipe.why else str(recipe))
                candidate = self._build(recipe, folder)
        except (ConversionError, NotPossible) as error:
            self.failures[str(recipe)] = str(error)
            progress.phase(f"{recipe}: not possible: {error}")
            return None
        costs = self.target.costs(candidate.costs, candidate.file, folder)
        candidate = dataclasses.replace(candidate, costs=costs)
        row = candidate.row(self.gzipped, self.timed)
        dominated = beaten(candidate.right, row, self.candidates, self.gzipped, self.timed)
        candidate = dataclasses.replace(candidate, beaten=dominated)
        self.candidates.append(candidate)
        progress.phase(f"  {self.line(candidate)}")
        return candidate

    def _folder_of(self, recipe: Recipe) -> pathlib.Path:
        return self.folder / "candidates" / f"{recipe.key}{self._epochs(recipe.trains)}"

    def model_of(self, recipe: Recipe) -> keras.Model:
        """Returns the Keras model behind a candidate's file."""
        return load_model(self._folder_of(recipe) / "model.keras")

    def retimed(self, measured: list[Candidate], ratios: list[float]) -> list[Candidate]:
        """Returns candidates with latencies that were measured side by side.

        Args:
            measured: Some of `candidates`; these are replaced there too.
            ratios: Latency of each, as a ratio to the original's float32 file.
        """
        renewed = [
            dataclasses.replace(each, costs=dataclasses.replace(each.costs, latency=ratio))
            for each, ratio in zip(measured, ratios, strict=True)
        ]
        replacements = dict(zip(map(id, measured), renewed, strict=True))
        self.candidates = [replacements.get(id(each), each) for each in self.candidates]
        return renewed

    def line(self, candidate: Candidate) -> str:
        """Returns a candidate in one line."""
        costs = candidate.costs
        return (
            f"{candidate.recipe}: {candidate.points} points, "
            f"{costs.bytes:,} bytes ({costs.gzip_bytes:,} gzipped), {costs.latency:.3f}x the time"
            f"{_on_device(costs)}{', worse than another' if candidate.beaten else ''}"
        )

    def _build(self, recipe: Recipe, folder: pathlib.Path) -> Candidate:
        model = self._model(recipe.steps)
        cost = profile(model)
        if recipe.aware:
            kept = tuple(step.technique for step in recipe.steps)
            model = self.runner.aware(model, recipe.mode, kept)
            file = to_tflite(model, recipe.mode)
        elif recipe == Recipe((), "int8") and self.int8 is not None:
            file = self.int8
        else:
            file = to_tflite(model, recipe.mode, self._calibration())
        file = file.minified()
        right = self._right(file)
        old, new = benchmark([self.baseline, file], rounds=ROUNDS)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file.save(folder / "model.tflite")
        save_model(model, folder / "model.keras")
        np.save(folder / "right.npy", right, allow_pickle=False)
        costs, drop = self._costs(file, right, new.ratio / old.ratio, cost)
        own = {name: v for name, v in dataclasses.asdict(costs).items() if name not in _APART}
        record = {"recipe": str(recipe), "costs": own, "drop": drop}
        # Written last: a candidate without it is built again.
        write_atomically(folder / "record.json", json.dumps(record, indent=1))
        return Candidate(recipe, file, costs, drop, right)

    def _read(self, recipe: Recipe, folder: pathlib.Path) -> Candidate:
        record = parse_json_object((folder / "record.json").read_text(), "record")
        file = Artifact.load(folder / "model.tflite")
        right = np.load(folder / "right.npy", allow_pickle=False)
        value, low, high = record["drop"]
        return Candidate(recipe, file, CandidateCosts(**record["costs"]), (value, low, high), right)

    def _model(self, steps: tuple[RecipeStep, ...]) -> keras.Model:
        """Returns the float model after some steps."""
        if not steps:
            return self.runner.original
        key = Recipe(steps, "float").key
        path = self.folder / "models" / f"{key}{self._epochs(True)}.keras"
        if not path.exists():
            save_model(self.runner.apply(self._model(steps[:-1]), steps[-1]), path)
        return load_model(path)

    def _calibration(self) -> np.ndarray:
        return spread(self.split.x_train, CALIBRATION)

    def _epochs(self, trains: bool) -> str:
        return f"-{self.runner.settings.epochs}_epochs" if trains else ""

    def _right(self, file: Artifact) -> np.ndarray:
        return correct(self.split.y_val, file.predict(self.split.x_val))

    def _costs(
        self, file: Artifact, right: np.ndarray, latency: float, cost: Profile
    ) -> tuple[CandidateCosts, tuple[float, float, float]]:
        value, low, high = (100 * v for v in paired_difference(self.right, right))
        memory = cost.peak_activation_bytes(ACTIVATION_BYTES.get(file.mode, 4))
        macs = cost.macs / max(1, self.profile.macs)
        return CandidateCosts(value, file.size, file.gzip_size, latency, macs, memory), (
            value,
            low,
            high,
        )
