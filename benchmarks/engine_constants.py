"""Constants of the fine-tuning, two values of each against the other, on three networks.

    python benchmarks/engine_constants.py --recordings=spoken_digits_8khz.npz [--seeds=0,1,2]

Fine-tuning is coded in three places that differ in these constants: the steps of `compress`, the
trials of a search that compresses, and the commands (`tfnas prune` and others). To code it once,
one value of each has to be taken. Here each is fine-tuned with both values, all else equal: the
same trained network, examples, order of batches and seed. The networks: MLPerf Tiny's ResNet8 on
CIFAR-10, from the reference's trained weights; MobileNetV2 of width 0.35 on Fashion-MNIST at 32x32;
and a 1-D convolutional network on mel spectrograms of spoken digits in noise (--recordings). The
last two are trained here first. Runs are short: all of them take some two hours of one core.

Accuracy is measured on held-out examples: training images of Fashion-MNIST and other takes of
the recordings, which nothing was trained on, and for ResNet8, which saw all training images, the
first half of the test images. Quantized models are measured as files.

Prints for each network and constant both accuracies, the paired difference in points with its 95%
interval (bootstrap over examples), the differences of each seed, and the difference of the cross-
entropy. A value is better where the interval is on one side of 0 and all seeds agree. The last
table takes the mean over networks, with an interval over networks' examples and seeds.

Finished runs are kept in --folder and found again: seeds, networks and techniques may be run apart.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import record
import resnet8
import tensorflow as tf
from absl import app, flags, logging

import tfnas
from tfnas.data.augmentation import flip, shift, shuffled, untuned
from tfnas.data.datasets import spread
from tfnas.graph.tracing import TraceOnce
from tfnas.measure.accuracy import correct
from tfnas.schedules import polynomial
from tfnas.search_space.blocks import build_model
from tfnas.table import table

NETWORKS = flags.DEFINE_list(
    "networks", ["resnet8", "mobilenet_v2", "spoken_digits"], "networks to measure"
)
TECHNIQUES = flags.DEFINE_list(
    "techniques", ["prune", "cluster", "int8", "int8x4", "ptq"], "techniques to measure"
)
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds of the fine-tuning")
RECORDINGS = flags.DEFINE_string("recordings", None, "spoken_digits_8khz.npz")
FASHION = flags.DEFINE_string("fashion", "fashion_mnist", "Fashion-MNIST, for tfnas.data.load")
FOLDER = flags.DEFINE_string("folder", "runs/engine_constants", "folder of finished runs")
RATE = flags.DEFINE_float("rate", 2e-3, "Adam's rate at the start of fine-tuning")
EPOCHS = flags.DEFINE_integer("epochs", 2, "epochs of fine-tuning on images")
BASE_EPOCHS = flags.DEFINE_integer("base_epochs", 15, "epochs of the networks trained here")
LONGER = flags.DEFINE_integer("longer", 10, "times the epochs, for the few recordings")
FEWER = flags.DEFINE_integer("fashion_examples", 6400, "training images of Fashion-MNIST")
BATCH = flags.DEFINE_integer("batch", 64, "examples a step")
HELD = flags.DEFINE_integer("held", 5000, "most examples to measure on")
SPARSITY = flags.DEFINE_float("sparsity", 0.75, "fraction of zeros")
CLUSTERS = flags.DEFINE_integer("clusters", 16, "most values of a kernel")
THREADS = flags.DEFINE_integer("threads", 1, "threads of TensorFlow")
RESAMPLES = 2000  # of the bootstrap
NOISE = 1.0  # times a recording's root mean square: clean ones are 99.5% right
LEAST = 1 / 512  # probability below which a file of 8-bit outputs tells nothing


@dataclasses.dataclass(frozen=True)
class Run:
    """A fine-tuning; "int8" and "int8x4" are quantization-aware, "ptq" only calibrates int8."""

    technique: str
    rate: float = 1.0
    ramp: float = 0.5
    scope: str = "global"
    renew: int | None = 5
    calibration: int = 300

    @property
    def name(self) -> str:
        """The name of its file."""
        return "_".join(
            f"{value:.3g}" if isinstance(value, float) else str(value)
            for value in dataclasses.astuple(self)
        )


@dataclasses.dataclass(frozen=True)
class Constant:
    """Two values of a constant, and why one is taken where no difference is found."""

    name: str
    values: tuple[str, str]
    runs: tuple[Run, Run]
    reason: str
    tie: int = 0  # the value that is taken then


def constant(
    name: str, values: str, first: Run, reason: str, tie: int = 0, **second: Any
) -> Constant:
    """A constant; of the second value only what differs is given."""
    one, two = values.split(" | ")
    return Constant(name, (one, two), (first, dataclasses.replace(first, **second)), reason, tie)


PRUNE, CLUSTER = Run("prune"), Run("cluster", rate=1 / 3)
FIXED = dataclasses.replace(CLUSTER, renew=None)
CONSTANTS = [
    constant("ramp of the sparsity", "0.5 | 0.6", PRUNE, "in two of three places", ramp=0.6),
    constant("pruning's rate", "1 | 1/2", PRUNE, "compress's", rate=0.5),
    constant("pruning's scope", "global | layer", PRUNE, "compress's", scope="layer"),
    constant("clustering's rate", "1/3 | 1/9", CLUSTER, "compress's", rate=1 / 9),
    constant("clustering's rate", "1/3 | 1", CLUSTER, "in two of three places", rate=1.0),
    constant("renewal", "never | 5 steps", FIXED, "its cross-entropy is lower", 1, renew=5),
    constant("QAT's rate, int8", "1/10 | 1/30", Run("int8", 0.1), "compress's", rate=1 / 30),
    constant("QAT's rate, int8x4", "1/10 | 1/30", Run("int8x4", 0.1), "compress's", rate=1 / 30),
    constant("calibration", "300 | 200", Run("ptq"), "in all places but one", calibration=200),
]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A trained network with its examples; x may be of any kind."""

    name: str
    model: keras.Model
    x: np.ndarray
    y: np.ndarray
    held: np.ndarray
    labels: np.ndarray
    epochs: int
    augment: bool = False


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    tf.config.threading.set_intra_op_parallelism_threads(THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS.value)
    began = time.monotonic()
    constants = [c for c in CONSTANTS if c.runs[0].technique in TECHNIQUES.value]
    found = {name: measured(name, constants) for name in NETWORKS.value}
    headers = ["network", "constant", "values", "first", "second", "points, first - second [95%]"]
    headers += ["points of each seed", "cross-entropy, first - second", "better"]
    rows = [network_row(name, c, runs) for name, runs in found.items() for c in constants]
    overall = ["constant", "values", "points, first - second [95%]"]
    overall += ["first better on", "second better on", "taken"]
    picks = [overall_row(c, found) for c in constants]
    print("\n$ python", " ".join(sys.argv))
    print(table(headers, rows))
    print(table(overall, picks))
    titles = {
        "Each network": record.table_rows(headers, rows),
        "Mean of the networks": record.table_rows(overall, picks),
    }
    notes = [
        f"Rates are fractions of {RATE.value:g}, the rate of fine-tuning; sparsity "
        f"{SPARSITY.value:g}, {CLUSTERS.value} clusters. The scope layer leaves depthwise kernels "
        "as they are. Clustering's rates are measured with renewal. A lower cross-entropy is "
        "better.",
        "Trials of a search count from the rate of training, of which fine-tuning has a third: "
        "their 1/9 and 1/30 are 1/3 and 1/10 of it.",
        "A value is taken where the interval of the mean is on one side of 0; otherwise the one "
        "whose reason is given.",
    ]
    if len(SEEDS.value) > 1:
        record.write("engine_constants", titles, seed=int(SEEDS.value[0]), notes=notes)
    print(f"{time.monotonic() - began:.0f} s in all")


