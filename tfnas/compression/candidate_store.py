"""Candidates of recipes, kept on disk so that a job that was killed continues."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import shutil

import keras
import numpy as np

from tfnas.compression.budget import CandidateCosts, relative_loss
from tfnas.compression.choice import best_for_budget, compared, front
from tfnas.compression.device_costs import Target
from tfnas.compression.fine_tune import TrainingError
from tfnas.compression.model_analysis import ModelAnalysis, analyze_model
from tfnas.compression.model_store import ModelStore
from tfnas.compression.post_training_file import post_training_file
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.technique_context import Context
from tfnas.compression.technique_row import Step, run_row
from tfnas.compression.techniques.registry import technique
from tfnas.compression.techniques.technique import NotPossible
from tfnas.data.examples import Data, Nested
from tfnas.loading import Loading
from tfnas.measure.elsewhere.named_device import device_identity
from tfnas.measure.elsewhere.timing_device import FileRefused
from tfnas.measure.latency import benchmark
from tfnas.measure.measure import ACTIVATION_BYTES
from tfnas.measure.profile import Profile, profile
from tfnas.runtime.files import write_atomically
from tfnas.runtime.store import Record, damage_named
from tfnas.search_space.json_records import check_keys, check_types
from tfnas.tasks.assessment import Assessment, NotFinite
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.convert import to_tflite

FORMAT = 1  # of a candidate's record
TYPICAL = 512  # largest number of examples that models are analyzed with
COMPARED = 4  # examples that a model and its file are compared with
ROUNDS = 20  # of the latency measurement of each new file
_FEWEST_ROUNDS = 6  # of a measurement that is made for its errors
# Costs that are not in the record: those on a device are in `device.json`, the others follow from
# the values of the metric.
_APART = ("device", "refused", "relative_loss", "quality", "higher_is_better")

__all__ = ["Candidate", "CandidateStore", "beaten", "best_for_budget", "front"]


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
    def difference(self) -> str:
        """The metric minus the original's, scaled, with its 95% interval."""
        metric = self.assessment.metric
        sign = -1 if metric.higher_is_better else 1
        value, *ends = (sign * each + 0.0 for each in self.drop)  # no minus before 0
        texts = [f"{each:+.{metric.digits}f}" for each in (value, *sorted(ends))]
        return f"{texts[0]} [{texts[1]}, {texts[2]}]"

    def row(
        self, gzipped: bool, timed: bool = True, also: tuple[str, ...] = ()
    ) -> tuple[float, ...]:
        """Returns the values to compare candidates by; see :func:`.choice.compared`."""
        return compared(self.costs, gzipped, timed, also)


