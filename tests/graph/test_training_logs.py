"""What callbacks write into the logs of a training, and who sees it."""

import csv

import keras
import numpy as np
import pytest

import tfnas

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
DATA = X, X[:, :4].copy()


def compiled(wrap=lambda model: model):
    keras.utils.set_random_seed(0)
    model = wrap(keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)]))
    model.compile("sgd", "mse", jit_compile=False)
    return model


class Seen(keras.callbacks.Callback):
    """Keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.logs = []

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))


@pytest.mark.parametrize(
    ("callback", "key", "wrap"),
    [
        (lambda: tfnas.PruningCallback(lambda epoch: 0.25 * epoch), "sparsity", lambda m: m),
        (lambda: tfnas.ClusteringCallback(clusters=4), "clusters", lambda m: m),
        (lambda: tfnas.QuantizationSchedule(freeze_epoch=1), "range_change", tfnas.quantize_aware),
    ],
)
def test_callbacks_behind_see_what_is_written_and_those_before_do_not(
    callback, key, wrap, tmp_path
):
    model = compiled(wrap)
    before, behind = Seen(), Seen()
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    callbacks = [before, callback(), behind, log]
    history = model.fit(*DATA, epochs=2, verbose=0, callbacks=callbacks).history
    expected = {"sparsity": [0, 0.25], "clusters": [4, 4]}.get(key, [history[key][0], 0])
    assert history[key] == expected
    assert [logs[key] for logs in behind.logs] == expected
    rows = csv.DictReader((tmp_path / "log.csv").read_text().splitlines())
    assert [float(row[key]) for row in rows] == expected
    assert all(key not in logs for logs in before.logs)


def test_the_change_of_ranges_is_relative_to_their_width():
    model = compiled(tfnas.quantize_aware)
    schedule = tfnas.QuantizationSchedule()
    schedule.set_model(model)
    schedule.on_train_begin()
    [first, *others] = [each for each in model.layers if hasattr(each, "fixed")]
    first.low.assign(-1.0)
    first.high.assign(3.0)
    schedule.on_epoch_begin(0)
    first.high.assign(2.0)
    logs = {}
    schedule.on_epoch_end(0, logs)
    movable = 1 + sum(each.fixed is None for each in others)
    assert logs == {"range_change": pytest.approx(1 / 3 / movable)}


def test_the_parts_of_distillation_are_named_as_by_keras():
    student, teacher = compiled(), compiled()
    distiller = tfnas.Distiller(student, teacher)
    distiller.compile("sgd")
    seen = Seen()
    distiller.fit(*DATA, epochs=1, verbose=0, callbacks=[seen])
    assert {"loss", "student_loss", "distillation_loss"} <= set(seen.logs[0])
