"""`overwrite=True` removes the files of a search, not those of the user."""

import keras
import numpy as np
from keras import layers

import tfnas


def build(hp):
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(hp.Int("units", 1, 3)), layers.Dense(1)]
    )
    model.compile("sgd", "mse", jit_compile=False)
    return model


def tuner(folder, **options):
    return tfnas.RandomTuner(
        build, "val_loss", 1, directory=folder.parent, project_name=folder.name, **options
    )


def test_files_of_the_user_stay(tmp_path):
    folder = tmp_path / "work"
    (folder / "trial_notes").mkdir(parents=True)
    (folder / "trial_1").mkdir()
    own = [folder / name for name in ("thesis.txt", "trial_notes/a.txt", "trial_1/mine.csv")]
    for path in own:
        path.write_text("mine")
    x = np.zeros((8, 2))
    first = tuner(folder)
    first.search(x, x[:, 0], validation_data=(x, x[:, 0]), verbose=0)
    written = {path.name for path in folder.iterdir()} - {"thesis.txt", "trial_notes", "trial_1"}
    assert "oracle.json" in written
    second = tuner(folder, overwrite=True)
    assert not second.oracle.trials
    left = {path.name for path in folder.iterdir()} - {".owner.lock"}
    assert left == {"thesis.txt", "trial_notes", "trial_1"}
    assert all(path.read_text() == "mine" for path in own)
