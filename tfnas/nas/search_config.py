"""The settings of a search: described once, for flags, checks and documentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tfnas.nas.supernet.supernet_config import SupernetConfig
from tfnas.search_space.compression_choices import CompressionSpace
from tfnas.settings_fields import check_options, documented, option, option_of

if TYPE_CHECKING:
    from tfnas.nas.metric_directions import Limit
    from tfnas.nas.samplers.sampler import Sampler

ALGORITHMS = ("evolution", "reinforce", "random", "supernet")
_OF_NETWORKS = (
    *("preset", "include_rescaling", "final_epochs", "learning_rate", "baseline"),
    *("random_candidates", "compression", "teacher", "latency_seconds"),
)
_OF_SUPERNETS = ("supernet_epochs", "supernet_seconds", "evaluations", "rank_networks")
_NOT_OF_SUPERNETS = (
    *("hypermodel", "halving", "min_epochs", "inherit", "compression", "teacher"),
    *("population_size", "tournament_size", "children", "form", "measure_on", "patch_macs_ratio"),
)
METRICS = (
    *("file_accuracy", "latency_ratio", "size_bytes", "macs", "parameters"),
    *("peak_activation_bytes", "gzip_bytes", "flash_bytes", "ram_bytes", "vela_ms"),
    *("vela_cycles", "vela_sram_bytes", "vela_flash_bytes", "vela_cpu_operators"),
    "delegated_macs",
)


@documented
@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The settings of a search, as they are kept in its folder.

    Example:
        >>> SearchConfig("digits", max_trials=12, epochs=4).algorithm
        'evolution'
    """

    dataset: str = option(help="name or path of the data set", flag=False)
    hypermodel: str | None = option(
        None,
        "module:function in the current folder, which takes keras_tuner's hp and returns a "
        "compiled model, or module:Class of a keras_tuner.HyperModel: its hyperparameters are "
        "searched instead of networks of the preset",
    )
    preset: str = option(
        "mobile", "preset of the search space", choices=("microcontroller", "mobile", "full")
    )
    include_rescaling: bool = option(
        True,
        "whether the networks scale the pixels of images, 0 to 255, themselves; not those of other "
        "values, such as spectrograms, which go in as they are, as series always do",
    )
    max_trials: int = option(
        20, "number of trials; of a supernet, of the finalists that are trained on", low=1
    )
    epochs: int = option(
        3,
        "epochs of a trial; with halving, of the highest rung; of a supernet, of a finalist, which "
        "starts from the shared weights",
        low=1,
    )
    halving: int | None = option(
        None,
        "reduction factor of successive halving: the best 1/halving of the trials train "
        "halving times as many epochs; each promotion counts as a trial",
        low=2,
    )
    min_epochs: int = option(1, "smallest number of epochs of the lowest rung of halving", low=1)
    final_epochs: int = option(
        0,
        "epochs that the best architecture is trained again for, on training and validation "
        "part; 0: the model of its trial is kept",
        low=0,
    )
    batch_size: int = option(64, "examples in a training step", low=1)
    learning_rate: float = option(
        3e-3, "initial learning rate of Adam, which decays along a cosine", low=0, open="low"
    )
    train_limit: int | None = option(
        None, "number of training examples used by trials; default: all", low=1
    )
    image_size: tuple[int, int] | None = option(
        None, "(height, width) in pixels that the images of a folder are resized to", flag=False
    )
    target_latency_ms: float | None = option(
        None, "target latency of the reward, in ms on this machine", low=0, open="low"
    )
    target_latency_ratio: float | None = option(
        None, "target latency of the reward, as a ratio to the reference model", low=0, open="low"
    )
    latency_exponent: float = option(
        -0.07, "exponent of the reward: accuracy x (latency/target)^exponent"
    )
    algorithm: str = option("evolution", "search algorithm", choices=ALGORITHMS)
    objectives: tuple[str, ...] = option(
        (),
        "objective: reward, or several metrics whose Pareto front is searched for "
        f"({', '.join(METRICS)}); default: reward with a target latency, without one file_accuracy "
        "and latency_ratio; of a hypermodel val_loss",
    )
    limits: Mapping[str, float] = option(
        help="metric -> bound that the winner and the Pareto front must keep",
        factory=dict,
        flag=False,
    )
    population_size: int = option(8, "population size of the evolution", low=1)
    tournament_size: int = option(3, "tournament size of the evolution", low=1)
    children: int | None = option(
        None,
        "number of proposals that a surrogate chooses from; 1: no surrogate; default: that of the "
        "algorithm",
        low=1,
    )
    form: str = option(
        "building",
        "whether the policy of the reinforcement learning builds or modifies architectures",
        choices=("building", "modifying"),
    )
    supernet_epochs: int = option_of(SupernetConfig, "epochs")
    supernet_seconds: float | None = option_of(SupernetConfig, "seconds")
    evaluations: int = option_of(SupernetConfig, "evaluations")
    rank_networks: int = option(
        0,
        "number of random networks that are trained alone, to measure how well a supernet's "
        "scores order networks; 0: not measured",
        low=0,
    )
    inherit: bool = option(False, "start children from their parent's weights")
    workers: int = option(
        0,
        "number of processes that run trials, so that a crash costs only its own trial; 0: trials "
        "run in this process",
        low=0,
    )
    trial_timeout: float | None = option(None, "time limit of a trial in s, with workers")
    threads: int = option(1, "threads of the latency measurement", low=1)
    measure_on: str | None = option(
        None,
        "device that latencies are measured on: ssh:USER@HOST, adb, adb:SERIAL or browser, perhaps "
        "with options such as ,python=venv/bin/python; default: this machine",
    )
    baseline: bool = option(True, "train MobileNetV2 0.35 to compare with")
    random_candidates: int = option(
        0, "number of random architectures of the winner's size to compare with", low=0
    )
    seed: int = option(0, "seed of all random numbers", low=0)
    patch_macs_ratio: float | None = option(
        None,
        "lets files that exceed a limit of ram_bytes compute in patches, which keep it, with at "
        "most this multiple of their multiply-accumulates, such as 1.5; default: no patches",
        low=1,
    )
    compression: CompressionSpace | None = option(
        None,
        "choices of pruning, clustering, low rank, number formats and distillation that are "
        "searched too; None: every network is converted to int8",
        flag=False,
    )
    teacher: str | None = option(
        None,
        "path of a trained .keras model, the teacher of compressions that distill; it takes the "
        "raw images of the data set",
    )
    accelerator: str = option(
        "ethos-u55-128", "NPU of the metrics vela_ms, vela_sram_bytes and so on", flag=False
    )
    runtime_flash: int = option(
        0, "flash that the firmware takes beside the file, in bytes", flag=False
    )
    runtime_ram: int = option(
        0, "RAM that the firmware takes beside the activations, in bytes", flag=False
    )
    latency_seconds: float | None = option(
        None, "time in s to fit a latency model of the space first, which predicts latencies"
    )

    def __post_init__(self) -> None:
        from tfnas.measure.elsewhere.named_device import timing_device
        from tfnas.measure.elsewhere.timing_device import TimingDevice
        from tfnas.nas.successive_halving import Halving
        from tfnas.nas.trial_patches import check_ram_limit
        from tfnas.targets.device import Device

        if isinstance(self.measure_on, TimingDevice):
            object.__setattr__(self, "measure_on", str(self.measure_on))
        check_options(self)
        measure_on = timing_device(self.measure_on)
        if measure_on is not None:
            measure_on.check_options(self.threads, xnnpack=True)
        if not self.objectives:
            object.__setattr__(self, "objectives", self._default_objectives())
        self._check_hypermodel()
        self._check_supernet()
        Halving(self.halving, self.min_epochs).set_epochs(self.epochs, self.max_trials)
        if self.trial_timeout is not None and not (self.workers and self.trial_timeout > 0):
            raise ValueError(
                f"trial_timeout must be above 0 s and needs workers, got {self.trial_timeout!r}"
            )
        may_distill = self.compression is not None and any(self.compression.distill)
        if may_distill != (self.teacher is not None):
            raise ValueError(
                "teacher must be given if and only if a choice of compression distills, "
                f"got {self.teacher!r}"
            )
        check_ram_limit(self.patch_macs_ratio, self.limits)
        if self.patch_macs_ratio is not None and self.latency_seconds is not None:
            raise ValueError(
                "patch_macs_ratio must be None with latency_seconds, whose predictions are of "
                f"files without patches, got {self.patch_macs_ratio!r}"
            )
        device = Device(self.accelerator, self.runtime_flash, self.runtime_ram)
        device.check_room({limit.name: limit.bound for limit in self._limits()})
        self._check_directions()

    def _limits(self) -> tuple[Limit, ...]:
        """The limits, once their names and those of the objectives are checked."""
        from tfnas.nas.metric_directions import (
            KNOWN_DIRECTIONS,
            check_names_of_networks,
            checked_limits,
        )

        if self.hypermodel is None:
            check_names_of_networks(self.objectives)
        named = dict.fromkeys((each.partition("=")[0] for each in self.objectives), "max")
        return checked_limits(self.limits, {**named, **KNOWN_DIRECTIONS})

    def _check_directions(self) -> None:
        """Checks that the direction of each objective is known; this loads keras_tuner."""
        from tfnas.nas.objectives import Objectives, objective_of

        Objectives.of(objective_of(list(self.objectives)), self.limits)

    def _default_objectives(self) -> tuple[str, ...]:
        """What is searched for where nothing was set."""
        from tfnas.nas.metric_directions import default_objectives

        if self.hypermodel is not None:
            return ("val_loss",)
        return default_objectives(self.target_latency_ms, self.target_latency_ratio)

    def _check_supernet(self) -> None:
        """Checks that no setting is of a supernet without one, or of other algorithms with one."""
        fields = {field.name: field for field in dataclasses.fields(self)}
        is_supernet = self.algorithm == "supernet"
        for name in _NOT_OF_SUPERNETS if is_supernet else _OF_SUPERNETS:
            value = getattr(self, name)
            if value != fields[name].default:
                rule = "must not be given with" if is_supernet else "needs"
                raise ValueError(f"{name} {rule} the algorithm 'supernet', got {value!r}")
        if 0 < self.rank_networks < 3:
            raise ValueError(f"rank_networks must be 0 or at least 3, got {self.rank_networks!r}")

    def _check_hypermodel(self) -> None:
        """Checks that no setting is of networks where the user's function builds the models."""
        if self.hypermodel is None:
            return
        check_hypermodel_name(self.hypermodel)
        fields = {field.name: field for field in dataclasses.fields(self)}
        for name in _OF_NETWORKS:
            if getattr(self, name) != fields[name].default:
                raise ValueError(
                    f"{name} must not be given with hypermodel, whose models are built and "
                    f"compiled by {self.hypermodel}, got {getattr(self, name)!r}"
                )


def check_hypermodel_name(name: str) -> None:
    """Checks the name of a hypermodel.

    Args:
        name: The name.

    Raises:
        ValueError: It has another form than module:function.
    """
    module, sign, attribute = name.partition(":")
    dotted = all(part.isidentifier() for part in module.split("."))
    if not (sign and attribute.isidentifier() and dotted):
        raise ValueError(
            f"hypermodel must be module:function, such as my_models:build, got {name!r}"
        )


def sampler_of(config: SearchConfig) -> Sampler | None:
    """Returns the sampler of a search's algorithm with its settings; None: that of its tuner.

    Args:
        config: The settings of the search.
    """
    from tfnas.nas.samplers.evolution import EvolutionSampler
    from tfnas.nas.samplers.random_search import RandomSampler
    from tfnas.nas.samplers.reinforce import ReinforceSampler

    if config.algorithm == "evolution":
        return EvolutionSampler(
            population_size=config.population_size,
            tournament_size=config.tournament_size,
            children=config.children or EvolutionSampler.children,
        )
    if config.algorithm == "supernet":
        return None
    if config.algorithm == "reinforce":
        children = config.children or ReinforceSampler.children
        return ReinforceSampler(form=config.form, children=children)
    return RandomSampler()
