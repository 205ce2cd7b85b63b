"""The problems of `benchmarks/tasks`: each model takes a step on random arrays of its shapes."""

import inspect
import pathlib

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def labels(rng, shape, classes):
    return rng.integers(0, classes, shape).astype("int32")


def boxes(rng, images):
    low = rng.uniform(0, 0.5, (images, 30, 2))
    kind = rng.integers(-1, 3, (images, 30, 1))  # -1 is padding
    return np.concatenate([kind, low, low + rng.uniform(0.1, 0.4, low.shape)], -1).astype("float32")


def batch(name, examples=4):
    """Random examples of a problem: (x, y) or (x, y, sample_weight)."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=(examples, *shape)).astype("float32")

    if name == "table":
        x = {"size_grade": labels(rng, examples, 8), "largest": normal(9)}
        x |= {"mean": normal(10), "error": normal(10)}
        return x, np.array([[0.0], [1.0], [1.0], [0.0]], "float32"), np.ones(4, "float32")
    if name == "autoencoder":
        image = rng.uniform(size=(examples, 64)).astype("float32")
        return image, image
    if name == "etth1":
        return normal(96, 7), {"oil": normal(24), "load": normal(48)}
    if name == "trec":
        return labels(rng, (examples, 40), 5000), labels(rng, examples, 6)
    if name == "blood_cells":
        return 255 * rng.uniform(size=(examples, 120, 160, 3)), boxes(rng, examples)
    if name == "camvid":
        image = 255 * rng.uniform(size=(examples, 120, 160, 3))
        return image, labels(rng, (examples, 120, 160), 12)  # 11 is void
    shape, classes = {"japanese_vowels": ((32, 12), 9), "spoken_digits": ((8000,), 10)}[name]
    return normal(*shape), labels(rng, examples, classes)


def test_every_problem_has_the_same_functions():
    from benchmarks.tasks import NAMES, problem

    modules = {path.stem for path in (ROOT / "benchmarks" / "tasks").glob("*.py")}
    shared = {"__init__", "boxes", "train", "trained", "training"}
    assert modules - shared == set(NAMES)
    for name in NAMES:
        module = problem(name)
        assert list(inspect.signature(module.quality).parameters) == ["y", "outputs"]
        assert len(inspect.signature(module.data).parameters) == 1
        assert inspect.signature(module.train).parameters["epochs"].default == module.EPOCHS
        assert (module.LIMIT.keys() == {"max_drop"}) == module.HIGHER_IS_BETTER
    with pytest.raises(ValueError, match=r"task must be one of table, .*, got 'tabel'"):
        problem("tabel")


@pytest.mark.parametrize(
    "name",
    [
        "table",
        "autoencoder",
        pytest.param("japanese_vowels", marks=pytest.mark.slow),
        "trec",
        pytest.param("etth1", marks=pytest.mark.slow),
        pytest.param("spoken_digits", marks=pytest.mark.slow),
        pytest.param("blood_cells", marks=pytest.mark.slow),
        pytest.param("camvid", marks=pytest.mark.slow),
    ],
)
def test_a_model_trains_and_is_judged(name):
    from benchmarks.tasks import problem
    from benchmarks.tasks.training import targets

    module, part = problem(name), batch(name)
    model = module.model()
    model.jit_compile = False  # XLA compiles for longer than a step takes
    history = module.train(model, (part, part, part), 1)
    assert np.isfinite(history.history["loss"]).all()
    outputs = model.predict(part[0], verbose=0)
    if hasattr(module, "OUTPUTS"):
        assert outputs.keys() == set(module.OUTPUTS)
    assert np.isfinite(module.quality(targets(part), outputs))
    copy = type(model).from_config(model.get_config())
    assert copy.count_params() == model.count_params()


def test_the_detector_trains_by_its_own_step():
    from benchmarks.tasks import blood_cells

    model = blood_cells.model()
    assert type(model).train_step is not keras.Model.train_step
    assert model.loss is None
    assert keras.saving.get_registered_name(type(model)) == "tfnas_benchmarks>Detector"


def test_boxes_are_decoded_and_judged():
    from benchmarks.tasks import boxes

    scores = np.full((1, 15, 20, 3), -9.0)
    places = np.zeros((1, 15, 20, 4))
    scores[0, 3, 4, 1] = 2.0  # a box of a fifth of the image around the middle of this grid cell
    places[0, 3, 4] = 0.5, 0.5, np.log(2), np.log(2)
    scores[0, 3, 5, 1], places[0, 3, 5] = 1.0, (-0.5, 0.5, np.log(2), np.log(2))  # the same again
    found = boxes.decode({"scores": scores, "boxes": places})
    assert found.shape == (1, 100, 6)
    assert (found[0, :, 0] >= 0).sum() == 1
    middle = np.array([4.5 / 20, 3.5 / 15])
    np.testing.assert_allclose(found[0, 0, 2:], [*(middle - 0.1), *(middle + 0.1)])
    truth = np.full((1, 30, 5), -1.0)
    truth[0, 0] = 1, *(middle - 0.1), *(middle + 0.1)
    assert boxes.mean_average_precision(truth, found, 3) == 1.0
    truth[0, 1] = 0, 0.6, 0.6, 0.9, 0.9  # of another class, never found
    assert boxes.mean_average_precision(truth, found, 3) == 0.5


def test_parts_become_named_arrays():
    from benchmarks.tasks.trained import arrays_of

    arrays = arrays_of((batch("table"),) * 3)
    parts = ("train", "validation", "test")
    names = ("size_grade", "mean", "error", "largest", "y", "sample_weight")
    assert arrays.keys() == {f"{name}_{part}" for name in names for part in parts}
    assert arrays["largest_test"].shape == (4, 9)


def test_void_does_not_count():
    from benchmarks.tasks import camvid

    y = np.array([[[0, 1, 11]]])
    outputs = np.eye(11)[[[[0, 1, 5]]]]
    assert camvid.quality(y, outputs) == 1.0
    assert camvid.quality(y, np.eye(11)[[[[0, 0, 5]]]]) == 0.25  # IoU of 1/2 and of 0


def test_the_area_under_the_curve_counts_ties_half():
    from benchmarks.tasks import table

    y = np.array([[0.0], [1.0], [1.0], [0.0]])
    assert table.quality(y, np.array([[0.1], [0.9], [0.8], [0.2]])) == 1.0
    assert table.quality(y, np.array([[0.1], [0.9], [0.2], [0.2]])) == 0.875
