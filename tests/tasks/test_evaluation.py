"""tfnas.evaluate: paths, streams, groups, a baseline, further metrics."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn import metrics as sk

import tfnas
from tfnas.tasks.metrics import mean_average_precision


@pytest.fixture(scope="module")
def classifier():
    """(file, smaller file, x, y, speakers) of a softmax over three classes."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, "softmax")])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)).astype(np.float32)
    y = model.predict(x, verbose=0).argmax(1)
    wrong = rng.random(300) < 0.2
    y = np.where(wrong, rng.integers(0, 3, 300), y)
    other = keras.models.clone_model(model)
    other.set_weights([0.6 * w + 0.3 * rng.normal(size=w.shape) for w in model.get_weights()])
    return (*map(tfnas.to_tflite, (model, other)), x, y, np.array(["ann", "bob", "eve"] * 100))


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y, size):
        super().__init__()
        self.x, self.y, self.size = x, y, size

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, index):
        part = slice(index * self.size, (index + 1) * self.size)
        return self.x[part], self.y[part]


def test_a_path_is_as_the_file(classifier, tmp_path):
    file, _, x, y, _ = classifier
    path = file.save(tmp_path / "net.tflite")
    for given in (path, str(path)):
        assert tfnas.evaluate(given, x, y) == tfnas.evaluate(file, x, y)
    with pytest.raises(FileNotFoundError):
        tfnas.evaluate(tmp_path / "other.tflite", x, y)


@pytest.mark.parametrize("metric", ["accuracy", "auc", "top_2", "f1", "calibration_error"])
def test_streams_give_what_arrays_give(classifier, metric):
    file, _, x, y, _ = classifier
    expected = tfnas.evaluate(file, x, y, metric)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    for given in ((data,), (Batches(x, y, 7),), (data.map(lambda a, b: a), y)):
        found = tfnas.evaluate(file, *given, metric=metric)
        assert found.examples == 300
        assert found.value == pytest.approx(expected.value, abs=1e-6)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_streams_that_do_not_fit(classifier):
    file, _, x, y, _ = classifier
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    with pytest.raises(ValueError, match="x must end, got an endless data set"):
        tfnas.evaluate(file, data.repeat())
    with pytest.raises(ValueError, match="x must hold at least one example, got none"):
        tfnas.evaluate(file, data.take(0))
    with pytest.raises(ValueError, match="y must hold the targets, got None"):
        tfnas.evaluate(file, data.map(lambda a, b: a))
    with pytest.raises(ValueError, match=r"y must hold one target per example, got targets \(9,\)"):
        tfnas.evaluate(file, data, y[:9], "mse")


def test_targets_that_do_not_fit_the_frames_of_a_stream():
    model = keras.Sequential([keras.Input((5, 3)), layers.SimpleRNN(2, return_sequences=True)])
    file = tfnas.to_tflite(model, streaming=True)
    x = np.zeros((4, 5, 3), np.float32)
    rule = r"\(the file is a stream with an output for each of 5 frames: .*, \(4, 5, \.\.\.\)\)"
    for y in (np.zeros((4, 2)), np.zeros((4, 3, 2))):
        with pytest.raises(ValueError, match=rule):
            tfnas.evaluate(file, x, y, "mse")
    with pytest.raises(ValueError, match=r"\(20, 2\) and 4 inputs: .*, y\.reshape\(4, 5, \.\.\.\)"):
        tfnas.evaluate(file, x, np.zeros((20, 2)), "mse")


def test_targets_of_frames_of_a_stream_with_one_output():
    model = keras.Sequential([keras.Input((5, 3)), layers.SimpleRNN(4), layers.Dense(2, "softmax")])
    file = tfnas.to_tflite(model, streaming=True)
    rule = r"\(the file is a stream with an output after the last frame: .*, \(4, \.\.\.\)\)"
    with pytest.raises(ValueError, match=rule):
        tfnas.evaluate(file, np.zeros((4, 5, 3), np.float32), np.zeros((4, 5), int))


