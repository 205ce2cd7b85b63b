"""Atomic writes of files, and digests of models."""

import os
import stat

import keras
import pytest

from tfnas.runtime import files
from tfnas.runtime.files import write_atomically


def test_write_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    assert write_atomically(path, "é") == path
    assert path.read_bytes() == "é".encode()
    write_atomically(str(path), b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["os", "ctrl-c"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, step, error
):
    path = tmp_path / "file.txt"
    write_atomically(path, "old")

    def fail(*_):
        raise error

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(type(error)):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_written_files_have_the_permissions_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        path = write_atomically(tmp_path / "file", b"x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_model_is_the_same_however_it_was_compiled(tmp_path):
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(2)])
    model.compile("adam", "mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = [
        keras.models.load_model(tmp_path / "model.keras", compile=compiled)
        for compiled in (True, False)
    ]
    digests = {files.model_digest(each) for each in (model, *loaded)}
    assert len(digests) == 1
    model.layers[-1].bias.assign([0.0, 1.0])
    assert files.model_digest(model) not in digests


def test_the_digest_of_a_lambda_is_that_of_its_code():
    def made(number):
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Lambda(lambda x: x * number, name="l")(inputs))

    def digest(model):
        model.name = "model"
        model.layers[0].name = "input"
        return files.model_digest(model)

    assert digest(made(2.0)) == digest(made(2.0))
    assert digest(made(2.0)) != digest(made(3.0))


def test_the_order_of_a_set_does_not_change_what_a_function_is():
    def code(numbers):
        return (lambda x: x).__code__.replace(co_consts=(None, frozenset(numbers)))

    orders = [code([0, 8]), code([8, 0])]  # of one hash in a small table
    assert len({repr(each.co_consts) for each in orders}) == 2
    assert len({files.code_text(each) for each in orders}) == 1
    assert files.code_text(code([0, 9])) != files.code_text(orders[0])


def test_a_model_without_a_configuration_has_a_digest():
    class Bare(keras.layers.Layer):
        def __init__(self, function, **kwargs):
            super().__init__(**kwargs)
            self.function = function

        def call(self, x):
            return self.function(x)

    model = keras.Sequential([keras.Input((4,)), Bare(abs), keras.layers.Dense(2)])
    before = files.model_digest(model)
    assert before == files.model_digest(model)
    model.layers[-1].bias.assign([0.0, 1.0])
    assert files.model_digest(model) != before
