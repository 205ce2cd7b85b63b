"""Search of a user's own keras_tuner hypermodel, as `tfnas search --hypermodel` runs it.

Each trial builds, trains and scores a model, as with keras_tuner; where an objective or a limit is
a metric of the file, it is converted and measured too. The same call resumes the search.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import keras_tuner as kt

from tfnas import data as data_module
from tfnas.compression.progress import Progress
from tfnas.data.data_for_model import is_array_file, load_for
from tfnas.jobs import search_folder
from tfnas.jobs.hypermodel_import import imported_hypermodel
from tfnas.jobs.interrupted_search import STOPPING, STOPPING_EARLY, interrupted_early
from tfnas.jobs.kept_trial import model_of_trial
from tfnas.jobs.search_tuner import tuner_of
from tfnas.measure.measurement import pareto_front
from tfnas.nas.measured_trial import MODEL_FILE
from tfnas.nas.objectives import metric_text, target_standing
from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.search_result import INTERRUPTED
from tfnas.nas.trial_log import TrialLog, failure_cause, front_text
from tfnas.nas.tuner import MeasuredTuner
from tfnas.reports import hypermodel_report
from tfnas.runtime.files import save_model, write_atomically
from tfnas.runtime.interrupts import announced_interrupts
from tfnas.runtime.retracing import retracing_expected
from tfnas.search_space.hypermodel import as_hypermodel
from tfnas.table import table

_SHOWN = 10  # trials in the printed table


@dataclasses.dataclass(frozen=True)
class HyperModelResult:
    """The result of a search of hyperparameters; `print` shows its best trials.

    Args:
        directory: Folder of the search, with `best.keras`.
        objectives: Names of the objectives.
        trials: Trials that ended well, the best first: id, metrics, hyperparameters. Of several
            objectives the Pareto front first, sorted by the first objective.
        interrupted: Whether the user interrupted the search.
    """

    directory: pathlib.Path
    objectives: tuple[str, ...]
    trials: Sequence[tuple[str, dict[str, float], dict[str, Any]]]
    interrupted: bool

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for *_, values in self.trials for name in values))
        rows = [
            [
                trial_id,
                *(f"{metrics[name]:.6g}" for name in self.objectives),
                *(_shown(values.get(name, "")) for name in names),
            ]
            for trial_id, metrics, values in self.trials[:_SHOWN]
        ]
        shown = table(["trial", *self.objectives, *names], rows)
        first = "the best" if len(self.objectives) == 1 else "the Pareto front"
        ended = f"{len(self.trials)} trials ended well, {first} first:"
        report = f"The report: {self.directory}/report.html"
        parts = [f"{INTERRUPTED}."] if self.interrupted else []
        by = "" if len(self.objectives) == 1 else f" by {self.objectives[0]}, of the front"
        best = f"The best model{by}: {self.directory}/best.keras"
        return "\n\n".join([*parts, ended, shown, f"{best}\n{report}"])


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@retracing_expected()
def search_hypermodel(
    config: SearchConfig,
    *,
    directory: str | pathlib.Path,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> HyperModelResult:
    """Searches the hyperparameters of a hypermodel and saves the best model.

    Args:
        config: The settings; its `hypermodel` names the function or class, its `dataset` the data.
        directory: Folder for the results; it is created if needed.
        overwrite: Whether the files of an earlier search in the folder are removed.
        progress: Is told of phases, trials and epochs; None: nothing is shown.

    Raises:
        ValueError: A setting is outside its rule, or the folder holds something else. Or
            it can't be written, and its search has not ended; one that has is opened as it is.
        RuntimeError: No trial ended well.
        KeyboardInterrupt: Interrupted before any trial ended well.
    """
    assert config.hypermodel is not None
    progress, folder = progress or Progress(), pathlib.Path(directory)
    hypermodel = as_hypermodel(imported_hypermodel(config.hypermodel))
    split: Any = _data(hypermodel, config)
    if config.train_limit is not None:
        split = split.limited(config.train_limit, config.seed)
    writes = search_folder.check(folder, config, overwrite)
    tuner = tuner_of(hypermodel, config, folder, overwrite)
    _check_model(tuner, config.hypermodel)
    ended = writes or tuner.has_ended()
    path = search_folder.begin(folder, config, overwrite=overwrite, writes=writes, ended=ended)
    tuner.trial_callbacks = log = _Log(tuner, path, progress, config)
    progress.phase(f"search: {split}; {tuner.oracle.space.size:.3g} combinations")
    if done := len(tuner.oracle.end_order):
        progress.note(f"{done} of {log.total} trials ended before")
    interrupted = False

    def announce() -> None:
        progress.phase(STOPPING if tuner.oracle.records else STOPPING_EARLY)

    try:
        with announced_interrupts(announce) as log.interrupts:
            tuner.search(
                split.train.x,
                split.train.y,
                validation_data=(split.validation.x, split.validation.y),
                epochs=config.epochs,
                batch_size=config.batch_size,
                verbose=0,
            )
    except KeyboardInterrupt as error:
        if not tuner.oracle.records:
            raise interrupted_early() from error
        interrupted = True
    except RuntimeError as error:  # too many failures in a row
        if not tuner.oracle.records:
            raise
        progress.phase(f"search stopped: {error}")
    if not tuner.oracle.records:
        raise RuntimeError(f"no trial ended well: see {folder / 'trials.jsonl'}")
    result = _result(tuner, folder, interrupted)
    if writes:
        _write(result, tuner, config, str(split))
    return result


def _data(hypermodel: kt.HyperModel | Any, config: SearchConfig) -> Any:
    """The data; the arrays of an .npz file may be anything that a model of the hypermodel takes."""
    options: dict[str, Any] = {"image_size": config.image_size, "seed": config.seed}
    if is_array_file(config.dataset) and pathlib.Path(config.dataset).suffix.lower() == ".npz":
        model = hypermodel.build(kt.HyperParameters())
        if getattr(model, "built", False):
            return load_for(model, config.dataset, **options)
    return data_module.load(config.dataset, **options)


def _check_model(tuner: MeasuredTuner, name: str) -> None:
    """Builds a model of the hypermodel, and checks that it is compiled."""
    if type(tuner.hypermodel).fit is not kt.HyperModel.fit:
        return  # it may compile the model itself
    model = tuner.built_model(tuner.oracle.get_space())
    if not model.compiled:
        raise ValueError(f"hypermodel {name!r} must return a compiled model: call model.compile()")


def _result(tuner: MeasuredTuner, folder: pathlib.Path, interrupted: bool) -> HyperModelResult:
    """The trials that ended well, the best first."""
    oracle = tuner.oracle
    order = oracle.get_best_trials(len(oracle.records))
    best = [oracle.pick()] if len(oracle.objectives.names) == 1 else front(oracle)
    order = [*best, *(trial for trial in order if trial not in best)]
    trials = [
        (
            trial.trial_id,
            {name: float(trial.metrics.get_best_value(name)) for name in trial.metrics.metrics},
            dict(trial.hyperparameters.values),
        )
        for trial in order
    ]
    return HyperModelResult(folder, oracle.objectives.names, trials, interrupted)


def front(oracle: SpaceOracle) -> list[kt.engine.trial.Trial]:
    """Returns the trials that no other one dominates, sorted by the first objective.

    Where none keeps the limits they are those that are nearest to them.

    Args:
        oracle: The oracle of a search with a trial that ended well.
    """
    least = min(record.violation for record in oracle.records)
    nearest = [record for record in oracle.records if record.violation == least]
    losses = [record.losses for record in nearest]
    best = pareto_front(losses, ["min"] * len(losses[0]))
    return [oracle.trials[nearest[i].trial_id] for i in sorted(best, key=lambda i: losses[i])]


def _write(result: HyperModelResult, tuner: MeasuredTuner, config: SearchConfig, data: str) -> None:
    """Writes the best model, the results and the report."""
    folder, best = result.directory, tuner.oracle.trials[result.trials[0][0]]
    save_model(model_of_trial(tuner, best.trial_id), folder / "best.keras")
    file = tuner.folder(best.trial_id) / MODEL_FILE
    if file.exists():
        shutil.copyfile(file, folder / f"best_{tuner.config.spec.mode}.tflite")
    names = ("trial", "metrics", "hyperparameters")
    rows = [dict(zip(names, trial, strict=True)) for trial in result.trials]
    results = {
        "interrupted": result.interrupted,
        "objectives": tuner.oracle.objectives.names,
        "trials": rows,
    }
    write_atomically(folder / "results.json", json.dumps(results, indent=2))
    done = {trial_id for trial_id, *_ in result.trials}
    failed = [tuner.oracle.get_trial(name) for name in tuner.oracle.end_order if name not in done]
    failures = {trial.trial_id: failure_cause(trial) for trial in failed}
    several = len(tuner.oracle.objectives.names) > 1
    chosen = {
        "objectives": tuner.oracle.objectives.names,
        "interrupted": result.interrupted,
        "front": len(front(tuner.oracle)) if several else 1,
    }
    hypermodel_report.write(folder, result.trials, failures, config, data, **chosen)


class _Log(TrialLog):
    """The log of hyperparameters' trials, which have no architecture and no front."""

    def _text(self, trial: kt.engine.trial.Trial) -> str:
        values = " ".join(f"{n}={_shown(v)}" for n, v in trial.hyperparameters.values.items())
        objectives, tracked = self.tuner.oracle.objectives, trial.metrics
        metrics = {name: tracked.get_best_value(name) for name in tracked.metrics}
        shown = ", ".join(f"{name} {metric_text(metrics[name])}" for name in objectives.names)
        target = target_standing(metrics.get("latency_ratio"), self.tuner.target_ratio)
        return "; ".join([shown, *objectives.standing(metrics), *target, values])

    def _place(self, trial: kt.engine.trial.Trial) -> str:
        return f"trial {trial.trial_id}"

    def _best(self) -> kt.engine.trial.Trial:
        oracle = self.tuner.oracle
        return super()._best() if len(oracle.objectives.names) == 1 else front(oracle)[0]

    def _front(self) -> str | None:
        names = self.tuner.oracle.objectives.names
        if len(names) == 1:
            return None
        rows = [
            {name: float(trial.metrics.get_best_value(name)) for name in names}
            for trial in front(self.tuner.oracle)
        ]
        return front_text(rows, names)

    def _line(self, trial: kt.engine.trial.Trial, seconds: float | None = None) -> str:
        done, tracked = trial.status == "COMPLETED", trial.metrics
        line = {
            "trial": trial.trial_id,
            "status": trial.status,
            "objective": trial.score if done else None,
            "hyperparameters": dict(trial.hyperparameters.values),
            "metrics": {n: float(tracked.get_best_value(n)) for n in tracked.metrics}
            if done
            else None,
            "failure": None if done else failure_cause(trial),
        }
        return json.dumps(line) + "\n"
