import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.search_space.architecture import (
    Architecture,
    mobilenet_v2,
    scale_filters,
)
from tfnas.search_space.block_spec import BlockSpec
from tfnas.search_space.input_sizes import fitted_strides

MOBILENET_V2_KEY = "2cd0175118147621"

blocks = st.builds(
    BlockSpec,
    kind=st.sampled_from(["inverted_residual", "fused_inverted_residual"]),
    filters=st.integers(1, 512),
    repeats=st.integers(1, 6),
    stride=st.integers(1, 2),
    kernel=st.sampled_from([1, 3, 5, 7]),
    expansion=st.integers(1, 8),
)
sides = st.integers(1, 512)


@st.composite
def architectures(draw):
    stages = draw(st.lists(blocks | st.just(BlockSpec.identity()), max_size=5))
    stages.insert(draw(st.integers(0, len(stages))), draw(blocks))
    shape = draw(st.tuples(sides, sides, st.integers(1, 4)) | st.tuples(sides, sides))
    return Architecture(
        input_shape=shape,
        num_classes=draw(st.integers(1, 1000)),
        stages=tuple(stages),
        resolution=draw(st.none() | st.tuples(sides, sides)) if len(shape) == 3 else None,
        include_rescaling=draw(st.none() | st.booleans()),
        width_multiplier=draw(st.floats(0.01, 4.0)),
        stem_filters=draw(st.integers(1, 64)),
        stem_stride=draw(st.integers(1, 2)),
        head_filters=draw(st.integers(1, 2000)),
        dropout=draw(st.floats(0.0, 0.99)),
    )


def small(**changes):
    fields = {"input_shape": (32, 24, 3), "num_classes": 10, "stages": (BlockSpec(filters=16),)}
    return Architecture(**{**fields, **changes})


@settings(max_examples=40, deadline=None)
@given(architectures())
def test_json_round_trip_keeps_value_hash_and_key(arch):
    again = Architecture.from_json(arch.to_json())
    assert again == arch
    assert hash(again) == hash(arch)
    assert again.key == arch.key
    assert again.to_json() == arch.to_json()
    assert json.loads(arch.to_json(indent=2)) == arch.to_dict()
    assert Architecture.from_dict(arch.to_dict()) == arch


@settings(deadline=None)
@given(architectures(), architectures())
def test_keys_are_equal_if_and_only_if_architectures_are(a, b):
    assert (a.key == b.key) == (a == b)


def test_every_field_of_a_stage_changes_the_key():
    base = BlockSpec(filters=16)
    changes = {
        "kind": "fused_inverted_residual",
        "filters": 24,
        "repeats": 2,
        "stride": 2,
        "kernel": 5,
        "expansion": 3,
    }
    assert set(changes) == {field.name for field in dataclasses.fields(BlockSpec)}
    keys = {small(stages=(dataclasses.replace(base, **{k: v}),)).key for k, v in changes.items()}
    assert len(keys | {small(stages=(base,)).key}) == len(changes) + 1


def test_key_is_pinned():
    assert mobilenet_v2((224, 224, 3), 1000).key == MOBILENET_V2_KEY


def test_key_is_the_same_in_another_process_that_loads_no_tensorflow():
    code = (
        "import sys, tfnas; print(tfnas.mobilenet_v2((224, 224, 3), 1000).key, "
        "*[m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.split() == [MOBILENET_V2_KEY]


def test_given_defaults_do_not_change_the_key():
    plain = small()
    spelled = small(resolution=(32, 24), width_multiplier=1, stem_filters=32, dropout=0)
    assert spelled == plain
    assert spelled.key == plain.key


@pytest.mark.parametrize("name", ["filters", "repeats", "kernel", "expansion"])
def test_identity_stages_take_whole_numbers_only(name):
    plain = BlockSpec.identity()
    for value in (0.0, False):  # equal to 0, but another JSON text and so another key
        with pytest.raises(ValueError, match=f"{name} .*{value!r}"):
            dataclasses.replace(plain, **{name: value})
    odd = small(stages=(BlockSpec(filters=16), dataclasses.replace(plain, **{name: np.int64(0)})))
    assert odd.key == small(stages=(BlockSpec(filters=16), plain)).key
    assert Architecture.from_json(odd.to_json()) == odd


def test_unknown_keys_are_named():
    with pytest.raises(ValueError, match="unknown key in Architecture: depth, zeal"):
        Architecture.from_dict({**small().to_dict(), "zeal": 1, "depth": 2})
    fields = small().to_dict()
    fields["stages"][0]["kernel_size"] = 3
    with pytest.raises(ValueError, match="unknown key in BlockSpec: kernel_size"):
        Architecture.from_dict(fields)


@pytest.mark.parametrize("name", ["input_shape", "num_classes", "stages"])
def test_missing_keys_are_named(name):
    fields = small().to_dict()
    del fields[name]
    with pytest.raises(ValueError, match=f"missing key in Architecture: {name}$"):
        Architecture.from_dict(fields)


def test_keys_with_a_default_may_be_missing():
    fields = {"input_shape": [32, 24, 3], "num_classes": 10, "stages": [{"filters": 16}]}
    assert Architecture.from_json(json.dumps(fields)) == small()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "architecture is not valid JSON"),
        ("[" * 100_000, "architecture is not valid JSON"),
        ("[]", "architecture must be a JSON object, got list"),
        ("null", "architecture must be a JSON object, got NoneType"),
    ],
)
def test_text_that_is_no_object_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Architecture.from_json(text)


