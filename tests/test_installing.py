"""The wheel, installed in clean environments: its own needs, its examples, old and new releases.

All of them are slow: each installs TensorFlow anew.
"""

import os
import pathlib
import subprocess
import sys

import pytest
from test_dependencies import LOWEST, TESTING, pins
from wheels import ROOT, built_wheel, copied_tree

pytestmark = pytest.mark.slow

# What meets the other packages: conversion, quantization, reading of files, data, pictures,
# training, a search.
REDUCED = (
    *("data/test_datasets", "tflite/test_quantizer_recipes", "cli/test_export_command"),
    *("reports/test_plots", "pruning/test_prune", "clustering/test_cluster", "test_keras_private"),
    *("nas/test_objectives", "cli/test_qat_command", "tflite/test_metadata", "cli/test_app"),
)
MODES = """
import keras, numpy as np, tfnas
keras.utils.set_random_seed(0)
layers = keras.layers
model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(32, 3, activation="relu"),
                          layers.Flatten(), layers.Dense(64), layers.Dense(10)])
images = np.random.default_rng(0).random((50, 8, 8, 1), dtype=np.float32)
size = tfnas.to_tflite(model).size
for mode in ("int4", "weights8", "weights4", "int8"):
    file = tfnas.to_tflite(model, mode, images)
    assert file.size < size and file.predict(images).shape == (50, 10)
    print(mode, file.size)
file, found = tfnas.mixed_precision(model, 0.3, images)
assert file.size <= 0.3 * size and file.predict(images).shape == (50, 10)
print("mixed", file.size)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    return built_wheel(copied_tree(folder), folder / "wheels")


class Environment:
    """A virtual environment that has nothing of this one."""

    def __init__(self, folder):
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
        self.python = folder / "env" / "bin" / "python"

    def install(self, *wanted, constraints=None):
        pinned = ["-c", str(constraints)] if constraints else []
        self.run("-m", "pip", "install", "--quiet", *pinned, *map(str, wanted))

    def run(self, *arguments):
        """Runs Python in the environment's folder, away from the checkout; returns its output."""
        own = {
            k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TF_USE_LEGACY_KERAS")
        }
        done = subprocess.run(
            [str(self.python), *arguments], cwd=self.folder, env=own, capture_output=True, text=True
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return done.stdout

    def has_own_tfnas(self):
        found = pathlib.Path(self.run("-c", "import tfnas; print(tfnas.__file__)").strip())
        return found.is_relative_to(self.folder)

    def run_reduced_suite(self):
        """Runs a part of the tests. Old releases warn of each other, so warnings are no errors."""
        files = [str(ROOT / "tests" / f"{name}.py") for name in REDUCED]
        options = ["-p", "no:cacheprovider", "-n", "0", "-o", "filterwarnings="]
        return self.run("-m", "pytest", *options, *files)


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path)


def test_every_mode_and_every_example_of_the_installed_wheel(wheel, environment, tmp_path):
    pinned = tmp_path / "pinned.txt"
    pinned.write_text("\n".join(f"{name}=={version}" for name, version in pins(TESTING).items()))
    environment.install(wheel, constraints=pinned)
    assert environment.has_own_tfnas()
    assert "mixed" in environment.run("-c", MODES)
    environment.install(f"{wheel}[all]", constraints=pinned)
    told = environment.run(str(ROOT / "tests" / "examples.py"))
    assert " 0 failed" in told.splitlines()[-1]


def test_a_part_of_the_suite_with_the_lowest_releases(wheel, environment):
    environment.install(
        f"{wheel}[digits,plots]", "pytest", "pytest-xdist", "hypothesis", constraints=LOWEST
    )
    assert environment.has_own_tfnas()
    assert "mixed" in environment.run("-c", MODES)
    assert " passed" in environment.run_reduced_suite()


def test_a_part_of_the_suite_with_the_newest_releases(wheel, environment):
    environment.install(
        "--upgrade", f"{wheel}[digits,plots]", "pytest", "pytest-xdist", "hypothesis"
    )
    assert environment.has_own_tfnas()
    assert "mixed" in environment.run("-c", MODES)
    assert " passed" in environment.run_reduced_suite()
