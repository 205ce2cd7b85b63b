"""The golden script: equal where nothing changed, and not where something did."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from golden import command, digest, entries, networks

ROOT = pathlib.Path(__file__).parents[1]
CHEAP = ("masks/least/dense", "plan/tried/time and bytes, normal, dense", "space/drawn/mobile")


@pytest.fixture(scope="module", autouse=True)
def loaded():
    command.load()


@pytest.mark.parametrize("name", CHEAP)
def test_twice_the_same(name):
    assert entries.compute(name) == entries.compute(name)


def test_a_changed_weight_changes_the_hash(monkeypatch):
    def changed(model, seed=0, fill=networks.fill):
        fill(model, seed)
        kernel = model.get_layer("second").kernel
        value = np.array(kernel)
        largest = np.unravel_index(value.argmax(), value.shape)  # one that is not pruned
        value[largest] = np.nextafter(value[largest], np.float32(9))
        kernel.assign(value)

    before, _ = entries.compute(CHEAP[0])
    monkeypatch.setattr(networks, "fill", changed)
    assert entries.compute(CHEAP[0])[0] != before


def test_hashes_tell_types_shapes_and_order_apart():
    values = [
        *(1, 1.0, True, "1", b"1", None, [1], [[1]], [1, 2], [2, 1], {"a": 1}, {"b": 1}),
        *(np.zeros(2), np.zeros(2, np.float32), np.zeros((2, 1)), np.zeros((1, 2)), -np.zeros(2)),
        *(["ab", "c"], ["a", "bc"]),
    ]
    assert len({digest.sha256(value) for value in values}) == len(values)
    assert digest.sha256((1, np.int64(2))) == digest.sha256([1, 2])
    assert digest.sha256({"a": 1, "b": 2}) == digest.sha256({"b": 2, "a": 1})
    with pytest.raises(TypeError, match="value must be plain, got object"):
        digest.sha256([object()])


def test_numbers_of_texts():
    page = '<style>p { margin: 3px }</style><p class="a4">int8x4 lost 1.5 of 2,000, -0.25%&#39;</p>'
    assert digest.numbers_of(page) == ["1.5", "2,000", "-0.25"]


def test_differences_are_told():
    ours = {"a": {"sha256": "1", "summary": "x"}, "b": {"sha256": "2", "summary": "y"}}
    theirs = {"a": {"sha256": "1", "summary": "x"}, "b": {"sha256": "3", "summary": "z"}}
    assert command.differences(ours, ours) == []
    assert command.differences(ours, theirs) == ["b: y | z"]
    assert command.differences(ours, {"a": ours["a"]}) == ["b: only in the first"]
    assert command.differences({}, {"c": ours["a"]}) == ["c: only in the other"]


def test_a_file_of_hashes_stands_for_a_checkout(tmp_path):
    found = {name: {"sha256": "1", "summary": ""} for name in ("masks/a", "masks/b", "plan/a")}
    file = tmp_path / "hashes.json"
    file.write_text(json.dumps(found))
    assert command._read(file, None) == found
    assert list(command._read(file, "masks")) == ["masks/a", "masks/b"]
    assert list(command._read(file, "*/a")) == ["masks/a", "plan/a"]


def test_no_other_file_imports_tfnas():
    files = sorted((ROOT / "tests" / "golden").glob("*.py"))
    imports = {f.name for f in files if re.search(r"^\s*(import|from) tfnas", f.read_text(), re.M)}
    assert imports == {"names.py"}


@pytest.mark.slow
def test_a_checkout_equals_itself():
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "golden.py"), "--compare", str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"{len(entries.ENTRIES)} entries equal\n"
