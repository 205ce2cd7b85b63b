"""Malformed and hostile inputs: each ends in one clear error, or in a right result.

Nothing is unpickled, no code of a file is run, no process crashes, nothing hangs. Inputs are
drawn by number (see fuzzing.py); `pytest -s` shows how many ended in which way.
"""

import collections
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from fuzzing import (
    damaged,
    image_folder,
    json_text,
    keras_file,
    npz,
    outcome,
    pickled_npy,
    value,
    written,
)

import tfnas
from tfnas.compression.techniques.channel_pruning import parse_sizes
from tfnas.compression.techniques.quantized_models import parse_formats
from tfnas.compression.techniques.weight_clustering import parse_counts
from tfnas.measure.measurement import Latency, Score
from tfnas.measure.quantization_debugger.error_report import (
    FloatLayers,
    OutputError,
    QuantizationError,
)
from tfnas.pruning.sensitivity import Sensitivity
from tfnas.tflite.file_validation import check_file
from tfnas.tflite.metadata import read_metadata
from tfnas.tflite.mixed_precision import LayerFormats, MixedPrecision

# Of each kind in a run of all tests; `-m slow` draws ten times as many others.
CASES = {
    **{"specification": 240, "architecture": 120, "record": 120, "npz": 130, "images": 60},
    **{"keras": 120, "tflite": 120, "command": 120},
}
LAYERS = keras.layers
COMMAND = pathlib.Path(sys.executable).with_name("tfnas")


def rngs(kind, count):
    """One generator per case; the first `CASES` are those of the fast run."""
    begin = 0 if count == CASES[kind] else CASES[kind]
    base = sorted(CASES).index(kind)
    return [np.random.default_rng([base, number]) for number in range(begin, begin + count)]


def report(kind, count, ends):
    """Prints the outcomes, and asserts that no case failed and that outcomes differ."""
    found = collections.Counter(ends)
    shown = ", ".join(f"{number} {end}" for end, number in found.most_common())
    print(f"\nfuzz: {kind}: {count} cases: {shown}")
    assert sum(found.values()) == count
    assert found["right"] < count
    return found


def every(kind, count, run):
    """Runs one call per case; the message of a failed case begins with its number."""
    ends, faults = [], []
    for number, rng in enumerate(rngs(kind, count)):
        try:
            ends.append(run(rng))
        except AssertionError as error:
            faults.append(f"{number}: {error}")
    assert not faults, "\n".join(faults)
    return report(kind, count, ends)


def counts(*kinds):
    """Each kind with its number of cases, and with ten times as many in the slow run."""
    fast = [pytest.param(kind, CASES[kind], id=kind) for kind in kinds]
    slow = [
        pytest.param(kind, 10 * CASES[kind], id=f"{kind}-long", marks=pytest.mark.slow)
        for kind in kinds
    ]
    return pytest.mark.parametrize(("kind", "count"), [*fast, *slow])


@pytest.fixture
def marker(tmp_path):
    """The path of a folder that only the code of a hostile file would create."""
    path = tmp_path / "made_by_a_file"
    yield path
    assert not path.exists()
    assert not pathlib.Path("made_by_a_header").exists()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "model.keras"
    layers = [LAYERS.Conv2D(3, 3, name="first"), LAYERS.Flatten(), LAYERS.Dense(4, name="last")]
    keras.Sequential([keras.Input((6, 6, 1)), *layers]).save(path)
    return path


