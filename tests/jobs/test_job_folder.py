"""The folder of a job: other files are neither claimed nor deleted."""

import json
import os

import keras
import numpy as np
import pytest

from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.technique_context import Context
from tfnas.data.data_split import DataSplit
from tfnas.jobs import job_folder
from tfnas.jobs.compress_folder import compress_folder, identity_of
from tfnas.jobs.job_folder import JobFolder
from tfnas.tasks.image_classes import ImageClasses

OURS = (
    *("job.json", "model_analysis.json", "best.tflite", "report.html", "report.md", "pareto.png"),
    *("saved_model/saved_model.pb", "saved_model/variables/variables.index"),
    *("earlier/report.html", "earlier.part/best.tflite", "earlier/saved_model/saved_model.pb"),
    *("candidates/int8/model.tflite", "candidates/int8/record.json", "candidates/int8/right.npy"),
    *("candidates/int8/model.keras", "candidates/int8/device.json", "candidates/int8/values.npy"),
    "training/prune_0.5-float-6_epochs/1_prune/training.npz",
    *("models/prune_channels_0.5-float-6_epochs.keras", "models/.prune_0.5-float.part.keras"),
    *(".report.md.12.ab.part", "candidates/int8/.record.json.12.ab.part"),
)
THEIRS = (
    *("mine.txt", "model.keras", "src/code.py", "models/mine.keras", "candidates/list.csv"),
    *("candidates/int8/notes.txt", "earlier/notes.txt", ".git/HEAD", "training/mine.npz"),
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
    """What makes a job the same."""
    x, y = np.zeros((4, 4, 4, 1), "float32"), np.arange(4) % 2
    split = DataSplit("few", x, y, x, y, x, y, ("a", "b"))
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    model, settings = keras.Sequential(layers), FineTuneSettings(epochs=0)
    return identity_of(Context(model, ImageClasses(), split, settings))


def test_a_job_is_removed_without_the_files_of_others(tmp_path):
    write(tmp_path, *OURS, *THEIRS)
    compress_folder(tmp_path).remove()
    assert files(tmp_path) == set(THEIRS)
    assert not (tmp_path / "saved_model").exists()
    assert not (tmp_path / "earlier.part").exists()


def test_a_folder_that_holds_a_job_alone_is_removed(tmp_path):
    write(tmp_path / "job", *OURS)
    compress_folder(tmp_path / "job").remove()
    assert not (tmp_path / "job").exists()
    compress_folder(tmp_path / "job").remove()  # nothing is there


def test_a_link_is_removed_and_what_it_names_stays(tmp_path):
    write(tmp_path / "elsewhere", "weights")
    write(tmp_path / "job", "job.json")
    (tmp_path / "job" / "saved_model").symlink_to(tmp_path / "elsewhere")
    compress_folder(tmp_path / "job").remove()
    assert not (tmp_path / "job").exists()
    assert files(tmp_path) == {"elsewhere/weights"}


@pytest.mark.parametrize("text", [None, "no json", "[]", '{"model": "a", "recipes": 3}'])
def test_without_a_job_of_ours_nothing_is_removed(tmp_path, text, job):
    write(tmp_path, "best.tflite", "mine.txt")
    if text is not None:
        (tmp_path / "job.json").write_text(text)
    before = files(tmp_path)
    message = "directory must be new, empty or the folder of a job of tfnas, got .*mine.txt"
    with pytest.raises(ValueError, match=message):
        compress_folder(tmp_path).remove()
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=message):
            compress_folder(tmp_path).claim(job, overwrite)
    assert files(tmp_path) == before


def test_the_message_does_not_name_hundreds_of_files(tmp_path, job):
    write(tmp_path, *(f"file{number}" for number in range(8)))
    with pytest.raises(ValueError, match=r"holds file0, file1, file2, file3, file4 and 3 more$"):
        compress_folder(tmp_path).claim(job)


@pytest.mark.parametrize("names", [None, (), (".job.json.12.ab.part",)])
@pytest.mark.parametrize("overwrite", [False, True])
def test_new_and_empty_folders_are_claimed(tmp_path, job, names, overwrite):
    folder = tmp_path / "a" / "job"
    if names is not None:
        folder.mkdir(parents=True)
        write(folder, *names)
    compress_folder(folder).claim(job, overwrite)
    record = json.loads((folder / "job.json").read_text())
    assert set(record) == {"format", "model", "task", "settings", "data"}
    compress_folder(folder).claim(job)  # continues
    write(folder, "notes.txt")
    compress_folder(folder).claim(job)


def test_overwriting_keeps_other_files(tmp_path, job):
    write(tmp_path, *OURS, *THEIRS)  # of a version whose records had no form
    with pytest.raises(ValueError, match="another version of tfnas"):
        compress_folder(tmp_path).claim(job)
    compress_folder(tmp_path).claim(job, overwrite=True)
    assert files(tmp_path) == {*THEIRS, "job.json"}
    compress_folder(tmp_path).claim(job)


def test_a_folder_that_can_not_be_created_is_refused(tmp_path, job):
    write(tmp_path, "file")
    with pytest.raises(ValueError, match=r"directory must be a folder, got .*, which is a file"):
        compress_folder(tmp_path / "file").claim(job)
    with pytest.raises(ValueError, match="directory must be a folder that exists or can be"):
        compress_folder(tmp_path / "file" / "job").claim(job)


