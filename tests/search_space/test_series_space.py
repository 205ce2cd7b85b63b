"""Networks for series and for spectrograms: what they build, share, inherit and convert."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

import tfnas
from tfnas.nas.weight_inheritance import inherit_weights
from tfnas.search_space.elastic import Statistics
from tfnas.tflite.flatbuffer import unpack
from tfnas.tflite.network_operators import operators_of, operators_of_architecture
from tfnas.tflite.network_writer import write

SHAPES = {"series": (16, 3), "spectrograms": (20, 3, 1)}


@pytest.fixture(scope="module", params=SHAPES)
def space(request):
    stages = [
        tfnas.StageChoices((8, 16), (1, 2), 1, ("inverted_residual", "identity"), (3, 5), (1, 2)),
        tfnas.StageChoices((8, 24), (1,), 2, ("fused_inverted_residual",), (3, 5), (2,)),
    ]
    return tfnas.MobileNetV2Space(
        SHAPES[request.param],
        4,
        stages=stages,
        width_multipliers=(0.5, 1.0),
        fixed=tfnas.FixedLayers(stem_filters=8, stem_stride=2, head_filters=16),
        include_rescaling=False,
    )


def drawn(space, count=6):
    rng = np.random.default_rng(0)
    return [space.largest(rng), space.smallest(rng), *(space.sample(rng) for _ in range(count))]


def inputs_of(space, count=8):
    return np.random.default_rng(1).normal(3.0, 5.0, (count, *space.input_shape)).astype("float32")


def test_layers_and_shapes_are_those_of_the_space(space):
    arch = space.largest(np.random.default_rng(0))
    model = space.build(arch)
    assert model.input_shape == (None, *space.input_shape)
    assert not any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)
    kernels = {layer.kernel_size for layer in model.layers if hasattr(layer, "kernel_size")}
    tall = {1} if arch.is_series else {1, 3, 5}
    assert {height for height, _ in kernels} == tall
    assert {width for _, width in kernels} == {1, 3, 5}
    rescaled = space.build(dataclasses.replace(arch, include_rescaling=True))
    assert rescaled.get_layer("rescale")


def test_scale_and_mean_of_the_input_are_made_up_for(space):
    """In training the first BatchNormalization removes both, but for the mean at the borders."""
    model = space.build(space.largest(np.random.default_rng(0)))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    x = inputs_of(space)
    one, other = (np.array(model(values, training=True)) for values in (x, 1000.0 * x))
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_architectures_survive_json_and_values(space):
    for arch in drawn(space, 20):
        again = tfnas.Architecture.from_json(arch.to_json())
        assert (again, again.key) == (arch, arch.key)
        assert space.from_values(space.values(again)) == arch
        assert again in space
    assert ("resolution" in space.values(arch)) == (not arch.is_series)


def test_members_of_the_elastic_network_are_the_plain_models(space):
    network, x = space.elastic_network(seed=1), inputs_of(space)

    @tf.function(autograph=False)
    def measured(member):  # of one batch, whose own statistics these are
        return network.logits(x, member, Statistics.MEASURE)

    for arch in drawn(space, 2):
        network.forget_statistics()
        found = measured(tf.constant(network.member(arch)))
        model = space.build(arch)
        network.transfer(arch, model)
        plain = keras.Model(model.input, model.get_layer("logits").output)
        np.testing.assert_allclose(found, plain(x, training=False), atol=1e-4)


def test_a_child_inherits_the_center_of_kernels(space):
    small = space.smallest(np.random.default_rng(0))
    stages = [dataclasses.replace(small.stages[1], kernel=kernel) for kernel in (3, 5)]
    archs = [dataclasses.replace(small, stages=(small.stages[0], each)) for each in stages]
    child, parent = map(space.build, archs)
    assert inherit_weights(child, parent) == 1.0
    narrow, wide = (np.array(m.get_layer("stage2_block1_fused").kernel) for m in (child, parent))
    rows = slice(None) if small.is_series else slice(1, 4)
    np.testing.assert_array_equal(wide[rows, 1:4], narrow)


def test_operators_are_known_without_a_model(space):
    for arch in drawn(space, 1):
        found = operators_of_architecture(arch)
        assert found == operators_of(space.build(arch), repr)


def operator_codes(file):
    model = unpack(file.content)
    [graph] = model.subgraphs
    codes = [model.operatorCodes[each.opcodeIndex].builtinCode for each in graph.operators]
    return codes, {tensor.type for tensor in graph.tensors}


def test_an_int8_file_is_integers_that_microcontrollers_run(space):
    arch = space.largest(np.random.default_rng(0))
    model, x = space.build(arch), inputs_of(space, 32)
    file = tfnas.to_tflite(model, "int8", x)
    codes, kinds = operator_codes(file)
    assert schema.TensorType.FLOAT32 not in kinds
    tfnas.check_micro(file)
    assert file.predict(x[:3]).shape == (3, 4)
    written, _ = operator_codes(write(operators_of_architecture(arch), "int8"))
    assert codes == written
