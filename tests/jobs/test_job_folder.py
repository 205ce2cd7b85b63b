"""The folder of a job of `compress`: other files are neither claimed nor deleted."""

import json

import keras
import numpy as np
import pytest

from tfnas.compression.training_settings import TrainingSettings
from tfnas.data.data_split import DataSplit
from tfnas.jobs import job_folder

OURS = (
    *("job.json", "model_analysis.json", "best.tflite", "report.html", "report.md", "pareto.png"),
    *("saved_model/saved_model.pb", "saved_model/variables/variables.index"),
    *("earlier/report.html", "earlier.part/best.tflite", "earlier/saved_model/saved_model.pb"),
    *("candidates/int8/model.tflite", "candidates/int8/record.json", "candidates/int8/right.npy"),
    *("candidates/int8/model.keras", "candidates/int8/device.json"),
    *("models/prune_channels_0.5-float-6_epochs.keras", "models/.prune_0.5-float.part.keras"),
    *(".report.md.12.ab.part", "candidates/int8/.record.json.12.ab.part"),
)
THEIRS = (
    *("mine.txt", "model.keras", "src/code.py", "models/mine.keras", "candidates/list.csv"),
    *("candidates/int8/notes.txt", "earlier/notes.txt", ".git/HEAD"),
)
JOB = json.dumps({"model": "a", "settings": {}, "data": "b"})


def write(folder, *names, job=JOB):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(job if name == "job.json" else "text")


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def job():
    """(model, data, settings) of a job."""
    x, y = np.zeros((4, 4, 4, 1), "float32"), np.arange(4) % 2
    split = DataSplit("few", x, y, x, y, x, y, ("a", "b"))
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    return keras.Sequential(layers), split, TrainingSettings(epochs=0)


def test_a_job_is_removed_without_the_files_of_others(tmp_path):
    write(tmp_path, *OURS, *THEIRS)
    job_folder.remove_job(tmp_path)
    assert files(tmp_path) == set(THEIRS)
    assert not (tmp_path / "saved_model").exists()
    assert not (tmp_path / "earlier.part").exists()


def test_a_folder_that_holds_a_job_alone_is_removed(tmp_path):
    write(tmp_path / "job", *OURS)
    job_folder.remove_job(tmp_path / "job")
    assert not (tmp_path / "job").exists()
    job_folder.remove_job(tmp_path / "job")  # nothing is there


def test_a_link_is_removed_and_what_it_names_stays(tmp_path):
    write(tmp_path / "elsewhere", "weights")
    write(tmp_path / "job", "job.json")
    (tmp_path / "job" / "saved_model").symlink_to(tmp_path / "elsewhere")
    job_folder.remove_job(tmp_path / "job")
    assert not (tmp_path / "job").exists()
    assert files(tmp_path) == {"elsewhere/weights"}


@pytest.mark.parametrize("text", [None, "no json", "[]", '{"model": "a", "recipes": 3}'])
def test_without_a_job_of_ours_nothing_is_removed(tmp_path, text, job):
    write(tmp_path, "best.tflite", "mine.txt")
    if text is not None:
        (tmp_path / "job.json").write_text(text)
    before = files(tmp_path)
    message = "directory must be new, empty or the folder of a job of compress, got .*mine.txt"
    with pytest.raises(ValueError, match=message):
        job_folder.remove_job(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=message):
            job_folder.claim(tmp_path, *job, overwrite)
    assert files(tmp_path) == before


def test_the_message_does_not_name_hundreds_of_files(tmp_path, job):
    write(tmp_path, *(f"file{number}" for number in range(8)))
    with pytest.raises(ValueError, match=r"holds file0, file1, file2, file3, file4 and 3 more$"):
        job_folder.claim(tmp_path, *job)


@pytest.mark.parametrize("names", [None, (), (".job.json.12.ab.part",)])
@pytest.mark.parametrize("overwrite", [False, True])
def test_new_and_empty_folders_are_claimed(tmp_path, job, names, overwrite):
    folder = tmp_path / "a" / "job"
    if names is not None:
        folder.mkdir(parents=True)
        write(folder, *names)
    job_folder.claim(folder, *job, overwrite)
    record = json.loads((folder / "job.json").read_text())
    assert set(record) == {"recipes", "model", "settings", "data"}
    job_folder.claim(folder, *job)  # continues
    write(folder, "notes.txt")
    job_folder.claim(folder, *job)


def test_overwriting_keeps_other_files(tmp_path, job):
    write(tmp_path, *OURS, *THEIRS)
    with pytest.raises(ValueError, match="another version of tfnas"):
        job_folder.claim(tmp_path, *job)
    job_folder.claim(tmp_path, *job, overwrite=True)
    assert files(tmp_path) == {*THEIRS, "job.json"}
    job_folder.claim(tmp_path, *job)


def test_a_folder_that_can_not_be_created_is_refused(tmp_path, job):
    write(tmp_path, "file")
    with pytest.raises(ValueError, match=r"directory must be a folder, got .*, which is a file"):
        job_folder.claim(tmp_path / "file", *job)
    with pytest.raises(ValueError, match="directory must be a folder that exists or can be"):
        job_folder.claim(tmp_path / "file" / "job", *job)
