"""The attacks of `make attacks` (benchmarks/attacks.py), each in a short form."""

import sys

import hostile_archives
import long_search
import process_limits
import pytest
import tflite_files
import threads_that_convert

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="counts what /proc tells")


def test_mutated_files_do_not_end_the_caller(tmp_path):
    tflite_files.write_files(tmp_path, tflite_files.sound_files())
    found, faults = tflite_files.attack(tmp_path, 40)
    assert faults == []
    assert sum(found.values()) == 40
    assert set(found) <= set(tflite_files.ENDS)
    assert found["ran"] > 5
    assert found["refused"] > 5


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_hostile_archives_and_folders_are_read_or_refused(tmp_path):
    found, faults = hostile_archives.attack(tmp_path, 10)
    assert faults == []
    assert sum(found.values()) == 30
    assert found["refused"] > 20


@LINUX
def test_many_trials_do_not_grow():
    growth = long_search.attack(60)
    assert long_search.faults(growth, 10_000) == []  # so few trials say little of bytes


@pytest.mark.filterwarnings("ignore")  # threads leave the filters as they found them, or not
def test_threads_convert_as_one():
    count, faults = threads_that_convert.attack(3, 2, isolated=False)
    assert faults == []
    assert count == 6


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("name", process_limits.ATTACKS)
def test_searches_survive_the_limits_of_their_process(name, tmp_path):
    ends = process_limits.attack(tmp_path, [name])
    if ends[name] == "impossible here":
        pytest.skip("the system does not allow it")
    assert ends == {name: "as undisturbed"}