def measured(name: str, constants: list[Constant]) -> dict[Run, np.ndarray]:
    """Returns what each run gives: probabilities of the true classes and whether it is right.

    Returns:
        Run -> (seeds, 2, examples).
    """
    folder = pathlib.Path(FOLDER.value) / name
    folder.mkdir(parents=True, exist_ok=True)
    task: Task | None = None
    found = {}
    for run in dict.fromkeys(run for c in constants for run in c.runs):
        seeds = []
        for seed in map(int, SEEDS.value):
            path = folder / f"{run.name}_{seed}.npy"
            if not path.exists():
                task = task or TASKS[name](folder)
                start = time.monotonic()
                np.save(path, answers(task, run, seed))
                print(f"{name} {path.stem}: {time.monotonic() - start:.0f} s", flush=True)
            seeds.append(np.load(path))
        found[run] = np.stack(seeds)
    return found


def answers(task: Task, run: Run, seed: int) -> np.ndarray:
    """Fine-tunes a copy, and returns (2, examples): true class's probability, and whether right."""
    keras.utils.set_random_seed(seed)
    if run.technique == "ptq":
        chosen = np.random.default_rng(seed).permutation(len(task.x))[: run.calibration]
        file = tfnas.to_tflite(task.model, "int8", task.x[chosen].astype(np.float32))
        return _scored(task, file.predict(task.held.astype(np.float32)))
    if run.technique in ("prune", "cluster"):
        model = keras.models.clone_model(task.model)
        model.set_weights(task.model.get_weights())
        fit(model, task, seed, run.rate * RATE.value, [callback_of(task, run, seed)])
        return _scored(task, model.predict(task.held, batch_size=250, verbose=0))
    images = spread(task.x, run.calibration).astype(np.float32)
    model = tfnas.quantize_aware(task.model, run.technique, data=images)
    fit(model, task, seed, run.rate * RATE.value)
    file = tfnas.to_tflite(model, run.technique)
    return _scored(task, file.predict(task.held.astype(np.float32)))


