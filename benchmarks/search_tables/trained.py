"""Tables of trained networks: all members of a small MobileNetV2 space, with their epochs.

`benchmarks/trained_table.py` trained them once; the numbers are in trained_DATA.json. Each network
has its validation accuracy after every epoch, at a constant learning rate, so that nine epochs
begin with the same first three. Its test accuracy is that of the last epoch, on images that nothing
is chosen by.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib

import numpy as np

from search_tables.table import CATEGORICAL, ORDINAL, Decisions, SearchTable
from tfnas.search_space.architecture import Architecture
from tfnas.search_space.mobilenet_v2 import MobileNetV2Space
from tfnas.search_space.search_space import Decision
from tfnas.search_space.stage_choices import StageChoices

INPUTS = {"fashion_mnist": ((28, 28, 1), (10, 14)), "digits": ((8, 8, 1), (6, 8))}
"""Data set -> shape of its images, and the resolutions to choose from."""
FASHION_MNIST, DIGITS = INPUTS
EPOCHS = 9


def path_of(data: str) -> pathlib.Path:
    """Returns the file of the numbers of a data set."""
    return pathlib.Path(__file__).with_name(f"trained_{data}.json")


@functools.cache
def space(data: str = FASHION_MNIST) -> MobileNetV2Space:
    """Returns the space: 160 networks.

    Args:
        data: A name of :data:`INPUTS`.
    """
    shape, resolutions = INPUTS[data]
    stages = (
        StageChoices(
            (16,),
            repeats=(1,),
            stride=2,
            kinds=("inverted_residual",),
            kernels=(3, 5),
            expansions=(3,),
        ),
        StageChoices(
            (32,),
            repeats=(1,),
            stride=2,
            kinds=("inverted_residual",),
            kernels=(3, 5),
            expansions=(2, 4),
        ),
        StageChoices(
            (32,), (1, 2), kinds=("identity", "inverted_residual"), kernels=(3,), expansions=(2, 4)
        ),
    )
    return MobileNetV2Space(
        shape,
        10,
        "microcontroller",
        stages=stages,
        width_multipliers=(0.5, 1.0),
        resolutions=resolutions,
    )


@functools.cache
def members(data: str = FASHION_MNIST) -> list[Architecture]:
    """Returns all networks of the space, in a fixed order."""
    found: list[dict] = [{}]
    for decision in space(data).decisions:
        found = [
            {**values, **({decision.name: choice} if active else {})}
            for values in found
            for active in [decision.active(values)]
            for choice in (decision.choices if active else (None,))
        ]
    return [space(data).from_values(values) for values in found]


@dataclasses.dataclass(frozen=True)
class Trained:
    """What was measured of the networks.

    Args:
        validation: Accuracy after each epoch, (networks, trainings, epochs).
        test: Accuracy after the last epoch, (networks, trainings).
        latency: Measured latency ratio of each int8 file, (networks,).
        predicted: That of a fitted latency model, (networks,).
    """

    validation: np.ndarray
    test: np.ndarray
    latency: np.ndarray
    predicted: np.ndarray


def is_whole(data: str) -> bool:
    """Whether all networks of a data set were trained."""
    if not path_of(data).exists():
        return False
    kept = json.loads(path_of(data).read_text(encoding="utf-8"))["networks"]
    return all(kept.get(arch.key, {}).get("trainings") for arch in members(data))


@functools.cache
def measured(data: str = FASHION_MNIST) -> Trained:
    """Returns what was measured of all networks, in the order of :func:`members`."""
    kept = json.loads(path_of(data).read_text(encoding="utf-8"))
    rows = [kept["networks"][arch.key] for arch in members(data)]
    trainings = min(len(row["trainings"]) for row in rows)
    return Trained(
        np.array([[t["validation"] for t in row["trainings"][:trainings]] for row in rows]),
        np.array([[t["test"] for t in row["trainings"][:trainings]] for row in rows]),
        np.array([row.get("latency", np.nan) for row in rows]),
        np.array([row.get("predicted", np.nan) for row in rows]),
    )


def searched(data: str = FASHION_MNIST) -> list[Decision]:
    """Returns the decisions of the space that have a choice."""
    return [decision for decision in space(data).decisions if len(decision.choices) > 1]


def configurations(data: str = FASHION_MNIST) -> np.ndarray:
    """Returns the levels of the searched decisions of :func:`members`; an inactive one has 0."""
    whole, decisions = space(data), searched(data)
    rows = []
    for arch in members(data):
        values = whole.values(arch)
        rows.append([d.choices.index(values.get(d.name, d.choices[0])) for d in decisions])
    return np.array(rows, float)


@functools.cache
def trained_table(data: str = FASHION_MNIST) -> SearchTable:
    """Returns the table: a value is a mean test accuracy, measured is one validation accuracy.

    Args:
        data: A name of :data:`INPUTS`.
    """
    found, rows = measured(data), configurations(data)
    places = {tuple(row): place for place, row in enumerate(rows)}
    means, trainings = found.test.mean(1), found.test.shape[1]
    decisions = searched(data)
    names = [d.name for d in decisions]
    parents = tuple(-1 if d.parent not in names else names.index(d.parent) for d in decisions)
    least = tuple(int(parent >= 0) for parent in parents)  # of the kinds "identity" comes first
    kinds = tuple(CATEGORICAL if d.name.endswith("_kind") else ORDINAL for d in decisions)

    def index(x: np.ndarray) -> np.ndarray:
        return np.array([places[tuple(row)] for row in x.astype(int)])

    return SearchTable(
        Decisions(kinds, tuple(len(d.choices) for d in decisions), parents, least),
        lambda x: means[index(x)],
        np.random.default_rng(0),
        cost=lambda x: np.log(found.latency[index(x)]),
        measured=lambda row, rng: found.validation[
            index(row[None])[0], rng.integers(trainings), -1
        ],
    )
