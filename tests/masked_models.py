"""What structured pruning has to keep: a smaller model equals the one that ignores the channels."""

import keras
import numpy as np
from random_graphs import examples

from tfnas.measure.profile import profile
from tfnas.pruning.structured.channel_groups import trace
from tfnas.pruning.structured.channel_masks import mask_channels
from tfnas.pruning.structured.channel_selection import best_of_each_layer
from tfnas.pruning.structured.remaining_cost import RemainingCosts
from tfnas.pruning.structured.slicing import slice_channels


def outputs_of(model, inputs):
    """The outputs of a model as arrays."""
    result = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return [np.asarray(t) for t in keras.tree.flatten(result)]


def half_removed(dependencies, seed):
    """Half of the removable channels of each group, at random; each tensor keeps one."""
    rng = np.random.default_rng(seed)
    removed = np.zeros(len(dependencies.roots), bool)
    needed = best_of_each_layer(dependencies, rng.random(len(removed)))
    for group in dependencies.groups:
        free = [root for root in rng.permutation(group.removable) if int(root) not in needed]
        removed[free[: -(-len(free) // 2)]] = True
    return removed


def assert_pruned_equals_masked(model, seed=0, inputs=None):
    """Removes half of the channels and compares; returns the dependencies and the removal."""
    dependencies = trace(model)
    removed = half_removed(dependencies, seed)
    smaller = slice_channels(model, dependencies, removed)
    masked = mask_channels(model, dependencies, removed)
    inputs = examples(model) if inputs is None else inputs
    for got, expected in zip(outputs_of(smaller, inputs), outputs_of(masked, inputs), strict=True):
        assert np.isfinite(expected).all()
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(got / scale, expected / scale, atol=2e-5)
    costs = RemainingCosts(dependencies, model.count_params())
    assert smaller.count_params() == costs.parameters(removed)
    assert profile(smaller).macs == costs.macs(removed)
    return dependencies, removed, smaller
