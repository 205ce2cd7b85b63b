"""Searches for 64 KiB of RAM at 128x128 pixels, with and without patches.

    python benchmarks/patch_search.py --data=FOLDER [--seeds=1] [--trials=14] [--folder=...]
    python benchmarks/patch_search.py --task=clutter --result=patch_search_clutter

Both searches are the same but for `patch_macs_ratio`: the space, the limit of `ram_bytes`, the
objective (accuracy on the validation part), the number of trials, the seed. A network that breaks
the limit before its training counts as a trial. The networks of the space work at 64, 96 or 128
pixels, so that some fit without patches: those that shrink the image first. All of those that work
at 64 pixels fit. Those at 96 have no patches, since 128 is no whole number of times 96.

The images of --task=camvid are grayscale parts of street scenes (CamVid, for tests alone, CC BY-NC
4.0), 96x96 pixels enlarged to 128x128: which of 9 classes is in the middle? The images of
--task=clutter are black, of 128x128 pixels, with one item of Fashion-MNIST in its own 28x28 pixels
at a random place, among fragments of items of other classes, as in cluttered MNIST (Mnih et al.,
Recurrent Models of Visual Attention, 2014): which of 10 classes is the whole item? Fragments have
8x8 pixels, as there, and there are 16, which cover a sixteenth of the image.

Training, validation and test part are those of the data; of Fashion-MNIST the last 10,000 training
images are for validation. The best network of each search is judged on the test part, which nothing
was chosen by. "RAM" is what the limit is of: the activations as TFLite Micro plans them, and the
records that patches add; "RAM, plain" is that without patches. "shared" and "stays" are the parts
of the arena that TFLite Micro itself allocates on this machine, the second with records of 64 bits.
Searches are kept in --folder: the same call goes on.
"""

from __future__ import annotations

import io
import pathlib
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags

import tfnas
from tfnas.measure.accuracy import correct, paired_difference
from tfnas.table import table
from tfnas.tflite.network_operators import operators_of_architecture
from tfnas.tflite.network_writer import write

TASK = flags.DEFINE_enum("task", "camvid", ("camvid", "clutter"), "what the images are")
DATA = flags.DEFINE_string("data", None, "folder of camvid_160x120_*.npz")
SEEDS = flags.DEFINE_integer("seeds", 1, "number of seeds", 1)
TRIALS = flags.DEFINE_integer("trials", 14, "trials of a search", 1)
EPOCHS = flags.DEFINE_integer("epochs", 8, "epochs of a trial", 1)
PARTS = flags.DEFINE_integer("parts", 3, "parts of a training image of CamVid", 1)
IMAGES = flags.DEFINE_integer("images", 8000, "training images of the clutter", 100)
FOLDER = flags.DEFINE_string("folder", "runs/patches", "what is kept of the searches")
LABELS = (1, 2, 3, 4, 5, 6, 7, 8, 9)  # of CamVid: building to pedestrian; not sky, cyclists, void
CLASSES = {"camvid": len(LABELS), "clutter": 10}
FRAGMENTS, FRAGMENT = 16, 8  # pieces of clutter, and their height and width
SIDE, SIZE, RAM = 96, 128, 64 * 1024
BATCH = 32
RATIOS = {"without patches": None, "with patches": 1.5}
Examples = tuple[np.ndarray, np.ndarray]  # images (examples, 128, 128, 1), and their classes


def examples() -> dict[str, Examples]:
    """Returns the images and classes of the three parts of the task's data."""
    if TASK.value == "clutter":
        (x, y), test = keras.datasets.fashion_mnist.load_data()
        parts = {"train": (x[:50_000], y[:50_000]), "val": (x[50_000:], y[50_000:]), "test": test}
        counts = {"train": IMAGES.value, "val": 2000, "test": 10_000}
        return {name: clutter(*part, counts[name]) for name, part in parts.items()}
    return {
        name: camvid(name, PARTS.value if name == "train" else 6)
        for name in ("train", "val", "test")
    }


def clutter(items: np.ndarray, classes: np.ndarray, count: int) -> Examples:
    """Returns the first items, each at a random place among fragments of other classes' items.

    Args:
        items: Of shape (items, 28, 28), black around.
        classes: Their classes.
        count: Number of images.
    """
    rng = np.random.default_rng(0)
    side = items.shape[1]
    x = np.zeros((count, SIZE, SIZE), np.uint8)
    for image, item, label in zip(x, items, classes, strict=False):
        others = np.flatnonzero(classes != label)
        for other in items[rng.choice(others, FRAGMENTS)]:
            row, column = rng.integers(side - FRAGMENT + 1, size=2)
            paste(image, other[row : row + FRAGMENT, column : column + FRAGMENT], rng)
        paste(image, item, rng)
    return x[..., None], classes[:count].astype(int)


def paste(image: np.ndarray, piece: np.ndarray, rng: np.random.Generator) -> None:
    """Draws a piece into an image, at a random place; the brighter of two pixels stays."""
    row, column = rng.integers(SIZE - len(piece) + 1, size=2)
    field = image[row : row + len(piece), column : column + len(piece)]
    np.maximum(field, piece, out=field)


