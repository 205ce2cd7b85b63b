"""Commands that are killed in the middle of their training go on from the last epoch."""

import re
import signal
import subprocess
import sys
import time

import keras
import pytest

import tfnas

EPOCHS = 6
COMMANDS = {
    "prune": ["--sparsity=0.6"],
    "cluster": ["--clusters=8"],
    "factorize": ["--macs=0.7"],
    "prune-channels": ["--macs=0.6"],
    "qat": [],
}


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 16), keras.layers.Conv2D(16, 3, activation="relu")]
    layers += [keras.layers.Conv2D(16, 3, activation="relu"), keras.layers.Flatten()]
    layers = [keras.Input((8, 8, 1)), *layers, keras.layers.Dense(10, "softmax")]
    path = tmp_path_factory.mktemp("model") / "model.keras"
    keras.Sequential(layers).save(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_command_goes_on(command, saved, tmp_path):
    folder = tmp_path / "out"
    argv = [sys.executable, "-m", "tfnas", command, str(saved), "--dataset=digits"]
    argv += [f"--directory={folder}", f"--epochs={EPOCHS}", "--batch_size=4", *COMMANDS[command]]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(folder.glob("training/*/*.npz")):  # the first epoch's state
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "report.md").exists()
    again = subprocess.run(argv, capture_output=True, text=True, check=True)
    found = re.search(rf"trained before: (\d) of {EPOCHS} epochs", again.stdout)
    assert 1 <= int(found[1]) < EPOCHS
    assert (folder / "report.html").exists()
    assert tfnas.load_model(folder / "model.keras").count_params() > 0
