"""Random graphs as files: the float file equals Keras, that of a QAT model this model."""

import numpy as np
import pytest
from coverage_checks.cells import largest_difference
from coverage_checks.technique_checks import steps_apart
from model_kinds import answers, flat
from random_graphs import examples, random_model

import tfnas
from tfnas.quantization.quantize_aware import quantize_aware_partly

COUNT, QUICK = 100, 5
SEEDS = [pytest.param(s, marks=() if s < QUICK else pytest.mark.slow) for s in range(COUNT)]
# Known defects: files farther from their models than one step a rounding.
FARTHER = {
    3: "attention, then a GRU: 33 steps, 14 roundings; the cause is not known yet",
    88: "a LayerNormalization of two channels that are a step apart: 14 steps, 9 roundings",
}
WITH_DEFECTS = [
    pytest.param(
        s,
        marks=[
            *([] if s < QUICK else [pytest.mark.slow]),
            *([pytest.mark.xfail(reason=FARTHER[s], strict=False)] if s in FARTHER else []),
        ],
    )
    for s in range(COUNT)
]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_float_file_equals_keras(seed):
    model = random_model(seed)
    x = examples(model)
    expected = answers(model, x)
    scale = max(1.0, *(float(np.abs(each).max()) for each in expected))
    found = flat(tfnas.to_tflite(model).predict(x))
    assert largest_difference(found, expected) <= 1e-5 * scale


@pytest.mark.parametrize("seed", WITH_DEFECTS)
def test_a_quantization_aware_file_equals_its_model(seed):
    model = random_model(seed)
    x = examples(model, 40)
    trainable = quantize_aware_partly(model, data=x)
    median, most, depth = steps_apart(trainable, tfnas.to_tflite(trainable, "int8"), x)
    assert median <= 1.001
    assert most <= depth + 0.001
