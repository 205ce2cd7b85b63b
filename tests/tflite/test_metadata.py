"""TFLite Metadata in a file: other readers find it, and the file computes the same."""

import io
import pathlib
import struct
import zipfile

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import tfnas
from tfnas.tflite.flatbuffer import pack, unpack
from tfnas.tflite.graph_repair import repair
from tfnas.tflite.metadata import Metadata, move_metadata, read_metadata, write_metadata

REFERENCE = pathlib.Path(tfnas.__file__).parent / "measure" / "reference.tflite"
LABELS = [f"digit {i}" for i in range(10)]
EVERYTHING = {
    "description": "Tells digits apart.",
    "labels": LABELS,
    "mean": 127.5,
    "std": [64.25],
    "author": "J\u00fcrgen",
    "version": "v1.2",
}


@pytest.fixture(scope="module")
def reference():
    return tfnas.Artifact.load(REFERENCE)


@pytest.fixture(scope="module")
def dense():
    keras.utils.set_random_seed(0)
    return tfnas.to_tflite(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))


def buffer_of(artifact):
    """The metadata's bytes, found as other readers find them."""
    model = schema.Model.GetRootAs(artifact.content, 0)
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    [entry] = [entry for entry in entries if entry.Name() == b"TFLITE_METADATA"]
    return bytes(model.Buffers(entry.Buffer()).DataAsNumpy())


class Fields:
    """A table read by the rules of the format, without the flatbuffers package, to compare with."""

    def __init__(self, data, place):
        self.data, self.place = data, place
        self.slots = place - struct.unpack_from("<i", data, place)[0]
        self.size = struct.unpack_from("<H", data, self.slots)[0]

    def position(self, field):
        slot = 4 + 2 * field
        found = struct.unpack_from("<H", self.data, self.slots + slot)[0] if slot < self.size else 0
        return self.place + found if found else None

    def target(self, field):
        start = self.position(field)
        return start + struct.unpack_from("<I", self.data, start)[0]

    def table(self, field):
        return Fields(self.data, self.target(field))

    def list(self, field):
        start = self.target(field)
        [count] = struct.unpack_from("<I", self.data, start)
        places = [start + 4 + 4 * i for i in range(count)]
        return [Fields(self.data, p + struct.unpack_from("<I", self.data, p)[0]) for p in places]

    def text(self, field):
        start = self.target(field)
        [count] = struct.unpack_from("<I", self.data, start)
        assert self.data[start + 4 + count] == 0
        return self.data[start + 4 : start + 4 + count].decode()

    def floats(self, field):
        start = self.target(field)
        [count] = struct.unpack_from("<I", self.data, start)
        return struct.unpack_from(f"<{count}f", self.data, start + 4)


@pytest.mark.parametrize("mode", ["float32", "int8"])
def test_what_is_written_is_read_and_outputs_stay(artifacts, digits, mode):
    source = artifacts[mode]
    assert source.metadata is None
    described = source.with_metadata(**EVERYTHING)
    assert described.metadata == Metadata(
        EVERYTHING["description"], tuple(LABELS), (127.5,), (64.25,), "J\u00fcrgen", "v1.2"
    )
    assert (described.mode, described.origin, source.metadata) == (source.mode, source.origin, None)
    x = digits.x_test[:50]
    np.testing.assert_array_equal(described.predict(x), source.predict(x))
    assert (described.inputs, described.outputs) == (source.inputs, source.outputs)
    assert source.size < described.size < source.size + 4000


def test_a_saved_file_keeps_metadata_and_labels(artifacts, tmp_path):
    path = artifacts["int8"].with_metadata(**EVERYTHING).save(tmp_path / "described.tflite")
    assert tfnas.Artifact.load(path).metadata.labels == tuple(LABELS)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode() == "\n".join(LABELS) + "\n"


