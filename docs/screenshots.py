"""Makes the pictures of docs/reports.md: two small jobs on digits, and their reports in Chromium.

    python docs/screenshots.py [FOLDER]

The jobs take some minutes; in a FOLDER where they are finished they are only measured again. The
pictures are the upper parts of the reports, 1300 and 390 pixels wide, light and dark.
"""

from __future__ import annotations

import io
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from PIL import Image

import tfnas

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from chromium import chromium  # noqa: E402

PICTURES = HERE / "pictures"
WIDTHS = {1300: 1560, 390: 1500}  # width of the window -> height of the picture
COLORS = 128  # of the palette of a picture


def trained(path: pathlib.Path) -> None:
    """Trains a model of handwritten digits and saves it, where there is none yet."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    split, layers = tfnas.data.load("digits"), keras.layers
    model = keras.Sequential(
        [
            keras.Input(split.input_shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(24, 3, padding="same", activation="relu", name="conv1"),
            layers.Conv2D(48, 3, strides=2, padding="same", activation="relu", name="conv2"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu", name="conv3"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax", name="classes"),
        ]
    )
    optimizer = keras.optimizers.Adam(3e-3)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x_train, split.y_train, epochs=25, verbose=0)
    model.save(path)


def jobs(folder: pathlib.Path) -> None:
    """Compresses the model to a budget, and searches a network for the same data."""
    trained(folder / "model.keras")
    budget = {"max_drop": 2.0, "max_bytes": 9_000}
    tfnas.compress(
        folder / "model.keras", "digits", budget, epochs=4, directory=folder / "compress"
    )
    tfnas.search(
        "digits",
        directory=folder / "search",
        preset="microcontroller",
        max_trials=10,
        epochs=3,
        final_epochs=3,
        random_candidates=1,
        target_latency_ratio=0.05,
        seed=1,
    )


def pictures(folder: pathlib.Path) -> None:
    """Writes the pictures of the reports in a folder."""
    PICTURES.mkdir(exist_ok=True)
    with chromium() as page:
        for job in ("compress", "search"):
            for width, height in WIDTHS.items():
                for scheme in ("light", "dark"):
                    page.open(folder / job / "report.html", width, dark=scheme == "dark")
                    shot = Image.open(io.BytesIO(page.screenshot(height))).convert("RGB")
                    path = PICTURES / f"{job}_{width}_{scheme}.png"
                    # Of all colors, also the rare ones: small marks keep theirs.
                    shot.quantize(COLORS, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
                    print(f"{path.stat().st_size:7,} bytes  {path.name}")


def main(arguments: list[str]) -> None:
    folder = pathlib.Path(arguments[0] if arguments else "runs/screenshots")
    jobs(folder)
    pictures(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