def test_several_metrics_of_one_output(classifier):
    file, _, x, y, _ = classifier
    found = tfnas.evaluate(file, x, y, ["accuracy", "calibration_error", tfnas.metrics.top_k(2)])
    assert [*found] == ["accuracy", "calibration error", "top-2 accuracy"]
    answers = file.predict(x)
    assert found["accuracy"] == tfnas.evaluate(file, x, y)
    expected = sk.top_k_accuracy_score(y, answers, k=2)
    assert found["top-2 accuracy"].value == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least one metric, got none"):
        tfnas.evaluate(file, x, y, [])


def test_groups_by_a_column(classifier):
    file, _, x, y, speakers = classifier
    found = tfnas.evaluate(file, x, y, groups=speakers)
    assert found.score == tfnas.evaluate(file, x, y)
    assert [*found.groups] == ["ann", "bob", "eve"]
    for name, score in found.groups.items():
        part = speakers == name
        assert score == tfnas.evaluate(file, x[part], y[part])
    values = {name: score.value for name, score in found.groups.items()}
    assert found.worst == min(values, key=values.get)
    assert found.spread == pytest.approx(max(values.values()) - min(values.values()))
    assert f"worst {found.worst}" in str(found)


def test_groups_by_class_are_recalls(classifier):
    file, _, x, y, _ = classifier
    answers = file.predict(x).argmax(1)
    for form in (y, np.eye(3)[y]):
        found = tfnas.evaluate(file, x, form, groups="class")
        own = [found.groups[name].value for name in ("0", "1", "2")]
        assert own == pytest.approx(list(sk.recall_score(y, answers, average=None)))


def test_the_worst_group_of_an_error_is_the_largest():
    file, x, y = regression()
    found = tfnas.evaluate(file, x, y, "mse", groups=np.arange(40) % 2)
    assert found.groups[found.worst].value == max(s.value for s in found.groups.values())


def regression():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    x, y = np.random.default_rng(0).normal(size=(2, 40, 4)).astype(np.float32)
    return tfnas.to_tflite(model), x, y[:, 0]


def test_a_baseline_shows_who_lost_most(classifier):
    file, other, x, y, _ = classifier
    right = [each.predict(x).argmax(1) == y for each in (other, file)]
    # Those that the other file has wrong are one group.
    group = np.where(right[1] & ~right[0], "hurt", "rest")
    found = tfnas.evaluate(other, x, y, groups=group, baseline=file)
    assert found.difference[0] == pytest.approx(right[0].mean() - right[1].mean())
    assert found.differences["hurt"][0] == -1
    [warning] = found.warnings()
    assert warning == "hurt loses 100.00 points of accuracy, more than overall"
    assert warning in str(found)
    alone = tfnas.evaluate(other, x, y, baseline=file)
    assert (alone.difference, alone.groups, alone.worst) == (found.difference, {}, None)


def test_a_baseline_of_a_metric_that_is_no_mean(classifier):
    file, other, x, y, speakers = classifier
    found = tfnas.evaluate(other, x, y, "f1", groups=speakers, baseline=file)
    values = [sk.f1_score(y, each.predict(x).argmax(1), average="macro") for each in (other, file)]
    assert found.difference[0] == pytest.approx(values[0] - values[1])
    assert found.difference[1] <= found.difference[0] <= found.difference[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"groups": ["a", "b"]},
            r"groups must hold a group for each of 300 examples, .* got \(2,\)",
        ),
        (
            {"groups": "speaker"},
            "groups must be a group for each example or 'class', got 'speaker'",
        ),
        (
            {"groups": "class", "metric": lambda y, p: 0.5},
            "higher is better where there are groups or a baseline, got '<lambda>': wrap it",
        ),
        ({"metric": tfnas.Metric("own")}, "metric 'own' must have values, got None"),
        ({"metric": "acuracy"}, "did you mean 'accuracy'"),
        (
            {"metric": tfnas.Metric("own", values=lambda y, p: p)},
            "values of metric 'own' must return one value for each example",
        ),
    ],
)
def test_arguments_that_do_not_fit(classifier, arguments, message):
    file, _, x, y, _ = classifier
    with pytest.raises(ValueError, match=message):
        tfnas.evaluate(file, x, y, **arguments)


