"""Random graphs as files: the float file equals Keras, that of a QAT model this model."""

import numpy as np
import pytest
from coverage_checks.cells import largest_difference
from coverage_checks.technique_checks import steps_apart
from model_kinds import answers, flat
from random_graphs import examples, random_model

import tfnas

COUNT, QUICK = 100, 5
SEEDS = [pytest.param(s, marks=() if s < QUICK else pytest.mark.slow) for s in range(COUNT)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_float_file_equals_keras(seed):
    model = random_model(seed)
    x = examples(model)
    expected = answers(model, x)
    scale = max(1.0, *(float(np.abs(each).max()) for each in expected))
    found = flat(tfnas.to_tflite(model).predict(x))
    assert largest_difference(found, expected) <= 1e-5 * scale


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quantization_aware_file_equals_its_model(seed):
    model = random_model(seed)
    x = examples(model, 40)
    trainable = tfnas.quantize_aware(model, data=x)
    median, most, depth = steps_apart(trainable, tfnas.to_tflite(trainable, "int8"), x)
    assert median <= 1.001
    assert most <= depth + 0.001
