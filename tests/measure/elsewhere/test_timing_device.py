"""What all devices share: plans, texts, retries, and the script that is sent to other machines."""

import ast
import functools
import inspect

import numpy as np
import pytest
from fake_device import FakeDevice

import tfnas
from tfnas.measure.elsewhere import timing_device as module
from tfnas.measure.elsewhere import timing_script
from tfnas.measure.elsewhere.named_device import device_identity
from tfnas.measure.elsewhere.timing_device import DeviceLost, TimingPlan
from tfnas.measure.latency import reference_artifact


def test_a_plan_has_each_file_in_each_round_and_is_drawn_by_the_seed():
    plan = TimingPlan.of(3, 40, seed=1)
    assert plan.rounds == 40
    assert all(sorted(created) == [0, 1, 2, 3] for created, _ in plan.blocks)
    orders = [order for _, rounds in plan.blocks for order in rounds]
    assert all(sorted(order) == [1, 2, 3] for order in orders)
    assert len(set(orders)) > 3
    assert plan == TimingPlan.of(3, 40, seed=1) != TimingPlan.of(3, 40, seed=2)


def test_the_script_runs_on_old_pythons_and_imports_no_tfnas():
    tree = ast.parse(inspect.getsource(timing_script), feature_version=(3, 7))
    imported = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    imported += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    assert not [name for name in imported if name.split(".")[0] in ("tfnas", "ai_edge_litert")]


def test_a_benchmark_on_a_device_is_a_ratio_to_the_reference_on_that_device():
    device, file = FakeDevice(), reference_artifact()
    options = {"threads": 2, "sample_ms": 2.5}
    first, second = tfnas.benchmark([file, file], rounds=8, measure_on=device, **options)
    assert (first.ratio, second.ratio) == (2, 3)
    assert (first.median_ms, first.reference_ms) == (2, 1)
    assert (first.device, first.threads, first.rounds) == ("fake:1: a fake device", 2, 8)
    assert str(first) == "2 ms, 2.000x reference [2.000, 2.000] on fake:1: a fake device"
    [(files, plan)] = device.calls
    assert files == [file, file, file]
    assert plan == TimingPlan.of(2, 8, seed=0, **options)
    measured = tfnas.Measurement(1, elsewhere={str(device): first})
    assert tfnas.Measurement.from_json(measured.to_json()) == measured
    assert ["fake:1", str(first)] in measured.tables()[-1].rows


def test_a_device_that_comes_back_costs_pauses_alone(monkeypatch, caplog):
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    device = FakeDevice([DeviceLost("no route"), DeviceLost("no route")])
    [latency] = tfnas.benchmark(reference_artifact(), rounds=6, measure_on=device)
    assert latency.ratio == 2
    assert pauses == [5, 20]
    assert "fake:1 was lost: no route; next attempt in 20 s" in caplog.text


def test_a_device_that_stays_away_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0, 0))
    device = FakeDevice([DeviceLost(f"no route {i}") for i in range(5)])
    with pytest.raises(
        ConnectionError,
        match=r"measure_on 'fake:1' was lost .* 2 further attempts .*: no route 2\. Nothing that",
    ):
        tfnas.benchmark(reference_artifact(), rounds=6, measure_on=device)
    assert len(device.calls) == 3


@pytest.mark.parametrize(
    "device",
    [
        tfnas.SshDevice("pi@raspberrypi"),
        tfnas.SshDevice("10.0.0.7", python="~/venv/bin/python", port=2222, timeout=60.5),
        tfnas.AdbDevice(),
        tfnas.AdbDevice("emulator-5554", binary="tools/benchmark_model"),
        tfnas.BrowserDevice(),
        tfnas.BrowserDevice("web/core", program="chrome"),
    ],
    ids=str,
)
def test_a_device_is_the_device_of_its_text(device):
    assert tfnas.timing_device(str(device)) == device
    assert tfnas.timing_device(device) is device


