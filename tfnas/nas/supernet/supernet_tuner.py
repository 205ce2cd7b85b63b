"""The tuner of weight-sharing search: its trials are the finalists of a search over shared weights.

Beside the trials it keeps the training of the shared weights and the scores, see
:mod:`tfnas.nas.supernet.weight_sharing`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Unpack

import keras
import keras_tuner as kt
import numpy as np

from tfnas.graph.finite_loss import FiniteLoss
from tfnas.graph.tracing import TraceOnce
from tfnas.nas.keras_tuner_private import has_chief_oracle
from tfnas.nas.latency_prediction import LatencyPredictor
from tfnas.nas.metric_directions import KNOWN_DIRECTIONS
from tfnas.nas.objectives import ObjectiveLike, Objectives, objective_of
from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.samplers.evolution import EvolutionSampler
from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.search_callbacks import Phase
from tfnas.nas.supernet.finalists import FinalistSampler
from tfnas.nas.supernet.member_costs import LATENCIES, MemberCosts
from tfnas.nas.supernet.member_draws import MemberDraws
from tfnas.nas.supernet.rank_correlation import RankCorrelation, kept_correlation, trained_alone
from tfnas.nas.supernet.shared_training import read_header
from tfnas.nas.supernet.supernet_config import SupernetConfig
from tfnas.nas.supernet.supernet_files import ALONE, FOLDER, SHARED_WEIGHTS
from tfnas.nas.supernet.weight_sharing import WeightSharing, summary_of
from tfnas.nas.trial_runner import TrialTask
from tfnas.nas.tuner import MeasuredTuner
from tfnas.nas.tuner_arguments import KerasTunerArguments
from tfnas.nas.tuner_config import TunerConfig
from tfnas.runtime.folder_lock import owner_of
from tfnas.runtime.randomness import seeded
from tfnas.search_space.elastic import ElasticSpace
from tfnas.search_space.hypermodel import SpaceHyperModel
from tfnas.search_space.search_space import SearchSpace
from tfnas.targets.device import Device

SUPERNET_ACCURACY = "supernet_accuracy"
"""Metric of a trial: its accuracy with the shared weights, before its own training."""
LATENCY_SECONDS = 20.0  # to fit a latency model, where an objective or limit needs one


class SupernetTuner(MeasuredTuner):
    """Searches for small, fast and accurate `.tflite` files at the cost of about one training.

    One elastic network, which holds the weights of all networks of the space, is trained. With its
    weights the accuracy of a network is known without a training, and a sampler searches over
    many networks, with predicted latencies and the limits. The best ones are the trials: their
    weights are cut out, trained for `epochs` of :meth:`search`, converted and measured as those of
    other tuners. Each trial reports "supernet_accuracy", that with the shared weights.

    How well the order of networks by the shared weights agrees with that of networks which were
    trained alone depends on data, space and training: :meth:`rank_correlation` measures it.

    Example:
        >>> import tfnas
        >>> split = tfnas.data.load("digits")
        >>> space = tfnas.MobileNetV2Space(split.input_shape, 10, "microcontroller")
        >>> tuner = tfnas.SupernetTuner(
        ...     space,
        ...     max_trials=4,
        ...     seed=0,
        ...     supernet=tfnas.SupernetConfig(epochs=20, evaluations=500),
        ...     directory="runs",
        ...     project_name="supernet",
        ... )
        >>> tuner.search(  # doctest: +SKIP
        ...     split.x_train, split.y_train, epochs=2,
        ...     validation_data=(split.x_val, split.y_val))
        >>> tuner.remaining_trials
        4

    Args:
        hypermodel: A search space whose networks can share weights, such as
            :class:`tfnas.MobileNetV2Space`, or its `hypermodel(optimizer=..., loss=...)`. The
            optimizer is that of the trials; the loss is that of the shared weights too.
        objective: Metrics that tfnas measures, as for :class:`tfnas.EvolutionTuner`.
        max_trials: Number of finalists.
        seed: Seed of the shared weights, of proposals and trainings; None: a random one.
        sampler: Proposes the networks that are scored with the shared weights; None:
            :class:`tfnas.EvolutionSampler` with a population of 64 and no surrogate.
        limits: As for :class:`tfnas.EvolutionTuner`.
        config: As for :class:`tfnas.EvolutionTuner`. Where a latency is needed, a latency model is
            fitted for 20 s if neither `latency_model` nor `latency_seconds` is set.
        device: As for :class:`tfnas.EvolutionTuner`.
        supernet: How the shared weights are trained and searched; None: the defaults.
        **kwargs: As for :class:`tfnas.EvolutionTuner`.

    Raises:
        ValueError: An argument is unknown or outside its rule; the message names it.

    References:
        Cai et al., "Once-for-All", ICLR 2020; Yu et al., "BigNAS", ECCV 2020.
    """

    default_sampler: ClassVar[type[Sampler]] = FinalistSampler

    def __init__(
        self,
        hypermodel: SearchSpace | kt.HyperModel | None = None,
        objective: ObjectiveLike = None,
        max_trials: int | None = 8,
        seed: int | None = None,
        *,
        sampler: Sampler | None = None,
        limits: Mapping[str, float] | None = None,
        config: TunerConfig | None = None,
        device: Device | None = None,
        supernet: SupernetConfig | None = None,
        **kwargs: Unpack[KerasTunerArguments],
    ):
        if supernet is not None and not isinstance(supernet, SupernetConfig):
            raise ValueError(f"supernet must be a tfnas.SupernetConfig, got {supernet!r}")
        if sampler is not None and not isinstance(sampler, Sampler):
            raise ValueError(
                f"sampler must be a tfnas.nas.samplers.sampler.Sampler, got {sampler!r}"
            )
        self.supernet = supernet or SupernetConfig()
        self.member_sampler = sampler or EvolutionSampler(population_size=64, children=1)
        self.draws: MemberDraws | None = None
        """Draws the networks of a step, once the shared weights exist."""
        self._accuracies: dict[str, float] = {}
        self._weights: dict[str, str] = {}
        super().__init__(
            hypermodel,
            objective,
            max_trials,
            seed,
            limits=limits,
            config=_with_latency_model(config, objective, limits),
            device=device,
            **kwargs,
        )

    def check_settings(
        self, oracle: SpaceOracle, model: kt.HyperModel | None, executions: int
    ) -> None:
        """Checks arguments that depend on each other."""
        super().check_settings(oracle, model, executions)
        check_elastic(model)
        if oracle.max_trials is None:
            raise ValueError("max_trials must be the number of finalists, got None")
        for name, wrong in (("halving", self.config.halving), ("inherit", self.config.inherit)):
            if wrong:
                raise ValueError(
                    f"{name} must not be set with shared weights, from which all trials start, "
                    f"got {wrong!r}"
                )
        if self.config.patch_macs_ratio is not None:
            raise ValueError(
                "patch_macs_ratio must be None with shared weights, whose search counts the memory "
                "of thousands of networks without patches and would drop those that need them, got "
                f"{self.config.patch_macs_ratio!r}: tfnas.EvolutionTuner takes it"
            )
        if has_chief_oracle():
            raise ValueError(
                "SupernetTuner must run its trials here or on an executor, got keras_tuner's chief "
                "(KERASTUNER_ORACLE_IP is set): pass config=tfnas.TunerConfig(executor=...)"
            )
        if unknown := sorted(oracle.objectives.all_names - set(KNOWN_DIRECTIONS)):
            raise ValueError(
                f"objective must be a metric that is known of shared weights "
                f"({', '.join(KNOWN_DIRECTIONS)}), got {', '.join(unknown)}"
            )

    def predict_latencies(
        self, oracle: SpaceOracle, model: kt.HyperModel | None
    ) -> LatencyPredictor | None:
        """Predicts latencies, but not for the proposals of finalists."""
        predictor = super().predict_latencies(oracle, model)
        oracle.proposals.costs = None  # finalists keep the limits as far as that is known
        return predictor

    # ---- the search

    def prepare_trials(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Trains the shared weights, scores networks, and makes the best ones the trials."""
        super().prepare_trials(args, kwargs)
        if self.has_ended():
            return
        sharing = self.shared_weights(args, kwargs)
        finalists = sharing.finalists(self.oracle.max_trials, self.trial_callbacks.phase_progressed)
        self._accuracies = {each.architecture.key: each.accuracy for each in finalists}
        self._weights = {each.architecture.key: str(each.weights) for each in finalists}
        self.oracle.sampler.finalists = finalists
        self.oracle.max_trials = min(self.oracle.max_trials, len(finalists))

    def shared_weights(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        report: Callable[[Phase], None] | None = None,
    ) -> WeightSharing:
        """Returns the shared weights; they are trained if they were not.

        Args:
            args: Positional arguments of :meth:`search`.
            kwargs: Keyword arguments of :meth:`search`.
            report: Receives the progress; None: the callbacks of trials.
        """
        report = report or self.trial_callbacks.phase_progressed
        space, names = self.hypermodel.space, self.oracle.objectives.all_names
        predictor = self.latency_predictor if names & LATENCIES else None
        if predictor is not None:
            predictor.prepare(self.folder(), int(self.oracle.seed), report)
        sharing = WeightSharing(
            space,
            self.oracle.objectives,
            self.supernet,
            self.member_sampler,
            MemberCosts(space, self.config, self.device, names, predictor),
            self.runner.reward,
            self.target_ratio,
            self.folder(),
            int(self.oracle.seed),
        )
        self.draws = sharing.draws
        loss_model = self._compiled(space.smallest(np.random.default_rng(0)))
        sharing.train(loss_model, args, kwargs, report)
        return sharing

    @property
    def shared_epochs(self) -> int:
        """Number of epochs of the shared weights, once they are trained."""
        return int(read_header(self.folder() / FOLDER / SHARED_WEIGHTS)["epochs"])

    def _compiled(self, arch: Any) -> keras.Model:
        """A compiled model of an architecture."""
        hp = self.oracle.get_space()
        hp.values = {**hp.values, **self.hypermodel.space.values(arch)}
        return self.built_model(hp)

    def task_of(self, trial: kt.engine.trial.Trial) -> TrialTask:
        """Returns what a trial has to do, which begins with the shared weights."""
        task = super().task_of(trial)
        return dataclasses.replace(task, starts_from=self._weights[task.architecture.key])

    def build_and_fit_model(
        self, trial: kt.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        """Trains and measures one execution of a trial."""
        results = super().build_and_fit_model(trial, *args, **kwargs)
        return {**results, SUPERNET_ACCURACY: self._accuracies[self.oracle.architecture(trial).key]}

    # ---- how far the scores can be trusted

    def rank_correlation(self, networks: int, *fit_args: Any, **fit_kwargs: Any) -> RankCorrelation:
        """Trains random networks alone, and compares their order with that of their scores.

        Each network's accuracies are kept, so that an interrupted call goes on.

        Example:
            >>> tuner.rank_correlation(  # doctest: +SKIP
            ...     30, x_train, y_train, epochs=20, validation_data=(x_val, y_val)
            ... )

        Args:
            networks: Number of networks, at least 3.
            *fit_args: Positional arguments of :meth:`search`.
            **fit_kwargs: Keyword arguments of :meth:`search`, with the `epochs` of each network.

        Returns:
            Kendall's rank correlation with its interval.

        Raises:
            ValueError: There are fewer than 3 networks, or no validation data.
        """
        if networks < 3:
            raise ValueError(f"networks must be at least 3, got {networks!r}")
        if fit_kwargs.get("validation_data") is None:
            raise ValueError("validation_data must be given, got None: accuracies are of it")
        callbacks = list(fit_kwargs.pop("callbacks", None) or ())
        options = {**fit_kwargs, "validation_data": None, "verbose": 0}

        def train(arch: Any) -> keras.Model:
            model = self._compiled(arch)
            model.fit(*fit_args, **options, callbacks=[FiniteLoss(), *callbacks, TraceOnce()])
            return model

        with owner_of(self.folder()), seeded(int(self.oracle.seed)):
            sharing = self.shared_weights(fit_args, fit_kwargs)
            return trained_alone(sharing, networks, train, fit_kwargs["validation_data"])

    def measured_correlation(self) -> RankCorrelation | None:
        """Returns what :meth:`rank_correlation` has measured so far; None: nothing."""
        return kept_correlation(self.folder() / FOLDER / ALONE)

    def sharing_summary(self) -> str:
        """Returns a paragraph on the shared weights, from the files of the search."""
        correlation, summary = self.measured_correlation(), summary_of(self.folder() / FOLDER)
        if correlation is None:
            return (
                f"{summary} Whether networks that are trained alone have the same order as their "
                "scores was not measured (rank_networks=30 of a search does)."
            )
        return (
            f"{summary} Order of the scores against that of networks trained alone: {correlation}; "
            "1 is the same order, 0 is chance."
        )

    # ---- the state

    def get_state(self) -> dict[str, Any]:
        """Returns the state that a resumed search needs."""
        return {**super().get_state(), "supernet": dataclasses.asdict(self.supernet)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state; the settings of the shared weights must be the same.

        Raises:
            ValueError: A setting of the search has another value than in the state.
        """
        super().set_state(state)
        kept, current = state.get("supernet"), dataclasses.asdict(self.supernet)
        if kept != current:
            raise ValueError(
                f"supernet of the search in {self.project_dir!r} is {kept}, got {current}: scores "
                "would not be comparable"
            )


def check_elastic(model: Any) -> None:
    """Checks that the networks of a hypermodel can share weights.

    Args:
        model: The hypermodel of a tuner.

    Raises:
        ValueError: They can't; the message says why.
    """
    if not isinstance(model, SpaceHyperModel) or not isinstance(model.space, ElasticSpace):
        kind = type(model.space if isinstance(model, SpaceHyperModel) else model).__name__
        raise ValueError(
            "hypermodel must be a search space whose networks can share weights "
            "(elastic_network, largest and smallest), such as tfnas.MobileNetV2Space, got "
            f"{kind}: tfnas.EvolutionTuner searches any hypermodel"
        )
    if type(model).fit is not kt.HyperModel.fit:
        raise ValueError(
            "hypermodel must train with Keras' own fit, as the shared weights are trained in a "
            f"loop of tfnas, got {type(model).__name__} with a fit of its own"
        )
    if getattr(model.space, "compression", None) is not None:
        raise ValueError(
            "hypermodel must be a space without compression, since shared weights don't know what "
            "it costs in accuracy, got one: search without, then call tfnas.compress"
        )


def _with_latency_model(
    config: TunerConfig | None, objective: ObjectiveLike, limits: Mapping[str, float] | None
) -> TunerConfig | None:
    """Settings that fit a latency model, where a latency is needed and none was passed."""
    if config is not None and not isinstance(config, TunerConfig):
        return config  # refused by the base class
    config = config or TunerConfig()
    default = config.default_objectives
    names = Objectives.of(objective_of(objective, default), limits).all_names
    known = config.latency_model is not None or config.latency_seconds is not None
    if known or not names & LATENCIES:
        return config
    return dataclasses.replace(config, latency_seconds=LATENCY_SECONDS)
