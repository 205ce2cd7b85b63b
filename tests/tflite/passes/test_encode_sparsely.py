import dataclasses

import pytest
from small_conversions import conversion, float_file

from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.passes import encode_sparsely as module
from tfnas.tflite.passes.encode_sparsely import encode_sparsely


@pytest.fixture
def converter(monkeypatch):
    """TensorFlow's converter and the comparison, replaced; returns what they were asked."""
    calls = []

    def run(model, spec, columns, *, sparse):
        calls.append((spec.mode, columns, sparse))
        return float_file().content

    monkeypatch.setattr(module, "run_converter", run)
    monkeypatch.setattr(module, "sparse_fault", lambda artifact, dense: None)
    return calls


def state(mode="float32"):
    dense = dataclasses.replace(float_file(), origin={"model": "small"})
    return conversion(mode, sparse=True, artifact=dense)


def test_the_sparse_file_replaces_the_dense_one(converter):
    sparse = encode_sparsely(state()).file
    assert converter == [("float32", (), True)]
    assert sparse.origin == {
        "model": "small",
        "sparse": True,
        "dense_size": float_file().size,
        "dense_gzip_size": float_file().gzip_size,
    }


def test_a_dense_file_stays_as_it_is(converter):
    dense = conversion(artifact=float_file())
    assert encode_sparsely(dense) is dense
    assert not converter


def test_a_fault_of_the_sparse_file_is_an_error(converter, monkeypatch):
    monkeypatch.setattr(module, "sparse_fault", lambda artifact, dense: "it is larger")
    with pytest.raises(
        ConversionError, match="sparse must be False for model 'small': it is larger"
    ):
        encode_sparsely(state())


def test_a_file_that_is_not_valid_is_an_error_of_the_conversion(converter, monkeypatch):
    monkeypatch.setattr(module, "run_converter", lambda *args, **kwargs: b"no file")
    with pytest.raises(ConversionError, match=r"False for model 'small': .* that is not valid"):
        encode_sparsely(state())


def test_an_int8_file_of_wrong_formats_is_an_error_with_a_hint(converter):
    with pytest.raises(
        ConversionError, match=r"False for model 'small': .* no float .* 1x16 blocks"
    ):
        encode_sparsely(state("int8"))