def test_every_field_lies_where_the_schema_has_it(artifacts):
    data = buffer_of(artifacts["int8"].with_metadata(**EVERYTHING))
    assert data[4:8] == b"M001"
    model = Fields(data, struct.unpack_from("<I", data)[0])
    assert model.text(1) == EVERYTHING["description"]
    assert (model.text(2), model.text(4), model.text(7)) == ("v1.2", "J\u00fcrgen", "1.0.0")
    assert [model.position(field) for field in (0, 5, 6)] == [None] * 3
    [graph] = model.list(3)
    [image], [classes] = graph.list(2), graph.list(3)
    # An image of one color: ImageProperties is 2 of its union, GRAYSCALE 2 of its numbers.
    content = image.table(3)
    assert (data[content.position(0)], data[content.table(1).position(0)]) == (2, 2)
    [unit] = image.list(4)
    assert data[unit.position(0)] == 1  # NormalizationOptions
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ((127.5,), (64.25,))
    assert data[classes.table(3).position(0)] == 1  # FeatureProperties
    [file] = classes.list(6)
    assert (file.text(0), data[file.position(2)]) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    names = [t.name for t in (*artifacts["int8"].graph.inputs, *artifacts["int8"].graph.outputs)]
    assert [image.text(0), classes.text(0)] == names


def test_without_labels_there_is_no_archive(reference):
    described = reference.with_metadata(author="me")
    assert described.metadata == Metadata(author="me")
    assert not zipfile.is_zipfile(io.BytesIO(described.content))


def test_new_metadata_replaces_old_metadata(artifacts):
    once = artifacts["int8"].with_metadata(**EVERYTHING)
    again = once.with_metadata(description="Other.", labels=LABELS[::-1])
    assert again.metadata == Metadata("Other.", tuple(LABELS[::-1]))
    with zipfile.ZipFile(io.BytesIO(again.content)) as archive:
        assert archive.namelist() == ["labels.txt"]
    assert len(buffer_of(again)) < len(buffer_of(once))
    assert once.with_metadata(**EVERYTHING).content == once.content  # to the byte


def test_other_metadata_of_the_file_stays(reference):
    def names(artifact):
        model = schema.Model.GetRootAs(artifact.content, 0)
        return [model.Metadata(i).Name() for i in range(model.MetadataLength())]

    assert names(reference)
    assert names(reference.with_metadata(author="me")) == [*names(reference), b"TFLITE_METADATA"]


def starts_of_buffers(file):
    content = np.frombuffer(file, np.uint8)
    model = schema.Model.GetRootAs(file, 0)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    return [
        b.DataAsNumpy().__array_interface__["data"][0] - content.__array_interface__["data"][0]
        for b in buffers
        if b.DataLength()
    ]


def test_weights_stay_aligned(artifacts):
    starts = starts_of_buffers(artifacts["float32"].with_metadata(**EVERYTHING).content)
    assert len(starts) > 10
    assert {start % 16 for start in starts} == {0}


def test_weights_of_a_repaired_file_are_aligned_too(artifacts, digits):
    file = artifacts["int16x8"]
    repaired = repair(file.content)
    assert repaired != file.content  # it was packed again
    starts = starts_of_buffers(repaired)
    assert len(starts) > 10
    assert {start % 16 for start in starts} == {0}
    x = digits.x_test[:20]
    np.testing.assert_array_equal(tfnas.Artifact(repaired).predict(x), file.predict(x))


