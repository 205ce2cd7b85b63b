"""The settings of a tuner beyond those of keras_tuner, as one frozen record."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfnas.measure.elsewhere.named_device import timing_device
from tfnas.measure.elsewhere.timing_device import TimingDevice
from tfnas.measure.latency import DEFAULT_ROUNDS, check_rounds
from tfnas.measure.latency_model.latency_model import LatencyModel
from tfnas.nas.metric_directions import default_objectives
from tfnas.nas.reward import mnasnet_reward
from tfnas.nas.successive_halving import Halving
from tfnas.quantization.spec import QuantSpec
from tfnas.runtime.argument_rules import check_count
from tfnas.search_space.compression_choices import CompressionSpace
from tfnas.targets.patch_based import check_bounds

ExecutorFactory = Callable[[], concurrent.futures.Executor]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TunerConfig:
    """How the trials of a tuner are trained, converted, measured and run.

    Example:
        >>> import tfnas
        >>> config = tfnas.TunerConfig(target_latency_ratio=0.2, halving=3, inherit=True)
        >>> config.mode, config.threads
        ('int8', 1)
        >>> tfnas.TunerConfig(threads=0)
        Traceback (most recent call last):
        ValueError: threads must be a whole number >= 1, got 0

    Args:
        mode: Number format of the files that are measured; see :func:`tfnas.to_tflite`.
        target_latency_ms: Target latency of the reward, in ms on this machine. It is converted
            once to a ratio to the reference model, which is kept with the search.
        target_latency_ratio: The same as a ratio to the reference model.
        latency_exponent: Exponent of MnasNet's reward, at most 0.
        threads: Threads of the latency measurement.
        rounds: Interleaved rounds of the latency measurement.
        inherit: Whether a trial's model starts from the weights that overlap with those of its
            parent trial; the fraction of copied weights is reported as "inherited".
        halving: Reduction factor of successive halving: trials start with few epochs, and the best
            1/halving are trained longer (:mod:`tfnas.nas.successive_halving`). Trials then report
            "rung" and "epochs". None: all trials have the same epochs.
        min_epochs: Smallest number of epochs of the lowest rung.
        compression: Choices of pruning, clustering and so on, searched beside the hyperparameters
            of a hypermodel. A search space has its own, `MobileNetV2Space(compression=...)`. The
            epochs of a trial are split, and the searched number format replaces `mode`.
        teacher: The trained Keras model, or several, that networks with `distill` learn from; it
            takes the same inputs as the networks, (batch, height, width, channels).
        latency_model: A fitted latency model of the search space. Proposals that exceed a latency
            limit by its prediction are not tried, and the surrogate sees the predicted latency
            (:mod:`tfnas.nas.latency_prediction`). Trials are still measured.
        latency_seconds: Time to fit a latency model when the search begins, in s; instead of
            `latency_model`.
        measure_on: The device that latencies are measured on, as the argument of
            :func:`tfnas.benchmark`. None: the machine that runs the trial.
        patch_macs_ratio: Lets files that exceed a limit of `ram_bytes` compute in patches, which
            keep it, as :func:`tfnas.patch_based` does. The number is the most multiply-accumulates
            of such a file, as a multiple of those without patches, such as 1.5. Trials then report
            "patches". None: files have no patches.
        executor: An executor of `concurrent.futures`, or a function that creates one. Trials run
            on it, while this process keeps the oracle; see :class:`tfnas.TrialProcesses`.
        parallel: Number of trials at once on the executor; None: its number of workers.

    Raises:
        ValueError: A field is outside its rule; the message names it.

    References:
        Tan et al., "MnasNet", CVPR 2019 (the reward); Li et al., "A System for Massively Parallel
        Hyperparameter Tuning", MLSys 2020 (halving).
    """

    mode: str | QuantSpec = "int8"
    target_latency_ms: float | None = None
    target_latency_ratio: float | None = None
    latency_exponent: float = -0.07
    threads: int = 1
    rounds: int = DEFAULT_ROUNDS
    inherit: bool = False
    halving: int | None = None
    min_epochs: int = 1
    compression: CompressionSpace | None = None
    teacher: keras.Model | Sequence[keras.Model] | None = None
    latency_model: LatencyModel | None = None
    latency_seconds: float | None = None
    measure_on: TimingDevice | str | None = None
    patch_macs_ratio: float | None = None
    executor: concurrent.futures.Executor | ExecutorFactory | None = None
    parallel: int | None = None

    def __post_init__(self) -> None:
        QuantSpec.of(self.mode)
        self._check_target()
        mnasnet_reward(1.0, 1.0, 1.0, self.latency_exponent)  # checks the exponent
        check_rounds(self.rounds)
        check_count("threads", self.threads, 1)
        check_count("parallel", self.parallel, 1, optional=True)
        Halving(self.halving, self.min_epochs)
        if not isinstance(self.inherit, bool):
            raise ValueError(f"inherit must be True or False, got {self.inherit!r}")
        if self.compression is not None and not isinstance(self.compression, CompressionSpace):
            raise ValueError(
                f"compression must be a tfnas.CompressionSpace, got {self.compression!r}"
            )
        self._check_latency()
        self._check_patches()
        executor = self.executor
        if executor is not None and not (hasattr(executor, "submit") or callable(executor)):
            raise ValueError(
                "executor must be an executor of concurrent.futures or a function that creates "
                f"one, got {executor!r}"
            )

    def _check_target(self) -> None:
        milliseconds, ratio = self.target_latency_ms, self.target_latency_ratio
        if milliseconds is not None and ratio is not None:
            raise ValueError(
                "target_latency_ms and target_latency_ratio must not both be given, "
                f"got {milliseconds!r} and {ratio!r}"
            )
        for name, value in (("target_latency_ms", milliseconds), ("target_latency_ratio", ratio)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be above 0, got {value!r}")

    def _check_patches(self) -> None:
        ratio = self.patch_macs_ratio
        if ratio is None:
            return
        check_bounds(None, ratio, "patch_macs_ratio")
        if (self.latency_model or self.latency_seconds) is not None:
            raise ValueError(
                "patch_macs_ratio must be None with predicted latencies, which are those of files "
                f"without patches, got {ratio!r}"
            )

    def _check_latency(self) -> None:
        model, seconds = self.latency_model, self.latency_seconds
        predicted = "latency_seconds" if model is None else "latency_model"
        device = timing_device(self.measure_on)
        if device is not None:
            device.check_options(self.threads, xnnpack=True)
        if device is not None and (model or seconds) is not None:
            raise ValueError(
                f"measure_on must be None with {predicted}, which predicts latencies of this "
                f"machine, got {str(self.measure_on)!r}"
            )
        if model is not None and not (isinstance(model, LatencyModel) and model.fitted is not None):
            raise ValueError(
                "latency_model must be a fitted tfnas.LatencyModel, such as "
                f"tfnas.LatencyModel({self.spec.mode!r}).fit(space), got {model!r}"
            )
        if seconds is None:
            return
        if model is not None:
            raise ValueError(
                f"latency_seconds must be None with latency_model, which is fitted, got {seconds!r}"
            )
        real = isinstance(seconds, numbers.Real) and not isinstance(seconds, bool)
        if not real or not 0 < seconds < math.inf:
            raise ValueError(f"latency_seconds must be a finite number above 0, got {seconds!r}")

    @property
    def default_objectives(self) -> tuple[str, ...]:
        """What is searched for in a space where no objective is set."""
        return default_objectives(self.target_latency_ms, self.target_latency_ratio)

    @property
    def spec(self) -> QuantSpec:
        """Returns the number formats of the files; a searched compression has its own.

        Example:
            >>> TunerConfig(mode="float32").spec.mode
            'float32'
        """
        return QuantSpec.of(self.mode)

    def for_trials(self) -> TunerConfig:
        """Returns the settings that a trial needs; only these are sent to workers.

        Example:
            >>> TunerConfig(threads=2, parallel=4).for_trials().parallel is None
            True
        """
        nothing: dict[str, Any] = dict.fromkeys(
            ("executor", "parallel", "latency_model", "latency_seconds")
        )
        return dataclasses.replace(self, **nothing)
