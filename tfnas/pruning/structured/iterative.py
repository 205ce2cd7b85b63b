"""Iterative structured pruning: several small steps with fine-tuning after each.

A network that loses half of its channels at once becomes worse than one that is fine-tuned
between smaller steps. :class:`ChannelPruning` lowers the MACs by the same factor in each step,
prunes, and passes the smaller model to the caller's `fit`. With a folder each finished step is
saved, and an interrupted run continues after the last saved step.
"""

from __future__ import annotations

import json
import numbers
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tfnas.graph.functional import LayerCopies, walk
from tfnas.graph.functional_form import as_functional
from tfnas.graph.model_class import own_objects
from tfnas.pruning.structured.channel_groups import trace
from tfnas.pruning.structured.channel_report import ChannelPruningReport
from tfnas.pruning.structured.prune_channels import excluded, prune_channels
from tfnas.pruning.structured.remaining_cost import RemainingCosts
from tfnas.runtime.files import model_digest, save_model, write_atomically
from tfnas.runtime.store import damage_named, read_json_object

if TYPE_CHECKING:
    import keras

_STATE, _KIND = "channel_pruning.json", "run of channel pruning"


class ChannelPruning:
    """Prunes channels in several steps and fine-tunes the model after each.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> layers = [keras.layers.Conv2D(16, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        >>> def fit(smaller, step):
        ...     smaller.compile("adam", "mse")
        ...     smaller.fit(np.zeros((8, 8, 8, 3)), np.zeros((8, 2)), verbose=0)
        >>> smaller, reports = tfnas.ChannelPruning(model, 0.5, steps=2, fit=fit).run()
        >>> len(reports), reports[-1].macs[1] <= 0.5 * reports[0].macs[0]
        (2, True)

    Args:
        model: A Keras 3 model; it is not changed.
        target_macs: MACs of the final model per example, as a fraction of those of `model`, in
            (0, 1).
        steps: Number of steps, at least 1.
        fit: Function (model, step) that trains the model in place, or returns a trained
            model; steps count from 1. It may distill from the unpruned model.
        folder: Directory for the finished steps, from which a later run with the same model,
            target and options continues; None: steps are not saved.
        options: Further arguments of :func:`tfnas.prune_channels`.

    Raises:
        ValueError: An argument is out of range.

    References:
        Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient
        Inference", ICLR 2017, for pruning in turns with fine-tuning.
    """

    def __init__(
        self,
        model: keras.Model,
        target_macs: float,
        *,
        steps: int,
        fit: Callable[[keras.Model, int], keras.Model | None],
        folder: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        number = isinstance(target_macs, numbers.Real) and not isinstance(target_macs, bool)
        if not number or not 0 < target_macs < 1:
            raise ValueError(f"target_macs must be in (0, 1), got {target_macs!r}")
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"steps must be a whole number from 1 on, got {steps!r}")
        if not callable(fit):
            raise ValueError(f"fit must take a model and a step, got {fit!r}")
        model = as_functional(model, options.get("data"))
        self.model, self.fit, self.steps = model, fit, steps
        self.folder = None if folder is None else pathlib.Path(folder)
        loss = getattr(model, "loss", None)
        if options.get("loss") is None and (callable(loss) or isinstance(loss, str)):
            options["loss"] = loss  # the smaller models are not compiled
        self._options = options
        self._later = {**options, "exclude": _names_when_flat(model, options.get("exclude", ()))}
        dependencies = trace(model)
        costs = RemainingCosts(dependencies, model.count_params())
        macs = costs.macs(costs.nothing)
        self.targets = tuple(
            int(macs * target_macs ** (step / steps)) for step in range(1, steps + 1)
        )
        # Raises now for bad arguments, instead of after the first steps.
        prune_channels(model, target_macs=self.targets[-1], **options)

    def run(self) -> tuple[keras.Model, list[ChannelPruningReport]]:
        """Prunes and fine-tunes, step by step; steps that the folder holds are not repeated.

        Example:
            >>> import keras, tfnas
            >>> layers = [keras.layers.Dense(8, name="a"), keras.layers.Dense(2)]
            >>> model = keras.Sequential([keras.Input((4,)), *layers])
            >>> fine_tune = lambda smaller, step: smaller
            >>> smaller, _ = tfnas.ChannelPruning(model, 0.5, steps=2, fit=fine_tune).run()
            >>> smaller.get_layer("a").units
            4

        Returns:
            The final model, and the report of each step.

        Raises:
            ValueError: The folder holds the steps of another run, or its file was damaged.
        """
        reports = self._finished()
        done, model = len(reports), self.model
        if done:
            model = _loaded(self._path(done), self.model)
        for step in range(done + 1, self.steps + 1):
            model, report = self._pruned(model, step)
            trained = self.fit(model, step)
            model = model if trained is None else trained
            reports.append(report)
            self._save(model, reports)
        return model, reports

    def _pruned(self, model: keras.Model, step: int) -> tuple[keras.Model, ChannelPruningReport]:
        options = self._options if step == 1 else self._later
        return prune_channels(model, target_macs=self.targets[step - 1], **options)

    def _path(self, step: int) -> pathlib.Path:
        assert self.folder is not None
        return self.folder / f"step_{step}.keras"

    def _finished(self) -> list[ChannelPruningReport]:
        """The reports of the saved steps; raises ValueError if they are of another run."""
        if self.folder is None or not (self.folder / _STATE).exists():
            return []
        path = self.folder / _STATE
        with damage_named(path, _KIND):
            state = read_json_object(path, _KIND)
            if unknown := sorted(set(state) - {"run", "reports"}):
                raise ValueError(f"unknown key: {', '.join(unknown)}")
            saved, reports = state["run"], state["reports"]
            if not isinstance(saved, dict) or not isinstance(reports, list):
                raise ValueError("run must be a JSON object and reports a list")
            found = [ChannelPruningReport.of(report) for report in reports]
        own = json.loads(json.dumps(self._identity()))
        if differing := [name for name in own if saved.get(name) != own[name]]:
            raise ValueError(
                f"folder {str(self.folder)!r} must be empty or hold the steps of this run, got "
                f"a run with another {' and '.join(differing)}"
            )
        if len(found) > self.steps:
            raise ValueError(f"{path} must hold at most {self.steps} reports, got {len(found)}")
        return found

    def _identity(self) -> dict[str, Any]:
        """The values by which a run is recognized; the data and the loss are not compared."""
        plain = {k: v for k, v in self._options.items() if k not in ("data", "loss")}
        if not isinstance(criterion := plain.get("criterion", ""), str):
            plain["criterion"] = getattr(criterion, "__qualname__", type(criterion).__qualname__)
        return {
            "model": model_digest(self.model),
            "target": list(self.targets),
            "options": {k: list(v) if k == "exclude" else v for k, v in sorted(plain.items())},
        }

    def _save(self, model: Any, reports: Sequence[ChannelPruningReport]) -> None:
        if self.folder is None:
            return
        save_model(model, self._path(len(reports)))
        state = {"run": self._identity(), "reports": [report.as_dict() for report in reports]}
        write_atomically(self.folder / _STATE, json.dumps(state))


def _loaded(path: pathlib.Path, original: keras.Model) -> Any:
    """A saved model, compiled if Keras knows its loss and metrics; with the original's classes."""
    import keras

    objects = own_objects(original)
    try:
        return keras.saving.load_model(path, objects)
    except (TypeError, ValueError):  # a custom loss or metric
        return keras.saving.load_model(path, objects, compile=False)


def _names_when_flat(model: Any, patterns: Sequence[str]) -> list[str]:
    """The names of the excluded layers in the smaller models, which have no nested models."""
    import keras

    paths, copies = set(excluded(model, patterns)), LayerCopies()
    names: dict[int, str] = {}
    found = []
    for call in walk(model).calls:
        layer = call.operation
        if id(layer) not in names:
            is_layer = isinstance(layer, keras.layers.Layer)
            names[id(layer)] = copies.unique(layer.name) if is_layer else layer.name
        if call.name in paths:
            found.append(names[id(layer)])
    return found