@pytest.fixture(scope="module")
def tflite_files(tmp_path_factory):
    """Small files of all kinds: floats, integers, sparse, metadata, two inputs."""
    folder = tmp_path_factory.mktemp("tflite")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            *(keras.Input((8, 8, 4)), LAYERS.Conv2D(4, 3, activation="relu")),
            *(LAYERS.DepthwiseConv2D(3), LAYERS.Conv2D(32, 1), LAYERS.GlobalAveragePooling2D()),
            LAYERS.Dense(10, activation="softmax"),
        ]
    )
    x = np.random.default_rng(0).normal(size=(20, 8, 8, 4)).astype(np.float32)
    for mode in ("float32", "float16", "int8", "int8x4"):
        file = tfnas.to_tflite(model, mode, x)
        if mode == "int8":
            names = [str(label) for label in range(10)]
            file = file.with_metadata(labels=names, mean=1.0, std=2.0, description="small")
        file.save(folder / f"{mode}.tflite")
    pruned, _ = tfnas.prune(model, 0.8)
    tfnas.to_tflite(pruned, sparse=True).save(folder / "sparse.tflite")
    one, two = keras.Input((6, 6, 2), name="one"), keras.Input((4,), name="two")
    parts = keras.ops.split(LAYERS.ZeroPadding2D(1)(one), 2, axis=-1)
    joined = LAYERS.Concatenate()([keras.ops.tanh(parts[0]), LAYERS.MaxPooling2D(1)(parts[1])])
    ends = LAYERS.Dense(4)(LAYERS.Flatten()(keras.ops.transpose(joined, (0, 3, 1, 2))))
    wide = keras.Model([one, two], [LAYERS.Add()([ends, two]), keras.ops.cumsum(ends, axis=1)])
    tfnas.to_tflite(wide).save(folder / "wide.tflite")
    return folder


def test_the_cases_are_at_least_a_thousand():
    assert sum(CASES.values()) >= 1000


# --- values and texts


def specification(rng):
    """One call that takes a specification, with hostile arguments."""
    spec = tfnas.QuantSpec()
    fields = ["weights", "activations", "layers", "ranges", "momentum", "percentile"]
    fields += ["weight_only", "correct"]
    block = ["kind", "filters", "repeats", "stride", "kernel", "expansion"]
    budget = [
        "max_drop",
        "max_relative_loss",
        "quality_limit",
        "max_bytes",
        "max_gzip_bytes",
        "max_latency_ratio",
        "max_macs",
        "max_memory",
    ]
    polynomial = ["final_sparsity", "end", "initial_sparsity", "begin", "power", "by", "frequency"]
    one, two = value(rng), value(rng)

    def some(names, **arguments):
        return arguments | {str(name): value(rng) for name in rng.choice(names, 2, replace=False)}

    calls = [
        lambda: tfnas.QuantSpec.of(one),
        lambda: tfnas.QuantSpec(**some(fields)),
        lambda: tfnas.QuantSpec(**{fields[rng.integers(8)]: one}),
        lambda: tfnas.QuantSpec(layers={"a": one} if rng.integers(2) else [(one, "int4")]),
        lambda: tfnas.Budget.of(one),
        lambda: tfnas.Budget(**some(budget)),
        lambda: tfnas.Budget.of(some(budget)),
        lambda: tfnas.BlockSpec(**some(block, filters=8)),
        lambda: tfnas.Architecture(one, two, (tfnas.BlockSpec(filters=8),)),
        lambda: tfnas.Architecture((8, 8, 1), 10, one, resolution=two),
        lambda: tfnas.mobilenet_v2((32, 32, 3), one, two),
        lambda: tfnas.schedules.polynomial(**some(polynomial, final_sparsity=0.5, end=9))(3),
        lambda: tfnas.schedules.constant(one, begin=two)(3),
        lambda: tfnas.schedules.as_schedule(one, two)(3),
        lambda: tfnas.data.parse_size(one),
        lambda: tfnas.data.load(one, two if rng.integers(3) == 0 else 0.1),
        lambda: tfnas.hypervolume([[1, one]], [3, two], ["min", "max"]),
        lambda: tfnas.pareto_front(one, two),
        lambda: [parse([str(one), "a=8"]) for parse in (parse_formats, parse_sizes, parse_counts)],
        lambda: spec.weight_bits(str(one)[:100], str(two)[:100]),
    ]
    return calls[rng.integers(len(calls))]


