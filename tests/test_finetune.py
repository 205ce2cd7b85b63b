"""How the commands train a given model further."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from tfnas.pipeline.finetune import finetune
from tfnas.pipeline.settings import TrainingSettings


def test_the_model_given_can_be_the_teacher(tiny_model, digits):
    """With labels that say nothing, only the teacher can tell what an image shows."""
    silent = dataclasses.replace(digits, y_train=np.zeros_like(digits.y_train))
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Rescaling(1 / 16), layers.Flatten(), layers.Dense(10)]
    )
    settings = TrainingSettings(epochs=8, batch_size=32, learning_rate=1e-2, distill=1.0)
    finetune(student, silent, settings, teacher=tiny_model)
    told, taught = (m.predict(digits.x_test, verbose=0).argmax(-1) for m in (student, tiny_model))
    assert (told == taught).mean() > 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distill": 1.5}, r"distill must be in \[0, 1\], got 1.5"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"epochs": -1}, "epochs must be a whole number >= 0"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**{"epochs": 1, **change})
