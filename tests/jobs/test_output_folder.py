"""The folder of results is there before the long work, and gone where nothing came of it."""

import keras
import numpy as np
import pytest

import tfnas
from tfnas.data.data_split import DataSplit
from tfnas.jobs.output_folder import create_folder, output_folder


def test_a_folder_is_created_with_its_parents(tmp_path):
    with output_folder(tmp_path / "a" / "b") as folder:
        assert folder.is_dir()
    assert folder == tmp_path / "a" / "b"
    assert create_folder(folder) == folder


def test_a_failure_leaves_no_empty_folder(tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("old", "a/b"):
        with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / name):
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_failure_keeps_what_was_written(tmp_path):
    def work():
        with output_folder(tmp_path / "a" / "b") as folder:
            (folder / "model.keras").write_text("trained")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert (tmp_path / "a" / "b" / "model.keras").exists()


@pytest.mark.parametrize(
    ("step", "work"),
    [
        (("factorize", {"macs": 0.5}), "tfnas.low_rank.factorize.factorize"),
        (
            ("prune_channels", {"macs": 0.5}),
            "tfnas.pruning.structured.prune_channels.prune_channels",
        ),
        (("prune", {"sparsity": 0.5}), "tfnas.compression.technique_context.fine_tune"),
        (("cluster", {}), "tfnas.compression.technique_context.fine_tune"),
        (("qat", {}), "tfnas.compression.technique_context.fine_tune"),
    ],
)
def test_jobs_need_their_folder_before_the_work(step, work, tmp_path, monkeypatch):
    def stopped(*args, **kwargs):
        assert (tmp_path / "out").is_dir()
        raise KeyboardInterrupt

    x, y = np.zeros((4, 4, 4, 1), "float32"), np.arange(4) % 2
    split = DataSplit("few", x, y, x, y, x, y, ("a", "b"))
    head = keras.layers.Dense(2, "softmax")
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), head])
    monkeypatch.setattr(work, stopped)

    def run(directory):
        tfnas.run_techniques(model, [step], split, directory=directory)

    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(ValueError, match="directory must be a folder"):
            run(directory)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
