"""Steps of the plan from states written by hand, at least one for each phase."""

import copy
import dataclasses
import doctest
import math

import pytest
from planning import walked

from tfnas.compression import planner, tolerance
from tfnas.compression.budget import Budget, CandidateCosts
from tfnas.compression.effort import EFFORTS, Effort
from tfnas.compression.known_file import KnownFile
from tfnas.compression.plan_settings import PlanSettings
from tfnas.compression.planner import first_state, next_step
from tfnas.compression.planner_state import (
    Attempt,
    ChooseAmount,
    Finished,
    PlannerState,
    TrainInt8,
    TryAmount,
    TryFewerBits,
    TryFormats,
    TryMore,
    TryZeros,
)
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.targets_from_budget import steps_for_budget, with_fewer_weights
from tfnas.compression.tolerance import Tolerance
from tfnas.tasks.assessment import ACCURACY, Metric

NORMAL = EFFORTS["normal"]
HALF = RecipeStep("prune_channels", 0.5)
LONGER = RecipeStep("train", 2.5)
THOROUGH = EFFORTS["thorough"]
HALVES = ChooseAmount("prune_channels", HALF, "the accuracy allows it")


def file(steps=(), mode="int8", aware=False, drop=0.1, size=1000, beaten=False, **costs):
    macs = 0.5 if steps and steps[0].technique == "prune_channels" else 1.0
    fields = {"gzip_bytes": size, "latency": 0.5, "macs": macs, "memory": 10, **costs}
    made = CandidateCosts(drop, size, **fields)
    return KnownFile(Recipe(steps, mode, aware), made, beaten)


INT8 = file()
LOW_BITS = file(mode="int8x4", drop=20.0, size=600)


def state_in(phase, budget=None, files=(INT8,), effort=NORMAL, trained=None, met=False, **fields):
    """Returns a state; `fields` are those of its settings."""
    settings = PlanSettings(effort.formats, **fields)
    budget = Budget.of(budget or {"max_drop": 1.0, "max_macs": 0.5})
    return PlannerState(budget, effort, settings, phase, tuple(files), trained, met)


def asked(state):
    """Returns the name of the recipe that a state asks for, None where the plan has ended."""
    recipe = next_step(state, None)[1]
    return None if recipe is None else str(recipe)


def answered(state, failed=False, **costs):
    """Returns the state after an outcome with such costs, and the name of the next recipe."""
    state, recipe = next_step(state, None)
    outcome = dataclasses.replace(file(recipe.steps, **costs), recipe=recipe)
    state, recipe = next_step(state, None if failed else outcome)
    return state, None if recipe is None else str(recipe)


