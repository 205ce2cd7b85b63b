"""Changed files hold equal vectors as often as the files that they were made of."""

import pytest

from tfnas.tflite.flatbuffer import pack, unpack
from tfnas.tflite.sharing_builder import SharingBuilder, pack_as, shares_vectors


@pytest.mark.parametrize("mode", ["float32", "int8"])
def test_a_file_is_written_as_it_was(artifacts, mode):
    content = artifacts[mode].content
    plain, shared = pack(unpack(content)), pack(unpack(content), SharingBuilder())
    assert not shares_vectors(plain)
    assert shares_vectors(shared)
    assert pack_as(plain, unpack(plain)) == plain
    assert pack_as(shared, unpack(shared)) == shared
    assert shares_vectors(content) == (mode == "int8")
