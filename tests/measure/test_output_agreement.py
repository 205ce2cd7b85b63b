"""Agreement of files whose outputs are numbers, and of classes of any examples."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.data.examples import Examples
from tfnas.measure.agreement import PLAIN, agreement, class_agreement
from tfnas.measure.output_agreement import output_agreement


class Recorded:
    """Stands for a file: outputs that were recorded, looked up by the inputs' numbers."""

    def __init__(self, *outputs, names=("a", "b")):
        self.recorded = outputs
        self.outputs = [type("Tensor", (), {"name": name}) for name in names[: len(outputs)]]

    def predict(self, x):
        found = [each[x] for each in self.recorded]
        return found if len(found) > 1 else found[0]


def numbers(count):
    return Examples(np.arange(count), np.zeros(count))


def test_errors_by_output_and_the_worst_examples():
    rng = np.random.default_rng(0)
    one, two = rng.normal(3, 2, (700, 4)), rng.normal(-1, 0.5, (700, 2, 3))
    noise = rng.normal(0, 0.02, one.shape)
    noise[[13, 500]] += [[3.0], [1.5]]
    found = output_agreement(Recorded(one, two), Recorded(one + noise, two), numbers(700))
    first, second = found.outputs
    assert (found.examples, first.name, second.name) == (700, "a", "b")
    spread = np.sqrt(one.var(axis=0).mean())
    assert first.spread == pytest.approx(spread)
    assert first.rms == pytest.approx(np.sqrt(np.square(noise).mean()))
    assert first.relative == pytest.approx(first.rms / spread)
    assert first.largest == pytest.approx(abs(noise).max())
    assert (second.rms, second.relative, second.largest, second.changed) == (0, 0, 0, 0)
    assert found.changed[0] == first.changed == 2 / 700
    assert found.worst[:2].tolist() == [13, 500]
    assert len(found.worst) == len(found.changes) == 12
    assert found.changes[0] == pytest.approx(np.sqrt(np.square(noise[13]).mean()) / spread)
    assert found.warnings() == []


def test_the_tolerance_is_of_the_spread_whatever_the_unit():
    rng = np.random.default_rng(1)
    old = rng.normal(size=(100, 1))
    new = old + np.where(np.arange(100) < 30, 0.2, 0.01)[:, None]
    for unit, offset in ((1.0, 0.0), (1e6, 0.0), (1.0, 1e4)):
        files = (Recorded(unit * each + offset) for each in (old, new))
        found = output_agreement(*files, numbers(100))
        assert found.changed[0] == 0.3
    assert found.warnings() == [
        "30.0% of the answers change by more than 10% of the outputs' spread",
        f"output a is off by {100 * found.outputs[0].relative:.1f}% of its spread",
    ]
    tolerant = output_agreement(Recorded(old), Recorded(new), numbers(100), tolerance=0.5)
    assert (tolerant.changed[0], tolerant.warnings()) == (0, [])


def test_an_output_that_never_changes_is_compared_with_its_size():
    old, new = np.full((10, 2), 4.0), np.full((10, 2), 5.0)
    [found] = output_agreement(Recorded(old), Recorded(new), numbers(10)).outputs
    assert (found.spread, found.relative) == (0, 0.25)


def test_what_can_not_be_compared_is_named():
    files = Recorded(np.zeros((4, 2))), Recorded(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"small must have the outputs of original, \[\(4, 2\)\]"):
        output_agreement(*files, numbers(4))
    with pytest.raises(ValueError, match="tolerance must be a finite number above 0, got 0"):
        output_agreement(files[0], files[0], numbers(4), tolerance=0)
    with pytest.raises(ValueError, match="examples must hold at least one example, got none"):
        output_agreement(files[0], files[0], numbers(0))


def test_files_agree_with_themselves_and_less_with_integers():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = layers.Dense(16, "relu")(inputs)
    model = keras.Model(inputs, [layers.Dense(2)(hidden), layers.Dense(1)(hidden)])
    x = np.random.default_rng(0).normal(size=(600, 6)).astype("float32")
    exact, coarse = tfnas.to_tflite(model), tfnas.to_tflite(model, "int8", x[:200])
    examples = Examples(x, x)
    same = output_agreement(exact, exact, examples)
    assert (same.changed[0], len(same.worst), same.warnings()) == (0, 0, [])
    found = output_agreement(exact, coarse, examples)
    assert [each.name for each in found.outputs] == [each.name for each in exact.outputs]
    assert all(0 < each.relative < 0.1 for each in found.outputs)
    before, after = exact.predict(x), coarse.predict(x)
    parts = [
        np.sqrt(np.square(old - new).mean(axis=1)) / np.sqrt(old.var(axis=0).mean())
        for old, new in zip(before, after, strict=True)
    ]
    assert found.worst[0] == np.argmax(np.max(parts, axis=0))


def test_classes_of_any_examples(artifacts, digits):
    files, names = (artifacts["float32"], artifacts["int8"]), digits.class_names
    expected = agreement(*files, digits.x_test, digits.y_test, names)
    for y in (digits.y_test, digits.y_test[:, None], np.eye(10)[digits.y_test]):
        found = class_agreement(*files, Examples(digits.x_test, y), names)
        assert (found.changed, found.broke, found.repaired) == (
            *(expected.changed, expected.broke, expected.repaired),
        )
        assert found.accuracy == {PLAIN: expected.accuracy[PLAIN]}
        assert (found.classes, found.calibration) == (expected.classes, expected.calibration)
        assert found.worst.tolist() == expected.worst.tolist()


def test_classes_of_one_unit_of_logits():
    y = np.array([0, 1, 1, 0])
    old = Recorded(np.array([[-2.0], [0.2], [3.0], [-0.1]]))
    new = Recorded(np.array([[-2.0], [-0.2], [3.0], [-0.1]]))
    found = class_agreement(old, new, Examples(np.arange(4), y), from_logits=True)
    assert (found.changed[0], found.broke, found.repaired) == (0.25, 1, 0)
    assert found.worst.tolist() == [1]
    three = Recorded(np.zeros((4, 2, 2)))
    with pytest.raises(ValueError, match=r"files must give scores of classes, .* got \(4, 2, 2\)"):
        class_agreement(three, three, Examples(np.arange(4), y))