@pytest.mark.parametrize("number", [job_folder.FORMAT - 1, job_folder.FORMAT + 1])
def test_a_job_of_another_form_is_refused_by_name(tmp_path, job, number, monkeypatch):
    monkeypatch.setattr(job_folder, "FORMAT", number)
    compress_folder(tmp_path).claim(job)
    monkeypatch.undo()
    message = rf"another version of tfnas \(form {number}, this version's is {job_folder.FORMAT}\)"
    with pytest.raises(ValueError, match=message):
        compress_folder(tmp_path).claim(job)
    compress_folder(tmp_path).claim(job, overwrite=True)


def test_a_job_of_another_kind_is_refused_by_name(tmp_path, job):
    JobFolder(tmp_path, "techniques", ()).claim(job)
    with pytest.raises(ValueError, match="must hold a job of compress, got a job of techniques"):
        compress_folder(tmp_path).claim(job)
    compress_folder(tmp_path).claim(job, overwrite=True)
    assert files(tmp_path) == {"job.json"}


@pytest.mark.parametrize("name", ["model", "settings", "data"])
def test_what_differs_is_named(tmp_path, job, name):
    compress_folder(tmp_path).claim(job)
    message = f"holds a job of another {name}: .*, got 'other'; choose another folder, or overwrite"
    with pytest.raises(ValueError, match=message):
        compress_folder(tmp_path).claim({**job, name: "other"})
    compress_folder(tmp_path).claim(job)


def test_the_place_of_a_difference_is_named(tmp_path):
    first = {"techniques": [{"name": "prune", "settings": {"sparsity": 0.5, "sparse": True}}]}
    other = {"techniques": [{"name": "prune", "settings": {"sparsity": 0.9, "sparse": True}}]}
    folder = JobFolder(tmp_path, "techniques", ())
    folder._claim({"model": "a", "data": "b", "settings": {}, **first})
    message = r"another techniques\[0\]\.settings\.sparsity: 0\.5, got 0\.9; choose another folder"
    with pytest.raises(ValueError, match=message):
        folder._claim({"model": "a", "data": "b", "settings": {}, **other})
    message = r"another techniques: \[\{.*\], got \[\]; choose"
    with pytest.raises(ValueError, match=message):
        folder._claim({"model": "a", "data": "b", "settings": {}, "techniques": []})


def test_recorded_files_are_removed_and_others_of_such_names_stay(tmp_path, job):
    folder = JobFolder(tmp_path, "techniques", ("report.md",))
    folder.claim(job)
    folder.will_write(["model.keras", "odd[1].csv"])
    folder.will_write(["model.keras", "kernels.csv"])
    folder.claim(job)  # it is the same job still
    theirs = {"mine.keras", "notes.csv", "odd1.csv"}
    write(tmp_path, "report.md", "model.keras", "kernels.csv", "odd[1].csv", *theirs)
    write(tmp_path, ".model.part.keras", ".kernels.csv.12.ab.part")  # of writes that were killed
    folder.remove()
    assert files(tmp_path) == theirs


def test_a_record_names_no_file_elsewhere(tmp_path, job):
    write(tmp_path, "outside", "job/sub/inside")
    folder = JobFolder(tmp_path / "job", "techniques", ())
    folder._claim(job)  # beside a file that is there
    folder.will_write(["../outside", "sub/inside", str(tmp_path / "outside")])
    folder.remove()
    assert files(tmp_path) == {"outside", "job/sub/inside"}


# --- work in a claimed folder


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("error", [Stopped, ValueError])
def test_work_that_fails_at_once_leaves_no_folder(tmp_path, job, error):
    folder = JobFolder(tmp_path / "a" / "job", "techniques", ())

    def work():
        with folder.claimed(job):
            assert files(tmp_path) == {"a/job/job.json", "a/job/.owner.lock"}
            raise error

    with pytest.raises(error):
        work()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [("training/1_prune/training.npz",), ("model.keras",)])
def test_work_that_fails_later_keeps_its_files_and_its_claim(tmp_path, job, names):
    folder = JobFolder(tmp_path / "job", "techniques", ())

    def work():
        with folder.claimed(job):
            write(tmp_path / "job", *names)
            raise Stopped

    with pytest.raises(Stopped):
        work()
    assert files(tmp_path / "job") == {"job.json", *names}
    with folder.claimed(job):
        pass


def test_a_job_that_was_there_before_stays_a_job(tmp_path, job):
    folder = JobFolder(tmp_path / "job", "techniques", ())
    folder.claim(job)
    with pytest.raises(Stopped), folder.claimed(job):
        raise Stopped
    assert files(tmp_path / "job") == {"job.json"}


def test_a_refused_claim_changes_nothing(tmp_path, job):
    write(tmp_path, "mine.txt")
    with (
        pytest.raises(ValueError, match=r"holds mine\.txt$"),
        JobFolder(tmp_path, "techniques", ()).claimed(job),
    ):
        pytest.fail("it was claimed")
    assert files(tmp_path) == {"mine.txt"}


# --- one owner


def test_a_folder_has_one_owner(tmp_path, job):
    folder = JobFolder(tmp_path / "job", "techniques", ())
    message = rf"job that is running \(process {os.getpid()}\)"
    with folder.claimed(job):
        for overwrite in (False, True):
            again = JobFolder(tmp_path / "job", "techniques", ()).claimed(job, overwrite)
            with pytest.raises(RuntimeError, match=message):
                again.__enter__()
        with pytest.raises(RuntimeError, match=message):
            folder.check_has_no_owner()
    folder.check_has_no_owner()
    assert files(tmp_path) == {"job/job.json"}


def test_the_lock_of_a_killed_job_is_no_file_of_others(tmp_path, job):
    write(tmp_path, ".owner.lock")
    with compress_folder(tmp_path).owned():
        compress_folder(tmp_path).claim(job)
    assert files(tmp_path) == {"job.json"}
