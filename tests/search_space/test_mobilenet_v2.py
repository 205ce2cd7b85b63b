import itertools
import json

import keras
import keras_tuner as kt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.search_space.architecture import Architecture, mobilenet_v2
from tfnas.search_space.block_spec import BlockSpec
from tfnas.search_space.blocks import build_model
from tfnas.search_space.fixed_layers import FixedLayers
from tfnas.search_space.hypermodel import SpaceHyperModel
from tfnas.search_space.mobilenet_v2 import PRESETS, MobileNetV2Space, StageChoices
from tfnas.search_space.search_space import Decision, SearchSpace

INVERTED, FUSED, IDENTITY = "inverted_residual", "fused_inverted_residual", "identity"
TINY_STAGES = (
    StageChoices((8, 16), (1, 2), 1, (INVERTED, FUSED, IDENTITY), (3, 5), (1, 2)),
    StageChoices((8,), (1,), 2, (INVERTED, FUSED), (3, 5), (2,)),
    StageChoices((8, 24), (1,), 1, (INVERTED, IDENTITY), (3,), (1,)),
)
seeds = st.integers(0, 2**32)


def tiny(**changes):
    fields = {
        "stages": TINY_STAGES,
        "width_multipliers": (0.5, 1.0),
        "resolutions": (8, 12),
        "fixed": FixedLayers(stem_filters=8, head_filters=16),
    }
    return MobileNetV2Space((12, 24, 3), 4, **{**fields, **changes})


def blocks_of(stage):
    for kind in stage.kinds:
        if kind == IDENTITY:
            yield BlockSpec.identity()
            continue
        axes = stage.repeats, stage.kernels, stage.expansions, stage.filters
        for repeats, kernel, expansion, filters in itertools.product(*axes):
            yield BlockSpec(kind, filters, repeats, stage.stride, kernel, expansion)


@pytest.fixture(scope="module")
def everything():
    """Every architecture of the tiny space, enumerated without the space's own code."""
    return [
        Architecture(
            (12, 24, 3),
            4,
            stages,
            resolution=(height, 2 * height),
            width_multiplier=width,
            stem_filters=8,
            stem_stride=1,
            head_filters=16,
            dropout=0.1,
        )
        for width, height, stages in itertools.product(
            (0.5, 1.0), (8, 12), itertools.product(*map(blocks_of, TINY_STAGES))
        )
    ]


def test_size_is_the_number_of_different_architectures(everything):
    space = tiny()
    assert len(set(everything)) == len(everything)
    assert space.size == len(everything) == 2 * 2 * (2 * 16 + 1) * 4 * 3
    assert all(arch in space for arch in everything)


@pytest.mark.parametrize("preset", PRESETS)
def test_size_of_a_preset_is_exact(preset):
    space = MobileNetV2Space((224, 224, 3), 10, preset)
    stages = [len(set(blocks_of(stage))) for stage in space.stages]
    expected = len(PRESETS[preset].width_multipliers)
    for count in stages:
        expected *= count
    assert space.size == expected
    assert isinstance(space.size, int)


def test_encodings_of_all_architectures_differ(everything):
    space = tiny()
    codes = np.stack([space.encode(arch) for arch in everything])
    assert codes.dtype == np.float32
    assert codes.shape[1] == sum(len(d.choices) for d in space.decisions)
    assert len(np.unique(codes, axis=0)) == len(everything)
    for arch, code in zip(everything, codes, strict=True):
        assert code.sum() == len(space.values(arch))
        assert set(np.unique(code)) <= {0.0, 1.0}


def test_values_round_trip(everything):
    space = tiny()
    for arch in everything:
        values = space.values(arch)
        assert space.from_values(values) == arch
        active = [d.name for d in space.decisions if d.active(values)]
        assert sorted(values) == sorted(active)
        assert space.from_values({"unused": 1, "stage3_kernel": 3, **values}) == arch


@settings(deadline=None)
@given(seeds, st.sampled_from(sorted(PRESETS)), st.sampled_from([8, 32, 224]))
def test_samples_are_in_the_space(seed, preset, side):
    space = MobileNetV2Space((side, side, 3), 10, preset)
    arch = space.sample(np.random.default_rng(seed))
    assert arch in space
    assert space.sample(np.random.default_rng(seed)) == arch
    assert Architecture.from_json(arch.to_json()) in space


