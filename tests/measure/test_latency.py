"""tfnas.benchmark: structure and arithmetic; no test here depends on real times."""

import dataclasses
import gc

import keras
import numpy as np
import pytest
from scipy.stats import binom

import tfnas
from tfnas.measure import latency
from tfnas.measure.elsewhere.timing_device import TimingPlan
from tfnas.measure.elsewhere.timing_script import Timer, interleaved
from tfnas.measure.latency import median_interval, provenance, reference_artifact

REFERENCE = "ef8d0853e038930d6d91a02e48f2cb3ea25d936ed1069de5570fd25215d78a30"
PLAN = TimingPlan(())
FAST = {"rounds": 6, "warmup": 0, "sample_ms": 0.01}


class FakeTimer:
    """A clock that drifts: the k-th sample of all takes `seconds` times 1 + k / 10."""

    samples = 0

    def __init__(self, seconds, log=None):
        self.seconds, self.log = seconds, log

    def sample(self):
        if self.log is not None:
            self.log.append(self.seconds)
        FakeTimer.samples += 1
        return self.seconds * (1 + FakeTimer.samples / 10)


class FakeInterpreter:
    """A file of ids that takes some of them alone."""

    def __init__(self, accepted):
        self.accepted, self.seen = accepted, []

    def get_input_details(self):
        return [{"index": 0, "shape": (1, 4), "dtype": np.int32, "quantization": (0.0, 0)}]

    def set_tensor(self, _, ids):
        self.ids = set(ids.ravel().tolist())

    def invoke(self):
        self.seen.append(self.ids)
        if not self.ids <= self.accepted:
            raise RuntimeError("data[i] != zero_point was not true")


@pytest.mark.parametrize(
    ("accepted", "last"), [({1, 2}, {1}), ({0}, {0})], ids=["no padding", "a table of one row"]
)
def test_ids_are_those_that_a_file_takes(accepted, last):
    interpreter = FakeInterpreter(accepted)
    assert Timer(interpreter, False, warmup=1, sample_ms=1e-6).sample() > 0
    assert interpreter.seen[-1] == last


@pytest.fixture(scope="module")
def dense():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    return tfnas.to_tflite(model)


def test_reference_never_changes():
    assert reference_artifact().sha256 == REFERENCE
    assert reference_artifact() is reference_artifact()
    assert reference_artifact().inputs[0].shape[1:] == (48, 48, 3)


