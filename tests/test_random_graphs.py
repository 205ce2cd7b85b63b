"""Random graphs in Keras alone: factors of full rank compute the same, and what is saved loads."""

import numpy as np
import pytest
from masked_models import half_removed
from model_kinds import answers
from random_graphs import examples, random_model

import tfnas
from tfnas.graph.functional import walk
from tfnas.low_rank.factorizable_layers import find_layers
from tfnas.low_rank.factorized_model import build, layer_factors
from tfnas.low_rank.options import Options
from tfnas.pruning.structured.channel_groups import trace
from tfnas.pruning.structured.slicing import slice_channels

METHODS = ("svd", "spatial", "tucker")


def of_full_rank(model, first):
    """Replaces all layers that can be by factors that leave nothing out; `first` where it fits."""
    flow, parts = walk(model), []
    for unit in find_layers(flow, METHODS)[0]:
        options = Options(unit)
        method = first if first in unit.methods else unit.methods[0]
        parts.append(layer_factors(options, options.at(method, options.full(method)), None))
    return build(model, flow, parts), parts


def assert_equal(found, model, x):
    expected = answers(model, x)
    scale = max(1.0, *(float(np.abs(each).max()) for each in expected))
    for one, other in zip(answers(found, x), expected, strict=True):
        np.testing.assert_allclose(one / scale, other / scale, atol=2e-5)


def assert_reloads(model, path, x):
    model.save(path)
    loaded = tfnas.load_model(path)
    for one, other in zip(answers(loaded, x), answers(model, x), strict=True):
        np.testing.assert_array_equal(one, other)


def assert_factors_and_files_equal(seed, folder, steps=8):
    model = random_model(seed, steps)
    x = examples(model)
    factored, parts = of_full_rank(model, METHODS[seed % 3])
    assert parts  # the last layers are Dense
    assert_equal(factored, model, x)
    assert_reloads(factored, folder / "factored.keras", x)
    dependencies = trace(model)
    smaller = slice_channels(model, dependencies, half_removed(dependencies, seed))
    assert_reloads(smaller, folder / "smaller.keras", x)


@pytest.mark.parametrize("seed", range(3))
def test_factors_of_random_graphs_compute_the_same_and_reload(seed, tmp_path):
    assert_factors_and_files_equal(seed, tmp_path, steps=6)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_factors_of_many_random_graphs_compute_the_same_and_reload(block, tmp_path):
    for seed in range(100 + 25 * block, 125 + 25 * block):
        assert_factors_and_files_equal(seed, tmp_path)