def test_sampling_reaches_everything(everything):
    """Each width and size of images, and with one of each all stages."""
    rng = np.random.default_rng(0)
    seen = {(a.width_multiplier, a.resolution) for a in map(tiny().sample, [rng] * 100)}
    assert seen == {(a.width_multiplier, a.resolution) for a in everything}
    one = tiny(width_multipliers=(0.5,), resolutions=(8,))
    expected = {a for a in everything if a.width_multiplier == 0.5 and a.resolution == (8, 16)}
    assert {one.sample(rng) for _ in range(10_000)} == expected


def changed(space, parent, child):
    """Names of the decisions that differ, and those of them that were active in both."""
    before, after = space.values(parent), space.values(child)
    names = {n for n in {*before, *after} if before.get(n) != after.get(n)}
    return names, {n for n in names if n in before and n in after}


@settings(deadline=None)
@given(seeds, st.sampled_from(sorted(PRESETS)))
def test_a_mutation_changes_one_decision(seed, preset):
    space, rng = MobileNetV2Space((32, 32, 3), 10, preset), np.random.default_rng(seed)
    parents = {decision.name: decision.parent for decision in space.decisions}
    arch = space.sample(rng)
    for _ in range(10):
        child = space.mutate(arch, rng)
        assert child in space
        assert child != arch
        names, decided = changed(space, arch, child)
        assert len(decided) == 1
        assert all(parents[name] in decided for name in names - decided)
        arch = child


def test_mutation_reaches_each_neighbor(everything):
    space, rng = tiny(), np.random.default_rng(1)
    parent = everything[0]
    neighbors = {child for child in everything if len(changed(space, parent, child)[1]) == 1}
    assert {space.mutate(parent, rng) for _ in range(3000)} == neighbors


def test_mutation_needs_a_choice_and_a_member():
    only = tiny(
        stages=[StageChoices((8,), (1,), 1, (INVERTED,), (3,), (1,))],
        width_multipliers=[1.0],
        resolutions=[12],
    )
    assert only.size == 1
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="arch can't be mutated"):
        only.mutate(only.sample(rng), rng)
    with pytest.raises(ValueError, match="stages of this space are 1, got 3"):
        only.mutate(tiny().sample(rng), rng)


@settings(deadline=None)
@given(seeds)
def test_crossover_takes_entire_stages(seed):
    space, rng = MobileNetV2Space((32, 32, 3), 10, "full"), np.random.default_rng(seed)
    a, b = space.sample(rng), space.sample(rng)
    child = space.crossover(a, b, rng)
    assert child in space
    for mine, *theirs in zip(child.stages, a.stages, b.stages, strict=True):
        assert mine in theirs
    assert child.width_multiplier in (a.width_multiplier, b.width_multiplier)
    assert space.crossover(a, a, rng) == a


def test_crossover_reaches_every_mix():
    space, rng = tiny(), np.random.default_rng(0)
    a, b = (
        Architecture(
            (12, 24, 3), 4, stages, resolution=(height, 2 * height), width_multiplier=width,
            stem_filters=8, stem_stride=1, head_filters=16, dropout=0.1,
        )
        for width, height, stages in (
            (0.5, 8, (BlockSpec.identity(), BlockSpec(INVERTED, 8, 1, 2, 3, 2),
                      BlockSpec.identity())),
            (1.0, 12, (BlockSpec(FUSED, 16, 2, 1, 5, 2), BlockSpec(FUSED, 8, 1, 2, 5, 2),
                       BlockSpec(INVERTED, 24, 1, 1, 3, 1))),
        )
    )  # fmt: skip
    assert len({space.crossover(a, b, rng) for _ in range(1000)}) == 2**5


def test_equal_seeds_give_equal_searches():
    def walk(seed):
        space, rng = MobileNetV2Space((32, 32, 3), 10), np.random.default_rng(seed)
        archs = [space.sample(rng), space.sample(rng)]
        for _ in range(20):
            archs.append(space.mutate(archs[-1], rng))
            archs.append(space.crossover(archs[-1], archs[-3], rng))
        return [arch.key for arch in archs]

    assert walk(3) == walk(3)
    assert walk(3) != walk(4)


def test_declare_round_trips_through_hyperparameters(everything):
    space = tiny()
    for arch in everything[::7]:
        hp = kt.HyperParameters()
        space.declare(hp)  # what a tuner does first
        hp.values = {**hp.values, **space.values(arch)}
        assert space.declare(hp) == arch
        again = kt.HyperParameters.from_config(hp.get_config())
        assert space.declare(again) == arch


def test_declare_finds_all_decisions_and_their_conditions():
    space, hp = tiny(), kt.HyperParameters()
    space.declare(hp)
    assert {p.name: tuple(p.values) for p in hp.space} == {
        d.name: d.choices for d in space.decisions
    }
    for parameter, decision in zip(hp.space, space.decisions, strict=True):
        conditions = [(c.name, tuple(c.values)) for c in parameter.conditions]
        assert conditions == (
            [] if decision.parent is None else [(decision.parent, decision.parent_values)]
        )


