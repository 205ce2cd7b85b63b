"""Signal-to-quantization-noise ratios (SQNR) and fractions, as numbers and as text."""

from __future__ import annotations

import math


def sqnr_db(noise: float) -> float:
    """Returns relative noise as a signal-to-noise ratio in dB; infinite without noise.

    Example:
        >>> sqnr_db(0.01), sqnr_db(0.0)
        (20.0, inf)

    Args:
        noise: Power of the noise divided by that of the signal.
    """
    return -10.0 * math.log10(noise) if noise > 0 else math.inf


def db_text(noise: float | None) -> str:
    """Returns relative noise as text: in dB, "exact" without noise, "" for None.

    Example:
        >>> db_text(0.001), db_text(0.0), db_text(None)
        ('30.0', 'exact', '')
    """
    if noise is None:
        return ""
    return f"{sqnr_db(noise):.1f}" if noise > 0 else "exact"


def as_percent(fraction: float) -> str:
    """Returns a fraction as text in percent; only 0 itself is shown as 0.

    Example:
        >>> as_percent(0.25), as_percent(1e-6), as_percent(0)
        ('25.00%', '<0.01%', '0')
    """
    if not fraction:
        return "0"
    return f"{fraction:.2%}" if fraction >= 5e-5 else "<0.01%"
