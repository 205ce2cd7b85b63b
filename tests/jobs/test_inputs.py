"""The best model of a search is compressed."""

import json

import keras
import numpy as np
import pytest

import tfnas
from tfnas.jobs.inputs import load_model_and_data


@pytest.fixture
def folder(tiny_model, tmp_path):
    """The files of a finished search on digits that `compress` reads."""
    place = tmp_path / "run"
    place.mkdir()
    tiny_model.save(place / "best.keras")
    config = {"dataset": "digits", "image_size": None, "seed": 0}
    (place / "config.json").write_text(json.dumps({"config": config}))
    (place / "results.json").write_text(json.dumps({"interrupted": False}))
    return place


def test_the_best_of_a_search_with_its_data(folder, tiny_model, digits):
    for path in (folder, str(folder)):
        model, split = load_model_and_data(path, None)
        np.testing.assert_array_equal(model.get_weights()[0], tiny_model.get_weights()[0])
        np.testing.assert_array_equal(split.x_train, digits.x_train)
    assert load_model_and_data(folder, digits)[1] is digits


def test_a_quantization_aware_model_of_a_search_becomes_float(folder, tiny_model, digits):
    aware = tfnas.quantize_aware(tiny_model, "int8", data=digits.x_train[:50])
    aware.save(folder / "best.keras")
    names = [layer.name for layer in load_model_and_data(folder, None)[0].layers]
    assert "stem" in names
    assert not any("quant" in name for name in names)


def test_a_file_and_a_model_need_data(folder, tiny_model, digits):
    model, split = load_model_and_data(str(folder / "best.keras"), digits)
    assert len(model.layers) == len(tiny_model.layers)
    assert split is digits
    for model in (folder / "best.keras", tiny_model):
        with pytest.raises(
            ValueError, match="data must be given where the model is not a finished"
        ):
            tfnas.compress(model, None, {"max_drop": 1.0})


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "best.keras").unlink(), "a finished search, got .* has no best.keras"),
        (lambda f: (f / "results.json").unlink(), "which has no results.json"),
        (
            lambda f: (f / "results.json").write_text('{"interrupted": true}'),
            "which was interrupted: the same search on it continues",
        ),
        (lambda f: (f / "config.json").write_text("{}"), "whose config.json has no config"),
        (
            lambda f: (f / "config.json").write_text('{"config": {"dataset": "mine"}}'),
            "data must be given: the search's own, 'mine', can't be read",
        ),
    ],
)
def test_folders_of_no_finished_search_are_refused(break_it, message, folder, tmp_path):
    break_it(folder)
    with pytest.raises(ValueError, match=message):
        tfnas.compress(folder, None, {"max_drop": 1.0}, directory=tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_a_model_that_keeps_a_state_is_refused():
    inputs = keras.Input((3, 2), batch_size=2)
    model = keras.Model(inputs, keras.layers.LSTM(1, stateful=True, name="memory")(inputs))
    with pytest.raises(ValueError, match=r"must keep no state .* got stateful=True of 'memory'"):
        load_model_and_data(model, (np.zeros((4, 3, 2)), np.zeros(4)))


@pytest.mark.slow
def test_the_command(folder, tmp_path, tfnas_command):
    line = ["compress", folder, "--max_memory=4000", "--effort=quick"]  # integers alone
    code, out, _ = tfnas_command(*line)
    assert code == 0
    chosen = (
        "int8 keeps the budget (max_memory 4,000)",
        "int8x4 keeps the budget (max_memory 4,000)",
    )
    assert any(line in out for line in chosen)  # whichever is the more accurate
    assert (tmp_path / "run_compressed" / "best.tflite").exists()
    code, _, err = tfnas_command("compress", folder / "best.keras", "--max_drop=1")
    assert code == 2
    assert "data must be given with the file of a model" in err
    code, _, err = tfnas_command("compress", tmp_path, "--max_drop=1")
    assert code == 2
    assert "model must be the folder of a finished search" in err


@pytest.mark.slow
def test_search_then_compress(digits, tmp_path):
    settings = {"preset": "microcontroller", "max_trials": 2, "epochs": 1, "baseline": False}
    found = tfnas.search("digits", directory=tmp_path / "run", **settings)
    result = tfnas.compress(
        found, None, {"max_drop": 100.0}, effort="quick", directory=tmp_path / "small"
    )
    assert result.meets
    assert result.rows[0].file.size > result.best.file.size
