"""The main job: from a data set to small, measured `.tflite` files.

Candidates are trained, converted and measured on the validation part; the best one is
trained again; then, once, the test part is used to compare it with MobileNetV2 0.35 (and
random candidates of its size) trained just as long.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfnas import data as data_module
from tfnas.compression.progress import Progress, TrialNews
from tfnas.compression.training_settings import check_whole_numbers
from tfnas.compression.trial_compression import CompressedTraining, spec_of, untrained_form
from tfnas.data.datasets import DataSplit
from tfnas.graph.tracing import TraceOnce
from tfnas.loading import load_model
from tfnas.measure.accuracy import correct, score
from tfnas.measure.latency import benchmark, provenance
from tfnas.measure.measure import measurement_of
from tfnas.measure.measurement import Latency, Measurement
from tfnas.measure.profile import profile
from tfnas.nas.latency_prediction import PredictionErrors
from tfnas.nas.objectives import REWARD, Objectives, objective_of
from tfnas.nas.oracle import INFEASIBLE
from tfnas.nas.reward import mnasnet_reward
from tfnas.nas.samplers.evolution import EvolutionTuner
from tfnas.nas.samplers.random_search import RandomTuner
from tfnas.nas.samplers.reinforce import ReinforceTuner
from tfnas.nas.search_callbacks import TrialCallbacks
from tfnas.nas.successive_halving import Halving
from tfnas.nas.surrogate.screening import ScreenedOracle
from tfnas.nas.tuner import MeasuredTrial, MeasuredTuner, latency_metrics
from tfnas.optional import require
from tfnas.quantization.quantize_aware import fake_quants
from tfnas.quantization.spec import MODES, QuantSpec
from tfnas.reports import search_report
from tfnas.runtime.files import save_model, write_atomically
from tfnas.runtime.randomness import seeded
from tfnas.runtime.worker_processes import TrialProcesses
from tfnas.search_space.architecture import Architecture, mobilenet_v2, parse_json_object
from tfnas.search_space.compression_choices import CompressionSpace
from tfnas.search_space.hypermodel import compile_for_search
from tfnas.search_space.mobilenet_v2 import MobileNetV2Space
from tfnas.targets.device import Device
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import to_tflite

CALIBRATION = 300


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """What a search was asked for; kept in the run's folder.

    Args:
        dataset: Name or path of the data set.
        preset: Preset of the search space.
        max_trials: Number of trials.
        epochs: Epochs a trial; with `halving`, of the highest rung.
        halving: One in so many trials of a rung goes on with as many times the epochs, from
            its own weights (:mod:`tfnas.nas.successive_halving`); each promotion counts as a trial.
            None: all trials have the same epochs.
        min_epochs: Epochs of the lowest rung, at least.
        final_epochs: Epochs that the best architecture is trained again for, on training
            and validation part together; 0 keeps the model of its trial.
        batch_size: Examples a training step.
        learning_rate: Adam's, at the start of its cosine decay.
        train_limit: Training examples a trial; None: all.
        image_size: (height, width) that images of a folder are resized to.
        target_latency_ms: Latency aimed at, in ms on this machine.
        target_latency_ratio: The same as a ratio to the reference model.
        latency_exponent: Exponent of MnasNet's reward.
        algorithm: "evolution", "reinforce" or "random".
        objectives: What is searched for: "reward", or several metrics for their front.
        limits: Metric -> bound that must be kept.
        population_size: Of the evolution.
        tournament_size: Of the evolution.
        children: Proposals that a surrogate picks one of; 1: no surrogate.
        form: Of the reinforcement, "building" or "modifying".
        inherit: Whether children begin with their parent's overlapping weights.
        workers: Processes that run trials, so that one that dies costs itself alone; 0: this
            process runs them.
        trial_timeout: Longest time of a trial in a worker, in s; None: any.
        threads: Threads of the latency measurement.
        baseline: Whether MobileNetV2 0.35 is trained for comparison.
        random_candidates: Number of random architectures of the winner's size class
            that are trained for comparison.
        seed: Seed of everything; the caller's random generators stay as they are.
        compression: What may be chosen of pruning, clustering, low rank, number formats and
            distillation; None: all networks are converted to int8.
        teacher: Path of a trained Keras model that compressions with `distill` learn from; it
            takes the data set's raw images.
        accelerator: The NPU of the metrics `vela_ms`, `vela_sram_bytes` and so on.
        runtime_flash: Bytes of flash that a firmware takes beside the file (`flash_bytes`).
        runtime_ram: Bytes of RAM that it takes beside the activations (`ram_bytes`).
        latency_seconds: Time, in seconds, to fit a latency model of the space before the first
            trial: what breaks a latency limit by its prediction is no trial, and the surrogate
            sees it (:mod:`tfnas.nas.latency_prediction`). None: latencies are measured alone.
    """

    dataset: str
    preset: str = "mobile"
    max_trials: int = 20
    epochs: int = 3
    halving: int | None = None
    min_epochs: int = 1
    final_epochs: int = 0
    batch_size: int = 64
    learning_rate: float = 3e-3
    train_limit: int | None = None
    image_size: tuple[int, int] | None = None
    target_latency_ms: float | None = None
    target_latency_ratio: float | None = None
    latency_exponent: float = -0.07
    algorithm: str = "evolution"
    objectives: tuple[str, ...] = (REWARD,)
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    population_size: int = 8
    tournament_size: int = 3
    children: int = 24
    form: str = "building"
    inherit: bool = False
    workers: int = 0
    trial_timeout: float | None = None
    threads: int = 1
    baseline: bool = True
    random_candidates: int = 0
    seed: int = 0
    compression: CompressionSpace | None = None
    teacher: str | None = None
    accelerator: str = "ethos-u55-128"
    runtime_flash: int = 0
    runtime_ram: int = 0
    latency_seconds: float | None = None

    def __post_init__(self) -> None:
        check_whole_numbers(self, optional=True, **_MINIMA)
        Halving(self.halving, self.min_epochs).fix(self.epochs, self.max_trials)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate!r}")
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"algorithm must be one of {', '.join(ALGORITHMS)}, got {self.algorithm!r}"
            )
        if self.trial_timeout is not None and not (self.workers and self.trial_timeout > 0):
            raise ValueError(
                f"trial_timeout must be above 0 s and goes with workers, got {self.trial_timeout!r}"
            )
        objectives = Objectives.of(objective_of(list(self.objectives)), self.limits)
        device = Device(self.accelerator, self.runtime_flash, self.runtime_ram)
        device.check_room({limit.name: limit.bound for limit in objectives.limits})
        may_distil = self.compression is not None and any(self.compression.distill)
        if may_distil != (self.teacher is not None):
            raise ValueError(
                "teacher must be the path of a model just where the compression may distill, "
                f"got {self.teacher!r}"
            )


ALGORITHMS = ("evolution", "reinforce", "random")
_MAY_CHANGE = ("workers", "trial_timeout")  # of a search that goes on


_MINIMA = {
    **{"max_trials": 1, "epochs": 1, "final_epochs": 0, "batch_size": 1, "train_limit": 1},
    **{"population_size": 1, "tournament_size": 1, "threads": 1, "random_candidates": 0, "seed": 0},
    **{"children": 1, "workers": 0, "halving": 2, "min_epochs": 1},
}


@dataclasses.dataclass(frozen=True, eq=False)
class ReportRow:
    """A line of the final comparison, measured on the test part.

    Args:
        label: What it is.
        measurement: What its file does.
        reward: The reward of it, as the search counted it.
        right: Whether each test example was right, for paired comparison.
    """

    label: str
    measurement: Measurement
    reward: float
    right: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search leaves.

    Args:
        directory: The run's folder.
        winner: The candidate that was chosen, as its trial measured it.
        candidates: All trials that ended well.
        front: Those that no other beats in all objectives at once, or with one objective in
            accuracy, latency and size; their latency was measured again, side by side.
        rows: The comparison on the test part; empty where it was interrupted.
        randoms: The random candidates of the winner's size class.
        interrupted: Whether the user stopped it.
        prediction: How far predicted latencies can be believed; None: none were predicted.
    """

    directory: pathlib.Path
    winner: MeasuredTrial
    candidates: list[MeasuredTrial]
    front: list[MeasuredTrial]
    rows: list[ReportRow]
    randoms: list[ReportRow]
    interrupted: bool
    prediction: PredictionErrors | None = None

    def __str__(self) -> str:
        return search_report.summary(self)


