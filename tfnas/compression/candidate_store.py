"""What came of each recipe, kept on disk so that a job that was killed goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil
from typing import Any

import numpy as np

from tfnas.compression.budget import CandidateCosts
from tfnas.compression.device_costs import Target
from tfnas.compression.model_analysis import ModelAnalysis, analyze_model
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.techniques.recipe_steps import CALIBRATION, NotPossible, StepRunner
from tfnas.data.datasets import DataSplit, spread
from tfnas.loading import load_model
from tfnas.measure.accuracy import correct, paired_difference
from tfnas.measure.latency import benchmark
from tfnas.measure.measure import ACTIVATION_BYTES
from tfnas.measure.measurement import pareto_front
from tfnas.measure.profile import Profile, profile
from tfnas.runtime.files import save_model, write_atomically
from tfnas.search_space.architecture import parse_json_object
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.convert import to_tflite

ROUNDS = 20  # of the measurement of each file as it is made
_APART = ("device", "refused")  # of the costs: they change with the device, in a record of its own


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A file with what it costs.

    Args:
        recipe: How it was made.
        file: The file.
        costs: What it costs; the accuracy on the examples to choose by.
        drop: Points lost on those, with its 95% interval: (value, low, high).
        right: Whether each of those examples was right.
        beaten: Whether another one was better in all that counts, beyond doubt.
    """

    recipe: Recipe
    file: Artifact
    costs: CandidateCosts
    drop: tuple[float, float, float]
    right: np.ndarray = dataclasses.field(repr=False)
    beaten: bool = False

    @property
    def points(self) -> str:
        """Accuracy less the original's as text, with its interval."""
        value, low, high = self.drop
        return f"{0 - value:+.2f} [{0 - high:+.2f}, {0 - low:+.2f}]"  # no minus before 0.00

    def row(self, gzipped: bool, timed: bool = True) -> tuple[float, ...]:
        """What candidates are compared by, each the less the better: drop, size and time.

        With what they take of a device, where limits ask for it.

        Args:
            gzipped: Whether sizes are those after gzip.
            timed: Whether the time is as measured; else what is computed stands for it, which is
                the same each time.
        """
        size = self.costs.gzip_bytes if gzipped else self.costs.bytes
        time = self.costs.latency if timed else self.costs.macs
        return self.costs.drop, size, time, *self.costs.device.values()


def front(candidates: list[Candidate], gzipped: bool) -> list[Candidate]:
    """Returns those that no other is better than in all that they are compared by."""
    rows = [candidate.row(gzipped) for candidate in candidates]
    return [candidates[i] for i in pareto_front(rows, ["min"] * len(rows[0]))] if rows else []


def beaten(
    right: np.ndarray,
    row: tuple[float, ...],
    others: list[Candidate],
    gz: bool,
    timed: bool = True,
) -> bool:
    """Whether one of the others is as small and fast, and more accurate beyond doubt."""
    return any(
        all(a <= b for a, b in zip(other.row(gz, timed)[1:], row[1:], strict=True))
        and paired_difference(other.right, right)[1] > 0
        for other in others
    )


def _on_device(costs: CandidateCosts) -> str:
    if costs.refused:
        return f", the device can't run it: {costs.refused}"
    return "".join(f", {name} {text}" for name, text in costs.device_texts().items())


