"""How much work the parts of a search are, before they run, for an estimate of its time.

The unit is a millisecond of the processor on which the constants were measured (decision 90): what
an operator costs in a training step whatever its size, what its output and its
multiply-accumulates add, and what is done once for a network. How long a unit takes is measured in
each search.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.data.data_split import DataSplit
from tfnas.jobs.time_left import TRIALS, Work
from tfnas.measure.latency_model.features import macs
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.supernet.supernet_tuner import SupernetTuner
from tfnas.nas.supernet.weight_sharing import SCORING, TRAINING
from tfnas.nas.tuner import MeasuredTuner
from tfnas.search_space.architecture import Architecture, mobilenet_v2
from tfnas.search_space.mobilenet_v2 import MobileNetV2Space
from tfnas.tflite.network_operators import Operators, operators_of_architecture

OPERATOR = 0.37  # an operator of a network in a training step
ELEMENT = 5.1e-6  # an element of an operator's output, of an example
MAC = 2.4e-8  # a multiply-accumulate, of an example
TRACED = 90.0  # an operator in the first step, which is traced
FILE = 1500.0  # making a file and measuring it
FILE_OPERATOR = 20.0  # the same, of an operator
MEASURED = 1000.0  # measuring a file again
ELASTIC = 1.1  # a step of shared weights for those of its networks alone
ELASTIC_TRACED = 1.8  # tracing it, for the largest network alone
SCORES_TRACED = 0.8  # the same of scores
DRAWN = 15.0  # drawing the networks of a step of shared weights
PROPOSED = 10.0  # proposing a network that is scored
EPOCH = 100.0  # an epoch beside its steps
FORWARD = 0.5  # a score's batch for a training step
SCORED = 256  # examples of a batch of scores
_DRAWN = 16  # steps, or networks, that a mean is taken of


MEASURING = "measuring on the test part"
REMEASURING = "measuring the Pareto front side by side"


def training_again(config: SearchConfig) -> str:
    """Returns the name of the part that trains the best again."""
    return f"training the best again, {config.final_epochs} epochs"


def training_alone(config: SearchConfig) -> str:
    """Returns the name of the part that trains random networks alone."""
    return f"training {config.rank_networks} random networks alone"


def comparison(number: int) -> str:
    """Returns the name of the part that trains a network to compare with; 0: MobileNetV2."""
    return f"comparison {number}"


def baseline(space: MobileNetV2Space) -> Architecture:
    """Returns MobileNetV2 0.35 for the inputs of a space."""
    shape, rescales = space.input_shape, space.include_rescaling
    return mobilenet_v2(shape, space.num_classes, 0.35, include_rescaling=rescales)


class SearchWork:
    """The work of the parts of a search.

    Args:
        config: The settings.
        tuner: The tuner.
        split: The data of the trials.
        full: The data of the final training.
    """

    def __init__(
        self, config: SearchConfig, tuner: MeasuredTuner, split: DataSplit, full: DataSplit
    ) -> None:
        self.config, self.tuner = config, tuner
        self.training, self.validation = len(split.x_train), len(split.x_val)
        self.whole = len(full.x_train) + len(full.x_val)
        self.space: Any = tuner.hypermodel.space

    def parts(self) -> dict[str, Work]:
        """Returns the work of each part, in the order in which they run."""
        config, networks = self.config, self._networks()

        def trained(examples: int, epochs: int, count: int = 1) -> Work:
            each = [self.trained(arch, examples, epochs) for arch in networks]
            return mean_work(each, count)

        examples, epochs = self._final()
        a_network = trained(examples, epochs)
        trials = trained(self.training, config.epochs, config.max_trials)
        found = {**self._shared(), TRIALS: trials}
        if config.final_epochs:
            found[training_again(config)] = a_network
        if config.baseline:
            found[comparison(0)] = self.trained(baseline(self.space), examples, epochs)
        found |= {comparison(n): a_network for n in range(1, config.random_candidates + 1)}
        files = 2 + config.baseline + config.random_candidates
        found[MEASURING] = Work(0.0, last=files * MEASURED)
        found[REMEASURING] = Work(0.0, last=MEASURED)
        if config.rank_networks:
            alone = trained(examples, epochs, config.rank_networks)
            found[training_alone(config)] = alone
        return found

    def trial(self, number: int) -> Work | None:
        """Returns the work of a trial that has begun; None: it is not known.

        Args:
            number: Its number, from 1.
        """
        oracle = self.tuner.oracle
        for trial_id, trial in oracle.trials.items():
            if int(trial_id) + 1 == number and trial.hyperparameters.values:
                arch = oracle.architecture(trial)
                return self.trained(arch, self.training, self.config.epochs)
        return None

    def _final(self) -> tuple[int, int]:
        """Examples and epochs of a network of the final comparison."""
        if self.config.final_epochs:
            return self.whole, self.config.final_epochs
        is_shared = isinstance(self.tuner, SupernetTuner)
        return self.training, self.config.epochs + is_shared * self.config.supernet_epochs

    def _networks(self) -> list[Architecture]:
        """Networks as the trials will be."""
        rng = np.random.default_rng(0)
        if isinstance(self.tuner, SupernetTuner) and self.tuner.draws is not None:
            return [self.tuner.draws.random(rng) for _ in range(_DRAWN)]
        return [self.space.sample(rng) for _ in range(_DRAWN)]

    def _shared(self) -> dict[str, Work]:
        """The training and the scores of shared weights, if there are some."""
        if not isinstance(self.tuner, SupernetTuner) or self.tuner.draws is None:
            return {}
        rng, batch = np.random.default_rng(0), self.config.batch_size
        drawn = [self.tuner.draws(rng) for _ in range(_DRAWN)]
        a_step = ELASTIC * np.mean([sum(step(arch, batch) for arch in each) for each in drawn])
        steps = self.tuner.supernet.epochs * math.ceil(self.training / batch)
        settings = self.tuner.supernet
        scored = min(settings.score_examples, self.validation)
        batches = (scored + min(settings.calibration_examples, self.training)) / SCORED
        a_batch = np.mean([step(arch, SCORED) for arch in self._networks()])
        traced = TRACED * operators(self.space.largest(np.random.default_rng(0)))
        return {
            TRAINING: Work(steps * (float(a_step) + DRAWN), ELASTIC_TRACED * traced),
            SCORING: Work(
                settings.evaluations * (FORWARD * batches * float(a_batch) + PROPOSED),
                SCORES_TRACED * traced,
            ),
        }

    def trained(self, arch: Architecture, examples: int, epochs: int) -> Work:
        """Returns the work of a network that is trained, converted and measured.

        Args:
            arch: The network.
            examples: Number of training examples.
            epochs: Number of epochs.
        """
        batch = self.config.batch_size
        steps = epochs * math.ceil(examples / batch)
        count, trained = operators(arch), steps * step(arch, batch) + epochs * EPOCH
        return Work(trained, TRACED * count, FILE + FILE_OPERATOR * count)


def mean_work(works: Sequence[Work], networks: int = 1) -> Work:
    """Returns the mean work of networks.

    Args:
        works: Their works.
        networks: Number of networks of the result.
    """
    names = ("steps", "first", "last")
    means = {name: float(np.mean([getattr(each, name) for each in works])) for name in names}
    return Work(**means, networks=networks)


def step(arch: Architecture, batch: int) -> float:
    """Returns the work of a training step.

    Args:
        arch: The network.
        batch: Number of examples.
    """
    found = _operators(arch)
    if found is None:
        return 1.0
    elements = sum(math.prod(each.output) for each in found.operators)
    an_example = ELEMENT * elements + MAC * macs(found)
    return OPERATOR * len(found.operators) + batch * an_example


def operators(arch: Architecture) -> int:
    """Returns the number of operators of a network's file; 1: it is not known.

    Args:
        arch: The network.
    """
    found = _operators(arch)
    return 1 if found is None else len(found.operators)


def _operators(arch: Architecture) -> Operators | None:
    return operators_of_architecture(dataclasses.replace(arch, compression=None))
