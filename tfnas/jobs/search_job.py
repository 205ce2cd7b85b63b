"""`tfnas.search`: from a data set to small, measured `.tflite` files.

Candidates are trained, converted and measured on the validation part. The best one is trained
again. At the end, and only then, the test part is used to compare it with MobileNetV2 0.35 (and
with random architectures of its size) that were trained for as many epochs.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np

from tfnas import data as data_module
from tfnas.compression.progress import Progress
from tfnas.compression.technique_context import CALIBRATION
from tfnas.compression.trial_compression import CompressedTraining, spec_of, untrained_form
from tfnas.data.data_split import DataSplit
from tfnas.graph.finite_loss import Diverged, FiniteLoss
from tfnas.graph.tracing import TraceOnce
from tfnas.jobs import search_folder
from tfnas.jobs.interrupted_search import STOPPING, STOPPING_EARLY, interrupted_early
from tfnas.jobs.kept_trial import keep_trial, model_of_trial
from tfnas.jobs.search_tuner import tuner_of
from tfnas.jobs.search_work import (
    MEASURING,
    REMEASURING,
    SearchWork,
    baseline,
    comparison,
    training_again,
    training_alone,
)
from tfnas.jobs.time_left import TimedProgress
from tfnas.loading import CustomObjects, Loading
from tfnas.measure.accuracy import correct, score
from tfnas.measure.latency import benchmark
from tfnas.measure.measure import measurement_of
from tfnas.measure.measurement import Latency
from tfnas.measure.profile import profile
from tfnas.nas.measured_trial import MeasuredTrial, latency_metrics
from tfnas.nas.reward import mnasnet_reward
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.search_result import ReportRow, SearchResult
from tfnas.nas.supernet.rank_correlation import trained_alone
from tfnas.nas.supernet.supernet_tuner import SupernetTuner
from tfnas.nas.trial_failures import INFEASIBLE
from tfnas.nas.trial_log import TrialLog, failure_cause
from tfnas.optional import require
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.spec import QuantSpec
from tfnas.reports import search_report
from tfnas.reports.content import Words
from tfnas.runtime.files import save_model, write_atomically
from tfnas.runtime.helper_process import isolated_by_default
from tfnas.runtime.interrupts import announced_interrupts
from tfnas.runtime.randomness import seeded
from tfnas.runtime.retracing import retracing_expected
from tfnas.search_space.architecture import Architecture
from tfnas.search_space.hypermodel import compile_for_search
from tfnas.search_space.mobilenet_v2 import MobileNetV2Space
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import to_tflite
from tfnas.tflite.patches.patch_cost import operators_macs


@isolated_by_default()
@retracing_expected()
def search(
    data: str | DataSplit,
    *,
    directory: str | pathlib.Path,
    config: SearchConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    custom_objects: CustomObjects | None = None,
    safe_mode: bool = True,
    **settings: Any,
) -> SearchResult:
    """Searches architectures for a data set and writes the best one, with a report, to a folder.

    Each trial trains a network, converts it to a `.tflite` file and measures that. The same call
    resumes an interrupted search; `overwrite` starts a new one.

    Example:
        A search of 12 trials takes some minutes:

        >>> import tfnas
        >>> result = tfnas.search(
        ...     "digits", directory="runs/digits", preset="microcontroller", max_trials=12, epochs=5
        ... )  # doctest: +SKIP
        >>> print(result)  # doctest: +SKIP

        Settings are checked before any work:

        >>> try:
        ...     tfnas.search("digits", directory="runs/digits", max_trials=0)
        ... except ValueError as error:
        ...     print(error)
        max_trials must be a whole number >= 1, got 0

    Args:
        data: Name or path of a data set (see :func:`tfnas.data.load`), or a split of raw images
            (examples, height, width, channels) with pixels from 0 to 255, or with any floats if
            `include_rescaling` is False; or of series (examples, steps, channels), any floats.
        directory: Folder for the results; it is created if needed. It may hold other files, but
            none of the names that a search writes.
        config: The settings of the search; None: they are given as `settings`.
        overwrite: Whether the files of an earlier search in the folder are removed. Files that a
            search did not write stay.
        progress: Is told of phases, trials and epochs; None: nothing is shown.
        custom_objects: Name -> class or function, for a `teacher` with layers or functions of your
            own; see :func:`tfnas.load_model`.
        safe_mode: Whether to refuse a `teacher` with Python code in its file, as that of a Lambda
            layer.
        **settings: Fields of :class:`tfnas.nas.search_config.SearchConfig`, instead of `config`;
            most used: `preset` (size of the networks), `max_trials`, `epochs` (per trial),
            `final_epochs` (of the best network), `target_latency_ratio` (to the reference
            model's latency), `limits` (metric -> bound) and `seed`.

    Returns:
        The candidates, the Pareto front and the comparison on the test part.

    Raises:
        ValueError: A setting is outside its rule, or the folder holds another search or other
            files that would be written over. Or the folder can't be written, and the search in it
            has not ended; one that has is opened and measured again, and nothing is written.
        ImportError: matplotlib is not installed. It is raised before any long work.
        RuntimeError: No trial ended well, or the device of `measure_on` lacks what it needs.
        ConnectionError: The device of `measure_on` can't be reached, or was lost and did not come
            back. The same call goes on with the trial that was running.
        tfnas.graph.finite_loss.Diverged: The last training diverged. The search is kept, and the
            model and the files of the best trial are in the folder.
        KeyboardInterrupt: Interrupted before any trial ended well.

    References:
        Tan et al., MnasNet: Platform-Aware Neural Architecture Search for Mobile, CVPR 2019 (the
        reward, accuracy x latency ratio ^ exponent).
    """
    split = data if isinstance(data, DataSplit) else None
    config = _config_of(split.name if split else str(data), config, settings)
    if config.hypermodel is not None:
        raise ValueError(
            "hypermodel must be given to a tuner, such as tfnas.EvolutionTuner(build), or to the "
            f"command, got {config.hypermodel!r}"
        )
    require("matplotlib", "the pictures of a report")
    loading = Loading(custom_objects, safe_mode)
    options = (split, progress or Progress(), overwrite, loading)
    return _Run(config, pathlib.Path(directory), *options).run()


def _config_of(dataset: str, config: SearchConfig | None, settings: dict[str, Any]) -> SearchConfig:
    """The settings of a search, from a record or from keyword arguments."""
    if config is not None:
        if settings:
            raise ValueError(f"config must be None with other settings, got {sorted(settings)} too")
        return dataclasses.replace(config, dataset=dataset)
    known = {field.name for field in dataclasses.fields(SearchConfig)} - {"dataset"}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"unknown setting: {', '.join(unknown)}")
    return SearchConfig(dataset, **settings)


class _Run:
    """The steps of one search."""

    def __init__(
        self,
        config: SearchConfig,
        directory: pathlib.Path,
        split: DataSplit | None,
        progress: Progress,
        overwrite: bool,
        loading: Loading,
    ):
        self.config, self.directory = config, directory

        def sizes() -> SearchWork:
            return SearchWork(self.config, self.tuner, self.split, self.full)

        self.progress = TimedProgress(
            progress,
            lambda: sizes().parts(),
            lambda number: sizes().trial(number),
            sample=lambda *now: sizes().sample(*now),
        )
        self.full = split or data_module.load(
            config.dataset, image_size=config.image_size, seed=config.seed
        )
        _check_classes(self.full, config.dataset)
        rescales = config.include_rescaling and self.full.noun == "images"
        if rescales:
            _check_pixels(self.full.x_train, config.dataset)
        self.split = self.full.limited(config.train_limit, config.seed)
        self.trial_epochs = config.epochs
        self.space = MobileNetV2Space(
            self.split.input_shape,
            self.split.num_classes,
            config.preset,
            compression=config.compression,
            include_rescaling=rescales,
        )
        self.teacher = None if config.teacher is None else loading.load(config.teacher)
        self.writes = writes = search_folder.check(directory, config, overwrite)
        optimizer = keras.optimizers.Adam(self._schedule(len(self.split.x_train), config.epochs))
        hypermodel = self.space.hypermodel(optimizer=optimizer)
        self.tuner = tuner_of(hypermodel, config, directory, overwrite, self.teacher)
        ended = writes or self.tuner.has_ended()
        path = search_folder.begin(
            directory, config, overwrite=overwrite, writes=writes, ended=ended
        )
        self.log = TrialLog(self.tuner, path, self.progress, config)
        self.tuner.trial_callbacks = self.log

    def run(self) -> SearchResult:
        """Runs the search; Ctrl-C is answered at once, and a second one stops at once."""
        stopping = announced_interrupts(
            lambda: self.progress.phase(STOPPING if self.tuner.oracle.records else STOPPING_EARLY)
        )
        with stopping as self.log.interrupts:
            try:
                return self._run()
            finally:
                self.progress.time_left(None)  # the next job may have the same progress

    def _run(self) -> SearchResult:
        self.progress.phase(f"search: {self.split}; {self.space.size:.3g} architectures")
        if ended := len(self.tuner.oracle.end_order):
            self.progress.note(f"{ended} of {self.log.total} trials ended before")
        interrupted = False
        try:
            self.tuner.search(
                self.split.x_train,
                self.split.y_train,
                validation_data=(self.split.x_val, self.split.y_val),
                epochs=self.config.epochs,
                batch_size=self.config.batch_size,
                verbose=0,
            )
        except KeyboardInterrupt as error:
            if not self.tuner.candidates():
                raise interrupted_early() from error
            interrupted = True
        except RuntimeError as error:  # too many failures in a row
            if not self.tuner.candidates():
                raise
            self.progress.phase(f"search stopped: {error}")
        candidates = self.tuner.candidates()
        if not candidates:
            raise RuntimeError(self._no_candidate())
        if not self.tuner.pareto_front():
            raise RuntimeError(self._none_within_limits())
        winner = self._winner(candidates)
        # A winner of a lower rung is compared with models that were trained as long; one that
        # started from shared weights with models that had their epochs too.
        self.trial_epochs = int(winner.metrics.get("epochs", self.config.epochs))
        if isinstance(self.tuner, SupernetTuner):
            self.trial_epochs += self.tuner.shared_epochs
        rows, randoms, stopped = self._final_part(winner, interrupted)
        interrupted |= isinstance(stopped, KeyboardInterrupt)
        front = self.tuner.pareto_front()
        result = SearchResult(
            self.directory,
            winner,
            candidates,
            front=front if interrupted else self._remeasured(front),
            rows=rows,
            randoms=randoms,
            interrupted=interrupted or stopped is not None,
            prediction=self.tuner.prediction_errors(),
            sharing=self._sharing(interrupted or stopped is not None),
            target_ratio=self.tuner.target_ratio,
            objectives=self.tuner.oracle.objectives,
        )
        if self.writes:
            search_report.write(result, self.config, self.split, Words(self.split.noun))
        if isinstance(stopped, Diverged):
            raise Diverged(
                f"{stopped}; the search is kept, and the best network so far is in "
                f"{self.directory / 'best.keras'}"
            ) from stopped
        return result

    def _final_part(
        self, winner: MeasuredTrial, interrupted: bool
    ) -> tuple[list[ReportRow], list[ReportRow], KeyboardInterrupt | Diverged | None]:
        """Writes the best network, and compares it; returns the rows, and what stopped it."""

        def keep_as_it_is() -> None:
            key, modes = winner.architecture.key, list(_modes(winner.architecture))
            if search_folder.final_files(self.directory, key, modes) is None:
                search_folder.forget_final(self.directory, self.writes, key)
                keep_trial(self.tuner, winner, self.directory, modes)

        if interrupted:
            keep_as_it_is()
            return [], [], None
        files: dict[str, Artifact] | None = None
        try:
            files = self._final_files(winner, retrain=True)
            return (*self._compare(winner, files), None)
        except (KeyboardInterrupt, Diverged) as error:
            if files is None and isinstance(error, Diverged):
                self._final_files(winner, retrain=False)
            elif files is None:
                keep_as_it_is()
            return [], [], error

    def _sharing(self, interrupted: bool) -> str:
        """A paragraph on shared weights, if the networks shared some."""
        if not isinstance(self.tuner, SupernetTuner):
            return ""
        if self.config.rank_networks and not interrupted and self.writes:
            self._measure_ranks(self.tuner)
        return self.tuner.sharing_summary()

    def _measure_ranks(self, tuner: SupernetTuner) -> None:
        """Trains random networks alone, as the final comparison does, on the training part."""
        data = {
            "x": self.split.x_train,
            "y": self.split.y_train,
            "validation_data": (self.split.x_val, self.split.y_val),
        }
        sharing = tuner.shared_weights((), data, lambda phase: None)  # they are trained
        _begin(self.progress, training_alone(self.config))
        trained_alone(
            sharing,
            self.config.rank_networks,
            lambda arch: self._train(arch, _training(self.split)),
            data["validation_data"],
            lambda done, total: self.progress.step_ended(done, total, "network"),
        )

    def _no_candidate(self) -> str:
        """The message of a search none of whose trials ended well."""
        oracle = self.tuner.oracle
        trials = [oracle.get_trial(trial_id) for trial_id in oracle.end_order]
        log = self.directory / "trials.jsonl"
        if trials and all(INFEASIBLE in (trial.message or "") for trial in trials):
            limits = ", ".join(map(str, oracle.objectives.limits))
            return (
                f"none of {len(trials)} trials kept the limits ({limits}) before its training; "
                f"the last: {failure_cause(trials[-1])}; see {log}"
            )
        return f"no trial ended well: see {log}"

    def _none_within_limits(self) -> str:
        """The message of a search none of whose trials keeps the limits, with the nearest one."""
        oracle = self.tuner.oracle
        nearest = self.tuner.candidate(oracle.get_best_trials(1)[0])
        return (
            f"none of {len(oracle.records)} trained networks keeps the limits "
            f"({', '.join(map(str, oracle.objectives.limits))}), the nearest is trial "
            f"{nearest.trial_id}: {'; '.join(oracle.objectives.broken(nearest.metrics))}; see "
            f"{self.directory / 'trials.jsonl'}"
        )

    def _winner(self, candidates: list[MeasuredTrial]) -> MeasuredTrial:
        """The oracle's best trial; with several objectives the best reward on the front."""
        oracle = self.tuner.oracle
        if len(oracle.objectives.names) == 1:
            best = oracle.pick()
            return next(c for c in candidates if c.trial_id == best.trial_id)
        return max(self.tuner.pareto_front() or candidates, key=self._reward)

    def _reward(self, candidate: MeasuredTrial) -> float:
        accuracy, ratio, _ = candidate.objectives()
        target, exponent = self.tuner.target_ratio, self.config.latency_exponent
        return mnasnet_reward(accuracy, ratio, target, exponent)

    def _final_model(self, winner: MeasuredTrial, retrain: bool) -> keras.Model:
        if retrain and self.config.final_epochs:
            _begin(self.progress, training_again(self.config))
            return self._train(winner.architecture)
        return model_of_trial(self.tuner, winner.trial_id)

    def _final_files(self, winner: MeasuredTrial, retrain: bool) -> dict[str, Artifact]:
        """The winner's files; they are read if an earlier run of the search wrote them."""
        arch = winner.architecture
        kept = search_folder.final_files(self.directory, arch.key, _modes(arch))
        if retrain and kept is not None:
            return {
                mode: dataclasses.replace(Artifact.load(path), mode=mode)
                for mode, path in kept.items()
            }
        search_folder.forget_final(self.directory, self.writes, arch.key)
        files = self._export(self._final_model(winner, retrain), arch)
        if retrain:
            write_atomically(search_folder.marker_of(self.directory, arch.key), "trained\n")
        return files

    def _export(self, model: keras.Model, arch: Architecture) -> dict[str, Artifact]:
        """Writes best.keras and its files; for a compressed network only that of its mode."""
        save_model(model, self.directory / "best.keras")
        files = {mode: self._file(model, spec) for mode, spec in _modes(arch).items()}
        compared = next(iter(files))  # the others are for other machines
        files[compared] = self._in_patches(files[compared])
        for mode, file in files.items():
            file.save(self.directory / f"best_{mode}.tflite")
        return files

    def _compare(
        self, winner: MeasuredTrial, files: dict[str, Artifact]
    ) -> tuple[list[ReportRow], list[ReportRow]]:
        """Trains the other models, then measures all on the test part, side by side."""
        mode = next(iter(files))
        models = [(f"tfnas, {name}", winner.architecture, file) for name, file in files.items()]
        if self.config.baseline:
            arch = baseline(self.space)
            file = self._trained_file(arch, mode, comparison(0))
            models.append((f"MobileNetV2 0.35, {mode}", arch, file))
        first_random = len(models)
        for number, arch in enumerate(self._random_architectures(winner), 1):
            file = self._trained_file(arch, mode, comparison(number))
            models.append((f"random {number}, {mode}", arch, file))
        _begin(self.progress, MEASURING)
        latencies = self._latencies([file for *_, file in models])
        rows = [
            self._row(label, arch, file, latency)
            for (label, arch, file), latency in zip(models, latencies, strict=True)
        ]
        return rows[:first_random], rows[first_random:]

    def _row(self, label: str, arch: Architecture, file: Artifact, latency: Latency) -> ReportRow:
        predictions = file.predict(self.split.x_test)
        model = self.space.build(arch)
        if arch.compression is not None:
            model = untrained_form(model, arch.compression)
        cost = profile(model)
        quality = score(self.split.y_test, predictions)
        where = {"dataset": self.split.name, "part": "test"}
        measurement = measurement_of(file, quality, latency, cost, arch.key, **where)
        if self.tuner.runner.patches.used:  # the network's are those without patches
            measurement = dataclasses.replace(measurement, macs=sum(operators_macs(file.graph)))
        target, exponent = self.tuner.target_ratio, self.config.latency_exponent
        reward = mnasnet_reward(quality.value, latency.ratio, target, exponent)
        return ReportRow(label, measurement, reward, correct(self.split.y_test, predictions))

    def _random_architectures(self, winner: MeasuredTrial) -> list[Architecture]:
        """Random networks whose parameters are within a factor of 1.5 of the winner's."""
        rng = np.random.default_rng([self.config.seed, 1])
        target = winner.measurement.parameters or 0
        found: list[Architecture] = []
        networks = {winner.architecture.network}
        for _ in range(100 * self.config.random_candidates):
            if len(found) == self.config.random_candidates:
                break
            # Only the network is random: the compression is the winner's.
            compression = winner.architecture.compression
            arch = dataclasses.replace(self.space.sample(rng), compression=compression)
            count = self.space.build(arch).count_params()
            if target / 1.5 <= count <= target * 1.5 and arch.network not in networks:
                found.append(arch)
                networks.add(arch.network)
        return found

    def _trained_file(self, arch: Architecture, mode: str, part: str) -> Artifact:
        path = self.directory / "final" / f"{arch.key}.tflite"
        if path.exists():  # an earlier run of the search wrote it
            return dataclasses.replace(Artifact.load(path), mode=mode)
        if not self.writes:
            raise search_folder.not_writable(self.directory, f"{path.name} is missing")
        what = "MobileNetV2 0.35" if part == comparison(0) else f"a random network, {arch}"
        self.progress.phase(f"training for comparison: {what}")
        self.progress.part_began(part)
        spec = mode if arch.compression is None else spec_of(arch.compression)
        file = self._in_patches(self._file(self._train(arch), spec))
        file.save(path)
        return file

    def _train(
        self, arch: Architecture, examples: tuple[np.ndarray, np.ndarray] | None = None
    ) -> keras.Model:
        """Trains a model for the final comparison; every model of it is trained here.

        `examples` are images and targets; None: those of the final training.
        """
        if examples is None:
            whole = bool(self.config.final_epochs)
            examples = self.full.training_part() if whole else _training(self.split)
        with seeded(self.config.seed):
            return self._train_seeded(arch, *examples)

    def _train_seeded(self, arch: Architecture, x: np.ndarray, y: np.ndarray) -> keras.Model:
        epochs = self.config.final_epochs or self.trial_epochs
        model = self.space.build(arch)
        compile_for_search(model, optimizer=keras.optimizers.Adam(self._schedule(len(x), epochs)))
        report_epoch = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: self.progress.epoch_ended(epoch + 1, epochs)
        )

        def fit(
            model: keras.Model, callbacks: list[keras.callbacks.Callback], **options: Any
        ) -> keras.callbacks.History:
            return model.fit(
                x,
                y,
                batch_size=self.config.batch_size,
                verbose=0,
                callbacks=[FiniteLoss(), report_epoch, *callbacks, TraceOnce()],
                **options,
            )

        if arch.compression is None:
            fit(model, [], epochs=epochs)
            return model
        images, targets = (data_module.spread(part, CALIBRATION) for part in (x, y))
        training = CompressedTraining(
            fit, images, teacher=self.teacher, seed=self.config.seed, targets=targets
        )
        return training.run(model, arch.compression, epochs).model

    def _file(self, model: keras.Model, spec: str | QuantSpec) -> Artifact:
        return to_tflite(model, spec, None if fake_quants(model) else self._calibration())

    def _in_patches(self, file: Artifact) -> Artifact:
        """A file as a trial measures it: in patches where it needs them."""
        return self.tuner.runner.patches.apply(file)[0]

    def _schedule(self, examples: int, epochs: int) -> keras.optimizers.schedules.CosineDecay:
        steps = epochs * -(-examples // self.config.batch_size)
        return keras.optimizers.schedules.CosineDecay(self.config.learning_rate, steps)

    def _calibration(self) -> np.ndarray:
        return data_module.spread(self.split.x_train, CALIBRATION)

    def _remeasured(self, front: list[MeasuredTrial]) -> list[MeasuredTrial]:
        """The front with latencies that were measured side by side.

        A candidate that another one dominates by the new latencies is left out.
        """
        _begin(self.progress, REMEASURING)
        latencies = self._latencies([candidate.artifact() for candidate in front])
        return self.tuner.front_of(map(_with_latency, front, latencies))

    def _latencies(self, files: list[Artifact]) -> list[Latency]:
        threads, measure_on = self.config.threads, self.config.measure_on
        return benchmark(files, threads=threads, measure_on=measure_on)


def _begin(progress: Progress, part: str) -> None:
    """Reports a part of the search, whose name says what it does."""
    progress.phase(part)
    progress.part_began(part)


def _modes(arch: Architecture) -> dict[str, str | QuantSpec]:
    """Mode -> number formats of the winner's files; the first one is compared."""
    if arch.compression is None:
        return {"int8": "int8", "float32": "float32"}
    spec = spec_of(arch.compression)
    return {spec.mode: spec}


def _check_pixels(images: np.ndarray, dataset: str) -> None:
    """Checks that images hold raw pixels."""
    largest = float(images.max())
    if largest <= 1.0:
        raise ValueError(
            f"dataset {dataset!r} must hold raw pixels from 0 to 255, got at most {largest:g}: "
            "the networks of the search scale their inputs themselves; for spectrograms and other "
            "values that are no pixels, set include_rescaling=False (--noinclude_rescaling)"
        )


def _check_classes(split: DataSplit, dataset: str) -> None:
    """Checks that there is something to tell apart."""
    labels = np.unique(split.y_train)
    if len(labels) < 2:
        raise ValueError(
            f"dataset {dataset!r} must have at least 2 classes in its training part, got only the "
            f"label {labels[0]}"
        )


def _training(split: DataSplit) -> tuple[np.ndarray, np.ndarray]:
    return split.x_train, split.y_train


def _with_latency(candidate: MeasuredTrial, latency: Latency) -> MeasuredTrial:
    """A candidate with a latency that was measured again."""
    measurement = dataclasses.replace(candidate.measurement, latency=latency)
    metrics = {**candidate.metrics, **latency_metrics(latency)}
    return dataclasses.replace(candidate, measurement=measurement, metrics=metrics)
