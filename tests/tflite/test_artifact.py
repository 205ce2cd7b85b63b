"""The examples of `Artifact`, its tensors, its errors, and of loading a model."""

import doctest

import pytest

from tfnas import loading
from tfnas.tflite import artifact, conversion_error, tensor_details


@pytest.mark.parametrize("module", [artifact, conversion_error, loading, tensor_details])
def test_the_examples_are_true(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
