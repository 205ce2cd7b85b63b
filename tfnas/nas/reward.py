"""MnasNet's reward, which combines accuracy and latency."""

from __future__ import annotations

import math


def mnasnet_reward(
    accuracy: float, latency_ratio: float, target_ratio: float | None, exponent: float = -0.07
) -> float:
    """Returns accuracy * (latency / target) ** exponent.

    With the default exponent, halving the latency outweighs a loss of 5% of the accuracy, on both
    sides of the target (the paper's "soft" constraint).

    Example:
        >>> mnasnet_reward(0.9, 0.2, 0.2)
        0.9

    Args:
        accuracy: Accuracy of the file, in [0, 1].
        latency_ratio: Latency of the file over that of the reference model, no unit.
        target_ratio: Target latency, as a ratio to the same reference model; None: the reward is
            the accuracy.
        exponent: At most 0; 0: the reward is the accuracy.

    Raises:
        ValueError: An argument is outside its rule.

    References:
        Tan et al., "MnasNet", CVPR 2019, equations 2 and 3.
    """
    if exponent > 0 or not math.isfinite(exponent):
        raise ValueError(f"exponent must be at most 0, got {exponent!r}")
    if not 0.0 <= accuracy <= 1.0:
        raise ValueError(f"accuracy must be in [0, 1], got {accuracy!r}")
    if target_ratio is None:
        return accuracy
    for name, value in (("latency_ratio", latency_ratio), ("target_ratio", target_ratio)):
        if not value > 0 or not math.isfinite(value):
            raise ValueError(f"{name} must be above 0, got {value!r}")
    return accuracy * (latency_ratio / target_ratio) ** exponent