def test_an_own_metric_and_objects_of_keras(classifier):
    file, _, x, y, _ = classifier
    answers = file.predict(x)
    own = tfnas.Metric("sure", values=lambda y, p: p[np.arange(len(y)), y])
    found = tfnas.evaluate(file, x, y, own)
    assert found.value == pytest.approx(answers[np.arange(300), y].mean())
    loss = keras.losses.SparseCategoricalCrossentropy()
    found = tfnas.evaluate(file, x, y, loss)
    assert found.value == pytest.approx(float(loss(y, answers)), rel=1e-4)
    found = tfnas.evaluate(file, x, np.eye(3)[y], keras.metrics.AUC(multi_label=True))
    assert found.value == pytest.approx(sk.roc_auc_score(np.eye(3)[y], answers))


def test_an_autoencoder_needs_no_targets():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(5)])
    file, x = tfnas.to_tflite(model), np.random.default_rng(0).normal(size=(20, 5))
    found = tfnas.evaluate(file, x, metric="reconstruction_error")
    assert found.value == pytest.approx(np.mean((x - file.predict(x)) ** 2))


def test_boxes_are_decoded_by_postprocess():
    model = keras.Sequential([keras.Input((4,)), layers.Identity()])
    file = tfnas.to_tflite(model)
    boxes = np.array([[0, 0, 9, 9], [2, 2, 8, 8], [0, 0, 4, 4]], np.float32)

    def decode(outputs):
        sure = np.tile(np.float32([0, 0.9]), (len(outputs), 1))
        return np.concatenate([sure, outputs], axis=1)[:, None]

    y = np.concatenate([np.zeros((3, 1)), boxes], axis=1)[:, None]
    y[2, 0, 1:] += 50
    found = tfnas.evaluate(file, boxes, y, mean_average_precision(), postprocess=decode)
    assert found.name == "mAP@0.5"
    assert 0.5 < found.value < 1


def test_outputs_in_groups():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(2)(inputs)])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), [rng.integers(0, 3, 60), rng.normal(size=(60, 2))]
    file = tfnas.to_tflite(model)
    wanted = {"output_1": "mse", "output_0": "accuracy"}
    found = tfnas.evaluate(file, x, y, wanted, groups=np.arange(60) % 2)
    alone = tfnas.evaluate(file, x, y, wanted)
    assert [*found] == [*alone] == ["output_1", "output_0"]
    assert {name: each.score for name, each in found.items()} == alone
    assert [*found["output_0"].groups] == ["0", "1"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.where(np.arange(300) == 7, np.nan, 1.0), "got NaN in example 7"),
        (np.array([None, "a"] * 150, object), "groups must be of one kind, got NoneType, str"),
    ],
)
def test_groups_that_are_no_names_are_refused(classifier, groups, message):
    file, _, x, y, _ = classifier
    with pytest.raises(ValueError, match=message):
        tfnas.evaluate(file, x, y, groups=groups)


def test_single_examples_are_refused_with_the_way_out(classifier):
    file, _, x, y, _ = classifier
    single = tf.data.Dataset.from_tensor_slices((x, y))
    with pytest.raises(ValueError, match=r"shapes \(6,\), \(\): .* put in batches by its batch"):
        tfnas.evaluate(file, single)


def test_a_file_of_one_frame_gets_whole_sequences():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 3), name="frames")
    steps = layers.GRU(4, return_sequences=True)(inputs)
    outputs = {"each": layers.Dense(1)(steps), "last": layers.Dense(3)(layers.GRU(4)(steps))}
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).normal(size=(20, 5, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    file = tfnas.to_tflite(model, streaming=True)
    y = {"each": np.zeros((20, 5, 1)), "last": np.arange(20) % 3}
    found = tfnas.evaluate(file, x, y, {"each": "mse", "last": "accuracy"})
    right = (expected["last"].argmax(1) == y["last"]).mean()
    assert found["last"].value == pytest.approx(right)
    assert found["each"].value == pytest.approx(np.square(expected["each"]).mean(), rel=1e-4)
    with pytest.raises(ValueError, match=r"x must have the shape \(examples, .*, 3\)"):
        tfnas.evaluate(file, x[..., :2], y, {"each": "mse", "last": "accuracy"})