def test_inactive_hyperparameters_do_not_matter():
    space, hp = tiny(), kt.HyperParameters()
    space.declare(hp)
    hp.values["stage1_kind"] = IDENTITY
    found = set()
    for kernel, filters in itertools.product((3, 5), (8, 16)):
        hp.values.update(stage1_kernel=kernel, stage1_filters=filters)
        found.add(space.declare(hp))
    assert [arch.stages[0] for arch in found] == [BlockSpec.identity()]


def test_the_space_keeps_the_protocol_of_tuners():
    assert isinstance(tiny(), SearchSpace)


@pytest.mark.parametrize(("side", "dropout"), [(224, 0.1), (32, 0.1), (224, 0.0)])
def test_mobilenet_v2_is_a_point_of_the_full_preset(side, dropout):
    arch = mobilenet_v2((side, side, 3), 1000, dropout=dropout)
    space = MobileNetV2Space((side, side, 3), 1000, "full", fixed=FixedLayers(dropout=dropout))
    assert arch in space
    assert space.from_values(space.values(arch)) == arch


@pytest.mark.slow
@pytest.mark.parametrize(("width", "count"), [(1.0, 3_538_984), (0.35, None)])
def test_parameters_are_those_of_keras_mobilenet_v2(width, count):
    arch = mobilenet_v2((224, 224, 3), 1000, width)
    space = MobileNetV2Space((224, 224, 3), 1000, "full", width_multipliers=[width])
    model = space.build(arch)
    theirs = keras.applications.MobileNetV2((224, 224, 3), alpha=width, weights=None)
    assert model.count_params() == theirs.count_params()
    assert count in (None, model.count_params())
    shapes = sorted(tuple(w.shape) for w in model.trainable_weights)
    assert shapes == sorted(tuple(w.shape) for w in theirs.trainable_weights)


@pytest.mark.parametrize(
    ("side", "stem", "strides"),
    [
        (224, 2, [1, 2, 2, 2, 1]),
        (64, 2, [1, 2, 2, 2, 1]),
        (63, 1, [1, 2, 2, 2, 1]),
        (28, 1, [1, 2, 2, 2, 1]),
        (9, 1, [1, 2, 2, 1, 1]),
        (8, 1, [1, 2, 1, 1, 1]),
        (4, 1, [1, 1, 1, 1, 1]),
    ],
)
def test_presets_stride_only_where_there_are_pixels(side, stem, strides):
    space = MobileNetV2Space((side, side, 1), 10, "microcontroller")
    assert space.sample(np.random.default_rng(0)).stem_stride == stem
    assert [stage.stride for stage in space.stages] == strides


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    arch = Architecture(
        (13, 20, 3),
        4,
        (
            BlockSpec(INVERTED, 8, 2, 2, 5, 2),
            BlockSpec.identity(),
            BlockSpec(FUSED, 16, 2, 2, 3, 2),
            BlockSpec(INVERTED, 16, 1, 1, 7, 1),
        ),
        stem_filters=8,
        stem_stride=2,
        head_filters=24,
        dropout=0.2,
    )
    return build_model(arch)


def test_model_takes_raw_pixels_and_returns_probabilities(model):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 13, 20, 3)).astype(np.uint8)
    pixels[0], pixels[1] = 0, 255
    probabilities = model.predict(pixels, verbose=0)
    assert probabilities.shape == (5, 4)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    scaled = keras.ops.convert_to_numpy(model.layers[1](pixels.astype(np.float32)))
    np.testing.assert_allclose(scaled, pixels / 127.5 - 1.0, atol=1e-6)
    assert (scaled[0] == -1).all()
    assert (scaled[1] == 1).all()


def test_strided_convolutions_are_padded_evenly(model):
    convolutions = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
    ]
    strided = [layer for layer in convolutions if layer.strides == (2, 2)]
    assert [layer.name for layer in strided] == [
        "stem",
        "stage1_block1_depthwise",
        "stage3_block1_fused",
    ]
    for layer in strided:
        before = layer.input._keras_history.operation
        half = layer.kernel_size[0] // 2
        assert isinstance(before, keras.layers.ZeroPadding2D)
        assert before.padding == ((half, half), (half, half))
        assert layer.padding == "valid"
    assert {layer.padding for layer in convolutions if layer not in strided} == {"same"}
    assert not any(layer.use_bias for layer in convolutions)
    sizes = [tuple(layer.output.shape[1:3]) for layer in strided]
    assert sizes == [(7, 10), (4, 5), (2, 3)]


