"""Random graphs as files: the float file equals Keras, that of a QAT model this model."""

import keras
import numpy as np
import pytest
from coverage_checks.cells import largest_difference
from coverage_checks.technique_checks import steps_apart
from each_rounding import apart_at_each_rounding
from model_kinds import answers, flat
from random_graphs import examples, random_model

import tfnas
from tfnas.quantization.quantize_aware import quantize_aware_partly

COUNT, QUICK = 100, 2
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
    """Within a step of the output for each rounding in depth.

    The model itself may make more of a step: the softmax of seed 3 takes scores of which a step is
    0.86, so that one step before it is 54 after it, and 33 at the output. Then each rounding must
    be within a step by itself, from the same numbers before it.
    """
    model = random_model(seed)
    x = examples(model, 40)
    trainable = quantize_aware_partly(model, data=x)
    file = tfnas.to_tflite(trainable, "int8")
    median, most, depth = steps_apart(trainable, file, x)
    assert median <= 1.001
    if most > depth + 0.001:
        apart = apart_at_each_rounding(trainable, file, x)
        assert max(apart.values()) <= 1.001, apart


def test_a_rounding_that_departs_is_named():
    chain = [keras.layers.Dense(4, "relu", name="one"), keras.layers.Dense(3, name="two")]
    model = keras.Sequential([keras.Input((5,)), *chain])
    x = examples(model, 40)
    trainable = tfnas.quantize_aware(model, data=x)
    file = tfnas.to_tflite(trainable, "int8")
    kernel = next(each for each in trainable.trainable_variables if each.shape == (4, 3))
    kernel.assign(1.1 * kernel)  # beside the file
    *before, last = apart_at_each_rounding(trainable, file, x).items()
    assert last[0] == "two_range"
    assert last[1] > 5
    assert max(apart for _, apart in before) <= 1.001