def camvid(part: str, parts: int) -> Examples:
    """Returns images (examples, 128, 128, 1) of a part of the data, and what is in their middle.

    Of each scene as many examples as `parts`, each of a class that is drawn among those in reach.
    """
    from PIL import Image

    with np.load(pathlib.Path(DATA.value) / f"camvid_160x120_{part}.npz") as file:
        jpeg, sizes, labels = (file[k] for k in ("jpeg", "sizes", "labels"))
    rng = np.random.default_rng(0)
    x, y = [], []
    for each, classes in zip(np.split(jpeg, np.cumsum(sizes)[:-1]), labels, strict=True):
        scene = Image.open(io.BytesIO(each.tobytes())).convert("L")
        half = SIDE // 2
        reach = classes[half : classes.shape[0] - half, half : classes.shape[1] - half]
        found = [label for label in LABELS if (reach == label).any()]
        for label in rng.choice(found, parts):
            top, left = rng.choice(np.argwhere(reach == label))
            box = (int(left), int(top), int(left) + SIDE, int(top) + SIDE)
            x.append(np.asarray(scene.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)))
            y.append(LABELS.index(label))
    return np.stack(x)[..., None], np.array(y)


def small_space() -> tfnas.MobileNetV2Space:
    """Returns networks that begin narrow, as 64 KiB ask for."""
    blocks, stage = ("inverted_residual", "fused_inverted_residual"), tfnas.StageChoices
    return tfnas.MobileNetV2Space(
        (SIZE, SIZE, 1),
        CLASSES[TASK.value],
        stages=(
            stage((8,), (1,), 1, (*blocks, "identity"), (3,), (1, 2)),
            stage((8, 16), (1,), 2, blocks, (3,), (1, 2, 3)),
            stage((16, 24), (1, 2), 2, blocks, (3, 5), (2, 3)),
            stage((32, 48), (1, 2), 2, blocks[:1], (3, 5), (2, 4)),
            stage((64,), (1,), 1, (blocks[0], "identity"), (3, 5), (2, 4)),
        ),
        width_multipliers=(1.0,),
        resolutions=(64, 96, 128),
        fixed=tfnas.FixedLayers(stem_filters=8, head_filters=64),
    )


def search(seed: int, ratio: float | None, parts: dict[str, tuple]) -> Any:
    """Runs a search, or opens it, and returns its tuner."""
    x, y = parts["train"]
    steps = EPOCHS.value * -(-len(x) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    tuner = tfnas.EvolutionTuner(
        small_space().hypermodel(optimizer=keras.optimizers.Adam(rate)),
        ["file_accuracy"],
        max_trials=TRIALS.value,
        seed=seed,
        sampler=tfnas.EvolutionSampler(population_size=4, tournament_size=2),
        limits={"ram_bytes": RAM},
        config=tfnas.TunerConfig(patch_macs_ratio=ratio, rounds=10),
        directory=FOLDER.value,
        project_name=f"{seed}_{'plain' if ratio is None else 'patches'}",
        max_consecutive_failed_trials=TRIALS.value,
    )
    tuner.search(
        *(x, y),
        validation_data=parts["val"],
        epochs=EPOCHS.value,
        batch_size=BATCH,
        verbose=0,
    )
    return tuner


def trial_row(seed: int, name: str, trial: Any) -> dict[str, Any]:
    """Returns the row of a trained network."""
    arch = trial.architecture
    plain = write(operators_of_architecture(arch), "int8")  # memory does not depend on weights
    return {
        "seed": seed,
        "search": name,
        "trial": trial.trial_id,
        "works at": arch.working_resolution[0],
        "patches": int(trial.metrics.get("patches", 1)),
        "validation": round(trial.metrics["file_accuracy"], 4),
        "RAM": int(trial.metrics["ram_bytes"]),
        "RAM, plain": tfnas.planned_arena(plain),
        "MACs, M": round(trial.measurement.macs / 1e6, 2),
    }


def best_row(seed: int, name: str, tuner: Any, test: tuple) -> tuple[dict[str, Any], np.ndarray]:
    """Returns the row of a search's best network, and which test images it gets right."""
    [best] = [c for c in tuner.candidates() if c.trial_id == tuner.oracle.pick().trial_id]
    file = best.artifact()
    right = correct(test[1], file.predict(test[0]))
    memory = tfnas.micro_memory(file.minified())
    kept = {k: v for k, v in trial_row(seed, name, best).items() if k != "validation"}
    return {
        **kept,
        "test": round(float(right.mean()), 4),
        "shared": memory.non_persistent,
        "stays": memory.persistent,
        "file": file.size,
        "latency": round(best.measurement.latency.ratio, 3),
    }, right


def main(argv: list[str]) -> None:
    parts = examples()
    trials: list[dict[str, Any]] = []
    best: list[dict[str, Any]] = []
    notes = [
        f"{', '.join(f'{len(y)} {name}' for name, (_, y) in parts.items())} images; "
        f"{TRIALS.value} trials of {EPOCHS.value} epochs; {RAM:,} bytes."
    ]
    for seed in range(SEEDS.value):
        rights = {}
        for name, ratio in RATIOS.items():
            tuner = search(seed, ratio, parts)
            rows = [trial_row(seed, name, each) for each in tuner.candidates()]
            trials += rows
            notes.append(f"Seed {seed}, {name}: {len(rows)} of {TRIALS.value} trials fit.")
            if rows:
                row, rights[name] = best_row(seed, name, tuner, parts["test"])
                best.append(row)
        if len(rights) == len(RATIOS):
            value, low, high = paired_difference(rights["with patches"], rights["without patches"])
            notes.append(
                f"Seed {seed}, with patches against without, on the same test images: "
                f"{value:+.4f} [{low:+.4f}, {high:+.4f}]."
            )
        tables = {"the best of each search": best, "networks that fit": trials}
        for rows in tables.values():
            print(table(list(rows[0]), [list(row.values()) for row in rows], right=2))
        print(*notes, sep="\n", flush=True)
        record.write("patch_search", tables, seed=0, notes=notes)


if __name__ == "__main__":
    app.run(main)
