"""Schedules against the paper's formula, and against tensorflow-model-optimization itself."""

import doctest
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas import legacy, schedules
from tfnas.schedules import Schedule, as_schedule, check_ratio, constant, polynomial

NAN, INF = float("nan"), float("inf")
SETTINGS = settings(max_examples=100, deadline=None)


def zhu_gupta(t, final, initial, begin, end, power):
    """Equation (1) of Zhu and Gupta 2017, with a free exponent."""
    if t < begin:
        return 0.0
    if t >= end:
        return final
    return final + (initial - final) * (1 - (t - begin) / (end - begin)) ** power


def python(code, timeout=300):
    env = {name: v for name, v in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, env=env
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_examples_are_true():
    result = doctest.testmod(schedules)
    assert result.attempted >= 6
    assert result.failed == 0


def test_constant_is_0_before_begin():
    assert [constant(0.3)(p) for p in (0, 1, 10**9)] == [0.3] * 3
    schedule = constant(0.3, begin=5, by="step", frequency=7)
    assert [schedule(p) for p in (0, 4, 5, 6, 1000)] == [0, 0, 0.3, 0.3, 0.3]
    assert (schedule.unit, schedule.begin, schedule.end, schedule.frequency) == ("step", 5, 5, 7)
    assert constant(0)(3) == 0.0


@SETTINGS
@given(
    final=st.floats(0, 0.999),
    initial=st.floats(0, 0.999),
    begin=st.integers(0, 20),
    length=st.integers(0, 50),
    power=st.floats(0.5, 6),
    by=st.sampled_from(["epoch", "step"]),
    position=st.integers(0, 100),
)
def test_polynomial_is_the_formula_of_the_paper(final, initial, begin, length, power, by, position):
    end = begin + length
    schedule = polynomial(
        final, end, initial_sparsity=initial, begin=begin, power=power, by=by, frequency=1
    )
    expected = zhu_gupta(position, final, initial, begin, end, power)
    assert schedule(position) == pytest.approx(expected, abs=1e-12)


def test_polynomial_of_power_1_is_linear_and_falls_where_the_final_sparsity_is_lower():
    rise = polynomial(0.8, end=4, power=1)
    np.testing.assert_allclose([rise(t) for t in range(6)], [0, 0.2, 0.4, 0.6, 0.8, 0.8])
    fall = polynomial(0.1, end=4, initial_sparsity=0.5, power=1)
    np.testing.assert_allclose([fall(t) for t in range(6)], [0.5, 0.4, 0.3, 0.2, 0.1, 0.1])


def test_polynomial_with_equal_begin_and_end_jumps_there():
    schedule = polynomial(0.6, end=3, begin=3)
    assert [schedule(t) for t in (0, 2, 3, 4)] == [0, 0, 0.6, 0.6]


def test_the_default_frequency_is_100_steps_or_one_epoch():
    assert polynomial(0.5, 10).frequency == 1
    assert polynomial(0.5, 4000, by="step").frequency == 100
    assert polynomial(0.5, 210, begin=10, by="step").frequency == 10  # about 20 updates
    assert polynomial(0.5, 10, by="step", frequency=3).frequency == 3


@SETTINGS
@given(
    begin=st.integers(0, 30),
    length=st.none() | st.integers(0, 60),
    every=st.integers(1, 40),
    position=st.integers(0, 200),
)
def test_the_last_update_is_the_last_multiple_of_the_frequency_or_the_end(
    begin, length, every, position
):
    end = None if length is None else begin + length
    schedule = Schedule(lambda p: 0.5, begin=begin, end=end, frequency=every)
    position = max(position, begin)
    points = set(range(begin, 300, every))
    if end is not None:
        points = {p for p in points if p < end} | {end}
    assert schedule.last_update(position) == max(p for p in points if p <= position)


@SETTINGS
@given(
    final=st.floats(0, 0.99),
    begin=st.integers(0, 10),
    length=st.integers(0, 50),
    every=st.integers(1, 70),
)
def test_the_final_sparsity_is_reached_where_the_frequency_steps_over_the_end(
    final, begin, length, every
):
    end = begin + length
    schedule = polynomial(final, end, begin=begin, by="step", frequency=every)
    assert schedule(end) == final
    assert schedule(end + 1) == final
    assert schedule.last_update(end + every) == end


def test_between_updates_the_sparsity_is_constant():
    schedule = polynomial(0.8, 10, power=1, by="step", frequency=4)
    ratios = [schedule(step) for step in range(12)]
    np.testing.assert_allclose(ratios, [0] * 4 + [0.32] * 4 + [0.64] * 2 + [0.8] * 2)


def test_a_function_of_the_epoch_is_a_schedule():
    schedule = as_schedule(lambda epoch: 0 if epoch < 5 else 0.5 if epoch < 10 else 0.8)
    assert [schedule(e) for e in (0, 4, 5, 9, 10, 99)] == [0, 0, 0.5, 0.5, 0.8, 0.8]
    assert (schedule.unit, schedule.begin, schedule.end, schedule.frequency) == (
        "epoch",
        0,
        None,
        1,
    )
    assert all(type(schedule(epoch)) is float for epoch in (0, 5))


def test_numbers_functions_and_schedules_become_a_schedule():
    schedule = polynomial(0.5, 3)
    assert as_schedule(schedule) is schedule
    assert as_schedule(0.25)(0) == 0.25
    assert as_schedule(np.float32(0.25))(7) == 0.25
    assert as_schedule(lambda epoch: np.float32(0.25))(7) == 0.25

    class Callable:
        def __call__(self, epoch):
            return 0.1 * epoch

    assert as_schedule(Callable())(3) == pytest.approx(0.3)


def test_the_frequency_argument_replaces_the_schedules_own():
    schedule = as_schedule(polynomial(0.8, 100, by="step"), frequency=7)
    assert (schedule.frequency, schedule.end, schedule.unit) == (7, 100, "step")
    by_epoch = as_schedule(lambda epoch: epoch / 10, frequency=3)
    np.testing.assert_allclose([by_epoch(e) for e in range(7)], [0, 0, 0, 0.3, 0.3, 0.3, 0.6])


def test_the_peak_is_the_highest_sparsity():
    assert polynomial(0.8, 10).peak(None) == 0.8
    assert polynomial(0.1, 10, initial_sparsity=0.6).peak(None) == 0.6
    assert constant(0.4, begin=3).peak(None) == 0.4
    hat = as_schedule(lambda epoch: 0.7 if epoch == 5 else 0.1)
    assert hat.peak(10) == 0.7
    assert hat.peak(5) == 0.1
    assert hat.peak(0) == 0.0
    assert hat.peak(None) is None


@pytest.mark.parametrize("wrong", [1.0, -0.1, 1.5, NAN, INF, None, "half"])
def test_a_function_that_returns_no_sparsity_raises_at_its_epoch(wrong):
    schedule = as_schedule(lambda epoch: wrong if epoch == 3 else 0.1)
    assert schedule(2) == 0.1
    with pytest.raises(ValueError, match=r"^sparsity must be .*\[0, 1\) at epoch 3, got "):
        schedule(3)
    with pytest.raises(ValueError, match="at epoch 3, got"):
        schedule.peak(5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: constant(1.0), r"target_sparsity must be in [0, 1), got 1.0"),
        (lambda: constant(-0.1), r"target_sparsity must be in [0, 1), got -0.1"),
        (lambda: constant(NAN), r"target_sparsity must be in [0, 1), got nan"),
        (lambda: constant("most"), r"target_sparsity must be a number in [0, 1), got 'most'"),
        (lambda: as_schedule(None), r"schedule must be a number in [0, 1), got None"),
        (lambda: as_schedule(1.5), r"schedule must be in [0, 1), got 1.5"),
        (lambda: polynomial(1.0, 5), r"final_sparsity must be in [0, 1), got 1.0"),
        (lambda: polynomial(NAN, 5), r"final_sparsity must be in [0, 1), got nan"),
        (
            lambda: polynomial(0.5, 5, initial_sparsity=1),
            r"initial_sparsity must be in [0, 1), got 1.0",
        ),
        (lambda: polynomial(0.5, 5, power=0), "power must be above 0, got 0"),
        (lambda: polynomial(0.5, 5, power=NAN), "power must be above 0, got nan"),
        (lambda: polynomial(0.5, 5, power=INF), "power must be above 0, got inf"),
        (lambda: polynomial(0.5, 5, begin=6), "end must not be before begin 6, got 5"),
        (lambda: polynomial(0.5, 5.5), "end must be a whole number from 0 on, got 5.5"),
        (lambda: polynomial(0.5, -5), "end must be a whole number from 0 on, got -5"),
        (lambda: polynomial(0.5, INF), "end must be a whole number from 0 on, got inf"),
        (lambda: polynomial(0.5, NAN), "end must be a whole number from 0 on, got nan"),
        (lambda: constant(0.5, begin=-1), "begin must be a whole number from 0 on, got -1"),
        (lambda: constant(0.5, begin=1.5), "begin must be a whole number from 0 on, got 1.5"),
        (lambda: constant(0.5, begin=True), "begin must be a whole number from 0 on, got True"),
        (lambda: constant(0.5, by="batch"), "by must be one of epoch, step, got 'batch'"),
        (lambda: constant(0.5, frequency=0), "frequency must be a whole number above 0, got 0"),
        (lambda: as_schedule(0.5, 1.5), "frequency must be a whole number above 0, got 1.5"),
        (lambda: as_schedule(0.5, -2), "frequency must be a whole number above 0, got -2"),
        (lambda: as_schedule(0.5, INF), "frequency must be a whole number above 0, got inf"),
    ],
)
def test_errors_name_argument_rule_and_value(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


@SETTINGS
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_ratio_outside_0_to_1_raises(value):
    if 0 <= value < 1:
        assert check_ratio(value) == value
    else:
        with pytest.raises(ValueError, match="ratio must be in"):
            check_ratio(value)


def test_schedules_import_no_tensorflow():
    python(
        "import sys\n"
        "from tfnas import schedules\n"
        "schedules.as_schedule(lambda epoch: 0.5)(3)\n"
        "schedules.as_schedule(schedules.polynomial(0.5, 4))\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'tensorflow_model_optimization', 'numpy'}\n"
        "assert not heavy & {name.split('.')[0] for name in sys.modules}\n"
    )


def test_a_tfmot_schedule_is_recognized_without_importing_tfmot():
    python(
        "import sys, types\n"
        "from tfnas.schedules import as_schedule\n"
        "module = 'tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule'\n"
        "base = type('PruningSchedule', (), {'__module__': module})\n"
        "class Own(base):\n"
        "    begin_step, end_step, frequency = 10, -1, 5\n"
        "    def __call__(self, step):\n"
        "        return step % 5 == 0, 0.75\n"
        "found = as_schedule(Own())\n"
        "assert (found.unit, found.begin, found.frequency) == ('step', 10, 5)\n"
        "assert [found(step) for step in (9, 10, 99)] == [0.0, 0.75, 0.75]\n"
        "assert as_schedule(Own(), frequency=50).frequency == 50\n"
        "assert not any('tensorflow' in name for name in sys.modules)\n"
    )


TFMOT = """
from tfnas.schedules import as_schedule, constant, polynomial

sparsity = tfmot.sparsity.keras
CASES = [(0, 0.8, 0, 10, 3), (0.3, 0.9, 5, 42, 1), (0.5, 0.5, 2, 9, 3)]
for initial, final, begin, end, power in CASES:
    theirs = sparsity.PolynomialDecay(initial, final, begin, end, power=power, frequency=1)
    ours = polynomial(
        final, end, initial_sparsity=initial, begin=begin, power=power, by="step", frequency=1
    )
    read = as_schedule(theirs)
    assert (read.unit, read.begin, read.end, read.frequency) == ("step", begin, end, 1)
    for step in range(begin, end + 20):
        expected = float(theirs(step)[1])
        assert abs(ours(step) - expected) < 1e-6, (step, ours(step), expected)
        assert abs(read(step) - expected) < 1e-12
for begin, end in [(0, -1), (7, -1), (7, 20)]:
    theirs = sparsity.ConstantSparsity(0.625, begin, end, frequency=4)
    read = as_schedule(theirs)
    assert (read.unit, read.begin, read.frequency) == ("step", begin, 4)
    ours = constant(0.625, begin, by="step", frequency=4)
    assert [read(step) for step in range(40)] == [ours(step) for step in range(40)]
    assert read.peak(None) == 0.625
assert as_schedule(sparsity.PolynomialDecay(0, 0.5, 0, 250)).frequency == 100
assert as_schedule(sparsity.PolynomialDecay(0, 0.5, 0, 250), frequency=7).frequency == 7
"""
TFMOT_IN_KERAS_3 = """
# 8 steps an epoch, 3 epochs; tfmot's frequency of 10 steps over its end at 15.
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(16), keras.layers.Dense(4)])
model.compile("adam", "mse")
pruning = tfnas.PruningCallback(sparsity.PolynomialDecay(0.25, 0.75, 3, 15, frequency=10))
sparsities = []

class RecordSparsity(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        sparsities.append(pruning.report.sparsity)

x = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
model.fit(x, x[:, :4], batch_size=8, epochs=3, verbose=0, callbacks=[pruning, RecordSparsity()])
middle = 0.75 - 0.5 * (1 - 10 / 12) ** 3
middle = (round(256 * middle) + round(64 * middle)) / 320
expected = [0.0] * 3 + [0.25] * 10 + [middle] * 2 + [0.75] * 9
assert np.allclose(sparsities, expected, atol=1e-6), sparsities
print("as tfmot's")
"""


def test_tfmot_schedules_are_read_as_tfmot_reads_them():
    pytest.importorskip("tensorflow_model_optimization")
    exec(TFMOT, {"tfmot": legacy.tfmot()})


@pytest.mark.slow  # a process that loads tfmot, where a user imports it
def test_tfmot_schedules_prune_in_keras_3():
    imports = (
        "import keras, tfnas\nimport numpy as np\nimport tensorflow_model_optimization as tfmot\n"
    )
    assert python(imports + TFMOT + TFMOT_IN_KERAS_3).strip().endswith("as tfmot's")


def test_a_custom_subclass_of_tfmots_schedule_is_read_or_raises_by_name():
    # tfmot requires only __call__ and get_config of a schedule: there may be no begin_step.
    module = "tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule"
    base = type("PruningSchedule", (), {"__module__": module})
    own = type("Own", (base,), {"__call__": lambda self, step: (True, 0.5)})
    try:
        found = as_schedule(own())
    except ValueError as error:
        assert "schedule must" in str(error)  # noqa: PT017
    else:
        assert found(3) == 0.5
