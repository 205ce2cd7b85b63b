"""Recipes that `compress` tries, by the candidates so far."""

import dataclasses

import pytest
from planning import FORMATS, candidate, walked

from tfnas.compression.budget import Budget
from tfnas.compression.effort import EFFORTS, Effort
from tfnas.compression.planner import first_state
from tfnas.compression.recipe import Recipe, RecipeStep


def tried(budget, effort, outcomes):
    """Returns the names of the recipes that are tried, for candidates of `outcomes(recipe)`."""
    return walked(first_state(Budget.of(budget), EFFORTS.get(effort, effort)), outcomes)


def test_quick_is_formats_alone():
    assert tried({"max_drop": 1}, "quick", candidate) == FORMATS


def test_fractions_follow_the_budget_and_the_accuracy():
    def good(recipe):
        return candidate(recipe, drop=0.1, size=1000)

    found = tried({"max_drop": 1, "max_macs": 0.5}, "normal", good)
    # Too much is computed still: fewer channels, and no training that could not change it.
    assert found == [*FORMATS, "prune_channels 0.5, int8", "prune_channels 0.35, int8"]
    found = tried({"max_drop": 1, "max_bytes": 500}, "normal", good)
    assert found[4] == "prune_channels 1 weights 0.47, int8"  # no limit on costs
    found = tried({"max_drop": 1, "max_macs": 0.5, "max_bytes": 500}, "normal", good)
    assert found[4] == "prune_channels 0.5 weights 0.47, int8"
    assert tried({"max_bytes": 10}, "normal", good)[4] == "prune_channels 1 weights 0.05, int8"

    def bad(recipe):
        pruned = bool(recipe.steps)
        return candidate(recipe, drop=5.0 if pruned else 0.1, macs=0.5 if pruned else 1.0)

    found = tried({"max_drop": 1, "max_macs": 0.5}, "normal", bad)
    assert found[4:] == [
        "prune_channels 0.5, int8",
        "prune_channels 0.5, dynamic",  # the channels lose it, and the limit forbids more
    ]
    found = tried({"max_drop": 1}, "normal", bad)
    assert found[6:] == ["prune_channels 0.75, int8", "prune_channels 0.75, dynamic"]


def test_a_candidate_within_the_budget_is_enough_unless_the_effort_is_thorough():
    def halved(recipe):
        return candidate(recipe, drop=0.1, macs=0.5 if recipe.steps else 1.0)

    budget = {"max_drop": 1, "max_macs": 0.5}
    halves = ["prune_channels 0.5, int8", "prune_channels 0.5, int8 trained"]
    milder = ["prune_channels 0.75, int8"]  # what the limit costs; integers lose little
    assert tried(budget, "normal", halved)[4:] == halves

    def more_lost(recipe):
        return candidate(recipe, drop=0.31, macs=0.5 if recipe.steps else 1.0)

    assert "prune_channels 0.75, int8 trained" in tried(budget, "thorough", more_lost)
    thorough = tried(budget, "thorough", halved)
    assert thorough[5:8] == halves + milder
    assert "prune_channels 0.35, int8" in thorough


def test_training_continues_where_the_accuracy_is_slightly_too_low():
    def outcome(drops):
        return lambda r: candidate(r, drops(r) if r.steps else 0.1, macs=0.5 if r.steps else 1.0)

    def longer(recipe):
        return any(step.technique == "train" for step in recipe.steps)

    budget = {"max_drop": 1, "max_macs": 0.5}
    found = tried(budget, "normal", outcome(lambda r: 0.9 if longer(r) else 2.5))
    more = ["prune_channels 0.5, train 2.5, int8", "prune_channels 0.5, train 2.5, int8 trained"]
    assert found[4:7] == ["prune_channels 0.5, int8", *more]
    found = tried(budget, "normal", outcome(lambda r: 1.2))  # rounding may be all that it lacks
    assert found[4:7] == ["prune_channels 0.5, int8", "prune_channels 0.5, int8 trained", more[1]]
    found = tried(budget, "normal", outcome(lambda r: 5.0))
    assert found[4:] == ["prune_channels 0.5, int8", "prune_channels 0.5, dynamic"]

    def rounding(recipe):
        return 1.0 if recipe.mode == "dynamic" else 2.0 - longer(recipe) if recipe.aware else 5.0

    found = tried(budget, "normal", outcome(rounding))
    assert found[4:8] == [
        *("prune_channels 0.5, int8", "prune_channels 0.5, dynamic"),
        *("prune_channels 0.5, int8 trained", more[1]),
    ]
    found = tried(budget, "normal", outcome(lambda r: -0.5))
    assert found[4:] == ["prune_channels 0.5, int8"]  # rounding costs nothing


def test_quantization_aware_training_comes_first_where_the_original_needed_it():
    def outcome(recipe):
        return candidate(recipe, drop=0.5 if recipe.aware else 3.0, macs=0.5)

    found = tried({"max_drop": 1, "max_macs": 0.5}, "normal", outcome)
    assert found[4:7] == [
        "int8 trained",
        "prune_channels 0.5, int8",
        "prune_channels 0.5, int8 trained",
    ]
    assert not any("train 2.5" in name for name in found)


