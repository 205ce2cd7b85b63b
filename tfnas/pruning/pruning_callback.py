"""Pruning during training: a callback for `fit`.

At the beginning of training each kernel gets a mask (see
:mod:`tfnas.pruning.mask_constraint`). At the beginning of an epoch, or of a batch for schedules
that count steps, the masks are updated if the sparsity of the schedule has changed. Between
two updates the masked weights are exactly zero after every optimizer step.

The masks depend on the weights and the position alone, so training that is interrupted and
restored (`BackupAndRestore`) continues with the same masks.

In one `fit` with a :class:`tfnas.ClusteringCallback` this callback must come first and the
sparsity must be constant; otherwise prune in a separate `fit` before clustering. A
quantization-aware model can be pruned with this callback, since training adapts its ranges, but
not with :func:`tfnas.prune`.

Steps are optimizer steps of this training, counted from its first epoch. A model that `fit`
builds is pruned after its first batch.

In the list of callbacks, place it after `EarlyStopping(restore_best_weights=True)`, and set
`start_from_epoch` of EarlyStopping to the end of the schedule. Otherwise EarlyStopping may
restore the weights of an epoch with a lower sparsity.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tfnas.data.data_types import ExampleData
from tfnas.data.reading import check_data
from tfnas.graph.compatibility import (
    check_disjoint,
    check_unshared,
    register_callback,
    unregister_callback,
)
from tfnas.graph.functional import Skipped
from tfnas.graph.layer_kernels import LayerSelection
from tfnas.pruning.criteria import WITH_DATA, Criterion, check_criterion
from tfnas.pruning.gradients import LossGradients
from tfnas.pruning.mask_constraint import apply_masks, assign_masks, attach
from tfnas.pruning.mask_plan import MaskPlan, Scope
from tfnas.pruning.prunable_kernels import PrunableKernel, find_kernels, select, trainable
from tfnas.pruning.pruning_report import PruningReport, report_of
from tfnas.schedules import Schedule, as_schedule, batches_per_step


class PruningCallback(keras.callbacks.Callback):
    """Prunes a model during training, by a sparsity schedule.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile("adam", "mse")
        >>> pruning = tfnas.PruningCallback(lambda epoch: 0 if epoch < 2 else 0.5)
        >>> data = np.zeros((64, 8)), np.zeros((64, 4))
        >>> history = model.fit(*data, epochs=4, verbose=0, callbacks=[pruning])
        >>> pruning.report.zeros, pruning.report.weights
        (16, 32)

    In a custom training loop use :class:`tfnas.CustomLoop`, which works with all callbacks, or
    call :meth:`after_step` after each optimizer step.

    Args:
        schedule: Fraction of zeros, in [0, 1): a function of the epoch, a schedule of
            :mod:`tfnas.schedules` or of tensorflow-model-optimization, or a number. If the
            sparsity falls, pruned weights can become nonzero again.
        criterion: "magnitude", "gradient", "taylor", "random", or a function of a kernel's
            weights; the lowest scores are pruned. See :mod:`tfnas.pruning.criteria`.
        granularity: "element"; blocks of (rows, columns) of the file's matrix such as "1x4"
            or "4x1"; N:M such as "2:4" along the file's innermost axis; or "filter". See
            :mod:`tfnas.pruning.masks`.
        scope: "layer" (the same sparsity in each layer), "global" (one threshold for all),
            "erk", or a dictionary that maps names or patterns of layers to sparsities. A layer
            of the dictionary has its sparsity when the schedule is at its peak, and
            proportionally less before; other layers follow the schedule. See
            :mod:`tfnas.pruning.scope`.
        layers: Layers to prune; None: every layer with a trainable kernel. Names, paths or
            patterns ("block_*"), layers, or classes of layers.
        exclude: Layers to leave unchanged, likewise; also "first", "last", "depthwise".
        data: Inputs and targets for "gradient" and "taylor": a tuple (x, y) of arrays such as
            (examples, height, width, channels) and (examples,), a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. A few hundred examples suffice.
        frequency: Number of epochs, or of steps for a schedule by step, between two updates of
            the masks. None: the schedule's own.
        loss: Loss for "gradient" and "taylor"; None: the loss that the model is compiled with.
        seed: Seed of the order of equal scores, and of "random".

    Raises:
        ValueError: An argument is out of range. Errors that depend on the model (a name that
            matches no layer, N:M that does not divide a kernel, a sparsity outside [0, 1)
            later in the schedule) are raised before the first step.

    References:
        Zhu and Gupta, "To prune, or not to prune", 2017.
    """

    def __init__(
        self,
        schedule: Schedule | Callable[[int], float] | float,
        criterion: Criterion = "magnitude",
        granularity: str | tuple[int, int] = "element",
        scope: Scope = "layer",
        layers: LayerSelection | None = None,
        exclude: LayerSelection = (),
        data: ExampleData | None = None,
        frequency: int | None = None,
        loss: str | Callable[..., Any] | None = None,
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
        self._pruned: Any = None  # the model of the kernels
        self._clustering: Any = None  # a ClusteringCallback in the same fit
        self._kernels: list[PrunableKernel] = []
        self._skipped: list[Skipped] = []
        self._gradients: LossGradients | None = None
        self._peak: float | None = None
        self._last_update: int | None = None
        self._sparsity: float | None = None
        self._steps = 0
        self._epoch = self._batches = self._length = 0

    @property
    def report(self) -> PruningReport:
        """Returns the present zeros of the model, and the skipped layers with the reason.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
            >>> pruning = tfnas.PruningCallback(0.75)
            >>> pruning.after_step(model, epoch=0)
            >>> print(pruning.report)
            layer  kind   kernel  note  weights  zeros  sparsity
            -----  -----  ------  ----  -------  -----  --------
            head   Dense  8x4                32     24    0.7500
            24 of 32 weights in 1 kernels are zero: sparsity 0.7500

        Raises:
            RuntimeError: Training has not started.
        """
        if self._pruned is None:
            raise RuntimeError("report is available after training has started")
        return report_of(self._kernels, self._skipped)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks the arguments against the model, and attaches the masks; Keras calls it.

        Example:
            >>> import keras, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
            >>> pruning = tfnas.PruningCallback(0.5)
            >>> callbacks = keras.callbacks.CallbackList([pruning], model=model, epochs=2)
            >>> callbacks.on_train_begin()
            >>> [kernel.name for kernel in pruning.kernels]
            ['head']

        Args:
            logs: Not used.

        Raises:
            ValueError: An argument does not fit the model.
        """
        self._pruned, self._epoch, self._batches, self._length = None, 0, 0, 0
        self._clustering = register_callback(self.model, "prune", self).get("cluster")
        if self.model.built:
            self._start(self.model, self._training_length())

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Updates the masks if the schedule is due; Keras calls it before each epoch.

        Example:
            >>> import keras, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> pruning = tfnas.PruningCallback(lambda epoch: 0.25 * epoch)
            >>> callbacks = keras.callbacks.CallbackList([pruning], model=model, epochs=3)
            >>> callbacks.on_train_begin()
            >>> for epoch in range(3):
            ...     callbacks.on_epoch_begin(epoch)
            ...     print(pruning.report.sparsity)
            0.0
            0.25
            0.5

        Args:
            epoch: Number of the epoch, from 0.
            logs: Not used.
        """
        # In the first epoch `fit` may not know the number of steps.
        self._length = (self.params or {}).get("steps") or self._batches
        self._epoch, self._batches = epoch, 0
        if self._pruned is not None:
            self._update(self._position())

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Updates the masks of schedules that count steps; Keras calls it before each batch.

        Example:
            >>> import keras, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> pruning = tfnas.PruningCallback(tfnas.schedules.constant(0.5, begin=1, by="step"))
            >>> callbacks = keras.callbacks.CallbackList([pruning], model=model, epochs=1, steps=2)
            >>> callbacks.on_train_begin()
            >>> callbacks.on_epoch_begin(0)
            >>> for batch in range(2):
            ...     callbacks.on_train_batch_begin(batch)
            ...     print(pruning.report.sparsity)
            0.0
            0.5

        Args:
            batch: Number of the batch in the epoch, from 0.
            logs: Not used.
        """
        self._batches = batch
        if self._pruned is not None and self.schedule.unit == "step":
            self._update(self._position())

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts pruning after the first batch if that batch built the model; Keras calls it.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.layers.Dense(4)])
            >>> pruning = tfnas.PruningCallback(0.5)
            >>> callbacks = keras.callbacks.CallbackList([pruning], model=model, epochs=1, steps=1)
            >>> callbacks.on_train_begin()
            >>> outputs = model(np.ones((2, 8)))
            >>> callbacks.on_train_batch_end(0)
            >>> pruning.report.zeros
            16

        Args:
            batch: Number of the batch in the epoch, from 0.
            logs: Not used.

        Raises:
            ValueError: An argument does not fit the model.
        """
        self._batches = batch + 1
        if self._pruned is None:
            self._start(self.model, self._training_length())
            self._update(self._position())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes `logs["sparsity"]`, which callbacks after this one read; Keras calls it.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> model.compile("sgd", "mse")
            >>> data = np.zeros((64, 8)), np.zeros((64, 4))
            >>> pruning = tfnas.PruningCallback(lambda epoch: 0.25 * epoch)
            >>> model.fit(*data, epochs=3, verbose=0, callbacks=[pruning]).history["sparsity"]
            [0.0, 0.25, 0.5]

        Args:
            epoch: Number of the epoch, from 0.
            logs: Gets the fraction of zeros of the kernels that are pruned.
        """
        if logs is not None and self._pruned is not None:
            logs["sparsity"] = self.report.sparsity

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Applies the masks to weights that were averaged or restored at the end; Keras calls it.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> pruning = tfnas.PruningCallback(0.5)
            >>> callbacks = keras.callbacks.CallbackList([pruning], model=model, epochs=1)
            >>> callbacks.on_train_begin()
            >>> callbacks.on_epoch_begin(0)
            >>> model.set_weights([np.ones((8, 4)), np.zeros(4)])
            >>> callbacks.on_train_end()
            >>> pruning.report.zeros
            16

        Args:
            logs: Not used.
        """
        apply_masks(self._kernels)
        unregister_callback(self.model, "prune")

    def after_step(self, model: keras.Model, epoch: int) -> None:
        """Updates and applies the masks in a custom training loop, after each optimizer step.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> pruning = tfnas.PruningCallback(0.5)
            >>> optimizer = keras.optimizers.SGD(0.1)
            >>> kernel, bias = model.trainable_variables
            >>> for _ in range(3):
            ...     optimizer.apply([np.ones((8, 4)), np.ones(4)], [kernel, bias])
            ...     pruning.after_step(model, epoch=0)
            >>> int((np.asarray(kernel) == 0).sum())
            16

        Args:
            model: The model in training, built.
            epoch: Number of the epoch, from 0.

        Raises:
            ValueError: As for the class.
        """
        if self._pruned is not model:
            has_epochs = self.schedule.unit == "epoch" and self.params
            self._start(model, self.params.get("epochs") if has_epochs else None)
            self._steps = 0
        self._steps += 1
        self._update(epoch if self.schedule.unit == "epoch" else self._steps)
        apply_masks(self._kernels)  # the step may have been traced before the masks were attached

    @property
    def kernels(self) -> tuple[PrunableKernel, ...]:
        """Returns the kernels that are pruned; none before training starts.

        Example:
            >>> import keras, tfnas
            >>> tfnas.PruningCallback(0.5).kernels
            ()
        """
        return tuple(self._kernels) if self._pruned is not None else ()

    def has_constant_sparsity(self) -> bool:
        """Returns whether the sparsity is the same at all epochs or steps of this training.

        Example:
            >>> import tfnas
            >>> tfnas.PruningCallback(0.5).has_constant_sparsity()
            True
        """
        end = None if self.schedule.end is None else self.schedule.end + 1
        counts = [count for count in (self._training_length(), end) if count is not None]
        sparsities = set(map(self.schedule, range(min(counts)))) if counts else {0.0, 1.0}
        return len(sparsities) <= 1

    def _start(self, model: Any, positions: int | None) -> None:
        kernels, none = find_kernels(model)
        kept, excluded = select(kernels, self.layers, self.exclude)
        if self.layers is None:
            kept, frozen = trainable(kept)
            excluded += frozen
        kept, unfit = self.plan.admit(kept)
        if self._clustering is not None:
            order = "a ClusteringCallback before a PruningCallback"
            check_disjoint(kept, self._clustering.kernels, order)
        for kernel in kept:
            check_unshared(kernel.name, kernel.numpy())
        self._check_schedule(kept, positions)
        attach(model, kept)
        self._pruned, self._kernels, self._skipped = model, kept, [*excluded, *unfit, *none]
        needed = self.plan.criterion in WITH_DATA
        self._gradients = LossGradients(model, kept, self.loss) if needed else None
        self._last_update = self._sparsity = None

    def _check_schedule(self, kernels: list[PrunableKernel], positions: int | None) -> None:
        self._peak = self.schedule.peak(positions)
        if self._peak is None:
            if isinstance(self.plan.scope, Mapping):
                raise ValueError(
                    "scope can be a dictionary only if the peak of the schedule is known: "
                    "use a schedule of tfnas.schedules, or call set_params({'epochs': n}) first"
                )
            return
        self.plan.check_reachable(self.plan.sparsities(kernels, self._peak))
        if positions is not None and self.schedule.end and self.schedule.end >= positions:
            warnings.warn(
                f"the schedule reaches its final sparsity at {self.schedule.unit} "
                f"{self.schedule.end}, after the last one of this training, {positions - 1}",
                stacklevel=2,
            )

    def _training_length(self) -> int | None:
        """The number of epochs or steps of this training, None if unknown."""
        epochs, steps = map((self.params or {}).get, ("epochs", "steps"))
        if self.schedule.unit == "epoch":
            return epochs
        return epochs * steps // batches_per_step(self.model) if epochs and steps else None

    def _position(self) -> int:
        """The present epoch or step, as `fit` counts them, also in continued training."""
        if self.schedule.unit == "epoch":
            return self._epoch
        return (self._epoch * self._length + self._batches) // batches_per_step(self.model)

    def _update(self, position: int) -> None:
        due = self.schedule.last_update(position)
        if due == self._last_update:
            return
        sparsity = self.schedule(position)
        if sparsity != self._sparsity:
            resumed = self._sparsity is None and position > 0
            assign_masks(self._kernels, self._masks(sparsity, resumed))
        self._last_update, self._sparsity = due, sparsity

    def _masks(self, sparsity: float, resumed: bool) -> list[np.ndarray]:
        """The masks for a sparsity; in resumed training, the present zeros if they match."""
        if not sparsity:
            return [np.ones(kernel.shape, bool) for kernel in self._kernels]
        gradients = None if self._gradients is None else self._gradients(self.data)
        weights = [kernel.numpy() for kernel in self._kernels]
        progress = sparsity / self._peak if self._peak else 1.0
        if resumed:
            present = self.plan.present_masks(self._kernels, weights, sparsity, progress)
            if present is not None:
                return present
        return self.plan.masks(self._kernels, weights, gradients, sparsity, progress)