def callback_of(task: Task, run: Run, seed: int) -> keras.callbacks.Callback:
    """The callback that prunes or clusters."""
    if run.technique == "cluster":
        unit = "epoch" if run.renew is None else "step"
        return tfnas.ClusteringCallback(CLUSTERS.value, run.renew, unit, seed=seed)
    steps = task.epochs * -(-len(task.x) // BATCH.value)
    schedule = polynomial(
        SPARSITY.value, end=int(run.ramp * steps), by="step", frequency=max(1, steps // 20)
    )
    depthwise = any(isinstance(k, keras.layers.DepthwiseConv2D) for k in task.model.layers)
    exclude = ("depthwise",) if depthwise and run.scope == "layer" else ()
    return tfnas.PruningCallback(schedule, scope=run.scope, exclude=exclude, seed=seed)


def fit(
    model: Any, task: Task, seed: int, rate: float, callbacks: Any = (), epochs: int | None = None
) -> None:
    """Trains in place, on labels alone."""
    epochs = epochs or task.epochs
    steps = epochs * -(-len(task.x) // BATCH.value)
    data = shuffled((task.x, task.y), BATCH.value, seed)
    if task.augment:
        data = untuned(data.map(lambda x, y: (flip(shift(tf.cast(x, tf.float32))), y)).prefetch(2))
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", jit_compile=False
    )
    model.fit(data, epochs=epochs, shuffle=False, verbose=0, callbacks=[*callbacks, TraceOnce()])


def _scored(task: Task, found: np.ndarray) -> np.ndarray:
    true = found[np.arange(len(found)), task.labels]
    return np.stack([true, correct(task.labels, found)]).astype(np.float32)


def resnet8_task(folder: pathlib.Path) -> Task:
    """MLPerf Tiny's ResNet8, trained; measured on half of the test images."""
    x, y, held, labels = resnet8.load_images()
    half = min(HELD.value, len(held) // 2)
    model = resnet8.load_model()
    return Task("resnet8", model, x, y, held[:half], labels[:half], EPOCHS.value, augment=True)


def mobilenet_v2_task(folder: pathlib.Path) -> Task:
    """A small MobileNetV2 on Fashion-MNIST at 32x32."""
    split = tfnas.data.load(FASHION.value)
    border = [(0, 0), (2, 2), (2, 2), (0, 0)]
    x, held = np.pad(split.x_train, border), np.pad(split.x_val, border)
    x, y = x[: FEWER.value], split.y_train[: FEWER.value]
    model = build_model(tfnas.mobilenet_v2((32, 32, 1), 10, 0.35))
    held, labels = held[: HELD.value], split.y_val[: HELD.value]
    return trained(folder, Task("mobilenet_v2", model, x, y, held, labels, EPOCHS.value))


def spoken_digits_task(folder: pathlib.Path) -> Task:
    """Convolutions over time, on mel spectrograms of recordings."""
    if not RECORDINGS.value:
        raise app.UsageError("--recordings must name spoken_digits_8khz.npz")
    with np.load(pathlib.Path(RECORDINGS.value).expanduser()) as file:
        x, y, take = spectrograms(file["samples"], file["lengths"]), file["y"], file["take"]
    held, train = (take >= 5) & (take < 20), take >= 20  # the others are the test part
    x = (x - x[train].mean()) / x[train].std()
    inputs = outputs = keras.Input(x.shape[1:])
    for filters in (16, 24, 32):
        outputs = keras.layers.Conv1D(filters, 5, padding="same", use_bias=False)(outputs)
        outputs = keras.layers.BatchNormalization(momentum=0.9)(outputs)
        outputs = keras.layers.MaxPooling1D()(keras.layers.ReLU()(outputs))
    outputs = keras.layers.GlobalAveragePooling1D()(outputs)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(outputs))
    epochs = LONGER.value * EPOCHS.value
    return trained(
        folder, Task("spoken_digits", model, x[train], y[train], x[held], y[held], epochs)
    )


def spectrograms(samples: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns log-mel spectrograms (recordings, frames, 32 bands) of the first second in noise."""
    ends, rng = np.cumsum(lengths), np.random.default_rng(0)
    sound = np.zeros((len(lengths), 8000), np.float32)
    for row, length, end in zip(sound, lengths, ends, strict=True):
        first = samples[end - length : end][: len(row)]
        row[: len(first)] = first / 2**15
        row += rng.normal(0, NOISE * np.sqrt(np.mean(row[: len(first)] ** 2)), len(row))
    mel = keras.layers.MelSpectrogram(
        fft_length=256, sequence_stride=128, sampling_rate=8000, num_mel_bins=32, min_freq=60.0
    )
    parts = [np.asarray(mel(part)) for part in np.array_split(sound, 30)]
    return np.concatenate(parts).transpose(0, 2, 1)


def trained(folder: pathlib.Path, task: Task) -> Task:
    """Trains the network of a task, or finds it trained in a folder."""
    path = folder / "model.keras"
    if not path.exists():
        keras.utils.set_random_seed(0)
        epochs = BASE_EPOCHS.value * max(1, task.epochs // EPOCHS.value)
        fit(task.model, task, 0, 3e-3, epochs=epochs)
        task.model.save(path)
    model = keras.saving.load_model(path, compile=False)
    accuracy = correct(task.labels, model.predict(task.held, verbose=0)).mean()
    print(f"{task.name}: {accuracy:.4f} on {len(task.held)} held-out examples", flush=True)
    return dataclasses.replace(task, model=model)


TASKS: dict[str, Callable[[pathlib.Path], Task]] = {
    "resnet8": resnet8_task,
    "mobilenet_v2": mobilenet_v2_task,
    "spoken_digits": spoken_digits_task,
}


def points(runs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Returns the paired differences in points, (seeds, examples)."""
    return 100 * (runs[0][:, 1] - runs[1][:, 1])


def interval(values: np.ndarray) -> tuple[float, float]:
    """Returns the middle 95%."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def intervals(found: dict[Run, np.ndarray], c: Constant) -> tuple[np.ndarray, str | None]:
    """Returns the resampled mean differences over examples, and the value that is better."""
    differences = points((found[c.runs[0]], found[c.runs[1]]))
    mean, seeds = differences.mean(axis=0), differences.mean(axis=1)
    draws = np.random.default_rng(0).integers(len(mean), size=(RESAMPLES, len(mean)))
    resampled = mean[draws].mean(axis=1)
    low, high = interval(resampled)
    if low > 0 and (seeds > 0).all():
        return resampled, c.values[0]
    return resampled, c.values[1] if high < 0 and (seeds < 0).all() else None


def network_row(name: str, c: Constant, found: dict[Run, np.ndarray]) -> list[str]:
    """A line of the first table."""
    first, second = (found[run] for run in c.runs)
    seeds = points((first, second)).mean(axis=1)
    resampled, better = intervals(found, c)
    low, high = interval(resampled)
    entropies = [-np.log(np.maximum(part[:, 0], LEAST)).mean() for part in (first, second)]
    return [
        name,
        c.name,
        " | ".join(c.values),
        f"{first[:, 1].mean():.4f}",
        f"{second[:, 1].mean():.4f}",
        f"{seeds.mean():+.2f} [{low:+.2f}, {high:+.2f}]",
        ", ".join(f"{value:+.2f}" for value in seeds),
        f"{entropies[0] - entropies[1]:+.4f}",
        better or "",
    ]


def overall_row(c: Constant, networks: dict[str, dict[Run, np.ndarray]]) -> list[str]:
    """A line of the second table; examples and seeds are drawn anew in each network."""
    rng = np.random.default_rng(0)
    total = np.zeros(RESAMPLES)
    better: dict[str, list[str]] = {value: [] for value in c.values}
    means = []
    for name, found in networks.items():
        differences = points((found[c.runs[0]], found[c.runs[1]]))
        means.append(differences.mean())
        seeds, examples = differences.shape
        for n in range(RESAMPLES):
            drawn = differences[rng.integers(seeds, size=seeds)].mean(axis=0)
            total[n] += drawn[rng.integers(examples, size=examples)].mean() / len(networks)
        if (value := intervals(found, c)[1]) is not None:
            better[value].append(name)
    low, high = interval(total)
    taken = c.values[0] if low > 0 else c.values[1] if high < 0 else None
    return [
        c.name,
        " | ".join(c.values),
        f"{np.mean(means):+.2f} [{low:+.2f}, {high:+.2f}]",
        *(", ".join(names) for names in better.values()),
        taken or f"{c.values[c.tie]}: no difference; {c.reason}",
    ]


if __name__ == "__main__":
    app.run(main)
