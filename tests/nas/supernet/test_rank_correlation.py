"""The rank correlation with networks trained alone: its networks, its file, its number."""

import json
import types

import keras
import numpy as np
import pytest

import tfnas
from tfnas.nas.supernet.member_draws import MemberDraws
from tfnas.nas.supernet.rank_correlation import RankCorrelation, kept_correlation, trained_alone


@pytest.fixture
def sharing(tmp_path):
    """Shared weights whose scores are known."""
    space = tfnas.MobileNetV2Space((2, 2, 1), 2, "microcontroller")
    scores = types.SimpleNamespace(accuracy=lambda arch: len(str(arch)) / 200)
    draws = MemberDraws(space, 2)
    return types.SimpleNamespace(draws=draws, scores=scores, seed=0, folder=tmp_path)


VALIDATION = np.arange(24.0).reshape(6, 2, 2, 1), np.array([0, 1, 0, 1, 1, 1])


class Trainings:
    def __init__(self, fails_at=None):
        self.archs, self.fails_at = [], fails_at

    def __call__(self, arch):
        if len(self.archs) == self.fails_at:
            raise KeyboardInterrupt
        self.archs.append(arch)
        layers = [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
        model = keras.Sequential(layers)
        weights = np.zeros((4, 2), "float32")
        weights[0] = [-1, 1]
        # More or fewer examples are of class 1, by the name of the network.
        model.set_weights([weights, np.array([len(str(arch)) % 19, 0], "float32")])
        return model


def test_an_interrupted_measurement_goes_on(sharing):
    path = sharing.folder / "trained_alone.jsonl"
    first = Trainings(fails_at=4)
    with pytest.raises(KeyboardInterrupt):
        trained_alone(sharing, 6, first, VALIDATION)
    with path.open("a") as file:
        file.write('{"archit')
    rest, steps = Trainings(), []
    found = trained_alone(sharing, 6, rest, VALIDATION, lambda done, total: steps.append(done))
    assert len(first.archs) == 4
    assert len({arch.network for arch in (*first.archs, *rest.archs)}) == 6
    assert steps == list(range(1, 7))
    again = Trainings()
    assert trained_alone(sharing, 6, again, VALIDATION) == found == kept_correlation(path)
    assert again.archs == []


def test_as_many_networks_are_trained_as_the_bounds_leave(sharing):
    archs = [sharing.draws.random(np.random.default_rng(n)) for n in range(3)]
    sharing.draws = types.SimpleNamespace(random=lambda rng: archs[rng.integers(3)])
    trainings = Trainings()
    assert trained_alone(sharing, 6, trainings, VALIDATION).networks == 3
    assert {arch.network for arch in trainings.archs} == {arch.network for arch in archs}


def test_accuracies_are_those_of_both(sharing):
    trainings = Trainings()
    trained_alone(sharing, 4, trainings, VALIDATION)
    lines = (sharing.folder / "trained_alone.jsonl").read_text().splitlines()
    for line, arch in zip(map(json.loads, lines), trainings.archs, strict=True):
        model = Trainings()(arch)
        right = np.asarray(model(VALIDATION[0])).argmax(1) == VALIDATION[1]
        assert line["alone"] == right.mean()
        assert line["shared"] == len(str(arch)) / 200


def test_the_correlation_is_kendalls():
    found = RankCorrelation.of(np.arange(10), [*range(8), 9, 8])
    assert found.tau == pytest.approx(1 - 2 / 45)
    assert found.low <= found.tau <= found.high
    assert found.networks == 10


def test_nothing_is_known_without_networks(tmp_path):
    assert kept_correlation(tmp_path / "none.jsonl") is None
