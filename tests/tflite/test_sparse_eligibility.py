"""tfnas.sparse_eligibility: the verdict and the first layer that prevents it."""

import dataclasses

import numpy as np
import pytest
from slow_cases import slow_but

import tfnas
from tfnas.search_space.block_spec import FUSED_INVERTED_RESIDUAL, IDENTITY
from tfnas.search_space.blocks import build_model

BASE = tfnas.Architecture(
    (96, 96, 3),
    2,
    (
        tfnas.BlockSpec(filters=8, expansion=1),
        tfnas.BlockSpec(filters=16, repeats=2, stride=2, expansion=3),
        tfnas.BlockSpec.identity(),
        tfnas.BlockSpec(filters=16, repeats=2, stride=1, kernel=5, expansion=3),
    ),
    stem_filters=8,
    head_filters=32,
)


def verdict(mode="float32", **changes):
    arch = dataclasses.replace(BASE, resolution=None, **changes)
    return tfnas.sparse_eligibility(
        tfnas.to_tflite(build_model(arch), mode, np.zeros((2, *arch.input_shape)))
    )


def stages(**changes):
    """BASE's stages, the second one changed."""
    first, second, *rest = BASE.stages
    assert rest[0].kind == IDENTITY
    return (first, dataclasses.replace(second, **changes), *rest)


@pytest.mark.parametrize("mode", slow_but(["float32", "float16"], "float32"))
def test_kernels_3_and_5_over_rgb_are_eligible(mode):
    found = verdict(mode)
    assert (found.eligible, found.layer, found.reason) == (True, None, "")
    assert str(found).startswith("eligible")


def test_strided_kernel_5_is_eligible():
    assert verdict(stages=stages(kernel=5)).eligible


@pytest.mark.slow
def test_mobilenet_v2_itself_is_eligible():
    model = build_model(tfnas.mobilenet_v2((96, 96, 3), 2, 0.35))
    assert tfnas.sparse_eligibility(tfnas.to_tflite(model)).eligible


OBSTACLES = {
    "gray": ({"input_shape": (96, 96, 1)}, "stem", "the stem has 1 input channels, not 3"),
    "kernel 7": (
        {"stages": stages(kernel=7)},
        "stage2_block1_depthwise",
        "the depthwise kernel is 7x7, not 3x3 or 5x5",
    ),
    "fused": (
        {"stages": stages(kind=FUSED_INVERTED_RESIDUAL)},
        "stage2_block1_fused",
        "the convolution is 3x3 with stride 2, not 1x1 with stride 1",
    ),
    "stem": (
        {"stem_stride": 1},
        "stem",
        "the stem is 3x3 with stride 1, not 3x3 with stride 2",
    ),
    "int8": ({"mode": "int8"}, None, "int8 activations, not float32"),
    "int16x8": ({"mode": "int16x8"}, None, "int16 activations, not float32"),
}


@pytest.mark.parametrize("case", slow_but([*OBSTACLES], "gray", "kernel 7", "int8"))
def test_verdict_names_the_obstacle(case):
    changes, layer, reason = OBSTACLES[case]
    found = verdict(**changes)
    assert not found.eligible
    assert found.reason == reason
    if layer is not None:  # the layer itself, or one that is fused into it
        assert found.layer in (layer, f"{layer}_bn", f"{layer}_relu")
    assert str(found) == f"not eligible for sparse kernels: {reason} (layer {found.layer})"


def test_file_without_convolution():
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    found = tfnas.sparse_eligibility(tfnas.to_tflite(model))
    assert not found.eligible
    assert "no convolution" in found.reason


@pytest.mark.parametrize("mode", slow_but(["float32", "float16"], "float32"))
def test_a_file_in_sparse_encoding_is_eligible_too(mode):
    pruned, _ = tfnas.prune(build_model(BASE), 0.8, exclude=["last"])
    file = tfnas.to_tflite(pruned, mode, sparse=True)
    assert any(tensor.sparsity is not None for tensor in file.graph.tensors)
    assert tfnas.sparse_eligibility(file).eligible
