"""The pruning mask as a constraint of the kernel, applied after every optimizer step.

Keras optimizers apply a variable's `constraint` right after each update, inside the compiled
training step. So masked weights are zero also between the steps of one execution
(`steps_per_execution`), where callbacks are not called, and after updates by momentum or weight
decay. The mask is a variable that a :class:`ZeroMask` holds.

The constraint belongs to the variable, not to the layer's configuration: a saved model is a
plain Keras model that loads without tfnas. After loading, call :func:`keep_zeros` to keep its
zeros in further training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfnas.graph.layer_kernels import LayerSelection
from tfnas.keras_private import renew_train_function
from tfnas.pruning.prunable_kernels import PrunableKernel, find_kernels, select


class ZeroMask(keras.constraints.Constraint):
    """Sets masked weights to zero, after the variable's own constraint.

    Args:
        mask: Boolean Keras variable of the kernel's shape; False is zero.
        inner: The variable's own constraint, or None.
    """

    def __init__(self, mask: keras.Variable, inner: Any = None) -> None:
        self.mask = mask
        self.inner = inner

    def __call__(self, w: Any) -> Any:
        """Returns the weights with exact zeros where the mask is False.

        Args:
            w: The weights, of the mask's shape.
        """
        value = keras.ops.convert_to_tensor(w if self.inner is None else self.inner(w))
        # `where` instead of a product, so that NaN and -0.0 become 0.0 too.
        return keras.ops.where(self.mask, value, keras.ops.zeros_like(value))

    def carry(self, model: Any, kernel: Any) -> None:
        """Copies the mask to the same kernel of a model that was built from this one.

        Args:
            model: The other model.
            kernel: Its kernel.
        """
        mask = np.asarray(keras.ops.convert_to_numpy(self.mask))
        if not mask.all():
            attach(model, [kernel])
            assign_masks([kernel], [mask])


def keep_zeros(
    model: keras.Model, layers: LayerSelection | None = None, exclude: LayerSelection = ()
) -> int:
    """Keeps the zeros in a model's kernels zero in further training.

    For a pruned model that was loaded from disk, or pruned by another tool. Call it after
    loading and before `fit`. It holds for this model object and is not saved with it.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> _ = model.layers[0].kernel.assign(np.eye(4, 3))
        >>> tfnas.keep_zeros(model)
        9

    Args:
        model: A built Keras 3 model; changed in place.
        layers: Layers whose zeros are kept; None: every layer with a kernel. As for
            :func:`tfnas.prune`.
        exclude: Layers whose zeros are not kept.

    Returns:
        The number of weights that stay zero. A kernel of zeros only counts as not trained yet,
        and is not masked.

    Raises:
        ValueError: The model is not built, or no kernel holds a zero.
        RuntimeError: Keras runs on another backend than TensorFlow.

    References:
        Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
        NeurIPS 2015, for the training of the remaining weights.
    """
    kernels = select(find_kernels(model)[0], layers, exclude)[0]
    found = [(kernel, kernel.numpy() != 0) for kernel in kernels]
    sparse = [(kernel, mask) for kernel, mask in found if mask.any() and not mask.all()]
    if not sparse:
        raise ValueError(f"model must hold zeros in its kernels, got none in {model.name!r}")
    masks = [mask for _, mask in sparse]
    attach(model, [kernel for kernel, _ in sparse])
    assign_masks([kernel for kernel, _ in sparse], masks)
    return sum(int(np.count_nonzero(~mask)) for mask in masks)


def attach(model: Any, kernels: Sequence[PrunableKernel]) -> None:
    """Attaches a mask without zeros to each kernel that has no mask yet.

    The training function is built again, since it was traced without the mask.

    Args:
        model: The model of the kernels.
        kernels: The kernels.

    Raises:
        RuntimeError: Keras runs on another backend than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Keras must run on the TensorFlow backend to keep zeros in training, got "
            f"{keras.backend.backend()!r}"
        )
    new = [k for k in kernels if not isinstance(k.variable.constraint, ZeroMask)]
    if not new:
        return
    strategy = getattr(model, "distribute_strategy", None)
    for kernel in new:
        ones = np.ones(kernel.shape, bool)
        if strategy is None:
            mask = _mask_variable(ones)
        else:
            with strategy.scope():  # a mirrored variable needs a mirrored mask
                mask = _mask_variable(ones)
        kernel.variable.constraint = ZeroMask(mask, kernel.variable.constraint)
    renew_train_function(model)


def carry_masks(
    model: Any, kernels: Sequence[PrunableKernel], copies: Sequence[PrunableKernel]
) -> None:
    """Copies the masks of a model's kernels to the kernels of a copy of the model.

    Args:
        model: The copy.
        kernels: Kernels of the original.
        copies: Kernels of the copy, in the same order.
    """
    for kernel, copy in zip(kernels, copies, strict=True):
        if isinstance(kernel.variable.constraint, ZeroMask):
            attach(model, [copy])
            copy.variable.constraint.mask.assign(kernel.variable.constraint.mask)


def assign_masks(kernels: Sequence[PrunableKernel], masks: Sequence[np.ndarray]) -> None:
    """Sets the masks of kernels, and zeroes the masked weights.

    Args:
        kernels: Kernels with an attached mask.
        masks: New masks, boolean, of the kernels' shapes; False is zero.

    Raises:
        ValueError: A kernel was clustered after its mask was attached.
    """
    for kernel, mask in zip(kernels, masks, strict=True):
        constraint = kernel.variable.constraint
        if not isinstance(constraint, ZeroMask):
            raise ValueError(
                f"masks must not change after the weights of {kernel.name!r} were clustered, got a "
                f"{type(constraint).__name__} on it: prune first, then cluster, which keeps zeros"
            )
        constraint.mask.assign(mask)
    apply_masks(kernels)


def apply_masks(kernels: Sequence[PrunableKernel]) -> None:
    """Sets the masked weights of kernels to zero.

    Args:
        kernels: Kernels with masks.
    """
    for kernel in kernels:
        kernel.variable.assign(kernel.variable.constraint(kernel.variable))


def detach(kernels: Sequence[PrunableKernel]) -> None:
    """Removes the masks; the kernels get their own constraints back.

    Args:
        kernels: The kernels.
    """
    for kernel in kernels:
        if isinstance(kernel.variable.constraint, ZeroMask):
            kernel.variable.constraint = kernel.variable.constraint.inner


def _mask_variable(mask: np.ndarray) -> keras.Variable:
    return keras.Variable(mask, dtype="bool", trainable=False, name="pruning_mask")
