"""Durable records: replaced whole, of a kind and of a version."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.runtime.store import Record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=9).filter(lambda key: key != "format"), JSON, max_size=4))
def test_what_is_written_is_read(tmp_path_factory, values):
    record = Record(tmp_path_factory.mktemp("record") / "a" / "job.json", "job", 3)
    assert not record.exists()
    record.write(values)
    assert record.exists()
    assert record.read() == values


def test_a_write_replaces_the_record(tmp_path):
    record = Record(tmp_path / "job.json", "job", 1)
    record.write({"a": 1, "b": 2})
    record.write({"a": 3})
    assert record.read() == {"a": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


def test_a_write_that_is_killed_leaves_the_old_record(tmp_path, monkeypatch):
    record = Record(tmp_path / "job.json", "job", 1)
    record.write({"a": 1})

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        record.write({"a": 2})
    monkeypatch.undo()
    assert record.read() == {"a": 1}


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_another_version_is_refused_by_name(tmp_path, version):
    Record(tmp_path / "job.json", "job", version).write({"a": 1})
    message = (
        rf"job\.json holds a job of another version of tfnas \(form {version!r}, this version's "
        r"is 2\); choose another folder, or overwrite it"
    )
    with pytest.raises(ValueError, match=message):
        Record(tmp_path / "job.json", "job", 2).read()


def test_another_kind_is_refused_by_name(tmp_path):
    Record(tmp_path / "job.json", "candidate", 2).write({"a": 1})
    with pytest.raises(ValueError, match=r"job\.json must hold a job, got a candidate$"):
        Record(tmp_path / "job.json", "job", 2).read()


@pytest.mark.parametrize(
    "values", [{"a": 1}, {"format": 2}, {"format": ["job"]}, {"format": ["job", 1, 2]}, [], 3, None]
)
def test_a_record_without_a_form_is_refused(tmp_path, values):
    (tmp_path / "job.json").write_text(json.dumps(values))
    with pytest.raises(
        ValueError, match=r"must hold a job, got a file of another version of tfnas"
    ):
        Record(tmp_path / "job.json", "job", 1).read()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1'])
def test_what_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "job.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"job\.json must hold a job: "):
        Record(tmp_path / "job.json", "job", 1).read()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"job\.json"):
        Record(tmp_path / "job.json", "job", 1).read()
