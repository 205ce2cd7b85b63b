"""Scores, granularities and scopes on arrays, compared with plain NumPy."""

import doctest
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.pruning import criteria, masks, scope
from tfnas.pruning.criteria import check_criterion, scores
from tfnas.pruning.mask_plan import MaskPlan
from tfnas.pruning.masks import Blocks, Granularity, Units, granularity, lowest, prune_units
from tfnas.pruning.prunable_kernels import PrunableKernel
from tfnas.pruning.scope import erdos_renyi_kernel, keep_by_sparsity, keep_globally

SETTINGS = settings(max_examples=60, deadline=None)


class Layer:
    """A layer without attributes; masks need none."""


class Variable:
    def __init__(self, shape):
        self.shape = shape


def kernel(shape, name="k", filters=0):
    """A kernel whose array is (rows, positions, columns) already."""
    return PrunableKernel(name, name, Layer(), Variable(shape), (0,), (1,), (2,), filters)


def rng(seed=0):
    return np.random.default_rng(seed)


def values(shape, seed=0, levels=None):
    """Random weights; of `levels` distinct values if given, so that scores are equal."""
    draw = rng(seed).normal(size=shape)
    return draw if levels is None else np.round(draw * levels / 3) / levels


def mask_of(
    weights, sparsity, unit="element", where="layer", criterion="magnitude", filters=0, **more
):
    plan = MaskPlan.of(criterion, unit, where, **more)
    [mask] = plan.masks([kernel(weights.shape, filters=filters)], [weights], None, sparsity)
    return mask


shapes = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 9))
sparsities = st.floats(0, 0.999)
seeds = st.integers(0, 10_000)


@pytest.mark.parametrize("module", [criteria, masks, scope])
def test_examples_are_true(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# Selecting the lowest scores


@SETTINGS
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=60).flatmap(
        lambda level: st.tuples(st.just(level), st.integers(0, len(level)))
    ),
    seeds,
)
def test_lowest_selects_the_exact_number_of_lowest_scores(drawn, seed):
    level, count = np.array(drawn[0], float), drawn[1]
    chosen = lowest(level, count, rng(seed))
    assert chosen.sum() == count
    np.testing.assert_array_equal(np.sort(level[chosen]), np.sort(level)[:count])


def test_equal_scores_are_drawn_at_random_by_the_seed():
    equal = np.ones((8, 1, 50))
    first, again = (mask_of(equal, 0.5, seed=1) for _ in range(2))
    other = mask_of(equal, 0.5, seed=2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.sum() == other.sum() == 200
    assert (first.sum(axis=(1, 2)) > 10).all()  # not the first rows alone


@SETTINGS
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=25),
    st.floats(0, 1),
    seeds,
)
def test_units_of_unequal_sizes_come_as_close_to_the_target_as_possible(units, fraction, seed):
    level, sizes = (np.array(column) for column in zip(*units, strict=True))
    target = fraction * sizes.sum()
    pruned = prune_units(level.astype(float), sizes, target, rng(seed))
    # No unit is pruned before a unit with a lower score...
    assert not pruned.any() or level[pruned].max() <= level[~pruned].min(initial=99)
    # ... and the number differs from the target by half of the largest unit at most.
    assert abs(sizes[pruned].sum() - target) <= sizes.max() / 2


def test_no_units_give_an_empty_mask():
    assert prune_units(np.zeros(0), np.zeros(0, int), 3.0, rng()).shape == (0,)


@SETTINGS
@given(shapes, sparsities, seeds, st.sampled_from([None, 1, 2]))
def test_weights_of_lowest_magnitude_are_pruned_to_the_exact_number(shape, sparsity, seed, levels):
    weights = values(shape, seed, levels)
    mask = mask_of(weights, sparsity)
    assert mask.dtype == bool
    assert mask.shape == shape
    count = min(int(sparsity * weights.size + 0.5), weights.size - 1)
    assert (~mask).sum() == count
    expected = np.sort(np.abs(weights), axis=None)
    np.testing.assert_array_equal(np.sort(np.abs(weights)[~mask]), expected[:count])


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.25, 0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("size", [1, 2, 7, 100, 1001])
def test_the_sparsity_is_exact_to_half_a_weight(size, sparsity):
    mask = mask_of(np.ones((size, 1, 1)), sparsity)
    assert (~mask).sum() <= size - 1
    assert abs((~mask).sum() - sparsity * size) <= 0.5 or mask.sum() == 1


# Blocks, filters, N of M


