import pytest
from small_conversions import X, conversion

from tfnas.tflite.passes import convert_model
from tfnas.tflite.passes.convert_model import convert


def test_the_file_and_its_origin():
    converted = convert(conversion("int8", columns=(X,)))
    assert converted.content[4:8] == b"TFL3"
    assert converted.artifact is None
    assert converted.origin["model"] == "small"
    assert converted.origin["mode"] == "int8"
    assert converted.origin["calibration_examples"] == len(X)
    assert {"inputs", "tensorflow", "keras"} <= set(converted.origin)


@pytest.mark.parametrize(
    ("mode", "fields", "given", "origin"),
    [
        ("float32", {}, ("float32", 0, False), ("float32", 0, False)),
        ("weights4", {}, ("float32", 0, False), ("float32", 0, False)),
        ("int8", {"columns": (X,)}, ("int8", 1, False), ("int8", 20, False)),
        ("int8", {"aware": True}, ("int8", 0, True), ("int8", 0, True)),
        (
            "int8x4",
            {"aware": True, "columns": (X,), "float_model": "the float model"},
            ("int8x4", 0, True),
            ("int8x4", 20, False),
        ),
    ],
    ids=["float", "recipe", "calibrated", "trained", "placed"],
)
def test_the_request_to_the_converter(monkeypatch, mode, fields, given, origin):
    calls = []

    def record(model, spec, columns, *, aware):
        calls.append((spec.mode, len(columns), aware))
        return b"a file"

    monkeypatch.setattr(convert_model, "run_converter", record)
    converted = convert(conversion(mode, **fields))
    assert calls == [given]
    assert converted.content == b"a file"
    names = ("mode", "calibration_examples", "quantization_aware")
    assert tuple(converted.origin[name] for name in names) == origin
