"""A keyword spotter that takes one frame at a time, in LiteRT and in TFLite Micro.

    python benchmarks/streaming_spotter.py [--network=gru] [--data=FOLDER]

Which digit is spoken? (Free Spoken Digit Dataset, the speaker of the test part is heard nowhere
else.) Two causal networks over 49 frames of 64 numbers, 20 ms each, name a digit at each frame:
dilated convolutions, and a convolution before a GRU. They are trained in floats; ranges of the
integers are set by 300 training recordings, nothing is trained after that. Of each network the
file of the whole sequence and that of a frame (`streaming=True`) are made, in float32, int8 and
int16x8.

Prints what both files name at the last frame of all test recordings, and how often all outputs of
all frames are equal, with LiteRT's reference kernels; how TFLite Micro's outputs differ from these
over one stream of --micro_recordings recordings; flash (the minified file), RAM, and CPU time on
this computer; and what ethos-u-vela makes of the file of a frame. Numbers are kept in --folder: the
same call goes on.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections import Counter
from typing import Any

import keras
import numpy as np
import record
from absl import app, flags
from keras import layers
from micro_times import micro_seconds
from sequence_models import spoken_digits_gru

import tfnas
from tfnas.table import table
from tfnas.tflite.file_stream import stream_ends

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA = flags.DEFINE_string("data", str(ROOT.parent / "shared/data/tasks"), "folder of the data")
NETWORKS = ("convolutions", "gru")
NETWORK = flags.DEFINE_multi_enum("network", list(NETWORKS), NETWORKS, "the networks")
FOLDER = flags.DEFINE_string("folder", "runs/streaming_spotter", "what is kept of the runs")
MICRO = flags.DEFINE_integer("micro_recordings", 100, "recordings of the stream in TFLite Micro")
SEED = flags.DEFINE_integer("seed", 0, "seed of weights and training")
ACCELERATORS = flags.DEFINE_list("accelerators", ["ethos-u55-128", "ethos-u85-256"], "the NPUs")
EPOCHS, RATE, BATCH, CALIBRATION, HEARD = 15, 3e-3, 64, 300, 29
SPECS = {"int8": tfnas.QuantSpec("int8"), "int16x8": tfnas.QuantSpec("int8", "int16")}
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of a network in one format.

    Args:
        whole: Takes a sequence, any number of them at a time.
        one: The same for a batch of 1, as TFLite Micro needs.
        frame: Takes a frame and the states.
    """

    whole: tfnas.Artifact
    one: tfnas.Artifact
    frame: tfnas.Artifact


def main(_: list[str]) -> None:
    """Measures the networks and writes the record."""
    folder = pathlib.Path(FOLDER.value)
    cells = [
        record.kept_cell(folder / f"{name}_{SEED.value}.json", lambda name=name: _measured(name))
        for name in NETWORK.value
    ]
    tables = {title: [row for cell in cells for row in cell[title]] for title in cells[0]}
    for title, rows in tables.items():
        print(f"\n{title}\n{table(list(rows[0]), [list(map(str, row.values())) for row in rows])}")
    notes = [
        "points: of the stream, to the float32 file of the whole sequence. stream = whole: share "
        "of the numbers that are equal at all frames of all test recordings, and the largest "
        "difference in steps of the output (float32: as a number), by LiteRT's reference kernels.",
        f"Micro = LiteRT: the same of TFLite Micro and LiteRT's reference kernels, over one stream "
        f"of {MICRO.value} recordings whose states each hands on by itself. Of single operators "
        "FULLY_CONNECTED differs by a step, and in 16 bits MUL and SOFTMAX; states carry it on.",
        "RAM is TFLite Micro's arena on this computer (64 bits wide); states are copied outside of "
        "it from one frame to the next. ms: CPU time in TFLite Micro on this computer, of a frame "
        "and of a sequence of 49 frames.",
        "Vela's ms are of the part that runs on the NPU alone.",
    ]
    record.write("streaming_spotter", tables, seed=SEED.value, notes=notes)


def _measured(name: str) -> dict[str, list[Row]]:
    parts = spoken_digits_gru.data(DATA.value)
    model = _trained(name, parts)
    files = _files_of(model, tfnas.data.spread(parts[0][0], CALIBRATION))
    x, y = parts[2]
    floats = _answers(files["float32"].whole.predict(x, reference=True)) == y
    found: dict[str, list[Row]] = {"accuracy and equality": [], "memory and time": [], "vela": []}
    for mode, each in files.items():
        head = {"network": name, "format": mode}
        found["accuracy and equality"].append(head | _equality(each, x, y, floats))
        if mode != "float32":
            found["memory and time"].append(head | _costs(each))
            found["vela"] += [head | _verdict(each.frame, npu) for npu in ACCELERATORS.value]
    return found