@pytest.mark.parametrize("effort", ["normal", "thorough"])
@pytest.mark.parametrize(
    "budget",
    [{"max_macs": 0.97}, {"max_macs": 0.92}, {"max_bytes": 990}, {"max_latency_ratio": 0.49}],
)
@pytest.mark.parametrize("drop", [-1.0, 0.5, 1.2, 2.0, 9.0])
def test_no_recipe_is_tried_twice(budget, effort, drop):
    def outcome(recipe):
        step = next(iter(recipe.steps), None)
        fraction = 1.0 if step is None else min(step.amount, step.weights or 1.0)
        return candidate(
            recipe, drop if step else 0.0, int(1000 * fraction), 0.5 * fraction, macs=fraction
        )

    found = tried({"max_drop": 1.0, **budget}, effort, outcome)
    assert len(found) == len(set(found))


def test_accurate_candidates_that_are_too_large_are_followed_by_smaller_ones():
    """Not to more weights at 4 bits, which could not be faster."""

    def outcome(recipe):
        fraction = next((s.amount for s in recipe.steps), 1.0)
        return candidate(recipe, -0.1, int(1000 * fraction), 0.5 * fraction**0.5)

    found = tried({"max_drop": 1, "max_latency_ratio": 0.35, "max_bytes": 900}, "normal", outcome)
    fractions = list(dict.fromkeys(name.split(",")[0] for name in found[4:]))
    assert fractions[0].startswith("prune_channels 0.66 weights 0.85")
    assert fractions[1].startswith("prune_channels 0.46 weights 0.59")


def test_four_bits_are_trained_where_only_bytes_are_exceeded():
    def outcome(recipe):
        fraction = next((s.weights or s.amount for s in recipe.steps), 1.0)
        size = int(1000 * fraction * (0.6 if recipe.mode == "int8x4" else 1.0))
        drop = 30.0 if recipe.mode == "int8x4" and not recipe.aware else 0.1
        return candidate(recipe, drop=drop, size=size)

    found = tried({"max_drop": 1, "max_bytes": 650}, "normal", outcome)
    assert found == [*FORMATS, "int8x4 trained"]

    def lost(recipe):
        original = outcome(recipe)
        narrow = any(step.weights == 0.38 for step in recipe.steps)
        costs = dataclasses.replace(original.costs, drop=9.0 if narrow else original.costs.drop)
        return dataclasses.replace(original, costs=costs)

    found = tried({"max_drop": 1, "max_bytes": 400}, "normal", lost)
    # 0.95 of 400 by the 1000 bytes of int8, which lose too much, then by 600.
    assert found[4:6] == [
        "prune_channels 1 weights 0.38, int8",
        "prune_channels 1 weights 0.38, dynamic",
    ]
    step = "prune_channels 1 weights 0.63"  # int8 has too many bytes, trained or not
    assert found[6:8] == [f"{step}, {mode}" for mode in ("int8", "int8x4 trained")]
    found = tried({"max_drop": 1, "max_gzip_bytes": 1}, "normal", outcome)
    assert "int8x4 trained" not in found


def test_quantization_aware_training_where_int8_loses_accuracy():
    found = tried({"max_drop": 0.5}, "normal", lambda r: candidate(r, drop=1.0))
    assert found[4] == "int8 trained"


def test_beaten_candidates_are_not_developed_further():
    def outcome(recipe):
        return dataclasses.replace(candidate(recipe), beaten=bool(recipe.steps))

    assert "prune_channels 0.5, int8 trained" not in tried({"max_drop": 1}, "normal", outcome)


def test_a_limit_on_gzipped_bytes_leads_to_zeros_and_few_values():
    def outcome(recipe):
        zeros = next((s.amount for s in recipe.steps if s.technique == "prune"), 0)
        return candidate(recipe, gz=int(100 * (1 - zeros)))

    found = tried({"max_gzip_bytes": 30}, Effort(("int8",), 1), outcome)
    assert found == [
        "int8",
        "prune 0.6, cluster 16, int8 trained",
        "prune 0.75, cluster 16, int8 trained",
    ]


def test_low_rank_replaces_channel_pruning_that_fails():
    def outcome(recipe):
        pruned = any(s.technique == "prune_channels" for s in recipe.steps)
        return None if pruned else candidate(recipe, drop=0.1)

    effort = dataclasses.replace(EFFORTS["thorough"], rounds=1, ladder=(0.5,))
    found = tried({"max_drop": 1}, effort, outcome)
    assert found[5:] == [
        "prune_channels 0.5, int8",
        "factorize 0.5, int8",
        "factorize 0.5, int8 trained",
    ]


def test_recipes_keep_the_order_of_techniques():
    steps = RecipeStep("cluster", 16), RecipeStep("prune", 0.5)
    with pytest.raises(
        ValueError, match="order prune_channels, factorize, factorize_dense, train, prune"
    ):
        Recipe(steps, "int8")
    assert Recipe(steps[::-1], "int8", aware=True).key == "prune_0.5-cluster_16-int8_trained"
