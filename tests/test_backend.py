"""Keras on another backend is refused in one line when tfnas is first used."""

import os
import subprocess
import sys

import pytest

import tfnas


@pytest.mark.parametrize("code", ["import tfnas; tfnas.prune", "from tfnas import to_tflite"])
def test_another_backend_is_refused_at_first_use(code):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("RuntimeError: tfnas needs Keras on TensorFlow, got the backend 'jax'")


def test_a_backend_that_keras_runs_on_already_is_named(monkeypatch):
    monkeypatch.delitem(vars(tfnas), "prune", raising=False)
    monkeypatch.setattr("keras.config.backend", lambda: "torch")
    with pytest.raises(RuntimeError, match="got the backend 'torch': set KERAS_BACKEND=tensorflow"):
        _ = tfnas.prune