@pytest.mark.parametrize("n", [3, 5, 6, 7, 10, 29, 30, 31, 100, 1000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_median_interval_has_the_ranks_of_the_binomial(n, confidence):
    tail = (1 - confidence) / 2
    fitting = [r for r in range(1, n // 2 + 1) if binom.cdf(r - 1, n, 0.5) <= tail]
    rank = max(fitting, default=1)
    assert median_interval(np.arange(1, n + 1), confidence) == (rank, n + 1 - rank)
    if fitting:
        assert 1 - 2 * binom.cdf(rank - 1, n, 0.5) >= confidence


def test_median_interval_covers_the_median():
    samples = np.random.default_rng(0).lognormal(size=(2000, 30))
    ends = np.array([median_interval(row) for row in samples])
    covered = ((ends[:, 0] <= 1) & (ends[:, 1] >= 1)).mean()
    assert 0.94 < covered < 0.98  # 0.957 by the binomial distribution


def test_median_interval_is_independent_of_the_order():
    samples = np.random.default_rng(0).normal(size=41)
    assert median_interval(samples) == median_interval(np.sort(samples)[::-1])


def test_rounds_are_interleaved_in_random_order():
    log = []
    timers = [FakeTimer(s, log) for s in (1.0, 2.0, 3.0, 4.0, 5.0)]
    plan = TimingPlan.of(4, 20, seed=0)
    for _, orders in plan.blocks:
        interleaved(timers, orders)
    rounds = np.reshape(log, (20, 6))
    assert (rounds[:, 0] == 1.0).all()  # the reference at both ends
    assert (rounds[:, -1] == 1.0).all()
    assert (np.sort(rounds[:, 1:-1]) == [2, 3, 4, 5]).all()
    assert len({tuple(row) for row in rounds}) > 5


def test_ratios_belong_to_their_files_and_drift_cancels_out():
    found = {}
    for order in ([2.0, 3.0, 5.0], [5.0, 2.0, 3.0]):
        FakeTimer.samples = 1000
        rng = np.random.default_rng(1)
        orders = [1 + rng.permutation(3) for _ in range(30)]
        times = interleaved([FakeTimer(1.0), *map(FakeTimer, order)], orders)
        assert times.shape == (30, 4)
        for i, seconds in enumerate(order, 1):
            summary = latency._summary(times[:, i], times[:, 0], "abc", PLAN)
            assert summary.ratio == pytest.approx(seconds, rel=0.01)
            assert summary.ratio_low <= summary.ratio <= summary.ratio_high
            assert summary.p10_ms <= summary.median_ms <= summary.p90_ms
            assert summary.median_ms == pytest.approx(np.median(times[:, i]) * 1000)
            found.setdefault(seconds, []).append(summary.ratio)
    assert all(a == pytest.approx(b, rel=0.01) for a, b in found.values())


def test_summary_does_not_depend_on_the_order_of_rounds():
    rng = np.random.default_rng(0)
    times, anchor = rng.uniform(1, 2, (2, 30))
    order = rng.permutation(30)
    first = latency._summary(times, anchor, "abc", PLAN)
    assert latency._summary(times[order], anchor[order], "abc", PLAN) == first
    assert first.ratio == np.median(times / anchor)
    assert first.reference_ms == pytest.approx(np.median(anchor) * 1000)


def test_garbage_collection_is_restored():
    class Broken(FakeTimer):
        def sample(self):
            assert not gc.isenabled()
            raise RuntimeError("interpreter")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="interpreter"):
        interleaved([Broken(1.0)], [()] * 3)
    assert gc.isenabled()


def test_one_result_per_file_in_order(dense, artifacts, tmp_path):
    path = dense.save(tmp_path / "dense.tflite")
    results = tfnas.benchmark([artifacts["float32"], path, str(path), artifacts["int8"]], **FAST)
    assert len(results) == 4
    assert {r.reference for r in results} == {REFERENCE}
    assert {(r.rounds, r.threads, r.xnnpack) for r in results} == {(6, 1, True)}
    assert all(0 < r.ratio_low <= r.ratio <= r.ratio_high for r in results)


def test_results_have_the_order_of_the_files(dense, artifacts, monkeypatch):
    files = [artifacts["int8"], dense, artifacts["float32"]]
    seconds = {file.sha256: i for i, file in enumerate([reference_artifact(), *files], 1)}
    monkeypatch.setattr(latency, "_timer", lambda file, _: FakeTimer(seconds[file.sha256]))
    FakeTimer.samples = 10**6
    assert [r.ratio for r in tfnas.benchmark(files)] == pytest.approx([2, 3, 4], rel=1e-3)
    anchored = tfnas.benchmark(files[:1], reference=dense)
    assert anchored[0].reference == dense.sha256
    assert anchored[0].ratio == pytest.approx(2 / 3, rel=1e-3)


def test_single_file_threads_and_delegate(dense):
    [result] = tfnas.benchmark(dense, threads=2, xnnpack=False, **FAST)
    assert (result.threads, result.xnnpack) == (2, False)
    assert f"{result.ratio:.3f}x reference" in str(result)


def test_latency_survives_json(dense):
    [result] = tfnas.benchmark(dense, **FAST)
    record = tfnas.Measurement(dense.size, latency=result, provenance=provenance(data="none"))
    assert tfnas.Measurement.from_json(record.to_json()) == record
    assert all(type(v) in (float, int, str, bool) for v in dataclasses.astuple(result))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"rounds": 5}, "rounds must be a whole number >= 6, got 5"),
        ({"rounds": 6.0}, "rounds must be a whole number >= 6, got 6.0"),
        ({"warmup": -1}, "warmup must be a whole number >= 0, got -1"),
        ({"sample_ms": 0}, "sample_ms must be above 0, got 0"),
        ({"sample_ms": float("nan")}, "sample_ms must be above 0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_arguments_are_checked(dense, arguments, match):
    with pytest.raises(ValueError, match=match):
        tfnas.benchmark(dense, **{**FAST, **arguments})


def test_files_are_checked(tmp_path):
    with pytest.raises(ValueError, match="at least one file"):
        tfnas.benchmark([])
    with pytest.raises(ValueError, match=r"one list of files, got 2 arguments: .*\(\[a, b\]\)"):
        tfnas.benchmark("a.tflite", "b.tflite")
    for wrong in (None, [3]):
        with pytest.raises(ValueError, match=r"each a tfnas.Artifact or a path, got (None|int)"):
            tfnas.benchmark(wrong)
    (tmp_path / "x.tflite").write_text("nothing of the kind, really")
    with pytest.raises(ValueError, match=r"x.tflite' must be a .tflite file"):
        tfnas.benchmark(tmp_path / "x.tflite")
    with pytest.raises(FileNotFoundError, match=r"absent.tflite"):
        tfnas.benchmark(tmp_path / "absent.tflite")


def test_provenance():
    found = provenance(dataset="digits")
    expected = (
        "cpu cores system python tfnas tensorflow keras ai-edge-litert keras-tuner numpy dataset"
    )
    assert set(found) == set(expected.split())
    assert found["dataset"] == "digits"
    assert found["numpy"] == np.__version__
    assert found["keras"] == keras.__version__
    assert found["cpu"]
