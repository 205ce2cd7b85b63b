"""Backbones of KerasHub, where it is installed."""

import numpy as np
import pytest

import tfnas

keras_hub = pytest.importorskip("keras_hub")


@pytest.fixture(scope="module")
def backbone():
    return keras_hub.models.BertBackbone(
        vocabulary_size=50,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=12,
    )


def test_a_backbone_is_pruned_and_clustered(backbone):
    pruned, report = tfnas.prune(backbone, 0.5)
    assert report.sparsity == pytest.approx(0.5, abs=0.02)
    assert type(pruned) is type(backbone)
    assert tfnas.cluster(backbone, 8)[1].kernels


def test_a_backbone_converts(backbone):
    model = tfnas.as_functional(backbone)
    shapes = {each.name: (12,) for each in model.inputs}
    x = {name: np.ones((2, 12), np.int32) for name in shapes}
    file = tfnas.to_tflite(backbone, input_shape=shapes)
    expected = backbone(x)
    for name, values in file.predict(x).items():
        np.testing.assert_allclose(values, expected[name], atol=1e-4)


def test_layers_of_a_backbone_that_are_not_counted_are_named(backbone):
    x = {each.name: np.ones((2, 12), np.int32) for each in backbone.inputs}
    cost = tfnas.profile(backbone, x)
    assert cost.macs > 0 or cost.uncounted
