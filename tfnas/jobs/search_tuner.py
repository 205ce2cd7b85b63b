"""The tuner of a search's settings."""

from __future__ import annotations

import contextlib
import functools
import io
import pathlib
from typing import Any

import keras
import keras_tuner as kt

from tfnas.nas.algorithm_tuners import EvolutionTuner, RandomTuner, ReinforceTuner
from tfnas.nas.search_config import SearchConfig, sampler_of
from tfnas.nas.supernet.supernet_config import SupernetConfig
from tfnas.nas.supernet.supernet_tuner import SupernetTuner
from tfnas.nas.tuner import MeasuredTuner
from tfnas.nas.tuner_config import TunerConfig
from tfnas.runtime.worker_processes import TrialProcesses
from tfnas.targets.device import Device


def tuner_of(
    hypermodel: kt.HyperModel | None,
    config: SearchConfig,
    directory: pathlib.Path,
    overwrite: bool,
    teacher: keras.Model | None = None,
) -> MeasuredTuner:
    """Returns the tuner of a search; its trials are in the folder `search` of the search's folder.

    Args:
        hypermodel: What builds the models.
        config: The settings.
        directory: The folder of the search.
        overwrite: Whether trials of an earlier search in it are removed.
        teacher: The model that compressed networks learn from; None: they learn from none.
    """
    classes: dict[str, Any] = {
        "evolution": EvolutionTuner,
        "reinforce": ReinforceTuner,
        "random": RandomTuner,
        "supernet": SupernetTuner,
    }
    more: dict[str, Any] = {}
    if config.algorithm == "supernet":
        more["supernet"] = SupernetConfig(
            epochs=config.supernet_epochs,
            seconds=config.supernet_seconds,
            evaluations=config.evaluations,
        )
    executor = None
    if config.workers:
        executor = functools.partial(TrialProcesses, config.workers, config.trial_timeout)
    # keras_tuner prints which file a search is read from; a job says what was done of it.
    with contextlib.redirect_stdout(io.StringIO()):
        return classes[config.algorithm](
            hypermodel,
            list(config.objectives),
            config.max_trials,
            config.seed,
            sampler=sampler_of(config),
            limits=config.limits,
            config=TunerConfig(
                target_latency_ms=config.target_latency_ms,
                target_latency_ratio=config.target_latency_ratio,
                latency_exponent=config.latency_exponent,
                threads=config.threads,
                inherit=config.inherit,
                halving=config.halving,
                min_epochs=config.min_epochs,
                teacher=teacher,
                latency_seconds=config.latency_seconds,
                measure_on=config.measure_on,
                patch_macs_ratio=config.patch_macs_ratio,
                executor=executor,
            ),
            device=Device(config.accelerator, config.runtime_flash, config.runtime_ram),
            directory=str(directory),
            project_name="search",
            overwrite=overwrite,
            **more,
        )
