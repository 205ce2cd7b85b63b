"""Searches of tables of trained networks: with successive halving, and with predicted latencies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras_tuner as kt
import numpy as np

from search_tables import trained
from search_tables.ours import oracle_of
from tfnas.measure.measurement import hypervolume
from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.samplers.evolution import EvolutionSampler
from tfnas.nas.samplers.random_search import RandomSampler
from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.successive_halving import Halving

TOTALS = (45, 90, 180)  # epochs together, of 5 to 20 networks that are trained to the end
TRIALS = (10, 20, 40)
SHORT = 3


@dataclasses.dataclass(frozen=True)
class Search:
    """A way to spend epochs.

    Args:
        sampler: Makes the sampler.
        halving: Makes the rungs; None: all trials have the same epochs.
        epochs: Those of a trial without halving.
    """

    sampler: Callable[[], Sampler]
    halving: tuple[int, int] | None = None
    epochs: int = trained.EPOCHS


BASE = "evolution"
SEARCHES = {
    BASE: Search(EvolutionSampler),
    "evolution, halving from 1 epoch": Search(EvolutionSampler, (3, 1)),
    "evolution, halving from 3 epochs": Search(EvolutionSampler, (3, 3)),
    "evolution, 3 epochs": Search(EvolutionSampler, epochs=SHORT),
    "random": Search(RandomSampler),
    "random, halving from 1 epoch": Search(RandomSampler, (3, 1)),
    "random, halving from 3 epochs": Search(RandomSampler, (3, 3)),
    "random, 3 epochs": Search(RandomSampler, epochs=SHORT),
}


class Networks:
    """The networks of a table, as a search of a seed measures them.

    Args:
        data: The data set.
        seed: Chooses the training of each network.
    """

    def __init__(self, data: str, seed: int) -> None:
        self.space, self.found = trained.space(data), trained.measured(data)
        self.places = {arch.network: n for n, arch in enumerate(trained.members(data))}
        count, trainings = self.found.test.shape
        self.training = np.random.default_rng([seed, 5]).integers(trainings, size=count)
        truth = self.found.test.mean(1)
        self.scores = 100 * (truth - np.median(truth)) / (truth.max() - np.median(truth))

    def place(self, arch: Any) -> int:
        """Returns the number of a network."""
        return self.places[arch.network]

    def validation(self, place: int, epochs: int) -> float:
        """Returns a network's validation accuracy after so many epochs."""
        return float(self.found.validation[place, self.training[place], epochs - 1])


def oracle_over(networks: Networks, sampler: Sampler, seed: int, **arguments: Any) -> SpaceOracle:
    """Returns an oracle of the networks, whose hyperparameters are declared."""
    oracle = oracle_of(sampler, networks.space, seed, **arguments)
    networks.space.declare(oracle.hyperparameters)
    return oracle


def halved(networks: Networks, search: Search, seed: int) -> list[float]:
    """Returns the scores of the picks after so many epochs together."""
    trials, spent, found = 3 * max(TOTALS), 0, []
    halving = Halving(*search.halving) if search.halving else Halving()
    halving.set_epochs(trained.EPOCHS, trials)
    objective = kt.Objective("value", "max")
    oracle = oracle_over(
        networks, search.sampler(), seed, objective=objective, max_trials=trials, halving=halving
    )
    rest = trained.EPOCHS - search.epochs  # what the pick is trained for at the end
    while len(found) < len(TOTALS):
        trial = oracle.create_trial("tuner0")
        if trial.status != "RUNNING":  # all networks were tried
            break
        budget = halving.budget(trial.trial_id) or {"epochs": search.epochs, "initial_epoch": 0}
        cost = budget["epochs"] - budget["initial_epoch"]
        while len(found) < len(TOTALS) and spent + cost + rest > TOTALS[len(found)]:
            found.append(picked(oracle, networks))
        place = networks.place(oracle.architecture(trial))
        oracle.update_trial(trial.trial_id, {"value": networks.validation(place, budget["epochs"])})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        spent += cost
    return found + [picked(oracle, networks)] * (len(TOTALS) - len(found))


def picked(oracle: SpaceOracle, networks: Networks) -> float:
    """Returns the score of the network that a search would return now; that of a median: none."""
    if not oracle.records:
        return 0.0
    return float(networks.scores[networks.place(oracle.architecture(oracle.pick()))])


def fronts(networks: Networks, seed: int, predicted: bool) -> list[float]:
    """Returns the share of the hypervolume after so many trials of two objectives."""
    objectives = [kt.Objective("value", "max"), kt.Objective("latency", "min")]
    oracle = oracle_over(
        networks, EvolutionSampler(), seed, objective=objectives, max_trials=max(TRIALS)
    )
    if predicted:
        logs = np.log(networks.found.predicted)
        feature = (logs - logs.mean()) / logs.std()  # as LatencyPredictor.feature
        oracle.surrogate_features = lambda arch: feature[networks.place(arch)][None]
    places: list[int] = []
    for _ in range(max(TRIALS)):
        trial = oracle.create_trial("tuner0")
        places.append(networks.place(oracle.architecture(trial)))
        latency = float(networks.found.latency[places[-1]])
        value = networks.validation(places[-1], trained.EPOCHS)
        oracle.update_trial(trial.trial_id, {"value": value, "latency": latency})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return [share_of_front(networks, places[:count]) for count in TRIALS]


def share_of_front(networks: Networks, places: Sequence[int]) -> float:
    """Returns the hypervolume of some networks, in per cent of that of all."""
    points = np.stack([networks.found.test.mean(1), np.log(networks.found.latency)], 1)
    corner = [float(np.quantile(points[:, 0], 0.1)), float(points[:, 1].max())]
    volumes = [
        hypervolume(points[chosen].tolist(), corner, ["max", "min"])
        for chosen in (list(places), slice(None))
    ]
    return 100 * volumes[0] / volumes[1]
