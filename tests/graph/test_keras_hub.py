"""Backbones of KerasHub, where it is installed; docs/coverage.md has more of them."""

import numpy as np
import pytest

import tfnas
from tfnas.graph.functional import walk

keras_hub = pytest.importorskip("keras_hub")

STEPS = 12
OUTPUTS = {2: "pooled_output", 3: "sequence_output"}  # by their dimensions
SIZES = {"vocabulary_size": 50, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32}


@pytest.fixture(scope="module")
def backbone():
    return keras_hub.models.BertBackbone(**SIZES, num_heads=2, max_sequence_length=STEPS)


@pytest.fixture(scope="module")
def data(backbone):
    rng = np.random.default_rng(0)
    words = rng.integers(0, 50, (32, STEPS)).astype("int32")
    lengths = rng.integers(STEPS // 2, STEPS + 1, (32, 1))
    mask = (np.arange(STEPS) < lengths).astype("int32")
    return {"token_ids": words, "padding_mask": mask, "segment_ids": words % 2}


def fixed(model):
    return tfnas.as_functional(model, input_shape={each.name: (STEPS,) for each in model.inputs})


def test_a_backbone_is_pruned_and_clustered(backbone):
    pruned, report = tfnas.prune(backbone, 0.5)
    assert report.sparsity == pytest.approx(0.5, abs=0.02)
    assert list(map(type, pruned.layers)) == list(map(type, backbone.layers))
    assert tfnas.cluster(backbone, 8)[1].kernels


def test_a_backbone_converts(backbone, data):
    shapes = dict.fromkeys(data, (STEPS,))
    file = tfnas.to_tflite(backbone, input_shape=shapes)
    expected = backbone(data)
    for values in file.predict(data):
        np.testing.assert_allclose(values, expected[OUTPUTS[values.ndim]], atol=1e-4)


def test_every_multiplication_is_counted(backbone, data):
    cost = tfnas.profile(backbone, data)
    projections, products, inside = 4 * STEPS * 16 * 16, 2 * STEPS * STEPS * 16, 2 * STEPS * 16 * 32
    assert (cost.macs, cost.uncounted) == (2 * (projections + products + inside) + 16 * 16, ())


def test_a_backbone_is_a_file_of_integers_alone(backbone, data):
    trainable = tfnas.quantize_aware(fixed(backbone), data=data)
    assert tfnas.unquantized_layers(trainable) == []
    file = tfnas.to_tflite(trainable, "int8")
    assert not [t.name for t in file.graph.tensors if t.dtype.startswith("float")]
    expected = trainable.predict(data, verbose=0)
    found = file.predict(data, reference=True)
    for each, values in zip(file.outputs, found, strict=True):
        steps = np.abs(values - expected[OUTPUTS[values.ndim]]) / each.scale
        assert np.median(steps) <= 1.001


def test_decoders_and_attention_with_a_call_of_their_own_are_opened():
    model = fixed(keras_hub.models.GPT2Backbone(**SIZES, num_heads=2, max_sequence_length=STEPS))
    kinds = [call.kind for call in walk(model).calls]
    assert not {"TransformerDecoder", "CachedMultiHeadAttention"} & set(kinds)
    assert tfnas.profile(model).uncounted == ()
