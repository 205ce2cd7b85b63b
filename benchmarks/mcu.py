"""Networks for 64 KB of RAM and 128 KB of flash: what a search finds, and what devices say of it.

    python benchmarks/mcu.py [--datasets=fashion_mnist,digits] [--directory=runs/mcu]

`tfnas.search` looks for the front of accuracy (of the int8 file, on validation images) and
--objective within both limits: flash is the file, RAM the arena that TFLite Micro plans; what a
firmware takes beside them is --runtime_flash and --runtime_ram. Of the front --shown networks
are taken, the most accurate one and others evenly spread, by validation images alone. They and
MobileNetV2 0.35 are trained again from scratch, alike, on training and validation images; what is
printed of them is measured on test images, and nothing is chosen after that. The trials see
few images and steps (--trial_images, --trial_steps), so their order may not be that of the
networks once they are trained.

Prints three tables a data set: accuracy on all test images, flash, RAM and whether TFLite Micro's
interpreter gives LiteRT's numbers on --micro_images of them ("same" is the share of equal numbers
of the output with LiteRT's reference kernels, "XNNPACK's" that with the kernels that LiteRT takes
by itself, "off" the largest difference to those in steps of its scale); the plan of the arena,
made from the tensors' lifetimes alone, beside what TFLite Micro allocates on this machine
("shared" over time, with scratch buffers of kernels; "stays", with records of this machine's
width); and what ethos-u-vela expects on --accelerator. Takes half an hour on one core.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time

import keras
import numpy as np
import record
from absl import app, flags, logging

import tfnas
from tfnas.cli.console import PlainProgress
from tfnas.data.data_split import DataSplit
from tfnas.data.reading import spread
from tfnas.measure.accuracy import score
from tfnas.measure.profile import profile
from tfnas.nas.measured_trial import MeasuredTrial
from tfnas.search_space.hypermodel import compile_for_search
from tfnas.table import table
from tfnas.targets.device import MICRO, VELA, Device

DATASETS = flags.DEFINE_list("datasets", ["fashion_mnist", "digits"], "names of data sets")
DIRECTORY = flags.DEFINE_string(
    "directory", "runs/mcu", "folder of the searches, which go on there"
)
OBJECTIVE = flags.DEFINE_string("objective", "macs", "beside accuracy: macs or vela_cycles")
TRIALS = flags.DEFINE_integer("trials", 10, "trials of a search")
TRIAL_IMAGES = flags.DEFINE_integer("trial_images", 6000, "training images of a trial")
TRIAL_STEPS = flags.DEFINE_integer("trial_steps", 94, "steps of a trial: its epochs follow")
IMAGES = flags.DEFINE_integer("images", 20000, "training images of a final network")
STEPS = flags.DEFINE_integer("steps", 814, "steps of its training: its epochs follow")
SHOWN = flags.DEFINE_integer("shown", 3, "networks of the front that are trained again")
MICRO_IMAGES = flags.DEFINE_integer("micro_images", 100, "test images in TFLite Micro")
FLASH = flags.DEFINE_integer("flash", 128 * 1024, "bytes of flash")
RAM = flags.DEFINE_integer("ram", 64 * 1024, "bytes of RAM")
RUNTIME_FLASH = flags.DEFINE_integer("runtime_flash", 0, "bytes of flash of the firmware")
RUNTIME_RAM = flags.DEFINE_integer("runtime_ram", 0, "bytes of RAM of the firmware")
ACCELERATOR = flags.DEFINE_string("accelerator", "ethos-u55-128", "the NPU")
SEED = flags.DEFINE_integer("seed", 0, "seed of everything")
BATCH, RATE, CALIBRATION = 64, 3e-3, 300


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that was trained to its end.

    Args:
        label: What it is.
        found: Its accuracy in the search, on validation images; None: it is no candidate.
        macs: Multiply-accumulates.
        file: Its int8 file.
    """

    label: str
    found: float | None
    macs: int
    file: tfnas.Artifact


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    found: dict[str, list[dict[str, str]]] = {}
    for name in DATASETS.value:
        began = time.monotonic()
        split = tfnas.data.load(name, seed=SEED.value)
        networks = finals(split, searched(split))
        minutes = (time.monotonic() - began) / 60
        for title, rows in tables(split, networks).items():
            print(f"\n{title}\n{table(list(rows[0]), [list(row.values()) for row in rows])}")
            found[title] = rows
        print(f"\n{minutes:.1f} minutes for search and training\n", flush=True)
    print("$ python", " ".join(sys.argv))
    note = f"{FLASH.value:,} bytes of flash and {RAM.value:,} of RAM."
    record.write("mcu", found, seed=SEED.value, notes=[note])


def searched(split: DataSplit) -> list[MeasuredTrial]:
    """The front of a search: within the limits, none is more accurate and cheaper."""
    part = split.limited(TRIAL_IMAGES.value, SEED.value)
    limits = {
        "flash_bytes": FLASH.value,
        "ram_bytes": RAM.value,
        # Each takes a byte at least; known without a file, so that what breaks it is no trial.
        "parameters": FLASH.value - RUNTIME_FLASH.value,
    }
    result = tfnas.search(
        split,
        directory=pathlib.Path(DIRECTORY.value, split.name),
        preset="microcontroller",
        objectives=("file_accuracy", OBJECTIVE.value),
        limits=limits,
        max_trials=TRIALS.value,
        epochs=epochs(TRIAL_STEPS.value, len(part.x_train)),
        train_limit=TRIAL_IMAGES.value,
        accelerator=ACCELERATOR.value,
        runtime_flash=RUNTIME_FLASH.value,
        runtime_ram=RUNTIME_RAM.value,
        baseline=False,
        seed=SEED.value,
        progress=PlainProgress(),
    )
    # A trained file can be larger than the untrained one, which the limits let through.
    kept = [c for c in result.candidates if all(c.metrics[k] <= v for k, v in limits.items())]
    print(f"{len(kept)} of {TRIALS.value} trials kept the limits", flush=True)
    return sorted(result.front, key=lambda candidate: candidate.metrics[OBJECTIVE.value])