def test_stages_that_are_no_list_of_objects_are_refused():
    with pytest.raises(ValueError, match="stages must be a list, got 'abc'"):
        Architecture.from_dict({**small().to_dict(), "stages": "abc"})
    with pytest.raises(ValueError, match="BlockSpec must be a JSON object, got 7"):
        Architecture.from_dict({**small().to_dict(), "stages": [7]})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input_shape", (32,), r"input_shape must hold 2 or 3 whole numbers, got (32,)"),
        ("input_shape", 32, "input_shape must hold 2 or 3 whole numbers, got 32"),
        ("input_shape", "abc", "input_shape must hold 2 or 3 whole numbers, got 'abc'"),
        ("include_rescaling", 1, "include_rescaling must be True, False or None, got 1"),
        ("input_shape", (32, 0, 3), "input_shape[1] must be a whole number >= 1, got 0"),
        ("input_shape", (32, 32, 3.0), "input_shape[2] must be a whole number >= 1, got 3.0"),
        ("resolution", (32,), "resolution must hold 2 whole numbers, got (32,)"),
        ("resolution", (-1, 32), "resolution[0] must be a whole number >= 1, got -1"),
        ("num_classes", 0, "num_classes must be a whole number >= 1, got 0"),
        ("num_classes", True, "num_classes must be a whole number >= 1, got True"),
        ("num_classes", "10", "num_classes must be a whole number >= 1, got '10'"),
        ("stem_filters", -8, "stem_filters must be a whole number >= 1, got -8"),
        ("stem_stride", 3, "stem_stride must be a whole number between 1 and 2, got 3"),
        ("head_filters", 1.5, "head_filters must be a whole number >= 1, got 1.5"),
        ("width_multiplier", 0, "width_multiplier must be a number > 0.0, got 0"),
        ("width_multiplier", True, "width_multiplier must be a number > 0.0, got True"),
        ("width_multiplier", float("nan"), "width_multiplier must be a number > 0.0, got nan"),
        ("width_multiplier", float("inf"), "width_multiplier must be a number > 0.0, got inf"),
        ("width_multiplier", "1", "width_multiplier must be a number > 0.0, got '1'"),
        ("dropout", 1.0, "dropout must be a number >= 0.0 and < 1.0, got 1.0"),
        ("dropout", -0.1, "dropout must be a number >= 0.0 and < 1.0, got -0.1"),
        ("stages", (), "stages must hold at least one block, got ()"),
        ("stages", (BlockSpec.identity(),), "stages must hold at least one block, got "),
        ("stages", 5, "stages must be a sequence of BlockSpec, got 5"),
        ("stages", BlockSpec(filters=8), "stages must be a sequence of BlockSpec, got BlockSpec("),
        ("stages", (BlockSpec(filters=8), 7), "stages[1] must be a BlockSpec, got 7"),
    ],
)
def test_architecture_errors_name_field_and_value(name, value, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        small(**{name: value})
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kind", "conv", "kind must be one of inverted_residual, fused_inverted_residual, "),
        ("filters", 0, "filters must be a whole number >= 1, got 0"),
        ("filters", True, "filters must be a whole number >= 1, got True"),
        ("repeats", 0, "repeats must be a whole number >= 1, got 0"),
        ("stride", 3, "stride must be a whole number between 1 and 2, got 3"),
        ("kernel", 4, "kernel must be odd, got 4"),
        ("kernel", -3, "kernel must be a whole number >= 1, got -3"),
        ("expansion", 0.5, "expansion must be a whole number >= 1, got 0.5"),
    ],
)
def test_block_errors_name_field_and_value(name, value, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        BlockSpec(**{"filters": 8, name: value})
    assert str(error.value).startswith(message)
    assert str(error.value).endswith(f"got {value!r}")


@pytest.mark.parametrize("name", ["filters", "repeats", "stride", "kernel", "expansion"])
def test_identity_has_no_other_values(name):
    with pytest.raises(ValueError, match=f"{name} of an identity stage must be .*, got 2"):
        dataclasses.replace(BlockSpec.identity(), **{name: 2})


def test_frozen_and_hashable():
    arch = small()
    with pytest.raises(dataclasses.FrozenInstanceError):
        arch.num_classes = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        arch.stages[0].filters = 3
    assert {arch: "found"}[small(stages=[BlockSpec(filters=16)])] == "found"


def test_numpy_numbers_become_python_numbers():
    arch = small(
        input_shape=np.array([32, 24, 3]),
        num_classes=np.int32(10),
        stages=[BlockSpec(filters=np.int64(16), stride=np.uint8(1))],
        width_multiplier=np.float64(1.0),
    )
    assert arch == small()
    assert arch.key == small().key
    assert arch.to_json() == small().to_json()
    assert type(arch.num_classes) is type(arch.stages[0].filters) is int
    assert type(arch.width_multiplier) is float


def make_divisible(value, divisor=8):
    """The rounding of the reference implementation, in whole steps of `divisor`."""
    steps = [s * divisor for s in range(1, int(value / divisor) + 3)]
    nearest = min(steps, key=lambda step: (abs(step - value), -step))
    return nearest if nearest >= 0.9 * value else nearest + divisor


@settings(deadline=None)
@given(
    st.integers(1, 2000),
    st.sampled_from([0.1, 0.25, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4, 2.0]) | st.floats(0.01, 4.0),
    st.sampled_from([1, 4, 8, 16]),
)
def test_scale_filters_is_the_rounding_of_the_reference(filters, multiplier, divisor):
    scaled = scale_filters(filters, multiplier, divisor)
    assert scaled == make_divisible(filters * multiplier, divisor)
    assert type(scaled) is int


@pytest.mark.parametrize(
    ("filters", "multiplier", "expected"),
    [(32, 0.35, 16), (16, 0.35, 8), (24, 0.35, 8), (320, 0.35, 112), (24, 1.3, 32), (1, 0.1, 8)],
)
def test_scale_filters_known_values(filters, multiplier, expected):
    assert scale_filters(filters, multiplier) == expected


def test_mobilenet_v2_is_table_2_of_the_paper():
    arch = mobilenet_v2((224, 224, 3), 1000, 1.4)
    rows = [(s.expansion, s.filters, s.repeats, s.stride) for s in arch.stages]
    assert rows == [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    assert (arch.stem_filters, arch.stem_stride, arch.head_filters) == (32, 2, 1280)
    assert arch.width_multiplier == 1.4


@pytest.mark.parametrize(
    ("shape", "stem", "strides"),
    [
        ((64, 64, 3), 2, [1, 2, 2, 2, 1, 1, 1]),
        ((32, 32, 3), 1, [1, 2, 2, 2, 1, 1, 1]),
        ((28, 96, 1), 1, [1, 2, 2, 2, 1, 1, 1]),
        ((8, 8, 1), 1, [1, 2, 1, 1, 1, 1, 1]),
        ((49, 10, 1), 1, [1, 2, 2, 1, 1, 1, 1]),
        ((98, 3, 1), 2, [1, 2, 2, 2, 1, 2, 1]),
        ((128, 9), 2, [1, 2, 2, 2, 1, 2, 1]),
        ((16, 3), 1, [1, 2, 2, 1, 1, 1, 1]),
    ],
)
def test_small_images_keep_their_pixels(shape, stem, strides):
    arch = mobilenet_v2(shape, 10)
    assert arch.stem_stride == stem
    assert [stage.stride for stage in arch.stages] == strides


def test_a_series_is_an_image_of_height_1():
    arch = small(input_shape=(128, 9))
    assert arch.is_series
    assert (arch.image_shape, arch.working_resolution) == ((1, 128, 9), (1, 128))
    assert (arch.resolution, arch.include_rescaling) == (None, False)
    assert str(arch).startswith("128 steps x1 ")
    with pytest.raises(ValueError, match=r"resolution must be None for a series, got \(1, 64\)"):
        small(input_shape=(128, 9), resolution=(1, 64))


@pytest.mark.parametrize(("shape", "default"), [((32, 24, 3), True), ((32, 3), False)])
def test_the_default_of_rescaling_is_that_of_the_kind_of_input(shape, default):
    plain, spelled, other = (
        small(input_shape=shape, include_rescaling=each) for each in (None, default, not default)
    )
    assert (spelled, spelled.key, plain.include_rescaling) == (plain, plain.key, default)
    assert other.key != plain.key
    assert other.network != plain.network


def test_fitted_strides_stops_at_the_smallest_side():
    assert fitted_strides((9, 20), [2, 2, 2], smallest=2) == (1, [2, 2, 2])
    assert fitted_strides((9, 20), [2, 2, 2], smallest=3) == (1, [2, 2, 1])


@settings(deadline=None)
@given(st.lists(sides, min_size=1, max_size=2), st.lists(st.sampled_from([1, 2]), max_size=8))
def test_fitted_strides_keep_the_side_that_counts(sizes, strides):
    stem, fitted = fitted_strides(sizes, strides)
    counted = [size for size in sizes if size > 4] or [max(sizes)]
    assert all(own <= wanted for own, wanted in zip(fitted, strides, strict=True))
    side = -(-min(counted) // stem)
    for own, wanted in zip(fitted, strides, strict=True):
        assert own == (wanted if side > 4 else 1)
        side = -(-side // own)
    assert side >= min(3, *counted)
