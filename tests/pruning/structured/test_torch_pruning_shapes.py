"""The shapes of Torch-Pruning's tests: each loses channels, and computes what zeros would."""

import pathlib
import runpy

import keras
import pytest
from masked_models import assert_pruned_equals_masked

ROOT = pathlib.Path(__file__).parents[3]
SHAPES = runpy.run_path(str(ROOT / "benchmarks" / "pruning_shapes.py"))["SHAPES"]
HARD = ("Swin", "unbind and stack")


def test_there_are_all_of_them():
    assert len(SHAPES) == 52


@pytest.mark.parametrize(
    "name",
    [name if name in HARD else pytest.param(name, marks=pytest.mark.slow) for name in SHAPES],
)
def test_a_shape_loses_channels(name):
    keras.utils.set_random_seed(0)
    model = SHAPES[name]()
    _, removed, smaller = assert_pruned_equals_masked(model)
    assert removed.any()
    assert smaller.count_params() < 0.8 * model.count_params()