def block_reference(weights, rows, columns, count):
    """(start row, position, start column) of the `count` blocks of lowest mean, by loops."""
    height, positions, width = weights.shape
    found = []
    for r in range(0, height, rows):
        for p in range(positions):
            for c in range(0, width, columns):
                block = np.abs(weights[r : r + rows, p, c : c + columns])
                found.append((block.mean(), (r, p, c)))
    mask = np.ones(weights.shape, bool)
    for _, (r, p, c) in sorted(found)[:count]:
        mask[r : r + rows, p, c : c + columns] = False
    return mask


@SETTINGS
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    sparsities,
    seeds,
)
def test_entire_blocks_of_lowest_mean_are_pruned(
    rows, columns, down, positions, across, sparsity, seed
):
    weights = values((rows * down, positions, columns * across), seed)
    blocks = down * positions * across
    count = min(int(sparsity * blocks + 0.5), blocks - 1)
    mask = mask_of(weights, sparsity, f"{rows}x{columns}")
    np.testing.assert_array_equal(mask, block_reference(weights, rows, columns, count))


@SETTINGS
@given(shapes, st.integers(1, 5), st.integers(1, 5), sparsities, seeds)
def test_blocks_at_the_edge_are_smaller_and_the_sparsity_is_as_close_as_possible(
    shape, rows, columns, sparsity, seed
):
    weights = values(shape, seed)
    mask = mask_of(weights, sparsity, (rows, columns))
    sizes = []
    for r in range(0, shape[0], rows):
        for p in range(shape[1]):
            for c in range(0, shape[2], columns):
                block = mask[r : r + rows, p, c : c + columns]
                assert block.all() or not block.any()
                sizes.append(block.size)
    target = sparsity * weights.size
    spared = weights.size - target < max(sizes)  # the last block stays
    assert mask.any()
    assert spared or abs((~mask).sum() - target) <= max(sizes) / 2


@SETTINGS
@given(shapes, sparsities, seeds, st.sampled_from([0, 2]))
def test_entire_filters_of_lowest_mean_are_pruned(shape, sparsity, seed, axis):
    weights = values(shape, seed)
    mask = mask_of(weights, sparsity, "filter", filters=axis)
    others = tuple(a for a in range(3) if a != axis)
    number = shape[axis]
    count = min(int(sparsity * number + 0.5), number - 1)
    means = np.abs(weights).mean(axis=others)
    gone = np.sort(np.argsort(means, kind="stable")[:count])
    np.testing.assert_array_equal(np.flatnonzero(~mask.any(axis=others)), gone)
    np.testing.assert_array_equal(np.flatnonzero(~mask.all(axis=others)), gone)


@SETTINGS
@given(
    st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4), (4, 8), (2, 3)]),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 4),
    seeds,
    st.sampled_from([None, 1]),
)
def test_at_the_max_sparsity_n_of_m_stay_in_every_group(
    pattern, rows, positions, groups, seed, levels
):
    stay, group = pattern
    weights = values((rows, positions, groups * group), seed, levels)
    mask = mask_of(weights, 1 - stay / group, f"{stay}:{group}")
    kept = mask.reshape(-1, group)
    np.testing.assert_array_equal(kept.sum(axis=1), np.full(len(kept), stay))
    size = np.abs(weights).reshape(-1, group)
    for row, keep in zip(size, kept, strict=True):
        np.testing.assert_array_equal(np.sort(row[keep]), np.sort(row)[group - stay :])


@SETTINGS
@given(st.integers(1, 6), st.integers(1, 4), st.floats(0, 0.5), seeds)
def test_below_the_max_sparsity_groups_of_lowest_score_are_pruned_first(
    rows, groups, sparsity, seed
):
    weights = values((rows, 1, 4 * groups), seed)
    kept = mask_of(weights, sparsity, "2:4").reshape(-1, 4)
    assert set(kept.sum(axis=1)) <= {2, 4}
    pruned = kept.sum(axis=1) == 2
    assert pruned.sum() == int(sparsity * weights.size / 2 + 0.5)
    score = np.sort(np.abs(weights).reshape(-1, 4), axis=1)[:, :2].sum(axis=1)
    assert not pruned.any() or score[pruned].max() <= score[~pruned].min(initial=np.inf)


