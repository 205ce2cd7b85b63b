"""Noise beside a signal, as numbers and as text."""

from __future__ import annotations

import math


def decibels(noise: float) -> float:
    """Returns a share of noise as a signal-to-noise ratio in dB; infinite where there is none.

    Example:
        >>> decibels(0.01), decibels(0.0)
        (20.0, inf)

    Args:
        noise: Power of the noise as a share of the signal's.
    """
    return -10.0 * math.log10(noise) if noise > 0 else math.inf


def as_decibels(noise: float | None) -> str:
    """Returns a share of noise as text: dB, "exact" where there is none, "" for None.

    Example:
        >>> as_decibels(0.001), as_decibels(0.0), as_decibels(None)
        ('30.0', 'exact', '')
    """
    if noise is None:
        return ""
    return f"{decibels(noise):.1f}" if noise > 0 else "exact"


def as_share(share: float) -> str:
    """Returns a share as text; one that is not 0 never looks like 0.

    Example:
        >>> as_share(0.25), as_share(1e-6), as_share(0)
        ('25.00%', '<0.01%', '0')
    """
    if not share:
        return "0"
    return f"{share:.2%}" if share >= 5e-5 else "<0.01%"