def search(
    data: str | DataSplit,
    *,
    directory: str | pathlib.Path,
    config: SearchConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> SearchResult:
    """Searches, trains, converts, measures and writes a folder with all of it.

    The same call goes on where an earlier one stopped; `overwrite` starts anew.

    Example:
        >>> import tfnas
        >>> result = tfnas.search(
        ...     "digits", directory="runs/digits", preset="microcontroller", max_trials=12, epochs=5
        ... )  # doctest: +SKIP
        >>> print(result)  # doctest: +SKIP

    Args:
        data: Name or path of a data set (see :func:`tfnas.data.load`), or a split.
        directory: Folder for the results; it is made where there is none.
        overwrite: Whether an earlier search in the folder is thrown away.
        progress: Is told what happens.
        config: The settings; in place of `settings`.
        **settings: Fields of :class:`SearchConfig`, instead of `config`.

    Returns:
        The candidates, the Pareto front and the comparison on the test part.

    Raises:
        ValueError: A setting is outside its rule, or the folder holds another search.
        ImportError: matplotlib is not installed; before any long work.
        RuntimeError: No trial ended well.
        KeyboardInterrupt: Interrupted before any trial ended well.
    """
    split = data if isinstance(data, DataSplit) else None
    config = _config_of(split.name if split else str(data), config, settings)
    require("matplotlib", "the pictures of a report")
    return _Run(config, pathlib.Path(directory), split, progress or Progress(), overwrite).run()


def _config_of(dataset: str, config: SearchConfig | None, settings: dict[str, Any]) -> SearchConfig:
    """The settings of a search, given as a record or one by one."""
    if config is not None:
        if settings:
            raise ValueError(f"config must be None beside settings, got {sorted(settings)} too")
        return dataclasses.replace(config, dataset=dataset)
    known = {field.name for field in dataclasses.fields(SearchConfig)} - {"dataset"}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"unknown setting: {', '.join(unknown)}")
    return SearchConfig(dataset, **settings)