def test_n_of_m_must_divide_the_innermost_axis():
    plan = MaskPlan.of("magnitude", "2:4", "layer")
    assert plan.admit([kernel((3, 2, 8))])[0]
    message = (
        "granularity '2:4' must divide the kernel's innermost axis in the file, got 6 weights "
        "there (layer 'stem'; exclude it)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        plan.admit([kernel((4, 1, 8)), kernel((4, 1, 6), "stem")])


def test_n_of_m_has_a_max_sparsity():
    message = "sparsity must be at most 0.5 with granularity '2:4', got 0.6"
    with pytest.raises(ValueError, match=re.escape(message)):
        mask_of(np.ones((2, 1, 8)), 0.6, "2:4")
    assert granularity("2:4").max_sparsity == 0.5
    assert granularity("1:4").max_sparsity == 0.75
    assert granularity("element").max_sparsity == granularity("1x4").max_sparsity == 1.0


def test_a_kernel_without_filters_is_skipped_with_the_reason():
    plan = MaskPlan.of("magnitude", "filter", "layer")
    fits, skipped = plan.admit([kernel((2, 1, 2), "dense"), kernel((2, 1, 8), "gates", None)])
    assert [k.name for k in fits] == ["dense"]
    assert [(s.name, s.reason) for s in skipped] == [
        ("gates", "has no filters: its columns belong to gates")
    ]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("element", Granularity),
        ("1x4", Blocks),
        ((4, 1), Blocks),
        ("filter", masks.Filters),
        ("2:4", masks.NOfM),
        ("16x1", Blocks),
    ],
)
def test_granularities_by_name(text, kind):
    found = granularity(text)
    assert type(found) is kind
    assert granularity(found) is found
    assert granularity(found.text) == found


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "channel",
        "0x4",
        "4x0",
        "1x",
        "x4",
        "4:2",
        "4:4",
        "0:4",
        "-1x4",
        "1x4x4",
        (4,),
        (0, 4),
        (1, 2, 3),
        (1.5, 4),
        None,
        4,
        "2:4 ",
        "a1x4",
    ],
)
def test_other_granularities_raise(wrong):
    with pytest.raises(ValueError, match=r"^granularity must be 'element', 'filter', .*, got "):
        granularity(wrong)


# Scopes


KERNELS = [((8, 1, 8), 1.0), ((4, 9, 16), 0.1), ((2, 1, 3), 5.0)]


def several(levels=None):
    kernels = [kernel(shape, f"k{i}") for i, (shape, _) in enumerate(KERNELS)]
    weights = [values(s, i, levels) * scale for i, (s, scale) in enumerate(KERNELS)]
    return kernels, weights


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.8, 0.95])
def test_layer_scope_has_the_same_sparsity_in_each(sparsity):
    kernels, weights = several()
    for k, mask in zip(
        kernels,
        MaskPlan.of("magnitude", "element", "layer").masks(kernels, weights, None, sparsity),
        strict=True,
    ):
        assert (~mask).sum() == min(int(sparsity * k.size + 0.5), k.size - 1)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.8])
def test_global_scope_sorts_all_scores_together(sparsity):
    kernels, weights = several()
    found = MaskPlan.of("magnitude", "element", "global").masks(kernels, weights, None, sparsity)
    flat = np.concatenate([np.abs(w).ravel() for w in weights])
    count = int(sparsity * flat.size + 0.5)
    threshold = np.sort(flat)[count]
    for weight, mask in zip(weights, found, strict=True):
        np.testing.assert_array_equal(mask, np.abs(weight) >= threshold)


@SETTINGS
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=20), min_size=1, max_size=5),
    st.floats(0, 0.999),
    seeds,
)
def test_global_scope_has_the_exact_total_with_equal_scores_and_empties_no_kernel(
    levels, sparsity, seed
):
    units = [Units(np.array(level, float), np.ones(len(level), int)) for level in levels]
    sizes = [len(level) for level in levels]
    kept = keep_globally(units, sizes, sparsity, seed)
    assert [len(keep) for keep in kept] == sizes
    assert all(keep.any() for keep in kept)
    pruned = sum(int((~keep).sum()) for keep in kept)
    assert pruned == min(int(sparsity * sum(sizes) + 0.5), sum(sizes) - len(sizes))
    for level, keep in zip(levels, kept, strict=True):
        level = np.array(level)
        assert keep[level == level.max()].any()  # its best unit stays


def test_global_scope_with_2_of_4_is_exact_too():
    kernels = [kernel((4, 1, 8), "a"), kernel((2, 1, 16), "b")]
    weights = [values((4, 1, 8)), values((2, 1, 16), 1) * 9]
    found = MaskPlan.of("magnitude", "2:4", "global").masks(kernels, weights, None, 0.5)
    assert [(~mask).sum() for mask in found] == [16, 16]
    found = MaskPlan.of("magnitude", "2:4", "global").masks(kernels, weights, None, 0.25)
    assert [(~mask).sum() for mask in found] == [16, 0]


