"""The best trial of a search as it was left: nothing is trained or converted."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import keras

from tfnas.nas.measured_trial import MeasuredTrial
from tfnas.nas.tuner import MeasuredTuner
from tfnas.runtime.files import save_model


def model_of_trial(tuner: MeasuredTuner, trial_id: str) -> keras.Model:
    """Returns the model of a trial, ready to be saved.

    Args:
        tuner: The tuner of the search.
        trial_id: Id of a trial that ended well.
    """
    model = tuner.load_model(tuner.oracle.get_trial(trial_id))
    if model.optimizer is not None:  # Keras warns of a saved one that was not built
        model.optimizer.build(model.trainable_variables)
    return model


def keep_trial(
    tuner: MeasuredTuner, trial: MeasuredTrial, directory: pathlib.Path, modes: Sequence[str]
) -> None:
    """Writes the model and the measured file of a trial, in place of those of an earlier best.

    Args:
        tuner: The tuner of the search.
        trial: A trial that ended well.
        directory: The folder of the search.
        modes: Modes of the files of a search that has ended, that of the trial's file first.
    """
    save_model(model_of_trial(tuner, trial.trial_id), directory / "best.keras")
    measured, *others = (directory / f"best_{mode}.tflite" for mode in modes)
    trial.artifact().save(measured)
    for path in others:
        path.unlink(missing_ok=True)