def test_blocks_are_joined_where_shapes_allow(model):
    joined = [x.name for x in model.layers if isinstance(x, keras.layers.Add)]
    assert joined == ["stage1_block2_add", "stage3_block2_add", "stage4_block1_add"]
    assert not any(layer.name.startswith("stage2") for layer in model.layers)
    assert not any(layer.name.startswith("stage4_block1_expand") for layer in model.layers)


def test_batchnorm_momentum_reaches_every_layer():
    space = tiny(fixed=FixedLayers(batchnorm_momentum=0.75))
    built = space.build(space.sample(np.random.default_rng(0)))
    norms = [x for x in built.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in norms} == {0.75}


def test_another_resolution_is_set_by_resizing(everything):
    space = tiny()
    small = next(arch for arch in everything if arch.resolution == (8, 16))
    built = space.build(small)
    assert built.input_shape == (None, 12, 24, 3)
    assert built.get_layer("resize").output.shape == (None, 8, 16, 3)
    assert built.get_layer("stem").input.shape == (None, 8, 16, 3)
    own = next(arch for arch in everything if arch.resolution == (12, 24))
    assert "resize" not in [layer.name for layer in space.build(own).layers]


SHAPE = (32, 32, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MobileNetV2Space(SHAPE, 10, "huge"), "preset must be one of .*, got 'huge'"),
        (lambda: MobileNetV2Space((32,), 10), "input_shape must hold 2 or 3 whole numbers"),
        (
            lambda: MobileNetV2Space((32, 3), 10, resolutions=(16, 32)),
            r"resolutions must be None for series, got \(16, 32\)",
        ),
        (
            lambda: MobileNetV2Space(SHAPE, 10, include_rescaling="no"),
            "include_rescaling must be True, False or None, got 'no'",
        ),
        (lambda: MobileNetV2Space(SHAPE, 0), "num_classes must be a whole number >= 1, got 0"),
        (lambda: FixedLayers(dropout=1.0), "dropout must be .*, got 1.0"),
        (lambda: FixedLayers(stem_stride=3), "stem_stride must be .*, got 3"),
        (lambda: MobileNetV2Space(SHAPE, 10, stages=()), r"stages must be .*, got \(\)"),
        (lambda: MobileNetV2Space(SHAPE, 10, stages=[1]), r"stages must be .*, got \[1\]"),
        (
            lambda: MobileNetV2Space(SHAPE, 10, stages=[TINY_STAGES[0]]),
            "stages must hold one without 'identity' among its kinds",
        ),
        (
            lambda: FixedLayers(batchnorm_momentum=1.0),
            r"batchnorm_momentum must be in \[0, 1\), got 1.0",
        ),
        (
            lambda: MobileNetV2Space(SHAPE, 10, width_multipliers=[0.5, -1.0]),
            "width_multiplier must be a number > 0.0, got -1.0",
        ),
        (
            lambda: MobileNetV2Space(SHAPE, 10, width_multipliers=[1, 1.0]),
            "width_multiplier must not hold a choice twice",
        ),
        (
            lambda: MobileNetV2Space(SHAPE, 10, resolutions=[32, 0]),
            r"resolution\[0\] must be a whole number >= 1, got 0",
        ),
        (
            lambda: MobileNetV2Space(SHAPE, 10, resolutions=[32, 16.0]),
            "resolutions must be whole numbers of pixels, got 16.0",
        ),
        (lambda: StageChoices(()), r"filters must be a sequence of choices, got \(\)"),
        (lambda: StageChoices(8), "filters must be a sequence of choices, got 8"),
        (lambda: StageChoices((8,), kinds="identity"), "kinds must be a sequence of choices"),
        (lambda: StageChoices((8, 0)), "filters must be a whole number >= 1, got 0"),
        (lambda: StageChoices((8,), kernels=(3, 4)), "kernel must be odd, got 4"),
        (lambda: StageChoices((8,), stride=3), "stride must be .* between 1 and 2, got 3"),
        (lambda: StageChoices((8,), kinds=("conv",)), "kind must be one of .*, got 'conv'"),
        (
            lambda: StageChoices((8,), stride=2, kinds=(INVERTED, IDENTITY)),
            "kinds must not hold 'identity' with a stride of 2",
        ),
        (lambda: Decision("x", ()), "x must have at least one choice"),
    ],
)
def test_errors_name_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stem_filters", 0),
        ("stem_stride", 0),
        ("head_filters", 0),
        ("width_multipliers", ()),
        ("resolutions", ()),
    ],
)
def test_an_empty_argument_is_an_argument(name, value):
    fixed = name in FixedLayers.__dataclass_fields__
    with pytest.raises(ValueError, match=name.removesuffix("s")):
        FixedLayers(**{name: value}) if fixed else MobileNetV2Space(SHAPE, 10, **{name: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"stages": [StageChoices(tuple(np.array([8, 16])), stride=2, kinds=(INVERTED,))]},
        {"stages": [StageChoices((8,), kernels=(np.int64(3), np.int64(5)))]},
        {"width_multipliers": np.array([0.5, 1.0])},
        {"width_multipliers": list(np.array([0.5, 1.0]))},
        {"resolutions": np.array([8, 12])},
        {"resolutions": list(np.array([8, 12]))},
    ],
    ids=["filters", "kernels", "width_array", "widths", "resolution_array", "resolutions"],
)
def test_numpy_choices_are_choices(changes):
    space, hp = tiny(**changes), kt.HyperParameters()
    arch = space.declare(hp)
    assert Architecture.from_json(arch.to_json()) in space
    json.dumps(hp.get_config())  # what keras_tuner does when it saves


