"""A task judges by several metrics in one pass."""

import types

import numpy as np
import pytest

from tfnas.compression.file_comparison_table import compare_files
from tfnas.compression.results.file_rows import more_headers, more_lines, more_rows
from tfnas.data.examples import Examples
from tfnas.reports.agreement_sections import more_metrics
from tfnas.tasks.assessment import Metric, NotFinite
from tfnas.tasks.metrics import metrics_by_output, mse
from tfnas.tasks.task import Task

RNG = np.random.default_rng(0)
NAMES = ("size", "kind")
Y = {"size": RNG.normal(size=600), "kind": RNG.integers(0, 3, 600)}


class Two(Task):
    """A number and a class."""

    metric, *_ = metrics_by_output({"kind": "accuracy"}, NAMES).values()
    more_metrics = metrics_by_output({"size": "mse", "kind": "auc"}, NAMES)

    def check(self, model, data):
        pass

    def loss(self, model):
        return ["mse", "sparse_categorical_crossentropy"]


def file(noise, calls=None):
    rng = np.random.default_rng(1)
    size = (Y["size"] + rng.normal(0, noise, 600))[:, None]
    kind = np.eye(3)[Y["kind"]] + rng.normal(0, noise, (600, 3))

    def predict(x):
        if calls is not None:
            calls.append(len(x))
        return [size[x], kind[x]]

    return types.SimpleNamespace(predict=predict, size=10, gzip_size=5)


EXAMPLES = Examples(np.arange(600), Y)


def test_all_metrics_in_one_pass_over_the_batches():
    calls = []
    found = Two().judge_all(file(0.5, calls).predict, EXAMPLES)
    assert calls == [256, 256, 88]
    assert [*found] == ["", "size", "kind"]
    answers = file(0.5).predict(np.arange(600))
    assert found[""].score.value == (answers[1].argmax(1) == Y["kind"]).mean()
    assert found["size"].score.value == pytest.approx(np.mean((answers[0][:, 0] - Y["size"]) ** 2))
    assert found[""].score == Two().judge(file(0.5).predict, EXAMPLES).score


def test_further_metrics_in_rows_lines_and_reports():
    rows = compare_files(Two(), EXAMPLES, [("original", file(0.3)), ("small", file(0.6))])
    assert rows[0].more_differences == {}
    assert rows[1].more_differences["size"][0] > 0
    table = more_rows(rows)
    assert [row[:2] for row in table] == [
        *(["mse of size", "original"], ["mse of size", "small"]),
        *(["AUC of kind", "original"], ["AUC of kind", "small"]),
    ]
    assert {len(row) for row in table} == {len(more_headers())}
    assert table[3][4].endswith("points")
    lines = more_lines(rows, "small")
    assert len(lines) == 2
    assert lines[0].startswith(f"mse of size of small: {rows[1].more['size'].score.value:.4f} [")
    assert more_lines(rows, "original") == []
    [section] = more_metrics(rows)
    assert section.blocks[0].texts() == table


def test_a_task_of_one_metric_has_no_further_rows():
    class One(Two):
        more_metrics = {}  # noqa: RUF012

    rows = compare_files(One(), EXAMPLES, [("original", file(0.3)), ("small", file(0.6))])
    assert (more_rows(rows), more_lines(rows, "small"), more_metrics(rows)) == ([], [], [])


def test_nan_is_no_output_whatever_the_metric_makes_of_it():
    class Blind(Two):
        metric = Metric("blind", values=lambda y, p: np.ones(len(p[0])))
        more_metrics = {}  # noqa: RUF012

    outputs = [np.full((4, 1), np.nan), np.zeros((4, 3))]
    y = {name: each[:4] for name, each in Y.items()}
    with pytest.raises(NotFinite, match=r"outputs must be numbers, got NaN in outputs of \(4, 1\)"):
        Blind().assess(y, outputs)


def test_rows_of_another_shape_in_another_batch_are_named():
    class Ragged(Two):
        metric = Metric("ragged", values=lambda y, p: p, aggregate=np.sum)
        more_metrics = {}  # noqa: RUF012

    sizes = iter([2, 3, 3])
    with pytest.raises(ValueError, match=r"one shape in all batches, got \(2,\), \(3,\): pad"):
        Ragged().judge(lambda x: np.zeros((len(x), next(sizes))), EXAMPLES)


def test_a_further_metric_needs_values():
    class Bare(Two):
        more_metrics = {"bare": Metric("bare"), "size": mse()}  # noqa: RUF012

    with pytest.raises(ValueError, match="more_metrics must have values, got None for 'bare'"):
        Bare().judge_all(file(0.1).predict, EXAMPLES)
