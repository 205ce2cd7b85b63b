"""How much work the parts of a search are, before they run, for an estimate of its time.

The unit is an element of a layer's output in a training step. A call of a layer costs some more,
whatever the size of its output; so do the first steps of a network, which are traced, and its file.
The constants were measured on small networks (decision 88); the seconds of a unit are measured in
each search.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from tfnas.data.data_split import DataSplit
from tfnas.jobs.time_left import TRIALS
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.supernet.supernet_tuner import SupernetTuner
from tfnas.nas.supernet.weight_sharing import SCORING, TRAINING
from tfnas.nas.tuner import MeasuredTuner
from tfnas.search_space.architecture import Architecture, mobilenet_v2
from tfnas.search_space.mobilenet_v2 import MobileNetV2Space
from tfnas.tflite.network_operators import operators_of_architecture

CALL = 2.0e5  # a call of a layer in a step
LAYERS = 2.5  # layers of a Keras model for an operator of its file
ELASTIC = 2.5  # calls of shared weights for one of a network alone
FORWARD = 1 / 3  # a prediction for a training step
TRACED = 200  # steps whose calls take as long as tracing the first
FILE = 200  # the same of converting and measuring
SCORED = 256  # examples of a batch of scores
_DRAWN = 16  # steps, or networks, that a mean is taken of


MEASURING = "measuring on the test part"


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

    def parts(self) -> dict[str, float]:
        """Returns the work of each part, in the order in which they run."""
        config, networks = self.config, self._networks()

        def trained(examples: int, epochs: int) -> float:
            return float(np.mean([self.trained(arch, examples, epochs) for arch in networks]))

        examples, epochs = self._final()
        a_network = trained(examples, epochs)
        found = {
            **self._shared(),
            TRIALS: config.max_trials * trained(self.training, config.epochs),
        }
        if config.final_epochs:
            found[training_again(config)] = a_network
        if config.baseline:
            found[comparison(0)] = self.trained(baseline(self.space), examples, epochs)
        found |= {comparison(n): a_network for n in range(1, config.random_candidates + 1)}
        files = 2 + config.baseline + config.random_candidates
        found[MEASURING] = files * FILE * float(np.mean([step(arch, 0) for arch in networks]))
        if config.rank_networks:
            found[training_alone(config)] = config.rank_networks * a_network
        return found

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
