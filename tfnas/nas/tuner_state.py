"""The part of a tuner that keeps what a resumed search needs beside its trials, in one file."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from tfnas.measure.elsewhere.named_device import device_identity
from tfnas.nas.trial_files import check_tuner_state
from tfnas.nas.trial_results import TrialResults
from tfnas.nas.trial_runner import TrialRunner
from tfnas.nas.tuner_config import TunerConfig
from tfnas.runtime.files import write_atomically
from tfnas.runtime.store import damage_named, read_json_object
from tfnas.targets.device import Device


class TunerState(TrialResults):
    """A tuner whose settings are compared with those of an earlier run of its search."""

    config: TunerConfig
    device: Device
    runner: TrialRunner
    written: str | None
    """The text that was last written to the tuner's file."""

    @property
    def target_ratio(self) -> float | None:
        """Target latency of the reward as a ratio to the reference model, once it is known."""
        return self.runner.target_ratio

    def get_state(self) -> dict[str, Any]:
        """Returns the state that a resumed search needs, such as the target ratio."""
        kept = {"target_ratio": self.target_ratio, "epochs": self.oracle.halving.epochs}
        return {**super().get_state(), **kept, **self._kept_settings()}

    def reload(self) -> None:
        """Restores the search from its files, as keras_tuner does.

        Raises:
            ValueError: The tuner's own file was damaged, or a setting has another value in it.
        """
        if not self.is_worker:
            self.oracle.reload()
        state = read_json_object(self.state_path, "search")
        self.written = json.dumps(state)  # nothing is written while nothing changes
        with damage_named(self.state_path, "search"):
            check_tuner_state(state)
        self.set_state(state)

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the state that :meth:`get_state` returned.

        Args:
            state: The state.

        Raises:
            ValueError: A setting of the search has another value than in the state.
        """
        super().set_state(state)
        kept, current = state.get("target_ratio"), self.target_ratio
        target_ms = self.config.target_latency_ms
        if (current is not None and current != kept) or (target_ms and kept is None):
            raise ValueError(
                f"target_latency_ratio of the search in {self.project_dir!r} is {kept}, got "
                f"{current or f'{target_ms} ms'}: rewards would not be comparable"
            )
        # Searches of earlier versions measured on their own machine and had no patches.
        state = {"measure_on": None, "patch_macs_ratio": None, "patches_below": None, **state}
        for name, value in self._kept_settings().items():
            if state.get(name, value) != value:
                raise ValueError(
                    f"{name} of the search in {self.project_dir!r} is {state[name]!r}, "
                    f"got {value!r}: rewards would not be comparable"
                )
        self.runner.target_ratio = kept
        self.oracle.halving.epochs = state.get("epochs")

    def _kept_settings(self) -> dict[str, Any]:
        """The settings that must not change when a search is resumed."""
        config, patches = self.config, self.runner.patches
        return {
            "halving": config.halving,
            "min_epochs": config.min_epochs,
            "mode": config.spec.mode,
            "latency_exponent": config.latency_exponent,
            "threads": config.threads,
            "measure_on": device_identity(config.measure_on),
            "patch_macs_ratio": config.patch_macs_ratio,
            "patches_below": patches.max_ram_bytes if patches.used else None,  # bytes of RAM
            **dataclasses.asdict(self.device),
        }

    def save(self) -> None:
        """Writes the state of the tuner and of the oracle atomically, if it has changed."""
        if not self.is_worker:
            self.oracle.save()
        text = json.dumps(self.get_state())
        if text != self.written:
            write_atomically(self.state_path, text)
            self.written = text
