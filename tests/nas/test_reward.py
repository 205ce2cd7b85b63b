"""The reward of MnasNet, compared with values computed by hand."""

import math

import pytest

from tfnas.nas.reward import mnasnet_reward


def test_reward_at_the_target_is_the_accuracy():
    assert mnasnet_reward(0.83, 0.4, 0.4) == 0.83
    assert mnasnet_reward(0.83, 123.0, None) == 0.83
    assert mnasnet_reward(0.83, 0.1, 0.4, exponent=0) == 0.83


def test_reward_is_the_weighted_product_of_the_paper():
    assert mnasnet_reward(0.8, 0.2, 0.1) == pytest.approx(0.8 * math.exp(-0.07 * math.log(2)))
    assert mnasnet_reward(0.8, 0.1, 0.4, exponent=-0.5) == pytest.approx(1.6)
    # Halving the latency is worth 5% of the accuracy, on both sides of the target.
    for latency in (0.02, 5.0):
        gain = mnasnet_reward(0.8, latency / 2, 0.3) / mnasnet_reward(0.8, latency, 0.3)
        assert gain == pytest.approx(1.05, abs=0.001)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.8, 0.0, 0.1), "latency_ratio must be above 0, got 0.0"),
        ((0.8, float("nan"), 0.1), "latency_ratio must be above 0, got nan"),
        ((0.8, float("inf"), 0.1), "latency_ratio must be above 0, got inf"),
        ((0.8, 0.1, -1.0), "target_ratio must be above 0, got -1.0"),
        ((0.8, 0.1, 0.1, 0.07), "exponent must be at most 0, got 0.07"),
        ((0.8, 0.1, None, float("nan")), "exponent must be at most 0, got nan"),
    ],
)
def test_reward_errors_name_argument_and_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        mnasnet_reward(*arguments)
