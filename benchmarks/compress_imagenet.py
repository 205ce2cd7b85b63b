"""`tfnas.compress` without training: EfficientNet-Lite0 on a sample of ImageNet.

    python benchmarks/compress_imagenet.py [--images=1000] [--directory=runs/compress_imagenet]

200 images calibrate; of the others half choose and half measure. Prints what the call prints:
the Pareto set on the images that nothing was chosen by, with bytes and times. The images were
perhaps trained on: differences count, accuracies do not.
"""

from __future__ import annotations

import pathlib
import sys
import time

import numpy as np
import ptq_imagenet
import record
from absl import app, flags, logging

import tfnas
from tfnas.cli.console import PlainProgress

DIRECTORY = flags.DEFINE_string("directory", "runs/compress_imagenet", "folder of the job")
MAX_DROP = flags.DEFINE_float("max_drop", 1.0, "points of accuracy that may be lost")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    began = time.monotonic()
    folder = pathlib.Path(ptq_imagenet.DATA.value)
    x, y = ptq_imagenet.load_images(folder / "imagenet_sample_1000_224_jpg.zip")
    order = np.random.default_rng(ptq_imagenet.SEED.value).permutation(len(x))
    order = order[: ptq_imagenet.IMAGES.value]
    x, y = x[order], y[order]
    count = ptq_imagenet.CALIBRATION.value
    names = tuple(map(str, range(1000)))
    split = tfnas.data.DataSplit(
        "imagenet_sample", *(x[:count], y[:count], x[:0], y[:0], x[count:], y[count:]), names
    )
    result = tfnas.compress(
        tfnas.load_model(folder / "efficientnet_lite0_imagenet.keras"),
        split,
        {"max_drop": MAX_DROP.value},
        effort="quick",
        directory=DIRECTORY.value,
        progress=PlainProgress(),
    )
    print(f"\n{result}\n\n$ python", " ".join(sys.argv))
    notes = [f"{time.monotonic() - began:.0f} s in all."]
    print(*notes)
    record.write(
        "compress_imagenet", record.file_rows(result), seed=ptq_imagenet.SEED.value, notes=notes
    )


if __name__ == "__main__":
    app.run(main)
