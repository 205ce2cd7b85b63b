"""The training of shared weights: epochs, learning rate, and a state that survives a kill."""

from __future__ import annotations

import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tfnas.graph.finite_loss import Diverged
from tfnas.nas.supernet.member_draws import MemberDraws
from tfnas.nas.supernet.sandwich_data import SandwichData
from tfnas.nas.supernet.sandwich_step import SandwichStep
from tfnas.nas.supernet.supernet_config import SupernetConfig
from tfnas.runtime.array_files import read_arrays, write_arrays
from tfnas.runtime.store import damage_named
from tfnas.search_space.elastic import ElasticNetwork

FORMAT = 2
EpochEnded = Callable[[int, int, Mapping[str, float]], None]


class SharedTraining:
    """Trains shared weights epoch by epoch.

    Args:
        draws: Draws the networks of a step.
        network: The shared weights, untrained.
        loss_model: A compiled model of the space.
        config: The settings.
        seed: Seed of the order of examples, the members and dropout.
        path: File of the state after each epoch.
    """

    def __init__(
        self,
        draws: MemberDraws,
        network: ElasticNetwork,
        loss_model: keras.Model,
        config: SupernetConfig,
        seed: int,
        path: pathlib.Path,
    ) -> None:
        self.draws, self.network, self.config, self.seed = draws, network, config, seed
        self.path = path
        optimizer = keras.optimizers.Adam(config.learning_rate)
        self.step = SandwichStep(network, loss_model, optimizer, config.label_weight)
        self.epoch, self.epochs, self.seconds = 0, config.epochs, 0.0

    def restore(self) -> bool:
        """Takes up the state of an earlier run, if there is one; returns whether it has ended.

        Raises:
            ValueError: The state is of another training.
        """
        if not self.path.exists():
            return False
        header, values = _read(self.path)
        if header["settings"] != self._settings():
            raise ValueError(
                f"the shared weights in {str(self.path)!r} must be of this search, "
                f"{self._settings()}, got those of {header['settings']}: overwrite the search"
            )
        shapes = [tuple(variable.shape) for variable in self.step.variables]
        if shapes != [value.shape for value in values]:
            raise ValueError(
                f"the shared weights in {str(self.path)!r} must be of this space, got those of "
                "another: overwrite the search"
            )
        self.step.restore(values)
        self.epoch, self.epochs = int(header["epoch"]), int(header["epochs"])
        self.seconds = float(header["seconds"])
        return self.epoch >= self.epochs

    def run(self, data: SandwichData, epoch_ended: EpochEnded = lambda *_: None) -> None:
        """Trains until the last epoch.

        Args:
            data: The training examples.
            epoch_ended: Called with the number of epochs that have ended, their number in all, and
                the mean losses of the epoch.

        Raises:
            Diverged: A loss is NaN or infinite.
        """
        steps = data.steps
        while self.epoch < self.epochs:
            started, first_step = time.monotonic(), 0.0
            rng = np.random.default_rng([self.seed, 1, self.epoch])
            losses: list[np.ndarray] = []
            for index, batch in enumerate(data.epoch(rng)):
                self._set_rate((self.epoch * steps + index) / (self.epochs * steps))
                dropout = (self.seed % 2**31, self.epoch * steps + index)
                losses.append(self.step(batch, self._members(rng), dropout))
                self._check(losses[-1])
                first_step = first_step or time.monotonic() - started
            if not losses:
                raise ValueError("x must hold at least one example, got none")
            self.seconds += time.monotonic() - started
            if self.epoch == 0 and self.config.seconds is not None:
                self._shorten(first_step, len(losses))
            self.epoch += 1
            self._write()
            means = np.mean(losses, axis=0)
            logs = {"loss": float(means.mean()), "teacher": float(means[0])}
            epoch_ended(self.epoch, self.epochs, {**logs, "smallest": float(means[1])})

    def _members(self, rng: np.random.Generator) -> np.ndarray:
        return np.stack([self.network.member(arch) for arch in self.draws(rng)])

    def _set_rate(self, progress: float) -> None:
        """The learning rate, which falls to 0 along half a cosine."""
        factor = 0.5 * (1.0 + math.cos(math.pi * progress))
        self.step.optimizer.learning_rate = self.config.learning_rate * factor

    def _check(self, losses: np.ndarray) -> None:
        if not np.isfinite(losses).all():
            raise Diverged(
                f"losses of the shared weights must stay finite, got {losses.tolist()} in epoch "
                f"{self.epoch + 1} of {self.epochs}: the training has diverged; a lower "
                "learning_rate of SupernetConfig may help"
            )

    def _shorten(self, first_step: float, steps: int) -> None:
        """Lowers the number of epochs to what the time allows; tracing is once."""
        assert self.config.seconds is not None
        rest = max(self.seconds - first_step, 1e-9)
        an_epoch = rest * steps / (steps - 1) if steps > 1 else self.seconds
        fitting = 1 + int(max(0.0, self.config.seconds - self.seconds) / an_epoch)
        self.epochs = min(self.config.epochs, fitting)

    def _settings(self) -> dict[str, Any]:
        config = self.config
        return {
            "format": FORMAT,
            "seed": self.seed,
            "epochs": config.epochs,
            "seconds": config.seconds,
            "random_members": config.random_members,
            "learning_rate": config.learning_rate,
            "label_weight": config.label_weight,
        }

    def _write(self) -> None:
        header = {
            "settings": self._settings(),
            "epoch": self.epoch,
            "epochs": self.epochs,
            "seconds": self.seconds,
        }
        values = {f"{n:03}": np.asarray(v) for n, v in enumerate(self.step.variables)}
        write_arrays(self.path, {"header": np.array(json.dumps(header)), **values})


def read_header(path: pathlib.Path) -> dict[str, Any]:
    """Returns the settings and the progress of the training in a file.

    Args:
        path: The file.

    Raises:
        ValueError: It was damaged.
    """
    return _read(path)[0]


def _read(path: pathlib.Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The settings and the progress, and the values of the variables."""
    with damage_named(path, "training of shared weights"):
        arrays = read_arrays(path)
        header = json.loads(str(arrays.pop("header")))
        for name in ("epoch", "epochs", "seconds"):
            float(header[name])
        return dict(header), [arrays[name] for name in sorted(arrays)]
