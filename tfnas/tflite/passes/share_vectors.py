"""Pass: integer files hold equal vectors once.

Each tensor of the converter's file has a vector of scales, one of zero points, a shape and a name
of its own, most of them equal to others'. A flatbuffer refers to vectors by their place, so they
are written once; no reader sees a difference. Names stay in full, unlike in a minified file.
"""

from __future__ import annotations

import dataclasses

from tfnas.tflite.flatbuffer import pack, unpack
from tfnas.tflite.passes.conversion_state import Conversion
from tfnas.tflite.sharing_builder import SharingBuilder

_LARGEST = 2**30  # bytes; of larger files a few thousand are not worth the copy


def share_vectors(conversion: Conversion) -> Conversion:
    """Writes a file of integer activations with each vector once.

    Args:
        conversion: A repaired file.

    Returns:
        The conversion, with the smaller `content`.
    """
    content = conversion.content
    if not (conversion.aware or conversion.spec.needs_calibration) or len(content) > _LARGEST:
        return conversion
    shared = pack(unpack(content), SharingBuilder())
    return dataclasses.replace(conversion, content=min(shared, content, key=len))
