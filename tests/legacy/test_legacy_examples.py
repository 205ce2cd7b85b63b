"""The examples of the functions that load models and packages of Keras 2."""

import doctest

import pytest

from tfnas.legacy import environment, model_files


@pytest.mark.parametrize("module", [environment, model_files])
def test_the_examples_are_true(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
