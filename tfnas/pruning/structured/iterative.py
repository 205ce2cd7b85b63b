"""Shrinking in steps, with training between them.

A network that loses half of its channels at once loses what training between smaller steps
keeps. :class:`ChannelPruning` lowers the target by the same factor in each step, prunes, and
hands the smaller model to the caller's own `fit`. With a folder every finished step is on
disk, and a run that was killed goes on behind the last one.
"""

from __future__ import annotations

import json
import numbers
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from tfnas.graph.functional import LayerCopies, walk
from tfnas.pruning.structured.channel_groups import trace
from tfnas.pruning.structured.channel_report import ChannelPruningReport
from tfnas.pruning.structured.prune_channels import excluded, prune_channels
from tfnas.pruning.structured.remaining_cost import RemainingCosts
from tfnas.runtime.files import model_digest, save_model, write_atomically

_STATE = "channel_pruning.json"


class ChannelPruning:
    """Prunes channels in steps; see the module.

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
        model: A built functional or Sequential Keras 3 model; it stays as it is.
        target_macs: Share of its multiply-accumulates at the end, in (0, 1).
        steps: Number of steps, from 1 on.
        fit: Takes (model, step) and trains the model in place, or returns a trained one;
            step counts from 1. It may distill from the unpruned model.
        folder: Where finished steps are kept, so that a later run of the same model, target
            and options goes on behind them; None: nowhere.
        options: More arguments of :func:`tfnas.prune_channels`.

    Raises:
        ValueError: An argument is outside its rule, or the folder holds the steps of
            another run.
    """

    def __init__(
        self,
        model: Any,
        target_macs: float,
        *,
        steps: int,
        fit: Callable[[Any, int], Any],
        folder: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        number = isinstance(target_macs, numbers.Real) and not isinstance(target_macs, bool)
        if not number or not 0 < target_macs < 1:
            raise ValueError(f"target_macs must be a share in (0, 1), got {target_macs!r}")
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"steps must be a whole number from 1 on, got {steps!r}")
        if not callable(fit):
            raise ValueError(f"fit must take a model and a step, got {fit!r}")
        self.model, self.fit, self.steps = model, fit, steps
        self.folder = None if folder is None else pathlib.Path(folder)
        loss = getattr(model, "loss", None)
        if options.get("loss") is None and (callable(loss) or isinstance(loss, str)):
            options["loss"] = loss  # smaller models, and those from disk, are not compiled
        self._options = options
        self._later = {**options, "exclude": _names_when_flat(model, options.get("exclude", ()))}
        dependencies = trace(model)
        costs = RemainingCosts(dependencies, model.count_params())
        whole = costs.macs(costs.nothing)
        self.targets = tuple(
            int(whole * target_macs ** (step / steps)) for step in range(1, steps + 1)
        )
        prune_channels(model, target_macs=self.targets[-1], **options)  # every bad argument shows

    def run(self) -> tuple[Any, list[ChannelPruningReport]]:
        """Runs the steps that are left; returns the last model and all reports."""
        done = self._finished()
        model = self.model
        if done:
            model = _loaded(self._path(done))
        reports = [self._report(step) for step in range(1, done + 1)]
        for step in range(done + 1, self.steps + 1):
            model, report = prune_channels(
                model,
                target_macs=self.targets[step - 1],
                **(self._options if step == 1 else self._later),
            )
            trained = self.fit(model, step)
            model = model if trained is None else trained
            reports.append(report)
            self._keep(model, report, step)
        return model, reports

    def _path(self, step: int) -> pathlib.Path:
        assert self.folder is not None
        return self.folder / f"step_{step}.keras"

    def _finished(self) -> int:
        """How many steps the folder holds, after a look at whether they are of this run."""
        if self.folder is None or not (self.folder / _STATE).exists():
            return 0
        state = json.loads((self.folder / _STATE).read_text())
        kept, own = state.get("run", {}), self._identity()
        if differing := [name for name in own if kept.get(name) != own[name]]:
            raise ValueError(
                f"folder {str(self.folder)!r} must be empty or hold this run's steps, got one of "
                f"another {' and '.join(differing)}"
            )
        return len(state["reports"])

    def _identity(self) -> dict[str, Any]:
        """What makes two runs the same one; the data and the loss are the caller's affair."""
        plain = {k: v for k, v in self._options.items() if k not in ("data", "loss")}
        return {
            "model": model_digest(self.model),
            "target": list(self.targets),
            "options": {k: list(v) if k == "exclude" else v for k, v in sorted(plain.items())},
        }

    def _report(self, step: int) -> ChannelPruningReport:
        assert self.folder is not None
        state = json.loads((self.folder / _STATE).read_text())
        return ChannelPruningReport.of(state["reports"][step - 1])

    def _keep(self, model: Any, report: ChannelPruningReport, step: int) -> None:
        if self.folder is None:
            return
        save_model(model, self._path(step))
        told = self.folder / _STATE
        reports = json.loads(told.read_text())["reports"] if step > 1 else []
        state = {"run": self._identity(), "reports": [*reports, report.as_dict()]}
        write_atomically(told, json.dumps(state))


def _loaded(path: pathlib.Path) -> Any:
    """A step's model, compiled as it was where Keras can tell how."""
    import keras

    try:
        return keras.saving.load_model(path)
    except (TypeError, ValueError):  # a loss or metric of the caller's own
        return keras.saving.load_model(path, compile=False)


def _names_when_flat(model: Any, patterns: Sequence[str]) -> list[str]:
    """The names that ignored layers have in the smaller models, where no model is nested."""
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
