"""Trains the same again and again with TensorFlow's deterministic operations; prints digests.

A program of its own (`python tests/contracts/seeds.py PART FOLDER`), because these can't be
switched off again. What is printed last is JSON: name -> digest of weights, or of bytes.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import pathlib
import random
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import tfnas
from tfnas.cli import app
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.progress import Progress
from tfnas.compression.recipe import Recipe, RecipeStep
from tfnas.compression.technique_context import Context
from tfnas.compression.technique_row import run_row
from tfnas.compression.techniques.registry import technique
from tfnas.runtime.randomness import make_operations_deterministic
from tfnas.tasks.image_classes import ImageClasses

SPLIT = tfnas.data.load("digits").limited(200)
CASES = {
    "labels": {},
    "distill": {"distill": 0.5},
    "augment": {"augment": ("flip", "shift")},
    "both": {"augment": ("flip", "shift"), "distill": 0.3},
}
COMMANDS = {
    "prune": ["--sparsity=0.6", "--epochs=2", "--nosparse"],
    "prune by random": ["--sparsity=0.6", "--epochs=1", "--criterion=random", "--nosparse"],
    "prune taught": ["--sparsity=0.6", "--epochs=1", "--distill=0.5", "--augment=flip,shift"],
    "cluster": ["--clusters=8", "--epochs=1", "--renew=2"],
    "factorize": ["--macs=0.6", "--epochs=1", "--augment=shift"],
    "prune-channels": ["--macs=0.5", "--epochs=2", "--steps=2", "--distill=0.5"],
    "qat": ["--epochs=2", "--augment=flip"],
}


def network():
    """A network with all uses of randomness: initial weights, two Dropouts, one nested."""
    keras.utils.set_random_seed(5)
    head = keras.Sequential(
        [keras.Input((384,)), layers.Dropout(0.2), layers.Dense(10, "softmax")], name="head"
    )
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Rescaling(1 / 16)(x)
    x = layers.Conv2D(16, 3, use_bias=False, name="stem")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.2)(x)
    x = layers.Conv2D(24, 3, activation="relu", name="body")(x)
    model = keras.Model(inputs, head(layers.Flatten()(x)))
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(SPLIT.x_train, SPLIT.y_train, epochs=2, verbose=0)
    return model


def of_weights(model):
    found = hashlib.sha256()
    for weight in model.get_weights():
        found.update(repr(weight.shape).encode() + weight.tobytes())
    return found.hexdigest()[:16]


def of_file(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def disturb():
    """Draws from and seeds the global generators, as other code may."""
    random.seed()
    np.random.seed()  # noqa: NPY002
    tf.random.set_seed(random.randrange(2**31))


def trained(model, seed, **settings):
    disturb()
    copy = tfnas.load_model(model)
    settings = FineTuneSettings(epochs=2, batch_size=32, seed=seed, **settings)
    Context(tfnas.load_model(model), ImageClasses(), SPLIT, settings).fine_tune(copy)
    return of_weights(copy)


def applied(model, step, settings):
    """A model after a step of `compress`."""
    epochs = round(technique(step.technique).epochs_scale * settings.epochs)
    context = Context(model, ImageClasses(), SPLIT, settings)
    [outcome] = run_row(model, [dataclasses.replace(step, epochs=epochs)], context)
    return outcome.model


def fine_tuned(path, names):
    """Fine-tuning with some settings, twice with a seed and once with another."""
    seeds = {"first": 0, "again": 0, "other": 1}
    return {
        name: {run: trained(path, seed, **CASES[name]) for run, seed in seeds.items()}
        for name in names
    }


def both(folder):
    """Fine-tuning with all that draws random numbers."""
    path = folder / "model.keras"
    network().save(path)
    return fine_tuned(path, ["both"])


def steps(folder):
    """Fine-tuning with all settings, and each kind of step of a job."""
    path = folder / "model.keras"
    network().save(path)
    found = fine_tuned(path, CASES)
    steps = [RecipeStep("prune_channels", 0.5), RecipeStep("prune", 0.5), RecipeStep("cluster", 8)]
    for run in ("first", "again", "other"):
        disturb()
        model = tfnas.load_model(path)
        settings = FineTuneSettings(epochs=1, batch_size=32, distill=0.3, seed=int(run == "other"))
        models = {step.technique: applied(model, step.step(), settings) for step in steps}
        models["aware"] = applied(model, Recipe((), "int8", aware=True).final_step, settings)
        for name, each in models.items():
            found.setdefault(f"step {name}", {})[run] = of_weights(each)
    return found


def commands(folder):
    """Each command twice with a seed and once with another."""
    path = folder / "model.keras"
    network().save(path)
    found = {}
    for name, flags in COMMANDS.items():
        command = name.split()[0]
        for run, seed in {"first": 0, "again": 0, "other": 1}.items():
            disturb()
            output = folder / f"{name.replace(' ', '_')}_{run}"
            argv = [command, path, "--dataset=digits", "--train_limit=200", f"--seed={seed}"]
            argv = [*argv, "--deterministic", *flags, f"--directory={output}"]
            with contextlib.redirect_stdout(io.StringIO()):
                assert app.main(list(map(str, argv))) == 0, argv
            files = {path.name: of_file(path) for path in sorted(output.glob("*.tflite"))}
            weights = of_weights(tfnas.load_model(output / "model.keras"))
            found.setdefault(name, {})[run] = {"weights": weights, **files}
    return found


class Killed(Progress):
    """Stops a job in the middle of its n-th epoch of training."""

    def __init__(self, epochs):
        self.left = epochs

    def epoch_ended(self, epoch, epochs):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def job(folder, model, budget, kills=()):
    """Candidates of a `compress` job that is killed and resumed."""
    split = tfnas.data.load("digits").limited(200)
    for epochs in (*kills, None):
        disturb()
        progress = None if epochs is None else Killed(epochs)
        try:
            result = tfnas.compress(
                tfnas.load_model(model),
                split,
                budget,
                effort="normal",
                directory=folder,
                epochs=2,
                batch_size=32,
                augment=("shift",),
                progress=progress,
            )
        except KeyboardInterrupt:
            assert epochs is not None
        else:
            assert epochs is None
    found = {}
    for candidate in result.candidates:
        place = folder / "candidates"
        recipe = str(candidate.recipe)
        [record] = [p for p in place.glob("*/record.json") if _recipe(p) == recipe]
        weights = of_weights(tfnas.load_model(record.with_name("model.keras")))
        found[recipe] = [weights, of_file(record.with_name("model.tflite"))]
    return found


def _recipe(record):
    return json.loads(record.read_text())["recipe"]


def jobs(folder):
    """Two jobs, each run twice, and once with kills."""
    path = folder / "model.keras"
    network().save(path)
    found = {}
    size = tfnas.to_tflite(network(), "int8", SPLIT.x_train[:50]).minified().size
    for name, budget in {
        "bytes": {"max_bytes": int(0.6 * size)},
        "macs": {"max_macs": 0.6},
    }.items():
        found[name] = {
            "first": job(folder / f"{name}_first", path, budget),
            "again": job(folder / f"{name}_again", path, budget),
            "killed": job(folder / f"{name}_killed", path, budget, kills=(1, 3)),
        }
    return found


def build(hp):
    """A network of a search."""
    units = hp.Choice("units", [8, 12, 16, 20, 24])
    parts = [layers.Rescaling(1 / 16), layers.Flatten(), layers.Dense(units, "relu")]
    head = [layers.Dropout(hp.Choice("dropout", [0.1, 0.3])), layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *parts, *head])
    loss = "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    return model


class KilledTraining(keras.callbacks.Callback):
    """Stops a search in its second trial."""

    begun = 0

    def on_epoch_end(self, epoch, logs=None):
        KilledTraining.begun += epoch == 0
        if KilledTraining.begun == 2 and epoch:
            raise KeyboardInterrupt


def search(folder, seed=0, kill=False, executor=None):
    """Weights of each trial."""
    for killed in [True, False] if kill else [False]:
        disturb()
        tuner = tfnas.RandomTuner(
            *(build, "val_accuracy"),
            max_trials=3,
            seed=seed,
            directory=str(folder),
            config=tfnas.TunerConfig(executor=executor),
        )
        data = (SPLIT.x_val[:50], SPLIT.y_val[:50])
        callbacks = [KilledTraining()] if killed else []
        options = {"epochs": 3, "batch_size": 32, "verbose": 0, "callbacks": callbacks}
        try:
            tuner.search(SPLIT.x_train, SPLIT.y_train, validation_data=data, **options)
        except KeyboardInterrupt:
            assert killed
        else:
            assert not killed
    trials = tuner.oracle.trials.values()
    return {trial.trial_id: of_weights(tuner.load_model(trial)) for trial in trials}


def searches(folder):
    """One search here, again, after a kill and in other processes."""
    elsewhere = functools.partial(tfnas.TrialProcesses, 1)
    return {
        "first": search(folder / "first"),
        "again": search(folder / "again"),
        "killed": search(folder / "killed", kill=True),
        "elsewhere": search(folder / "elsewhere", executor=elsewhere),
        "other": search(folder / "other", seed=1),
    }


PARTS = {
    "both": both,
    "steps": steps,
    "commands": commands,
    "jobs": jobs,
    "searches": searches,
}


def main():
    part, folder = sys.argv[1:]
    make_operations_deterministic()
    print(json.dumps(PARTS[part](pathlib.Path(folder))))


if __name__ == "__main__":
    main()
