"""Random graphs in Keras alone: factors of full rank compute the same, and what is saved loads."""

import numpy as np
import pytest
from coverage_checks.cells import largest_difference
from masked_models import half_removed
from model_kinds import answers
from random_graphs import examples, random_model
from slow_cases import slow_but

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


def moved_by_rounding(model, x, draws=3):
    """How far the outputs move where each weight moves by a rounding of float32, at most."""
    before, expected = model.get_weights(), answers(model, x)
    rng, moved = np.random.default_rng(0), []
    for _ in range(draws):
        factors = [1 + 2.0**-24 * rng.uniform(-1, 1, each.shape) for each in before]
        model.set_weights([(a * b).astype(a.dtype) for a, b in zip(before, factors, strict=True)])
        moved.append(largest_difference(answers(model, x), expected))
    model.set_weights(before)
    return max(moved)


def assert_equal(found, model, x):
    """Within a rounding of the outputs, or within a few of the weights where a model makes much
    of one, as seed 188 does, by attention and a recurrent layer after it."""
    expected = answers(model, x)
    scale = max(1.0, *(float(np.abs(each).max()) for each in expected))
    apart = largest_difference(answers(found, x), expected)
    if apart > 2e-5 * scale:
        assert apart <= 4 * moved_by_rounding(model, x)


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


@pytest.mark.parametrize("seed", slow_but([*range(3)], 0, 1))
def test_factors_of_random_graphs_compute_the_same_and_reload(seed, tmp_path):
    assert_factors_and_files_equal(seed, tmp_path, steps=6)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_factors_of_many_random_graphs_compute_the_same_and_reload(block, tmp_path):
    for seed in range(100 + 25 * block, 125 + 25 * block):
        assert_factors_and_files_equal(seed, tmp_path)
