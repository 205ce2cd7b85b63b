"""Candidates of recipes, kept on disk so that a job that was killed continues."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import shutil

import keras
import numpy as np

from tfnas.compression.budget import Budget, CandidateCosts
from tfnas.compression.device_costs import Target
from tfnas.compression.fine_tune import TrainingError
from tfnas.compression.model_analysis import ModelAnalysis, analyze_model
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.technique_context import Context
from tfnas.compression.technique_row import Step, run_row
from tfnas.compression.techniques.registry import technique
from tfnas.compression.techniques.technique import NotPossible
from tfnas.data.examples import Data, Nested
from tfnas.loading import load_model
from tfnas.measure.latency import benchmark
from tfnas.measure.measure import ACTIVATION_BYTES
from tfnas.measure.measurement import pareto_front
from tfnas.measure.profile import Profile, profile
from tfnas.runtime.files import save_model, write_atomically
from tfnas.runtime.store import Record, damage_named
from tfnas.search_space.json_records import check_keys, check_types
from tfnas.tasks.assessment import Assessment, NotFinite
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.convert import to_tflite

FORMAT = 1  # of a candidate's record
TYPICAL = 512  # largest number of examples that models are analyzed with
ROUNDS = 20  # of the latency measurement of each new file
_APART = ("device", "refused")  # costs that depend on the device: kept in `device.json`


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A file with its costs.

    Args:
        recipe: Its recipe.
        file: The file.
        costs: Its costs; the drop of the task's metric on the examples for choosing.
        drop: What is lost on those, in the metric's unit, with its 95% interval: (value, low,
            high).
        assessment: The task's metric for each of these examples.
        beaten: Whether another candidate is as small and fast and significantly more accurate.
    """

    recipe: Recipe
    file: Artifact
    costs: CandidateCosts
    drop: tuple[float, float, float]
    assessment: Assessment = dataclasses.field(repr=False)
    beaten: bool = False

    @property
    def points(self) -> str:
        """What is gained to the original, in the metric's unit, with its 95% interval."""
        digits = self.assessment.metric.digits
        value, low, high = (f"{0 - each:+.{digits}f}" for each in self.drop)  # no minus before 0
        return f"{value} [{high}, {low}]"

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
    assessment: Assessment,
    row: tuple[float, ...],
    others: list[Candidate],
    gz: bool,
    timed: bool = True,
) -> bool:
    """Returns whether another candidate is as small and fast and significantly better.

    Args:
        assessment: The candidate's quality.
        row: The candidate's :meth:`Candidate.row`.
        others: The other candidates.
        gz: Whether sizes are those after gzip.
        timed: Whether the time is the measured latency.
    """
    return any(
        all(a <= b for a, b in zip(other.row(gz, timed)[1:], row[1:], strict=True))
        and assessment.drop_from(other.assessment)[1] > 0
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
        context: The original, its task and data, and how steps are trained.
        folder: Folder of models and candidates.
        gzipped: Whether sizes are compared after gzip.
        target: The device of the files.
        timed: Whether candidates are compared by measured latency: then a job of the same seed
            may take other steps.
    """

    def __init__(
        self, context: Context, folder: pathlib.Path, gzipped: bool, target: Target, timed: bool
    ) -> None:
        self.timed = timed
        self.context, self.folder, self.gzipped, self.target = context, folder, gzipped, target
        self.baseline = to_tflite(context.original)
        self.assessment = self._assess(self.baseline)
        self.profile = profile(context.original)
        self.candidates: list[Candidate] = []
        self.failures: dict[str, str] = {}

    @property
    def data(self) -> Data:
        """The data."""
        return self.context.data

    @functools.cached_property
    def int8(self) -> Artifact | None:
        """The original's post-training int8 file; None where it can't be converted."""
        with contextlib.suppress(ConversionError):
            return to_tflite(self.context.original, "int8", self.context.calibration())
        return None

    def typical_inputs(self) -> Nested:
        """Returns inputs that nothing is trained on, to analyze models with."""
        return self.data.validation.spread(TYPICAL).x

    def analyze_model(self, pruning: bool) -> ModelAnalysis:
        """Returns the analysis of the original, that of an earlier run where it measured as much.

        Latencies differ from run to run; the first analysis is kept, so that a job that was
        killed takes the same steps again.

        Args:
            pruning: Whether the sensitivity to pruning is measured.
        """
        path = self.folder / "model_analysis.json"
        if path.exists():
            with damage_named(path, "model analysis"):
                before = ModelAnalysis.from_json(path.read_text())
            if before.pruned or not pruning:
                return before
        analysis = analyze_model(
            self.context.original, self.int8, self.typical_inputs(), self.context.task, pruning
        )
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
        progress = self.context.progress
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
        dominated = beaten(candidate.assessment, row, self.candidates, self.gzipped, self.timed)
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
            f"{candidate.recipe}: {candidate.points} {self.context.task.metric.unit}, "
            f"{costs.bytes:,} bytes ({costs.gzip_bytes:,} gzipped), {costs.latency:.3f}x the time"
            f"{_on_device(costs)}{', worse than another' if candidate.beaten else ''}"
        )

    def _build(self, recipe: Recipe, folder: pathlib.Path) -> Candidate:
        model = self._model(recipe.steps)
        cost = profile(model)
        final = recipe.final_step
        if final is not None:
            model = self._applied(model, final, recipe.steps, folder.name)
            file = to_tflite(model, recipe.mode)
        elif recipe == Recipe((), "int8") and self.int8 is not None:
            file = self.int8
        else:
            file = to_tflite(model, recipe.mode, self.context.calibration())
        file = file.minified()
        assessment = self._assess(file)
        old, new = benchmark([self.baseline, file], rounds=ROUNDS)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file.save(folder / "model.tflite")
        save_model(model, folder / "model.keras")
        np.save(folder / "values.npy", assessment.values, allow_pickle=False)
        costs, drop = self._costs(file, assessment, new.ratio / old.ratio, cost)
        own = {name: v for name, v in dataclasses.asdict(costs).items() if name not in _APART}
        # Written last: a candidate without it is built again.
        self._record(folder).write({"recipe": str(recipe), "costs": own, "drop": drop})
        self._forget_training(folder.name)
        return Candidate(recipe, file, costs, drop, assessment)

    def _record(self, folder: pathlib.Path) -> Record:
        return Record(folder / "record.json", "candidate", FORMAT)

    def _read(self, recipe: Recipe, folder: pathlib.Path) -> Candidate:
        record = self._record(folder).read()
        with damage_named(folder / "record.json", "candidate"):
            check_keys(CandidateCosts, record["costs"])
            check_types(CandidateCosts, record["costs"])
            value, low, high = map(float, record["drop"])
        file = Artifact.load(folder / "model.tflite")
        with damage_named(folder / "values.npy", "candidate"):
            values = np.load(folder / "values.npy", allow_pickle=False)
        costs = CandidateCosts(**record["costs"])
        assessment = Assessment(self.context.task.metric, values)
        return Candidate(recipe, file, costs, (value, low, high), assessment)

    def _model(self, steps: tuple[RecipeStep, ...]) -> keras.Model:
        """Returns the float model after some steps."""
        if not steps:
            return self.context.original
        key = f"{Recipe(steps, 'float').key}{self._epochs(True)}"
        path = self.folder / "models" / f"{key}.keras"
        if not path.exists():
            model = self._model(steps[:-1])
            save_model(self._applied(model, steps[-1].step(), steps[:-1], key), path)
            self._forget_training(key)
        return load_model(path)

    def _applied(
        self, model: keras.Model, step: Step, before: tuple[RecipeStep, ...], key: str
    ) -> keras.Model:
        """Returns a model after a further step; a training that was killed goes on."""
        checkpoints = self.folder / "training" / key
        context = self.context.replace(
            before=tuple(each.technique for each in before), checkpoints=checkpoints
        )
        scale = technique(step.technique).epochs_scale
        step = dataclasses.replace(step, epochs=round(scale * context.settings.epochs))
        try:
            [outcome] = run_row(model, [step], context)
        except TrainingError:
            raise
        except ValueError as error:  # a technique's refusal does not end the job
            raise NotPossible(str(error)) from error
        return outcome.model

    def _forget_training(self, key: str) -> None:
        """Removes the states of trainings whose model is written."""
        shutil.rmtree(self.folder / "training" / key, ignore_errors=True)

    def _epochs(self, trains: bool) -> str:
        return f"-{self.context.settings.epochs}_epochs" if trains else ""

    def _assess(self, file: Artifact) -> Assessment:
        try:
            return self.context.task.judge(file.predict, self.data.validation)
        except NotFinite as error:
            raise NotPossible(str(error)) from error

    def _costs(
        self, file: Artifact, assessment: Assessment, latency: float, cost: Profile
    ) -> tuple[CandidateCosts, tuple[float, float, float]]:
        drop = assessment.drop_from(self.assessment)
        memory = cost.peak_activation_bytes(ACTIVATION_BYTES.get(file.mode, 4))
        macs = cost.macs / max(1, self.profile.macs)
        return CandidateCosts(drop[0], file.size, file.gzip_size, latency, macs, memory), drop
