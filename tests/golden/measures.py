"""What models and files cost, what data sets hold, what latency models predict."""

import pathlib
import tempfile

import numpy as np

from golden import names, networks
from golden.entries import add
from golden.training import parts


def _profile(network):
    return names.profiled(networks.build(network))


def _data(**options):
    return names.load_data("digits", **options)


def _own_data(kind):
    rng = np.random.default_rng(31)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "noise.npz")
        x, y = rng.integers(0, 256, (60, 6, 5, 3), np.uint8), np.arange(60) % 4
        if kind == "arrays":
            np.savez(path, x_train=x[:45], y_train=y[:45], x_test=x[45:], y_test=y[45:])
        else:
            path = pathlib.Path(folder, "noise")
            _write_images(path, x, y)
        return names.load_data(str(path), seed=1)


def _write_images(folder, images, labels):
    from PIL import Image

    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"class{label}" / f"{i}.png")


def _derived():
    return [names.derived_data("digits"), names.typical(np.arange(1000), 37)]


def _augmented(*changes):
    split = parts()
    return names.augmented(split.x_train[:48], split.y_train[:48], changes, 5)


def _features(mode):
    return names.latency_features(_space(), 12, 6, mode)


def _space():
    return names.image_space((8, 8, 1), 10, "microcontroller")


def _regression():
    rng = np.random.default_rng(32)
    rows = [
        {"always": 1.0, "macs": rng.uniform(1, 100), "layers": float(n), "bytes": rng.uniform()}
        for n in rng.integers(5, 60, 40)
    ]
    ratios = [0.3 + 0.02 * row["macs"] + 0.01 * row["layers"] for row in rows]
    return names.fitted_costs(rows, [r * (1 + 0.05 * rng.normal()) for r in ratios])


def _latency(mode):
    space, rng = _space(), np.random.default_rng(33)
    archs = [space.sample(rng) for _ in range(5)]
    return names.fitted_latency(space, mode, lambda size: 1 + size / 10_000, archs)


def _quality():
    rng = np.random.default_rng(34)
    labels, outputs = rng.integers(0, 4, 200), rng.random((200, 4))
    right = [rng.random(200) > share for share in (0.2, 0.3)]
    return [names.quality(labels, outputs), names.difference(*right)]


def _agreement():
    split = parts()
    models = [networks.build("residual", seed) for seed in (0, 0)]
    files = [names.to_file(models[0], mode, split.x_train) for mode in ("float32", "int8")]
    return names.agreement(*files, split.x_test, split.y_test, tuple(models))


def _predictions(network):
    model = networks.build(network)
    x = networks.inputs(model)
    return [np.asarray(y) for y in _listed(names.to_file(model, "int8", x).predict(x))]


def _listed(found):
    return list(found) if isinstance(found, list | tuple) else [found]


for _network in networks.NETWORKS:
    add(f"profile/{_network}", _profile, _network)
for _network in ("space", "two_ends"):
    add(f"predictions/{_network}", _predictions, _network)
add("data/digits", _data)
add("data/digits, other seed", _data, validation=0.3, seed=5)
add("data/arrays", _own_data, "arrays")
add("data/folder", _own_data, "folder")
add("data/derived", _derived)
add("data/augmented", _augmented, "flip", "shift")
for _mode in ("float32", "int8"):
    add(f"latency/features, {_mode}", _features, _mode)
    add(f"latency/fitted, {_mode}", _latency, _mode)
add("latency/regression", _regression)
add("quality/scores", _quality)
add("quality/agreement", _agreement)