def test_values_must_be_complete_and_among_the_choices():
    space = tiny()
    values = space.values(space.sample(np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"stage2_kernel must be one of \(3, 5\), got 7"):
        space.from_values({**values, "stage2_kernel": 7})
    del values["stage2_kernel"]
    with pytest.raises(ValueError, match="values must hold stage2_kernel, got"):
        space.from_values(values)


def test_an_architecture_outside_the_space_is_an_error():
    space = tiny()
    arch = space.sample(np.random.default_rng(0))
    fields = arch.to_dict()
    other = Architecture.from_dict({**fields, "head_filters": 32})
    assert other not in space
    assert "arch" not in space
    for call in (space.values, space.encode):
        with pytest.raises(ValueError, match="head_filters of this space is 16, got 32"):
            call(other)
    with pytest.raises(ValueError, match="num_classes must be 4 in this space, got 5"):
        space.build(Architecture.from_dict({**fields, "num_classes": 5}))
    with pytest.raises(ValueError, match=r"input_shape must be \(12, 24, 3\) in this space"):
        space.build(Architecture.from_dict({**fields, "input_shape": [12, 24, 1]}))


def test_hypermodel_serves_a_keras_tuner_search(tmp_path):
    space = tiny()
    tuner = kt.RandomSearch(
        space.hypermodel(), "val_accuracy", max_trials=2, seed=0, directory=tmp_path
    )
    assert {p.name for p in tuner.oracle.get_space().space} == {d.name for d in space.decisions}
    trial = tuner.oracle.create_trial("tuner0")
    arch = tuner.hypermodel.architecture(trial.hyperparameters)
    assert arch in space
    built = tuner.hypermodel.build(trial.hyperparameters)
    assert built.name == f"tfnas_{arch.key}"
    assert isinstance(built.optimizer, keras.optimizers.Adam)
    assert float(built.optimizer.learning_rate) == pytest.approx(3e-3)
    pixels, labels = np.zeros((2, 12, 24, 3), np.uint8), np.zeros(2, np.int32)
    assert set(built.evaluate(pixels, labels, verbose=0, return_dict=True)) == {"loss", "accuracy"}


def test_hypermodel_gives_each_model_its_own_optimizer():
    optimizer = keras.optimizers.SGD(0.125)
    hypermodel = tiny().hypermodel(optimizer=optimizer)
    first, second = (hypermodel.build(kt.HyperParameters()) for _ in range(2))
    assert len({id(optimizer), id(first.optimizer), id(second.optimizer)}) == 3
    assert isinstance(second.optimizer, keras.optimizers.SGD)
    assert float(second.optimizer.learning_rate) == 0.125


def test_hypermodel_lets_a_function_compile():
    seen = []
    built = SpaceHyperModel(tiny(), configure=seen.append).build(kt.HyperParameters())
    assert seen == [built]
    assert not built.compiled
    with pytest.raises(
        ValueError, match="configure excludes compile arguments, got loss, optimizer"
    ):
        SpaceHyperModel(tiny(), seen.append, loss="mse", optimizer="sgd")


def test_a_stage_may_be_left_out_for_good():
    gone = StageChoices((8,), (1,), 1, (IDENTITY,), (3,), (1,))
    space = tiny(stages=[gone, TINY_STAGES[1]])
    assert space.size == 2 * 2 * 1 * 4
    arch = space.declare(kt.HyperParameters())
    assert arch.stages[0] == BlockSpec.identity()
    assert arch in space