def finals(split: DataSplit, front: list[MeasuredTrial]) -> list[Network]:
    """Some of the front and MobileNetV2 0.35, trained alike."""
    places = np.linspace(len(front) - 1, 0, min(SHOWN.value, len(front))).round().astype(int)
    space = tfnas.MobileNetV2Space(split.input_shape, split.num_classes, "microcontroller")
    chosen = [
        (f"trial {c.trial_id}", c.metrics["file_accuracy"], c.architecture)
        for c in (front[place] for place in places)
    ]
    peer = tfnas.mobilenet_v2(split.input_shape, split.num_classes, 0.35)
    networks = []
    for label, found, arch in [*chosen, ("MobileNetV2 0.35", None, peer)]:
        model = space.build(arch)
        file = trained(model, split)
        networks.append(Network(label, found, profile(model).macs, file))
        print(f"{split.name}, {label} ({arch}): {file.size:,} bytes", flush=True)
    return networks


def trained(model: keras.Model, split: DataSplit) -> tfnas.Artifact:
    """The int8 file of a network after its training."""
    x, y = split.limited(IMAGES.value, SEED.value).training_part()
    keras.utils.set_random_seed(SEED.value)
    count = epochs(STEPS.value, len(x))
    schedule = keras.optimizers.schedules.CosineDecay(RATE, count * -(-len(x) // BATCH))
    compile_for_search(model, optimizer=keras.optimizers.Adam(schedule))
    model.fit(x, y, batch_size=BATCH, epochs=count, verbose=0)
    return tfnas.to_tflite(model, "int8", spread(split.x_train, CALIBRATION))


def epochs(steps: int, images: int) -> int:
    return max(1, round(steps * BATCH / images))


def tables(split: DataSplit, networks: list[Network]) -> dict[str, list[dict[str, str]]]:
    """The three tables of a data set by their titles."""
    device = Device(ACCELERATOR.value, RUNTIME_FLASH.value, RUNTIME_RAM.value)
    return {
        f"{split.name}: accuracy, flash, RAM": accuracies(split, networks, device),
        f"{split.name}: the arena": arenas(networks),
        f"{split.name}: {device.accelerator} by its compiler": estimates(networks, device),
    }


def accuracies(split: DataSplit, networks: list[Network], device: Device) -> list[dict[str, str]]:
    few = spread(split.x_test, MICRO_IMAGES.value)
    rows = []
    for each in networks:
        quality = score(split.y_test, each.file.predict(split.x_test))
        taken = device.metrics(each.file, set(MICRO))
        over = [
            what
            for what, most in (("flash", FLASH.value), ("ram", RAM.value))
            if taken[f"{what}_bytes"] > most
        ]
        rows.append(
            [
                each.label,
                "" if each.found is None else f"{each.found:.4f}",
                f"{quality.value:.4f} [{quality.low:.4f}, {quality.high:.4f}]",
                f"{each.macs:,}",
                *(f"{taken[name]:,.0f}" for name in MICRO),
                f"not {' and '.join(over)}" if over else "yes",
                *kernel_agreement(each.file, few),
            ]
        )
    headers = ["network", "in search", "accuracy [95%]", "MACs", *MICRO, "fits"]
    return record.table_rows([*headers, "same", "XNNPACK's", "off"], rows)


def kernel_agreement(file: tfnas.Artifact, x: np.ndarray) -> list[str]:
    """Shares of equal numbers in TFLite Micro and LiteRT, largest difference to XNNPACK's."""
    micro, scale = tfnas.run_micro(file, x), file.outputs[0].scale
    exact, fast = (
        np.abs(micro - file.predict(x, reference=reference)) / scale for reference in (True, False)
    )
    return [f"{(exact < 0.5).mean():.2%}", f"{(fast < 0.5).mean():.2%}", f"{fast.max():.0f}"]


def arenas(networks: list[Network]) -> list[dict[str, str]]:
    rows = []
    for each in networks:
        planned, found = tfnas.planned_arena(each.file), tfnas.micro_memory(each.file)
        ratio = f"{planned / found.non_persistent:.3f}"
        sizes = found.non_persistent, found.persistent, found.arena
        rows.append([each.label, f"{planned:,}", *(f"{size:,}" for size in sizes), ratio])
    headers = ["network", "planned arena", "shared", "stays", "entire arena", "planned : shared"]
    return record.table_rows(headers, rows)


def estimates(networks: list[Network], device: Device) -> list[dict[str, str]]:
    rows = []
    for each in networks:
        found = device.metrics(each.file, set(VELA))
        ms, *rest = (found[name] for name in VELA)
        rows.append([each.label, f"{ms:.4f}", *(f"{value:,.0f}" for value in rest)])
    return record.table_rows(["network", *VELA], rows)


if __name__ == "__main__":
    app.run(main)