@pytest.mark.parametrize("module", [planner, tolerance])
def test_the_examples_are_true(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# --- phases of the uncompressed model


def test_formats_follow_each_other_and_files_are_kept():
    state = state_in(TryFormats(("int8", "int8x4")), files=())
    assert asked(state) == "int8"
    after, name = answered(state)
    assert name == "int8x4"
    assert after.files == (INT8,)
    assert after.phase == TryFormats(("int8x4",))
    after, _ = answered(state, failed=True)
    assert after.files == ()


def test_later_formats_are_tried_where_int8_failed():
    state = state_in(TryFormats(()), files=(), later=("float16",))
    assert asked(state) == "float16"
    assert asked(dataclasses.replace(state, files=(INT8,))) == "prune_channels 0.5, int8"
    tried = state_in(TryFormats((), later=True), files=(), later=("float16",))
    assert asked(tried) == "int8 trained"  # once


@pytest.mark.parametrize(
    ("drop", "integers", "name"),
    [
        (0.31, True, "int8 trained"),
        (0.3, True, "prune_channels 0.5, int8"),
        (1.0, False, "prune_channels 0.5, int8"),
        (1.1, False, "int8 trained"),
    ],
)
def test_int8_is_trained_where_it_loses_accuracy(drop, integers, name):
    files = (file(drop=drop),)
    assert asked(state_in(TryFormats(()), {"max_drop": 1.0}, files, integers=integers)) == name


@pytest.mark.parametrize("budget", [{"max_macs": 0.5}, {"max_bytes": 900}])
def test_int8_that_can_never_fit_is_not_trained(budget):
    """That it loses by rounding is known without it: training for int8 comes first all the same."""
    state = state_in(TryFormats(()), {"max_drop": 1.0, **budget}, (file(drop=2.0),))
    assert state.rounding_loses
    name = asked(state).removesuffix(", int8")
    assert name.startswith("prune_channels")
    assert answered(state, drop=2.0, macs=0.5, size=900)[1] == f"{name}, int8 trained"


def test_formats_are_all_where_the_device_refuses():
    files = (file(refused="no kernel of SIGN"),)
    after, recipe = next_step(state_in(TryFormats(()), files=files, more=(HALF,)), None)
    assert recipe is None
    assert after.phase == Finished()


@pytest.mark.parametrize(("more", "steps"), [((), None), ((HALF,), (HALF,))])
def test_where_nothing_is_trained_only_further_techniques_follow_the_formats(more, steps):
    state = state_in(TryFormats(()), files=(INT8,), effort=EFFORTS["quick"], more=more)
    recipe = next_step(state, None)[1]
    assert (recipe and recipe.steps) == steps


def test_trained_int8_replaces_the_untrained_file():
    before = file(drop=5.0)
    state, name = answered(state_in(TrainInt8(), files=(before,)), drop=0.2)
    assert state.trained == file(aware=True, drop=0.2)
    assert state.known == (state.trained,)
    assert name == "prune_channels 0.5, int8"
    state, _ = answered(state_in(TrainInt8(), files=(before, LOW_BITS)), failed=True)
    assert state.known == (before, LOW_BITS)
    assert state_in(TrainInt8(), files=(LOW_BITS,)).known == ()  # nothing to compare with


def test_four_bits_end_the_plan_where_they_meet_the_budget():
    state = state_in(TryFewerBits(), {"max_bytes": 650, "max_drop": 1.0}, (INT8, LOW_BITS))
    assert asked(state) == "int8x4 trained"
    after, name = answered(state, size=600)
    assert after.phase == Finished()
    assert after.met
    assert name is None
    _, name = answered(state, size=600, drop=1.5)
    assert name == "prune_channels 1 weights 0.61, int8"
    # Where they could not meet the limit they are left out.
    smaller = dataclasses.replace(state, budget=Budget(max_bytes=500))
    assert asked(smaller) == "prune_channels 1 weights 0.47, int8"


# --- amounts of a technique


def test_the_next_amount_is_smaller_or_half_way_back():
    def chosen(tried, **fields):
        return asked(state_in(dataclasses.replace(HALVES, tried=tried, left=1, **fields)))

    assert chosen({1.0: True, 0.5: True}) == "prune_channels 0.35, int8"
    assert chosen({1.0: True, 0.5: False}) == "prune_channels 0.75, int8"
    assert chosen({1.0: True, 0.5: True, 0.3: False}) == "prune_channels 0.4, int8"
    assert chosen({1.0: True, 0.2: True}) is None  # 0.15 is the least
    assert chosen({1.0: True, 0.5: True}, waiting=(RecipeStep("prune_channels", 0.9),)) == (
        "prune_channels 0.9, int8"
    )
    with_weights = RecipeStep("prune_channels", 0.5, 0.6)
    assert chosen({1.0: True, 0.5: True}, scaled=with_weights) == (
        "prune_channels 0.35 weights 0.42, int8"
    )


def test_a_technique_ends_where_no_amount_is_left():
    amounts = dataclasses.replace(HALVES, left=0, others=("factorize_dense",))
    ladder = Effort(("int8",), 1, ladder=(0.5,))
    assert asked(state_in(amounts, effort=ladder)) == "factorize_dense 0.5, int8"
    met = dataclasses.replace(amounts, met=True)
    assert asked(state_in(met, effort=ladder)) is None  # the other one is not needed
    assert asked(state_in(met, {"max_drop": 1.0}, effort=ladder)) == "factorize_dense 0.5, int8"
    gzip = state_in(met, {"max_gzip_bytes": 100}, effort=ladder)
    assert asked(gzip) == "prune 0.6, cluster 16, int8 trained"


def after_half(file, effort=NORMAL, **fields):
    """Returns the state after an attempt with half of the channels ended, and the next recipe."""
    attempt = Attempt((HALF,), "half", part="ended", best=file)
    amounts = dataclasses.replace(HALVES, **fields)
    return next_step(state_in(TryAmount(amounts, HALF, attempt), effort=effort), None)


def test_the_price_of_a_limit_is_shown_where_its_amount_meets_the_budget():
    waiting = (RecipeStep("prune_channels", 0.6),)
    fields = {"demanded": (HALF,), "waiting": waiting, "left": 1}
    assert after_half(file((HALF,)), **fields)[1] is None  # it can't be chosen
    after, recipe = after_half(file((HALF,)), THOROUGH, **fields)
    assert str(recipe) == "prune_channels 0.75, int8"
    assert recipe.why == "shows the price of the limit"
    assert after.phase.amounts.met
    assert after.phase.amounts.tried == {1.0: True, 0.5: True}
    assert after.phase.attempt.enough > 0  # training must be worth its time


def test_an_amount_that_is_demanded_and_loses_too_much_ends_the_technique():
    """Half-way back would exceed the limit that demands it, unless 4 bits leave more."""
    bad, waiting = file((HALF,), drop=5.0), (RecipeStep("prune_channels", 0.6),)
    assert after_half(bad, demanded=(HALF,), left=3)[1] is None
    after, recipe = after_half(bad, demanded=(HALF, *waiting), waiting=waiting, left=3)
    assert str(recipe) == "prune_channels 0.6, int8"
    assert recipe.why == "4 bits a weight leave more channels"
    assert after.phase.amounts.tried == {1.0: True, 0.5: False}
    assert str(after_half(bad, left=3)[1]) == "prune_channels 0.75, int8"  # no limit demands it


def in_bytes(phase, **fields):
    """Returns a state of a model of 900 weights, whose int8 file has 1,000 bytes, for 500."""
    return state_in(phase, {"max_bytes": 500, "max_drop": 1.0}, weights=900, **fields)


def too_large(weights, size):
    """Returns a step, and its attempt, which a file of too many bytes ended."""
    step = RecipeStep("prune_channels", 1.0, weights)
    large = file((step,), size=size)
    return step, Attempt((step,), "bytes", part="ended", best=large, too_large=large)


def test_files_that_are_slightly_too_large_are_followed_by_fewer_weights_until_one_is_not():
    """By what the files before measured: 0.03 of the weights saved 10 bytes instead of 27."""
    step, ended = too_large(0.5, 520)
    amounts = dataclasses.replace(HALVES, scaled=step, demanded=(step,), left=1)
    after, recipe = next_step(in_bytes(TryAmount(amounts, step, ended)), None)
    assert [step.weights for step in recipe.steps] == [0.47]  # 25 of 900 bytes less
    assert recipe.why == "the file was slightly larger than estimated"
    fractions, sizes = [0.47], [510, 505, 501]
    for size in sizes:
        amounts = after.phase.amounts
        step, ended = too_large(fractions[-1], size)
        state = dataclasses.replace(after, asked=None, phase=TryAmount(amounts, step, ended))
        after, recipe = next_step(state, None)
        fractions += [step.weights for step in (recipe.steps if recipe else ())]
    assert fractions == [0.47, 0.43, 0.4]
    assert recipe is None  # three times in all


def test_corrections_of_a_fraction_of_a_percent_are_fine():
    step = RecipeStep("prune_channels", 1.0, 0.5)
    large = KnownFile(Recipe((step,), "int8"), file((step,), size=26_272).costs)
    settings = PlanSettings((), weights=23_000)
    [fewer] = with_fewer_weights(step, large, Budget(max_bytes=26_244), settings)
    assert fewer.weights == 0.487
    assert with_fewer_weights(step, large, Budget(max_bytes=26_300), settings) == []
    assert with_fewer_weights(HALF, large, Budget(max_bytes=26_244), settings) == []


def test_nothing_is_trained_for_a_file_that_stays_too_large():
    step, _ = too_large(0.5, 520)
    amounts = dataclasses.replace(HALVES, scaled=step, demanded=(step,), left=1)
    state = in_bytes(TryAmount(amounts, step, Attempt((step,), "bytes")))
    assert answered(state, size=520, drop=1.5)[1] == "prune_channels 1 weights 0.47, int8"
    assert answered(state, size=490, drop=1.5)[1] == "prune_channels 1 weights 0.5, train 2.5, int8"
    assert answered(state, size=520, drop=4.1)[1] is None  # fewer weights lose more
    lossy = dataclasses.replace(amounts, lossy=0.48)
    state = in_bytes(TryAmount(lossy, step, Attempt((step,), "bytes")))
    assert answered(state, size=520, drop=1.5)[1] is None


def sized(fractions, **fields):
    """Returns the states of sizes that are measured in turn for a limit of 500 bytes."""
    step = RecipeStep("prune_channels", 1.0, fractions[0])
    amounts = dataclasses.replace(HALVES, scaled=step, demanded=(step,), waiting=(step,), left=1)
    return in_bytes(amounts, sized=True, **fields)


def test_the_size_is_measured_before_anything_is_trained():
    state = sized([0.5])
    assert asked(state) == "prune_channels 1 weights 0.5, int8 trained size"
    assert asked(sized([0.5], integers=False)) == "prune_channels 1 weights 0.5, int8 size"
    after, name = answered(state, size=490, drop=math.nan, latency=math.nan)
    assert name == "prune_channels 1 weights 0.5, int8"  # close to the limit
    assert not after.met  # nothing is known of its quality
    assert after.phase.amounts.tried == {1.0: True}
    assert after.phase.amounts.left == 0  # as before it
    assert answered(state, failed=True)[1] == "prune_channels 1 weights 0.5, int8"  # not known


def dense(weights, mode="int8", **fields):
    """Returns the state before an amount of low rank of 900 dense weights, for 500 bytes."""
    step = RecipeStep("factorize_dense", weights)
    amounts = ChooseAmount("factorize_dense", step, "bytes", (step,), (step,), left=1)
    return in_bytes(amounts, sized=True, dense=900, **fields)


def test_low_rank_is_sized_and_trained_where_only_the_trained_form_fits():
    """Scales for each channel of dense layers are in the file that is not trained for int8."""
    state = dense(0.5)
    assert asked(state) == "factorize_dense 0.5, int8 trained size"
    state, name = answered(state, size=400)
    assert name == "factorize_dense 0.605, int8 trained size"
    state, recipe = next_step(dataclasses.replace(state, asked=None), None)
    sized = dataclasses.replace(file(recipe.steps, size=497, drop=math.nan), recipe=recipe)
    state, recipe = next_step(state, sized)
    assert str(recipe) == "factorize_dense 0.605, int8"
    assert state.phase.attempt.trained_fits
    for drop in (0.1, 2.0):  # accurate or slightly less: slightly too large is no end
        large = dataclasses.replace(file(recipe.steps, size=560, drop=drop), recipe=recipe)
        after, trained = next_step(state, large)
        assert str(trained) == "factorize_dense 0.605, int8 trained"
        small = dataclasses.replace(file(trained.steps, size=497, drop=0.4), recipe=trained)
        after, last = next_step(after, small)
        assert last is None
        assert after.met
    hopeless = dataclasses.replace(file(recipe.steps, size=560, drop=9.0), recipe=recipe)
    assert str(next_step(state, hopeless)[1]) == "factorize_dense 0.605, dynamic"


def test_where_training_for_int8_is_not_planned_its_smaller_file_leaves_more_weights():
    state, name = answered(dense(0.5, integers=False), size=490)
    assert name == "factorize_dense 0.5, int8"
    state, recipe = next_step(dataclasses.replace(state, asked=None), None)
    lossy = dataclasses.replace(file(recipe.steps, size=490, drop=9.0), recipe=recipe)
    state, recipe = next_step(state, lossy)
    assert str(recipe) == "factorize_dense 0.5, dynamic"
    state, recipe = next_step(state, dataclasses.replace(lossy, recipe=recipe))
    assert str(recipe) == "factorize_dense 0.5, int8 trained size"

    def measured(size):
        known = dataclasses.replace(file(recipe.steps, size=size, drop=math.nan), recipe=recipe)
        return next_step(state, known)[1]

    assert str(measured(430)) == "factorize_dense 0.572, int8 trained size"
    assert measured(488) is None  # no room for more
    assert measured(510) is None


def test_low_rank_that_can_never_fit_is_not_trained_where_another_technique_follows():
    state = dense(0.05)
    amounts = dataclasses.replace(state.phase, others=("prune_channels",))
    for phase, name in (
        (amounts, "prune_channels 1 weights 0.43, int8 trained size"),
        (state.phase, "factorize_dense 0.05, int8"),
    ):
        after, form = answered(dataclasses.replace(state, phase=phase), size=700)
        assert form == "factorize_dense 0.05, int8 size"  # another form may be smaller
        assert answered(dataclasses.replace(after, asked=None), size=700)[1] == name


def test_files_of_which_training_for_int8_makes_far_larger_ones_are_not_trained_for_it():
    """A layer that fake quantization does not know stays in float32 there."""
    state, name = answered(sized([0.5]), size=900)
    assert name == "prune_channels 1 weights 0.5, int8 size"
    state, name = answered(dataclasses.replace(state, asked=None), size=495)
    assert name == "prune_channels 1 weights 0.5, int8"
    state = dataclasses.replace(state, asked=None)
    assert answered(state, size=495, drop=0.5)[1] is None  # it meets the budget
    after, name = answered(state, size=495, drop=1.2)
    assert name == "prune_channels 1 weights 0.5, train 2.5, int8"
    assert answered(dataclasses.replace(after, asked=None), size=495, drop=1.1)[1] is None


def test_low_rank_follows_int8_and_then_fewer_bits():
    known = (file(size=1000), file(mode="int8x4", size=600))
    settings = PlanSettings((), weights=900, dense=900)

    def amounts(limit):
        steps, why = steps_for_budget("factorize_dense", Budget(max_bytes=limit), known, settings)
        assert limit >= 1000 or "max_bytes" in why
        return [step.amount for step in steps]

    assert amounts(500) == [0.41, 0.72]
    assert amounts(650) == [0.57]  # fewer bits fit as they are
    assert amounts(1000) == []
    assert amounts(100) == [0.05]


def test_fewer_bits_that_save_nothing_are_not_developed():
    """Layers that stay in float32 there, such as embeddings, may make the file larger."""
    larger = file(mode="int8x4", drop=2.0, size=1400)
    state = in_bytes(TryFewerBits(), files=(INT8, larger))
    assert state.known == (INT8,)
    assert asked(state) == "prune_channels 1 weights 0.43, int8"
    assert "int8x4 takes 1,400 bytes, no fewer than the 1,000 of int8" in state.remarks[0]
    assert in_bytes(TryFewerBits(), files=(INT8, LOW_BITS)).remarks == ()


def test_quick_says_where_no_number_format_can_fit():
    state = state_in(TryFormats(("int8x4",)), {"max_bytes": 500}, effort=EFFORTS["quick"])
    assert state.remarks == ()  # one is still to come
    for size, count in ((600, 1), (500, 0)):
        after, name = answered(state, size=size)
        assert name is None
        assert len(after.remarks) == count
        for line in after.remarks:
            assert "int8x4, takes 600 bytes, above max_bytes 500; effort normal" in line


def test_an_amount_that_is_refused_is_followed_by_more_weights():
    """Fixed filters are weights that no channel removes."""
    state, names = sized([0.4]), []
    while (recipe := next_step(state, None)[1]) is not None and len(names) < 20:
        names.append(f"{recipe.steps[0].weights:g}{' size' * recipe.untrained}")
        failed = recipe.steps[0].weights < 0.47
        state, _ = answered(state, failed=failed, size=495, drop=2.0 * (not recipe.untrained))
        state = dataclasses.replace(state, asked=None)
    assert names[:6] == ["0.4 size", "0.4", "0.45 size", "0.45", "0.5 size", "0.5"]
    assert names.count("0.5 size") == 1


def test_refusals_end():
    state, names = sized([0.4]), []
    while (recipe := next_step(state, None)[1]) is not None:
        names.append(str(recipe))
        state = dataclasses.replace(answered(state, failed=True)[0], asked=None)
    assert len(names) == len(set(names)) == 8  # four fractions, sized and tried


@pytest.mark.parametrize(
    ("sizes", "fractions"),
    [
        ([520, 497], [0.5, 0.472]),  # 25 bytes by 900 a weight
        ([520, 505, 490], [0.5, 0.472, 0.453]),  # then by what was measured
        ([400, 480, 495], [0.5, 0.605, 0.624]),  # more weights have room
        ([400, 540, 490], [0.5, 0.605, 0.571]),  # between the two
        ([400, 501, 499.5], [0.5, 0.605, 0.598]),
    ],
)
def test_sizes_come_close_to_the_limit(sizes, fractions):
    state, name = next_step(sized([fractions[0]]), None)
    for size, fraction in zip(sizes, fractions, strict=True):
        assert str(name) == f"prune_channels 1 weights {fraction:g}, int8 trained size"
        known = dataclasses.replace(file(name.steps, size=size, drop=math.nan), recipe=name)
        state, name = next_step(state, known)
    assert str(name) == f"prune_channels 1 weights {fractions[-1]:g}, int8"


def test_sizes_are_measured_a_few_times():
    state, recipe = next_step(sized([0.5]), None)
    tried = []
    while recipe.untrained:
        tried.append(recipe.steps[0].weights)
        size = 600 - len(tried)  # never fits
        known = dataclasses.replace(file(recipe.steps, size=size, drop=math.nan), recipe=recipe)
        state, recipe = next_step(state, known)
    assert len(tried) <= 6
    # The nearest that there is: training shows what it loses.
    assert str(recipe) == f"prune_channels 1 weights {min(tried):g}, int8"


def test_far_too_large_files_are_for_fewer_bits():
    step = RecipeStep("prune_channels", 1.0, 0.75)
    state = in_bytes(TryAmount(HALVES, step, Attempt((step,), "bytes")), files=(INT8, LOW_BITS))
    assert answered(state, size=800)[1] == "prune_channels 1 weights 0.75, int8x4 trained"
    slightly = RecipeStep("prune_channels", 1.0, 0.44)
    amounts = dataclasses.replace(HALVES, demanded=(slightly,), scaled=slightly)
    state = in_bytes(
        TryAmount(amounts, slightly, Attempt((slightly,), "bytes")), files=(INT8, LOW_BITS)
    )
    assert answered(state, size=540)[1] == "prune_channels 1 weights 0.38, int8"


def test_equal_widths_where_structure_is_half_of_the_bytes():
    known = (file(size=1000),)
    for limit, equal in ((800, False), (200, True)):
        settings = PlanSettings((), weights=900)
        [step], why = steps_for_budget("prune_channels", Budget(max_bytes=limit), known, settings)
        assert step.equal is equal
        assert ("equal widths share tables" in why) is equal
    assert str(step) == "prune_channels 1 weights 0.1 equal"
    assert step.step().settings.scope == "group"


def test_four_bits_follow_where_far_too_much_is_lost_and_no_limit_is_on_it():
    waiting = (RecipeStep("prune_channels", 1.0, 0.9),)
    for drop, name in ((4.0, "prune_channels 1 weights 0.9, int8"), (3.0, None)):
        amounts = dataclasses.replace(HALVES, demanded=(HALF, *waiting), waiting=waiting, left=1)
        attempt = Attempt((HALF,), "half", part="ended", best=file((HALF,), drop=drop))
        state = state_in(TryAmount(amounts, HALF, attempt), {"max_bytes": 2000})
        assert asked(state) == name


def test_the_budget_is_enough_unless_the_effort_is_thorough():
    milder = RecipeStep("prune_channels", 0.75)
    amounts = dataclasses.replace(HALVES, demanded=(HALF,), met=True, left=1)
    attempt = Attempt((milder,), "price", part="ended", best=file((milder,)))
    phase = TryAmount(amounts, milder, attempt)
    assert asked(state_in(phase)) is None
    assert asked(state_in(phase, effort=EFFORTS["thorough"])) is not None


def test_low_rank_replaces_channels_that_can_not_be_pruned():
    state = state_in(TryAmount(HALVES, HALF, Attempt((HALF,), "half")), effort=EFFORTS["thorough"])
    after, name = answered(state, failed=True)
    assert name == "factorize 0.5, int8"
    assert after.asked.why == "channels can't be pruned: prune_channels 0.5"
    _, name = answered(dataclasses.replace(after, asked=None), failed=True)
    assert name is None  # not twice
    assert answered(dataclasses.replace(state, effort=NORMAL), failed=True)[1] is None


def test_low_rank_of_dense_layers_ends_where_one_amount_failed():
    step = RecipeStep("factorize_dense", 0.5)
    amounts = dataclasses.replace(HALVES, technique="factorize_dense", scaled=step, left=3)
    state = state_in(TryAmount(amounts, step, Attempt((step,), "dense")))
    assert answered(state, failed=True)[1] is None
    assert answered(state, drop=9.0, beaten=True)[1] == "factorize_dense 0.75, int8"


# --- one amount


@pytest.mark.parametrize(
    ("part", "drop", "fields", "name"),
    [
        ("longer", 2.0, {}, "prune_channels 0.5, train 2.5, int8"),
        ("longer", 1.2, {}, "prune_channels 0.5, int8 trained"),  # rounding may be all
        ("longer", 4.1, {}, "prune_channels 0.5, int8 trained"),  # longer training is hopeless
        ("float", 4.1, {}, "prune_channels 0.5, dynamic"),
        ("float", 4.0, {}, "prune_channels 0.5, train 2.5, int8"),
        ("float", 4.1, {"trained": file(aware=True)}, "prune_channels 0.5, int8 trained"),
        ("longer", 2.0, {"trained": file(aware=True)}, "prune_channels 0.5, int8 trained"),
        ("aware", 0.1, {}, "prune_channels 0.5, int8 trained"),
        ("aware", 0.1, {"integers": False}, None),
        ("aware", 1.1, {"integers": False}, "prune_channels 0.5, int8 trained"),
        ("longer aware", 1.1, {}, "prune_channels 0.5, train 2.5, int8 trained"),
        ("longer aware", 0.9, {}, None),
        ("longer aware", 4.1, {}, None),
        ("ended", 2.0, {}, None),
    ],
)
def test_training_follows_where_it_may_help(part, drop, fields, name):
    attempt = Attempt((HALF,), "half", part=part, best=file((HALF,), drop=drop))
    assert asked(state_in(TryAmount(HALVES, HALF, attempt), **fields)) == name


def test_missing_channels_that_lose_far_too_much_end_the_amount():
    attempt = Attempt((HALF,), "half", part="float", best=file((HALF,), drop=9.0))
    state = state_in(TryAmount(HALVES, HALF, attempt))
    assert answered(state, drop=4.1)[1] is None
    for outcome in (
        {"drop": 4.0},
        {"failed": True},
    ):  # rounding is what loses, or that is not known
        assert answered(state, **outcome)[1] == "prune_channels 0.5, int8 trained"


def test_longer_training_is_kept_in_what_follows():
    attempt = Attempt((HALF,), "half", part="longer", best=file((HALF,), drop=2.0))
    state = state_in(TryAmount(HALVES, HALF, attempt))
    for failed in (False, True):
        after, name = answered(state, drop=1.5, failed=failed)
        assert name == "prune_channels 0.5, train 2.5, int8 trained"
        assert after.phase.attempt.steps == (HALF, LONGER)
        assert after.phase.attempt.best.costs.drop == (2.0 if failed else 1.5)
        assert answered(dataclasses.replace(after, asked=None), drop=1.2)[1] is None  # once


def test_points_that_may_be_lost_save_training_within_the_budget():
    best = file((HALF,), drop=0.3)
    for enough, name in ((0.3, None), (0.0, "prune_channels 0.5, int8 trained")):
        attempt = Attempt((HALF,), "half", enough, part="aware", best=best)
        assert asked(state_in(TryAmount(HALVES, HALF, attempt))) == name


# --- drops in the unit of the task's metric


def test_a_metric_without_numbers_of_its_own_gets_fractions_of_the_baseline():
    assert Tolerance.of(ACCURACY, 0.5) == Tolerance(0.3, 3.0)
    error = Metric("error", higher_is_better=False, scale=1000.0, unit="mm")
    found = Tolerance.of(error, -0.2)
    assert (found.little, found.hopeless) == (pytest.approx(0.6), pytest.approx(6.0))
    found = Tolerance.of(dataclasses.replace(error, little=0.0), 0.2)
    assert (found.little, found.hopeless) == (0.0, pytest.approx(6.0))


MILLI = Tolerance(little=3e-4, hopeless=3e-3)  # a thousandth of an accuracy's


@pytest.mark.parametrize(("drop", "name"), [(3.1e-4, "int8 trained"), (3e-4, "prune")])
def test_int8_is_trained_by_the_drop_in_the_metrics_unit(drop, name):
    state = state_in(TryFormats(()), {"max_drop": 1e-3}, (file(drop=drop),))
    assert asked(dataclasses.replace(state, tolerance=MILLI)).startswith(name)


@pytest.mark.parametrize(
    ("part", "drop", "name"),
    [
        ("longer", 1.31e-3, "prune_channels 0.5, train 2.5, int8"),
        ("longer", 1.29e-3, "prune_channels 0.5, int8 trained"),
        ("longer", 4.1e-3, "prune_channels 0.5, int8 trained"),
        ("longer aware", 3.9e-3, "prune_channels 0.5, train 2.5, int8 trained"),
        ("longer aware", 4.1e-3, None),
    ],
)
def test_longer_training_by_the_drop_in_the_metrics_unit(part, drop, name):
    attempt = Attempt((HALF,), "half", part=part, best=file((HALF,), drop=drop))
    budget, files = {"max_drop": 1e-3, "max_macs": 0.5}, (file(drop=1e-4),)
    state = state_in(TryAmount(HALVES, HALF, attempt), budget, files)
    assert asked(dataclasses.replace(state, tolerance=MILLI)) == name


def test_amounts_after_one_that_met_the_budget_save_training_by_the_metrics_unit():
    after = dataclasses.replace(HALVES, waiting=(HALF,), met=True)
    state = dataclasses.replace(state_in(after), tolerance=MILLI)
    assert next_step(state, None)[0].phase.attempt.enough == MILLI.little


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_the_plan_is_the_same_in_any_unit(scale):
    drops = {"int8": 0.8, "int8 trained": 0.2, "prune_channels 0.5, int8": 2.0}
    tolerance = Tolerance(0.3 * scale, 3.0 * scale)

    def outcome(recipe):
        drop = drops.get(str(recipe), 0.9) * scale
        return file(recipe.steps, recipe.mode, recipe.aware, drop=drop)

    budget = Budget(max_drop=scale, max_macs=0.5)
    found = walked(first_state(budget, NORMAL, tolerance=tolerance), outcome)
    assert found == walked(first_state(Budget(max_drop=1.0, max_macs=0.5), NORMAL), scaled(drops))


def scaled(drops):
    """Returns outcomes of such drops in points."""
    return lambda recipe: file(
        recipe.steps, recipe.mode, recipe.aware, drop=drops.get(str(recipe), 0.9)
    )


def test_a_beaten_file_is_not_trained():
    state = state_in(TryAmount(HALVES, HALF, Attempt((HALF,), "half")))
    assert answered(state, drop=2.0, beaten=True)[1] is None
    assert answered(state, drop=2.0)[1] == "prune_channels 0.5, train 2.5, int8"


def test_four_bits_after_an_amount_are_its_result_where_they_meet_the_budget():
    attempt = Attempt((HALF,), "half", part="fewer bits", best=file((HALF,), size=800))
    budget = {"max_bytes": 500}
    state = state_in(TryAmount(HALVES, HALF, attempt), budget, (INT8, LOW_BITS))
    assert asked(state) == "prune_channels 0.5, int8x4 trained"
    for size, met in ((490, True), (510, False)):
        after = answered(state, size=size)[0]
        assert after.met is met
    low_bits = file((HALF,), "int8x4", size=490)
    assert dataclasses.replace(attempt, low_bits=low_bits).result == low_bits
    assert attempt.result == attempt.best


def test_zeros_after_an_amount_until_the_gzipped_bytes_suffice():
    best = file((HALF,), size=500)
    attempt = Attempt((HALF,), "half", sparsities=(0.6, 0.75), part="zeros", best=best)
    state = state_in(TryAmount(HALVES, HALF, attempt), {"max_gzip_bytes": 400}, sparsities=())
    assert asked(state) == "prune_channels 0.5, prune 0.6, cluster 16, int8 trained"
    assert answered(state, size=450)[1] == (
        "prune_channels 0.5, prune 0.75, cluster 16, int8 trained"
    )
    assert answered(state, size=400)[1] is None
    assert answered(state, failed=True)[1] is None
    after, _ = answered(state, size=400)
    assert after.met


def test_zeros_are_trained_for_int8_themselves():
    best = file((HALF,), size=500)
    for left, name in (((0.6,), "prune 0.6, cluster 16, int8 trained"), ((), "int8 trained")):
        attempt = Attempt((HALF,), "half", sparsities=left, part="aware", best=best)
        state = state_in(TryAmount(HALVES, HALF, attempt), {"max_gzip_bytes": 400})
        assert asked(state) == f"prune_channels 0.5, {name}"


# --- the end


def test_zeros_of_the_uncompressed_model():
    state = state_in(TryZeros((0.6, 0.75)), {"max_gzip_bytes": 400})
    assert asked(state) == "prune 0.6, cluster 16, int8 trained"
    assert answered(state, size=500)[1] == "prune 0.75, cluster 16, int8 trained"
    assert answered(state, size=400)[1] is None
    assert answered(state, failed=True)[1] is None


MORE = (RecipeStep("cluster", 32), RecipeStep("cluster", 8), RecipeStep("prune", 0.5))


def test_more_techniques_come_last_while_the_budget_is_not_met():
    state = state_in(TryMore(MORE))
    assert asked(state) == "cluster 32, int8"
    assert answered(state)[1] == "cluster 8, int8"
    assert answered(state, drop=1.1)[1] == "prune 0.5, int8"  # a larger amount loses more
    assert answered(state, failed=True)[1] == "prune 0.5, int8"
    assert answered(state, macs=0.5)[1] is None
    assert asked(dataclasses.replace(state, met=True)) is None
    assert asked(state_in(TryMore(()))) is None
    assert asked(state_in(TryZeros(()), more=MORE)) == "cluster 32, int8"


def test_more_techniques_take_a_float_format_where_int8_failed():
    floats = file(mode="float16", size=500), file(mode="dynamic", size=300)
    assert asked(state_in(TryMore(MORE), files=floats)) == "cluster 32, dynamic"
    assert asked(state_in(TryMore(MORE), files=(*floats, INT8))) == "cluster 32, int8"
    assert asked(state_in(TryMore(MORE), files=(LOW_BITS,))) is None


def test_more_techniques_are_a_part_of_the_whole_plan():
    settings = PlanSettings(("int8",), techniques=(), more=MORE)

    def tried(macs):
        state = first_state(Budget(max_macs=0.5), NORMAL, settings)
        return walked(state, lambda recipe: file(recipe.steps, recipe.mode, macs=macs))

    assert tried(1.0) == ["int8", "cluster 32, int8", "cluster 8, int8", "prune 0.5, int8"]
    assert tried(0.4) == ["int8"]


def test_nothing_follows_the_end():
    state = state_in(Finished())
    assert next_step(state, None) == (state, None)


# --- any state


def test_a_step_changes_nothing_and_repeats_itself():
    attempt = Attempt((HALF,), "half", part="longer", best=file((HALF,), drop=2.0))
    state, recipe = next_step(state_in(TryAmount(HALVES, HALF, attempt)), None)
    outcome, before = file(recipe.steps, drop=1.5), copy.deepcopy(state)
    assert next_step(state, outcome) == next_step(state, outcome)
    assert state == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.met = True


def test_an_outcome_of_another_recipe_is_refused():
    state, _ = next_step(state_in(TryFormats(("int8",)), files=()), None)
    with pytest.raises(ValueError, match="outcome must be that of int8, got one of int8x4"):
        next_step(state, LOW_BITS)
    with pytest.raises(ValueError, match="outcome must be that of None, got one of int8"):
        next_step(state_in(Finished()), INT8)
    with pytest.raises(ValueError, match="no recipe is asked for in Finished"):
        next_step(dataclasses.replace(state, phase=Finished()), None)
