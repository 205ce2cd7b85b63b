"""Files of several signatures: read by name, or refused with the names."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfnas
from tfnas.tflite.file_signatures import signature_names
from tfnas.tflite.flatbuffer import pack, unpack
from tfnas.tflite.metadata import make_metadata, write_metadata

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1, 16)).astype("float32")
CODE = RNG.normal(size=(1, 4)).astype("float32")


class Codec(tf.Module):
    """An encoder of a loop and a decoder, each with weights of its own."""

    def __init__(self):
        super().__init__()
        self.narrow = tf.constant(RNG.normal(size=(16, 4)).astype("float32"))
        self.turn = tf.constant(RNG.normal(size=(16, 16)).astype("float32") / 8)
        self.wide = tf.constant(RNG.normal(size=(4, 256)).astype("float32"))

    @tf.function(input_signature=[tf.TensorSpec((1, 16), tf.float32)])
    def encode(self, x):
        _, x = tf.while_loop(
            lambda i, _: i < 3, lambda i, y: (i + 1, tf.tanh(tf.matmul(y, self.turn))), (0, x)
        )
        return {"code": tf.matmul(x, self.narrow)}

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32)])
    def decode(self, code):
        return {"x": tf.matmul(code, self.wide)}


@pytest.fixture(scope="module")
def codec():
    return Codec()


@pytest.fixture(scope="module")
def path(codec, tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    signatures = {"encode": codec.encode, "decode": codec.decode}
    tf.saved_model.save(codec, str(folder / "saved"), signatures=signatures)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    path = folder / "codec.tflite"
    path.write_bytes(converter.convert())
    assert sorted(signature_names(path.read_bytes())) == ["decode", "encode"]
    return path


def test_each_signature_is_a_file_that_computes_its_function(codec, path):
    for name, x in (("encode", X), ("decode", CODE)):
        file = tfnas.Artifact.load(path, signature=name)
        [expected] = getattr(codec, name)(x).values()
        np.testing.assert_allclose(file.predict(x), expected, atol=1e-5)
        assert signature_names(file.content) == [name]
        assert file.origin["signature"] == name
        again = tfnas.Artifact(file.content)
        np.testing.assert_allclose(again.predict(x), expected, atol=1e-5)


def test_costs_are_of_one_signature(path):
    encoder, decoder = (tfnas.Artifact.load(path, each) for each in ("encode", "decode"))
    assert len(encoder.graphs) == 3  # the condition and the body of its loop
    assert len(decoder.graphs) == 1
    assert tfnas.profile(decoder).macs == 4 * 256
    assert tfnas.profile(encoder).macs == 3 * 16 * 16 + 16 * 4
    assert tfnas.profile(decoder).weight_bytes["float32"] == 4 * 4 * 256
    assert encoder.size < path.stat().st_size - 4 * 4 * 256


def test_a_recipe_takes_a_signature(path):
    file = tfnas.Artifact.load(path, signature="decode")
    codes = RNG.normal(size=(32, 4)).astype("float32")
    quantized = tfnas.apply_recipe(file, "static_wi8_ai8", codes)
    expected = file.predict(codes)
    error = np.abs(quantized.predict(codes, reference=True) - expected).max()
    assert error < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
    "read",
    [
        tfnas.Artifact.load,
        tfnas.profile,
        tfnas.check_micro,
        lambda path: tfnas.benchmark([path]),
        lambda path: tfnas.evaluate(path, X, [0]),
        lambda path: tfnas.run_micro(path, X),
        lambda path: tfnas.Artifact(path.read_bytes()),
    ],
)
def test_a_file_of_several_is_refused_with_their_names(path, read):
    with pytest.raises(ValueError, match=r"'encode'.*signature=|'decode'.*signature="):
        read(path)


def test_a_saved_model_is_refused_with_its_signatures(path):
    message = r"a SavedModel of the signatures 'decode', 'encode': keras.layers.TFSMLayer\(path"
    with pytest.raises(ValueError, match=message):
        tfnas.load_model(path.with_name("saved"))


def test_a_signature_of_a_saved_model_is_converted_as_a_layer(codec, path):
    layer = keras.layers.TFSMLayer(path.with_name("saved"), call_endpoint="decode")
    inputs = keras.Input((4,), batch_size=1)
    file = tfnas.to_tflite(keras.Model(inputs, layer(inputs)))
    np.testing.assert_allclose(file.predict(CODE), codec.decode(CODE)["x"], atol=1e-5)


def test_an_unknown_signature_is_named(path, tmp_path):
    message = r"signature must be one of .* got 'encoder'; did you mean 'encode'\?"
    with pytest.raises(ValueError, match=message):
        tfnas.Artifact.load(path, signature="encoder")
    alone = tfnas.Artifact.load(path, signature="decode").save(tmp_path / "alone.tflite")
    assert tfnas.Artifact.load(alone, signature="decode") == tfnas.Artifact.load(alone)
    with pytest.raises(ValueError, match="must be one of"):
        tfnas.Artifact.load(alone, signature="encode")


def test_the_only_signature_may_be_of_a_later_graph(codec, path, tmp_path):
    model = unpack(path.read_bytes())
    model.signatureDefs = [s for s in model.signatureDefs if s.subgraphIndex]
    [name] = [s.signatureKey.decode() for s in model.signatureDefs]
    content = pack(model)
    with pytest.raises(ValueError, match="must have the graph of its signature"):
        tfnas.Artifact(content)
    late = tmp_path / "late.tflite"
    late.write_bytes(content)
    x = {"encode": X, "decode": CODE}[name]
    [expected] = getattr(codec, name)(x).values()
    np.testing.assert_allclose(tfnas.Artifact.load(late).predict(x), expected, atol=1e-5)


def test_metadata_of_the_first_graph_stays_with_it(path, tmp_path):
    first, second = signature_names_by_graph(path)
    described = tmp_path / "described.tflite"
    metadata = make_metadata("the first graph", (), (), (), "", "")
    described.write_bytes(write_metadata(path.read_bytes(), metadata))
    assert tfnas.Artifact.load(described, first).metadata.description == "the first graph"
    assert tfnas.Artifact.load(described, second).metadata is None


def signature_names_by_graph(path):
    signatures = unpack(path.read_bytes()).signatureDefs
    return [s.signatureKey.decode() for s in sorted(signatures, key=lambda s: s.subgraphIndex)]