def test_a_score_of_minus_infinity_is_pruned_first_in_every_scope():
    first = [-np.inf, -np.inf, 3.0, 1.0]
    for where in ("layer", "global"):
        mask = mask_of(
            np.arange(4.0).reshape(1, 1, 4),
            0.5,
            where=where,
            criterion=lambda w: np.reshape(first, w.shape),
        )
        np.testing.assert_array_equal(mask.ravel(), [False, False, True, True])


def erk_reference(shapes, sparsity):
    """Bisection for eps in: sum of min(1, eps (sum of dims) / (product of dims)) sizes."""
    sizes = np.array([np.prod(s) for s in shapes], float)
    raw = np.array([np.sum(s) for s in shapes]) / sizes
    low, high = 0.0, float(sizes.max() * 10)
    for _ in range(200):
        middle = (low + high) / 2
        if (np.minimum(1, middle * raw) * sizes).sum() < (1 - sparsity) * sizes.sum():
            low = middle
        else:
            high = middle
    return 1 - np.minimum(1, low * raw)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(1, 64), min_size=2, max_size=5).map(tuple), min_size=1, max_size=8
    ),
    st.floats(0.01, 0.99),
)
def test_erk_is_the_formula_and_has_the_exact_total(shapes, sparsity):
    found = np.array(erdos_renyi_kernel(shapes, sparsity))
    sizes = np.array([np.prod(s) for s in shapes], float)
    assert (found >= 0).all()
    assert (found < 1).all()
    assert (found * sizes).sum() == pytest.approx(sparsity * sizes.sum(), rel=1e-9)
    np.testing.assert_allclose(found, erk_reference(shapes, sparsity), atol=1e-6)


def test_erk_prunes_large_kernels_more():
    found = MaskPlan.of("magnitude", "element", "erk").sparsities(several()[0], 0.9)
    assert found[1] > found[0] > found[2] == 0.0


@SETTINGS
@given(st.floats(0.05, 0.95))
def test_erk_masks_have_the_total_to_half_a_weight_per_kernel(sparsity):
    kernels, weights = several()
    found = MaskPlan.of("magnitude", "element", "erk").masks(kernels, weights, None, sparsity)
    total = sum(k.size for k in kernels)
    assert abs(sum((~m).sum() for m in found) - sparsity * total) <= len(kernels) / 2