@counts("specification")
def test_specifications(kind, count):
    found = every(kind, count, lambda rng: outcome(specification(rng), ValueError))
    assert found["right"] > 10


@counts("architecture")
def test_architectures(kind, count):
    plain = tfnas.mobilenet_v2((32, 32, 3), 10).to_dict()

    def read(text):
        arch = tfnas.Architecture.from_json(text)
        assert tfnas.Architecture.from_json(arch.to_json()) == arch
        assert len(arch.key) == 16
        assert str(arch)

    found = every(kind, count, lambda rng: outcome(lambda: read(json_text(rng, plain)), ValueError))
    assert found["right"] > 10


def records():
    latency = Latency(1.0, 0.9, 1.1, 2.0, 1.9, 2.1, 0.5, "a" * 64, 50, 1, True)
    measured = tfnas.Measurement(10, 9, "b", "int8", Score("accuracy", 0.9, 0.8, 1, 9), latency)
    layer = LayerFormats("a", "Dense", 16, ("int8", "int4"), (0, 5), (0.1, 0.2), "int8")
    output = OutputError("out", 20.0, 0.1)
    files = (FloatLayers((), 100, (output,)),)
    return [
        measured,
        Sensitivity(0.9, (0.5, 0.7), ("a", "b"), (10, 20), ((0.9, 0.8), (0.7, 0.6))),
        MixedPrecision(100, 90, 0.1, 0.1, (layer,)),
        QuantizationError("model", "int8", 100, (), files),
    ]


@counts("record")
def test_records(kind, count):
    known = records()

    def read(rng):
        record = known[rng.integers(len(known))]
        assert type(record).from_json(record.to_json()) == record
        type(record).from_json(json_text(rng, json.loads(record.to_json())))

    found = every(kind, count, lambda rng: outcome(lambda: read(rng), ValueError))
    assert found["right"] > 10


# --- files


def check_split(split):
    """Asserts what the documentation says of a loaded data set."""
    for x, y in (
        (split.x_train, split.y_train),
        (split.x_val, split.y_val),
        (split.x_test, split.y_test),
    ):
        assert x.shape[1:] == split.input_shape
        assert len(x) == len(y) > 0
        assert np.isfinite(x).all()
        assert 0 <= y.min() <= y.max() < split.num_classes


@counts("npz")
def test_npz_files(kind, count, tmp_path, marker):
    path = tmp_path / "data.npz"

    def load(rng):
        path.write_bytes(npz(rng, marker))
        return outcome(lambda: check_split(tfnas.data.load(path)), ValueError)

    found = every(kind, count, load)
    assert found["right"] > 5
    assert not (tmp_path.parent / "outside.npy").exists()


@counts("images")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_folders_of_images(kind, count, tmp_path):
    sizes = [None, None, (8, 8), (0, 5), (-1, 8), (10**9, 10**9), "8,8", 8, (8,), (2.5, 8)]

    def load(rng):
        folder = image_folder(rng, tmp_path / str(len(list(tmp_path.iterdir()))))
        size = sizes[rng.integers(len(sizes))]
        return outcome(lambda: check_split(tfnas.data.load(folder, image_size=size)), ValueError)

    found = every(kind, count, load)
    assert found["right"] > 5


@counts("keras")
@pytest.mark.filterwarnings("ignore")
def test_keras_files(kind, count, tmp_path, marker, model_file):
    content, path = model_file.read_bytes(), tmp_path / "model.keras"

    def load(rng):
        path.write_bytes(keras_file(rng, content, marker))
        return outcome(lambda: tfnas.load_model(path).count_params(), ValueError)

    found = every(kind, count, load)
    assert found["right"] > 5


