"""Costs that are known before a trial is trained."""

import keras
import pytest
from keras import layers

from tfnas.nas.feasibility import static_costs
from tfnas.quantization.spec import QuantSpec


def twice(x):
    return 2.0 * x


def test_macs_that_can_not_be_counted_are_no_metric_and_no_objective():
    model = keras.Sequential([keras.Input((4,)), layers.Lambda(twice, name="own"), layers.Dense(3)])
    assert "macs" not in static_costs(model, QuantSpec.of("int8"), {"parameters"})
    with pytest.raises(ValueError, match=r"objective or limit 'macs' must be left out .* got own"):
        static_costs(model, QuantSpec.of("int8"), {"macs"})
    counted = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    assert static_costs(counted, QuantSpec.of("int8"), {"macs"})["macs"] == 12
