import pytest
from small_conversions import conversion

from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.passes import repair_file as module
from tfnas.tflite.passes.repair_file import repair_file


def test_the_file_of_a_quantization_aware_model_is_repaired(monkeypatch):
    monkeypatch.setattr(module, "repair", lambda content, detours: content + b", repaired")
    monkeypatch.setattr(module, "mend_lookups", lambda content: content)
    assert repair_file(conversion(aware=True, content=b"a")).content == b"a, repaired"


def test_other_files_stay_as_they_are():
    state = conversion(content=b"not even a file")
    assert repair_file(state) is state


def test_a_file_that_cannot_be_repaired(monkeypatch):
    def fail(content, detours):
        raise ValueError("biases must fit into 32 bits")

    monkeypatch.setattr(module, "repair", fail)
    match = "model 'small' can't be converted to int8: biases must fit into 32 bits"
    with pytest.raises(ConversionError, match=match):
        repair_file(conversion("int8", aware=True, content=b"a"))
