"""The technique of the guide, one file and one row: a command, a step, a choice of a search."""

import pathlib
import re
import types

import keras
import numpy as np
import pytest

import tfnas
from tfnas.cli import app
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.techniques import registry
from tfnas.search_space.compression import Compression

GUIDE = pathlib.Path(__file__).parents[2] / "docs" / "add_a_technique.md"


@pytest.fixture(scope="module")
def rounding():
    """The technique of the guide, registered."""
    [code] = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    module = types.ModuleType("dense_rounding")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "dense_rounding", module)
        exec(compile(code, str(GUIDE), "exec"), vars(module))
        registry.register(module.DenseRounding())
        yield registry.technique("round_dense")
        registry.unregister("round_dense")


@pytest.fixture(scope="module")
def model(digits):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 16), keras.layers.Flatten()]
    network = keras.Sequential([*layers, keras.layers.Dense(10, "softmax", name="classes")])
    network.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    network.fit(digits.x_train, digits.y_train, epochs=8, batch_size=32, verbose=0)
    return network


def kernel(file):
    """The kernel of the one layer of a float32 file."""
    [found] = tfnas.tflite.file_weights.read_kernels(file)
    return found.values


def test_it_is_a_command_with_a_report(rounding, model, tmp_path, capsys):
    model.save(tmp_path / "model.keras")
    assert app.main(["--help"]) == 0
    assert re.search(rf"^  round-dense +{rounding.summary}$", capsys.readouterr().out, re.MULTILINE)
    assert app.main(["round-dense", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "distance of two values of a kernel (default: 0.05)" in shown
    folder = tmp_path / "out"
    argv = ["round-dense", str(tmp_path / "model.keras"), "--dataset=digits"]
    assert app.main([*argv, f"--directory={folder}", "--step=0.5", "--train_limit=100"]) == 0
    values = kernel(tfnas.Artifact.load(folder / "model_float32.tflite"))
    np.testing.assert_allclose(values / 0.5, np.round(values / 0.5), atol=1e-6)
    report = (folder / "report.md").read_text()
    assert report.startswith("# Dense kernels rounded to steps of 0.5, on digits")
    assert "| classes |" in report
    assert "| step | 0.5 |" in report
    assert app.main([*argv, "--step=0"]) == 2
    assert "step must be above 0, got 0" in capsys.readouterr().err


@pytest.mark.slow  # the command runs it too
def test_it_is_a_step_of_a_row_and_of_compress(rounding, model, digits, tmp_path):
    assert str(Recipe((RecipeStep("round_dense", 0.1),), "int8")) == "round_dense 0.1, int8"
    with pytest.raises(
        ValueError, match=r"order .*round_dense, cluster, qat, ptq, each once, got qat"
    ):
        tfnas.run_techniques(
            *(model, [("qat", {}), ("round_dense", {})], digits), directory=tmp_path / "wrong"
        )
    plain = tfnas.to_tflite(model, "int8", digits.x_train[:50]).minified()
    result = tfnas.compress(
        *(model, digits.limited(100), {"max_gzip_bytes": int(0.8 * plain.gzip_size)}),
        directory=tmp_path / "compressed",
        effort="quick",
    )
    tried = [str(candidate.recipe) for candidate in result.candidates]
    assert any(recipe.startswith("round_dense") for recipe in tried)


@pytest.mark.slow
def test_it_is_a_choice_of_a_search(rounding, digits, tmp_path):
    def build(hp):
        network = keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
        )
        hp.Choice("nothing", [1])
        network.compile(
            "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
        )
        return network

    space = tfnas.CompressionSpace(("float32",), more={"round_dense": (None, 0.25)})
    tuner = tfnas.RandomTuner(
        *(build, ["file_accuracy", "gzip_bytes"]),
        max_trials=2,
        seed=0,
        config=tfnas.TunerConfig(rounds=6, compression=space),
        directory=str(tmp_path),
        project_name="p",
    )
    few = digits.limited(64)
    data = {"validation_data": (few.x_val, few.y_val), "epochs": 1, "verbose": 0}
    tuner.search(few.x_train, few.y_train, **data)
    seen = set()
    for candidate in tuner.candidates():
        trial = tuner.oracle.get_trial(candidate.trial_id)
        chosen = tuner.hypermodel.compression(trial.hyperparameters)
        values = kernel(candidate.artifact())
        on_grid = np.allclose(values / 0.25, np.round(values / 0.25), atol=1e-6)
        assert on_grid == bool(chosen.more)
        seen.add(chosen)
    assert seen == {
        Compression("float32"),
        Compression("float32", more=(("round_dense", 0.25),)),
    }