def beaten(
    assessment: Assessment,
    row: tuple[float, ...],
    others: list[Candidate],
    gz: bool,
    timed: bool = True,
    also: tuple[str, ...] = (),
) -> bool:
    """Returns whether another candidate costs no more and is significantly better.

    Args:
        assessment: The candidate's quality.
        row: The candidate's :meth:`Candidate.row`.
        others: The other candidates.
        gz: Whether sizes are those after gzip.
        timed: Whether the time is the measured latency.
        also: Names of further costs in the row.
    """
    return any(
        all(a <= b for a, b in zip(other.row(gz, timed, also)[1:], row[1:], strict=True))
        and assessment.drop_from(other.assessment)[1] > 0
        for other in others
    )


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
        also: Names of further costs that they are compared by.
        loading: How the models of an earlier run are read; None: with the classes and functions
            of the original.
    """

    def __init__(
        self,
        context: Context,
        folder: pathlib.Path,
        gzipped: bool,
        target: Target,
        timed: bool,
        also: tuple[str, ...] = (),
        loading: Loading | None = None,
    ) -> None:
        self.timed, self.also = timed, also
        loading = (loading or Loading()).knowing(context.original)
        typical = functools.partial(context.calibration, COMPARED)
        self.models = ModelStore(loading, typical, context.progress.phase)
        self.context, self.folder, self.gzipped, self.target = context, folder, gzipped, target
        self.baseline = to_tflite(context.original, "float32")
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
        with contextlib.suppress(ConversionError, NotPossible):
            return post_training_file(self.context.original, "int8", self.context)
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
        compared_by = self.gzipped, self.timed, self.also
        row = candidate.row(*compared_by)
        dominated = beaten(candidate.assessment, row, self.candidates, *compared_by)
        candidate = dataclasses.replace(candidate, beaten=dominated)
        self.candidates.append(candidate)
        on_front = [self._model_path(each.recipe) for each in front(self.candidates, self.gzipped)]
        self.models.release(self.folder / "candidates", on_front)
        progress.phase(f"  {self.line(candidate)}")
        return candidate

    def _folder_of(self, recipe: Recipe) -> pathlib.Path:
        fitted = "" if self.target.fit_for is None else f"_{self.target.fit_for}"
        return self.folder / "candidates" / f"{recipe.key}{self._epochs(recipe.trains)}{fitted}"

    def model_of(self, recipe: Recipe) -> keras.Model:
        """Returns the Keras model behind a candidate's file.

        Args:
            recipe: The candidate's recipe.

        Raises:
            ValueError: An earlier run made the model, and its file can't be read.
        """
        if not recipe.steps and recipe.final_step is None:
            return self.context.original
        return self.models.get(self._model_path(recipe))

    def _model_path(self, recipe: Recipe) -> pathlib.Path:
        return self._folder_of(recipe) / "model.keras"

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
        difference = f"{candidate.difference} {self.context.task.metric.unit}".rstrip()
        return (
            f"{candidate.recipe}: {difference}, "
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
            file = post_training_file(model, recipe.mode, self.context)
        file = self.target.fitted(file, self.context.progress.phase)
        assessment = self._assess(file)
        latency = self._latency(file)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file.save(folder / "model.tflite")
        self.models.put(folder / "model.keras", model)
        np.save(folder / "values.npy", assessment.values, allow_pickle=False)
        costs, drop = self._costs(file, assessment, latency, cost)
        # Written last: a candidate without it is built again.
        self._write_record(folder, recipe, costs, drop)
        self._forget_training(folder.name)
        return Candidate(recipe, file, costs, drop, assessment)

    def _latency(self, file: Artifact) -> float:
        """The latency of a file, as a ratio to the original's float32 file on the same device."""
        try:
            old, new = benchmark(
                [self.baseline, file], rounds=ROUNDS, measure_on=self.target.measure_on
            )
        except FileRefused as error:
            self._check_baseline()
            raise NotPossible(str(error)) from error
        return new.ratio / old.ratio

    def _check_baseline(self) -> None:
        """Raises where the device refuses what all candidates are compared with."""
        device = self.target.measure_on
        try:
            benchmark(self.baseline, rounds=_FEWEST_ROUNDS, measure_on=device)
        except FileRefused as error:
            raise RuntimeError(
                f"measure_on {str(device)!r} must run the reference model and the float32 file of "
                f"the original, which latencies are compared with, got a refusal: {error}"
            ) from error

    def _write_record(
        self,
        folder: pathlib.Path,
        recipe: Recipe,
        costs: CandidateCosts,
        drop: tuple[float, float, float],
    ) -> None:
        own = {name: v for name, v in dataclasses.asdict(costs).items() if name not in _APART}
        record = {"recipe": str(recipe), "costs": own, "drop": drop}
        if self._measured_on:
            record["measured_on"] = self._measured_on
        self._record(folder).write(record)

    @property
    def _measured_on(self) -> str:
        """The device that latencies are measured on; empty for this machine."""
        return device_identity(self.target.measure_on) or ""

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
        assessment = Assessment(self.context.task.metric, values)
        costs = self._with_quality(CandidateCosts(**record["costs"]), assessment)
        if record.get("measured_on", "") != self._measured_on:  # a call that measured elsewhere
            costs = dataclasses.replace(costs, latency=self._latency(file))
            self._write_record(folder, recipe, costs, (value, low, high))
        return Candidate(recipe, file, costs, (value, low, high), assessment)

    def _model(self, steps: tuple[RecipeStep, ...]) -> keras.Model:
        """Returns the float model after some steps."""
        if not steps:
            return self.context.original
        key = f"{Recipe(steps, 'float').key}{self._epochs(True)}"
        path = self.folder / "models" / f"{key}.keras"
        if path not in self.models:
            model = self._model(steps[:-1])
            self.models.put(path, self._applied(model, steps[-1].step(), steps[:-1], key))
            self._forget_training(key)
        return self.models.get(path)

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
        costs = CandidateCosts(drop[0], file.size, file.gzip_size, latency, macs, memory)
        return self._with_quality(costs, assessment), drop

    def _with_quality(self, costs: CandidateCosts, assessment: Assessment) -> CandidateCosts:
        """Returns costs with what other limits on the quality than max_drop compare."""
        metric = assessment.metric
        own, baseline = metric.value(assessment.values), metric.value(self.assessment.values)
        higher = metric.higher_is_better
        return dataclasses.replace(
            costs,
            relative_loss=relative_loss(own, baseline, higher),
            quality=own,
            higher_is_better=higher,
        )
