"""Agreement of the predictions of two files."""

import keras
import numpy as np
import pytest
from keras import layers

from tfnas.measure.agreement import PLAIN, MetricPair, agreement, attack, calibration_error


@pytest.fixture(scope="module")
def found(tiny_model, digits, artifacts):
    models = tiny_model, tiny_model
    files = artifacts["float32"], artifacts["int8"]
    return agreement(*files, digits.x_test, digits.y_test, digits.class_names, models)


def test_a_file_agrees_with_itself(artifacts, digits):
    file = artifacts["float32"]
    same = agreement(file, file, digits.x_test, digits.y_test, digits.class_names)
    assert same.changed[0] == same.broke == same.repaired == 0
    assert same.warnings() == []
    assert all(pair.original == pair.small for pair in same.accuracy.values())
    assert same.calibration[0] == same.calibration[1]


def test_known_answers_are_not_computed_again(found, artifacts, digits):
    files = artifacts["float32"], artifacts["int8"]
    known = tuple(file.predict(digits.x_test) for file in files)
    again = agreement(*files, digits.x_test, digits.y_test, digits.class_names, answers=known)
    assert (again.changed, again.classes) == (found.changed, found.classes)
    with pytest.raises(
        ValueError, match="answers must hold one prediction for each of the 3 images, got"
    ):
        agreement(*files, digits.x_test[:3], digits.y_test[:3], answers=known)


def test_counts_are_consistent(found, artifacts, digits):
    answers = [artifacts[m].predict(digits.x_test).argmax(-1) for m in ("float32", "int8")]
    assert found.changed[0] == np.mean(answers[0] != answers[1])
    plain = found.accuracy[PLAIN]
    assert plain.small - plain.original == pytest.approx(
        (found.repaired - found.broke) / len(digits.y_test)
    )
    assert len(found.worst) == found.broke
    assert set(found.classes) == set(digits.class_names)
    own = [(answers[0] == digits.y_test)[digits.y_test == n].mean() for n in range(10)]
    assert [found.classes[name].original for name in digits.class_names] == pytest.approx(own)


def test_attacks_lower_what_the_right_class_gets(found, tiny_model, artifacts, digits):
    name = next(name for name in found.accuracy if name.startswith("attack"))
    assert found.accuracy[name].original <= found.accuracy[PLAIN].original
    rows = np.arange(len(digits.y_test))
    images = digits.x_test.astype(np.float32)
    moved = attack(tiny_model, images, digits.y_test)
    before, after = (artifacts["float32"].predict(x) for x in (images, moved))
    # Few images are near enough to another class to change the answer.
    change = (after - before)[rows, digits.y_test]
    assert (change > 1e-6).mean() < 0.05
    assert change.mean() < 0


def test_an_attack_moves_each_pixel_by_one_step_against_the_class():
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(2, use_bias=False)]
    )
    weights = np.array([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [0.0, 0.0]])
    model.layers[-1].kernel.assign(weights)
    x = np.full((1, 2, 2, 1), 100, np.float32)
    moved = attack(model, x, np.array([0]))
    np.testing.assert_array_equal(moved.reshape(-1), [98, 102, 98, 100])


@pytest.mark.parametrize(
    ("label", "expected"), [(1, [98, 102, 100, 100]), (0, [102, 98, 100, 100])]
)
def test_an_attack_on_one_unit_moves_away_from_the_class(label, expected):
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(1, "sigmoid", use_bias=False)]
    )
    model.layers[-1].kernel.assign([[0.01], [-0.01], [0.0], [0.0]])
    moved = attack(model, np.full((1, 2, 2, 1), 100, np.float32), np.array([label]))
    np.testing.assert_array_equal(moved.reshape(-1), expected)


def test_warnings_list_where_the_small_file_alone_fails(found):
    worse = MetricPair(0.9, 0.5, (-0.4, -0.5, -0.3))
    accuracy = {PLAIN: MetricPair(0.9, 0.89, (-0.01, -0.02, 0.0)), "blur": worse}
    record = type(found)(100, (0.1, 0, 0.2), 1, 0, accuracy, {}, (0, 0), np.array([0]))
    assert record.warnings() == ["accuracy under blur falls by 40.0 points, more than overall"]


def test_calibration_error():
    rng = np.random.default_rng(0)
    certainty = rng.uniform(0.5, 1, 20_000)
    right = rng.random(20_000) < certainty
    answers = np.stack([certainty, 1 - certainty], -1)
    assert calibration_error(answers, np.where(right, 0, 1)) < 0.02
    assert calibration_error(answers, np.zeros(20_000, int)) == pytest.approx(0.25, abs=0.01)
    logits = np.log(answers)
    assert calibration_error(logits, np.where(right, 0, 1)) < 0.02
    single = np.where(right, certainty, 1 - certainty)[:, None]
    assert calibration_error(single, np.ones(20_000, int)) < 0.02
