"""What structured pruning has to keep: a smaller model equals the one that ignores the channels."""

import numpy as np
from model_kinds import answers
from random_graphs import examples

from tfnas.measure.profile import profile
from tfnas.pruning.structured.channel_groups import trace
from tfnas.pruning.structured.channel_masks import mask_channels
from tfnas.pruning.structured.channel_selection import best_of_each_layer
from tfnas.pruning.structured.remaining_cost import RemainingCosts
from tfnas.pruning.structured.slicing import slice_channels


def half_removed(dependencies, seed):
    """Half of the removable channels of each group, at random; each tensor keeps one."""
    rng = np.random.default_rng(seed)
    removed = np.zeros(len(dependencies.roots), bool)
    needed = best_of_each_layer(dependencies, rng.random(len(removed)))
    for group in dependencies.groups:
        free = [root for root in rng.permutation(group.removable) if int(root) not in needed]
        removed[free[: -(-len(free) // 2)]] = True
    return removed


def assert_pruned_equals_masked(model, seed=0, tolerance=2e-5):
    """Removes half of the channels and compares; returns dependencies, removal, smaller model."""
    dependencies = trace(model)
    removed = half_removed(dependencies, seed)
    smaller = slice_channels(model, dependencies, removed)
    masked = mask_channels(model, dependencies, removed)
    x = examples(model)
    for got, expected in zip(answers(smaller, x), answers(masked, x), strict=True):
        assert np.isfinite(expected).all()
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(got / scale, expected / scale, atol=tolerance)
    costs = RemainingCosts(dependencies, model.count_params())
    assert smaller.count_params() == costs.parameters(removed)
    assert profile(smaller).macs == costs.macs(removed)
    return dependencies, removed, smaller
