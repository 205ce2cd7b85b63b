"""Builds the :class:`Measurement` of one artifact from its parts."""

from __future__ import annotations

from typing import Any

from tfnas.measure.latency import provenance
from tfnas.measure.measurement import Latency, Measurement, Score
from tfnas.measure.profile import Profile
from tfnas.tflite.artifact import Artifact

ACTIVATION_BYTES = {"int8": 1, "int8x4": 1, "int16x8": 2}


def measurement_of(
    artifact: Artifact,
    score: Score,
    latency: Latency,
    cost: Profile,
    architecture: str,
    **more: Any,
) -> Measurement:
    """Returns the measurement of a file, with the machine and versions as its provenance.

    Args:
        artifact: The file.
        score: Its quality on the test examples.
        latency: Its latency.
        cost: Profile of the Keras model that it was converted from.
        architecture: Key of the architecture.
        **more: Further items of the provenance, such as the data set.
    """
    return Measurement(
        size_bytes=artifact.size,
        gzip_bytes=artifact.gzip_size,
        sha256=artifact.sha256,
        mode=artifact.mode,
        score=score,
        latency=latency,
        parameters=cost.parameters,
        macs=None if cost.uncounted else cost.macs,
        peak_activation_bytes=cost.peak_activation_bytes(ACTIVATION_BYTES.get(artifact.mode, 4)),
        architecture=architecture,
        provenance=provenance(**more),
    )