@counts("tflite")
def test_tflite_files(kind, count, tflite_files):
    """In a process of their own: if it dies, the case is named and the others continue."""
    first = 0 if count == CASES[kind] else CASES[kind]
    last, ends, faults = first + count, [], []
    while first < last:
        done = subprocess.run(
            [sys.executable, "fuzzing.py", tflite_files, str(first), str(last)],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=600 + count,  # for a process that hangs alone
        )
        for line in done.stdout.splitlines():
            number, _, end = line.partition(" ")
            first = int(number) + 1
            ends.append(end.split()[0] if end.strip() else "CRASH")
            if ends[-1] in ("FAULT", "CRASH"):
                faults.append(f"{line} {done.returncode}")
        assert done.stdout, done.stderr
    assert faults == []
    assert report(kind, count, ends)["right"] > 10


def test_a_sound_file_is_not_refused(tflite_files):
    """Every file that the other tests convert or read is validated in the same way."""
    for path in tflite_files.iterdir():
        check_file(path.read_bytes())
        read_metadata(path.read_bytes())


# --- the command


def lines(rng, files, folder, marker):
    """A command line with a hostile file or flag in it."""
    how = rng.integers(9)
    model, bad = files["model"], folder / "bad"
    if how < 2:
        path = bad.with_suffix(".keras")
        path.write_bytes(keras_file(rng, model.read_bytes(), marker))
        return [["profile", path], ["export", path, "--dataset=nowhere"]][how]
    if how == 2:
        path = bad.with_suffix(".tflite")
        content = files["tflite"][rng.integers(len(files["tflite"]))].read_bytes()
        path.write_bytes(content[: rng.integers(len(content) // 2)])
        return ["bench", path]
    if how < 5:
        path = bad.with_suffix(".npz")
        path.write_bytes(npz(rng, marker))
        return ["export", folder / "none.keras", f"--dataset={path}"]
    if how == 5:
        path = image_folder(rng, folder / f"images{len(list(folder.iterdir()))}")
        return ["export", folder / "none.keras", f"--dataset={path}", "--image_size=8,8"]
    if how == 6:
        path = bad.with_suffix(".h5")
        path.write_bytes(damaged(rng, model.read_bytes()))
        return ["export", path]
    texts = ["", "x", "-1", "nan", "1e400", "²", "9" * 5000, "\0", "=", "a=", "../..", "int3"]
    text = texts[rng.integers(len(texts))]
    flags = ["mode", "layers", "size", "recipe", "dataset", "image_size", "epochs", "max_bytes"]
    command = ["export", "compress", "profile", "bench", "search", "prune"][rng.integers(6)]
    return [command, folder / "none.keras", f"--{flags[rng.integers(len(flags))]}={text}"]


@counts("command")
@pytest.mark.filterwarnings("ignore")
def test_the_command(kind, count, tfnas_command, tmp_path, marker, model_file, tflite_files):
    files = {"model": model_file, "tflite": sorted(tflite_files.glob("*.tflite"))}

    def run(rng):
        line = lines(rng, files, tmp_path, marker)
        code, out, err = tfnas_command(*line)
        assert "Traceback" not in out + err, line
        if code == 0:  # the file is damaged where it does not matter
            assert line[0] == "profile", line
            return "right"
        assert code in (1, 2), line
        assert err.startswith("tfnas"), err
        assert err.count("\n") == 1, err
        assert len(err) < 800 or "(see tfnas" in err, err
        assert "TFNAS_DEBUG" not in err, err  # an unexpected error
        return f"exit {code}"

    found = every(kind, count, run)
    assert found["exit 2"] > count // 2


@pytest.mark.slow
def test_real_processes_fail_with_one_line(tmp_path, marker, tflite_files):
    content = (tflite_files / "float32.tflite").read_bytes()
    files = {
        "cut.tflite": content[: len(content) // 2],
        "pickled.npz": written({"x_train.npy": pickled_npy(marker), "y_train.npy": b""}),
        "cut.keras": b"PK\x03\x04" + bytes(40),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for line in (
        ["bench", "cut.tflite"],
        ["profile", "cut.keras"],
        ["search", "--dataset=pickled.npz", "--directory=run"],
    ):
        done = subprocess.run([COMMAND, *line], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"tfnas {line[0]}: error: ")
        assert done.stderr.count("\n") == 1
