"""`tfnas factorize`, from a saved model to files of low rank and a report."""

import keras
import pytest

import tfnas
from tfnas.cli.command_table import flags_of
from tfnas.cli.technique_command import command_of


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(digits.input_shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Conv2D(24, 3, activation="relu", name="body"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="head"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(digits.x_train, digits.y_train, epochs=4, batch_size=32, verbose=0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


@pytest.fixture
def run(saved, tmp_path, capsys):
    command = command_of("factorize")

    def call(*arguments):
        folder = tmp_path / "out"
        values = flags_of(command)
        argv = ["tfnas", str(saved), "--dataset=digits", f"--directory={folder}", *arguments]
        positional = values(argv)[1:]
        code = command.main(positional, values)
        return code, capsys.readouterr().out, folder

    return call


def test_half_the_macs(run, saved):
    code, out, folder = run("--macs=0.5", "--epochs=2", "--batch_size=32")
    assert code == 0
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("model.keras", "model_float32.tflite", "model_int8.tflite", "report.md", "report.html"),
        *("job.json", "training", "training_curves.json"),
    }
    before = tfnas.profile(tfnas.load_model(saved)).macs
    small = tfnas.load_model(folder / "model.keras")
    assert tfnas.profile(small).macs <= 0.5 * before
    assert "as fast as the original" in out
    report = (folder / "report.md").read_text()
    assert "## Factorized layers" in report
    assert "| body |" in report
    assert "low rank, int8" in report
    row = next(line for line in report.splitlines() if line.startswith("| low rank, float32"))
    assert float(row.split("|")[2]) > 0.85


@pytest.mark.slow
def test_without_data_and_training(run):
    code, out, folder = run(
        *("--rank=0.25", "--epochs=0", "--calibration=0", "--methods=tucker", "--exclude=stem")
    )
    assert code == 0
    assert "stem (Conv2D) stays: named in exclude" in out
    report = (folder / "report.md").read_text()
    assert "squared kernel" in report
    assert "| body | tucker |" in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "exactly one of macs, energy and rank"),
        (["--macs=0.5", "--rank=2"], "exactly one of macs, energy and rank"),
        (["--macs=0.0001"], "target_macs can't be met"),
        (["--rank=2.5"], "rank must be a whole number"),
        (["--energy=2"], "energy must be in"),
        (["--macs=0.5", "--exclude=nothing"], "exclude must name layers"),
        (["--macs=0.5", "--methods=svd,cp"], "methods must be some of"),
        (["--macs=0.5", "--learning_rate=0"], "learning_rate must be above 0"),
    ],
)
def test_bad_input_is_an_error_before_any_work(run, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(*arguments)
    assert not (tmp_path / "out").exists()
