"""The folder of a search: files of others are neither written over nor removed."""

import dataclasses
import json
import types

import pytest

import tfnas
from tfnas.jobs import search_folder, search_job
from tfnas.nas.search_config import SearchConfig

KEYS = ("0" * 16, "a" * 16)
CONFIG = json.dumps({"config": {"dataset": "digits"}})


@pytest.mark.parametrize(
    "name",
    ["config.json", "report.md", "best.keras", "best_int8.tflite", "final/a", "search/notes.txt"],
)
def test_files_of_others_are_not_written_over(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=f"directory must be .* holds {name.split('/')[0]} of"):
        search_folder.check_is_free(tmp_path)
    (tmp_path / "config.json").write_text(CONFIG)  # an earlier search
    search_folder.check_is_free(tmp_path)


def test_other_names_and_empty_folders_are_fine(tmp_path):
    (tmp_path / "mine.txt").write_text("")
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / ".owner.lock").write_text("")  # of a tuner that refused its settings
    search_folder.check_is_free(tmp_path)
    search_folder.check_is_free(tmp_path / "new")
    with pytest.raises(ValueError, match=r"directory must be a folder, got .*, which is a file"):
        search_folder.check_is_free(tmp_path / "mine.txt")


def test_a_search_checks_its_folder_also_to_overwrite(tmp_path, digits):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds search of something else"):
            tfnas.search(digits, directory=tmp_path, overwrite=overwrite)
    assert (tmp_path / "search" / "notes.txt").read_text() == "mine"


def test_only_results_are_removed(tmp_path):
    (tmp_path / "final").mkdir()
    ours = (*search_folder.RESULTS, f"final/{KEYS[0]}.tflite", f"final/{KEYS[1]}.best")
    theirs = {"mine.txt", "final/mine.tflite", "config.json"}
    for name in (*ours, *theirs):
        (tmp_path / name).write_text("")
    search_folder.remove_results(tmp_path)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == theirs


def test_files_of_another_winner_are_not_read_as_the_winners(tmp_path, monkeypatch):
    """Winners A, B and A again, each in a resumed search: the files are shared."""
    (tmp_path / "final").mkdir()
    exported = []

    class Run(search_job._Run):
        def __init__(self):
            self.directory, self.writes = tmp_path, True

        def _final_model(self, winner, retrain):
            return None

        def _export(self, model, arch):
            exported.append(arch.key)
            (tmp_path / "best_int8.tflite").write_text(arch.key)
            return {"int8": arch.key}

    class Read:
        @staticmethod
        def load(path):
            return path.read_text()

    monkeypatch.setattr(search_job, "Artifact", Read)
    monkeypatch.setattr(search_job, "_modes", lambda arch: {"int8": "int8"})
    monkeypatch.setattr(search_job.dataclasses, "replace", lambda file, mode: file)
    a, b = (
        types.SimpleNamespace(architecture=types.SimpleNamespace(key=key, compression=None))
        for key in KEYS
    )
    for winner in (a, a, b, a):
        files = Run()._final_files(winner, retrain=True)
        assert files == {"int8": winner.architecture.key}
    assert exported == [KEYS[0], KEYS[1], KEYS[0]]


def test_a_larger_time_limit_of_a_device_resumes_its_search(tmp_path):
    record = {"config": dataclasses.asdict(SearchConfig("digits", measure_on="adb,timeout=5"))}
    (tmp_path / "config.json").write_text(json.dumps(record))
    search_folder.check_same_search(tmp_path, SearchConfig("digits", measure_on="adb,timeout=9"))
    with pytest.raises(ValueError, match="holds a search with another measure_on"):
        search_folder.check_same_search(tmp_path, SearchConfig("digits", measure_on="adb:4A1"))
