"""The attacks of `make attacks` (benchmarks/attacks.py), each in a short form."""

import sys

import hostile_archives
import long_search
import process_limits
import pytest
import tflite_files
import threads_that_convert
from process_limits import program_ends

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="counts what /proc tells")


@pytest.mark.slow  # tests/contracts/test_malformed_inputs.py mutates files too
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
    found, faults = hostile_archives.attack(tmp_path, 5)
    assert faults == []
    assert sum(found.values()) == 15
    assert found["refused"] > 10


@LINUX
@pytest.mark.slow
def test_searches_that_are_killed_again_and_again_are_the_same_searches(tmp_path):
    kinds = ("evolution", "reinforcement", "halving", "surrogate")
    found = program_ends("killed_searches.py", tmp_path, ",".join(kinds), 24, 5)
    assert [list(line) for line in found] == [[kind] for kind in kinds]
    for line in found:
        [(counts, faults)] = line.values()
        assert faults == []
        assert counts["kills"] == 5


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one process", "two processes"])
def test_workers_children_and_searches_may_be_killed(kind, tmp_path):
    [line] = program_ends("killed_searches.py", tmp_path, kind, 24, 6)
    counts, faults = line[kind]
    assert faults == []
    assert (counts["workers"], counts["children"], counts["searches"]) == (2, 2, 2)


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["search", "compress"])
def test_commands_may_be_killed(kind, tmp_path):
    [(counts, faults)] = program_ends("killed_commands.py", tmp_path, kind, 3)
    assert faults == []
    assert counts["kills"] == 3


@pytest.mark.slow
@LINUX
def test_many_trials_do_not_grow():
    growth = long_search.attack(60)
    assert long_search.faults(growth, 10_000) == []  # so few trials say little of bytes


@pytest.mark.slow
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
