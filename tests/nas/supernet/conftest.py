"""The smallest space and data that weight sharing can be tried on."""

import pytest

import tfnas


@pytest.fixture(scope="session")
def space():
    stage = tfnas.StageChoices((8, 16), (1, 2), 2, ("inverted_residual",), (3, 5), (2,))
    fixed = tfnas.FixedLayers(stem_filters=8, head_filters=16)
    return tfnas.MobileNetV2Space(
        (8, 8, 1), 10, stages=[stage], width_multipliers=(1.0,), fixed=fixed
    )


@pytest.fixture(scope="session")
def split():
    return tfnas.data.load("digits").limited(200)
