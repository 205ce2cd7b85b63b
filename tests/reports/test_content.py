"""What reports say, before it is rendered."""

import pathlib
import types

import pytest

from tfnas.compression.budget import Budget
from tfnas.compression.device_costs import Target
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.measure.elsewhere.named_device import timing_device
from tfnas.nas.search_config import SearchConfig
from tfnas.reports import compress_report, search_report
from tfnas.reports.content import Table
from tfnas.reports.last_sections import environment
from tfnas.targets.device import Device


def test_numbers_in_a_table_become_text():
    table = Table(["layer", "n", "%"], [["stem", 1200, 12.3456], ["head", None, 0.0]])
    assert table.texts() == [["stem", "1,200", "12.3"], ["head", "", "0"]]


def test_a_short_row_is_refused():
    with pytest.raises(ValueError, match=r"rows must have 2 cells, as many as titles, got \['a'\]"):
        Table(["layer", "n"], [["a"]])


def test_bars_of_zeros_have_no_length():
    table = Table(["layer", "n"], [["a", 0], ["b", None]], bars=[1])
    assert [table.bar(row, 1) for row in (0, 1)] == [0.0, None]
    assert table.bar(0, 0) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.001, "0.001"),
        ((), "()"),
        (("a", ("b", 3)), "('a', ('b', 3))"),
        ("/home/me/teacher.keras", "teacher.keras"),
        (r"C:\models\teacher.keras", "teacher.keras"),
        (pathlib.PurePosixPath("/home/me/teacher.keras"), "teacher.keras"),
        (("/home/me/a", "b"), "('a', 'b')"),
        ("block/conv", "block/conv"),
        ("/", "/"),
        (None, "None"),
    ],
)
def test_settings_without_folders_of_a_machine(value, shown):
    settings, machine = environment({"x": value}, {"cores": 2}).blocks
    assert settings.rows == [["x", shown]]
    assert machine.rows == [["cores", "2"]]


def test_the_call_of_a_search_is_without_folders_of_a_machine():
    config = SearchConfig("/home/me/digits.npz", max_trials=3)
    assert search_report._call(config).startswith("tfnas.search('digits.npz', max_trials=3")


def test_the_call_of_compress_says_what_its_files_are_for():
    result = types.SimpleNamespace(effort="quick", budget=Budget(max_bytes=500))
    target = Target(Device(runtime_ram=2000), (), "gpu", timing_device("adb:serial1"))
    call = compress_report._call(result, FineTuneSettings(epochs=3), target)
    assert call.startswith("tfnas.compress(model, data, {'max_bytes': 500}, effort='quick', epochs")
    assert call.endswith(", runtime_ram=2000, fit_for='gpu', measure_on='adb:serial1')")
