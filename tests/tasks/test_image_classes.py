"""The task of image classifiers."""

import keras
import numpy as np
import pytest
from keras import layers

from tfnas.tasks.image_classes import ImageClasses
from tfnas.tasks.task import Distillation


def classifier(units, activation, loss):
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(units, activation)]
    )
    model.compile("adam", loss, jit_compile=False)
    return model


@pytest.mark.parametrize(
    ("units", "activation"), [(3, "softmax"), (3, None), (1, "sigmoid"), (1, None)]
)
def test_a_classifier_is_distilled_by_classes_whatever_it_was_compiled_with(units, activation):
    x, y = np.random.default_rng(0).normal(size=(8, 2, 2, 1)), np.arange(8) % max(2, units)
    teacher = classifier(units, activation, "mse")
    task = ImageClasses()
    student = classifier(units, activation, "mse")
    distiller = task.distiller(student, Distillation(teacher, 0.5))
    labels_alone = distiller.compute_loss(x, y, training=False)
    expected = task.loss(student)(y.reshape(-1, 1) if units == 1 else y, student(x))
    assert float(labels_alone) == pytest.approx(float(expected), rel=1e-4)