def test_a_dictionary_gives_ratios_by_name_and_pattern_the_first_match_counts():
    names = ["stem", "block_1/conv", "block_2/conv", "head"]
    kernels = [kernel((4, 1, 25), name) for name in names]
    plan = MaskPlan.of("magnitude", "element", {"block_1": 0.3, "block_*": 0.7, "head": 0.0})
    assert plan.admit(kernels) == (kernels, [])
    assert plan.sparsities(kernels, 0.5) == [0.5, 0.3, 0.7, 0.0]
    np.testing.assert_allclose(
        plan.sparsities(kernels, 0.25, progress=0.5), [0.25, 0.15, 0.35, 0.0]
    )
    found = plan.masks(kernels, [values((4, 1, 25))] * 4, None, 0.5)
    assert [(~mask).sum() for mask in found] == [50, 30, 70, 0]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"nothing": 0.5}, "scope must name layers with a kernel, got 'nothing'"),
        ({"k": 1.0}, "scope must be in [0, 1) for 'k', got 1.0"),
        ({"k": float("nan")}, "scope must be in [0, 1) for 'k', got nan"),
        ({"k": "much"}, "scope must be a number in [0, 1) for 'k', got 'much'"),
        (
            "all",
            "scope must be one of layer, global, erk or a dictionary of sparsities by layer, "
            "got 'all'",
        ),
    ],
)
def test_scope_errors_name_the_entry(where, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MaskPlan.of("magnitude", "element", where).admit([kernel((1, 1, 4))])


@pytest.mark.parametrize("where", ["layer", "global", "erk", {"k": 0.99}])
@pytest.mark.parametrize("unit", ["element", "1x4", "filter", "4x2"])
def test_no_kernel_is_emptied(where, unit):
    kernels = [kernel((2, 1, 4), "k"), kernel((8, 1, 16), "large")]
    weights = [values((2, 1, 4)) / 100, values((8, 1, 16), 1)]
    found = MaskPlan.of("magnitude", unit, where).masks(kernels, weights, None, 0.97)
    for mask, weight in zip(found, weights, strict=True):
        assert mask.any()
        if unit == "element":
            assert mask.flat[np.abs(weight).argmax()]  # the best weight stays


@pytest.mark.parametrize("unit", ["element", "1x4", "4x1", "filter", "2:4"])
@pytest.mark.parametrize("where", ["layer", "global"])
def test_zeros_are_pruned_first_so_that_masks_are_found_again(unit, where):
    kernels = [kernel((8, 1, 8), "a"), kernel((4, 2, 16), "b")]
    weights = [values(k.shape, i) for i, k in enumerate(kernels)]
    plan = MaskPlan.of("magnitude", unit, where)
    first = plan.masks(kernels, weights, None, 0.5)
    pruned = [np.where(mask, w, 0) for mask, w in zip(first, weights, strict=True)]
    for mask, again in zip(first, plan.masks(kernels, pruned, None, 0.5), strict=True):
        np.testing.assert_array_equal(mask, again)


def test_units_at_and_above_a_threshold_stay():
    weights = np.linspace(0.1, 1.0, 10, dtype=np.float32).reshape(1, 1, 10)
    plan = MaskPlan.of("magnitude", "element", "layer")
    [mask] = plan.masks_above([kernel(weights.shape)], [weights], None, 0.5)
    np.testing.assert_array_equal(mask.ravel(), [False] * 4 + [True] * 6)
    plan = MaskPlan.of("magnitude", "1x2", "layer")  # means 0.15, 0.35, 0.55 ...
    [mask] = plan.masks_above([kernel(weights.shape)], [weights], None, 0.5)
    np.testing.assert_array_equal(mask.ravel(), [False] * 4 + [True] * 6)


def test_a_ratio_of_0_keeps_everything_also_what_is_zero():
    units = [Units(np.zeros(5), np.ones(5, int))]
    assert keep_by_sparsity(units, [5], [0.0], 0)[0].all()
    assert keep_globally(units, [5], 0.0, 0)[0].all()


# Criteria


WEIGHTS = np.array([[1.0, -2.0], [0.5, 0.0]])
SLOPES = np.array([[0.1, 0.2], [4.0, 9.0]])


def test_scores_are_those_of_the_table():
    np.testing.assert_array_equal(scores("magnitude", WEIGHTS), [[1, 2], [0.5, 0]])
    np.testing.assert_array_equal(scores("gradient", WEIGHTS, SLOPES), SLOPES)
    np.testing.assert_allclose(scores("taylor", WEIGHTS, SLOPES), [[0.1, 0.4], [2.0, 0.0]])
    np.testing.assert_array_equal(scores(np.square, WEIGHTS), [[1, 4], [0.25, 0]])


def test_random_scores_depend_on_seed_and_name():
    drawn = scores("random", WEIGHTS, seed=3, name="a")
    np.testing.assert_array_equal(drawn, scores("random", WEIGHTS + 1, seed=3, name="a"))
    assert (drawn != scores("random", WEIGHTS, seed=4, name="a")).all()
    assert (drawn != scores("random", WEIGHTS, seed=3, name="b")).all()
    assert ((drawn >= 0) & (drawn < 1)).all()


def test_random_scores_do_not_depend_on_the_weights():
    weights = values((20, 1, 50))
    mask = mask_of(weights, 0.5, criterion="random")
    assert (~mask).sum() == 500
    assert abs(np.abs(weights[mask]).mean() - np.abs(weights[~mask]).mean()) < 0.15


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (lambda w: w[:1], "criterion must return scores of shape (2, 2) for 'k', got (1, 2)"),
        (lambda w: w * np.nan, "scores of 'k' must be numbers, got NaN by criterion"),
        ("taylor", "gradients must be given for criterion 'taylor', got None"),
        ("gradient", "gradients must be given for criterion 'gradient', got None"),
    ],
)
def test_criterion_errors_name_the_kernel(criterion, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        scores(criterion, WEIGHTS, name="k")


def test_nan_weights_raise():
    with pytest.raises(ValueError, match=r"scores of 'k' must be numbers, got NaN by .*magnitude"):
        mask_of(np.array([[[1.0, np.nan]]]), 0.5)


def test_criteria_are_checked_by_name_and_data():
    for name in criteria.CRITERIA:
        check_criterion(name, data=object())
    check_criterion(np.abs, None)
    check_criterion("obs", object(), more=("obs",))
    with pytest.raises(ValueError, match=r"criterion must be one of magnitude, .*, got 'size'"):
        check_criterion("size", None)
    for name in criteria.WITH_DATA:
        with pytest.raises(ValueError, match=f"data must be given for criterion '{name}', got No"):
            check_criterion(name, None)
