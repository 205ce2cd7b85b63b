"""How much work the parts of a search are, before they run, for an estimate of its time.

The unit is a millisecond of the processor on which the constants were measured (decision 90): what
an operator costs in a training step whatever its size, what its output and its
multiply-accumulates add, and what is done once for a network. How long a unit takes is measured in
each search. How steps of shared weights compare with those of one network depends on the processor,
so a search that begins with shared weights first trains a small network for a moment.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnas.data.data_split import DataSplit
from tfnas.graph.tracing import TraceOnce
from tfnas.jobs.time_left import TRIALS, Sample, Work
from tfnas.measure.latency_model.features import macs
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.supernet.supernet_tuner import SupernetTuner
from tfnas.nas.supernet.weight_sharing import SCORING, TRAINING
from tfnas.nas.tuner import MeasuredTuner
from tfnas.runtime.randomness import seeded
from tfnas.search_space.architecture import Architecture, mobilenet_v2
from tfnas.search_space.hypermodel import compile_for_search
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
_SAMPLE_STEPS = 40  # at most, of the network that is trained for its pace
_SAMPLE_SECONDS = 1.0  # no step begins later after the first one, but for two more
_SAMPLE_STEP = 300.0  # work of a step at most: a larger batch is halved


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
            TRAINING: Work(steps * (float(a_step) + DRAWN), ELASTIC_TRACED * traced, kind=TRAINING),
            SCORING: Work(
                settings.evaluations * (FORWARD * batches * float(a_batch) + PROPOSED),
                SCORES_TRACED * traced,
                kind=SCORING,
            ),
        }

    def sample(self, now: Callable[[], float] = time.monotonic) -> Sample | None:
        """Trains a small network of the space for a moment, for the pace of those trained alone.

        Its first step, which is traced, takes a few seconds, and all others about one.

        Args:
            now: Returns the time in seconds.

        Returns:
            What it took; None: the search has no shared weights, or there was too little memory.
            Then the first trial will tell.
        """
        if not isinstance(self.tuner, SupernetTuner) or self.tuner.draws is None:
            return None
        batch = min(self.config.batch_size, self.training)
        arch = min(self._networks(), key=lambda each: step(each, batch))
        while batch > 1 and step(arch, batch) > _SAMPLE_STEP:
            batch //= 2
        clock = _Steps(now)
        with seeded(0):  # the search's own draws go on as before
            model = compile_for_search(self.space.build(arch))
            examples = np.zeros((batch, *self.space.input_shape), np.float32), np.zeros(batch, int)
            batches = tf.data.Dataset.from_tensors(examples).repeat(_SAMPLE_STEPS)
            try:
                model.fit(batches, shuffle=False, verbose=0, callbacks=[clock, TraceOnce()])
            except tf.errors.OpError:  # the search itself says what is wrong, if it fails too
                return None
        steps = len(clock.ends) - 1
        seconds = clock.ends[-1] - clock.ends[0]
        return Sample(
            Work(steps * step(arch, batch), TRACED * operators(arch)),
            steps=seconds,
            first=clock.ends[0] - clock.begun - seconds / steps,
        )

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


class _Steps(keras.callbacks.Callback):
    """Notes the time after each step, and stops after a moment."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now = now
        self.ends: list[float] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Keras' hook."""
        self.begun = self._now()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keras' hook."""
        self.ends.append(self._now())
        if batch == 0:
            self._after = time.monotonic()
        elif batch > 1 and time.monotonic() - self._after > _SAMPLE_SECONDS:
            self.model.stop_training = True


def mean_work(works: Sequence[Work], networks: int = 1) -> Work:
    """Returns the mean work of networks.

    Args:
        works: Their works.
        networks: Number of networks of the result.
    """
    names = ("steps", "first", "last")
    steps, first, last = (float(np.mean([getattr(each, name) for each in works])) for name in names)
    return Work(steps, first, last, networks)


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
