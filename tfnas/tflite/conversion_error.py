"""The errors that conversion to `.tflite` raises beside ValueError."""

from __future__ import annotations


class ConversionError(RuntimeError):
    """The model can't be converted as requested; the message names the cause and the layer."""


class NoCalibration(ValueError):
    """The mode needs calibration data, but `calibration` is None."""