class _Run:
    """One search, step by step."""

    def __init__(
        self,
        config: SearchConfig,
        directory: pathlib.Path,
        split: DataSplit | None,
        progress: Progress,
        overwrite: bool,
    ):
        self.config, self.directory, self.progress = config, directory, progress
        self.full = split or data_module.load(
            config.dataset, image_size=config.image_size, seed=config.seed
        )
        brightest = float(self.full.x_train.max())
        if brightest <= 1.0:
            raise ValueError(
                f"dataset {config.dataset!r} must hold raw pixels from 0 to 255, got at most "
                f"{brightest:g}: the networks of the search scale their input themselves"
            )
        self.split = self.full.limited(config.train_limit, config.seed)
        self.trial_epochs = config.epochs
        self.space = MobileNetV2Space(
            self.split.input_shape,
            self.split.num_classes,
            config.preset,
            compression=config.compression,
        )
        self.teacher = None if config.teacher is None else load_model(config.teacher)
        if not overwrite:
            _refuse_another(directory, config)
        optimizer = keras.optimizers.Adam(self._schedule(len(self.split.x_train), config.epochs))
        self.tuner = self._make_tuner(self.space.hypermodel(optimizer=optimizer), overwrite)
        if overwrite:
            _remove_results(directory)
        record = {"config": dataclasses.asdict(config), "provenance": provenance()}
        write_atomically(directory / "config.json", json.dumps(record, indent=2))
        self.tuner.trial_callbacks = _TrialLog(
            self.tuner, directory / "trials.jsonl", progress, config
        )

    def _make_tuner(self, hypermodel: Any, overwrite: bool) -> MeasuredTuner:
        config = self.config
        kinds = {"evolution": EvolutionTuner, "reinforce": ReinforceTuner, "random": RandomTuner}
        own: dict[str, dict[str, Any]] = {
            "evolution": {
                "population_size": config.population_size,
                "tournament_size": config.tournament_size,
                "children": config.children,
            },
            "reinforce": {"form": config.form, "children": config.children},
            "random": {},
        }
        executor = None
        if config.workers:
            executor = functools.partial(TrialProcesses, config.workers, config.trial_timeout)
        return kinds[config.algorithm](
            hypermodel,
            list(config.objectives),
            max_trials=config.max_trials,
            seed=config.seed,
            limits=config.limits,
            halving=config.halving,
            min_epochs=config.min_epochs,
            target_latency_ms=config.target_latency_ms,
            target_latency_ratio=config.target_latency_ratio,
            latency_exponent=config.latency_exponent,
            threads=config.threads,
            inherit=config.inherit,
            teacher=self.teacher,
            accelerator=config.accelerator,
            runtime_flash=config.runtime_flash,
            runtime_ram=config.runtime_ram,
            latency_seconds=config.latency_seconds,
            executor=executor,
            directory=str(self.directory),
            project_name="search",
            overwrite=overwrite,
            **own[config.algorithm],
        )

    def run(self) -> SearchResult:
        self.progress.phase(f"search: {self.split}; {self.space.size:.3g} architectures")
        if self.config.latency_seconds is not None:
            self.progress.phase(f"latency of the space: {self.config.latency_seconds:g} s")
        interrupted = False
        rows: list[ReportRow] = []
        randoms: list[ReportRow] = []
        try:
            self.tuner.search(
                self.split.x_train,
                self.split.y_train,
                validation_data=(self.split.x_val, self.split.y_val),
                epochs=self.config.epochs,
                batch_size=self.config.batch_size,
                verbose=0,
            )
        except KeyboardInterrupt:
            if not self.tuner.candidates():
                raise
            interrupted = True
        except RuntimeError as error:  # too many failures in a row
            if not self.tuner.candidates():
                raise
            self.progress.phase(f"search stopped: {error}")
        candidates = self.tuner.candidates()
        if not candidates:
            raise RuntimeError(self._no_candidate())
        if not self.tuner.pareto_front():
            raise RuntimeError(self._none_within())
        winner = self._winner(candidates)
        # Of a lower rung, it is compared with what was trained as long.
        self.trial_epochs = int(winner.metrics.get("epochs", self.config.epochs))
        files: dict[str, Artifact] | None = None
        try:
            files = self._final_files(winner, again=not interrupted)
            if not interrupted:
                rows, randoms = self._compare(winner, files)
        except KeyboardInterrupt:
            interrupted = True
            if files is None:
                self._final_files(winner, again=False)
        front = self._remeasured(self.tuner.pareto_front())
        told = rows, randoms, interrupted, self.tuner.prediction_errors()
        result = SearchResult(self.directory, winner, candidates, front, *told)
        search_report.write(result, self.config, self.split, self.tuner.target_ratio)
        return result

    def _no_candidate(self) -> str:
        """Why there is none, in words."""
        oracle = self.tuner.oracle
        trials = [oracle.get_trial(trial_id) for trial_id in oracle.end_order]
        where = self.directory / "trials.jsonl"
        if trials and all(INFEASIBLE in (trial.message or "") for trial in trials):
            limits = ", ".join(map(str, oracle.objectives.limits))
            return (
                f"none of {len(trials)} trials could be run within the limits ({limits}), the "
                f"last: {_cause(trials[-1])}; see {where}"
            )
        return f"no trial ended well: see {where}"

    def _none_within(self) -> str:
        """What keeps the nearest trial from the limits, in words."""
        oracle = self.tuner.oracle
        nearest = self.tuner.candidate(oracle.get_best_trials(1)[0])
        return (
            f"none of {len(oracle.entries)} trained networks keeps the limits "
            f"({', '.join(map(str, oracle.objectives.limits))}), the nearest is trial "
            f"{nearest.trial_id}: {'; '.join(oracle.objectives.broken(nearest.metrics))}; see "
            f"{self.directory / 'trials.jsonl'}"
        )

    def _winner(self, candidates: list[MeasuredTrial]) -> MeasuredTrial:
        """The best as the oracle sees it; of several objectives the front's best reward."""
        oracle = self.tuner.oracle
        if len(oracle.objectives.names) == 1:
            pick = oracle.pick() if isinstance(oracle, ScreenedOracle) else None
            chosen = pick or oracle.get_best_trials(1)[0]
            return next(c for c in candidates if c.trial_id == chosen.trial_id)
        return max(self.tuner.pareto_front() or candidates, key=self._reward)

    def _reward(self, candidate: MeasuredTrial) -> float:
        accuracy, ratio, _ = candidate.objectives()
        target, exponent = self.tuner.target_ratio, self.config.latency_exponent
        return mnasnet_reward(accuracy, ratio, target, exponent)

    def _final_model(self, winner: MeasuredTrial, again: bool) -> keras.Model:
        if again and self.config.final_epochs:
            self.progress.phase(f"training the best again, {self.config.final_epochs} epochs")
            return self._train(winner.architecture)
        return self.tuner.load_model(self.tuner.oracle.get_trial(winner.trial_id))

    def _final_files(self, winner: MeasuredTrial, again: bool) -> dict[str, Artifact]:
        """The best's files, from an earlier run of the same search where they are there."""
        mark = self.directory / "final" / f"{winner.architecture.key}.best"
        modes = _modes(winner.architecture)
        names = {mode: self.directory / f"best_{mode}.tflite" for mode in modes}
        if again and mark.exists() and all(path.exists() for path in names.values()):
            return {
                mode: dataclasses.replace(Artifact.load(path), mode=mode)
                for mode, path in names.items()
            }
        mark.unlink(missing_ok=True)
        files = self._export(self._final_model(winner, again), winner.architecture)
        if again:
            write_atomically(mark, "trained\n")
        return files

    def _export(self, model: keras.Model, arch: Architecture) -> dict[str, Artifact]:
        """Writes best.keras and its files: of a compressed network the one it was made for."""
        save_model(model, self.directory / "best.keras")
        files = {mode: self._file(model, spec) for mode, spec in _modes(arch).items()}
        for mode, file in files.items():
            file.save(self.directory / f"best_{mode}.tflite")
        return files

    def _compare(
        self, winner: MeasuredTrial, files: dict[str, Artifact]
    ) -> tuple[list[ReportRow], list[ReportRow]]:
        """Trains the others as long, then measures all on the test part, side by side."""
        mode = next(iter(files))
        entries = [(f"tfnas, {name}", winner.architecture, file) for name, file in files.items()]
        if self.config.baseline:
            arch = mobilenet_v2(self.space.input_shape, self.space.num_classes, 0.35)
            file = self._trained_file(arch, mode)
            entries.append((f"MobileNetV2 0.35, {mode}", arch, file))
        own = len(entries)
        for number, arch in enumerate(self._random_architectures(winner), 1):
            entries.append((f"random {number}, {mode}", arch, self._trained_file(arch, mode)))
        self.progress.phase("measuring on the test part")
        latencies = benchmark([file for *_, file in entries], threads=self.config.threads)
        rows = [
            self._row(label, arch, file, latency)
            for (label, arch, file), latency in zip(entries, latencies, strict=True)
        ]
        return rows[:own], rows[own:]

    def _row(self, label: str, arch: Architecture, file: Artifact, latency: Latency) -> ReportRow:
        predictions = file.predict(self.split.x_test)
        model = self.space.build(arch)
        if arch.compression is not None:
            model = untrained_form(model, arch.compression)
        cost = profile(model)
        quality = score(self.split.y_test, predictions)
        where = {"dataset": self.split.name, "part": "test"}
        measurement = measurement_of(file, quality, latency, cost, arch.key, **where)
        target, exponent = self.tuner.target_ratio, self.config.latency_exponent
        reward = mnasnet_reward(quality.value, latency.ratio, target, exponent)
        return ReportRow(label, measurement, reward, correct(self.split.y_test, predictions))

    def _random_architectures(self, winner: MeasuredTrial) -> list[Architecture]:
        """Random networks with the winner's parameters within a factor of 1.5."""
        rng = np.random.default_rng([self.config.seed, 1])
        wanted = winner.measurement.parameters or 0
        drawn = winner.architecture.compression
        found: list[Architecture] = []
        networks = {winner.architecture.network}
        for _ in range(100 * self.config.random_candidates):
            if len(found) == self.config.random_candidates:
                break
            # Its compression is the winner's: the network alone is drawn.
            arch = dataclasses.replace(self.space.sample(rng), compression=drawn)
            count = self.space.build(arch).count_params()
            if wanted / 1.5 <= count <= wanted * 1.5 and arch.network not in networks:
                found.append(arch)
                networks.add(arch.network)
        return found

    def _trained_file(self, arch: Architecture, mode: str) -> Artifact:
        path = self.directory / "final" / f"{arch.key}.tflite"
        if path.exists():  # of an earlier run of the same search
            return dataclasses.replace(Artifact.load(path), mode=mode)
        self.progress.phase(f"training for comparison: {arch}")
        spec = mode if arch.compression is None else spec_of(arch.compression)
        file = self._file(self._train(arch), spec)
        file.save(path)
        return file

    def _train(self, arch: Architecture) -> keras.Model:
        """Trains as the final model is trained; all that is compared goes through here."""
        with seeded(self.config.seed):
            return self._train_seeded(arch)

    def _train_seeded(self, arch: Architecture) -> keras.Model:
        epochs = self.config.final_epochs or self.trial_epochs
        x, y = self.full.training_part() if self.config.final_epochs else _training(self.split)
        model = self.space.build(arch)
        compile_for_search(model, optimizer=keras.optimizers.Adam(self._schedule(len(x), epochs)))
        told = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: self.progress.epoch_ended(epoch + 1, epochs)
        )

        def fit(model: Any, callbacks: list[Any], **of_part: Any) -> Any:
            size, listening = self.config.batch_size, [told, *callbacks, TraceOnce()]
            return model.fit(x, y, batch_size=size, verbose=0, callbacks=listening, **of_part)

        if arch.compression is None:
            fit(model, [], epochs=epochs)
            return model
        images, seed = data_module.spread(x, CALIBRATION), self.config.seed
        way = CompressedTraining(fit, images, teacher=self.teacher, seed=seed)
        return way.run(model, arch.compression, epochs).model

    def _file(self, model: keras.Model, spec: str | QuantSpec) -> Artifact:
        return to_tflite(model, spec, None if fake_quants(model) else self._calibration())

    def _schedule(self, examples: int, epochs: int) -> keras.optimizers.schedules.CosineDecay:
        steps = epochs * -(-examples // self.config.batch_size)
        return keras.optimizers.schedules.CosineDecay(self.config.learning_rate, steps)

    def _calibration(self) -> np.ndarray:
        return data_module.spread(self.split.x_train, CALIBRATION)

    def _remeasured(self, front: list[MeasuredTrial]) -> list[MeasuredTrial]:
        """The front with latencies from one run, side by side; what falls behind goes."""
        self.progress.phase("measuring the Pareto front side by side")
        latencies = benchmark([c.artifact() for c in front], threads=self.config.threads)
        return self.tuner.front_of(map(_with_latency, front, latencies))


class _TrialLog(TrialCallbacks):
    """Writes one JSON line a trial, and passes the news on."""

    def __init__(
        self, tuner: MeasuredTuner, path: pathlib.Path, progress: Progress, config: SearchConfig
    ):
        self.tuner, self.path, self.progress, self.config = tuner, path, progress, config
        self.started = time.monotonic()
        oracle = tuner.oracle
        ended = [self._line(oracle.get_trial(trial_id)) for trial_id in oracle.end_order]
        write_atomically(path, "".join(ended))  # a resumed search has no line twice

    def trial_began(self, trial: Any) -> None:
        self.started = time.monotonic()
        self.progress.trial_began(int(trial.trial_id) + 1, self.config.max_trials)

    def epoch_ended(self, trial: Any, epoch: int) -> None:
        self.progress.epoch_ended(epoch + 1, self.config.epochs)

    def trial_ended(self, trial: Any) -> None:
        if trial.trial_id not in self.tuner.oracle.end_order:
            return  # sent for a retry
        seconds = time.monotonic() - self.started
        with self.path.open("a") as file:
            file.write(self._line(trial, seconds))
        oracle = self.tuner.oracle
        done = trial.status == "COMPLETED"
        best = self.tuner.candidate(oracle.get_best_trials(1)[0]) if oracle.entries else None
        text = self._told(self.tuner.candidate(trial)) if done else f"failed: {_cause(trial)}"
        self.progress.trial_ended(
            TrialNews(
                int(trial.trial_id) + 1,
                self.config.max_trials,
                seconds,
                text,
                None if best is None else f"{self._told(best)} (in search/trial_{best.trial_id})",
                _front_text(self.tuner.pareto_front()) if done else None,
            )
        )

    def _told(self, candidate: MeasuredTrial) -> str:
        """A candidate in words, with the limits that it breaks."""
        broken = self.tuner.oracle.objectives.broken(candidate.metrics)
        return "; ".join([_text(candidate, self.config.objectives[0]), *broken])

    def _line(self, trial: Any, seconds: float | None = None) -> str:
        done = trial.status == "COMPLETED"
        known = bool(trial.hyperparameters.values)  # not of a file that can't be read
        arch = self.tuner.oracle.architecture(trial) if known else None
        candidate = self.tuner.candidate(trial) if done else None
        line = {
            "trial": trial.trial_id,
            "status": trial.status,
            "objective": trial.score if done else None,
            "seconds": None if seconds is None else round(seconds, 2),
            "architecture": None if arch is None else arch.to_dict(),
            "measurement": None if candidate is None else candidate.measurement.to_dict(),
            "metrics": None if candidate is None else dict(candidate.metrics),
            "failure": None if done else _cause(trial),
            **self.tuner.oracle.halving.metrics(trial.trial_id),
        }
        return json.dumps(line) + "\n"


def _refuse_another(directory: pathlib.Path, config: SearchConfig) -> None:
    """Raises ValueError where the folder holds a search with other settings."""
    path = directory / "config.json"
    if not path.exists():
        return
    kept = parse_json_object(path.read_text(), str(path)).get("config", {})
    wanted = json.loads(json.dumps(dataclasses.asdict(config)))
    # A folder of an earlier version doesn't know the later settings.
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    differ = [
        name
        for name, value in wanted.items()
        if kept.get(name, defaults[name]) != value and name not in _MAY_CHANGE
    ]
    if "max_trials" in differ and wanted["max_trials"] > kept.get("max_trials", math.inf):
        differ.remove("max_trials")  # more trials: it goes on
    if differ:
        raise ValueError(
            f"directory {str(directory)!r} holds a search with another {', '.join(differ)}: "
            "choose another folder, or --overwrite (overwrite=True) to start anew"
        )


def _remove_results(directory: pathlib.Path) -> None:
    """Removes what an earlier search left, and nothing else."""
    names = ("best.keras", "pareto.csv", "pareto.png", "results.json", "report.md", "trials.jsonl")
    for name in (*names, *(f"best_{mode}.tflite" for mode in MODES)):
        (directory / name).unlink(missing_ok=True)
    for path in (*directory.glob("final/*.tflite"), *directory.glob("final/*.best")):
        path.unlink()


def _modes(arch: Architecture) -> dict[str, str | QuantSpec]:
    """Name -> number formats of the files of a winner, the one that counts first."""
    if arch.compression is None:
        return {"int8": "int8", "float32": "float32"}
    spec = spec_of(arch.compression)
    return {spec.mode: spec}


def _training(split: DataSplit) -> tuple[np.ndarray, np.ndarray]:
    return split.x_train, split.y_train


def _with_latency(candidate: MeasuredTrial, latency: Latency) -> MeasuredTrial:
    """A candidate with its latency as it was measured again."""
    measurement = dataclasses.replace(candidate.measurement, latency=latency)
    metrics = {**candidate.metrics, **latency_metrics(latency)}
    return dataclasses.replace(candidate, measurement=measurement, metrics=metrics)


def _front_text(front: list[MeasuredTrial]) -> str:
    """The front in one line, the fastest first."""
    rows = [candidate.objectives() for candidate in front]
    shown = [f"{accuracy:.3f} at {ratio:.3f}x" for accuracy, ratio, _ in rows[:6]]
    more = f" and {len(rows) - 6} more" if len(rows) > 6 else ""
    return f"{len(rows)} on the front: {', '.join(shown)}{more}"


def _text(candidate: MeasuredTrial, objective: str) -> str:
    accuracy, ratio, size = candidate.objectives()
    epochs = candidate.metrics.get("epochs")  # where there are rungs
    after = "" if epochs is None else f" after {epochs:.0f} epochs"
    return (
        f"{objective} {candidate.objective:.4f}, accuracy {accuracy:.4f}{after}, "
        f"latency {ratio:.3f}x, {size / 1024:.1f} KiB{_compressed(candidate)}"
    )


def _compressed(candidate: MeasuredTrial) -> str:
    """What was chosen of a compression, and the bytes that it pays in."""
    compression = candidate.architecture.compression
    if compression is None:
        return ""
    return f", {(candidate.measurement.gzip_bytes or 0) / 1024:.1f} KiB gzipped ({compression})"


def _cause(trial: Any) -> str:
    return (trial.message or "no message").strip().splitlines()[-1]
