"""`tfnas prune-channels`, from a saved model to smaller files and a report."""

import keras
import pytest

import tfnas
from tfnas.cli import app


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
def prune_channels(saved, tmp_path, capsys):
    def call(*flags):
        folder = tmp_path / "out"
        argv = ["prune-channels", str(saved), "--dataset=digits", f"--directory={folder}", *flags]
        code = app.main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err, folder

    return call


@pytest.mark.slow
def test_half_the_macs_in_two_steps(prune_channels, saved):
    code, out, err, folder = prune_channels(
        "--macs=0.5", "--epochs=2", "--steps=2", "--batch_size=32"
    )
    assert (code, err) == (0, "")
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
    assert "## Step 2" in report
    assert "stem" in report


@pytest.mark.slow  # given sizes are the same command
def test_a_fraction_of_the_latency_without_training(prune_channels, monkeypatch):
    # So small a network's time is mostly what every inference costs; here it is its MACs.
    monkeypatch.setattr(
        "tfnas.measure.latency_model.latency_model.LatencyModel",
        lambda mode: lambda model: tfnas.profile(model).macs,
    )
    code, out, err, folder = prune_channels("--latency=0.8", "--epochs=0", "--criterion=taylor")
    assert (code, err) == (0, "")
    assert "measuring the latency of single layers" in out
    assert (folder / "model_int8.tflite").exists()


def test_width_multipliers_of_the_user(prune_channels):
    code, _, err, folder = prune_channels("--sizes=stem=5,body=8", "--epochs=0")
    assert (code, err) == (0, "")
    small = tfnas.load_model(folder / "model.keras")
    assert [small.get_layer(n).filters for n in ("stem", "body")] == [5, 8]
    assert "(('stem', 5), ('body', 8))" in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "exactly one of macs, params, latency and sizes"),
        (["--macs=0.5", "--params=0.5"], "exactly one of macs, params, latency and sizes"),
        (["--macs=0.5", "--sizes=stem=8"], "got macs, sizes"),
        (["--sizes=stem"], "sizes must hold LAYER=NUMBER, got 'stem'"),
        (["--sizes=stem=0"], "from 1 to the number of channels, got 0 for 'stem' with 16 channels"),
        (["--macs=0.0001"], "target_macs can't be met"),
        (["--macs=0.5", "--exclude=nothing"], "exclude must name layers"),
        (["--params=0.5", "--steps=2"], "steps must be 1 unless macs is a fraction"),
        (["--macs=0.5", "--steps=3", "--epochs=2"], "steps must be at most epochs"),
    ],
)
def test_bad_input_is_one_line_before_any_work(prune_channels, flags, message):
    code, _, err, folder = prune_channels(*flags)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not folder.exists()
