"""The examples of `Artifact`, its tensors, its errors, and of loading a model."""

import doctest

import pytest

from tfnas import loading
from tfnas.measure.latency import reference_artifact
from tfnas.tflite import artifact, conversion_error, tensor_details


@pytest.mark.parametrize("module", [artifact, conversion_error, loading, tensor_details])
def test_the_examples_are_true(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_printed_file_says_what_it_takes_and_gives():
    file = reference_artifact()
    first, *tensors = str(file).splitlines()
    assert first == f".tflite file, {file.size:,} bytes, {len(file.graph.operators)} operators"
    assert [line.split(":")[0].split()[0] for line in tensors] == ["input", "output"]
    assert tensors[0] == "  input image: float32 (any, 48, 48, 3)"