def test_a_time_limit_makes_no_other_device_of_one_that_a_job_goes_on_with():
    names = ["adb,timeout=5", tfnas.AdbDevice(timeout=6), "adb:4A1", FakeDevice(), None]
    assert [device_identity(name) for name in names] == ["adb", "adb", "adb:4A1", "fake:1", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ssh", "measure_on must be ssh:USER@HOST, .* got 'ssh', which has no host"),
        ("rsh:pi@board", r"measure_on must be .*, got 'rsh:pi@board'; did you mean 'ssh'\?"),
        ("browser:chrome", "measure_on must be .*, got 'browser:chrome'"),
        ("ssh:a,host=b", "measure_on must be .*, got 'ssh:a,host=b'"),
        ("ssh:a,pyhton=b", r"options name=value of host, .* got 'pyhton=b'; did you mean 'python'"),
        ("adb:4A1,binary", "must have options name=value of serial, .*, got 'binary'"),
        ("ssh:a,port=x", "measure_on must have a number as port, got 'x'"),
        ("ssh:a,port=0", "port must be a whole number >= 1, got 0"),
        ("ssh:-oProxyCommand=x", "host must be a machine as ssh takes it, .* got '-oProxyCom"),
        ("browser,timeout=0", "timeout must be a finite number of seconds above 0, got 0"),
        (3, "measure_on must be a text or a device, got int"),
    ],
)
def test_texts_that_are_no_device(text, message):
    with pytest.raises(ValueError, match=message):
        tfnas.benchmark(reference_artifact(), rounds=6, measure_on=text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latency_seconds": 5.0}, "measure_on must be None with latency_seconds, .* got 'adb'"),
        ({}, None),
    ],
)
def test_settings_of_searches_check_the_device(settings, message):
    if message is None:
        assert tfnas.TunerConfig(measure_on="adb").measure_on == "adb"
        from tfnas.nas.search_config import SearchConfig

        device = tfnas.SshDevice("board", port=22)
        assert SearchConfig("digits", measure_on=device).measure_on == "ssh:board,port=22"
        with pytest.raises(ValueError, match="measure_on must be ssh:USER@HOST"):
            SearchConfig("digits", measure_on="board")
        for config in (tfnas.TunerConfig, functools.partial(SearchConfig, "digits")):
            with pytest.raises(ValueError, match="threads must be 1 in a browser, got 2"):
                config(measure_on="browser", threads=2)
        return
    with pytest.raises(ValueError, match=message):
        tfnas.TunerConfig(measure_on="adb", **settings)


def test_interpreters_are_renewed_and_the_old_ones_live_until_then():
    alive = []

    class Counted:
        def __init__(self, number):
            self.number = number
            alive.append(self)

        def sample(self):
            return self.number + 1

    plan = TimingPlan.of(1, 30, seed=0)
    times = timing_script.timed(Counted, plan.blocks)
    assert np.array_equal(times, np.tile([1.0, 2.0], (30, 1)))
    assert len(alive) == 2 * len(plan.blocks)


@pytest.mark.parametrize("package", ["web,old/core", "web,", "a,,b", ",c"])
def test_a_comma_of_a_value_is_kept_in_the_text(package):
    device = tfnas.BrowserDevice(package, timeout=60)
    assert tfnas.timing_device(str(device)) == device
    assert tfnas.timing_device("browser,package=web,,old, timeout=60").package == "web,old"


@pytest.mark.parametrize(
    ("runs", "repeats"),
    [([0.007, 0.0001, 0.0001], 30), ([0.008, 0.007], 1), ([0.004, 0.002, 0.0015], 2)],
)
def test_a_slow_first_run_does_not_say_how_often_a_sample_repeats(runs, repeats):
    class Scripted(timing_script.Timer):
        def run(self, repeats):
            return runs.pop(0)

        def _run_once(self, index):
            """Nothing."""

    assert Scripted(None, has_state=False, warmup=0, sample_ms=3).repeats == repeats
    assert runs == []
