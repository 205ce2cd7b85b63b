"""Arrays in a file: round trips, and damage by name."""

import numpy as np
import pytest

from tfnas.runtime.array_files import read_arrays, write_arrays


def test_arrays_are_read_as_they_were_written(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array("text"), "c": np.array(3)}
    path = write_arrays(tmp_path / "folder" / "x.npz", arrays)
    found = read_arrays(path)
    assert list(found) == ["a", "b", "c"]
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize("content", [b"", b"no arrays", b"PK\x03\x04 half"])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npz' must be a file of arrays"):
        read_arrays(path)


def test_objects_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="must be a file of arrays"):
        read_arrays(path)
