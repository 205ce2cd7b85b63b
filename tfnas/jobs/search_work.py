"""How much work the parts of a search are, before they run, for an estimate of its time.

The unit is an element of a layer's output in a training step. A call of a layer costs some more,
whatever the size of its output; so do the first steps of a network, which are traced, and its file.
The constants were measured on small networks (decision 90); the seconds of a unit are measured in
each search.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.jobs.time_left import TRIALS
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.supernet.supernet_tuner import SupernetTuner
from tfnas.nas.supernet.weight_sharing import SCORING, TRAINING
from tfnas.nas.tuner import MeasuredTuner
from tfnas.search_space.architecture import Architecture
from tfnas.tflite.network_operators import operators_of_architecture

CALL = 2.0e5  # a call of a layer in a step
LAYERS = 2.5  # layers of a Keras model for an operator of its file
ELASTIC = 2.5  # calls of shared weights for one of a network alone
FORWARD = 1 / 3  # a prediction for a training step
TRACED = 200  # steps whose calls take as long as tracing the first
FILE = 200  # the same of converting and measuring
SCORED = 256  # examples of a batch of scores
_DRAWN = 16  # steps, or networks, that a mean is taken of


class SearchWork:
    """The work of the parts of a search.

    Args:
        config: The settings.
        tuner: The tuner.
        examples: Number of training, validation and all examples of the final training.
        final: Epochs of a network of the final comparison.
    """

    def __init__(
        self, config: SearchConfig, tuner: MeasuredTuner, examples: Sequence[int], final: int
    ) -> None:
        self.config, self.tuner, self.final = config, tuner, final
        self.training, self.validation, self.whole = examples
        self.space: Any = tuner.hypermodel.space

    def parts(
        self,
        again: str | None,
        compared: Mapping[str, Architecture | None],
        measured: str,
        alone: str,
    ) -> dict[str, float]:
        """Returns the work of each part, in the order in which they run.

        Args:
            again: Name of the part that trains the best again; None: there is none.
            compared: Name of each part that trains a network to compare with, and the network;
                None: a random one.
            measured: Name of the part that measures them all.
            alone: Name of the part that trains random networks alone.
        """
        config, networks = self.config, self._networks()
        a_trial = np.mean([self.trained(arch, self.training, config.epochs) for arch in networks])
        final = config.final_epochs or self.final
        examples = self.whole if config.final_epochs else self.training
        a_network = float(np.mean([self.trained(arch, examples, final) for arch in networks]))
        found = {**self._shared(), TRIALS: config.max_trials * float(a_trial)}
        if again is not None:
            found[again] = a_network
        for name, arch in compared.items():
            found[name] = a_network if arch is None else self.trained(arch, examples, final)
        files = 2 + len(compared)
        found[measured] = files * FILE * float(np.mean([step(arch, 0) for arch in networks]))
        if config.rank_networks:
            found[alone] = config.rank_networks * a_network
        return found

    def _networks(self) -> list[Architecture]:
        """Networks as the trials will be."""
        rng = np.random.default_rng(0)
        if isinstance(self.tuner, SupernetTuner) and self.tuner.draws is not None:
            return [self.tuner.draws.random(rng) for _ in range(_DRAWN)]
        return [self.space.sample(rng) for _ in range(_DRAWN)]

    def _shared(self) -> dict[str, float]:
        """The training and the scores of shared weights, if there are some."""
        if not isinstance(self.tuner, SupernetTuner) or self.tuner.draws is None:
            return {}
        rng, batch = np.random.default_rng(0), self.config.batch_size
        drawn = [self.tuner.draws(rng) for _ in range(_DRAWN)]
        a_step = np.mean([sum(step(arch, batch, ELASTIC) for arch in each) for each in drawn])
        steps = self.tuner.supernet.epochs * math.ceil(self.training / batch)
        settings = self.tuner.supernet
        scored = min(settings.score_examples, self.validation)
        batches = (scored + min(settings.calibration_examples, self.training)) / SCORED
        a_batch = np.mean([step(arch, SCORED, ELASTIC) for arch in self._networks()])
        return {
            TRAINING: steps * float(a_step),
            SCORING: settings.evaluations * FORWARD * batches * float(a_batch),
        }

    def trained(self, arch: Architecture, examples: int, epochs: int) -> float:
        """Returns the work of a network that is trained, converted and measured.

        Args:
            arch: The network.
            examples: Number of training examples.
            epochs: Number of epochs.
        """
        batch = self.config.batch_size
        steps = epochs * math.ceil(examples / batch)
        return steps * step(arch, batch) + (TRACED + FILE) * step(arch, 0)


def step(arch: Architecture, batch: int, calls: float = 1.0) -> float:
    """Returns the work of a training step.

    Args:
        arch: The network.
        batch: Number of examples.
        calls: Cost of a call of a layer, 1 for that of a Keras model.
    """
    found = operators_of_architecture(dataclasses.replace(arch, compression=None))
    if found is None:
        return 1.0
    elements = sum(math.prod(each.output) for each in found.operators)
    return LAYERS * (calls * CALL * len(found.operators) + batch * elements)