def test_one_number_a_channel(reference):
    channels = reference.graph.inputs[0].shape[-1]
    assert channels == 3
    described = reference.with_metadata(mean=[1, 2, 3], std=(4, 5, 6))
    assert (described.metadata.mean, described.metadata.std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"description": 3}, "description must be a string, got 3"),
        ({"version": None}, "version must be a string, got None"),
        ({"labels": "ab"}, "labels must be a sequence of strings, got 'ab'"),
        ({"labels": ["a", 3]}, "labels must be a sequence of strings"),
        ({"labels": ["a", ""]}, "labels must be lines of text that are not empty, got ''"),
        ({"labels": ["a", "b\nc"]}, "labels must be lines of text that are not empty, got 'b"),
        ({"labels": ["a"]}, "labels must be 2 names, got 1"),
        ({"mean": 1}, "mean and std must be given together, got 1 and ()"),
        ({"mean": 1, "std": 0}, "std must be above 0, got 0"),
        ({"mean": [1, 2], "std": 1}, "mean must hold 1 number or 3, got 2"),
        ({"mean": 1, "std": [1, 2]}, "std must hold 1 number or 3, got 2"),
        ({"mean": float("nan"), "std": 1}, "mean must be a finite number or one per channel"),
        ({"mean": "x", "std": 1}, "mean must be a number or one per channel, got 'x'"),
    ],
)
def test_wrong_arguments_are_refused(dense, arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 the text is compared below
        dense.with_metadata(**arguments)
    assert message in str(error.value)


def test_labels_and_means_need_one_tensor():
    a, b = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([a, b], [layers.Dense(2)(a), layers.Dense(2)(b)])
    file = tfnas.to_tflite(model)
    with pytest.raises(
        ValueError, match=r"labels must be a dictionary by output .* 2 outputs \(.*\), got 2 names"
    ):
        file.with_metadata(labels=["x", "y"])
    with pytest.raises(ValueError, match="mean goes with a file of one input, got 2"):
        file.with_metadata(mean=0, std=1)
    assert file.with_metadata(author="me").metadata.author == "me"


@pytest.fixture(scope="module")
def two_heads():
    inputs = keras.Input((3,))
    heads = [layers.Dense(1, name="age")(inputs), layers.Dense(2, name="kind")(inputs)]
    return tfnas.to_tflite(keras.Model(inputs, heads))


def test_labels_of_several_outputs(two_heads, tmp_path):
    age, kind = (output.name for output in two_heads.outputs)
    labels = {kind: ["cat", "dog"]}
    described = two_heads.with_metadata(labels=labels, author="me")
    loaded = tfnas.Artifact.load(described.save(tmp_path / "heads.tflite"))
    assert loaded.metadata == Metadata(labels={kind: ("cat", "dog")}, author="me")
    with zipfile.ZipFile(tmp_path / "heads.tflite") as archive:
        assert archive.namelist() in (["labels_0.txt"], ["labels_1.txt"])
    both = loaded.with_metadata(labels={kind: ["a", "b"], age: ["years"]})
    assert both.metadata.labels == {age: ("years",), kind: ("a", "b")}
    assert both.minified().metadata == both.metadata
    x = np.ones((4, 3), np.float32)
    for before, after in zip(two_heads.predict(x), both.predict(x), strict=True):
        assert np.array_equal(before, after)
    with pytest.raises(ValueError, match=rf"labels must be 2 names for output '{kind}', got 1"):
        two_heads.with_metadata(labels={kind: ["cat"]})
    with pytest.raises(ValueError, match=r"labels must be by output of .*, got 'sort'"):
        two_heads.with_metadata(labels={"sort": ["cat", "dog"]})


def test_metadata_moves_to_a_file_whose_outputs_have_other_names(two_heads):
    kind = two_heads.outputs[1].name
    described = two_heads.with_metadata(labels={kind: ["cat", "dog"]}, version="2")
    model = unpack(two_heads.content)
    model.signatureDefs = []  # its outputs are then called as their tensors
    moved = tfnas.Artifact(move_metadata(pack(model), described.content))
    assert moved.metadata.version == "2"
    assert list(moved.metadata.labels.values()) == [("cat", "dog")]
    [output] = [each for each in moved.graph.outputs if each.shape[-1] == 2]
    assert list(moved.metadata.labels) == [output.name] != [kind]
    assert move_metadata(two_heads.content, two_heads.content) == two_heads.content


def test_corrupt_metadata_is_refused(dense):
    described = dense.with_metadata(author="somebody")
    data = buffer_of(described)
    start = described.content.index(data)
    for corrupt in (b"\0" * len(data), data[:8] + b"\xff" * (len(data) - 8)):
        content = described.content[:start] + corrupt + described.content[start + len(data) :]
        with pytest.raises(ValueError, match="metadata must"):
            read_metadata(content)
    with pytest.raises(ValueError, match=r"content must be a \.tflite file"):
        write_metadata(b"nothing of the kind", Metadata())
