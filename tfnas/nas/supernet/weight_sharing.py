"""The phases of a weight-sharing search before its trials: train, score, cut out the finalists.

Everything is kept in files (:mod:`tfnas.nas.supernet.supernet_files`), so that each phase goes on
after a kill.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tfnas.data.reading import spread, spread_pairs
from tfnas.nas.fit_arguments import validation_pair
from tfnas.nas.objectives import Objectives
from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.search_callbacks import Phase
from tfnas.nas.supernet.finalists import Finalist
from tfnas.nas.supernet.member_costs import MemberCosts
from tfnas.nas.supernet.member_draws import MemberDraws, load_of
from tfnas.nas.supernet.member_scores import MemberScores
from tfnas.nas.supernet.sandwich_data import SandwichData
from tfnas.nas.supernet.shared_search import SharedSearch
from tfnas.nas.supernet.shared_training import SharedTraining, read_header
from tfnas.nas.supernet.supernet_config import SupernetConfig
from tfnas.nas.supernet.supernet_files import FINALIST, FOLDER, SCORES, SHARED_WEIGHTS
from tfnas.nas.weight_files import write_weights
from tfnas.runtime.randomness import seeded
from tfnas.search_space.architecture import Architecture

Reward = Callable[[float, float], float]
TRAINING = "training the shared weights"
SCORING = "scoring networks with the shared weights"


class WeightSharing:
    """The shared weights of a search, and what is done with them.

    Args:
        space: The elastic space.
        objectives: The objectives and limits of the search.
        config: The settings.
        sampler: Proposes the networks that are scored.
        costs: The costs of networks.
        reward: Returns the reward of an accuracy and a latency ratio.
        target_ratio: The target latency of the reward, as a ratio to the reference model's; None:
            no target.
        folder: Folder of the search.
        seed: Seed of the search.
    """

    def __init__(
        self,
        space: Any,
        objectives: Objectives,
        config: SupernetConfig,
        sampler: Sampler,
        costs: MemberCosts,
        reward: Reward,
        target_ratio: float | None,
        folder: pathlib.Path,
        seed: int,
    ) -> None:
        self.space, self.objectives, self.config = space, objectives, config
        self.sampler, self.costs, self.reward = sampler, costs, reward
        self.folder, self.seed = folder / FOLDER, seed
        self.network = space.elastic_network(seed)
        load = load_of(costs, objectives, target_ratio)
        self.draws = MemberDraws(space, config.random_members, load)
        self.scores: MemberScores | None = None

    def train(
        self,
        loss_model: keras.Model,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        report: Callable[[Phase], None] = lambda phase: None,
    ) -> None:
        """Trains the shared weights, or goes on, or takes up trained ones.

        Args:
            loss_model: A compiled model of the space.
            args: Positional arguments of the search.
            kwargs: Its keyword arguments.
            report: Receives the progress.
        """
        data = SandwichData(args, kwargs)
        path = self.folder / SHARED_WEIGHTS
        training = SharedTraining(
            self.draws, self.network, loss_model, self.config, self.seed, path
        )
        ended = training.restore()
        report(_begun(TRAINING, training.epoch, training.epochs, "epoch"))
        if not ended:
            with seeded(self.seed):
                training.run(data, lambda done, total, logs: report(Phase(TRAINING, done, total)))
        self.scores = self._make_scores(data, kwargs["validation_data"])

    def _make_scores(self, data: SandwichData, validation_data: Any) -> MemberScores:
        calibration = spread(data.x, self.config.calibration_examples, "x")
        images, targets = spread_pairs(
            *validation_pair(validation_data), self.config.score_examples, "validation_data"
        )
        return MemberScores(self.network, calibration, images, targets)

    def finalists(
        self, number: int, report: Callable[[Phase], None] = lambda phase: None
    ) -> list[Finalist]:
        """Searches the members, and cuts out the weights of the best ones.

        Args:
            number: Number of finalists.
            report: Receives the progress.
        """
        search = SharedSearch(
            self.space,
            self.objectives,
            self.sampler,
            self.costs,
            self.metrics,
            self.seed,
            self.folder / SCORES,
        )
        kept = min(len(search.kept), self.config.evaluations)
        report(_begun(SCORING, kept, self.config.evaluations, "network"))
        search.run(
            self.config.evaluations,
            lambda done, total: report(Phase(SCORING, done, total, "network")),
        )
        report(Phase(SCORING, note=search.best_scores()))
        best = search.best(number)
        return [self._finalist(arch, metrics) for arch, metrics in best]

    def metrics(self, arch: Architecture) -> dict[str, float]:
        """Returns the metrics of a network: its accuracy with the shared weights, and its costs.

        Args:
            arch: The network.
        """
        assert self.scores is not None
        known = dict(self.costs(arch))
        known["file_accuracy"] = self.scores.accuracy(arch)
        if "latency_ratio" in known:
            known["reward"] = self.reward(known["file_accuracy"], known["latency_ratio"])
        return known

    def _finalist(self, arch: Architecture, metrics: Mapping[str, float]) -> Finalist:
        path = self.folder / FINALIST.format(arch.key)
        if not path.exists():
            write_weights(self.cut_out(arch), path)
        return Finalist(arch, float(metrics["file_accuracy"]), path)

    def cut_out(self, arch: Architecture) -> keras.Model:
        """Returns the plain model of a network with its part of the shared weights.

        Args:
            arch: The network.
        """
        assert self.scores is not None
        self.scores.measure(arch)
        model = self.space.build(arch)
        self.network.transfer(arch, model)
        return model


def _begun(text: str, done: int, total: int, unit: str) -> Phase:
    """A phase that begins, with what an earlier run has done of it, and what takes its time."""
    of = "all" if done == total else f"{done:,} of"
    notes = [f"{of} {total:,} {unit}s were done before"] if done else []
    if done < total:
        notes.append(f"the {'next' if done else 'first'} {unit} takes longest, as it is traced")
    return Phase(text, done, total, unit, "; ".join(notes))


def summary_of(folder: pathlib.Path) -> str:
    """Returns a sentence on the shared weights in a folder.

    Args:
        folder: The folder `supernet` of a search.
    """
    header, path = read_header(folder / SHARED_WEIGHTS), folder / SCORES
    scored = len(path.read_text().splitlines()) if path.exists() else 0
    return (
        f"Shared weights: trained for {header['epochs']} epochs in {header['seconds']:.0f} s; "
        f"{scored:,} networks scored with them."
    )