class CandidateStore:
    """Makes and measures candidates in a folder; what is there already is read.

    Args:
        runner: Makes the models.
        folder: Where models and candidates are kept.
        gzipped: Whether sizes are compared after gzip.
        target: The device that files are meant for.
        timed: Whether measured times tell what is beaten: then a job of the same seed may go
            another way.
    """

    def __init__(
        self, runner: StepRunner, folder: pathlib.Path, gzipped: bool, target: Target, timed: bool
    ) -> None:
        self.timed = timed
        self.runner, self.folder, self.gzipped, self.target = runner, folder, gzipped, target
        self.whole = to_tflite(runner.original)
        self.right = self._right(self.whole)
        self.profile = profile(runner.original)
        self.candidates: list[Candidate] = []
        self.failures: dict[str, str] = {}

    @property
    def split(self) -> DataSplit:
        """The data."""
        return self.runner.split

    @functools.cached_property
    def int8(self) -> Artifact | None:
        """The original's int8 file after training, None where it can't be made."""
        with contextlib.suppress(ConversionError):
            return to_tflite(self.runner.original, "int8", self._typical())
        return None

    def analyze_model(self, pruning: bool) -> ModelAnalysis:
        """Returns a look at the original, that of an earlier run where it saw as much.

        Times differ from run to run; what was seen once decides, so that a job which was
        killed goes the same way again.

        Args:
            pruning: Whether kernels are pruned for a look.
        """
        path = self.folder / "survey.json"
        if path.exists():
            before = ModelAnalysis.from_json(path.read_text())
            if before.pruned or not pruning:
                return before
        found = analyze_model(self.runner.original, self.int8, self.split.x_val, pruning)
        write_atomically(path, found.to_json())
        return found

    def make(self, recipe: Recipe) -> Candidate | None:
        """Returns what comes of a recipe, None where it can't be made; see `failures`."""
        folder = self._place(recipe)
        told = self.runner.progress
        try:
            if (folder / "record.json").exists():
                made = self._read(recipe, folder)
                told.phase(f"{recipe}: found, made before")
            else:
                told.phase(f"{recipe}: {recipe.why}" if recipe.why else str(recipe))
                made = self._made(recipe, folder)
        except (ConversionError, NotPossible) as error:
            self.failures[str(recipe)] = str(error)
            told.phase(f"{recipe}: not possible: {error}")
            return None
        costs = self.target.costs(made.costs, made.file, folder)
        made = dataclasses.replace(made, costs=costs)
        row = made.row(self.gzipped, self.timed)
        lost = beaten(made.right, row, self.candidates, self.gzipped, self.timed)
        made = dataclasses.replace(made, beaten=lost)
        self.candidates.append(made)
        told.phase(f"  {self.line(made)}")
        return made

    def _place(self, recipe: Recipe) -> pathlib.Path:
        return self.folder / "candidates" / f"{recipe.key}{self._epochs(recipe.trains)}"

    def twin(self, recipe: Recipe) -> Any:
        """Returns the Keras model behind a candidate's file."""
        return load_model(self._place(recipe) / "model.keras")

    def retimed(self, made: list[Candidate], ratios: list[float]) -> list[Candidate]:
        """Returns candidates with times that were measured beside each other.

        Args:
            made: Some of `candidates`, which take the new times too.
            ratios: Time of each, as a ratio to the original's float32 file.
        """
        renewed = [
            dataclasses.replace(each, costs=dataclasses.replace(each.costs, latency=ratio))
            for each, ratio in zip(made, ratios, strict=True)
        ]
        twins = dict(zip(map(id, made), renewed, strict=True))
        self.candidates = [twins.get(id(each), each) for each in self.candidates]
        return renewed

    def line(self, made: Candidate) -> str:
        """A candidate in one line."""
        costs = made.costs
        return (
            f"{made.recipe}: {made.points} points, "
            f"{costs.bytes:,} bytes ({costs.gzip_bytes:,} gzipped), {costs.latency:.3f}x the time"
            f"{_on_device(costs)}{', beaten by another' if made.beaten else ''}"
        )

    def _made(self, recipe: Recipe, folder: pathlib.Path) -> Candidate:
        model = self._model(recipe.steps)
        cost = profile(model)
        if recipe.aware:
            kept = tuple(step.technique for step in recipe.steps)
            model = self.runner.aware(model, recipe.mode, kept)
            file = to_tflite(model, recipe.mode)
        elif recipe == Recipe((), "int8") and self.int8 is not None:
            file = self.int8
        else:
            file = to_tflite(model, recipe.mode, self._typical())
        file = file.minified()
        right = self._right(file)
        old, new = benchmark([self.whole, file], rounds=ROUNDS)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file.save(folder / "model.tflite")
        save_model(model, folder / "model.keras")
        np.save(folder / "right.npy", right, allow_pickle=False)
        costs, drop = self._costs(file, right, new.ratio / old.ratio, cost)
        own = {name: v for name, v in dataclasses.asdict(costs).items() if name not in _APART}
        record = {"recipe": str(recipe), "costs": own, "drop": drop}
        # The last one: a candidate without it is made again.
        write_atomically(folder / "record.json", json.dumps(record, indent=1))
        return Candidate(recipe, file, costs, drop, right)

    def _read(self, recipe: Recipe, folder: pathlib.Path) -> Candidate:
        record = parse_json_object((folder / "record.json").read_text(), "record")
        file = Artifact.load(folder / "model.tflite")
        right = np.load(folder / "right.npy", allow_pickle=False)
        value, low, high = record["drop"]
        return Candidate(recipe, file, CandidateCosts(**record["costs"]), (value, low, high), right)

    def _model(self, steps: tuple[RecipeStep, ...]) -> Any:
        """The float model of some steps."""
        if not steps:
            return self.runner.original
        key = Recipe(steps, "float").key
        path = self.folder / "models" / f"{key}{self._epochs(True)}.keras"
        if not path.exists():
            save_model(self.runner.apply(self._model(steps[:-1]), steps[-1]), path)
        return load_model(path)

    def _typical(self) -> np.ndarray:
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
