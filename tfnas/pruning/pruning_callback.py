"""Pruning while training: a callback for the `fit` that is already there.

When it acts: at the beginning of training it hangs a mask on every kernel (see
:mod:`tfnas.pruning.mask_constraint`); at the beginning of an epoch, or of a batch for schedules
that count steps, it renews the masks whenever the schedule's ratio has changed. Between two
renewals the masked weights are exactly zero after every step of the optimizer.

The masks follow from the weights and the position alone, so training that is interrupted
and restored (`BackupAndRestore`) goes on as if it had not been.

With a :class:`tfnas.ClusteringCallback` in one `fit` it goes only before that one, and with a
ratio that does not change; else prune in a `fit` of its own first. A quantization-aware model
may be pruned while it trains, not by :func:`tfnas.prune`: its ranges follow.

Steps are the optimizer's in this training, counted from its first epoch. A model that `fit`
builds is pruned after its first batch.

Put it after `EarlyStopping(restore_best_weights=True)` in the list of callbacks, and let
that one start once the schedule has ended (`start_from_epoch`): else it may give back the
weights of an epoch that was pruned less.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfnas.data.datasets import check_data
from tfnas.graph.compatibility import (
    check_disjoint,
    check_unshared,
    register_callback,
    unregister_callback,
)
from tfnas.graph.functional import Skipped
from tfnas.pruning.criteria import WITH_DATA, Criterion, check_criterion
from tfnas.pruning.gradients import LossGradients
from tfnas.pruning.mask_constraint import apply_masks, assign_masks, attach
from tfnas.pruning.mask_plan import MaskPlan, Scope
from tfnas.pruning.prunable_kernels import PrunableKernel, find_kernels, select, trainable
from tfnas.pruning.pruning_report import PruningReport, report_of
from tfnas.schedules import Schedule, as_schedule


class PruningCallback(keras.callbacks.Callback):
    """Prunes a model while it trains.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile("adam", "mse")
        >>> pruning = tfnas.PruningCallback(lambda epoch: 0 if epoch < 2 else 0.5)
        >>> data = np.zeros((64, 8)), np.zeros((64, 4))
        >>> history = model.fit(*data, epochs=4, verbose=0, callbacks=[pruning])
        >>> pruning.report.zeros, pruning.report.weights
        (16, 32)

    In a training loop of one's own, one call a step does the same::

        pruning = tfnas.PruningCallback(tfnas.schedules.polynomial(0.8, end=5))
        for epoch in range(10):
            for x, y in batches:
                train_step(x, y)
                pruning.after_step(model, epoch)

    Args:
        schedule: What share of weights is zero, in [0, 1): a function of the epoch, one of
            :mod:`tfnas.schedules`, a number, or a schedule object of
            tensorflow-model-optimization. A ratio that falls lets weights grow back.
        criterion: "magnitude", "gradient", "taylor", "random", or a function of a kernel's
            weights; the lowest scores go. See :mod:`tfnas.pruning.criteria`.
        granularity: "element"; blocks of (rows, columns) of the file's matrix such as "1x4"
            or "4x1"; N:M such as "2:4" along the file's innermost axis; or "filter". See
            :mod:`tfnas.pruning.masks`.
        scope: "layer" (the same ratio in each), "global" (one threshold), "erk", or a
            dictionary name or pattern -> ratio. A layer of the dictionary has its ratio
            when the schedule is at its highest, and less in proportion before; the others
            follow the schedule. See :mod:`tfnas.pruning.scope`.
        layers: What to prune; None: every layer with a kernel that is trained. Names, paths
            or patterns ("block_*"), layers, or classes of layers.
        exclude: What to leave alone, in the same terms; also "first", "last", "depthwise".
        data: Inputs and targets for "gradient" and "taylor": a tuple (x, y), a
            `tf.data.Dataset` or a `keras.utils.PyDataset`. A few hundred examples do.
        frequency: How many epochs, or steps for a schedule by step, lie between two
            renewals. None: 1 epoch, 100 steps, or the schedule's own.
        loss: The loss behind "gradient" and "taylor"; None: the one the model is compiled
            with.
        seed: Seed of draws among equal scores and of "random".

    Raises:
        ValueError: An argument is outside its rule. What depends on the model (a layer's
            name that matches nothing, N:M that does not divide, a ratio outside [0, 1)
            somewhere on the schedule) is raised before the first step.

    References:
        Zhu and Gupta, "To prune, or not to prune", 2017.
    """

    def __init__(
        self,
        schedule: Any,
        criterion: Criterion = "magnitude",
        granularity: Any = "element",
        scope: Scope = "layer",
        layers: Any = None,
        exclude: Any = (),
        data: Any = None,
        frequency: int | None = None,
        loss: Any = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_criterion(criterion, data)
        check_data(data)
        self.schedule: Schedule = as_schedule(schedule, frequency)
        self.plan = MaskPlan.of(criterion, granularity, scope, seed)
        self.layers = layers
        self.exclude = exclude
        self.data = data
        self.loss = loss
        self._pruned: Any = None  # the model that the kernels belong to
        self._clustering: Any = None  # a ClusteringCallback before this one in the same fit
        self._kernels: list[PrunableKernel] = []
        self._skipped: list[Skipped] = []
        self._gradients: LossGradients | None = None
        self._peak: float | None = None
        self._renewed: int | None = None
        self._ratio: float | None = None
        self._steps = 0
        self._epoch = self._batches = self._length = 0

    @property
    def report(self) -> PruningReport:
        """The zeros that the model holds now, and what was left alone, and why.

        Raises:
            RuntimeError: Training has not begun.
        """
        if self._pruned is None:
            raise RuntimeError("report is there once training has begun")
        return report_of(self._kernels, self._skipped)

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks everything that can be checked, and hangs the masks."""
        self._pruned, self._epoch, self._batches, self._length = None, 0, 0, 0
        self._clustering = register_callback(self.model, "prune", self).get("cluster")
        if self.model.built:
            self._begin(self.model, self._positions())

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Renews the masks where the schedule says so."""
        self._length = self.params.get("steps") or self._batches  # where fit does not know it
        self._epoch, self._batches = epoch, 0
        if self._pruned is not None:
            self._renew(self._position())

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Renews the masks of schedules that count steps."""
        self._batches = batch
        if self._pruned is not None and self.schedule.unit == "step":
            self._renew(self._position())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A model that its first batch builds is pruned from then on."""
        self._batches = batch + 1
        if self._pruned is None:
            self._begin(self.model, self._positions())
            self._renew(self._position())

    def on_train_end(self, logs: Any = None) -> None:
        """Masks once more: averaged or restored weights come after the last step."""
        apply_masks(self._kernels)
        unregister_callback(self.model, "prune")

    def after_step(self, model: Any, epoch: int) -> None:
        """Does all of it in a training loop of one's own; call it after each step.

        Args:
            model: The model that is trained, built.
            epoch: Number of the epoch, from 0.

        Raises:
            ValueError: As for the class.
        """
        if self._pruned is not model:
            known = self.schedule.unit == "epoch" and self.params
            self._begin(model, self.params.get("epochs") if known else None)
            self._steps = 0
        self._steps += 1
        self._renew(epoch if self.schedule.unit == "epoch" else self._steps)
        apply_masks(self._kernels)  # the step may have been traced before the masks were there

    @property
    def kernels(self) -> tuple[PrunableKernel, ...]:
        """The kernels that are pruned; none before the training of a model begins."""
        return tuple(self._kernels) if self._pruned is not None else ()

    def holds_ratio(self) -> bool:
        """Whether the ratio is the same from the first epoch or step of this training on."""
        end = None if self.schedule.end is None else self.schedule.end + 1
        known = [count for count in (self._positions(), end) if count is not None]
        ratios = set(map(self.schedule, range(min(known)))) if known else {0.0, 1.0}
        return len(ratios) <= 1

    def _begin(self, model: Any, positions: int | None) -> None:
        kernels, none = find_kernels(model)
        kept, excluded = select(kernels, self.layers, self.exclude)
        if self.layers is None:
            kept, frozen = trainable(kept)
            excluded += frozen
        kept, unfit = self.plan.admit(kept)
        if self._clustering is not None:
            got = "a ClusteringCallback before a PruningCallback"
            check_disjoint(kept, self._clustering.kernels, got)
        for kernel in kept:
            check_unshared(kernel.name, kernel.numpy())
        self._check_schedule(kept, positions)
        attach(model, kept)
        self._pruned, self._kernels, self._skipped = model, kept, [*excluded, *unfit, *none]
        needed = self.plan.criterion in WITH_DATA
        self._gradients = LossGradients(model, kept, self.loss) if needed else None
        self._renewed = self._ratio = None

    def _check_schedule(self, kernels: list[PrunableKernel], positions: int | None) -> None:
        self._peak = self.schedule.peak(positions)
        if self._peak is None:
            if isinstance(self.plan.scope, Mapping):
                raise ValueError(
                    "scope can be a dictionary only where the schedule's highest ratio is known: "
                    "take one of tfnas.schedules, or call set_params({'epochs': n}) first"
                )
            return
        self.plan.check_reachable(self.plan.ratios(kernels, self._peak))
        if positions is not None and self.schedule.end and self.schedule.end >= positions:
            warnings.warn(
                f"the schedule reaches its final ratio at {self.schedule.unit} "
                f"{self.schedule.end}, after the last one of this training, {positions - 1}",
                stacklevel=2,
            )

    def _positions(self) -> int | None:
        """How many epochs or steps this training has, None where that is unknown."""
        epochs, steps = self.params.get("epochs"), self.params.get("steps")
        if self.schedule.unit == "epoch":
            return epochs
        return epochs * steps // self._accumulated() if epochs and steps else None

    def _position(self) -> int:
        """Where training is, as `fit` counts epochs and batches, also when it goes on."""
        if self.schedule.unit == "epoch":
            return self._epoch
        return (self._epoch * self._length + self._batches) // self._accumulated()

    def _accumulated(self) -> int:
        """Batches of one step of the optimizer."""
        optimizer = getattr(self.model, "optimizer", None)
        inner = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
        return getattr(inner, "gradient_accumulation_steps", None) or 1

    def _renew(self, position: int) -> None:
        due = self.schedule.renewal(position)
        if due == self._renewed:
            return
        ratio = self.schedule(position)
        if ratio != self._ratio:
            resumed = self._ratio is None and position > 0
            assign_masks(self._kernels, self._masks(ratio, resumed))
        self._renewed, self._ratio = due, ratio

    def _masks(self, ratio: float, resumed: bool) -> list[np.ndarray]:
        """The masks of a ratio; where training goes on, the zeros that are there already."""
        if not ratio:
            return [np.ones(kernel.shape, bool) for kernel in self._kernels]
        gradients = None if self._gradients is None else self._gradients(self.data)
        weights = [kernel.numpy() for kernel in self._kernels]
        pace = ratio / self._peak if self._peak else 1.0
        if resumed:
            # Zeros of this plan are what magnitude prunes first: then it finds just them.
            by_size = dataclasses.replace(self.plan, criterion="magnitude")
            found = by_size.masks(self._kernels, weights, None, ratio, pace)
            there = [values != 0 for values in weights]
            if all(map(np.array_equal, found, there)):
                return there
        return self.plan.masks(self._kernels, weights, gradients, ratio, pace)
