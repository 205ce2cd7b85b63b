"""The tuners of the three algorithms; they differ in their default sampler."""

from __future__ import annotations

from typing import ClassVar

from tfnas.nas.samplers.evolution import EvolutionSampler
from tfnas.nas.samplers.random_search import RandomSampler
from tfnas.nas.samplers.reinforce import ReinforceSampler
from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.tuner import MeasuredTuner


class EvolutionTuner(MeasuredTuner):
    """Searches for small, fast and accurate `.tflite` files by evolution.

    Each trial builds an architecture, trains it, converts it and measures its file. With one
    objective the search is aging evolution, with several it is NSGA-II; see
    :class:`tfnas.EvolutionSampler`.

    Example:
        >>> import tfnas
        >>> split = tfnas.data.load("digits")
        >>> space = tfnas.MobileNetV2Space(split.input_shape, 10, "microcontroller")
        >>> tuner = tfnas.EvolutionTuner(
        ...     space,
        ...     objective=["file_accuracy", "latency_ratio"],
        ...     max_trials=8,
        ...     seed=0,
        ...     sampler=tfnas.EvolutionSampler(population_size=4, tournament_size=2),
        ...     limits={"size_bytes": 64 * 1024},
        ...     config=tfnas.TunerConfig(inherit=True),
        ...     directory="runs",
        ... )
        >>> tuner.search(  # doctest: +SKIP
        ...     split.x_train, split.y_train, epochs=3,
        ...     validation_data=(split.x_val, split.y_val))
        >>> tuner.pareto_front()
        []

    Args:
        hypermodel: A search space such as :class:`tfnas.MobileNetV2Space`, its
            `hypermodel(optimizer=..., loss=...)`, or any keras_tuner HyperModel or
            model-building function.
        objective: What is searched for. A metric of a trial ("reward", "file_accuracy",
            "latency_ratio", "size_bytes", "val_accuracy" and so on) or a `keras_tuner.Objective`;
            of a list the Pareto front is searched for. The default of a search space with a target
            latency in `config` is "reward": accuracy x (latency / target)^exponent, measured on the
            file; without a target it is ["file_accuracy", "latency_ratio"].
        max_trials: Number of trials.
        seed: Seed of proposals and trainings; None: a random one.
        sampler: The settings of the evolution, :class:`tfnas.EvolutionSampler`.
        limits: Metric -> bound to keep, such as `{"size_bytes": 65536}`.
        config: How trials are trained, converted, measured and run, :class:`tfnas.TunerConfig`.
        device: The device of the metrics `flash_bytes`, `ram_bytes` and `vela_...`,
            :class:`tfnas.Device`.
        **kwargs: Arguments of keras_tuner's Oracle (`hyperparameters`, `max_retries_per_trial`,
            ...) and Tuner (`directory`, `project_name`, `overwrite`, `executions_per_trial`, ...).

    Raises:
        ValueError: An argument is unknown or outside its rule; the message names it.

    References:
        Real et al., "Regularized Evolution for Image Classifier Architecture Search",
        AAAI 2019; Deb et al., "NSGA-II", 2002; Tan et al., "MnasNet", CVPR 2019. The arguments
        follow `keras_tuner.Tuner`.
    """

    default_sampler: ClassVar[type[Sampler]] = EvolutionSampler


class ReinforceTuner(MeasuredTuner):
    """Searches for small, fast and accurate `.tflite` files by reinforcement learning.

    Each trial builds an architecture, trains it, converts it and measures its file. A policy
    learns which decisions lead to good files; see :class:`tfnas.ReinforceSampler`.

    Example:
        >>> import tfnas
        >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
        >>> tuner = tfnas.ReinforceTuner(
        ...     space,
        ...     max_trials=24,
        ...     seed=0,
        ...     sampler=tfnas.ReinforceSampler(form="modifying"),
        ...     directory="runs",
        ...     project_name="rl",
        ... )
        >>> tuner.oracle.objectives.names, tuner.remaining_trials
        (('file_accuracy', 'latency_ratio'), 24)

    Args:
        hypermodel: As for :class:`tfnas.EvolutionTuner`.
        objective: As for :class:`tfnas.EvolutionTuner`.
        max_trials: Number of trials.
        seed: Seed of proposals and trainings; None: a random one.
        sampler: The settings of the policy, :class:`tfnas.ReinforceSampler`.
        limits: As for :class:`tfnas.EvolutionTuner`.
        config: As for :class:`tfnas.EvolutionTuner`.
        device: As for :class:`tfnas.EvolutionTuner`.
        **kwargs: As for :class:`tfnas.EvolutionTuner`.

    Raises:
        ValueError: An argument is unknown or outside its rule; the message names it.

    References:
        Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017;
        Cai et al., "Efficient Architecture Search by Network Transformation", AAAI 2018.
    """

    default_sampler: ClassVar[type[Sampler]] = ReinforceSampler


class RandomTuner(MeasuredTuner):
    """Searches for small, fast and accurate `.tflite` files by random search.

    Each trial builds a random architecture, trains it, converts it and measures its file. It is
    the baseline of the other tuners.

    Example:
        >>> import tfnas
        >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
        >>> tuner = tfnas.RandomTuner(
        ...     space, max_trials=8, seed=0, directory="runs", project_name="random"
        ... )
        >>> tuner.remaining_trials
        8

    Args:
        hypermodel: As for :class:`tfnas.EvolutionTuner`.
        objective: As for :class:`tfnas.EvolutionTuner`.
        max_trials: Number of trials.
        seed: Seed of proposals and trainings; None: a random one.
        sampler: A sampler of your own (:mod:`tfnas.nas.samplers.sampler`); None: random search.
        limits: As for :class:`tfnas.EvolutionTuner`.
        config: As for :class:`tfnas.EvolutionTuner`.
        device: As for :class:`tfnas.EvolutionTuner`.
        **kwargs: As for :class:`tfnas.EvolutionTuner`.

    Raises:
        ValueError: An argument is unknown or outside its rule; the message names it.

    References:
        Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search",
        UAI 2019.
    """

    default_sampler: ClassVar[type[Sampler]] = RandomSampler
