"""A regression of two outputs and a detector go through engine, planner and reports as they are."""

import functools

import numpy as np
import pytest
from slow_cases import slow_but
from tasks import other_tasks

import tfnas
from tfnas.compression import planner

MODELS = {
    "regression": (other_tasks.TwoTargets, other_tasks.two_heads, other_tasks.table),
    "detector": (other_tasks.OneObject, other_tasks.detector, other_tasks.boxes_in_images),
}
ROWS = {
    "prune": [("prune", {"sparsity": 0.5})],
    "channels": [("prune_channels", {"macs": 0.7, "criterion": "taylor"})],
    "cluster, qat": [("cluster", {"clusters": 16}), ("qat", {})],
    "factorize": [("factorize", {"macs": 0.9})],
}
SETTINGS = tfnas.FineTuneSettings(epochs=1, batch_size=32)


@functools.cache
def made(kind):
    task, model, data = MODELS[kind]
    return task(), model(), data()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("regression", "prune"),
        ("regression", "channels"),
        ("detector", "cluster, qat"),
        ("detector", "factorize"),
    ],
)
def test_techniques_judge_by_the_tasks_own_metric(kind, row, tmp_path):
    task, model, data = made(kind)
    result = tfnas.run_techniques(
        model, ROWS[row], data, directory=tmp_path, task=task, settings=SETTINGS
    )
    test = data.test
    for file in result.rows:
        values = task.example_values(test.y, task.postprocess(file.file.predict(test.x)))
        assert file.score.name == task.metric.name
        assert file.score.value == pytest.approx(np.mean(values))
    text = (tmp_path / "report.md").read_text()
    assert task.metric.name in text
    assert not {"accuracy", "images"} & set(text.split())


@pytest.mark.parametrize("kind", slow_but([*MODELS], "detector"))
def test_a_file_is_as_good_as_its_model(kind):
    task, model, data = made(kind)
    kept = task.assess(data.test.y, tfnas.to_tflite(model).predict(data.test.x))
    own = task.assess(data.test.y, model.predict(data.test.x, verbose=0))
    assert kept.score.value == pytest.approx(own.score.value, abs=1e-4)
    assert own.drop_from(kept)[0] == pytest.approx(0, abs=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("effort", ["quick", pytest.param("normal", marks=pytest.mark.slow)])
def test_compress_plans_by_the_tasks_own_metric(kind, effort, tmp_path, monkeypatch):
    task, model, data = made(kind)
    tolerances = []

    def first_state(*args, tolerance):
        tolerances.append(tolerance)
        return planner.first_state(*args, tolerance=tolerance)

    monkeypatch.setattr("tfnas.jobs.compress_run.first_state", first_state)
    budget = {"max_macs": 0.7} if effort == "normal" else {"max_drop": 50.0, "max_bytes": 10**6}
    result = tfnas.compress(
        *(model, data, budget),
        directory=tmp_path,
        effort=effort,
        task=task,
        epochs=1,
        batch_size=32,
    )
    assert result.meets
    agreement = result.agreement
    assert [each.name for each in agreement.outputs] == [t.name for t in result.best.file.outputs]
    assert agreement.examples == len(data.for_given_model(0).test)
    assert "Is it still the same model?" in (tmp_path / "report.md").read_text()
    examples = data.for_given_model(0).validation
    own, given = (
        task.assess(examples.y, file.predict(examples.x))
        for file in (result.best.file, tfnas.to_tflite(model))
    )
    assert result.best.costs.drop == pytest.approx(own.drop_from(given)[0], abs=1e-6)
    whole = task.metric.scale * given.score.value
    expected = pytest.approx([0.003 * whole, 0.03 * whole], rel=1e-6)
    assert [[each.little, each.hopeless] for each in tolerances] == [expected]
    text = (tmp_path / "report.md").read_text()
    assert task.metric.name in text
    assert not {"accuracy", "images", "class", "classes"} & set(text.split())
    assert task.metric.unit == "points" or "points" not in text


def test_a_loss_of_several_outputs_is_one_number_in_the_order_of_the_outputs():
    task, model, data = made("regression")
    examples = data.train.rows(slice(8))
    outputs = model(examples.x)
    value = float(task.criterion_loss(model)(examples.y, outputs))
    squares = [
        np.mean((t - np.asarray(o)[:, 0]) ** 2) for t, o in zip(examples.y, outputs, strict=True)
    ]
    assert value == pytest.approx(sum(squares), rel=1e-5)
    by_name = dict(zip(model.output_names, examples.y, strict=True))
    assert float(task.criterion_loss(model)(by_name, outputs)) == pytest.approx(value)


def test_a_loss_of_a_sequential_model_is_one_number():
    task, model, data = made("detector")
    examples = data.train.rows(slice(8))
    value = task.criterion_loss(model)(examples.y, model(examples.x))
    assert np.ndim(value) == 0
    assert np.isfinite(float(value))