def _trained(name: str, parts: tuple) -> keras.Model:
    keras.utils.set_random_seed(SEED.value)
    frames = keras.Input((49, 64), name="frames")
    x = layers.GaussianNoise(0.2)(frames)
    dilations = (1, 2, 4, 8) if name == "convolutions" else (1,)
    for dilation in dilations:  # four of 5 frames look back at 61
        x = layers.Conv1D(48, 5, padding="causal", dilation_rate=dilation, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    if name == "gru":
        x = layers.GRU(48, return_sequences=True, name="memory")(x)
    x = layers.Dropout(0.4)(x)
    model = keras.Model(frames, layers.Dense(10, activation="softmax", name="digit")(x), name=name)
    steps = EPOCHS * -(-len(parts[0][0]) // BATCH)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps))
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    best = keras.callbacks.EarlyStopping("val_loss", patience=EPOCHS, restore_best_weights=True)
    train, validation = (_at_frames(*part) for part in parts[:2])
    options = {"validation_data": validation, "callbacks": [best], "verbose": 2}
    model.fit(*train[:2], sample_weight=train[2], batch_size=BATCH, epochs=EPOCHS, **options)
    return model


def _at_frames(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, the digit at each frame, and weights: 0 of frames before the digit can be known."""
    weights = np.broadcast_to(np.arange(x.shape[1]) >= HEARD, x.shape[:2]).astype(np.float32)
    return x, np.repeat(y[:, None], x.shape[1], axis=1), weights


def _files_of(model: keras.Model, typical: np.ndarray) -> dict[str, Files]:
    made = {}
    for mode in ("float32", *SPECS):
        source = tfnas.quantize_aware(model, SPECS[mode], data=typical) if mode in SPECS else model
        made[mode] = Files(
            tfnas.to_tflite(source, mode),
            tfnas.to_tflite(source, mode, batch_size=1).minified(),
            tfnas.to_tflite(source, mode, streaming=True).minified(),
        )
    return made


def _answers(outputs: np.ndarray) -> np.ndarray:
    """What is named at the last frame."""
    return outputs[:, -1].argmax(-1)


def _equality(files: Files, x: np.ndarray, y: np.ndarray, floats: np.ndarray) -> Row:
    whole = files.whole.predict(x, reference=True)
    stream = tfnas.FileStream(files.frame, reference=True)
    found = []
    for sequence in x:
        stream.reset()
        found.append(stream(sequence))
    streamed = np.stack(found)
    long = x[: MICRO.value].reshape(-1, x.shape[-1])
    stream.reset()
    expected, micro = stream(long), tfnas.run_micro(files.frame, long, stateful=True)
    right = _answers(streamed) == y
    return {
        "accuracy, whole": f"{(_answers(whole) == y).mean():.4f}",
        "accuracy, stream": f"{right.mean():.4f}",
        "points": record.points(right, floats),
        "stream = whole": _difference(files.frame, streamed, whole),
        "Micro = LiteRT": _difference(files.frame, micro, expected),
        "same digit": f"{(micro.argmax(-1) == expected.argmax(-1)).mean():.2%}",
    }


def _difference(file: tfnas.Artifact, some: np.ndarray, others: np.ndarray) -> str:
    """The share of equal numbers, and the largest difference in steps."""
    [output] = stream_ends(file).outputs
    apart = np.abs(some - others)
    largest = f"{apart.max() / output.scale:.0f}" if output.scale else f"{apart.max():.1e}"
    return f"{(apart <= output.scale / 2).mean():.2%}, {largest}"


def _costs(files: Files) -> Row:
    memory = [tfnas.micro_memory(file) for file in (files.frame, files.one)]
    states = stream_ends(files.frame).before.values()
    seconds = micro_seconds([files.frame, files.one])
    return {
        "flash, frame": f"{files.frame.size:,}",
        "flash, sequence": f"{files.one.size:,}",
        "RAM, frame": f"{memory[0].arena:,}",
        "of it shared": f"{memory[0].non_persistent:,}",
        "states": f"{sum(np.prod(t.shape) * np.dtype(t.dtype).itemsize for t in states):,}",
        "RAM, sequence": f"{memory[1].arena:,}",
        "of it shared, sequence": f"{memory[1].non_persistent:,}",
        "ms, frame": f"{1000 * seconds[0]:.3f}",
        "ms, sequence": f"{1000 * seconds[1]:.2f}",
    }


def _verdict(file: tfnas.Artifact, accelerator: str) -> Row:
    report = tfnas.vela(file, accelerator)
    left = Counter(operator.kind for operator in report.cpu_operators)
    return {
        "accelerator": accelerator,
        "on the NPU": len(report.npu_operators),
        "on the CPU": ", ".join(f"{n} {kind}" for kind, n in left.items()) or "none",
        "ms": f"{report.inference_ms:.4f}",
        "SRAM": f"{report.memory.sram:,}",
    }


if __name__ == "__main__":
    app.run(main)
